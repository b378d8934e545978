"""Lost flow runs, told from those that are on by what they leave on a real Prefect API."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate, LogCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.events import Event, emit_event
from prefect.events.filters import EventAnyResourceFilter, EventFilter
from prefect.states import Completed, Pending, Running, Scheduled, State
from prefect.types._datetime import now

from prefect_pipestream.flows import clean_dataset, recover_lost_runs
from prefect_pipestream.flows.recovering import schedule_again
from tests.ui.api import waited

pytestmark = pytest.mark.usefixtures("prefect_api")

AT_ONCE = {"silent_for": 1, "silent_without_heartbeats": 1}


@pytest.fixture
def client(prefect_api: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def tag() -> str:
    """A tag of its own: other tests' runs are not its business."""
    return f"tag-{uuid4()}"


Start = Callable[..., UUID]
AnyFlow = Flow[..., Any]


@pytest.fixture
def start(client: SyncPrefectClient, tag: str) -> Start:
    """Makes a flow run of a deployment, in a state, without a process."""
    deployments = {
        of: client.create_deployment(client.create_flow(of), f"of-{tag}")
        for of in (clean_dataset, recover_lost_runs)
    }

    def start(
        state: State | None = None, tags: list[str] | None = None, of: AnyFlow = clean_dataset
    ) -> UUID:
        run = client.create_flow_run_from_deployment(deployments[of], tags=tags or [tag])
        client.set_flow_run_state(run.id, state or Running(), force=True)
        name = f"prefect.flow-run.{(state or Running()).name}"
        waited(lambda: name in [event.event for event in events_of(client, run.id)])
        return run.id

    return start


def state_of(client: SyncPrefectClient, run: UUID) -> str:
    state = client.read_flow_run(run).state
    assert state is not None
    return state.name


def events_of(client: SyncPrefectClient, run: UUID) -> list[Event]:
    asked = EventFilter(any_resource=EventAnyResourceFilter(id=[f"prefect.flow-run.{run}"]))
    return list(client.read_events(asked, limit=9).events)


def send_heartbeat(client: SyncPrefectClient, run: UUID) -> None:
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    sent = emit_event("prefect.flow-run.heartbeat", resource)
    assert sent is not None
    waited(lambda: sent.id in [event.id for event in events_of(client, run)])


@pytest.mark.parametrize("state", [Running(), Pending()], ids=["running", "pending"])
def test_silent_run_is_scheduled_again_and_keeps_its_id(
    client: SyncPrefectClient, start: Start, tag: str, state: State
) -> None:
    run = start(state)
    time.sleep(1)
    assert recover_lost_runs(tag, **AT_ONCE) == [str(run)]
    found = client.read_flow_run(run)
    assert found.state is not None
    assert (found.state.type.value, found.state.name) == ("SCHEDULED", "AwaitingRetry")
    assert found.next_scheduled_start_time is not None
    assert found.next_scheduled_start_time <= now("UTC")
    assert recover_lost_runs(tag, **AT_ONCE) == []


def test_runs_that_nobody_is_to_have_in_hand_or_nobody_would_start_are_left_alone(
    client: SyncPrefectClient, start: Start, tag: str
) -> None:
    runs = [start(Completed()), start(Scheduled()), start(tags=["another"])]
    of_a_script = client.create_flow_run(clean_dataset, tags=[tag], state=Running())
    runs.append(of_a_script.id)
    before = [state_of(client, run) for run in runs]
    time.sleep(1)
    assert recover_lost_runs(tag, **AT_ONCE) == []
    assert [state_of(client, run) for run in runs] == before


def test_a_run_that_sends_heartbeats_is_given_less_time_than_one_that_sends_none(
    client: SyncPrefectClient, start: Start, tag: str
) -> None:
    sends_none, sends, sent_before = start(), start(), start()
    send_heartbeat(client, sent_before)
    send_heartbeat(client, sends)
    client.set_flow_run_state(sent_before, Running(), force=True)  # an attempt that sends none
    time.sleep(1)
    assert recover_lost_runs(tag, silent_for=1) == [str(sends)]
    assert {state_of(client, run) for run in (sends_none, sent_before)} == {"Running"}


def write_log(client: SyncPrefectClient, run: UUID) -> None:
    line = {"name": "x", "level": 20, "message": "on", "timestamp": now("UTC")}
    client.create_logs([LogCreate(**line, flow_run_id=run)])


def move_progress(client: SyncPrefectClient, run: UUID) -> None:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    (artifact,) = client.read_artifacts(artifact_filter=of_run)
    client.update_artifact(artifact.id, ArtifactUpdate(data=2))


def begin_anew(client: SyncPrefectClient, run: UUID) -> None:
    client.set_flow_run_state(run, Running(), force=True)


def complete(client: SyncPrefectClient, run: UUID) -> None:
    client.set_flow_run_state(run, Completed(), force=True)


@pytest.mark.parametrize(
    "sign",
    [
        move_progress,
        complete,
        pytest.param(write_log, marks=pytest.mark.slow),
        pytest.param(begin_anew, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_gives_a_sign_while_it_is_watched_is_left_alone(
    client: SyncPrefectClient,
    start: Start,
    tag: str,
    sign: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start()
    client.create_artifact(ArtifactCreate(type="progress", data=1, flow_run_id=run))
    time.sleep(1)
    with ThreadPoolExecutor(1) as pool:
        recovery = pool.submit(recover_lost_runs, tag, silent_for=3, silent_without_heartbeats=1)
        waited(lambda: "watched for 3 s" in caplog.text)
        sign(client, run)
        assert recovery.result() == []
    assert state_of(client, run) == ("Completed" if sign is complete else "Running")


def test_recoveries_at_the_same_time_schedule_a_run_once(
    client: SyncPrefectClient, start: Start, tag: str
) -> None:
    runs = {str(start()) for _ in range(3)}
    time.sleep(1)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(recover_lost_runs, tag, **AT_ONCE) for _ in range(2)]
        found = [id_ for future in both for id_ in future.result()]
    assert sorted(found) == sorted(runs)
    for run in runs:
        names = [state.name for state in client.read_flow_run_states(UUID(run))]
        assert names.count("AwaitingRetry") == 1


@pytest.mark.parametrize("state", [Running(), Pending()], ids=["running", "pending"])
def test_recoveries_that_are_lost_do_not_come_back_and_pile_up(
    client: SyncPrefectClient, start: Start, tag: str, state: State
) -> None:
    lost, recovery = start(), start(state, of=recover_lost_runs)
    time.sleep(1)
    assert recover_lost_runs(tag, **AT_ONCE) == [str(lost)]
    assert state_of(client, recovery) == "Crashed"


def test_the_server_refuses_what_another_recovery_did_already(
    client: SyncPrefectClient, start: Start
) -> None:
    run = start()
    state = client.read_flow_run(run).state
    assert state is not None
    assert schedule_again(run, state.id, client) is None
    refused = schedule_again(run, state.id, client)
    assert refused is not None
    assert "already" in refused
