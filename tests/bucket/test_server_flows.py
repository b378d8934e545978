"""The flow over a bucket of a real server: killed and gone on with, undone, and on Dask."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import at_once, open_store
from prefect_pipestream.underfolder import undo_run
from tests.bucket.drive import run_flow
from tests.prefect_layer.datasets import files_of, make_dataset
from tests.runs.processes import ROOT, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("prefect_api"),
]


def put_dataset(root: Address, folder: Path, samples: int) -> dict[str, bytes]:
    """Puts a dataset into a bucket, as another program does; returns its files."""
    files = files_of(make_dataset(folder, samples))
    at_once(lambda name: open_store(root).put(name, files[name]), files)
    return files


def files_in(root: Address) -> dict[str, bytes]:
    """The files of a dataset, without the package's own."""
    store = open_store(root)
    names = [stat.key for stat in (*store.files_in(), *store.objects_in("data"))]
    return dict(zip(names, at_once(lambda name: store.read(name).data, names), strict=True))


def runs_in(files: dict[str, bytes]) -> set[int]:
    """How often the samples were counted in."""
    metadata = [content for name, content in files.items() if name.endswith("_metadata.yaml")]
    return {int(content.partition(b"runs: ")[2].split()[0]) for content in metadata}


def commits_in(root: Address) -> int:
    return len(open_store(root).files_in(".pipestream/log"))


def start_flow(root: Address, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bucket.drive", root, "the run"],
            cwd=ROOT,
            env=environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def wait(flow: "subprocess.Popen[bytes]", until: Callable[[], bool], log: Path) -> None:
    """Waits for something while the flow runs."""
    end = time.monotonic() + 120
    while not until():
        assert flow.poll() is None, f"it ended: {log.read_text()[-4000:]}"
        assert time.monotonic() < end, f"it does not get on: {log.read_text()[-4000:]}"
        time.sleep(0.02)


def test_a_flow_that_is_killed_is_gone_on_with_and_undone(in_weed: Address, tmp_path: Path) -> None:
    samples = 300
    before = put_dataset(in_weed, tmp_path / "parts", samples)
    assert files_in(in_weed) == before
    log, kills = tmp_path / "log", 0

    for more in (3, 6):
        flow = start_flow(in_weed, log)
        try:
            known = commits_in(in_weed)
            wait(flow, lambda known=known, more=more: commits_in(in_weed) >= known + more, log)  # type: ignore[misc]
        finally:
            os.killpg(flow.pid, signal.SIGKILL)
        kills += flow.wait() == -signal.SIGKILL
    report = run_flow(in_weed, "the run")

    print(f"{kills} kills, {report.done_before} samples done before, {commits_in(in_weed)} commits")
    assert kills == 2
    assert 0 < report.done_before < samples
    assert (report.counts["written"], report.counts["failed"]) == (samples, 0)
    after = files_in(in_weed)
    assert after.keys() == before.keys()
    assert runs_in(after) == {1}
    again = run_flow(in_weed, "the run")
    assert again.done_before == samples
    undo_run(in_weed, "the run")
    assert files_in(in_weed) == before


@pytest.mark.parametrize("limits", [{"sample_timeout": 60.0}, {"tasks_per": "sample"}])
def test_samples_are_worked_on_under_a_limit_and_as_tasks(
    in_weed: Address, tmp_path: Path, limits: dict[str, Any]
) -> None:
    samples = 12
    before = put_dataset(in_weed, tmp_path / "parts", samples)

    report = run_flow(in_weed, "the run", **limits)

    assert (report.counts["written"], report.counts["failed"]) == (samples, 0)
    assert runs_in(files_in(in_weed)) == {1}
    undo_run(in_weed, "the run")
    assert files_in(in_weed) == before


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
@pytest.mark.filterwarnings("ignore")  # those of the cluster, as it ends
def test_the_flow_runs_on_dask(in_weed: Address, tmp_path: Path, tasks_per: str) -> None:
    prefect_dask = pytest.importorskip("prefect_dask", reason="needs the extra [dask]")
    samples = 60 if tasks_per == "chunk" else 6
    before = put_dataset(in_weed, tmp_path / "parts", samples)
    runner = prefect_dask.DaskTaskRunner(
        cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    )

    report = run_flow(in_weed, "the run", runner, tasks_per=tasks_per)

    assert (report.counts["written"], report.counts["failed"]) == (samples, 0)
    assert runs_in(files_in(in_weed)) == {1}
    undo_run(in_weed, "the run")
    assert files_in(in_weed) == before
