"""Several samples stacked into one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

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

    batch_size: PositiveInt = Field(description="How many samples make one.")
    drop_last: bool = Field(
        False, description="Whether to leave out the last one if fewer are left for it."
    )
    key_list: Sequence[str] | None = Field(None, description="The keys to take; none: all.")

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
