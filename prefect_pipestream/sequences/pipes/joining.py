"""Several sequences in one."""

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import Any

from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.piped import PipedSequence, SequenceInput
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


@piped_sequence
class ZippedSequences(PipedSequence, title="zip"):
    """Merges each sample with the one of another sequence; as long as the shorter one."""

    to_zip: SequenceInput
    key_format: str = "*"

    def size(self) -> int:
        """Returns the length of the shorter one."""
        return min(self.source.size(), self.to_zip.size())

    def get_sample(self, idx: int) -> Sample:
        """Returns the items of both samples."""
        other = self.to_zip.get_sample(idx)
        if self.key_format not in ("*", ""):
            other = Sample.of({format_key(self.key_format, k): v for k, v in other.items()})
        return self.source.get_sample(idx).merge(other)


@piped_sequence
class ConcatSequences(PipedSequence, title="cat"):
    """Puts sequences one behind the other, or takes a sample of each in turn."""

    to_cat: list[SequenceInput]
    interleave: bool = False

    def __init__(self, *seqs: Any, to_cat: Any = (), **kwargs: Any) -> None:
        fields: dict[str, Any] = {"to_cat": [*seqs, *to_cat], **kwargs}
        super().__init__(**fields)

    @cached_property
    def _parts(self) -> list[SamplesSequence]:
        return [self.source, *self.to_cat]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(part.size() for part in self._parts))

    @cached_property
    def _rounds(self) -> list[tuple[int, int, list[SamplesSequence]]]:
        """Where the number of sequences that are not yet at their end changes.

        Each is the index of the first sample, its index in the sequences, and the sequences.
        """
        sizes = [part.size() for part in self._parts]
        rounds, first, done = [], 0, 0
        for size in sorted(set(sizes) - {0}):
            alive = [p for p, n in zip(self._parts, sizes, strict=True) if n > done]
            rounds.append((first, done, alive))
            first += (size - done) * len(alive)
            done = size
        return rounds

    def size(self) -> int:
        """Returns the sum of the lengths."""
        return self._ends[-1]

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample of the sequence that the index falls into."""
        if self.interleave:
            which = bisect_right(self._rounds, idx, key=lambda each: each[0]) - 1
            first, done, alive = self._rounds[which]
            turn, position = divmod(idx - first, len(alive))
            return alive[position].get_sample(done + turn)
        which = bisect_right(self._ends, idx)
        return self._parts[which].get_sample(idx - (self._ends[which - 1] if which else 0))
