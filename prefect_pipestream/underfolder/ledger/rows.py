"""What became of samples, as columns of numbers."""

from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.underfolder.ledger.records import CHANGING, OUTCOMES, CommitRecord, Outcome

_NUMBER_OF = {outcome: number for number, outcome in enumerate(OUTCOMES)}
_MOST_ATTEMPTS = 0xFFFF
FAILED = _NUMBER_OF["failed"]
REMOVED = _NUMBER_OF["removed"]
CHANGED = tuple(_NUMBER_OF[outcome] for outcome in CHANGING)


class Rows(NamedTuple):
    """What became of samples: columns of equal length, a row a record, in the order of commits.

    Attributes:
        idx: int64.
        outcome: uint8, the position in `OUTCOMES`.
        attempts: uint16.
        signature: uint64, 0 where unknown.
        at: float64, when it was committed, in seconds since the epoch.
    """

    idx: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.uint8]
    attempts: npt.NDArray[np.uint16]
    signature: npt.NDArray[np.uint64]
    at: npt.NDArray[np.float64]

    def where(self, chosen: npt.NDArray[Any]) -> "Rows":
        """The rows that a mask or an array of positions chooses; of a mask, maybe all of them."""
        if chosen.dtype == bool and chosen.all():
            return self  # not copied
        return Rows(*(column[chosen] for column in self))

    def last_of_each(self) -> "Rows":
        """The last row of each sample, by ascending index."""
        backwards = self.idx[::-1]
        _, first = np.unique(backwards, return_index=True)
        return self.where(len(backwards) - 1 - first)

    def done(self) -> npt.NDArray[np.int64]:
        """The indices of the rows that did not fail."""
        done: npt.NDArray[np.int64] = self.idx[self.outcome != FAILED]
        return done

    def counts(self) -> dict[Outcome, int]:
        """How many samples had each outcome, by the last row of each."""
        found = np.bincount(self.last_of_each().outcome, minlength=len(OUTCOMES)).tolist()
        return dict(zip(OUTCOMES, found, strict=True))

    @classmethod
    def checked(cls, *columns: npt.NDArray[Any]) -> "Rows":
        """The rows of columns that somebody gave us.

        Raises:
            ValueError: If they are no such columns, or of different lengths.
        """
        dtypes = (like.dtype for like in _EMPTY)
        rows = cls(*map(checked_column, cls._fields, columns, dtypes))
        if len({len(column) for column in rows}) != 1:
            raise ValueError("its columns have different lengths")
        if len(rows.outcome) and int(rows.outcome.max()) >= len(OUTCOMES):
            raise ValueError(f"there is no outcome {int(rows.outcome.max())}")
        return rows

    @classmethod
    def joined(cls, parts: Iterable["Rows"]) -> "Rows":
        """The rows of all parts, one after the other; not copied where they are of one part."""
        some = [part for part in parts if len(part.idx)]
        if len(some) == 1:
            return some[0]
        columns = zip(*(_EMPTY, *some), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


_EMPTY = Rows(
    np.empty(0, np.int64),
    np.empty(0, np.uint8),
    np.empty(0, np.uint16),
    np.empty(0, np.uint64),
    np.empty(0, np.float64),
)


def checked_column(name: str, column: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A column as numbers of a type.

    Raises:
        ValueError: If it is no column of such numbers.
    """
    if column.ndim != 1 or not np.can_cast(column.dtype, dtype, "same_kind"):
        raise ValueError(f"{name!r} has {column.dtype} of shape {column.shape}, not {dtype}")
    return column.astype(dtype, copy=False)


class Moves(NamedTuple):
    """Samples that were moved to other indices: columns of equal length, in the order of moving.

    In each commit they ascend, and each goes to a lower index that is free by then.

    Attributes:
        old: int64, the index before.
        new: int64, the index after.
        before: uint64, the signature of its files before, 0 where unknown.
        after: uint64, the one after, 0 where unknown.
        at: float64, when it was committed, in seconds since the epoch.
    """

    old: npt.NDArray[np.int64]
    new: npt.NDArray[np.int64]
    before: npt.NDArray[np.uint64]
    after: npt.NDArray[np.uint64]
    at: npt.NDArray[np.float64]

    @classmethod
    def of(cls, *columns: npt.NDArray[Any]) -> "Moves":
        """Those of rows of samples, some of which were written at another index."""
        _, target, *_ = columns
        return cls(*(column[target >= 0] for column in columns))

    @classmethod
    def joined(cls, parts: Iterable["Moves"]) -> "Moves":
        """The moves of all parts, one after the other."""
        idx, _, _, signature, at = _EMPTY
        empty = cls(idx, idx, signature, signature, at)
        return cls(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))


class Columns:
    """Collects the rows of commits. What is made of it has its memory: then nothing is added."""

    def __init__(self) -> None:
        self.idx, self.target = array("q"), array("q")
        self.outcome, self.attempts = array("B"), array("H")
        self.signature, self.before = array("Q"), array("Q")
        self.ends, self.at = array("q"), array("d")

    def add(self, commit: CommitRecord) -> None:
        """Adds a row for each sample of a commit."""
        for sample in commit.samples:
            self.idx.append(sample.idx)
            self.target.append(-1 if sample.target is None else sample.target)
            self.outcome.append(_NUMBER_OF[sample.outcome])
            self.attempts.append(min(sample.attempts, _MOST_ATTEMPTS))
            self.signature.append(int(sample.signature, 16) if sample.signature else 0)
            self.before.append(int(sample.before, 16) if sample.before else 0)
        self.ends.append(len(self.idx))
        self.at.append(commit.at)

    def moves(self) -> Moves:
        """The moves among what was added so far."""
        before, after = np.asarray(self.before), np.asarray(self.signature)
        return Moves.of(np.asarray(self.idx), np.asarray(self.target), before, after, self._times())

    def rows(self) -> Rows:
        """The rows that were added so far."""
        return Rows(
            np.asarray(self.idx),
            np.asarray(self.outcome),
            np.asarray(self.attempts),
            np.asarray(self.signature),
            self._times(),
        )

    def _times(self) -> npt.NDArray[np.float64]:
        return np.repeat(np.asarray(self.at), np.diff(np.asarray(self.ends), prepend=0))


def moves_in(commits: Iterable[CommitRecord]) -> Moves:
    """The moves of commit records."""
    columns = Columns()
    for commit in commits:
        columns.add(commit)
    return columns.moves()


def rows_of(commits: Iterable[CommitRecord]) -> Rows:
    """The rows of commit records."""
    columns = Columns()
    for commit in commits:
        columns.add(commit)
    return columns.rows()
