"""Which samples of a run were taken back, while the rest of it stands.

A note in the run's ledger, ``taken-back/<stamp>/``, says which samples of which commits, and by
which undo. It holds once the undo says so in its turn, by the fact ``undoes_parts``, and as long as
the undo stands: where that is undone, the samples count again as the run left them.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.untrusted import inside, is_name, read_json
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.records import CommitRecord

PARTS = "undoes_parts"
"""The fact of an undo that names its notes, by their stamps."""

_Samples = Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a run did and does not count any more.

    Attributes:
        commits: The ids of commits that were taken back whole, and are to be forgotten.
        samples: Of other commits, by their ids: the indices at which samples were written.
    """

    commits: frozenset[str] = frozenset()
    samples: _Samples = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.commits or self.samples)

    def rest_of(self, commit: CommitRecord) -> CommitRecord:
        """The commit without the samples that were taken back; it may have none left."""
        gone = self.samples.get(commit.id)
        if gone is None:
            return commit
        return replace(commit, samples=tuple(s for s in commit.samples if s.written_at not in gone))

    def stands(
        self, ids: Iterable[str], ends: npt.NDArray[np.int64], written_at: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Of the samples of commits, one after the other, whether each still counts.

        Args:
            ids: The commits' ids.
            ends: Where the samples of each commit end.
            written_at: The index at which each sample was written.
        """
        standing = np.ones(len(written_at), dtype=bool)
        start = 0
        for commit_id, end in zip(ids, ends.tolist(), strict=True):
            if commit_id in self.commits:
                standing[start:end] = False
            elif (gone := self.samples.get(commit_id)) is not None:
                standing[start:end] = ~np.isin(written_at[start:end], list(gone))
            start = end
        return standing


class PartNote:
    """The note, in a run's ledger, of some samples that an undo takes back.

    Args:
        layout: The dataset's paths.
        run: The name of the run's folder.
        stamp: What tells the undo from all others.
    """

    def __init__(self, layout: Layout, run: str, stamp: str) -> None:
        self.stamp = stamp
        self.folder = layout.at("runs", run, "taken-back", stamp)
        self._layout = layout

    def write(self, undo: str, samples: Mapping[str, Iterable[int]]) -> None:
        """Notes what an undo takes back; it counts once the undo says so.

        Args:
            undo: The name of the folder of the undo's run.
            samples: Of each commit, by its id, the indices at which samples were written.
        """
        os.makedirs(self.folder, exist_ok=True)
        content = {commit_id: sorted(indices) for commit_id, indices in samples.items()}
        self._layout.write_json(self._samples, content)
        self._layout.write_json(self._by, {"undo": undo})

    def settle(self) -> None:
        """Lets it hold for good: whatever becomes of the undo."""
        self._layout.write_json(self._by, {"undo": None})

    def forget(self) -> None:
        """Removes it."""
        remove(self.folder)

    @property
    def undo(self) -> str | None:
        """The name of the folder of the undo's run; None where it is settled, or unreadable."""
        undo = read_json(self._by).get("undo")
        return undo if isinstance(undo, str) and is_name(undo) else None

    def holds(self) -> bool:
        """Whether the samples are taken back: by an undo that is done and stands, or for good."""
        noted = read_json(self._by)
        if "undo" in noted and noted["undo"] is None:
            return True
        undo = self.undo
        return undo is not None and self.stamp in _parts(self._layout, undo)

    def samples(self) -> Iterator[tuple[str, frozenset[int]]]:
        """The ids of commits, each with the indices at which samples were written."""
        for commit_id, indices in read_json(self._samples).items():
            if isinstance(indices, list) and all(type(idx) is int for idx in indices):
                yield commit_id, frozenset(indices)

    @property
    def _by(self) -> str:
        return inside(self.folder, "by.json")

    @property
    def _samples(self) -> str:
        return inside(self.folder, "samples.json")


def part_notes(layout: Layout, run: str) -> list[PartNote]:
    """The notes of a run, given by the name of its folder, of what was taken back of it."""
    return [
        PartNote(layout, run, stamp) for stamp in names_in(layout.at("runs", run, "taken-back"))
    ]


def taken_back(layout: Layout, run: str, dropped: Iterable[str]) -> TakenBack:
    """What of a run counts no more.

    Args:
        layout: The dataset's paths.
        run: The name of the run's folder.
        dropped: The ids of its commits that were taken back whole.
    """
    samples: dict[str, frozenset[int]] = {}
    for note in part_notes(layout, run):
        if note.holds():
            for commit_id, indices in note.samples():
                samples[commit_id] = samples.get(commit_id, frozenset()) | indices
    return TakenBack(frozenset(dropped), samples)


def _parts(layout: Layout, undo: str) -> list[str]:
    """The stamps of what an undo took back; none where it does not stand (any more)."""
    parts = read_json(layout.at("runs", undo, "run.json")).get(PARTS)
    return parts if isinstance(parts, list) else []
