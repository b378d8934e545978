"""Undo: put back what a run, or some commits of it, replaced and removed.

An undo is a run of its own, ``undo:<run key>``, and can itself be undone. It puts files back by
the same commits as any write, so that a process killed on the way leaves no sample half undone,
and the next undo of the run goes on from there.
"""

import logging
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    RunKeyError,
    UndoRefusedError,
)
from prefect_pipestream.storage.asking import is_folder, names_in
from prefect_pipestream.underfolder.commits.apply import commit_lock, drop_commits, recover
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import is_shared
from prefect_pipestream.underfolder.format.run_key import check_run_key
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.interleaved import (
    commits_in_turn,
    describe_runs,
    refuse_if_moved,
    way_out,
)
from prefect_pipestream.underfolder.runs.listing import ROLLBACK_KEY, existing_run, live_writers
from prefect_pipestream.underfolder.runs.packing import forget_dropped, ledger_lock, pack
from prefect_pipestream.underfolder.runs.retiring import Intent, forget_undoing, intent_for, retire
from prefect_pipestream.underfolder.runs.undo_plan import (
    Change,
    Commits,
    Plan,
    kept_path,
    net_changes,
    plan_of,
)

_log = logging.getLogger(__name__)
_BATCH = 1000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did.

    Attributes:
        run_keys: The runs that were undone, the newest first.
        undo_run_key: The run that the undo is, to be undone in its turn.
        samples: How many samples were restored.
        files: How many files were put back or removed.
        overwritten: Files that someone changed since, and that were restored by force.
        left: Shared items that someone changed since, or that samples of other imports have too,
            and that were left as they are.
    """

    run_keys: tuple[str, ...]
    undo_run_key: str
    samples: int
    files: int
    overwritten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def run_key(self) -> str:
        """The run that was undone; of several, their keys one after the other."""
        return ", ".join(self.run_keys)


@DatasetError.explaining_questions()
def undo_run(folder: Folder, run_key: str | Sequence[str], force: bool = False) -> UndoReport:
    """Restores a dataset to what it was before a run, or several runs, byte by byte.

    Afterwards the run counts for nothing: run again with its key, it starts afresh. The undo is
    the run ``undo:<run key>``; undone in its turn, it gives the run's changes back. If it is
    killed, call it again: until then the run can be neither resumed nor relied upon.

    Args:
        folder: The dataset's root.
        run_key: The run; or several, which are undone together. That restores the samples also
            where their commits took turns, so that none of them can be undone alone.
        force: Whether to restore also what others changed since (kept in the undo's own undo
            files), and a run that is still running.

    Returns:
        What was done.

    Raises:
        RunKeyError: If that cannot be a run's key.
        RunNotFoundError: If there is no such run, or it was undone already.
        UndoRefusedError: If someone changed samples of the run since, or the run is running in
            another process; the message names a later run that did so. Nothing was changed; but
            for samples that someone changes in this very moment, which are refused after others
            were restored.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written.
    """
    several = isinstance(run_key, Sequence) and not isinstance(run_key, str | bytes)
    keys = [check_run_key(key) for key in (run_key if several else [run_key])]
    if not keys:
        raise RunKeyError(
            "No run key was given, expected at least one: `pipestream runs` lists them."
        )
    with _opened(folder, keys) as layout:
        intent = intent_for(layout, keys)
        runs = intent.runs(layout)
        keys = [run.key for run in runs]
        if not force:
            _refuse_if_running(layout, keys)
        refuse_if_moved(layout, runs)
        dataset = Underfolder(layout.root, watch=True)
        with _shut(layout, intent, runs):
            changes = net_changes(_all_commits(runs, force))
            plan = _checked_plan(layout, runs, dataset, changes, force)
        undo = Run.of(layout, intent.undo_key)
        if plan.todo:
            undone = list(intent.retired.values())
            is_whole = all(change.is_whole for change in changes.values())
            facts = {"undoes": ", ".join(keys), "undoes_folders": undone}
            undo.note({**facts, "whole": True} if is_whole else facts)
            writer = _writer(dataset, intent.undo_key, force)
            for batch in _batches(plan.todo):
                with writer.staging() as staging:
                    _restore(staging, batch, changes, force)
                    _publish(writer, staging)
        with commit_lock(layout):
            for name, retired_name in intent.retired.items():
                retire(Run(layout, name), Run(layout, retired_name))
        if undo.exists():
            _end(undo)
        return _report(keys, intent.undo_key, plan)


@contextmanager
def _shut(layout: Layout, intent: Intent, runs: Sequence[Run]) -> Iterator[None]:
    """Lets nobody commit to the runs any more; where their undo is refused inside, again."""
    is_begun = any(run.is_half_undone() for run in runs)
    with commit_lock(layout):
        intent.note(layout)
    try:
        yield
    except (DatasetError, OSError):
        if not is_begun:
            for run in runs:
                forget_undoing(run)
        raise


def _end(undo: Run) -> None:
    """Notes that an undo is done, and packs it: which may wait, where the disk is full."""
    try:
        undo.update(finished=time.time())
        pack(undo)
    except OSError as error:
        _log.warning("%s stays unpacked: %s", undo, error)


@DatasetError.explaining_questions()
def undo_commits(
    run: Run,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them, and out of its ledger.

    That is what a rollback needs: the run goes on, or is resumed, as if they had not been made.
    Commits, or a run, that there are not (any more) are no error: then nothing is to be done.

    Args:
        run: The run.
        commit_ids: The ids of the commits; None is all of the tag's.
        tag: The part of the run (a chunk); None is all of the run.
        force: Whether to restore also what was changed since.

    Returns:
        What was done; `undo_run_key` is ``rollback:<run key>``.

    Raises:
        UndoRefusedError: If someone, or another commit of the run, changed the samples since.
            Nothing was changed.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written; it is as it was.
    """
    key = run.key
    undo = Run.of(run.layout, ROLLBACK_KEY + key)
    nothing = UndoReport((key,), undo.key, 0, 0)
    if not run.exists():
        return nothing
    with _opened(run.layout, [key]) as layout:
        ids = None if commit_ids is None else set(commit_ids)
        commits = [c for c in run.commits(tag) if ids is None or c.id in ids]
        if not commits:
            forget_dropped(run)  # of one that was killed, or failed, as it did so
            return nothing
        dataset = Underfolder(layout.root, watch=True)
        changes = net_changes((run, commit) for commit in commits)
        plan = _checked_plan(layout, [run], dataset, changes, force)
        drops = tuple(f"{run.name}/{commit.id}" for commit in commits)
        if plan.todo:
            undo.note({"rolls_back": key})
            writer = _writer(dataset, undo.key, force)
            with writer.staging() as staging:
                _restore(staging, plan.todo, changes, force)
                _publish(writer, staging, tag or "main", drops)
        else:
            with commit_lock(layout):
                drop_commits(layout, drops)
        forget_dropped(run)
        return _report([key], undo.key, plan)


@contextmanager
def _opened(dataset: Folder | Layout, keys: Sequence[str]) -> Iterator[Layout]:
    """The dataset, with the ledger to ourselves and nobody's commit half applied."""
    layout = Layout.of(dataset)
    layout.refuse_missing()
    if not is_folder(layout.runs):
        existing_run(layout, keys[0])  # raises: nothing was ever committed here
    with ledger_lock(layout):
        recover(layout.root)
        yield layout


def _writer(dataset: Underfolder, run_key: str, force: bool) -> UnderfolderWriter:
    return UnderfolderWriter(
        dataset.folder,
        exists_ok=True,
        run_key=run_key,
        dataset=dataset,
        on_conflict="overwrite" if force else "raise",
    )


def _report(keys: Iterable[str], undo_key: str, plan: Plan) -> UndoReport:
    return UndoReport(
        run_keys=tuple(keys),
        undo_run_key=undo_key,
        samples=len(plan.todo),
        files=sum(map(len, plan.todo.values())),
        overwritten=tuple(name for names in plan.changed.values() for name in names),
        left=tuple(plan.left),
    )


# -- may it be done? -----------------------------------------------------------------------


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


def _checked_plan(
    layout: Layout,
    runs: Sequence[Run],
    dataset: Underfolder,
    changes: Mapping[str, Change],
    force: bool,
) -> Plan:
    what = describe_runs([run.key for run in runs])
    plan = plan_of(layout, dataset, changes, force=force)
    _leave_needed(layout, runs, changes, plan)
    if plan.changed and not force:
        shown = [f"{idx} ({', '.join(n)})" for idx, n in islice(plan.changed.items(), _SHOWN)]
        more = len(plan.changed) - len(shown)
        raise UndoRefusedError(
            f"{layout.root}: {what} is not undone, for samples that it wrote were "
            f"changed since: {'; '.join(shown)}{f' and {more} more' if more else ''}. "
            f"{way_out(layout, dataset, runs, plan)}",
            list(plan.changed),
            [name for names in plan.changed.values() for name in names],
        )
    if plan.lost:
        raise DatasetError(
            f"{layout.root}: {what} cannot be undone: {len(plan.lost)} of the files that "
            f"it replaced are not there any more, the first of them {plan.lost[0]}."
        )
    return plan


def _leave_needed(
    layout: Layout, runs: Sequence[Run], changes: Mapping[str, Change], plan: Plan
) -> None:
    """Leaves the shared items there that imports brought, as long as other imports stand."""
    undone = {run.folder for run in runs}
    others = [run for run in runs_of(layout) if _is_import(run) and run.folder not in undone]
    if not (others and any(map(_is_import, runs))):
        return
    for idx, names in list(plan.todo.items()):
        needed = [n for n in names if is_shared(n) and kept_path(n, changes[n]) is None]
        plan.left += needed
        plan.todo[idx] = [name for name in names if name not in needed]
        if not plan.todo[idx]:
            del plan.todo[idx]


def _is_import(run: Run) -> bool:
    return "imported_from" in run.facts() and not run.is_undone()


def _all_commits(runs: Sequence[Run], force: bool) -> Commits:
    """The commits of runs in the order of their making.

    Raises:
        DatasetError: If not all of them can be read; with `force`, those that are missing are
            left out.
    """
    known = {commit_id for run in runs for commit_id in names_in(run.dropped)}
    try:
        for run, commit in commits_in_turn(runs):
            known.add(commit.id)
            yield run, commit
    except FileNotFoundError as error:
        raise DatasetError(
            f"{error.filename}: this file of a ledger is missing. `pipestream check --fix` puts "
            "aside what is left of it."
        ) from error
    for run in runs:
        lost = [commit_id for commit_id in names_in(run.undo) if commit_id not in known]
        if lost and not force:
            raise DatasetError(
                f"{run.layout.root}: run {run.key!r} cannot be undone: its ledger lacks "
                f"{len(lost)} of its commits, as where a damaged part of it was put aside. What "
                f"they replaced is kept in {run.undo}. To undo the others, use `force`."
            )


# -- doing it ------------------------------------------------------------------------------


def _batches(todo: Mapping[int, list[str]]) -> Iterator[dict[int, list[str]]]:
    indices = sorted(todo)
    for start in range(0, len(indices), _BATCH):
        yield {idx: todo[idx] for idx in indices[start : start + _BATCH]}


def _restore(
    staging: Staging,
    todo: Mapping[int, list[str]],
    changes: Mapping[str, Change],
    force: bool,
) -> None:
    for idx, names in todo.items():
        kept = {name: kept_path(name, changes[name]) for name in names}
        staging.restore(
            idx,
            {name: path for name, path in kept.items() if path is not None},
            removes=[name for name, path in kept.items() if path is None],
            found=None if force else {name: changes[name].mark for name in names},
        )


def _publish(
    writer: UnderfolderWriter, staging: Staging, tag: str = "main", drops: tuple[str, ...] = ()
) -> None:
    try:
        writer.publish(staging, tag, drops=drops)
    except ConflictError as error:
        raise UndoRefusedError(
            f"The undo stopped, for {error} Those samples were changed while it was under way.",
            error.indices,
        ) from error
