"""Which sample came from what: by it a sample keeps its index when others come and go.

``.pipestream/imported.jsonl`` has a line for each run that brought in something new::

    {"run": "…", "at": 1732, "origin": "/photos", "first": 20, "names": ["a.jpg", "b.jpg"]}

Names are assigned before their samples are written, and stay assigned: what is gone from its
source, or from the dataset, gets its old index if it comes back. Those of a run that was undone are
free again. Where the file is missing, the samples' metadata tells.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, DatasetWriteError, ItemError
from prefect_pipestream.items import MetadataItem
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.untrusted import read_regular, write_anew
from prefect_pipestream.underfolder.commits.apply import commit_lock
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.ledger.run import runs_of


@dataclass(frozen=True)
class Assigned:
    """The indices of what a source has.

    Attributes:
        indices: That of each name that was given: int64.
        vanished: The indices of samples that came from there, by names that were not given.
    """

    indices: npt.NDArray[np.int64]
    vanished: Mapping[str, int] = field(default_factory=dict)


def assign(
    folder: Folder,
    run_key: str,
    origin: str,
    names: Sequence[str],
    *,
    metadata_key: str = "metadata",
) -> Assigned:
    """Says which index each sample of a source has in a dataset; new ones go behind its end.

    Args:
        folder: The dataset's root; its folders are made where they are missing.
        run_key: The run that brings them in.
        origin: What the source is called.
        names: The names of the samples at the source, each once.
        metadata_key: The item that tells where samples came from, if the index is missing.

    Raises:
        DatasetError: If the index cannot be read.
        DatasetWriteError: If it cannot be written.
    """
    layout = Layout.of(folder)
    with DatasetWriteError.explaining(f"{layout.root}: its index of imports cannot be written"):
        layout.make()
        with commit_lock(layout):
            index = UnderfolderIndex.scan(layout.data)
            told = _Metadata(layout, metadata_key)
            lines = _read(layout) if is_there(layout.imported) else list(told.lines())
            owners = _owners(layout, lines, told)
            known = {name: idx for idx, (of, name) in owners.items() if of == origin}
            new = [name for name in names if name not in known]
            if new:
                first = max(max(owners, default=-1) + 1, len(index))
                lines.append(_Line(run_key, time.time(), origin, new, first=first))
                known.update(zip(new, range(first, first + len(new)), strict=True))
                write_anew(layout.imported, b"".join(map(_Line.to_bytes, lines)), layout.staged)
    indices = np.fromiter((known[name] for name in names), np.int64, len(names))
    gone = known.keys() - set(names)
    return Assigned(indices, {name: known[name] for name in sorted(gone) if known[name] in index})


@dataclass(frozen=True)
class _Line:
    """What one run assigned: consecutive indices from `first` on, or one by one."""

    run: str
    at: float
    origin: str
    names: Sequence[str]
    first: int | None = None
    indices: Sequence[int] = ()

    def to_bytes(self) -> bytes:
        """The line as JSON, with its end."""
        entry: dict[str, Any] = {"run": self.run, "at": self.at, "origin": self.origin}
        place = {"indices": self.indices} if self.first is None else {"first": self.first}
        return json.dumps({**entry, **place, "names": self.names}).encode() + b"\n"

    def assigned(self) -> Iterator[tuple[str, int]]:
        """Each name with its index."""
        first = self.first
        places = self.indices if first is None else range(first, first + len(self.names))
        return zip(self.names, places, strict=True)


def _read(layout: Layout) -> list[_Line]:
    path = layout.imported
    try:
        return [_line_of(json.loads(text)) for text in read_regular(path).splitlines()]
    except (ValueError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: this index of imports cannot be read ({error}). Remove it: it is made anew "
            "from the samples' metadata."
        ) from error


def _line_of(entry: Mapping[str, Any]) -> _Line:
    line = _Line(**entry)
    texts = (line.run, line.origin, *line.names)
    places = (*line.indices, *([] if line.first is None else [line.first]))
    if not all(type(text) is str for text in texts):
        raise ValueError("a name is no text")
    if not all(type(place) is int and 0 <= place < MAX_INDEX for place in places):
        raise ValueError("an index is none")
    if line.first is None and len(line.indices) != len(line.names):
        raise ValueError("it has not as many names as indices")
    return line


class _Metadata:
    """What the metadata of a dataset's samples says of where they came from."""

    def __init__(self, layout: Layout, key: str) -> None:
        self._dataset = Underfolder(layout.root, must_exist=False, merge_root_items=False)
        self._key = key

    def lines(self) -> Iterator[_Line]:
        """What that of all samples says, by their origins."""
        found: dict[str, dict[str, int]] = {}
        for idx in self._dataset.indices().tolist():
            if (told := self.of(idx)) is not None:
                origin, name = told
                found.setdefault(origin, {}).setdefault(name, idx)
        for origin, names in found.items():
            yield _Line("", 0.0, origin, list(names), indices=list(names.values()))

    def of(self, idx: int) -> tuple[str, str] | None:
        """The origin and name of a sample; None where it does not tell."""
        try:
            item = self._dataset.read(idx).get(self._key)
            said = item() if isinstance(item, MetadataItem) else None
        except (ItemError, IndexError):  # it tells nothing, then
            return None
        origin, name = (said.get(key) if isinstance(said, dict) else None for key in _TELLING)
        return (origin, name) if isinstance(origin, str) and isinstance(name, str) else None


_TELLING = ("origin", "file")


def _owners(layout: Layout, lines: Sequence[_Line], told: _Metadata) -> dict[int, tuple[str, str]]:
    """What each index is assigned to.

    What a run assigned that was undone is free again, but where the undo was undone in its turn.
    """
    undone = _undone_keys(layout)
    owners: dict[int, tuple[str, str]] = {}
    for line in lines:
        stands = line.run not in undone
        for name, idx in line.assigned():
            if stands or told.of(idx) == (line.origin, name):
                owners[idx] = line.origin, name
    return owners


def _undone_keys(layout: Layout) -> set[str]:
    runs = runs_of(layout)
    standing = {run.key for run in runs if not run.is_undone()}
    return {run.key for run in runs} - standing
