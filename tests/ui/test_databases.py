"""Scheduled cleaning of four datasets at once, with Prefect on SQLite and on PostgreSQL."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Run
from tests.prefect_layer.datasets import make_dataset, runs_of
from tests.ui.api import Api, waited
from tests.ui.conftest import started
from tests.ui.host import PrefectHost, free_port
from tests.ui.test_worker import COUNT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATASETS = 4
SAMPLES = 60
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The address of an empty PostgreSQL database: Debian's, on a free port of loopback."""
    if not _BINARIES:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    binaries, port = _BINARIES[0], free_port()
    # It refuses to run as root; and its folder must be its user's from the top.
    home = Path("/tmp") / f"pipestream-postgresql-{port}"
    home.mkdir()
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(home, *(pwd.getpwnam("postgres").pw_uid,) * 2)
    data, control = str(home / "data"), [*user, str(binaries / "pg_ctl")]
    server = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    try:
        initdb = [*user, str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "prefect"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home)
        start = [*control, "-D", data, "-w", "-l", str(home / "log"), "-o", server, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=home)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        stop = [*control, "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd=home)
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefectHost]:
    """A host on either database."""
    settings = {}
    if request.param == "postgresql":
        address = request.getfixturevalue("postgresql")
        settings["PREFECT_API_DATABASE_CONNECTION_URL"] = address
    with started(PrefectHost(tmp_path / "host", settings)) as host:
        yield host


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
