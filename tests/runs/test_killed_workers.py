"""A worker process that dies takes nothing with it but the group that it had open."""

import random
from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Run, undo_run
from tests.runs.datasets import contents, copy_of, differences, labels, make_dataset
from tests.runs.processes import FlowProcess, Host, wait_until

SAMPLES = 600
KEY = "its-workers-die"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_run_goes_on_when_a_worker_is_killed(host: Host, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "dataset", SAMPLES)
    original = contents(copy_of(folder, tmp_path / "original"))
    arguments = {"folder": str(folder), "run_key": KEY, "transform": "count_slowly"}
    arguments |= {"runner": "processes", "chunk_size": 100}

    def done() -> int:
        return sum(Run.of(folder, KEY).counts().values())

    def kill_a_worker_after_progress(process: FlowProcess) -> None:
        before = done()
        assert wait_until(lambda: done() > before or not process.is_alive())
        assert process.kill_a_worker(random.Random())

    with FlowProcess(host, 0.01, **arguments) as process:
        process.wait_for_begin()
        kill_a_worker_after_progress(process)
        report = process.result()

    assert report["counts"] == {
        "written": SAMPLES,
        "unchanged": 0,
        "skipped": 0,
        "failed": 0,
        "removed": 0,
    }
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
    assert "A worker process died" in report["warnings"][0]
    undo_run(folder, KEY)
    assert differences(contents(folder), original) == []
