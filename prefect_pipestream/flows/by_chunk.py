"""A run with a task run for many samples."""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from prefect_pipestream import tasks
from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.flows.runner import (
    ChunkSizer,
    Workers,
    in_flight,
    reachable_api,
    workers_on,
)
from prefect_pipestream.reporting.progress import Advance
from prefect_pipestream.reporting.reports import ChunkReport, describe_indices
from prefect_pipestream.underfolder import SampleFailure, SampleRecord
from prefect_pipestream.work.chunk import Indices
from prefect_pipestream.work.chunk_task import Stop
from prefect_pipestream.work.workplaces import BRIEF_S, Workplaces

_STOPS_WITHIN_S = 60.0


def run_by_chunk(
    run: ProcessRun, todo: npt.NDArray[np.int64], chunk_size: int | None, advance: Advance
) -> None:
    """Processes samples by `process_chunk`.

    Where a worker of a pool of processes dies, which ends the pool, the rest goes on in processes
    that may end: then it is seen which sample it is that ends them.

    Raises:
        DatasetError: If the dataset cannot be written; what was done until then is kept.
    """
    workers = workers_on(run.source.input_folder, run.target.output_folder)
    chunks = _Chunks(run, todo, chunk_size, workers)
    try:
        chunks.process(advance)
    except BrokenExecutor as error:
        run.warn(
            f"A worker process died ({error}): as one that the system kills for lack of memory, or "
            "that starts a script which calls the flow without `if __name__ == '__main__':`. The "
            "rest goes on in other processes; a sample that ends its process fails."
        )
        run.begin_attempt_apart()
        threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers.number)
        with threads as runner:
            _Chunks(run, chunks.rest(), chunk_size, Workers(runner), runner).process(advance)


class _Chunks:
    """Samples that are processed chunk by chunk.

    Args:
        run: The run.
        todo: The samples.
        chunk_size: How many samples a chunk has; None: by time.
        workers: What the task runner can do at once.
        runner: The task runner; None is that of the flow run.
    """

    def __init__(
        self,
        run: ProcessRun,
        todo: npt.NDArray[np.int64],
        chunk_size: int | None,
        workers: Workers,
        runner: TaskRunner[Any] | None = None,
    ) -> None:
        self._run = run
        self._todo = todo
        self._sizer = ChunkSizer(len(todo), workers.number, chunk_size, workers.least)
        self._workers = workers
        self._runner = runner
        self._begin = 0
        self._open: dict[PrefectFuture[Any], Indices] = {}
        places = Workplaces(workers.number, len(todo), run.log) if workers.are_ours else None
        self._places = None if run.works_apart else places
        self._stop = Stop(self._places)

    def process(self, advance: Advance) -> None:
        """Processes all of them.

        Raises:
            BrokenExecutor: If a worker process died.
            DatasetError: If the dataset cannot be written.
        """
        with reachable_api(to_processes=self._run.works_apart):
            try:
                for future in in_flight(self._submissions(), self._limit):
                    chunk = self._open[future]
                    report = _report_on(self._run, future, chunk)
                    del self._open[future]
                    self._run.add(report, describe_indices(chunk))
                    self._sizer.measured(report.total, report.seconds)
                    advance(report.total, report.counts["failed"])
            except DatasetError:
                self._stop.set()  # the other chunks commit what they have, and are to be reported
                for future in self._open:
                    future.wait(_STOPS_WITHIN_S)
                raise
            finally:
                self._stop.set()  # as where the flow timed out, or was cancelled

    def rest(self) -> npt.NDArray[np.int64]:
        """The samples of chunks that were not reported: int64, ascending."""
        parts = [self._todo[self._begin :], *map(np.asarray, self._open.values())]
        return np.sort(np.concatenate(parts)).astype(np.int64)

    def _submissions(self) -> Iterator[PrefectFuture[Any]]:
        while size := self._next_size():
            chunk = _compact(self._todo[self._begin : self._begin + size])
            future = self._submitted(chunk)
            self._begin += size
            self._open[future] = chunk
            yield future

    def _next_size(self) -> int:
        are_settled = self._places is None or self._places.are_settled
        return self._sizer.next_size(self._workers.chunk_s if are_settled else BRIEF_S)

    def _limit(self) -> int:
        if not self._sizer.is_measured:
            return self._workers.number
        return self._workers.in_flight + (self._places is not None)  # one waits for a place

    def _submitted(self, chunk: Indices) -> PrefectFuture[Any]:
        run = self._run
        is_in_place = run.target is run.source
        parameters: dict[str, Any] = {
            "stream": run.source.part(chunk),
            "transform": run.transform,
            "indices": chunk,
            "target": None if is_in_place else run.target.part(chunk),
            "keys": run.keys,
            "sample_retries": run.retries,
            "stop": self._stop,
            "limits": run.limits,
        }
        if self._runner is None:
            future: PrefectFuture[Any] = tasks.process_chunk.submit(**parameters)
        else:
            future = self._runner.submit(tasks.process_chunk, parameters)
        return future


def _report_on(run: ProcessRun, future: PrefectFuture[Any], chunk: Indices) -> ChunkReport:
    """What a chunk did; if its task run failed, what the ledger says of it."""
    result = future.result(raise_on_failure=False)
    if isinstance(result, ChunkReport):
        return result
    if isinstance(result, DatasetError):
        raise result
    error = result if isinstance(result, BaseException) else RuntimeError(future.state.message)
    return _report_on_failed(run, chunk, error)


def _report_on_failed(run: ProcessRun, chunk: Indices, error: BaseException) -> ChunkReport:
    records = run.target.run.outcomes(describe_indices(chunk))
    unknown = SampleFailure.of_error(error)
    report = ChunkReport()
    for idx in map(int, chunk):
        report.add_record(records.get(idx) or SampleRecord(idx, "failed", failure=unknown))
    return report


def _compact(indices: npt.NDArray[np.int64]) -> Indices:
    """The same indices as a range, if they are one: the smallest thing to pass to a task."""
    first, last = int(indices[0]), int(indices[-1])
    return range(first, last + 1) if last - first + 1 == len(indices) else indices
