"""The work of one chunk: read, transform and write many samples, past the bad ones.

It does without Prefect: where samples have limits, a process of their own does it.
"""

import errno
import os
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetWriteError,
    InvalidSampleError,
    PipestreamError,
)
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.sequences import DataStream, Sample, SampleStage, resolve_stage
from prefect_pipestream.sequences.stage import Removal, StageResult
from prefect_pipestream.underfolder import Batch, SampleFailure
from prefect_pipestream.underfolder.format.names import DATA_FOLDER

if TYPE_CHECKING:  # it would import Prefect, which takes a second
    from prefect_pipestream.reporting.progress import Log

Indices = Sequence[int] | npt.NDArray[np.int64]

FIRST_RETRY_S = 0.25
"""The wait before failed samples are tried again; it doubles with each time."""

MOST_ROUNDS = 100
"""How often samples that other writers changed meanwhile are done anew."""

# A write that fails for one of these is the fault of the sample's own names,
_ERRNOS_OF_A_SAMPLE = (errno.ENAMETOOLONG, errno.EINVAL)
# and for one of these that of a file that may not be replaced, if its folder may be changed.
_ERRNOS_OF_A_FILE = (errno.EPERM, errno.EACCES)


class Transform:
    """A transform, resolved: from a sample, what is to be written of it.

    It is no pydantic model, so that Prefect passes it to tasks without looking inside.

    Args:
        spec: A stage, a list of operations, or a callable.
        encoder_options: How items that it changes are encoded, by key.

    Raises:
        PipeBuildingError: If the specification, or an option, is wrong.
    """

    __slots__ = ("encoder_options", "encoding", "stage")

    def __init__(
        self, spec: Any, encoder_options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.stage: SampleStage = resolve_stage(spec, allow_callable=True)
        self.encoder_options = encoder_options
        self.encoding: SampleStage | None = None
        if encoder_options:
            self.encoding = resolve_stage({"encoder-options": {"options": encoder_options}})

    def __call__(self, sample: Sample) -> StageResult:
        """Applies the transform; a sample that it makes anew counts as made from this one.

        Raises:
            TypeError: If it returns what no transform may.
        """
        result: StageResult = self.stage(sample)
        match result:
            case Sample():
                return self._encoded(result).made_from(sample)
            case (Sample() as changed, int(index)):
                return self._encoded(changed).made_from(sample), index
            case None | Removal():
                return result
        raise TypeError(
            f"The transform returned {type(result).__name__}, expected a Sample, None, "
            "REMOVE, or a pair (Sample, new index)."
        )

    def _encoded(self, sample: Sample) -> Sample:
        return sample if self.encoding is None else cast(Sample, self.encoding(sample))

    def fingerprint(self, keys: Collection[str] | None) -> str:
        """A text that is equal for the same transform and the same keys."""
        from prefect_pipestream.stages import fingerprint

        own = fingerprint(self.stage if self.encoding is None else self.stage >> self.encoding)
        return own if keys is None else f"{own}:{','.join(sorted(keys))}"


def as_transform(spec: Any) -> Transform:
    """Resolves a transform's specification, unless that is done."""
    return spec if isinstance(spec, Transform) else Transform(spec)


class ChunkStopped(Exception):
    """The flow asked its chunks to stop; what the chunk did is committed."""


@dataclass
class ChunkRun:
    """One chunk that is being processed.

    Args:
        source: Where samples are read.
        target: Where they are written; may be the source.
        transform: What happens in between.
        keys: The items to write; None is all.
        retries: How often a failed sample is tried again.
        tag: The chunk's name in the ledger.
        log: Where failed samples are told.
        stop: Once it is set, the chunk ends with what is done.
        tried: How often its samples were tried before, for the ledger.
    """

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Collection[str] | None
    retries: int
    tag: str
    log: "Log"
    stop: Event | None = None
    tried: int = 0
    _met_conflict: bool = False
    _is_alone: bool = False  # each sample is committed alone, to see whose fault an error is

    def run(self, indices: Indices) -> ChunkReport:
        """Processes the samples that an earlier attempt at the chunk has not done.

        Raises:
            DatasetError: If the dataset cannot be written at all.
            ChunkStopped: If the flow asked for it.
        """
        began = time.perf_counter()
        self.source.recover()  # a commit that a killed attempt had logged counts as done
        self.target.recover()
        with self.batch() as batch:
            todo = self.undone(indices)
            for _ in range(MOST_ROUNDS):
                if not todo:
                    break
                todo = self._round(todo, batch)
                if todo:
                    self.pause(random.uniform(0, 0.05))  # two writers are not to meet again
            never = SampleFailure.of_error(ConflictError("other writers changed it every time."))
            for idx in todo:
                self.give_up(idx, never, self._attempts, batch)
        report = self.report_on(indices)
        report.seconds = time.perf_counter() - began
        report.unseen_keys = batch.unseen_keys
        return report

    def batch(self) -> AbstractContextManager[Batch]:
        """Opens a batch of the chunk's part of the run."""
        return self.target.commit_group(tag=self.tag, signed=True)

    def report_on(self, indices: Indices) -> ChunkReport:
        """What the ledger says of samples of this chunk."""
        records = self.target.run.outcomes(self._part)
        report = ChunkReport()
        for idx in indices:
            if idx in records:
                report.add_record(records[idx])
        return report

    @property
    def _part(self) -> str | None:
        """The part of the ledger to look at: this chunk's, if the flow saw the rest; else all."""
        return self.tag if self.target.has_run_to_itself else None

    def undone(self, indices: Indices) -> list[int]:
        """Those of some samples that the run has no outcome of."""
        done = self.target.run.done_indices(self._part)
        return [int(idx) for idx in indices if idx not in done]

    def _round(self, todo: list[int], batch: Batch) -> list[int]:
        """Processes samples; those that fail are tried again after the others.

        What would not be valid is not: that was computed without an error, and would be again.

        Returns:
            The samples that other writers changed meanwhile: they are to be done anew.
        """
        self._met_conflict = False
        was_alone = self._is_alone
        left: list[int] = todo
        errors: dict[int, Exception] = {}
        invalid: dict[int, tuple[Exception, int]] = {}
        for attempt in range(1, self.retries + 2):
            if attempt > 1:
                self.pause(FIRST_RETRY_S * 2 ** (attempt - 2))
            errors = {}
            for idx in left:
                self.raise_if_stopped()
                try:
                    with self._noting_conflicts():
                        self.process(idx, self.tried + attempt, batch)
                except InvalidSampleError as error:
                    invalid[idx] = error, self.tried + attempt
                except Exception as error:
                    if is_of_dataset(error, self.target):
                        raise
                    errors[idx] = error
            left = list(errors)
            if not left:
                break
        failed = {idx: (error, self._attempts) for idx, error in errors.items()} | invalid
        for idx, (met, attempts) in failed.items():
            with self._noting_conflicts():
                self.give_up(idx, SampleFailure.of_error(met), attempts, batch)
        with self._noting_conflicts():
            batch.flush()
        if not self._met_conflict:
            return []
        if self._is_alone and not was_alone:
            return self.undone(todo)  # a batch was lost, and what failed before in it
        return [idx for idx in self.undone(todo) if idx not in failed]

    @contextmanager
    def _noting_conflicts(self) -> Iterator[None]:
        """Lets conflicts pass, of whichever samples: what the ledger lacks is done again.

        A file that may not be replaced is traced to its sample by committing one by one.
        """
        try:
            yield
        except ConflictError:
            self._met_conflict = True
        except DatasetWriteError as error:
            if self._is_alone or is_of_dataset(error, self.target):
                raise
            self._met_conflict = self._is_alone = True

    def process(self, idx: int, attempt: int, batch: Batch) -> None:
        """Processes one sample."""
        sample = self._take(idx)
        if sample is None:
            batch.record(idx, "skipped", attempts=attempt)
            return
        result = self.transform(sample)
        if result is None:
            batch.record(idx, "skipped", origin=sample.origin, attempts=attempt)
            return
        if isinstance(result, Removal):
            batch.remove(idx, origin=sample.origin, attempts=attempt)
        else:
            changed, target = result if isinstance(result, tuple) else (result, None)
            batch.set_output(idx, changed, self.keys, target=target, attempts=attempt)
        if self._is_alone:
            batch.flush()

    def _take(self, idx: int) -> Sample | None:
        """The sample; None where a folder has none, as somebody removed it since it was chosen."""
        try:
            sample = self.source.get_input(idx)
        except IndexError:
            if self.source.input_folder is None:
                raise
            return None
        return None if sample.origin is not None and sample.origin.is_of_nothing else sample

    def _is_gone(self, idx: int) -> bool:
        try:
            return self._take(idx) is None
        except PipestreamError:
            return False

    @property
    def _attempts(self) -> int:
        """How often a sample is tried before it is given up."""
        return self.tried + self.retries + 1

    def give_up(self, idx: int, failure: SampleFailure, attempts: int, batch: Batch) -> None:
        """Notes a sample as failed; as skipped, if somebody removed it meanwhile."""
        if self._is_gone(idx):
            batch.record(idx, "skipped", attempts=attempts)
            return
        self.log.warning(
            "Sample %d failed after %d attempt%s: %s: %s",
            idx,
            attempts,
            "s" if attempts > 1 else "",
            failure.error_type,
            failure.message,
        )
        batch.record(idx, "failed", failure=failure, attempts=attempts)

    def pause(self, seconds: float) -> None:
        """Waits, unless it is to stop."""
        if self.stop is None:
            time.sleep(seconds)
        else:
            self.stop.wait(seconds)

    def raise_if_stopped(self) -> None:
        """Raises `ChunkStopped` if it is to stop."""
        if self.stop is not None and self.stop.is_set():
            raise ChunkStopped("The flow stopped its chunks; what was done until then is kept.")


def is_of_dataset(error: BaseException, target: DataStream) -> bool:
    """Whether every sample would meet an error, and not this one alone."""
    if isinstance(error, DatasetWriteError):
        if error.errno in _ERRNOS_OF_A_FILE:
            return not os.access(target.output_folder / DATA_FOLDER, os.W_OK)
        return error.errno not in _ERRNOS_OF_A_SAMPLE
    return isinstance(error, DatasetError) and not isinstance(error, ConflictError)
