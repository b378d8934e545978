"""The disk space that undo holds, and what of it the removal of runs frees."""

import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import names_in, status_of
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger.run import Run, runs_of

_BLOCK = 512
"""The unit of a file's blocks, whatever those of the disk are."""


@dataclass(slots=True)
class _File:
    """A file that has several names, with how many of them are undo files of which run."""

    size: int
    names: int
    held: dict[str, int] = field(default_factory=dict)

    @property
    def is_held(self) -> bool:
        """Whether nothing but undo has it: it is neither in place, nor in another dataset."""
        return sum(self.held.values()) == self.names


class UndoSpace:
    """What undo files take of the disk that nothing else does. Costs a `stat` of each.

    They are hard links, or old files under another name: one that is in its place as well, or in
    another dataset, takes nothing; and one that several runs hold is free once all of them are
    removed.

    Args:
        runs: The runs whose undo files are looked at, by the names of their folders later on.

    Attributes:
        total: The bytes that undo holds in all.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._own: dict[str, int] = {}
        self._shared: dict[str, list[_File]] = {}
        runs = list(runs)
        linked = array("Q")  # as many as samples, in a dataset that was imported as hard links
        for run in runs:
            self._own[run.name] = 0
            for status in _undo_files(run):
                if status.st_nlink == 1:
                    self._own[run.name] += _size_of(status)
                else:
                    linked.append(status.st_ino)
        self.total = sum(self._own.values())
        for file in _held_files(runs, _repeated(linked)):
            self.total += file.size
            for name in file.held:
                self._shared.setdefault(name, []).append(file)

    @classmethod
    def of_contents(cls, held: Mapping[str, Mapping[str, int]]) -> "UndoSpace":
        """What contents take that runs hold, and nothing else does.

        Args:
            held: Their sizes by key, by the names of the runs' folders.
        """
        space = cls(())
        holders = Counter(chain.from_iterable(held.values()))
        files: dict[str, _File] = {}
        for run, contents in held.items():
            space._own[run] = 0
            for key, size in contents.items():
                if holders[key] == 1:
                    space._own[run] += size
                    continue
                file = files.setdefault(key, _File(size, holders[key]))
                file.held[run] = 1
                space._shared.setdefault(run, []).append(file)
        space.total = sum(space._own.values()) + sum(file.size for file in files.values())
        return space

    def freed_by(self, run: str) -> int:
        """The bytes that the removal of this run alone would free."""
        shared = (file.size for file in self._shared.get(run, ()) if len(file.held) == 1)
        return self._own.get(run, 0) + sum(shared)

    def is_part_of(self, run: str) -> bool:
        """Whether a run holds any of it, be it together with others."""
        return bool(self._own.get(run) or self._shared.get(run))

    def remove(self, run: str) -> int:
        """Takes a run out; returns the bytes that its removal frees."""
        freed = self.freed_by(run)
        for file in self._shared.pop(run, ()):
            file.names -= file.held.pop(run)
        self._own.pop(run, None)
        self.total -= freed
        return freed


@DatasetError.explaining_questions()
def undo_bytes(folder: Folder) -> int:
    """The disk space in bytes that undo holds in a dataset: what pruning all runs would free.

    Runs that were undone hold some, too. What `list_runs` says of each run may be less in all:
    files that several runs hold are free once all of them are removed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    return UndoSpace(runs_of(layout)).total


@DatasetError.explaining_questions()
def undo_bytes_of(folder: Folder, run_key: str) -> int:
    """The disk space in bytes that the undo of one run holds, as far as nothing else does.

    Raises:
        RunKeyError: If that cannot be a run's key.
    """
    return UndoSpace([Run.of(folder, run_key)]).total


def _repeated(numbers: "array[int]") -> set[int]:
    """The numbers that occur more than once, which are sorted by it."""
    column = np.asarray(numbers)  # the same memory
    column.sort()
    return set(column[1:][column[1:] == column[:-1]].tolist())


def _held_files(runs: Iterable[Run], inodes: Set[int]) -> list[_File]:
    """The files of several names that nothing but undo has.

    Args:
        runs: The runs.
        inodes: Those that undo files have more than once: no others can be held by undo alone.
    """
    found: dict[tuple[int, int], _File] = {}
    for run in runs if inodes else ():
        for status in _undo_files(run):
            if status.st_nlink > 1 and status.st_ino in inodes:
                new = _File(_size_of(status), status.st_nlink)
                file = found.setdefault((status.st_dev, status.st_ino), new)
                file.held[run.name] = file.held.get(run.name, 0) + 1
    return [file for file in found.values() if file.is_held]


def _size_of(status: os.stat_result) -> int:
    return status.st_blocks * _BLOCK


def _undo_files(run: Run) -> Iterator[os.stat_result]:
    for commit_id in names_in(run.undo):
        folder = run.undo_of(commit_id)
        for name in names_in(folder):
            status = status_of(f"{folder}/{name}")
            if status is not None and stat.S_ISREG(status.st_mode):
                yield status
