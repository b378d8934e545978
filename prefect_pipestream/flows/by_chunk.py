"""A run with a task run for many samples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.futures import PrefectFuture

from prefect_pipestream import tasks
from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.flows.runner import (
    ChunkSizer,
    Workers,
    in_flight,
    reachable_api,
    task_runner,
)
from prefect_pipestream.reporting.progress import Advance
from prefect_pipestream.reporting.reports import ChunkReport, describe_indices
from prefect_pipestream.underfolder import SampleFailure, SampleRecord
from prefect_pipestream.work.chunk import Indices
from prefect_pipestream.work.chunk_task import Stop

_STOPS_WITHIN_S = 60.0


def run_by_chunk(
    run: ProcessRun, todo: npt.NDArray[np.int64], chunk_size: int | None, advance: Advance
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
            future = _submitted(run, chunk, stop)
            chunks[future] = chunk
            yield future

    def limit() -> int:
        return workers.in_flight if sizer.is_measured else workers.number

    with reachable_api(to_processes=run.limits is not None):
        try:
            for future in in_flight(submissions(), limit):
                chunk = chunks.pop(future)
                report = _report_on(run, future, chunk)
                run.add(report, describe_indices(chunk))
                sizer.measured(report.total, report.seconds)
                advance(report.total, report.counts["failed"])
        except DatasetError:
            stop.set()  # the other chunks commit what they have, and are to be reported too
            for future in chunks:
                future.wait(_STOPS_WITHIN_S)
            raise
        finally:
            stop.set()  # as where the flow timed out, or was cancelled


def _submitted(run: ProcessRun, chunk: Indices, stop: Stop) -> PrefectFuture[Any]:
    is_in_place = run.target is run.source
    return tasks.process_chunk.submit(
        stream=run.source.part(chunk),
        transform=run.transform,
        indices=chunk,
        target=None if is_in_place else run.target.part(chunk),
        keys=run.keys,
        sample_retries=run.retries,
        stop=stop,
        sample_timeout=run.limits.seconds if run.limits else None,
        sample_memory=run.limits.mebibytes if run.limits else None,
    )


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
