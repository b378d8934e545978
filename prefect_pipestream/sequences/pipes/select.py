"""Samples at given indices."""

from collections.abc import Sequence
from functools import cached_property

from pydantic import Field

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class IndexSelectionSequence(PipedSequence, title="select"):
    """Takes the samples at given indices, in the order given; or all others."""

    takes_whole_argument = True

    indexes: Sequence[int] = Field(description="The indices; negative from the end.")
    negate: bool = Field(False, description="Whether to take all samples but these.")

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
