"""Other ways to look at a sequence: its values, its batches, a PyTorch dataset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from prefect_pipestream.errors import MissingExtraError
from prefect_pipestream.sequences.sample import Sample

if TYPE_CHECKING:
    import torch.utils.data


class DirectAccess(Sequence[Mapping[str, Any]]):
    """A sequence of samples whose items need no call: `view[3]["image"]`."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, idx: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, idx: "slice[Any, Any, Any]") -> "DirectAccess": ...
    def __getitem__(self, idx: "int | slice[Any, Any, Any]") -> "Mapping[str, Any] | DirectAccess":
        if isinstance(idx, slice):
            return DirectAccess(self._samples[idx])
        return self._samples[idx].direct_access()


def batches(
    samples: Sequence[Sample], size: int, drop_last: bool, fill: Sample
) -> Iterator[tuple[Sample, ...]]:
    """See `SamplesSequence.batch`."""
    if size < 1:
        raise ValueError(f"the batch size is {size}, expected at least 1.")
    return _batches(samples, size, drop_last, fill)


def _batches(
    samples: Sequence[Sample], size: int, drop_last: bool, fill: Sample
) -> Iterator[tuple[Sample, ...]]:
    length = len(samples)
    for start in range(0, length, size):
        batch = tuple(samples[idx] for idx in range(start, min(start + size, length)))
        if len(batch) < size:
            if drop_last:
                return
            batch += (fill,) * (size - len(batch))
        yield batch


def torch_dataset(samples: Sequence[Sample]) -> "torch.utils.data.Dataset[Sample]":
    """See `SamplesSequence.torch_dataset`."""
    try:
        from prefect_pipestream.sequences.torch_dataset import SamplesDataset
    except ImportError as err:
        raise MissingExtraError(
            "torch_dataset() needs PyTorch, which is not installed: `pip install torch`."
        ) from err
    return SamplesDataset(samples)
