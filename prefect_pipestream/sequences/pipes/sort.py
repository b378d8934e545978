"""The samples in another order, given by what is in them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic import Field

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class SortedSequence(PipedSequence, title="sort"):
    """Sorts the samples by the key that a function gives; equal ones keep their order."""

    key_fn: Callable[[Sample], Any] = Field(description="Takes a sample and returns its key.")
    lazy: bool = Field(True, description="Whether to sort at the first access.")

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
