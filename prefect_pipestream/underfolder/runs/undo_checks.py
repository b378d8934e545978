"""May runs be undone? What is in the way of it, and the plan where nothing is."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice

import numpy as np

from prefect_pipestream.errors import DatasetError, DuplicateItemError, UndoRefusedError
from prefect_pipestream.items import FileSource
from prefect_pipestream.underfolder.commits.prospect import Check, Judge, described_problems
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import is_shared
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.interleaved import (
    describe_runs,
    refuse_if_moved,
    way_out,
)
from prefect_pipestream.underfolder.runs.listing import live_writers
from prefect_pipestream.underfolder.runs.part_undo import refuse_out_of_turn, refuse_part_of
from prefect_pipestream.underfolder.runs.retiring import Intent
from prefect_pipestream.underfolder.runs.undo_plan import Change, Files, Plan, plan_of

_SHOWN = 5


def refuse_at_first(
    layout: Layout, intent: Intent, runs: Sequence[Run], force: bool, *, is_own: bool = False
) -> None:
    """Refuses what need not be looked at further.

    Args:
        layout: The dataset.
        intent: The undo.
        runs: The runs.
        force: Whether it may be undone while others write it.
        is_own: Whether all who write it are known to have stopped.

    Raises:
        UndoRefusedError: If a run is still running; or cannot be undone in part, or before others.
    """
    if not (force or is_own):
        _refuse_if_running(layout, [run.key for run in runs])
    if intent.indices is not None:
        refuse_part_of(layout, runs)
    refuse_if_moved(layout, runs, intent.indices)
    if not any(run.is_half_undone() for run in runs):
        refuse_out_of_turn(layout, runs)


def _refuse_if_running(layout: Layout, keys: Iterable[str]) -> None:
    here = (socket.gethostname(), os.getpid())
    alive = live_writers(layout)
    for key in keys:
        for writer in alive.get(key, ()):
            if (writer.get("host"), writer.get("pid")) != here:
                raise UndoRefusedError(
                    f"{layout.root}: run {key!r} is still being written, by process "
                    f"{writer.get('pid')} on {writer.get('host')}. Stop it first, or use `force` "
                    "(`--force`)."
                )


def checked_plan(
    files: Files,
    runs: Sequence[Run],
    changes: Mapping[str, Change],
    force: bool,
    indices: Sequence[int] | None = None,
) -> Plan:
    """What is to be done to take changes back, if it may be done.

    Raises:
        UndoRefusedError: If someone changed samples of the runs since.
        DatasetError: If files that are needed are not there any more.
    """
    root, what = files.layout.root, describe_runs([run.key for run in runs])
    plan = plan_for(files, runs, changes, force)
    if plan.changed and not force:
        shown = [f"{idx} ({', '.join(n)})" for idx, n in islice(plan.changed.items(), _SHOWN)]
        more = len(plan.changed) - len(shown)
        raise UndoRefusedError(
            f"{root}: {what} is not undone, for samples that it wrote were "
            f"changed since: {'; '.join(shown)}{f' and {more} more' if more else ''}. "
            f"{way_out(files, runs, plan, indices)}",
            list(plan.changed),
            [name for names in plan.changed.values() for name in names],
        )
    if plan.lost:
        raise DatasetError(
            f"{root}: {what} cannot be undone: {len(plan.lost)} of the files that "
            f"it replaced are not there any more, the first of them {plan.lost[0]}."
        )
    return plan


def refuse_invalid(
    files: Files,
    runs: Sequence[Run],
    changes: Mapping[str, Change],
    plan: Plan,
    check: Check,
) -> None:
    """Refuses an undo after which samples would not be as they should be. It decodes them.

    Raises:
        UndoRefusedError: If there are such; it has a list of them.
    """
    found = _invalid(files, changes, plan, check)
    if found:
        raise UndoRefusedError(
            f"{files.layout.root}: {describe_runs([run.key for run in runs])} is not undone, for "
            f"{len(found):,} of the samples would not be valid then: {described_problems(found)}. "
            "Nothing was changed. To undo it all the same, use `force` (`--force`).",
            list(found),
        )


def _invalid(
    files: Files, changes: Mapping[str, Change], plan: Plan, check: Check
) -> dict[int, list[str]]:
    """What would be wrong with the samples after an undo, by index, ascending."""
    judge = Judge(files.dataset, check)
    kept = {n: files.before(n, changes[n]) for names in plan.todo.values() for n in names}
    shared = {name: source for name, source in kept.items() if is_shared(name)}
    found = {}
    for idx in _looked_at(files.dataset, plan, is_any=bool(shared)):
        own = {**shared, **{name: kept[name] for name in plan.todo.get(idx, ())}}
        placed = {name: source for name, source in own.items() if source is not None}
        problems = _problems(judge, idx, placed, own.keys() - placed.keys())
        if problems:
            found[idx] = problems
    return found


def _looked_at(dataset: Underfolder, plan: Plan, is_any: bool) -> list[int]:
    """The samples that an undo restores; of one of shared items also one that it does not."""
    restored = sorted(plan.todo)
    if not is_any:
        return restored
    others: list[int] = np.setdiff1d(dataset.indices(), restored)[:1].tolist()
    return restored + others


def _problems(
    judge: Judge, idx: int, placed: Mapping[str, FileSource], removed: Set[str]
) -> list[str]:
    try:
        found = judge.prospect(idx, placed, removed)
    except DuplicateItemError as error:
        return [str(error)]
    except FileNotFoundError as error:
        raise UndoRefusedError(
            f"{judge.dataset.folder}: sample {idx} was changed while it was checked "
            f"({error.filename} is gone). Nothing was changed; undo the run again.",
            [idx],
        ) from error
    is_left = any(not item.is_shared for item in found.items.values())
    return judge.problems(found, placed) if is_left else []


def plan_for(files: Files, runs: Sequence[Run], changes: Mapping[str, Change], force: bool) -> Plan:
    """What is to be done to take changes of runs back, whether or not it may be done."""
    plan = plan_of(files, changes, force=force)
    _leave_needed(files.layout, runs, changes, plan)
    return plan


def _leave_needed(
    layout: Layout, runs: Sequence[Run], changes: Mapping[str, Change], plan: Plan
) -> None:
    """Leaves the shared items there that imports brought, as long as other imports stand."""
    if not are_needed(layout, runs):
        return
    for idx, names in list(plan.todo.items()):
        needed = [n for n in names if is_shared(n) and changes[n].kept_in is None]
        plan.left += needed
        plan.todo[idx] = [name for name in names if name not in needed]
        if not plan.todo[idx]:
            del plan.todo[idx]


def are_needed(layout: Layout, runs: Sequence[Run]) -> bool:
    """Whether the shared items that runs brought are those of other imports, too, that stand."""
    undone = {run.folder for run in runs}
    others = [run for run in runs_of(layout) if _is_import(run) and run.folder not in undone]
    return bool(others) and any(map(_is_import, runs))


def _is_import(run: Run) -> bool:
    return "imported_from" in run.facts() and not run.is_undone()
