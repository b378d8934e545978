"""Samples that a function makes."""

from collections.abc import Callable

from pydantic import Field, field_validator

from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


@source_sequence
class FromCallable(SamplesSequence, title="from_callable"):
    """Calls a function for each sample."""

    generator_fn: Callable[[int], Sample] = Field(
        description="Takes an index from 0 on and returns the sample."
    )
    length: int | Callable[[], int] = Field(
        description="The number of samples, or a function that returns it."
    )

    @field_validator("length")
    @classmethod
    def _check(cls, length: int | Callable[[], int]) -> int | Callable[[], int]:
        if isinstance(length, int) and length < 0:
            raise ValueError("expected 0 or more")
        return length

    def size(self) -> int:
        """Returns the length as given, or as the function says now."""
        return self.length if isinstance(self.length, int) else self.length()

    def get_sample(self, idx: int) -> Sample:
        """Calls the function."""
        return self.generator_fn(idx)
