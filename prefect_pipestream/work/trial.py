"""A few samples transformed as a run would do it, with nothing written: for a plan."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from prefect_pipestream.items import (
    FileSource,
    Item,
    SerializationMode,
    item_disabled_serialization_modes,
)
from prefect_pipestream.reporting.reports import FailedSample, failed_sample
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.stage import Removal
from prefect_pipestream.underfolder import OUTCOMES, Outcome, SampleFailure, SampleRecord
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.ledger.records import CHANGING
from prefect_pipestream.views.differences import Items, ShownChange, change_between, removal_of
from prefect_pipestream.work.chunk import Transform, is_of_dataset

FEW = 12
"""How many samples are tried even where that takes long."""
_SOON_S, _LONG_S = 5.0, 20.0
_SHOWN = 16
_LINKS = (SerializationMode.HARD_LINK, SerializationMode.SYM_LINK)


@dataclass(frozen=True)
class Tried:
    """What became of one sample.

    Attributes:
        idx: Its index.
        outcome: Its outcome.
        seconds: How long it took; None where that says nothing of others.
        shown: The change as it is shown, if it would be changed.
        there: The keys of the items that are where it would be written.
        replaced: Those of them that would be replaced or removed.
        failure: Why it failed, if it did.
    """

    idx: int
    outcome: Outcome
    seconds: float | None = None
    shown: ShownChange | None = None
    there: Sequence[str] = ()
    replaced: Sequence[str] = ()
    failure: SampleFailure | None = None


@dataclass
class Trial:
    """What became of a few samples.

    Attributes:
        seconds: How long each of them took, but for the first, which also loads what it needs.
        outcomes: How many samples had each outcome.
        failures: Those that failed.
        changes: Some of those that would be changed, as they are shown.
        stored: How many of the samples have each item where they would be written, by key.
        replaced: Of how many of the samples that item would be replaced or removed.
    """

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    failures: list[FailedSample] = field(default_factory=list)
    changes: list[ShownChange] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, tries: Iterable[Tried]) -> "Trial":
        """Takes all tries within some seconds; else the first ones, `FEW` if there is time."""
        trial, began = cls(), time.monotonic()
        for one in tries:
            trial.add(one)
            if time.monotonic() - began > (_SOON_S if trial.tried >= FEW else _LONG_S):
                break
        if len(trial.seconds) > 1:
            del trial.seconds[0]
        trial.changes.sort(key=lambda change: change.idx)
        trial.failures.sort(key=lambda failure: failure.idx)
        return trial

    def add(self, one: Tried) -> None:
        """Adds what became of a sample."""
        self.outcomes[one.outcome] += 1
        self.stored.update(one.there)
        self.replaced.update(one.replaced)
        if one.seconds is not None:
            self.seconds.append(one.seconds)
        if one.shown is not None and len(self.changes) < _SHOWN:
            self.changes.append(one.shown)
        if one.failure is not None:
            record = SampleRecord(one.idx, "failed", failure=one.failure)
            self.failures.append(failed_sample(record))

    @property
    def tried(self) -> int:
        """How many samples were tried."""
        return self.outcomes.total()

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many samples had each outcome, in the usual order."""
        return {outcome: self.outcomes[outcome] for outcome in OUTCOMES}


def try_one(
    source: DataStream,
    target: DataStream,
    transform: Transform,
    keys: Collection[str] | None,
    idx: int,
    showing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tried:
    """Reads and transforms a sample, and encodes what would be written, into a temporary folder.

    Unchanged files are not linked, nor copied unless the target checks samples.

    Args:
        source: Where samples are read.
        target: Where they would be written.
        transform: What happens in between.
        keys: The items to write; None is all.
        idx: The sample.
        showing: Is entered while pictures are made, which is not the work of a run.

    Raises:
        DatasetError: If a dataset cannot be read, or the temporary folder not be written.
    """
    with tempfile.TemporaryDirectory(prefix="pipestream-plan-") as folder:
        attempt = _Attempt(source, target, transform, keys, target.staging_elsewhere(folder))
        began = time.perf_counter()
        try:
            change = attempt.change_of(idx)
        except Exception as error:  # whatever a transform raises is this sample's failure
            if is_of_dataset(error, target):
                raise
            failure = SampleFailure.of_error(error)
            return Tried(idx, "failed", time.perf_counter() - began, failure=failure)
        seconds = time.perf_counter() - began
        there = attempt.keys_there(change.target)
        if change.outcome not in CHANGING:
            return Tried(idx, change.outcome, seconds, there=there)
        is_removal = change.outcome == "removed"
        replaced = [key for key in there if is_removal or key in change.after]
        with showing():
            shown = change.shown()
        return Tried(idx, change.outcome, seconds, shown, there, replaced)


@dataclass(frozen=True)
class _Change:
    """What would become of one sample.

    Attributes:
        idx: Its index.
        target: The index that it would be written under.
        outcome: Its outcome.
        before: The sample as it was read.
        after: The items that would be written, by key.
    """

    idx: int
    target: int
    outcome: Outcome
    before: Sample
    after: Items = field(default_factory=dict)

    def shown(self) -> ShownChange:
        """The change as it is shown."""
        if self.outcome == "removed":
            return removal_of(self.idx, self.before)
        return change_between(self.idx, self.before, self.after, list(self.after), self.target)


@dataclass(frozen=True)
class _Attempt:
    """What tries one sample."""

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Collection[str] | None
    staging: Staging

    def change_of(self, idx: int) -> _Change:
        sample = self.source.get_input(idx)
        result = self.transform(sample)
        if isinstance(result, Removal):
            is_there = bool(self.keys_there(idx))
            return _Change(idx, idx, "removed" if is_there else "skipped", sample)
        if result is None:
            return _Change(idx, idx, "skipped", sample)
        changed, at = result if isinstance(result, tuple) else (result, idx)
        after = self._staged(idx, at, sample, self.target.prepared(at, changed))
        return _Change(idx, at, "written" if after else "unchanged", sample, after)

    def keys_there(self, idx: int) -> list[str]:
        """The keys of the items that are there under an index."""
        return [kind.key for kind in self.staging.dataset.kinds_of(idx)]

    def _staged(self, idx: int, at: int, sample: Sample, items: Mapping[str, Item[Any]]) -> Items:
        """Encodes the items that would be; returns all that would be written."""
        chosen = {k: item for k, item in items.items() if self.keys is None or k in self.keys}
        own = {k: item for k, item in chosen.items() if not item.is_shared}
        written = {k: i for k, i in own.items() if not self.staging.is_in_place(at, k, i)}
        shared = {k: item for k, item in chosen.items() if item.is_shared}
        staged = {**written, **shared}
        if not self.staging.is_checking:  # else what would be linked is to be looked at, too
            staged = {k: item for k, item in staged.items() if _is_encoded(item)}
        with item_disabled_serialization_modes(_LINKS):
            self.staging.add(idx, staged, origin=sample.origin, target=at)
        files = {file.key: file.source.path for file in self.staging.samples[idx].files}
        return {
            k: Item.from_source(FileSource(files[k])) if k in files else item
            for k, item in written.items()
        }


def _is_encoded(item: Item[Any]) -> bool:
    """Whether an item that is written is encoded, and its file neither linked nor copied."""
    return item.has_value or item.serialization_mode is SerializationMode.CREATE_NEW_FILE
