"""Runs whose commits took turns on the same samples, and which of them can be undone together."""

import heapq
import shlex
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from prefect_pipestream.errors import UndoRefusedError
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.compactions import compactions
from prefect_pipestream.underfolder.ledger.records import CommitRecord
from prefect_pipestream.underfolder.ledger.rows import Moves
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.listing import UNDO_KEY
from prefect_pipestream.underfolder.runs.undo_plan import Plan, net_changes, plan_of


def commits_in_turn(runs: Iterable[Run]) -> Iterator[tuple[Run, CommitRecord]]:
    """The commits of several runs in the order of their making, each with its run.

    Raises:
        DatasetError: If a record cannot be read.
    """
    return heapq.merge(*map(_commits, runs), key=lambda pair: pair[1].id)


def _commits(run: Run) -> Iterator[tuple[Run, CommitRecord]]:
    return ((run, commit) for commit in run.commits())


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """The runs, the one that committed last first."""
    return sorted(runs, key=_last_commit_s, reverse=True)


def _last_commit_s(run: Run) -> float:
    at = run.rows().at
    return float(at.max()) if len(at) else 0.0


def undo_key_of(layout: Layout, keys: Sequence[str]) -> str:
    """A key for the undo of these runs that no run has."""
    taken = {run.name for run in runs_of(layout)}
    first = undo_key = UNDO_KEY + ",".join(keys)
    number = 2
    while Run.of(layout, undo_key).name in taken:  # of an earlier run of this key
        undo_key, number = f"{first}#{number}", number + 1
    return undo_key


def describe_runs(keys: Sequence[str]) -> str:
    """Names runs in a sentence."""
    return f"run{'s' if len(keys) > 1 else ''} {' and '.join(map(repr, keys))}"


def undo_command(layout: Layout, keys: Sequence[str]) -> str:
    """The command that undoes runs together."""
    dashes = ["--"] if any(key.startswith("-") for key in keys) else []
    return f"`pipestream undo {shlex.join([*dashes, layout.root, *keys])}`"


def refuse_if_moved(layout: Layout, runs: Sequence[Run]) -> None:
    """Checks that what runs wrote is still where they wrote it.

    Raises:
        UndoRefusedError: If compactions that stand moved samples from or to there since.
    """
    known = {run.folder for run in runs}
    for compaction in compactions(layout):
        moves = compaction.moves()
        if compaction.folder in known or not any(_is_moved(run, moves) for run in runs):
            continue
        keys = [run.key for run in newest_first([compaction, *runs])]
        raise UndoRefusedError(
            f"{layout.root}: {describe_runs([run.key for run in runs])} is not undone, for run "
            f"{compaction.key!r} moved samples to other indices since. "
            f"{undo_command(layout, keys)} undoes them together."
        )


def _is_moved(run: Run, moves: Moves) -> bool:
    """Whether samples were moved from or to where a run wrote some before."""
    rows, own = run.rows(), run.moves()
    idx, at = np.concatenate([rows.idx, own.new]), np.concatenate([rows.at, own.at])
    places, times = np.concatenate([moves.old, moves.new]), np.concatenate([moves.at, moves.at])
    order = np.lexsort((times, places))
    places, times = places[order], times[order]
    last = places.searchsorted(idx, side="right") - 1  # the last move of each place
    is_there = (last >= 0) & (places[last.clip(0)] == idx) if len(places) else np.zeros(0, bool)
    return bool(is_there.any() and (times[last[is_there]] > at[is_there]).any())


def way_out(layout: Layout, dataset: Underfolder, runs: Sequence[Run], plan: Plan) -> str:
    """Says what to do where samples were changed since the runs that are to be undone.

    Args:
        layout: The dataset.
        dataset: The same, opened.
        runs: The runs that are to be undone.
        plan: Their plan, which tells what was changed since.
    """
    together = list(runs)
    while plan.changed and (later := _later_runs(layout, together, plan)):
        together += later
        plan = plan_of(layout, dataset, net_changes(commits_in_turn(together)), force=False)
    others = [run.key for run in newest_first(together[len(runs) :])]
    force = "use `--force` (`force=True`), which keeps what is there now for another undo."
    if plan.changed or not others:
        by = f" ({describe_runs(others)} among them)" if others else ""
        return f"Undo what changed them first{by}, or {force}"
    keys = [run.key for run in newest_first(together)]
    return (
        f"That was {describe_runs(others)}: {undo_command(layout, keys)} undoes them together. Or "
        f"{force}"
    )


def _later_runs(layout: Layout, runs: Sequence[Run], plan: Plan) -> list[Run]:
    """The other runs that later wrote a file which differs now from what these runs left."""
    began: dict[str | int, str] = {}
    for pair in commits_in_turn(runs):
        for name, change in net_changes([pair]).items():
            began.setdefault(name, pair[1].id)
            began.setdefault(change.idx, pair[1].id)  # for files of its items under other names
    changed = {
        name: began.get(name, began.get(idx, ""))
        for idx, names in plan.changed.items()
        for name in names
    }
    known = {run.name for run in runs}
    others = [run for run in runs_of(layout) if run.name not in known]
    return [
        run
        for run in others
        if not run.is_undone()
        and any(
            name in changed and pair[1].id > changed[name]
            for pair in _commits(run)
            for name in net_changes([pair])
        )
    ]
