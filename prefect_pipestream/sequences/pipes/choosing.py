"""Which samples there are, and in which order."""

import random
import secrets
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, PrivateAttr, field_validator

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample


@piped_sequence
class FilteredSequence(PipedSequence, title="filter"):
    """Keeps the samples for which a function is true."""

    filter_fn: Callable[[Sample], bool]
    lazy: bool = True
    insert_empty_samples: bool = False

    def model_post_init(self, context: Any) -> None:
        """Goes through the source, if not lazy."""
        if not self.lazy and not self.insert_empty_samples:
            self._indices  # noqa: B018 # finds them

    @cached_property
    def _indices(self) -> list[int]:
        source = self.source
        return [i for i in range(source.size()) if self.filter_fn(source.get_sample(i))]

    def size(self) -> int:
        """Returns how many are kept; the first time, this reads the whole source."""
        return self.source.size() if self.insert_empty_samples else len(self._indices)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample kept at this position."""
        if not self.insert_empty_samples:
            return self.source.get_sample(self._indices[idx])
        sample = self.source.get_sample(idx)
        return sample if self.filter_fn(sample) else EMPTY_SAMPLE


@piped_sequence
class SortedSequence(PipedSequence, title="sort"):
    """Sorts the samples by the key that a function gives; equal ones keep their order."""

    key_fn: Callable[[Sample], Any]
    lazy: bool = True

    def model_post_init(self, context: Any) -> None:
        """Goes through the source, if not lazy."""
        if not self.lazy:
            self._indices  # noqa: B018 # sorts them

    @cached_property
    def _indices(self) -> list[int]:
        source = self.source
        return sorted(range(source.size()), key=lambda i: self.key_fn(source.get_sample(i)))

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample at this rank; the first time, this reads the whole source."""
        return self.source.get_sample(self._indices[idx])


@piped_sequence
class SlicedSequence(PipedSequence, title="slice"):
    """Takes the samples from `start` to before `stop`, as Python's slices do."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None

    @field_validator("step")
    @classmethod
    def _check(cls, step: int | None) -> int | None:
        if step == 0:
            raise ValueError("expected a step other than 0")
        return step

    @cached_property
    def _range(self) -> range:
        return range(self.source.size())[self.start : self.stop : self.step]

    def size(self) -> int:
        """Returns the number of samples in the slice."""
        return len(self._range)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample at this position of the slice."""
        return self.source.get_sample(self._range[idx])


@piped_sequence
class IndexSelectionSequence(PipedSequence, title="select"):
    """Takes the samples at given indices, in the order given; or all others."""

    takes_whole_argument = True

    indexes: Sequence[int]
    negate: bool = False

    @cached_property
    def _indices(self) -> list[int]:
        size = self.source.size()
        for idx in self.indexes:
            if not -size <= idx < size:
                raise IndexError(f"select: index {idx} is out of range: there are {size} samples.")
        indices = [idx + size if idx < 0 else idx for idx in self.indexes]
        if self.negate:
            left_out = set(indices)
            return [idx for idx in range(size) if idx not in left_out]
        return indices

    def size(self) -> int:
        """Returns the number of samples selected."""
        return len(self._indices)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample at this position of the selection."""
        return self.source.get_sample(self._indices[idx])


@piped_sequence
class ShuffledSequence(PipedSequence, title="shuffle"):
    """Shuffles the samples; the same seed gives the same order, which is the reference's too."""

    seed: int | None = None

    _drawn: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any) -> None:
        """Draws a seed where none was given: copies in other processes have the same order."""
        self._drawn = secrets.randbits(64) if self.seed is None else self.seed

    @cached_property
    def _order(self) -> "array[int]":
        order = array("q", range(self.source.size()))
        random.Random(self._drawn).shuffle(order)
        return order

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample at this position of the random order."""
        return self.source.get_sample(self._order[idx])


@piped_sequence
class RepeatedSequence(PipedSequence, title="repeat"):
    """Repeats the samples; a fraction repeats the first of them once more."""

    # `Sequence` has a method `count`.
    count_: float = Field(alias="count", ge=0, allow_inf_nan=False)
    interleave: bool = False

    def size(self) -> int:
        """Returns the source's length times `count`, rounded."""
        return round(self.source.size() * self.count_)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample whose turn it is."""
        size = self.source.size()
        if not self.interleave:
            return self.source.get_sample(idx % size)
        copies, extra = divmod(self.size(), size)  # the first `extra` samples have one more
        if idx < extra * (copies + 1):
            return self.source.get_sample(idx // (copies + 1))
        return self.source.get_sample(extra + (idx - extra * (copies + 1)) // copies)
