"""Samples of a dataset folder."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.storage.address import PlaceField
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.opening import open_dataset


@source_sequence
class FromUnderfolder(SamplesSequence, title="from_underfolder"):
    """Reads a dataset folder.

    Raises:
        DatasetNotFoundError: If the folder must exist and does not.
    """

    folder: PlaceField
    merge_root_items: bool = True
    must_exist: bool = True
    watch: bool = False
    allow_pickle: bool = False

    def model_post_init(self, context: Any) -> None:
        """Opens the dataset, so that a missing folder is seen now."""
        self.dataset  # noqa: B018 # opens it

    @cached_property
    def dataset(self) -> Underfolder:
        """The open dataset."""
        return open_dataset(
            self.folder,
            merge_root_items=self.merge_root_items,
            must_exist=self.must_exist,
            watch=self.watch,
            allow_pickle=self.allow_pickle,
        )

    def size(self) -> int:
        """Returns the last index plus one."""
        return len(self.dataset)

    def indices(self) -> npt.NDArray[np.int64]:
        """Returns the indices that have files of their own: int64, ascending."""
        return self.dataset.indices()

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample's own and shared items, none of them decoded."""
        if self.watch:
            return Sample.of(*self.dataset.take(idx))
        return Sample.of(self.dataset.read(idx))

    @property
    def root_sample(self) -> Sample:
        """The shared items alone."""
        return Sample.of(self.dataset.read_shared())

    def watching(self) -> "FromUnderfolder":
        """Returns the same source as one that watches its folder."""
        if self.watch:
            return self
        other = self.model_copy(update={"watch": True})
        other.__dict__.pop("dataset")  # it is opened anew, to be watched
        return other

    def as_of_now(self) -> "FromUnderfolder":
        """Returns the same source, to read several samples; see `Underfolder.as_of_now`."""
        now = self.model_copy()
        now.__dict__["dataset"] = self.dataset.as_of_now()
        return now

    def restricted_to(self, indices: Iterable[int]) -> "FromUnderfolder":
        """Returns the same source for just these samples; see `Underfolder.restricted_to`."""
        part = self.model_copy()
        part.__dict__["dataset"] = self.dataset.restricted_to(indices)
        return part

    def best_zfill(self) -> int:
        """Returns the digits of the last index, or of wider names on disk."""
        return self.dataset.best_zfill()
