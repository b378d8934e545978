"""Samples that are in memory, or that a function makes."""

from collections.abc import Callable, Sequence

from pydantic import SkipValidation, field_validator

from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


@source_sequence
class FromList(SamplesSequence, title="from_list"):
    """Takes samples that are in memory."""

    takes_whole_argument = True

    samples: SkipValidation[Sequence[Sample]]

    @field_validator("samples")
    @classmethod
    def _check(cls, samples: Sequence[Sample]) -> Sequence[Sample]:
        if not isinstance(samples, Sequence) or isinstance(samples, str):
            raise ValueError("expected a list of samples")
        for idx, sample in enumerate(samples):
            if not isinstance(sample, Sample):
                raise ValueError(f"element {idx} is a {type(sample).__name__}, expected a Sample")
        return samples

    def size(self) -> int:
        """Returns the number of samples."""
        return len(self.samples)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample itself."""
        return self.samples[idx]


@source_sequence
class FromCallable(SamplesSequence, title="from_callable"):
    """Calls a function for each sample."""

    generator_fn: Callable[[int], Sample]
    length: int | Callable[[], int]

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
