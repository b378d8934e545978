"""What is on disk, held in eight bytes a file."""

import os
import threading
import warnings
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder.format.names import Kind, parse_item_name

_KIND_BITS = 16
_KIND_MASK = (1 << _KIND_BITS) - 1
_MERGE_AT = 65_536
_BATCH = 4_000
_WIDEST = 20


class Named(Protocol):
    """What has a file's name."""

    @property
    def name(self) -> str:
        """The name."""


class UnderfolderIndex:
    """The files of a data folder, by sample.

    One file is one unsigned 64-bit number, its sample's index above 16 bits that name its
    `Kind`; the numbers are kept sorted. A million samples of six items take 48 MB, gaps take
    nothing, and a sample's files are found by bisection (about 2 µs at any size). Changes go
    to a small table on top, which is merged when it has grown.
    """

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self._numbers: dict[Kind, int] = {}
        self._packed: array[int] = array("Q")
        self._changed: dict[int, tuple[int, ...]] = {}
        self._length: int | None = None
        # Of what changes the tables; who looks a sample up finds it in the one or the other.
        self._guard = threading.RLock()

    # -- building ----------------------------------------------------------------------

    @classmethod
    def scan(cls, folder: str, warned_of: set[str] | None = None) -> "UnderfolderIndex":
        """Reads a data folder in one pass of `os.scandir`; a missing folder is empty.

        Names that are not ``<index>_<key>.<ext>`` are skipped with one warning for all of
        them; names that begin with a dot are skipped in silence.

        Args:
            folder: The data folder.
            warned_of: Names to skip in silence, too; the new ones are added.

        Raises:
            OSError: If the folder cannot be read.
            DatasetError: If there are more than 65,536 different item names.
        """
        try:
            with os.scandir(folder) as entries:
                return cls.of(entries, folder, warned_of)
        except FileNotFoundError:
            return cls()

    @classmethod
    def of(
        cls, entries: Iterable[Named], folder: str, warned_of: set[str] | None = None
    ) -> "UnderfolderIndex":
        """The index of what is in a data folder; see `scan`."""
        index = cls()
        strays: list[str] = []
        index._take_all(entries, strays)
        if warned_of is not None:
            strays = [name for name in strays if name not in warned_of]
            warned_of.update(strays)
        if strays:
            more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
            warnings.warn(
                f"{folder}: skipped {', '.join(map(repr, strays[:3]))}{more}: expected names "
                "like <index>_<key>.<ext>.",
                stacklevel=3,
            )
        return index

    def _take_all(self, entries: Iterable[Named], strays: list[str]) -> None:
        """Sorts names by what follows the index, so that numbers are parsed many at a time."""
        heads: defaultdict[str, list[str]] = defaultdict(list)
        entries = iter(entries)
        while batch := list(islice(entries, _BATCH)):
            for entry in batch:
                name = entry.name
                head, _, tail = name.partition("_")
                if tail:
                    heads[tail].append(head)
                elif name[0] != ".":
                    strays.append(name)
            for tail, some in heads.items():
                self._take(tail, some, strays)
            heads.clear()
        if self._packed:
            np.frombuffer(self._packed, dtype=np.uint64).sort()

    def _take(self, tail: str, heads: list[str], strays: list[str]) -> None:
        for width in set(map(len, heads)):
            alike = [head for head in heads if len(head) == width]
            text = "".join(alike)
            is_item = parse_item_name("0_" + tail) is not None
            if is_item and 0 < width < 15 and text.isascii() and text.isdigit():
                self._take_digits(tail, width, text)
            else:
                self._take_one_by_one(tail, alike, strays)

    def _take_digits(self, tail: str, width: int, text: str) -> None:
        digits = np.frombuffer(text.encode(), dtype=np.uint8).reshape(-1, width) - 48
        idx = digits @ (10 ** np.arange(width - 1, -1, -1, dtype=np.uint64))
        is_padded = (digits[:, 0] == 0) if width > 1 else np.zeros(len(idx), dtype=bool)
        for padded in (True, False):
            if (is_padded == padded).any():
                number = self._number_of(Kind(tail, width if padded else 0))
                packed = idx[is_padded == padded] << np.uint64(_KIND_BITS) | np.uint64(number)
                self._packed.frombytes(packed.tobytes())

    def _take_one_by_one(self, tail: str, heads: list[str], strays: list[str]) -> None:
        for head in heads:
            name = f"{head}_{tail}"
            parsed = parse_item_name(name)
            if parsed is not None:
                idx, kind = parsed
                self._packed.append(idx << _KIND_BITS | self._number_of(kind))
            elif not name.startswith("."):
                strays.append(name)

    def _number_of(self, kind: Kind) -> int:
        number = self._numbers.get(kind)
        if number is None:
            number = len(self._kinds)
            if number > _KIND_MASK:
                raise DatasetError(
                    f"There are more than {_KIND_MASK + 1} different item names in one data folder "
                    f"(the last one: {kind.tail!r}). Give the items of all samples the same names."
                )
            self._numbers[kind] = number
            self._kinds.append(kind)
        return number

    def restricted_to(self, indices: Iterable[int]) -> "UnderfolderIndex":
        """Returns an index of just these samples: small, for a worker elsewhere."""
        part = UnderfolderIndex()
        part._kinds = list(self._kinds)
        part._numbers = dict(self._numbers)
        for idx in sorted(set(indices)):
            part._packed.extend(idx << _KIND_BITS | number for number in self._numbers_at(idx))
        return part

    # -- asking ------------------------------------------------------------------------

    def __len__(self) -> int:
        """The last index plus one; 0 where there is no sample."""
        with self._guard:
            if self._length is None:
                self._length = self._last_index() + 1
            return self._length

    def _last_index(self) -> int:
        last = max((idx for idx, numbers in self._changed.items() if numbers), default=-1)
        for packed in reversed(self._packed):
            idx = packed >> _KIND_BITS
            if idx <= last:
                break
            if idx not in self._changed:
                return idx
        return last

    def __contains__(self, idx: int) -> bool:
        """Whether sample `idx` has files of its own."""
        return bool(self._numbers_at(idx))

    def kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of the files of sample `idx`, in the order in which they were first met."""
        return [self._kinds[number] for number in self._numbers_at(idx)]

    def names_of(self, idx: int) -> list[str]:
        """The names of the files of sample `idx`."""
        return [self._kinds[number].name_of(idx) for number in self._numbers_at(idx)]

    def _numbers_at(self, idx: int) -> tuple[int, ...]:
        changed = self._changed.get(idx)
        if changed is not None:
            return changed
        packed = self._packed
        at = bisect_left(packed, idx << _KIND_BITS)
        end = (idx + 1) << _KIND_BITS
        found = []
        while at < len(packed) and packed[at] < end:
            found.append(packed[at] & _KIND_MASK)
            at += 1
        return tuple(found)

    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of the samples that have files of their own: int64, ascending."""
        with self._guard:
            self._merge()
            merged = self._packed
        if not merged:
            return np.empty(0, dtype=np.int64)
        return _indices_in(np.frombuffer(merged, dtype=np.uint64))

    def indices_of(self, kind: Kind) -> npt.NDArray[np.int64]:
        """The indices of the samples that have a file of this kind: int64, ascending."""
        number = self._numbers.get(kind)
        with self._guard:
            self._merge()
            merged = self._packed
        if not merged or number is None:
            return np.empty(0, dtype=np.int64)
        packed = np.frombuffer(merged, dtype=np.uint64)
        chosen = packed[(packed & np.uint64(_KIND_MASK)) == np.uint64(number)]
        indices: npt.NDArray[np.int64] = (chosen >> np.uint64(_KIND_BITS)).astype(np.int64)
        return indices

    def kinds(self) -> list[Kind]:
        """Every kind that was met in the folder."""
        return list(self._kinds)

    def widest(self) -> int:
        """The digits of the widest padded index; 0 where no name is padded.

        A name of more than 20 digits is no example to follow: others would get too long.
        """
        widths = (kind.width for kind in self._kinds)
        return max((width for width in widths if width <= _WIDEST), default=0)

    # -- changing ----------------------------------------------------------------------

    def learn(self, kinds: Iterable[Kind]) -> None:
        """Takes kinds of files for known that no sample has here."""
        with self._guard:
            for kind in kinds:
                self._number_of(kind)

    def update(self, idx: int, *, added: Iterable[str] = (), removed: Iterable[str] = ()) -> None:
        """Takes over what a commit did to the names of sample `idx`."""
        with self._guard:
            numbers = dict.fromkeys(self._numbers_at(idx))
            for name in removed:
                numbers.pop(self._number_of_name(name), None)
            for name in added:
                numbers[self._number_of_name(name)] = None
            self._changed[idx] = tuple(numbers)
            self._length = None if not numbers else max(len(self), idx + 1)
            if len(self._changed) > _MERGE_AT:
                self._merge()

    def _number_of_name(self, name: str) -> int:
        parsed = parse_item_name(name)
        if parsed is None:
            raise ValueError(f"{name!r} is not the name of an item: expected <index>_<key>.<ext>.")
        return self._number_of(parsed[1])

    def _merge(self) -> None:
        """The caller holds the guard."""
        if not self._changed:
            return
        packed = np.frombuffer(self._packed, dtype=np.uint64) if self._packed else _EMPTY
        kept = packed[
            ~np.isin(
                packed >> np.uint64(_KIND_BITS),
                np.fromiter(self._changed, dtype=np.uint64, count=len(self._changed)),
            )
        ]
        fresh = np.array(
            [idx << _KIND_BITS | n for idx, numbers in self._changed.items() for n in numbers],
            dtype=np.uint64,
        )
        merged = np.concatenate([kept, fresh])
        merged.sort()
        self._packed = array("Q", merged.tobytes())
        self._changed = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the kinds and the packed numbers."""
        with self._guard:
            self._merge()
            return {"kinds": list(self._kinds), "packed": self._packed.tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores what `__getstate__` gave."""
        self.__init__()  # type: ignore[misc]
        self._kinds = list(state["kinds"])
        self._numbers = {kind: number for number, kind in enumerate(self._kinds)}
        self._packed = array("Q", state["packed"])


_EMPTY = np.empty(0, dtype=np.uint64)


def _indices_in(packed: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The index of each sample, of the ascending numbers of files; little more memory than that."""
    is_first = np.ones(len(packed), dtype=bool)
    for begin in range(1, len(packed), _MERGE_AT):
        end = min(begin + _MERGE_AT, len(packed))
        bits = packed[begin:end] ^ packed[begin - 1 : end - 1]
        np.greater(bits, np.uint64(_KIND_MASK), out=is_first[begin:end])
    first = packed[is_first]
    np.right_shift(first, np.uint64(_KIND_BITS), out=first)
    return first.view(np.int64)


def each_once(ascending: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers of an ascending column, once each: a tenth of the time of `np.unique`."""
    is_other = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=is_other[1:])
    return np.compress(is_other, ascending)


def checked_indices(indices: Sequence[int], length: int) -> npt.NDArray[np.int64]:
    """The given indices once each: int64, ascending.

    Raises:
        IndexError: If one is not between 0 and `length` - 1.
    """
    for idx in (min(indices, default=0), max(indices, default=0)):
        if len(indices) and not 0 <= idx < length:
            raise IndexError(f"indices: there is no sample {idx}; there are {length} samples.")
    return np.unique(np.asarray(indices, dtype=np.int64))
