"""A sequence of samples as a PyTorch dataset. Importing this module needs PyTorch."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from prefect_pipestream.sequences.sample import Sample


class TorchDataset(Dataset[Sample]):  # type: ignore[misc] # untyped where torch is missing
    """The samples by index; it is as picklable as the sequence, for a loader's workers."""

    def __init__(self, sequence: Sequence[Sample]) -> None:
        self.samples = sequence

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, idx: int) -> Sample:
        return self.samples[idx]
