"""Which sample came from what: by it a sample keeps its index when others come and go.

``.pipestream/imported.jsonl`` has a line for each run that brought in something new::

    {"run": "…", "at": 1732, "origin": "/photos", "first": 20, "names": ["a.jpg", "b.jpg"]}

Names are assigned before their samples are written, and stay assigned: what is gone from its
source, or from the dataset, gets its old index if it comes back. Those of a run that was undone are
free again. Where the file is missing, the samples' metadata tells.
"""

import json
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, DatasetWriteError, ItemError
from prefect_pipestream.items import MetadataItem
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.untrusted import read_regular, write_anew
from prefect_pipestream.underfolder.commits.apply import commit_lock
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.ledger.compactions import compactions
from prefect_pipestream.underfolder.ledger.records import is_time
from prefect_pipestream.underfolder.ledger.rows import Moves
from prefect_pipestream.underfolder.ledger.run import Run, runs_of


@dataclass(frozen=True)
class Assigned:
    """The indices of what a source has.

    Attributes:
        indices: That of each name that was given: int64.
        vanished: The indices of samples that came from there, by names that were not given.
        left_out: Names whose samples were removed before a compaction took their indices: these
            have -1.
    """

    indices: npt.NDArray[np.int64]
    vanished: Mapping[str, int]
    left_out: Sequence[str]


def assign(
    folder: Folder,
    run_key: str,
    origin: str,
    names: Sequence[str],
    *,
    metadata_key: str = "metadata",
    take_back: bool = False,
) -> Assigned:
    """Says which index each sample of a source has in a dataset; new ones go behind its end.

    Args:
        folder: The dataset's root; its folders are made where they are missing.
        run_key: The run that brings them in.
        origin: What the source is called.
        names: The names of the samples at the source, each once.
        metadata_key: The item that tells where samples came from, if the index is missing.
        take_back: Whether samples get an index again that were removed before a compaction.

    Raises:
        DatasetError: If the index cannot be read.
        DatasetWriteError: If it cannot be written.
    """
    layout = Layout.of(folder)
    asked = Asked(_in_folder(layout), run_key, origin, names, metadata_key, take_back)
    with DatasetWriteError.explaining(f"{layout.root}: its index of imports cannot be written"):
        layout.make()
        with commit_lock(layout):
            assigned, added = asked.assigned(layout)
            if added:
                add_lines(layout, added, durable=True)
    return assigned


@DatasetError.explaining_questions()
def would_assign(
    folder: Folder,
    run_key: str,
    origin: str,
    names: Sequence[str],
    *,
    metadata_key: str = "metadata",
    take_back: bool = False,
) -> Assigned:
    """What `assign` would say now, with these arguments; nothing is written.

    Raises:
        DatasetError: If the index cannot be read.
    """
    layout = Layout.of(folder)
    asked = Asked(_in_folder(layout), run_key, origin, names, metadata_key, take_back)
    return asked.assigned(layout)[0]


@dataclass(frozen=True)
class Asked:
    """What indices are asked for; see `assign`."""

    dataset: Underfolder
    run_key: str
    origin: str
    names: Sequence[str]
    metadata_key: str
    take_back: bool

    @cached_property
    def _told(self) -> "_Metadata":
        """What samples tell: it takes its time, and is asked for once, if at all."""
        return _Metadata(self.dataset, self.metadata_key)

    def assigned(self, layout: Layout) -> tuple[Assigned, "list[ImportLine]"]:
        """The indices, and what is to be noted besides what is, if there is something new.

        Args:
            layout: Where the ledgers of runs are, and what was noted.
        """
        names, origin = self.names, self.origin
        index = self.dataset.index()
        noted = _read(layout)
        told = [] if noted else self._told.lines()
        owners = _Owners(layout, [*noted, *told], self._told)
        known = owners.indices_of(origin)
        out = set() if self.take_back else owners.displaced_of(origin)
        new = [name for name in names if name not in known and name not in out]
        added = []
        if new:
            first = max(owners.end(), len(index))
            added = [*told, ImportLine(self.run_key, time.time(), origin, new, first=first)]
            known.update(zip(new, range(first, first + len(new)), strict=True))
        indices = np.fromiter((known.get(name, -1) for name in names), np.int64, len(names))
        gone = sorted(known.keys() - set(names))
        vanished = {name: known[name] for name in gone if known[name] in index}
        left_out = [name for name in names if name not in known]
        return Assigned(indices, vanished, left_out), added


@dataclass(frozen=True)
class ImportLine:
    """What one run assigned: consecutive indices from `first` on, or one by one."""

    run: str
    at: float
    origin: str
    names: Sequence[str]
    first: int | None = None
    indices: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """The line as a value of JSON."""
        entry = {name: value for name, value in vars(self).items() if value not in ((), None)}
        return {**entry, "names": self.names}

    @classmethod
    def checked(cls, said: Any) -> "ImportLine":
        """The reverse of `to_json`.

        Raises:
            ValueError, TypeError: If it is no such line.
        """
        if not isinstance(said, dict):
            raise ValueError("it is no line of an index of imports")
        line = cls(**said)
        if not (isinstance(line.names, list) and isinstance(line.indices, list | tuple)):
            raise ValueError("it has no list of names")
        if not is_time(line.at):
            raise ValueError("its time is none")
        places = (*line.indices, *([] if line.first is None else [line.first]))
        if not all(type(text) is str for text in (line.run, line.origin, *line.names)):
            raise ValueError("a name is no text")
        if not all(type(place) is int and 0 <= place < MAX_INDEX for place in places):
            raise ValueError("an index is none")
        if line.first is not None and line.first + len(line.names) > MAX_INDEX:
            raise ValueError("its indices are too high")
        if line.first is None and len(line.indices) != len(line.names):
            raise ValueError("it has not as many names as indices")
        return line

    def assigned(self) -> Iterator[tuple[str, int]]:
        """Each name with its index."""
        first = self.first
        places = self.indices if first is None else range(first, first + len(self.names))
        return zip(self.names, places, strict=True)


def _read(layout: Layout) -> list[ImportLine]:
    path = layout.imported
    if not is_there(path):
        return []
    try:
        return [ImportLine.checked(json.loads(text)) for text in read_regular(path).splitlines()]
    except (ValueError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: this index of imports cannot be read ({error}). Remove it: it is made anew "
            "from the samples' metadata."
        ) from error


class _Metadata:
    """What the metadata of a dataset's samples says of where they came from."""

    def __init__(self, dataset: Underfolder, key: str) -> None:
        self._dataset = dataset
        self._key = key

    @cached_property
    def owners(self) -> Mapping[tuple[str, str], int]:
        """The index of each origin and name that some sample tells; the first one's."""
        found: dict[tuple[str, str], int] = {}
        indices = self._dataset.indices().tolist()
        samples = self._dataset.restricted_to(indices)  # in a bucket, read ahead
        for idx in indices:
            if (owner := self._of(samples, idx)) is not None:
                found.setdefault(owner, idx)
        return found

    def lines(self, wanted: Container[tuple[str, str]] | None = None) -> list[ImportLine]:
        """What all samples tell, or those of some origins and names, as lines of now."""
        by_origin: dict[str, dict[str, int]] = {}
        for owner, idx in self.owners.items():
            if wanted is None or owner in wanted:
                by_origin.setdefault(owner[0], {})[owner[1]] = idx
        now = time.time()
        return [
            ImportLine("", now, origin, list(names), indices=list(names.values()))
            for origin, names in by_origin.items()
        ]

    def _of(self, samples: Underfolder, idx: int) -> tuple[str, str] | None:
        """The origin and name of a sample; None where it does not tell."""
        try:
            item = samples.read(idx).get(self._key)
            said = item() if isinstance(item, MetadataItem) else None
        except (ItemError, IndexError):  # it tells nothing, then
            return None
        origin, name = (said.get(key) if isinstance(said, dict) else None for key in _TELLING)
        return (origin, name) if isinstance(origin, str) and isinstance(name, str) else None


_TELLING = ("origin", "file")


class _Owners:
    """What each index is assigned to, by all lines and moves in the order of time.

    What a run assigned that was undone is free again. Where that leaves a doubt, as an undo may be
    undone in its turn, the samples tell, each of which is read for it.
    """

    def __init__(self, layout: Layout, lines: Sequence[ImportLine], told: _Metadata) -> None:
        self._at: dict[int, tuple[str, str]] = {}
        self._index_of: dict[tuple[str, str], int] = {}
        self._displaced: set[tuple[str, str]] = set()
        runs = runs_of(layout)
        moves = _moves(layout)
        is_contested = False
        for line in sorted(lines, key=lambda line: line.at):
            self._follow(moves, until=line.at)
            if any(_took_back(run, line) for run in runs):
                is_contested = True
                continue
            for name, idx in line.assigned():
                owner = line.origin, name
                is_free = self._at.get(idx, owner) == owner
                is_contested |= not (is_free and self._index_of.get(owner, idx) == idx)
                self._assign(idx, owner)
        self._follow(moves, until=inf)
        if is_contested:  # as by undos that were undone: the samples that are there tell
            named = {(line.origin, name) for line in lines for name in line.names}
            for owner, idx in told.owners.items():
                if owner in named:
                    self._assign(idx, owner)

    def _assign(self, idx: int, owner: tuple[str, str]) -> None:
        was = self._index_of.get(owner)
        if was is not None and self._at.get(was) == owner:
            del self._at[was]
        self._at[idx], self._index_of[owner] = owner, idx
        self._displaced.discard(owner)

    def _follow(self, moves: deque[tuple[float, int, int]], until: float) -> None:
        while moves and moves[0][0] < until:
            _, old, new = moves.popleft()
            if new in self._at:  # its sample was removed, else it would have moved before
                displaced = self._at.pop(new)
                self._displaced.add(displaced)
                del self._index_of[displaced]
            if old in self._at:
                self._at[new] = self._at.pop(old)
                self._index_of[self._at[new]] = new

    def indices_of(self, origin: str) -> dict[str, int]:
        """The index of each name of an origin."""
        return {name: idx for idx, (of, name) in self._at.items() if of == origin}

    def displaced_of(self, origin: str) -> set[str]:
        """The names of an origin whose indices other samples have by now."""
        return {name for of, name in self._displaced if of == origin}

    def end(self) -> int:
        """The first index behind all that are assigned."""
        return max(self._at, default=-1) + 1


def _took_back(run: Run, line: ImportLine) -> bool:
    """Whether what a line assigned was taken back: its run was undone since."""
    return run.key == line.run and run.is_undone() and line.at <= run.facts().get("undone", inf)


def _moves(layout: Layout) -> deque[tuple[float, int, int]]:
    """The time, the old index and the new one of each move that stands, by time."""
    found = Moves.joined(run.moves() for run in compactions(layout))
    order = np.argsort(found.at, kind="stable")
    columns = (column[order].tolist() for column in (found.at, found.old, found.new))
    return deque(zip(*columns, strict=True))


def forget_imports(run: Run) -> None:
    """Forgets what a run assigned that was undone and is about to be removed.

    What is there all the same, as the undo was undone, is kept as the samples tell it.

    Raises:
        DatasetError: If the index cannot be read.
        OSError: If it cannot be written.
    """
    layout = run.layout
    if not is_there(layout.imported):
        return
    with commit_lock(layout):
        drop_lines(run, told_instead(run, _in_folder(layout)))


def told_instead(run: Run, samples: Underfolder) -> list[ImportLine]:
    """What samples tell of the names that a run assigned that was undone.

    Raises:
        DatasetError: If the index, or the dataset, cannot be read.
    """
    gone = [line for line in _read(run.layout) if _took_back(run, line)]
    names = {(line.origin, name) for line in gone for name in line.names}
    return _Metadata(samples, "metadata").lines(names) if names else []


def drop_lines(run: Run, instead: Sequence[ImportLine] = (), *, durable: bool = True) -> None:
    """Drops what a run assigned that was undone, and notes other lines instead.

    Raises:
        DatasetError: If the index cannot be read.
        OSError: If it cannot be written.
    """
    lines = _read(run.layout)
    kept = [line for line in lines if not _took_back(run, line)]
    if len(kept) < len(lines):
        _write(run.layout, [*kept, *instead], durable=durable)


def _in_folder(layout: Layout) -> Underfolder:
    return Underfolder(layout.root, must_exist=False, merge_root_items=False)


def add_lines(layout: Layout, lines: Sequence[ImportLine], *, durable: bool) -> None:
    """Notes more lines behind those that there are.

    Raises:
        OSError: If they cannot be written; what was noted is as it was.
    """
    _write(layout, [*_read(layout), *lines], durable=durable)


def _write(layout: Layout, lines: Sequence[ImportLine], *, durable: bool = True) -> None:
    content = b"".join(json.dumps(line.to_json()).encode() + b"\n" for line in lines)
    write_anew(layout.imported, content, layout.staged, durable=durable)
