"""Scheduled cleaning of four datasets at once, with Prefect on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Run
from tests.prefect_layer.datasets import make_dataset, runs_of
from tests.ui.api import Api, waited
from tests.ui.host import PrefectHost
from tests.ui.test_worker import COUNT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATASETS = 4
SAMPLES = 60


def test_four_schedules_at_once_lose_nothing(any_host: PrefectHost, tmp_path: Path) -> None:
    api = Api(any_host)
    deployment = api.deployment("clean-dataset/clean-on-demand")
    folders = [make_dataset(tmp_path / f"parts{n}", SAMPLES) for n in range(DATASETS)]
    schedules = [
        {
            "schedule": {"interval": 40},
            "active": True,
            "slug": folder.name,
            "parameters": {
                "dataset": {"folder": str(folder)},
                "transform": [COUNT],
                "chunk_size": 5,
                "select": "changed",
            },
        }
        for folder in folders
    ]
    made = api.ask(f"deployments/{deployment}/schedules", schedules)
    try:
        waited(lambda: len(api.runs(deployment, "COMPLETED")) >= 2 * DATASETS, seconds=300)
    finally:
        for schedule in made:
            api.ask(f"deployments/{deployment}/schedules/{schedule['id']}", method="DELETE")
    completed = api.runs(deployment, "COMPLETED")
    for folder in folders:
        assert runs_of(folder, range(SAMPLES)) == [1] * SAMPLES
        done = [len(Run.of(folder, run["id"]).outcomes()) for run in completed]
        assert sum(done) == SAMPLES
    assert not api.runs(deployment, "FAILED", "CRASHED")
    assert _most_at_once(completed) > 1
    if "PREFECT_API_DATABASE_CONNECTION_URL" in any_host.env:
        # On SQLite Prefect's server may say so, and its clients try again.
        for log in any_host.home.glob("*.log"):
            assert "database is locked" not in log.read_text("utf-8", "replace")


def _most_at_once(runs: list[dict[str, str]]) -> int:
    """How many runs were on at the same time."""
    return max(
        sum(one["start_time"] <= other["start_time"] < one["end_time"] for one in runs)
        for other in runs
    )
