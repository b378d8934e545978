"""What a `DataStream` writes through: the sample that is being set, and groups of them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.underfolder import Group, Outcome, SampleFailure, StagedSample
from prefect_pipestream.underfolder.names import check_index

Process = Callable[[int, Sample], Mapping[str, Item[Any]]]
"""Takes a sample, and the index to write it at, through the operations before the writing."""


class OneSample(SamplesSequence):
    """The source of an output pipe: the one sample that is being set, at its index."""

    length: int = Field(description="The least length to pretend, for the padding of names.")
    _held: dict[int, tuple[int, Sample]] = PrivateAttr(default_factory=dict)  # by thread

    def size(self) -> int:
        """Returns a length that the index of the sample is within."""
        held = self._held.get(get_ident())
        return self.length if held is None else max(self.length, held[0] + 1)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample that this thread sets."""
        held = self._held.get(get_ident())
        if held is None or held[0] != idx:
            raise DatasetError(
                f"sample {idx}: an output pipe asked for another sample than the one that is set. "
                "Use operations that keep a sample's index, such as `map`."
            )
        return held[1]

    @contextmanager
    def holding(self, idx: int, sample: Sample) -> Iterator[None]:
        """Holds the sample that is set by this thread."""
        self._held[get_ident()] = (idx, sample)
        try:
            yield
        finally:
            del self._held[get_ident()]


class StreamGroup:
    """Samples that are committed together; see `DataStream.commit_group`.

    Attributes:
        unseen_keys: Of the keys to write, those that none of the samples had; None as long as
            none was set with keys.
    """

    def __init__(self, process: Process, group: Group) -> None:
        self._process = process
        self._group = group
        self.unseen_keys: set[str] | None = None

    def set_output(
        self,
        idx: int,
        sample: Sample,
        keys: Collection[str] | None = None,
        *,
        target: int | None = None,
        attempts: int = 1,
    ) -> None:
        """Adds a sample.

        Args:
            idx: The index that it was read at.
            sample: The sample.
            keys: The items to write; None is all.
            target: The index to write at; None is `idx`.
            attempts: How often it was tried, for the ledger.

        Raises:
            ConflictError: If samples of the group that is full were changed by another writer;
                ``error.indices`` tells which.
            ItemError: If a key, an index or a value cannot be written.
            DatasetWriteError: If the disk cannot take it; nothing of the group was written.
        """
        items = self._process(check_index(idx if target is None else target), sample)
        self._group.write(idx, items, keys, sample.origin, target=target, attempts=attempts)
        if keys is not None:
            asked = set(keys) if self.unseen_keys is None else self.unseen_keys
            self.unseen_keys = asked.difference(items)

    def record(
        self,
        idx: int,
        outcome: Outcome,
        *,
        sample: Sample | None = None,
        failure: SampleFailure | None = None,
        attempts: int = 1,
    ) -> None:
        """Notes the outcome of a sample of which nothing is written; `sample` as it was read."""
        origin = None if sample is None else sample.origin
        self._group.record(idx, outcome, failure=failure, attempts=attempts, origin=origin)

    def flush(self) -> list[StagedSample]:
        """Commits what was added so far; see `set_output` for what it raises."""
        return self._group.flush()
