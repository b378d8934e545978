"""Server, worker and flow runs are killed together at random moments, on either database."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.underfolder import Run, check
from tests.prefect_layer.datasets import make_dataset, runs_of
from tests.ui.api import Api, waited
from tests.ui.conftest import POOL
from tests.ui.host import PrefectHost
from tests.ui.test_worker import COUNT

KILLS = int(os.environ.get("PIPESTREAM_KILLS") or 2)
SEED = int(os.environ.get("PIPESTREAM_KILLS_SEED") or random.randrange(1_000_000))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 300 * KILLS)]

SAMPLES = 80
DEPLOYMENT = "clean-dataset/clean-on-demand"
# While chunks are done, the progress of a run moves every 2 seconds.
OFTEN = {
    "schedule": {"interval": 30},
    "active": True,
    "slug": "often",
    "parameters": {"silent_for": 15, "silent_without_heartbeats": 60},
}
# What is waited for before some seconds pass until all are killed. "restarted" kills before the
# run is picked up again, and the recovery in its turn: the run is lost only once by both.
LAST_SEEN = ["restarted", "picked up", "running", "working", "working"]
SECONDS = 8.0
PATIENCE_S = 300.0


def test_runs_killed_with_server_and_worker_are_picked_up_and_apply_every_sample_once(
    any_host: PrefectHost, tmp_path: Path
) -> None:
    """Kills all of them until runs were lost, and picked up, `PIPESTREAM_KILLS` times (2).

    More take about a minute each. What was killed when is printed (`pytest -s`); the moments are
    those of `PIPESTREAM_KILLS_SEED`, by default of a new one.
    """
    print(f"\nPIPESTREAM_KILLS={KILLS} PIPESTREAM_KILLS_SEED={SEED}")
    api, moments = Api(any_host), random.Random(SEED)
    recover_often(api)
    keep_to_one_at_a_time(api)
    started: list[Killed] = []
    lost = 0
    while lost < KILLS:
        if not started or started[-1].state() == "Completed":
            started.append(Killed(api, any_host, tmp_path / f"parts{len(started)}"))
        last_seen = moments.choice(LAST_SEEN) if lost else "working"
        lost += started[-1].is_lost(last_seen, moments.uniform(0, SECONDS))
    for run in started:
        waited(lambda run=run: run.state() == "Completed", PATIENCE_S)
        run.check()


def recover_often(api: Api) -> None:
    """Looks for lost runs all the time, by their deployment; it is killed with the others."""
    lost_runs = api.deployment("recover-lost-runs/lost-runs")
    api.ask(f"deployments/{lost_runs}/schedules", [OFTEN])


def keep_to_one_at_a_time(api: Api) -> None:
    """A lost run that did not give its slot back would be cancelled when it is started again."""
    limit = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "CANCEL_NEW"}}
    api.ask(f"deployments/{api.deployment(DEPLOYMENT)}", limit, method="PATCH")


class Killed:
    """A run over a dataset of its own, and the states in which kills left it."""

    def __init__(self, api: Api, host: PrefectHost, folder: Path) -> None:
        self._api, self._host = api, host
        self._dataset = make_dataset(folder, SAMPLES)
        self._run = api.start(
            DEPLOYMENT,
            dataset=str(self._dataset),
            transform=[COUNT, {"tests.ui.stages:take_time": {"seconds": 0.5}}],
            chunk_size=5,
        )
        self._left_in = self._state()
        self._lost: set[str] = set()
        self._done = 0

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = self._api.ask(f"flow_runs/{self._run}")["state"]
        return found

    def state(self) -> str:
        name: str = self._state()["name"]
        return name

    def is_lost(self, last_seen: str, seconds: float) -> bool:
        """Kills the run and all, some time after it was seen; says whether it is lost by that."""
        waited(lambda: self._is_seen(last_seen), PATIENCE_S)
        time.sleep(seconds)
        self._host.kill_all()
        self._done = self._done_now()
        self._host.start_server()
        self._left_in = self._state()
        self._host.start_worker(POOL)
        print(
            f"{time.strftime('%X')} killed {seconds:.1f} s after {last_seen}: "
            f"{self._left_in['name']}, {self._done} of {SAMPLES} samples done"
        )
        before = len(self._lost)
        if self._left_in["type"] in ("PENDING", "RUNNING"):
            self._lost.add(self._left_in["id"])
        return len(self._lost) > before

    def _is_seen(self, last_seen: str) -> bool:
        if last_seen == "restarted":
            return True
        state = self._state()
        if state["type"] == "COMPLETED":
            return True
        if last_seen == "working":
            return self._done_now() > self._done
        not_yet = ["SCHEDULED"] if last_seen == "picked up" else ["SCHEDULED", "PENDING"]
        return state["id"] != self._left_in["id"] and state["type"] not in not_yet

    def _done_now(self) -> int:
        return len(Run.of(self._dataset, self._run).done_indices())

    def check(self) -> None:
        """Every sample was processed once, and is so in the ledger; nobody helped the run."""
        assert runs_of(self._dataset, range(SAMPLES)) == [1] * SAMPLES
        commits = Run.of(self._dataset, self._run).commits()
        records = [sample for commit in commits for sample in commit.samples]
        assert sorted(record.idx for record in records) == list(range(SAMPLES))
        assert {record.outcome for record in records} == {"written"}
        assert check(self._dataset).problems == ()
        states = self._api.ask(f"flow_run_states/?flow_run_id={self._run}")
        names = [state["name"] for state in states]
        print(f"{time.strftime('%X')} {' → '.join(names)}")
        assert names.count("AwaitingRetry") >= len(self._lost)
