"""Stacked samples taken apart."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from pydantic import Field, PositiveInt

from prefect_pipestream.errors import SampleError
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class UnbatchedSequences(PipedSequence, title="unbatched"):
    """Takes stacked samples apart, along the first dimension of their values.

    Shared items are in every sample as they are. Each access decodes the whole batch that the
    sample is in.
    """

    batch_size: PositiveInt | Literal["fixed", "variable"] = Field(
        "fixed",
        description='How many are in each; "fixed": as in the first; "variable": all are read '
        "to find out. The last may have fewer.",
    )
    key_list: Sequence[str] | None = Field(None, description="The keys to take; none: all.")

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
