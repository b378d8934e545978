"""A run over the samples of a dataset: submitted as tasks, and reported."""

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from prefect_pipestream import tasks
from prefect_pipestream.errors import DatasetError, WorkerDiedError
from prefect_pipestream.flows.capacity import ChunkSizer, Workers, in_flight
from prefect_pipestream.reporting.outcomes import (
    ChunkReport,
    ChunkTime,
    RunReport,
    describe_indices,
    failed_sample,
)
from prefect_pipestream.reporting.progress import Advance, Log
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import SampleFailure, SampleRecord
from prefect_pipestream.work.chunk import Indices, Stop, Transform

_STOPS_WITHIN_S = 60.0


@dataclass
class ProcessRun:
    """One execution of `process_samples`.

    Args:
        source: Where samples are read.
        target: Where they are written; may be the source.
        transform: What happens in between.
        keys: The items to write; None is all.
        retries: How often a failed sample is tried again.
        log: The flow run's logger.
        result: What became of samples so far.
        chunks: The time of each chunk.
        warnings: What looks wrong, beside what is known only at the end.
        warned: Whether it was said already that no sample has an item that is to be written.
    """

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Sequence[str] | None
    retries: int
    log: Log
    result: ChunkReport = field(default_factory=ChunkReport)
    chunks: list[ChunkTime] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    warned: bool = False

    def __post_init__(self) -> None:
        self._done_before = self.result.total

    def by_chunk(
        self, todo: npt.NDArray[np.int64], chunk_size: int | None, advance: Advance
    ) -> None:
        """Processes samples by `process_chunk`.

        Raises:
            DatasetError: If the dataset cannot be written; what was done until then is kept.
        """
        workers = Workers(task_runner())
        sizer = ChunkSizer(len(todo), workers.number, chunk_size)
        chunks: dict[PrefectFuture[Any], Indices] = {}
        stop = Stop()

        def submissions() -> Iterator[PrefectFuture[Any]]:
            begin = 0
            while size := sizer.next_size():
                chunk = _compact(todo[begin : begin + size])
                begin += size
                future = self._submit_chunk(chunk, stop)
                chunks[future] = chunk
                yield future

        def limit() -> int:
            return workers.in_flight if sizer.is_measured else workers.number

        with reachable_api():
            try:
                for future in in_flight(submissions(), limit):
                    chunk = chunks.pop(future)
                    report = self._chunk_report(future, chunk)
                    self._add(report, describe_indices(chunk))
                    sizer.measured(report.total, report.seconds)
                    advance(report.total, report.counts["failed"])
            except DatasetError:
                stop.set()  # the other chunks commit what they have, and are to be reported too
                for future in chunks:
                    future.wait(_STOPS_WITHIN_S)
                raise
            finally:
                stop.set()  # as where the flow timed out, or was cancelled

    def _add(self, report: ChunkReport, name: str) -> None:
        self.chunks.append(ChunkTime(name, dict(report.counts), report.seconds))
        self.result.add(report)
        self._warn_of_keys()

    def _warn_of_keys(self) -> None:
        """Says early, and once, if no sample has an item that is to be written: a typing error."""
        if self.result.unseen_keys and not self.warned:
            self.warned = True
            for warning in self._warnings():
                self.log.warning("So far: %s", warning)

    def _warnings(self) -> list[str]:
        processed = self.result.total - self._done_before
        return [
            f"keys: none of the {processed:,} samples processed had an item {key!r} to write."
            for key in sorted(self.result.unseen_keys or ())
        ]

    def _submit_chunk(self, chunk: Indices, stop: Stop) -> PrefectFuture[Any]:
        is_in_place = self.target is self.source
        return tasks.process_chunk.submit(
            stream=self.source.part(chunk),
            transform=self.transform,
            indices=chunk,
            target=None if is_in_place else self.target.part(chunk),
            keys=self.keys,
            sample_retries=self.retries,
            stop=stop,
        )

    def _chunk_report(self, future: PrefectFuture[Any], chunk: Indices) -> ChunkReport:
        """What a chunk did; if its task run failed, what the ledger says of it."""
        result = future.result(raise_on_failure=False)
        if isinstance(result, ChunkReport):
            return result
        if isinstance(result, DatasetError):
            raise result
        error = result if isinstance(result, BaseException) else RuntimeError(future.state.message)
        return self._report_of_failed_chunk(chunk, error)

    def _report_of_failed_chunk(self, chunk: Indices, error: BaseException) -> ChunkReport:
        records = self.target.run.outcomes(describe_indices(chunk))
        unknown = SampleFailure.of_error(error)
        report = ChunkReport()
        for idx in map(int, chunk):
            report.add_record(records.get(idx) or SampleRecord(idx, "failed", failure=unknown))
        return report

    def report(self, seconds: float) -> RunReport:
        """The report on the whole run, of which this attempt took so many seconds."""
        processed = self.result.total - self._done_before
        return RunReport(
            run_key=self.target.run_key,
            counts=self.result.counts,
            failures=sorted(self.result.failures, key=lambda failure: failure.idx),
            duration_s=seconds,
            samples_per_second=processed / seconds if seconds > 0 else 0.0,
            done_before=self._done_before,
            warnings=[*self.warnings, *self._warnings()],
        )

    def report_when_stopped(self, error: BaseException, seconds: float) -> RunReport:
        """The report on a run that cannot go on: what its ledger has, and why it stopped."""
        run = self.target.run
        report = self.report(seconds)
        stopped = f"The run stopped before its end: {type(error).__name__}: {error}"
        found = {
            "counts": run.counts(),
            "failures": list(map(failed_sample, run.failures())),
            "warnings": [stopped, *report.warnings],
        }
        return report.model_copy(update=found)


def _compact(indices: npt.NDArray[np.int64]) -> Indices:
    """The same indices as a range, if they are one: the smallest thing to pass to a task."""
    first, last = int(indices[0]), int(indices[-1])
    return range(first, last + 1) if last - first + 1 == len(indices) else indices


def task_runner() -> TaskRunner[Any] | None:
    """The task runner of the flow run; None outside of one."""
    context = FlowRunContext.get()
    return None if context is None else context.task_runner


@contextmanager
def explained_death(run_key: str) -> Iterator[None]:
    """Says of a task runner whose worker died what that means for the run.

    Raises:
        WorkerDiedError: If one did.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerDiedError(
            "A worker process died, as one that the system kills for lack of memory, or that "
            "starts a script which calls the flow without `if __name__ == '__main__':`. What was "
            f"committed is kept: a retry of the flow run, or a run with run_key={run_key!r}, goes "
            "on from there. Fewer workers, or smaller chunks, need less memory."
        ) from error


@contextmanager
def reachable_api() -> Iterator[None]:
    """Tells worker processes where the embedded API is, lest each starts one of its own."""
    context = FlowRunContext.get()
    if (
        context is None
        or PREFECT_API_URL.value() is not None
        or not isinstance(context.task_runner, ProcessPoolTaskRunner)
    ):
        yield
        return
    url = str(context.client.api_url).rstrip("/")
    with temporary_settings({PREFECT_API_URL: url}):
        yield
