"""The samples several times."""

from pydantic import Field

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class RepeatedSequence(PipedSequence, title="repeat"):
    """Repeats the samples; a fraction repeats the first of them once more."""

    # `Sequence` has a method `count`.
    count_: float = Field(
        alias="count", ge=0, allow_inf_nan=False, description="How often each sample comes."
    )
    interleave: bool = Field(False, description="Whether a sample's copies follow each other.")

    def size(self) -> int:
        """Returns the source's length times `count`, rounded."""
        return round(self.source.size() * self.count_)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample whose turn it is."""
        size = self.source.size()
        if not self.interleave:
            return self.source.get_sample(idx % size)
        copies, extra = divmod(self.size(), size)  # the first `extra` samples have one more
        if idx < extra * (copies + 1):
            return self.source.get_sample(idx // (copies + 1))
        return self.source.get_sample(extra + (idx - extra * (copies + 1)) // copies)
