"""Runs that moved samples to lower indices: which stand, and what that means for what is noted."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger.rows import Moves, Rows
from prefect_pipestream.underfolder.ledger.run import Run, runs_of


@DatasetError.explaining_questions()
def compactions(dataset: Folder | Layout) -> list[Run]:
    """The compactions of a dataset that stand, in the order of time.

    They are known by the fact ``compacts`` in their ``run.json``. Those that were undone, or are
    being undone, do not count, nor those that were pruned.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    runs = [run for run in runs_of(dataset) if run.is_compaction]
    standing = [run for run in runs if not run.is_undone() and not run.is_half_undone()]
    return sorted(standing, key=lambda run: _first_and_last(run)[0])


def moves_of(run: Run) -> npt.NDArray[np.int64]:
    """Where a compaction moved samples.

    Args:
        run: The compaction.

    Returns:
        int64, n×2: a row for each move, the old index and the new one, in the order of moving.
        Applied one after the other they are right: each goes to an index that is free by then.

    Raises:
        DatasetError: If its ledger cannot be read.
    """
    moves = run.moves()
    return np.stack([moves.old, moves.new], axis=1)


def refuse_if_compacted_since(run: Run, *datasets: Folder | Layout) -> None:
    """Checks that the indices in a run's ledger still mean the samples that they meant.

    Args:
        run: The run.
        datasets: The datasets that it reads and writes.

    Raises:
        DatasetError: If one was compacted after the run had begun.
    """
    others = [
        (dataset, compaction)
        for dataset in datasets
        for compaction in compactions(dataset)
        if compaction.folder != run.folder
    ]
    at = run.rows().at if others else np.empty(0)  # of a killed run they take their time
    for dataset, compaction in others if len(at) else ():
        if _first_and_last(compaction)[1] > at.min():
            root = Layout.of(dataset).root
            raise DatasetError(
                f"{root}: run {run.key!r} began before run {compaction.key!r} moved samples to "
                "other indices, so that what it noted of an index is of another sample now. "
                'Start a new run, which may be over what changed (`select="changed"`); or '
                f"undo {compaction.key!r} first."
            )


def _first_and_last(run: Run) -> tuple[float, float]:
    at = run.rows().at
    return (float(at.min()), float(at.max())) if len(at) else (0.0, 0.0)


# -- signatures ----------------------------------------------------------------------------


def carried(rows: Rows, moves: Moves, *, is_import: bool = False) -> Rows:
    """What moves mean for the signatures that a transform noted of samples.

    A sample that was as the transform had left it has its new signature known at its new index;
    of all others, nothing is known at the indices that the moves touched.

    Args:
        rows: What the transform noted, by the time of noting.
        moves: The moves, by the time of moving.
        is_import: Whether the signatures are those of files elsewhere: they move with the samples.

    Returns:
        Rows to be taken for noted when the samples were moved; signature 0 is nothing known.
    """
    if not len(moves.at):
        return Rows.joined([])
    known = np.unique(np.concatenate([rows.idx, moves.old, moves.new]))
    now = np.zeros(len(known), np.uint64)
    where = known.searchsorted(rows.idx)
    old, new = known.searchsorted(moves.old), known.searchsorted(moves.new)
    after = np.zeros(len(moves.at), np.uint64)
    noted = 0
    for begin, end in _commits(moves):
        until = int(rows.at.searchsorted(moves.at[begin], side="right"))
        now[where[noted:until]] = rows.signature[noted:until]
        noted = until
        some = slice(begin, end)
        if is_import:
            after[some] = now[old[some]]
        else:
            is_current = (now[old[some]] == moves.before[some]) & (moves.before[some] != 0)
            after[some] = np.where(is_current, moves.after[some], 0)
        now[old[some]] = 0
        now[new[some]] = after[some]
    return _noted(moves, after)


def _commits(moves: Moves) -> list[tuple[int, int]]:
    """Where the moves of each commit begin and end."""
    starts = [0, *(np.flatnonzero(np.diff(moves.at)) + 1).tolist(), len(moves.at)]
    return [(a, b) for a, b in pairwise(starts) if a < b]


def _noted(moves: Moves, after: npt.NDArray[np.uint64]) -> Rows:
    """Of each commit: nothing is known at the old indices; then what is, at the new ones."""
    parts = []
    for begin, end in _commits(moves):
        some = slice(begin, end)
        parts += [
            (moves.old[some], np.zeros(end - begin, np.uint64)),
            (moves.new[some], after[some]),
        ]
    idx = np.concatenate([part[0] for part in parts]) if parts else moves.old
    signature = np.concatenate([part[1] for part in parts]) if parts else moves.after
    at = np.concatenate([moves.at[b:e] for b, e in _commits(moves) for _ in (0, 1)] or [moves.at])
    size = len(idx)
    return Rows(idx, np.zeros(size, np.uint8), np.ones(size, np.uint16), signature, at)
