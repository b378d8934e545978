"""A run with three task runs a sample."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from prefect_pipestream import tasks
from prefect_pipestream.errors import ConflictError, InvalidSampleError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.flows.runner import in_flight, reachable_api, workers_on
from prefect_pipestream.reporting.progress import Advance
from prefect_pipestream.underfolder import SampleFailure
from prefect_pipestream.work.chunk import FIRST_RETRY_S, MOST_ROUNDS, is_of_dataset

_SAMPLES_PER_WORKER = 4


def run_by_sample(run: ProcessRun, todo: npt.NDArray[np.int64], advance: Advance) -> None:
    """Processes samples by `read_sample`, `transform_sample` and `set_output`.

    Raises:
        DatasetError: If the dataset cannot be written; what was done until then is kept.
    """
    steps = _SampleTasks(run)
    failed: dict[int, BaseException] = {}
    left = todo.tolist()
    with reachable_api():
        for _ in range(MOST_ROUNDS):
            conflicts = {}
            for idx, error in steps.run(left):
                if isinstance(error, ConflictError):
                    conflicts[idx] = error  # to be read and transformed anew
                    continue
                if error is not None and is_of_dataset(error, run.target):
                    raise error
                if error is not None:
                    failed[idx] = error
                advance(1, 0 if error is None else 1)
            left = _still_there(run, conflicts)
            if not left:
                break
    _record_failures(run, {**failed, **conflicts})
    records = run.target.run.outcomes()
    for idx in todo.tolist():
        run.result.add_record(records[idx])


def _record_failures(run: ProcessRun, failed: Mapping[int, BaseException]) -> None:
    there = set(_still_there(run, failed))
    with run.target.commit_group() as batch:
        for idx, error in sorted(failed.items()):
            attempts = 1 if isinstance(error, InvalidSampleError) else run.retries + 1
            if idx not in there:
                batch.record(idx, "skipped", attempts=attempts)
                continue
            failure = SampleFailure.of_error(error)
            batch.record(idx, "failed", failure=failure, attempts=attempts)
            run.log.warning("Sample %d failed: %s: %s", idx, failure.error_type, failure.message)


def _still_there(run: ProcessRun, indices: Iterable[int]) -> list[int]:
    """Those of some samples that nobody removed from the folder meanwhile, ascending."""
    chosen = sorted(indices)
    if run.source.input_folder is None or not chosen:
        return chosen
    there: list[int] = np.intersect1d(chosen, run.source.indices()).tolist()
    return there


class _SampleTasks:
    """Submits the three tasks of each sample."""

    def __init__(self, run: ProcessRun) -> None:
        self._run = run
        delays = [FIRST_RETRY_S * 2**attempt for attempt in range(run.retries)]
        options: dict[str, Any] = {"retries": run.retries, "retry_delay_seconds": delays or None}
        self._read = tasks.read_sample.with_options(**options)
        self._transform = tasks.transform_sample.with_options(**options)
        self._write = tasks.set_output.with_options(**options, retry_condition_fn=_may_pass)
        workers = workers_on(run.source.input_folder, run.target.output_folder)
        self._limit = _SAMPLES_PER_WORKER * workers.number

    def run(self, indices: list[int]) -> Iterator[tuple[int, BaseException | None]]:
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

        for last in in_flight(submissions(), lambda: self._limit):
            idx, futures = submitted.pop(last)
            yield idx, _error_of(futures)

    def _submit(self, idx: int) -> list[PrefectFuture[Any]]:
        run = self._run
        source = run.source.part([idx])
        target = source if run.target is run.source else run.target.part([idx])
        # A task takes futures in place of values; the types of its `submit` do not say so.
        sample: Any = self._read.submit(source, idx)
        changed: Any = self._transform.submit(sample, run.transform, idx)
        return [sample, changed, self._write.submit(target, idx, changed, run.keys, sample)]


def _error_of(futures: list[PrefectFuture[Any]]) -> BaseException | None:
    """The error of the first task run that did not complete; those after it did not start."""
    for future in futures:
        future.wait()
        state = future.state
        if not state.is_completed():
            result = future.result(raise_on_failure=False)
            return result if isinstance(result, BaseException) else RuntimeError(state.message)
    return None


def _may_pass(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a write that failed may pass if it is tried again, of the same sample."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, ConflictError | InvalidSampleError)
