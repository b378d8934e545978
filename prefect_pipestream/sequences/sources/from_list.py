"""Samples that are in memory."""

from collections.abc import Sequence

from pydantic import Field, SkipValidation, field_validator

from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


@source_sequence
class FromList(SamplesSequence, title="from_list"):
    """Takes samples that are in memory."""

    takes_whole_argument = True

    samples: SkipValidation[Sequence[Sample]] = Field(description="The samples.")

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
