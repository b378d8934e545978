"""A slice of a sequence."""

from functools import cached_property

from pydantic import Field, field_validator

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class SlicedSequence(PipedSequence, title="slice"):
    """Takes the samples from `start` to before `stop`, as Python's slices do."""

    start: int | None = Field(None, description="The first index; negative from the end.")
    stop: int | None = Field(None, description="The index before which to stop.")
    step: int | None = Field(None, description="The step; negative goes backwards.")

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
