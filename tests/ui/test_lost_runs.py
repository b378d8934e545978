"""Runs whose process, worker or server died are found and go on; others are left alone."""

import json
import os
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient

from prefect_pipestream.flows.recovering import schedule_again
from prefect_pipestream.underfolder import Run
from tests.prefect_layer.datasets import make_dataset, runs_of
from tests.ui.api import Api, waited
from tests.ui.conftest import POOL
from tests.ui.host import PrefectHost
from tests.ui.test_worker import COUNT, heartbeats_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLES = 120
SILENT_S = 40  # heartbeats come every 30 seconds, which is as often as Prefect sends them


def begin(api: Api, dataset: Path) -> str:
    """Starts a run that takes some time, and waits until it has sent a heartbeat and written."""
    run = api.start(
        "clean-dataset/clean-on-demand",
        dataset=str(dataset),
        transform=[COUNT, {"tests.ui.stages:take_time": {"seconds": 0.4}}],
        chunk_size=10,
    )
    waited(lambda: api.ask("events/filter", heartbeats_of(run))["events"])
    waited(lambda: len(Run.of(dataset, run).outcomes()) > 10)
    return run


def recover_by_deployment(api: Api, host: PrefectHost) -> list[str]:
    recovery = api.start("recover-lost-runs/lost-runs", silent_for=SILENT_S)
    api.wait_for_state(recovery, "Completed")
    lines = lines_of(api, recovery, "scheduled again")
    return [line.rpartition("(")[2].rstrip(")") for line in lines]


def recover_by_command(api: Api, host: PrefectHost) -> list[str]:
    printed = host.pipestream("recover", "--silent-for", str(SILENT_S), "--json")
    found: list[str] = json.loads(printed)["scheduled_again"]
    return found


def lines_of(api: Api, run: str, having: str) -> list[str]:
    """Waits for lines of a run's log, which come some time after its state."""

    def lines() -> list[str]:
        logs = api.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
        return [one["message"] for one in logs if having in one["message"]]

    found: list[str] = waited(lines)
    return found


def states_of(api: Api, run: str) -> list[str]:
    return [one["name"] for one in api.ask(f"flow_run_states/?flow_run_id={run}")]


@pytest.mark.parametrize("server_too", [False, True], ids=["worker", "worker and server"])
def test_run_whose_process_was_killed_is_started_again_and_applies_every_sample_once(
    api: Api, host: PrefectHost, folder: Path, server_too: bool
) -> None:
    dataset = make_dataset(folder / f"killed-{server_too}", SAMPLES)
    run = begin(api, dataset)
    if server_too:
        host.kill_all()
        host.start_server()
        host.start_worker(POOL)
    else:
        host.restart_worker(POOL)
    assert 0 < len(Run.of(dataset, run).outcomes()) < SAMPLES
    time.sleep(SILENT_S)
    assert api.ask(f"flow_runs/{run}")["state"]["name"] == "Running"  # who should know better?
    recover = recover_by_command if server_too else recover_by_deployment
    assert recover(api, host) == [run]
    api.wait_for_state(run, "Completed", seconds=300)
    assert runs_of(dataset, range(SAMPLES)) == [1] * SAMPLES
    assert api.ask(f"flow_runs/{run}")["run_count"] == 2
    assert states_of(api, run).count("AwaitingRetry") == 1


def test_run_that_was_merely_held_up_is_left_alone(
    api: Api, host: PrefectHost, folder: Path
) -> None:
    dataset = make_dataset(folder / "held-up", SAMPLES)
    run = begin(api, dataset)
    held_up = host.flow_runs()
    signal_all(held_up, signal.SIGSTOP)
    try:
        time.sleep(SILENT_S)
        recovery = api.start("recover-lost-runs/lost-runs", silent_for=SILENT_S)
        lines_of(api, recovery, "watched for")
    finally:
        signal_all(held_up, signal.SIGCONT)
    api.wait_for_state(recovery, "Completed")
    assert lines_of(api, recovery, "Left alone")
    api.wait_for_state(run, "Completed", seconds=300)
    assert runs_of(dataset, range(SAMPLES)) == [1] * SAMPLES
    assert api.ask(f"flow_runs/{run}")["run_count"] == 1
    assert "AwaitingRetry" not in states_of(api, run)


def test_run_that_was_alive_after_all_is_taken_over_and_applies_every_sample_once(
    api: Api, host: PrefectHost, folder: Path
) -> None:
    dataset = make_dataset(folder / "alive", SAMPLES)
    run = begin(api, dataset)
    with SyncPrefectClient(f"{host.url}/api") as client:
        state = UUID(api.ask(f"flow_runs/{run}")["state"]["id"])
        assert schedule_again(UUID(run), state, client) is None
    # The former attempt ends as Failed, which is seen until the new one ends.
    waited(lambda: api.ask(f"flow_runs/{run}")["state"]["name"] == "Completed", seconds=300)
    assert lines_of(api, run, "another attempt at run")
    assert runs_of(dataset, range(SAMPLES)) == [1] * SAMPLES
    assert api.ask(f"flow_runs/{run}")["run_count"] == 2


def signal_all(processes: list[int], what: signal.Signals) -> None:
    for process in processes:
        os.kill(process, what)
