"""What the files of samples are like now: one `stat` a file, no decoding."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, ItemError
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.version import Version, signature_of
from prefect_pipestream.underfolder.format.names import is_shared

Indices = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint64]

_BATCH = 1000
"""The samples that are looked at with one index: what comes meanwhile is seen with the next."""


class Looks(NamedTuple):
    """What the files of some samples are like: signatures, 0 where it cannot be told.

    Attributes:
        all: Of all files of each sample, those that are shared too; as a ledger notes them.
        own: Of its own files alone, where they were looked at apart.
        shared: Of the shared ones alone, likewise: those of the first sample that can be read.
        seen: As a transform saw all of them last, 0 where it did not.
        knows_any: Whether that transform saw any sample at all.
    """

    all: Signatures
    own: Signatures
    shared: int
    seen: Signatures
    knows_any: bool = False

    @property
    def is_changed(self) -> npt.NDArray[np.bool_]:
        """Of each sample, whether it is not as the transform saw it."""
        differs: npt.NDArray[np.bool_] = (self.all != self.seen) | (self.all == 0)
        return differs

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Looks":
        """The looks that a mask chooses."""
        return self._replace(all=self.all[chosen], own=self.own[chosen], seen=self.seen[chosen])


def look_at(source: DataStream, indices: Indices, *, apart: bool = False) -> Looks:
    """Looks at the files of samples.

    Args:
        source: Where they are read.
        indices: The samples.
        apart: Whether own files and shared ones are looked at apart, too.
    """
    every, own = np.zeros(len(indices), np.uint64), np.zeros(len(indices), np.uint64)
    shared = 0
    for at, versions in enumerate(_versions(source, indices)):
        if versions is None:
            continue
        every[at] = _signature(versions, versions)
        if apart:
            mine = [name for name in versions if not is_shared(name)]
            own[at] = _signature(versions, mine)
            shared = shared or _signature(versions, versions.keys() - mine)
    return Looks(every, own, shared, np.zeros(len(indices), np.uint64))


def _versions(source: DataStream, indices: Indices) -> Iterator[Mapping[str, Version] | None]:
    """What the files of each sample are like, by name; None where it cannot be told."""
    for begin in range(0, len(indices), _BATCH):
        batch = indices[begin : begin + _BATCH].tolist()
        for idx, versions in zip(batch, source.file_versions(batch), strict=True):
            yield _versions_of(source, idx) if versions is None else versions


def _versions_of(source: DataStream, idx: int) -> Mapping[str, Version] | None:
    try:
        origin = source.get_input(idx).origin
    except (DatasetError, ItemError, IndexError):
        # it counts as changed, and fails where it is processed, or is found to be gone
        return None
    if origin is None:
        return None
    versions = ((name, one.version) for name, one in origin.sources.items())
    return {name: version for name, version in versions if version is not None}


def _signature(versions: Mapping[str, Version], names: Iterable[str]) -> int:
    return int(signature_of((name, versions[name]) for name in names), 16)
