"""Runs whose commits took turns on the same samples, and which of them can be undone together."""

import shlex
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from prefect_pipestream.errors import UndoRefusedError
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.run_key import UNDO_KEY
from prefect_pipestream.underfolder.ledger.compactions import compactions
from prefect_pipestream.underfolder.ledger.rows import Moves
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.part_undo import spelled
from prefect_pipestream.underfolder.runs.undo_plan import (
    Files,
    Plan,
    net_changes,
    order_of,
    plan_of,
)


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """The runs, the one that committed last first."""
    return sorted(runs, key=_last_commit_s, reverse=True)


def _last_commit_s(run: Run) -> float:
    at = run.rows().at
    return float(at.max()) if len(at) else 0.0


def undo_key_of(layout: Layout, keys: Sequence[str]) -> str:
    """A key for the undo of these runs that no run has."""
    return free_key(layout, UNDO_KEY + ",".join(keys))


def free_key(layout: Layout, first: str) -> str:
    """This key, or one like it that no run has."""
    taken = {run.name for run in runs_of(layout)}
    key, number = first, 2
    while Run.of(layout, key).name in taken:  # of an earlier run of this key
        key, number = f"{first}#{number}", number + 1
    return key


def describe_runs(keys: Sequence[str]) -> str:
    """Names runs in a sentence."""
    return f"run{'s' if len(keys) > 1 else ''} {' and '.join(map(repr, keys))}"


def undo_command(layout: Layout, keys: Sequence[str], indices: Sequence[int] | None = None) -> str:
    """The command that undoes runs together, or some samples of them."""
    some = ["--indices", spelled(indices)] if indices else []
    dashes = ["--"] if any(key.startswith("-") for key in keys) else []
    return f"`pipestream undo {shlex.join([*some, *dashes, layout.root, *keys])}`"


def refuse_if_moved(
    layout: Layout, runs: Sequence[Run], indices: Sequence[int] | None = None
) -> None:
    """Checks that what runs wrote is still where they wrote it.

    Args:
        layout: The dataset.
        runs: The runs.
        indices: The samples that are to be taken back; None is all.

    Raises:
        UndoRefusedError: If compactions that stand moved samples from or to there since.
    """
    known = {run.folder for run in runs}
    for compaction in compactions(layout):
        moves = compaction.moves()
        if compaction.folder in known or not any(_is_moved(run, moves, indices) for run in runs):
            continue
        keys = [run.key for run in newest_first([compaction, *runs])]
        together = f"{undo_command(layout, keys)} undoes them together."
        first = f"Undo that first: {undo_command(layout, [compaction.key])}."
        raise UndoRefusedError(
            f"{layout.root}: {describe_runs([run.key for run in runs])} is not undone, for run "
            f"{compaction.key!r} moved samples to other indices since. "
            f"{together if indices is None else first}"
        )


def _is_moved(run: Run, moves: Moves, indices: Sequence[int] | None) -> bool:
    """Whether samples were moved from or to where a run wrote some before."""
    rows, own = run.rows(), run.moves()
    idx, at = np.concatenate([rows.idx, own.new]), np.concatenate([rows.at, own.at])
    if indices is not None:
        chosen = np.isin(idx, indices)
        idx, at = idx[chosen], at[chosen]
    places, times = np.concatenate([moves.old, moves.new]), np.concatenate([moves.at, moves.at])
    order = np.lexsort((times, places))
    places, times = places[order], times[order]
    last = places.searchsorted(idx, side="right") - 1  # the last move of each place
    is_there = (last >= 0) & (places[last.clip(0)] == idx) if len(places) else np.zeros(0, bool)
    return bool(is_there.any() and (times[last[is_there]] > at[is_there]).any())


def way_out(
    files: Files, runs: Sequence[Run], plan: Plan, indices: Sequence[int] | None = None
) -> str:
    """Says what to do where samples were changed since the runs that are to be undone.

    Args:
        files: The dataset's files.
        runs: The runs that are to be undone.
        plan: Their plan, which tells what was changed since.
        indices: The samples that are to be taken back; None is all.
    """
    some = None if indices is None else frozenset(indices)
    together = list(runs)
    while plan.changed and (later := _later_runs(files, together, plan, some)):
        together += later
        changes = net_changes(files.in_turn(together, some))
        plan = plan_of(files, changes, force=False)
    others = [run.key for run in newest_first(together[len(runs) :])]
    force = "use `--force` (`force=True`), which keeps what is there now for another undo."
    if plan.changed or not others:
        by = f" ({describe_runs(others)} among them)" if others else ""
        return f"Undo what changed them first{by}, or {force}"
    keys = [run.key for run in newest_first(together)]
    command = undo_command(files.layout, keys, indices)
    return f"That was {describe_runs(others)}: {command} undoes them together. Or {force}"


def undone_together(files: Files, runs: Sequence[Run]) -> list[Run]:
    """The runs, and the later ones without which they could not be undone, but by force.

    Those changed files again that these runs wrote, or moved their samples. Costs what a plan of
    the runs' undo costs, once for each time that more are found.

    Args:
        files: The dataset's files.
        runs: Runs that stand.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    together = list(runs)
    while True:
        later = _moved_by(files.layout, together)
        if not later:
            changes = net_changes(files.in_turn(together))
            plan = plan_of(files, changes, force=False)
            later = _later_runs(files, together, plan, None) if plan.changed else []
        if not later:
            return together
        together += later


def _moved_by(layout: Layout, runs: Sequence[Run]) -> list[Run]:
    """The other compactions that moved samples of runs since, and can be undone."""
    known = {run.name for run in runs}
    others = [one for one in compactions(layout) if one.name not in known and not one.is_pruned()]
    return [one for one in others if any(_is_moved(run, one.moves(), None) for run in runs)]


def _later_runs(
    files: Files, runs: Sequence[Run], plan: Plan, indices: Collection[int] | None
) -> list[Run]:
    """The other runs that later wrote a file which differs now from what these runs left."""
    began: dict[str | int, str] = {}
    for pair in files.in_turn(runs, indices):
        for name, change in net_changes([pair]).items():
            began.setdefault(name, order_of(pair))
            began.setdefault(change.idx, order_of(pair))  # for files of its items of other names
    changed = {
        name: began.get(name, began.get(idx, ""))
        for idx, names in plan.changed.items()
        for name in names
    }
    known = {run.name for run in runs}
    others = [run for run in runs_of(files.layout) if run.name not in known]
    return [
        run
        for run in others
        if not run.is_undone()
        and any(
            name in changed and order_of(pair) > changed[name]
            for pair in files.in_turn([run])
            for name in net_changes([pair])
        )
    ]
