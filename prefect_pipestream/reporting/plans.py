"""The plan of a run: what it would process and why, what it would cost, and how some would look."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefect_pipestream.reporting.reports import FailedSample, describe_counts
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.underfolder import Outcome

Reason = Literal["never_seen", "new", "changed", "failed", "again"]
REASONS: dict[str, str] = {
    "never_seen": "never seen by this transform",
    "new": "new",
    "changed": "changed since this transform saw them",
    "failed": "failed before",
    "again": "asked for again, as this transform left or saw them",
}
"""Why a sample would be processed."""
LEFT_OUT: dict[str, str] = {
    "done": "done by this run",
    "unnamed": "not among `indices`",
    "unmatched": "not as `where` says",
    "sound": "that did not fail",
    "unchanged": "unchanged since this transform saw them",
    "unplanned": "not planned, or changed since",
}
"""Why it would not."""
_CHOSEN_BY = {"unnamed": "indices", "unmatched": "where"}


class PlannedChange(BaseModel):
    """What would become of one of the samples that were tried."""

    model_config = ConfigDict(frozen=True)

    idx: int = Field(description="The sample's index in the source.")
    target: int = Field(description="The index that it would be written under.")
    differences: list[str] = Field(description="What would change, beside what a picture shows.")


class RunPlan(BaseModel):
    """What a run would do. Nothing of a dataset was written for it."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="The plan's key: a run that is given it as `follow` goes by it.")
    can_be_followed: bool = Field(description="Whether it is kept, so that a run can go by it.")
    run_key: str | None = Field(
        description="The run whose rest, or whose name, it is; None for a new run."
    )
    folder: str = Field(description="The dataset that would be written.")
    transform: str = Field(description="The transform, with its fingerprint.")
    select: str = Field(description="Which samples were asked for.")
    where: str | None = Field(description="The query that is true of them, if there is one.")
    samples: dict[Reason, list[int]] = Field(
        description="The samples that would be processed, by the reason."
    )
    chosen_by: dict[str, int] = Field(
        description="How many samples `indices`, and of these `where`, chose."
    )
    left_out: dict[str, int] = Field(
        description="How many samples would not be processed, by the reason."
    )
    tried: int = Field(description="How many were transformed, evenly spread, to see the rest.")
    outcomes: dict[Outcome, int] = Field(description="What would become of those tried.")
    failures: list[FailedSample] = Field(description="Those tried that failed.")
    changes: list[PlannedChange] = Field(description="Those tried that would change.")
    seconds_per_sample: float | None = Field(
        description="How long one of those tried took, on average; None if none was tried."
    )
    workers: int = Field(description="How many samples the task runner works on at a time.")
    undo_bytes: int = Field(
        description="The disk space that undo would hold: that of the files that would be "
        "replaced or removed, by the share of those tried of which that is so."
    )
    warnings: list[str] = Field([], description="What looks wrong, or cannot be told.")

    @property
    def counts(self) -> dict[Reason, int]:
        """How many samples would be processed, by the reason."""
        return {reason: len(found) for reason, found in self.samples.items()}

    @property
    def total(self) -> int:
        """How many samples would be processed."""
        return sum(self.counts.values())

    @property
    def indices(self) -> list[int]:
        """The samples that would be processed, ascending."""
        return sorted(idx for found in self.samples.values() for idx in found)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """How long the run would take: if no worker hinders another, and with one alone."""
        if self.seconds_per_sample is None:
            return None
        alone = self.total * self.seconds_per_sample
        return alone / max(1, min(self.workers, self.total)), alone

    def summary(self) -> str:
        """The plan in one line."""
        parts = [f"{self.total:,} sample{'' if self.total == 1 else 's'} to process"]
        if self.total:
            parts[0] += f" ({_listed(self.counts, REASONS)})"
        if any(self.left_out.values()):
            parts.append(f"left out: {_listed(self.left_out, LEFT_OUT)}")
        if self.seconds is not None:
            parts.append(f"some {self.time()}")
        return "; ".join([*parts, f"undo would hold some {size_of(self.undo_bytes)}"])

    def time(self) -> str:
        """How long it would take: ``40 s to 80 s with 2 workers``; empty if it is not known."""
        if self.seconds is None:
            return ""
        least, most = map(_duration, self.seconds)
        span = least if least == most else f"{least} to {most}"
        return f"{span} with {self.workers} worker{'' if self.workers == 1 else 's'}"

    def trial(self) -> str:
        """What became of those tried: ``of 12 tried: 10 written, 2 failed``."""
        return f"of {self.tried} tried: {describe_counts(self.outcomes)}"


def chosen_by(let_through: Mapping[Any, int]) -> dict[str, int]:
    """How many samples `indices` chose, and of these `where`, by what was left after each."""
    return {name: let_through[step] for step, name in _CHOSEN_BY.items() if step in let_through}


def rows_of(counts: Mapping[Any, int], words: Mapping[str, str]) -> list[tuple[int, str]]:
    """The numbers that are not 0, with their reasons in words."""
    return [(counts[name], words[name]) for name in words if counts.get(name)]


def _listed(counts: Mapping[Any, int], words: Mapping[str, str]) -> str:
    return ", ".join(f"{number:,} {text}" for number, text in rows_of(counts, words))


def _duration(seconds: float) -> str:
    """A time for people, of two digits or so: ``0.4 s``, ``35 s``, ``12 min``, ``3.5 h``.

    An estimate of less than 0.1 s is one of 0.1 s: that no time is needed would be wrong.
    """
    seconds = max(seconds, 0.1)
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if seconds < 120 * size or unit == "h":
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"
    raise AssertionError
