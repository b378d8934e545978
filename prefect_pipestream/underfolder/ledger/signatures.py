"""What samples were like when a transform last saw them."""

import os
from collections.abc import Iterator, Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.untrusted import write_anew
from prefect_pipestream.underfolder.format.layout import Folder, Layout, folder_of
from prefect_pipestream.underfolder.ledger.compactions import carried, compactions
from prefect_pipestream.underfolder.ledger.packed import read_arrays
from prefect_pipestream.underfolder.ledger.rows import FAILED, REMOVED, Moves, Rows
from prefect_pipestream.underfolder.ledger.run import Run, runs_of

IMPORT = "import:"
"""How the fingerprint of an import begins: its signatures are those of files elsewhere."""


class Signatures(Mapping[int, str]):
    """Signatures by sample index: 16 bytes a sample.

    Args:
        idx: int64, ascending.
        signature: uint64, of equal length.
    """

    def __init__(self, idx: npt.NDArray[np.int64], signature: npt.NDArray[np.uint64]) -> None:
        self._idx = idx
        self._signature = signature

    def __getitem__(self, idx: int) -> str:
        at = int(self._idx.searchsorted(idx))
        if at == len(self._idx) or self._idx[at] != idx:
            raise KeyError(idx)
        return f"{int(self._signature[at]):016x}"

    def of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The signatures of some samples: uint64, 0 where nothing is known."""
        found = np.zeros(len(indices), np.uint64)
        if len(self._idx):
            at = self._idx.searchsorted(indices).clip(max=len(self._idx) - 1)
            is_known = self._idx[at] == indices
            found[is_known] = self._signature[at[is_known]]
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self._idx.tolist())

    def __len__(self) -> int:
        return len(self._idx)

    def __repr__(self) -> str:
        return f"Signatures of {len(self)} samples"


@DatasetError.explaining_questions()
def signatures(folder: Folder | Layout, fingerprint: str) -> Signatures:
    """The signatures of all samples as a transform last left or saw them.

    Runs that were undone do not count, nor do samples that failed: they are to be tried again.
    Pruned runs do. A sample that a compaction moved, and that was as the transform left it then,
    counts as seen at its new index.

    Args:
        folder: The root of the dataset that was written.
        fingerprint: The transform's, as noted by its runs.

    Returns:
        The signature of the source's files, by index.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    layout = Layout.of(folder)
    noted = _noted(layout, fingerprint)
    moves = Moves.joined(run.moves() for run in compactions(layout))
    rows = _by_time(
        [noted, carried(noted, moves, is_import=fingerprint.startswith(IMPORT))]
    ).last_of_each()
    rows = rows.where(rows.signature != 0)
    return Signatures(rows.idx, rows.signature)


@DatasetError.explaining_questions()
def failed_last(folder: Folder | Layout, fingerprint: str) -> npt.NDArray[np.int64]:
    """The samples that failed when runs of a transform processed them last: int64, ascending.

    What was noted before samples were moved to other indices does not count.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    layout = Layout.of(folder)
    runs = [run for run in _standing(layout) if _fingerprint_of(run) == fingerprint]
    rows = _by_time([run.rows() for run in runs]).last_of_each()
    moved = _times_of_moves(layout).max(initial=0)
    return rows.where((rows.outcome == FAILED) & (rows.at > moved)).idx


def _noted(layout: Layout, fingerprint: str) -> Rows:
    """What all runs of a transform noted that stand, or were pruned, by time."""
    parts = [_seen(_seen_path(layout, fingerprint))]
    parts += [_signed(run) for run in _standing(layout) if _fingerprint_of(run) == fingerprint]
    rows = _by_time(parts)
    for run in runs_of(layout):
        if run.is_compaction and run.is_undone():
            rows = _without(rows, run)
    return rows


def _standing(layout: Layout) -> list[Run]:
    return [run for run in runs_of(layout) if not run.is_undone() and not run.is_half_undone()]


def _fingerprint_of(run: Run) -> str | None:
    fingerprint: str | None = run.facts().get("fingerprint")
    return fingerprint


def _without(rows: Rows, undone: Run) -> Rows:
    """Leaves out what was noted of indices while a compaction stood that was undone since."""
    moves = undone.moves()
    if not len(moves.at):
        return rows
    began, ended = float(moves.at.min()), float(undone.facts().get("undone", np.inf))
    is_between = (began < rows.at) & (rows.at < ended)
    is_touched = np.isin(rows.idx, np.concatenate([moves.old, moves.new]))
    return rows.where(~(is_between & is_touched))


def keep_signatures(run: Run, fingerprint: str) -> None:
    """Keeps the signatures of a run that is about to be removed."""
    path = _seen_path(run.layout, fingerprint)
    _keep(run.layout, path, [_seen(path), _signed(run)])


def _keep(layout: Layout, path: str, parts: list[Rows]) -> None:
    """Writes down the last that was noted of each sample, and before each move the last then."""
    rows = _by_time(parts)
    span = _times_of_moves(layout).searchsorted(rows.at)
    last = [rows.where(span == one).last_of_each() for one in np.unique(span)]
    os.makedirs(layout.seen, exist_ok=True)
    content = BytesIO()
    np.savez_compressed(content, **Rows.joined(last)._asdict())
    write_anew(path, content.getvalue(), layout.staged, durable=True)


def _times_of_moves(layout: Layout) -> npt.NDArray[np.float64]:
    """When samples were moved, and moved back: float64, ascending."""
    runs = [run for run in runs_of(layout) if run.is_compaction]
    back = [run.facts()["undone"] for run in runs if "undone" in run.facts()]
    return np.unique(np.concatenate([np.array(back, np.float64), *(r.moves().at for r in runs)]))


def _signed(run: Run) -> Rows:
    """What a run noted of samples; of those that it removed, that nothing is known any more."""
    rows = run.rows()
    is_known = (rows.signature != 0) & (rows.outcome != FAILED)
    return rows.where(is_known | (rows.outcome == REMOVED))


def _seen(path: str) -> Rows:
    if not is_there(path):
        return Rows.joined([])
    arrays = read_arrays(path)
    try:
        return Rows.checked(*(arrays[name] for name in Rows._fields))
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{path}: these signatures cannot be right ({error}). Remove the file: the next "
            "incremental run then takes the samples for new."
        ) from error


def _seen_path(layout: Layout, fingerprint: str) -> str:
    return layout.at("seen", folder_of(fingerprint) + ".npz")


def _by_time(parts: list[Rows]) -> Rows:
    """The rows of all parts by time; of equal times, those of later parts last."""
    rows = Rows.joined(parts)
    if (rows.at[1:] >= rows.at[:-1]).all():  # as of one run: nothing is copied
        return rows
    return rows.where(np.argsort(rows.at, kind="stable"))
