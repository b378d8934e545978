"""What a chunk and a run tell about their samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.underfolder import OUTCOMES, Outcome, SampleFailure, SampleRecord
from prefect_pipestream.underfolder.ledger.records import CHANGING


class FailedSample(BaseModel):
    """One sample that could not be processed, and why."""

    model_config = ConfigDict(frozen=True)

    idx: int = Field(description="The sample's index in the source.")
    error_type: str = Field(description="The class of the error.")
    message: str = Field(description="What was wrong, with the file's name where there is one.")
    traceback: str = Field(description="Where it happened, innermost call last.")
    attempts: int = Field(description="How often the sample was tried.")


class RunReport(BaseModel):
    """What became of the samples of a run.

    `counts` and `failures` are those of the whole run: a resumed run's earlier parts are in
    them. The time and the rate are those of this process.
    """

    model_config = ConfigDict(frozen=True)

    run_key: str = Field(description="The run's name in the dataset's ledger.")
    counts: dict[Outcome, int] = Field(description="How many samples had each outcome.")
    failures: list[FailedSample] = Field(description="The samples that failed, by index.")
    duration_s: float = Field(description="How long the processing took, in seconds.")
    samples_per_second: float = Field(description="Samples processed per second of it.")
    done_before: int = Field(0, description="How many samples were done before, by this run.")
    warnings: list[str] = Field([], description="What looks wrong, though nothing failed for it.")
    taken_back: bool = Field(
        False, description="Whether the run took itself back, as too many samples failed."
    )
    undone_by: str | None = Field(
        None,
        description="The run by which it did: undo that one to have the changes back. None also "
        "where it had changed nothing.",
    )
    undo_bytes: int = Field(
        0, description="The disk space that the run's undo files hold, until it is pruned."
    )

    @property
    def total(self) -> int:
        """The number of samples that the run was about."""
        return sum(self.counts.values())

    @property
    def changed(self) -> int:
        """How many samples were written or removed."""
        return sum(self.counts.get(outcome, 0) for outcome in CHANGING)

    def is_within(self, max_failed: float) -> bool:
        """Whether no more than this share of the samples failed."""
        return not self.total or self.counts["failed"] / self.total <= max_failed

    def pace(self) -> str:
        """How fast it was: `` in 8.1 s, 57 samples/s``; or that all was done before."""
        if not self.samples_per_second:
            return ", all of them done before" if self.total else ""
        before = f", {self.done_before:,} done before" if self.done_before else ""
        return f" in {self.duration_s:,.1f} s, {self.samples_per_second:,.0f} samples/s{before}"

    def what_of_others(self) -> str:
        """What became of the samples that did not fail, as a sentence."""
        if not self.taken_back:
            return f"The others: {self.summary()}."
        by = f", by run {self.undone_by!r}" if self.undone_by else ": it had changed nothing"
        return f"The run took itself back{by}."

    def summary(self) -> str:
        """The counts in one line: ``290 written, 8 skipped, 2 failed``."""
        return describe_counts(self.counts)


class TooManyFailedError(PipestreamError):
    """More samples failed than the run allows; everything else is written, or was taken back.

    Attributes:
        report: The run's report.
    """

    def __init__(self, report: RunReport, max_failed: float) -> None:
        self.report = report
        self.max_failed = max_failed
        failed, first = report.counts["failed"], report.failures[0]
        super().__init__(
            f"{failed:,} of {report.total:,} samples failed ({failed / report.total:.2%}), "
            f"more than max_failed={max_failed:g} allows. {report.what_of_others()} "
            f"First failure, sample {first.idx}: {first.error_type}: {first.message}"
        )

    def __reduce__(self) -> tuple[type["TooManyFailedError"], tuple[RunReport, float]]:
        return type(self), (self.report, self.max_failed)


@dataclass
class ChunkReport:
    """What became of the samples of one chunk, or of several.

    Attributes:
        counts: How many samples had each outcome.
        failures: The samples that failed.
        seconds: How long their processing took.
        unseen_keys: Of the keys to write, those that none of the samples had; None as long as
            no sample got so far.
    """

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    failures: list[FailedSample] = field(default_factory=list)
    seconds: float = 0.0
    unseen_keys: set[str] | None = None

    @property
    def total(self) -> int:
        """How many samples have an outcome."""
        return sum(self.counts.values())

    def add(self, other: "ChunkReport") -> None:
        """Adds another chunk's samples and time to this one's."""
        for outcome, number in other.counts.items():
            self.counts[outcome] += number
        self.failures += other.failures
        self.seconds += other.seconds
        if self.unseen_keys is None:
            self.unseen_keys = other.unseen_keys
        elif other.unseen_keys is not None:
            self.unseen_keys = self.unseen_keys & other.unseen_keys

    def add_record(self, record: SampleRecord) -> None:
        """Adds a sample as the ledger has it."""
        self.counts[record.outcome] += 1
        if record.outcome == "failed":
            self.failures.append(failed_sample(record))

    def summary(self) -> str:
        """The counts and the rate in one line."""
        rate = f" ({self.total / self.seconds:,.0f}/s)" if self.seconds > 0 else ""
        return f"{describe_counts(self.counts)} in {self.seconds:.1f} s{rate}"


class ChunkTime(NamedTuple):
    """What became of one chunk, and how long it took.

    Attributes:
        name: The range of its samples.
        counts: Outcome → number.
        seconds: The time of its processing.
    """

    name: str
    counts: Mapping[Outcome, int]
    seconds: float


def describe_counts(counts: Mapping[Outcome, int]) -> str:
    """The counts that are not zero in one line, ``none`` if all are."""
    parts = [f"{counts[outcome]:,} {outcome}" for outcome in OUTCOMES if counts.get(outcome)]
    return ", ".join(parts) or "none"


def describe_indices(indices: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """A short name for ascending indices: ``12`` or ``0-99``."""
    first, last = int(indices[0]), int(indices[-1])
    return str(first) if first == last else f"{first}-{last}"


def failed_sample(record: SampleRecord) -> FailedSample:
    """A failed sample of a ledger as reports have it."""
    failure = record.failure or SampleFailure("", "unknown", "")
    return FailedSample(
        idx=record.idx,
        error_type=failure.error_type,
        message=failure.message,
        traceback=failure.traceback,
        attempts=record.attempts,
    )
