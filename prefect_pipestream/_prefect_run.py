"""A run over the samples of a dataset: what is left to do, submitted as tasks, and its report."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from prefect_pipestream import tasks
from prefect_pipestream._prefect_chunk import FIRST_RETRY_S, Indices, Log, Transform, stop_event
from prefect_pipestream._prefect_plan import ChunkSizer, Workers, in_flight
from prefect_pipestream._prefect_progress import Advance
from prefect_pipestream._prefect_report import (
    ChunkReport,
    RunReport,
    describe_error,
    failed_sample,
)
from prefect_pipestream.errors import ConflictError, DatasetError
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import SampleRecord, outcomes

_SAMPLES_PER_WORKER = 4
_MOST_ROUNDS = 100


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
    """

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Sequence[str] | None
    retries: int
    log: Log
    total: int = 0
    _result: ChunkReport = field(default_factory=ChunkReport)

    # -- what is to be done ------------------------------------------------------------------

    def select(self, indices: Sequence[int] | None) -> npt.NDArray[np.int64]:
        """Says which samples are still to be processed: int64, ascending.

        What the run's ledger has of others, from before this attempt, goes into the report.

        Raises:
            IndexError: If the source has no sample of one of the indices.
        """
        wanted = self.source.indices() if indices is None else self._checked(indices)
        known = self._ledger()
        done = [idx for idx, record in known.items() if record.outcome != "failed"]
        todo = np.setdiff1d(wanted, np.array(done, dtype=np.int64))
        again = set(todo.tolist()) if known else set()
        for idx, record in known.items():
            if idx not in again:
                self._result.add_record(record)
        if known:
            self.log.info(
                "Run %s goes on: %d samples are done, %d are left.",
                self.target.run_key,
                len(done),
                len(todo),
            )
        self.total = self._result.total + len(todo)
        return todo

    def _checked(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        length = len(self.source)
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        for idx in wanted[(wanted < 0) | (wanted >= length)][:1]:
            raise IndexError(
                f"indices: there is no sample {idx}, the source has 0 to {length - 1}."
            )
        return wanted

    def _ledger(self) -> dict[int, SampleRecord]:
        return outcomes(self.target.output_folder, self.target.run_key)

    # -- many samples a task run -------------------------------------------------------------

    def by_chunk(
        self, todo: npt.NDArray[np.int64], chunk_size: int | None, advance: Advance
    ) -> None:
        """Processes samples by `process_chunk`.

        Raises:
            DatasetError: If the dataset cannot be written; what was done until then is kept.
        """
        workers = Workers(_task_runner())
        sizer = ChunkSizer(len(todo), workers.number, chunk_size)
        chunks: dict[PrefectFuture[Any], Indices] = {}

        def submissions() -> Iterator[PrefectFuture[Any]]:
            begin = 0
            while size := sizer.next_size():
                chunk = _compact(todo[begin : begin + size])
                begin += size
                future = self._submit_chunk(chunk)
                chunks[future] = chunk
                yield future

        def limit() -> int:
            return workers.in_flight if sizer.is_measured else workers.number

        with self._stopping_on_error(), _reachable_api():
            for future in in_flight(submissions(), limit):
                report = self._chunk_report(future, chunks.pop(future))
                sizer.measured(report.total, report.seconds)
                advance(report.total, report.counts["failed"])
                self._result.add(report)

    def _submit_chunk(self, chunk: Indices) -> PrefectFuture[Any]:
        is_in_place = self.target is self.source
        return tasks.process_chunk.submit(
            stream=self.source.part(chunk),
            transform=self.transform,
            indices=chunk,
            target=None if is_in_place else self.target.part(chunk),
            keys=self.keys,
            sample_retries=self.retries,
        )

    @contextmanager
    def _stopping_on_error(self) -> Iterator[None]:
        """Lets the chunks that are running on threads end early if the run is given up."""
        stop = stop_event()
        try:
            yield
        finally:
            stop.set()

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
        report, records = ChunkReport(), self._ledger()
        failure = describe_error(error)
        for idx in map(int, chunk):
            record = records.get(idx)
            if record is not None and record.outcome != "failed":
                report.add_record(record)
            else:
                report.add_failure(failed_sample(idx, failure, 1))
        return report

    # -- three task runs a sample ------------------------------------------------------------

    def by_sample(self, todo: npt.NDArray[np.int64], advance: Advance) -> None:
        """Processes samples by `read_sample`, `transform_sample` and `set_output`.

        Raises:
            DatasetError: If the dataset cannot be written; what was done until then is kept.
        """
        limit = _SAMPLES_PER_WORKER * Workers(_task_runner()).number
        steps = _SampleTasks(self)
        failures: dict[int, BaseException] = {}
        left = todo.tolist()
        for _ in range(_MOST_ROUNDS):
            conflicts = []
            with _reachable_api():
                for idx, error in steps.run(left, limit):
                    if isinstance(error, ConflictError):
                        conflicts.append(idx)
                        continue
                    if isinstance(error, DatasetError):
                        raise error
                    if error is not None:
                        failures[idx] = error
                    advance(1, 0 if error is None else 1)
            left = conflicts
            if not left:
                break
        failures.update(
            (idx, ConflictError("other writers changed it every time.")) for idx in left
        )
        self._record(failures)
        records = self._ledger()
        for idx in todo.tolist():
            self._result.add_record(records[idx])

    def _record(self, failures: Mapping[int, BaseException]) -> None:
        attempts = self.retries + 1
        with self.target.commit_group() as group:
            for idx, error in sorted(failures.items()):
                failure = describe_error(error)
                group.record(idx, "failed", failure=failure, attempts=attempts)
                self.log.warning(
                    "Sample %d failed: %s: %s", idx, failure.error_type, failure.message
                )

    # -- the end -----------------------------------------------------------------------------

    def report(self, seconds: float, processed: int) -> RunReport:
        """The report on the whole run.

        Args:
            seconds: How long this attempt took.
            processed: How many samples it processed.
        """
        return RunReport(
            run_key=self.target.run_key,
            counts=self._result.counts,
            failures=sorted(self._result.failures, key=lambda failure: failure.idx),
            duration_s=seconds,
            samples_per_second=processed / seconds if seconds > 0 else 0.0,
        )


class _SampleTasks:
    """Submits the three tasks of each sample."""

    def __init__(self, run: ProcessRun) -> None:
        self._run = run
        delays = [FIRST_RETRY_S * 2**attempt for attempt in range(run.retries)]
        options: dict[str, Any] = {"retries": run.retries, "retry_delay_seconds": delays or None}
        self._read = tasks.read_sample.with_options(**options)
        self._transform = tasks.transform_sample.with_options(**options)
        self._write = tasks.set_output.with_options(**options, retry_condition_fn=_is_no_conflict)

    def run(self, indices: list[int], limit: int) -> Iterator[tuple[int, BaseException | None]]:
        """Processes samples.

        Yields:
            Each sample that is finished, in any order, and its error if it failed.
        """
        submitted: dict[PrefectFuture[Any], tuple[int, list[PrefectFuture[Any]]]] = {}

        def submissions() -> Iterator[PrefectFuture[Any]]:
            for idx in indices:
                futures = self._submit(idx)
                submitted[futures[-1]] = idx, futures
                yield futures[-1]

        for last in in_flight(submissions(), lambda: limit):
            idx, futures = submitted.pop(last)
            yield idx, _error_of(futures)

    def _submit(self, idx: int) -> list[PrefectFuture[Any]]:
        run = self._run
        source = run.source.part([idx])
        target = source if run.target is run.source else run.target.part([idx])
        # A task takes futures in place of values; the types of its `submit` do not say so.
        sample: Any = self._read.submit(source, idx)
        changed: Any = self._transform.submit(sample, run.transform, idx)
        return [sample, changed, self._write.submit(target, idx, changed, run.keys)]


def _error_of(futures: list[PrefectFuture[Any]]) -> BaseException | None:
    """The error of the first task run that did not complete; those after it did not start."""
    for future in futures:
        future.wait()
        state = future.state
        if not state.is_completed():
            result = future.result(raise_on_failure=False)
            return result if isinstance(result, BaseException) else RuntimeError(state.message)
    return None


def _is_no_conflict(task: Any, task_run: Any, state: State[Any]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), ConflictError)


def _compact(indices: npt.NDArray[np.int64]) -> Indices:
    """The same indices as a range, if they are one: the smallest thing to pass to a task."""
    first, last = int(indices[0]), int(indices[-1])
    return range(first, last + 1) if last - first + 1 == len(indices) else indices


def _task_runner() -> TaskRunner[Any] | None:
    context = FlowRunContext.get()
    return None if context is None else context.task_runner


@contextmanager
def _reachable_api() -> Iterator[None]:
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
