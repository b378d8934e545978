"""The samples of a source, each under the index that it has in a dataset."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import PrivateAttr

from prefect_pipestream.errors import DecodeError, PipestreamError
from prefect_pipestream.items import Item, SerializationMode
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence

Indices = npt.NDArray[np.int64]


class ImportedSamples(SamplesSequence):
    """The samples of a source, each under the index that it has in a dataset.

    Args:
        source: The source.
        assigned: The index of each of its samples: int64; -1 for those that are left out.
        gone: Other indices, of samples that are not there any more: these are empty.
        shared: Shared items in place of those that the source has.
        copies: Whether files are copied into the dataset, and not linked.
    """

    source: SamplesSequence
    assigned: Indices
    gone: tuple[int, ...] = ()
    shared: Mapping[str, Item[Any]] | None = None
    copies: bool = False

    _order: Indices = PrivateAttr()
    _sorted: Indices = PrivateAttr()
    _gone: frozenset[int] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Sorts the indices, to find a sample by its own."""
        self._order = np.argsort(self.assigned, kind="stable")
        self._sorted = self.assigned[self._order]
        self._gone = frozenset(self.gone)

    def size(self) -> int:
        """Returns the last index plus one."""
        return int(max(self._sorted[-1:].tolist() + list(self.gone), default=-1)) + 1

    def indices(self) -> Indices:
        """Returns the indices of all samples, those that are gone too: int64, ascending."""
        return np.union1d(self._sorted[self._sorted >= 0], np.array(self.gone, np.int64))

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample; an empty one if it is gone.

        Raises:
            IndexError: If no sample has this index.
        """
        at = int(self._sorted.searchsorted(idx))
        if at < len(self._sorted) and self._sorted[at] == idx:
            sample = self.source.get_sample(int(self._order[at]))
            for item in sample.values() if self.copies else ():
                item.serialization_mode = SerializationMode.DEEP_COPY
            return Sample.of({**sample, **self.shared}, sample.origin) if self.shared else sample
        if idx in self._gone:
            return EMPTY_SAMPLE
        raise IndexError(f"sample {idx}: the source has none of this index.")

    def restricted_to(self, indices: Iterable[int]) -> SamplesSequence:
        """Returns a sequence of just these samples, which a worker elsewhere need not look for."""
        return _SomeSamples(source=self, indices_of_part=tuple(indices))


class _SomeSamples(SamplesSequence):
    """Some samples of a source. Pickled, it has them all, undecoded, and not the source."""

    source: SamplesSequence | None
    indices_of_part: tuple[int, ...]

    _taken: dict[int, Sample | Exception] = PrivateAttr(default_factory=dict)

    def size(self) -> int:
        return max(self.indices_of_part, default=-1) + 1

    def indices(self) -> Indices:
        return np.array(self.indices_of_part, np.int64)

    def get_sample(self, idx: int) -> Sample:
        taken = self._taken.get(idx)
        if isinstance(taken, Exception):
            raise taken
        if taken is None:
            if self.source is None:
                raise IndexError(f"sample {idx} is not of this part.")
            return self.source.get_sample(idx)
        return taken

    def __reduce__(self) -> Any:
        return _unpickled, (self.indices_of_part, {i: self._take(i) for i in self.indices_of_part})

    def _take(self, idx: int) -> Sample | Exception:
        try:
            return self.get_sample(idx)
        except Exception as error:  # noqa: BLE001 # of this sample: it fails where it is asked for
            what = f"{type(error).__name__}: {error}"
            return error if isinstance(error, PipestreamError) else DecodeError(what)


def _unpickled(indices: tuple[int, ...], taken: dict[int, Sample | Exception]) -> _SomeSamples:
    part = _SomeSamples(source=None, indices_of_part=indices)
    part._taken = taken
    return part
