"""A stage applied to each sample."""

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import (
    EMPTY_SAMPLE,
    PipedSequence,
    piped_sequence,
)
from prefect_pipestream.sequences.stage import StageInput


@piped_sequence
class MappedSequence(PipedSequence, title="map"):
    """Applies a stage to each sample; one that the stage drops becomes an empty sample."""

    takes_whole_argument = True

    stage: StageInput = Field(description="The stage, or its specification.")

    def get_sample(self, idx: int) -> Sample:
        """Returns what the stage makes of the sample."""
        sample = self.stage(self.source.get_sample(idx))
        return EMPTY_SAMPLE if sample is None else sample
