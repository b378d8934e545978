"""A sequence by its values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence


class DirectAccessSequence(Sequence[Mapping[str, Any]]):
    """A sequence of samples whose items need no call: `view[3]["image"]`."""

    def __init__(self, sequence: "SamplesSequence") -> None:
        self._samples = sequence

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, idx: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, idx: "slice[Any, Any, Any]") -> "DirectAccessSequence": ...
    def __getitem__(
        self, idx: "int | slice[Any, Any, Any]"
    ) -> "Mapping[str, Any] | DirectAccessSequence":
        if isinstance(idx, slice):
            return DirectAccessSequence(self._samples[idx])
        return self._samples[idx].direct_access()

    def __add__(self, other: "DirectAccessSequence | SamplesSequence") -> "DirectAccessSequence":
        behind = other._samples if isinstance(other, DirectAccessSequence) else other
        return DirectAccessSequence(self._samples + behind)
