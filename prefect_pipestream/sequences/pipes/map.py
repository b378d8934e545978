"""A stage applied to each sample."""

from pydantic import Field

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import StageInput, applied


@piped_sequence
class MappedSequence(PipedSequence, title="map"):
    """Applies a stage to each sample; one that the stage drops becomes an empty sample."""

    takes_whole_argument = True
    keeps_indices = True

    stage: StageInput = Field(description="The stage, or its specification.")

    def get_sample(self, idx: int) -> Sample:
        """Returns what the stage makes of the sample.

        Raises:
            SampleError: If the stage gives the sample a new index.
        """
        return applied(self.stage, self.source.get_sample(idx), idx)
