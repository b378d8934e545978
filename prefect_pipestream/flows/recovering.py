"""`recover-lost-runs`: flow runs whose process is dead, and that nobody ended, go on."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID, uuid5

from httpx import HTTPStatusError
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun, OrchestrationResult, State
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Crashed, to_state_create
from pydantic import Field

from prefect_pipestream.flows.signs_of_life import SignsOfLife, signs_of_life
from prefect_pipestream.reporting.progress import Log

TAG = "pipestream"
SILENT_S, SILENT_WITHOUT_HEARTBEATS_S = 240, 3600

_PAGE = 200  # as many as a server gives at a time

_Seconds = Annotated[int, Field(gt=0)]
_Quiet = list[tuple[FlowRun, SignsOfLife]]


@flow(name="recover-lost-runs")
def recover_lost_runs(
    tag: str = TAG,
    silent_for: _Seconds = SILENT_S,
    silent_without_heartbeats: _Seconds = SILENT_WITHOUT_HEARTBEATS_S,
) -> list[str]:
    """Schedules flow runs again that count as running, while their process is dead.

    A run that is on leaves signs on the server: heartbeats, events, lines of log, task runs, its
    progress. One that has left none for a while is watched for as long once more, as the server
    may have been down and not the run. If nothing comes it is scheduled again, keeps its id, and
    goes on where it stopped. Where its process was alive after all, the new attempt has the run
    from there on, and the former one stops; no sample is written twice.

    Only runs of deployments are scheduled again: nobody would start another one. Recoveries that
    are lost themselves end as *Crashed*: this one does what they were to do, and the next ones.

    Args:
        tag: The tag of the flow runs that this is about.
        silent_for: After how many seconds without a sign a run is watched, and for how many more.
            It is to be more than the time between two heartbeats: that is Prefect's setting
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY where the flows run.
        silent_without_heartbeats: As many seconds are to pass for a run that has sent no
            heartbeat, before it is watched: its samples may just take long, or it may be waiting
            for a machine.

    Returns:
        The ids of the flow runs that were scheduled again.
    """
    log = get_run_logger()
    with get_client(sync_client=True) as client:
        quiet = _quiet_runs(tag, silent_for, silent_without_heartbeats, client)
        if not quiet:
            log.info("No run with the tag %r is silent.", tag)
            return []
        names = ", ".join(run.name for run, _ in quiet)
        log.info("Silent, and watched for %d s from now on: %s", silent_for, names)
        time.sleep(silent_for)
        recovered = [run for run, before in quiet if _is_recovered(run, before, client, log)]
    return [str(run.id) for run in recovered]


def _quiet_runs(
    tag: str, silent_for: float, silent_without_heartbeats: float, client: SyncPrefectClient
) -> _Quiet:
    """The runs that have left no sign for some time, with what they left before."""
    quiet = []
    for run in _runs_in_hand(tag, client):
        if run.state is None:
            continue
        signs = signs_of_life(run, run.state, client)
        if signs.age() >= (silent_for if signs.has_heartbeats else silent_without_heartbeats):
            quiet.append((run, signs))
    return quiet


def _runs_in_hand(tag: str, client: SyncPrefectClient) -> Iterator[FlowRun]:
    """The runs that some process should have in hand: begun, or about to begin; but this one."""
    context = FlowRunContext.get()
    own = context.flow_run.id if context and context.flow_run else None
    states = [StateType.RUNNING, StateType.PENDING]
    wanted = FlowRunFilter(
        id=FlowRunFilterId(not_any_=[own]) if own else None,
        tags=FlowRunFilterTags(all_=[tag]),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
    )
    offset = 0
    while page := client.read_flow_runs(
        flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
    ):
        yield from page
        offset += len(page)


def _is_recovered(run: FlowRun, before: SignsOfLife, client: SyncPrefectClient, log: Log) -> bool:
    """Schedules a run again if it has left no sign since; says whether it was scheduled.

    A recovery is ended instead. If all that were ever lost came back at once, they would hold each
    other up, take each other for lost, and become more and more.
    """
    is_recovery = _is_recovery(run)
    try:
        now = client.read_flow_run(run.id)
        if now.state is None or signs_of_life(now, now.state, client) != before:
            log.info("Left alone, as it is on: %s", run.name)
            return False
        settle = _end if is_recovery else schedule_again
        refused = settle(run.id, before.state, client)
    except ObjectNotFound:
        refused = "it was deleted meanwhile"
    if refused:
        log.info("Left alone: %s: %s", run.name, refused)
        return False
    if is_recovery:
        log.info("Silent, and ended, as it was a recovery too: %s (%s)", run.name, run.id)
        return False
    log.warning("Silent, and scheduled again: %s (%s)", run.name, run.id)
    return True


def _is_recovery(run: FlowRun) -> bool:
    """Whether it is a run of the same flow as this one."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.flow_id == run.flow_id)


def _end(run: UUID, found_in: UUID, client: SyncPrefectClient) -> str | None:
    """Ends a recovery that is lost; gives why the server refused."""
    message = "It was silent, as a run whose process is dead; another recovery is in its place."
    return _set_state(Crashed(message=message), run, found_in, client)


def schedule_again(run: UUID, found_in: UUID, client: SyncPrefectClient) -> str | None:
    """Schedules a flow run again that is lost.

    The transition is named after the state that the run was found in: where another recovery made
    it already, the server refuses it. (Prefect's own call gives each transition a new name.)

    Args:
        run: The id of the flow run.
        found_in: The id of the state that it was found in.
        client: Asks the server.

    Returns:
        Why the server refused; None: the run is scheduled.

    Raises:
        ObjectNotFound: If there is no such flow run.
    """
    message = "It was silent, as a run whose process is dead; it is started again, and goes on."
    return _set_state(AwaitingRetry(message=message), run, found_in, client)


def _set_state(
    wanted: State[Any], run: UUID, found_in: UUID, client: SyncPrefectClient
) -> str | None:
    """Sets the state of a lost run, once; gives why the server refused."""
    state = to_state_create(wanted)
    state.state_details.flow_run_id = run
    state.state_details.transition_id = uuid5(found_in, "recover-lost-runs")
    try:
        answer = client.request(
            "POST",
            "/flow_runs/{id}/set_state",
            path_params={"id": run},
            json={"state": state.model_dump(mode="json", serialize_as_any=True), "force": False},
        )
    except HTTPStatusError as error:
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise
        raise ObjectNotFound(http_exc=error) from error
    result = OrchestrationResult[Any].model_validate(answer.json())
    if result.status == SetStateStatus.ACCEPT:
        return None
    return f"{getattr(result.details, 'reason', None) or result.status.value}"
