"""Some of the samples, chosen by what is in them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic import Field

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample


@piped_sequence
class FilteredSequence(PipedSequence, title="filter"):
    """Keeps the samples for which a function is true."""

    filter_fn: Callable[[Sample], bool] = Field(description="Takes a sample.")
    lazy: bool = Field(True, description="Whether to look for them at the first access.")
    insert_empty_samples: bool = Field(
        False,
        description="Whether the others become empty samples: the length stays, and no sample "
        "is read in advance.",
    )

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
