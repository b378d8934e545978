"""Several samples stacked into one, and taken apart again."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.items import (
    ImageItem,
    Item,
    MetadataItem,
    NpyNumpyItem,
    NumpyItem,
    TiffImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample

_MOST_TEXT_DIMENSIONS = 2


@piped_sequence
class BatchedSequences(PipedSequence, title="batched"):
    """Stacks the values of several samples into one; shared items come from the last.

    Arrays are stacked along a new first dimension, images into a TIFF; other values become
    lists. A sample that lacks a key adds nothing to it.
    """

    batch_size: PositiveInt
    drop_last: bool = False
    key_list: Sequence[str] | None = None

    def size(self) -> int:
        """Returns the number of batches."""
        full, rest = divmod(self.source.size(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def get_sample(self, idx: int) -> Sample:
        """Returns the batch; all of its items are decoded.

        Raises:
            SampleError: If the values of a key cannot be stacked.
        """
        first = idx * self.batch_size
        last = min(first + self.batch_size, self.source.size())
        found: dict[str, list[Item[Any]]] = {}
        for number in range(first, last):
            sample = self.source.get_sample(number)
            for key, item in sample.items():
                if self.key_list is None or key in self.key_list:
                    found.setdefault(key, []).append(item)
        return Sample.of({key: _stack(key, items, first) for key, items in found.items()})


def _stack(key: str, items: list[Item[Any]], first: int) -> Item[Any]:
    item = items[0]
    if item.is_shared:
        return items[-1]
    values = [each() for each in items]
    try:
        if isinstance(item, NumpyItem):
            return _stack_arrays(item, np.stack(values))
        try:
            return item.make_new(values)
        except EncodeError:
            if not isinstance(item, MetadataItem):
                raise
            return YamlMetadataItem(values)  # a TOML file, say, cannot hold a list
    except ValueError as err:
        raise SampleError(
            f"the items {key!r} of samples {first} to {first + len(items) - 1} cannot be "
            f"stacked: {err}. Leave the key out with `key_list`, or make them alike first."
        ) from err


def _stack_arrays(item: NumpyItem, stack: Any) -> Item[Any]:
    if isinstance(item, ImageItem):
        return TiffImageItem(stack)
    is_text = isinstance(item, TxtNumpyItem)
    # Text has no more dimensions than two, and drops those of length one when it is read.
    if is_text and (stack.ndim > _MOST_TEXT_DIMENSIONS or (stack.ndim > 1 and 1 in stack.shape)):
        return NpyNumpyItem(stack)
    return item.make_new(stack)


@piped_sequence
class UnbatchedSequences(PipedSequence, title="unbatched"):
    """Takes stacked samples apart, along the first dimension of their values.

    Shared items are in every sample as they are. Each access decodes the whole batch that the
    sample is in.
    """

    batch_size: PositiveInt | Literal["fixed", "variable"] = "fixed"
    key_list: Sequence[str] | None = None

    @cached_property
    def _ends(self) -> list[int]:
        """Where each batch ends. To know the end of the sequence, the last one is read."""
        count = self.source.size()
        if count == 0:
            return []
        if self.batch_size == "variable":
            sizes = [self._size_of(batch) for batch in range(count)]
        else:
            each = self._size_of(0) if self.batch_size == "fixed" else self.batch_size
            sizes = [each] * (count - 1) + [self._size_of(count - 1)]
        return list(accumulate(sizes))

    def _size_of(self, batch: int) -> int:
        return self._values(batch)[1]

    def _values(self, batch: int) -> tuple[dict[str, Any], int]:
        """The values to be taken apart, and how many there are of each.

        Raises:
            SampleError: If a value has no length, or they differ.
        """
        sample, values, size = self.source.get_sample(batch), {}, None
        for key, item in sample.items():
            if item.is_shared or (self.key_list is not None and key not in self.key_list):
                continue
            values[key] = value = item()
            is_one = isinstance(value, Mapping | str | bytes) or not hasattr(value, "__len__")
            length = None if is_one else len(value)
            if length is None or (size is not None and length != size):
                what = "no length" if length is None else f"the length {length}, others {size}"
                raise SampleError(
                    f"batch {batch} cannot be taken apart: item {key!r} has {what}. Leave the "
                    "key out with `key_list`, or share the item."
                )
            size = length
        return values, size or 0

    def size(self) -> int:
        """Returns the number of samples in all batches."""
        return self._ends[-1] if self._ends else 0

    def get_sample(self, idx: int) -> Sample:
        """Returns the one sample of the batch that it is in.

        Raises:
            SampleError: If the batch has not the size that was given.
        """
        batch = bisect_right(self._ends, idx)
        position = idx - (self._ends[batch - 1] if batch else 0)
        values, size = self._values(batch)
        if position >= size:
            raise SampleError(
                f"sample {idx} is to be element {position} of batch {batch}, which has {size}: "
                "give the right `batch_size`, or 'variable'."
            )
        return Sample.of(
            {
                key: item.make_new(values[key][position]) if key in values else item
                for key, item in self.source.get_sample(batch).items()
                if self.key_list is None or key in self.key_list
            }
        )
