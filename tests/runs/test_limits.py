"""Samples with limits: one that hangs, crashes or takes all memory fails alone."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.flows.processing import RunReport, process_samples
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.tasks import Limits, process_chunk
from prefect_pipestream.underfolder import undo_run
from prefect_pipestream.work.chunk_task import Stop
from tests.runs.datasets import contents, differences, labels, make_dataset
from tests.runs.processes import ROOT, environment, wait_until
from tests.runs.transforms import BREAKS, Breaks, KillsOnce, count
from tests.underfolder.conftest import run_of

pytestmark = pytest.mark.usefixtures("prefect_api")

ERRORS = {
    "loop": ("SampleTimeoutError", "_loop"),
    "sleep": ("SampleTimeoutError", "<lambda>"),
    "block in C": ("SampleTimeoutError", "_sleep_in_c"),
    "memory": ("MemoryError", "numpy"),
    "os._exit": ("SampleDiedError", "exit code 3"),
    "sys.exit": ("SystemExit", "at once"),
    "segmentation fault": ("SampleDiedError", "string_at"),
    "kill": ("SampleDiedError", "SIGKILL"),
}


def processed(folder: Place, transform: Any, **options: Any) -> RunReport:
    options = {"max_failed": 1.0, "sample_retries": 0, "artifacts": False, **options}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **options)


def expect_broken(report: RunReport, at: dict[int, str]) -> None:
    """Expects that just these samples failed, each with its error and the stack where it stood."""
    failures = {failure.idx: failure for failure in report.failures}
    assert {idx: failures[idx].error_type for idx in failures} == {
        idx: ERRORS[how][0] for idx, how in at.items()
    }
    for idx, how in at.items():
        assert ERRORS[how][1] in failures[idx].traceback, failures[idx].traceback


@pytest.mark.about_files
def test_samples_that_hang_or_crash_fail_alone(dataset: Path) -> None:
    before = contents(dataset)
    at = {2: "sleep", 5: "os._exit", 8: "memory"}

    report = processed(
        dataset, Breaks(at), sample_timeout=2, sample_memory=2000, chunk_size=6, run_key="k"
    )

    assert (report.counts["written"], report.counts["failed"]) == (9, 3)
    expect_broken(report, at)
    assert labels(dataset) == [idx if idx in at else idx + 1 for idx in range(12)]
    again = processed(dataset, count, sample_timeout=2, select="failed", run_key="k")
    assert again.counts["written"] == 12
    assert labels(dataset) == [idx + 1 for idx in range(12)]
    undo_run(dataset, "k")
    assert differences(contents(dataset), before) == []


@pytest.mark.slow
@pytest.mark.about_files
def test_a_sample_whose_process_was_killed_is_tried_alone(dataset: Path, tmp_path: Path) -> None:
    transform = KillsOnce(4, tmp_path / "mark")

    report = processed(dataset, transform, sample_timeout=60, run_key="k")

    assert report.counts["written"] == 12
    assert labels(dataset) == [idx + 1 for idx in range(12)]
    assert run_of(dataset, "k").outcomes()[4].attempts == 2


@pytest.mark.slow
@pytest.mark.about_files
def test_what_a_signal_cuts_short_is_not_taken_for_done(dataset: Path) -> None:
    report = processed(dataset, Breaks({1: "block in C"}), sample_timeout=1, indices=[1, 2])
    assert (report.counts["written"], report.counts["failed"]) == (1, 1)
    assert labels(dataset)[:3] == [0, 1, 3]


@pytest.mark.slow
@pytest.mark.about_files
def test_a_process_that_is_used_again_keeps_no_limit_of_an_earlier_run(dataset: Path) -> None:
    def slow_and_large(sample: Sample) -> Sample:
        np.ones(300 * 2**20, np.uint8)
        time.sleep(13)  # longer than the process outlives a limit of the run before
        return count(sample)

    processed(dataset, count, sample_timeout=1, sample_memory=100, indices=[0])
    report = processed(dataset, slow_and_large, sample_memory=4000, indices=[1])
    assert report.counts["written"] == 1
    assert processed(dataset, slow_and_large, sample_timeout=60, indices=[2]).counts["written"] == 1


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
def test_limits_are_numbers_above_zero(dataset: Place, limit: float) -> None:
    for name in ("sample_timeout", "sample_memory"):
        with pytest.raises((ValueError, ParameterTypeError), match=name):
            processed(dataset, count, **{name: limit})
    assert labels(dataset) == list(range(12))


def test_samples_that_are_tasks_of_their_own_have_no_limits(dataset: Place) -> None:
    with pytest.raises(ValueError, match="tasks_per='chunk'"):
        processed(dataset, count, sample_timeout=1, tasks_per="sample")


def test_a_transform_that_cannot_be_handed_to_a_process_is_refused(dataset: Place) -> None:
    lock = threading.Lock()

    def locked(sample: Sample) -> Sample:
        with lock:
            return count(sample)

    with pytest.raises(PipeBuildingError, match=r"lock.*leave sample_timeout"):
        process_chunk(ReadWriteUnderfolder(folder=dataset), locked, [0], limits=Limits())
    assert labels(dataset) == list(range(12))


@pytest.mark.slow
@pytest.mark.about_files
def test_a_chunk_that_is_stopped_does_not_wait_for_a_sample_that_hangs(dataset: Path) -> None:
    stop = Stop()
    timer = threading.Timer(3, stop.set)
    timer.start()

    @flow
    def stopped() -> str:
        block = ReadWriteUnderfolder(folder=dataset)
        state = process_chunk(
            block, Breaks({4: "sleep"}), range(12), stop=stop, limits=Limits(), return_state=True
        )
        return state.name

    assert stopped() == "Cancelled"
    timer.join()
    assert labels(dataset)[4:] == list(range(4, 12))


@pytest.mark.slow
@pytest.mark.about_files
def test_a_transform_logs_to_its_flow_run(dataset: Path) -> None:
    def tells(sample: Sample) -> Sample:
        get_run_logger().info("told of %s", int(sample["label"]().item()))
        return count(sample)

    @flow
    def telling() -> str:
        process_samples.fn(
            ReadWriteUnderfolder(folder=dataset), tells, sample_timeout=60, artifacts=False
        )
        return str(flow_run.id)

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[telling()]))

    def told() -> set[str]:
        with get_client(sync_client=True) as client:
            logs = client.read_logs(wanted)
        return {log.message for log in logs if log.message.startswith("told of")}

    assert wait_until(lambda: told() == {f"told of {idx}" for idx in range(12)}, 30)


def hang(folder: str, how: str, mark: str) -> None:
    """Notes its process and hangs, at the first sample."""

    def noted(sample: Sample) -> Sample:
        Path(mark).write_text(str(os.getpid()))
        BREAKS[how]()
        return sample

    processed(Path(folder), noted, sample_timeout=8)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep", "block in C"])
@pytest.mark.about_files
def test_the_process_ends_with_its_owner(dataset: Path, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "pid"
    arguments = (str(dataset), how, str(mark))
    code = f"from tests.runs.test_limits import hang; hang{arguments}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment()) as owner:
        assert wait_until(lambda: mark.exists() and mark.read_text() != "", 60)
        owner.kill()
    assert wait_until(lambda: _has_ended(int(mark.read_text())), 40)


@pytest.mark.slow
@pytest.mark.about_files
def test_processes_that_have_nothing_to_do_end(dataset: Path, tmp_path: Path) -> None:
    def notes(sample: Sample) -> Sample:
        (tmp_path / f"{os.getpid()}.pid").touch()
        return count(sample)

    processed(dataset, notes, sample_timeout=60, chunk_size=4)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert os.getpid() not in pids
    # A process that has ended is a zombie until its owner looks at it, as before the next chunk.
    assert wait_until(lambda: all(_has_ended(pid) for pid in pids), 30)


def _has_ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def _runner(name: str) -> TaskRunner[Any]:
    if name == "threads":
        return ThreadPoolTaskRunner(max_workers=2)
    if name == "processes":
        return ProcessPoolTaskRunner(max_workers=2)
    prefect_dask = pytest.importorskip("prefect_dask", reason="needs the extra [dask]")
    return prefect_dask.DaskTaskRunner(
        cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # those of Dask, as it ends
@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_of_a_thousand_samples_those_that_break_fail(tmp_path: Path, runner: str) -> None:
    folder = make_dataset(tmp_path / "dataset", 1000)
    before = contents(folder)
    at = dict(zip(range(60, 1000, 120), BREAKS, strict=True))
    process = process_samples.with_options(task_runner=_runner(runner))

    report = process(
        ReadWriteUnderfolder(folder=folder),
        Breaks(at),
        sample_retries=0,
        max_failed=0.1,
        sample_timeout=3,
        sample_memory=2000,
        run_key="k",
    )

    assert (report.counts["written"], report.counts["failed"]) == (1000 - len(at), len(at))
    expect_broken(report, at)
    assert labels(folder) == [idx if idx in at else idx + 1 for idx in range(1000)]
    undo_run(folder, "k")
    assert differences(contents(folder), before) == []
