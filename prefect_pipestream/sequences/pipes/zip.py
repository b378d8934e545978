"""Two sequences side by side."""

from pydantic import Field

from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.piped import PipedSequence, SequenceInput
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class ZippedSequences(PipedSequence, title="zip"):
    """Merges each sample with the one of another sequence; as long as the shorter one."""

    to_zip: SequenceInput = Field(description="The other sequence; its items win.")
    key_format: str = Field(
        "*",
        description="The keys that the other's items get: `*` stands for theirs; without one it "
        "is a suffix.",
    )

    def size(self) -> int:
        """Returns the length of the shorter one."""
        return min(self.source.size(), self.to_zip.size())

    def get_sample(self, idx: int) -> Sample:
        """Returns the items of both samples."""
        other = self.to_zip.get_sample(idx)
        if self.key_format not in ("*", ""):
            other = Sample.of({format_key(self.key_format, k): v for k, v in other.items()})
        return self.source.get_sample(idx).merge(other)
