"""Chunks of samples that have limits: a process of their own works on them, and may be ended.

A thread cannot be stopped, so a transform that hangs would hold its worker for ever, and one that
calls `os._exit` or crashes would end the whole run. Here the owner, a task run, sees which sample
the process is at. Where that takes too long it ends the process; where the process ends by itself
it knows by which sample. The others go on in a new one: what was committed is in the ledger.
"""

import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it ships no types
import numpy as np
from prefect.context import FlowRunContext, serialize_context

from prefect_pipestream.errors import PipeBuildingError, WorkerDiedError
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.items.settings import Settings
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.sequences.worker import Failure
from prefect_pipestream.stages.noted import is_data_only
from prefect_pipestream.storage.making import umask_in_force
from prefect_pipestream.work.chunk import FIRST_RETRY_S, ChunkRun, ChunkStopped, Indices
from prefect_pipestream.work.guarded import Job, LogLine, Order, Struck
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.sample_process import Death, SampleProcess, borrowed
from prefect_pipestream.work.trial import Tried

_LONGEST_TICK_S = 0.5
_GRACE_S = 5.0
_MOST_DEATHS = 3
"""How often in a row a process may end between two samples."""


def run_guarded(chunk: ChunkRun, indices: Indices, limits: Limits) -> ChunkReport:
    """Processes a chunk as `ChunkRun.run` does, each sample within its limits.

    A sample that breaks them, or ends its process, is tried again after the others, alone in a
    process; then it counts as failed.

    Raises:
        DatasetError: If the dataset cannot be written at all.
        ChunkStopped: If the flow asked for it.
        PipeBuildingError: If the transform, or a stream, cannot be handed to a process.
        WorkerDiedError: If processes end again and again, and by no sample.
    """
    began = time.perf_counter()
    guard = _Guard(chunk, limits, indices)
    try:
        struck = guard.work_through(indices)
        for idx, first in sorted(struck.items()):
            guard.try_alone(idx, first)
    finally:
        guard.close()
    report = chunk.report_on(indices)
    report.seconds = time.perf_counter() - began
    report.unseen_keys = guard.unseen_keys
    return report


def tried_guarded(chunk: ChunkRun, indices: Sequence[int], limits: Limits) -> Iterator[Tried]:
    """Tries samples as `try_one` does, each within its limits.

    Raises:
        DatasetError, PipeBuildingError, WorkerDiedError: As `run_guarded`.
    """
    guard = _Guard(chunk, limits, indices)
    try:
        for idx in indices:
            yield guard.tried(idx)
    finally:
        guard.close()


@dataclass
class _Guard:
    """The owner's side of a chunk."""

    chunk: ChunkRun
    limits: Limits
    indices: Indices
    unseen_keys: set[str] | None = None

    _child: SampleProcess | None = None
    _deaths: int = 0

    def __post_init__(self) -> None:
        self._job = _pickled(self.chunk, self.limits, self.indices)
        self._context = _pickled_context(self.chunk)

    def work_through(self, indices: Indices) -> dict[int, Death]:
        """Processes samples; those that end the process are left out from then on."""
        struck: dict[int, Death] = {}
        left = indices
        while (death := self._process(left, self.chunk.retries)) is not None:
            struck[death.idx] = death
            left = [int(idx) for idx in np.setdiff1d(indices, list(struck))]
            if not left:
                break
        return struck

    def try_alone(self, idx: int, death: Death) -> None:
        """Tries a sample again that ended its process, and notes it as failed if it does so again.

        A process may have been killed for another's fault, so that is tried once more at least.
        """
        attempts = 1
        last: Death | None = death
        while last is not None and attempts < max(self.chunk.retries + 1, 1 + last.by_itself):
            self.chunk.pause(FIRST_RETRY_S * 2 ** (attempts - 1))
            last = self._process([idx], 0, tried=attempts)
            attempts += 1
        if last is not None and self.chunk.undone([idx]):
            with self.chunk.batch() as batch:
                self.chunk.give_up(idx, last.failure, attempts, batch)

    def _process(self, indices: Indices, retries: int, tried: int = 0) -> Death | None:
        """Lets a process work on samples until it is through, or a sample ended it.

        Raises:
            Exception: What the chunk raised there.
        """
        answer = self._answer(Order(self._job, self._context, indices, retries, tried))
        if isinstance(answer, Death):
            return answer
        self._see(answer)
        return None

    def tried(self, idx: int) -> Tried:
        """Tries a sample, for a plan.

        Raises:
            Exception: What is wrong with the dataset.
        """
        order = Order(self._job, self._context, [idx], 0, 0, is_trial=True)
        answer = self._answer(order)
        if isinstance(answer, Death):
            return Tried(idx, "failed", failure=answer.failure)
        assert isinstance(answer, Tried)
        return answer

    def _answer(self, order: Order) -> Any:
        """What became of an order; the `Death` of the sample that ended the process.

        Raises:
            Exception: What was raised there.
        """
        while True:
            self.chunk.raise_if_stopped()
            self._child = self._child or borrowed()
            self._child.give(order)
            result = self._result(self._child)
            if isinstance(result, ChunkReport | Tried):
                return result
            if isinstance(result, Failure):
                raise result.to_exception()
            self._child.close()
            self._child = None
            if isinstance(result, Death):
                self._deaths = 0
                return result
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                raise WorkerDiedError(
                    f"the process that works on samples {result}, {_MOST_DEATHS} times in a row, "
                    "and not while at a sample. See its output, and whether the transform's "
                    "module can be imported."
                )

    def _result(self, child: SampleProcess) -> Any:
        """What a process says of an order, or the `Death` of a sample, or how it ended.

        Raises:
            ChunkStopped: If the flow asked for it, and the sample is not done soon.
        """
        tick_s = min(_LONGEST_TICK_S, (self.limits.seconds or 1.0) / 20)
        asked_at: float | None = None
        while True:
            message = child.message_within(tick_s)
            if isinstance(message, LogLine):
                self.chunk.log.log(message.level, "%s", message.text)
            elif isinstance(message, Struck):
                return Death(message.idx, message.failure, by_itself=True)
            elif message is not None:
                return message
            elif (late := child.late(self.limits)) is not None:
                return child.ended_at(late, self.limits)
            if self.chunk.stop is not None and self.chunk.stop.is_set():
                child.clock.stop()
                asked_at = asked_at or time.monotonic()
                if time.monotonic() - asked_at > _GRACE_S:
                    raise ChunkStopped("The flow stopped its chunks, and one sample did not end.")

    def _see(self, report: ChunkReport) -> None:
        seen = ChunkReport(unseen_keys=self.unseen_keys)
        seen.add(replace(report, failures=[]))
        self.unseen_keys = seen.unseen_keys

    def close(self) -> None:
        """Lets go of the process; one that is still at work may commit what it has."""
        if self._child is not None:
            self._child.give_back()


def _pickled(chunk: ChunkRun, limits: Limits, indices: Indices) -> bytes:
    source = chunk.source.part(indices)
    target = source if chunk.target is chunk.source else chunk.target.part(indices)
    job = Job(
        source,
        target,
        chunk.transform,
        chunk.keys,
        chunk.tag,
        dict(CLASS_BY_EXTENSION),
        Settings.now(),
        limits,
        umask_in_force(),
    )
    try:
        return bytes(cloudpickle.dumps(job))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise PipeBuildingError(
            f"samples with limits are processed by another process, and the transform or a stream "
            f"cannot be handed to it: {error}. Make it of what can be pickled, or leave "
            "sample_timeout and sample_memory out."
        ) from error


def _pickled_context(chunk: ChunkRun) -> bytes | None:
    """The context of the flow run, for transforms that log or ask for it."""
    if FlowRunContext.get() is None or is_data_only(chunk.transform.stage):
        return None
    context = serialize_context()
    for part in ("flow_run_context", "task_run_context"):
        if context[part]:
            context[part]["parameters"] = {}  # as large as the dataset, some of them
    try:
        return bytes(cloudpickle.dumps(context))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        chunk.log.warning("The transform does not see the flow run's context: %s", error)
        return None
