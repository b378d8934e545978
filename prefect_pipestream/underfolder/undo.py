"""Undo: put back what a run, or some commits of it, replaced and removed.

An undo is a run of its own, ``undo:<run key>``, and can itself be undone. It puts files back by
the same commits as any write, so that a process killed on the way leaves no sample half undone,
and the next undo of the run goes on from there.
"""

import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.storage.asking import is_folder
from prefect_pipestream.underfolder.apply import commit_lock, drop_commits, recover
from prefect_pipestream.underfolder.commit import Commit
from prefect_pipestream.underfolder.dataset import Underfolder
from prefect_pipestream.underfolder.facts import (
    Folder,
    info_of,
    layout_of,
    note_run,
    read_json,
    update_run,
    write_json,
)
from prefect_pipestream.underfolder.layout import Layout, RunLayout
from prefect_pipestream.underfolder.ledger import commits_of
from prefect_pipestream.underfolder.net import Change, Plan, kept_path, net_changes, plan_of
from prefect_pipestream.underfolder.packing import forget_dropped, ledger_lock, pack
from prefect_pipestream.underfolder.run_key import check_run_key, is_run_key
from prefect_pipestream.underfolder.runs import ROLLBACK_KEY, UNDO_KEY, live_writers, run_of
from prefect_pipestream.underfolder.writer import UnderfolderWriter

_GROUP = 1000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did.

    Attributes:
        run_key: The run that was undone.
        undo_run_key: The run that the undo is, to be undone in its turn.
        samples: How many samples were restored.
        files: How many files were put back or removed.
        overwritten: Files that someone changed since, and that were restored by force.
        left: Shared items that someone changed since, and that were left as they are.
    """

    run_key: str
    undo_run_key: str
    samples: int
    files: int
    overwritten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@DatasetError.explaining_questions()
def undo_run(folder: Folder, run_key: str, force: bool = False) -> UndoReport:
    """Restores a dataset to what it was before a run, byte by byte.

    Afterwards the run counts for nothing: run again with its key, it starts afresh. The undo is
    the run ``undo:<run key>``; undone in its turn, it gives the run's changes back. If it is
    killed, call it again: until then the run can be neither resumed nor relied upon.

    Args:
        folder: The dataset's root.
        run_key: The run.
        force: Whether to restore also what others changed since (kept in the undo's own undo
            files), and a run that is still running.

    Returns:
        What was done.

    Raises:
        RunNotFoundError: If there is no such run, or it was undone already.
        UndoRefusedError: If someone changed samples of the run since, or the run is running in
            another process. Nothing was changed; but for samples that someone changes in this
            very moment, which are refused after others were restored.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written.
    """
    with _opened(folder, run_key) as layout:
        run = run_of(layout, run_key)
        if not force:
            _refuse_if_running(layout, run_key)
        dataset = Underfolder(layout.root, watch=True)
        changes = net_changes(commits_of(run))
        plan = _checked_plan(layout, run, run_key, dataset, changes, force)
        undo_key, retired_name = _intend(layout, run)
        if plan.todo:
            facts = {"undoes": run_key, "undoes_folder": retired_name}
            note_run(layout, undo_key, facts)
            writer = _writer(dataset, undo_key, force)
            for group in _groups(plan.todo):
                with writer.commit() as commit:
                    _restore(commit, run, group, changes, force)
                    _publish(commit, undo_key, "main")
        with commit_lock(layout):
            _retire(layout, run, retired_name)
        undo = layout.run(undo_key)
        if is_folder(undo.folder):
            update_run(undo, finished=time.time())
            pack(layout, undo)
        return _report(run_key, undo_key, plan)


@DatasetError.explaining_questions()
def undo_commits(
    folder: Folder,
    run_key: str,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them, and out of its ledger.

    That is what a rollback needs: the run goes on, or is resumed, as if they had not been made.
    Commits, or a run, that there are not (any more) are no error: then nothing is to be done.

    Args:
        folder: The dataset's root.
        run_key: The run.
        commit_ids: The ids of the commits; None is all of the tag's.
        tag: The part of the run (a chunk); None is all of the run.
        force: Whether to restore also what was changed since.

    Returns:
        What was done; `undo_run_key` is ``rollback:<run key>``.

    Raises:
        RunKeyError: If that cannot be a run's key.
        UndoRefusedError: If someone, or another commit of the run, changed the samples since.
            Nothing was changed.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written; it is as it was.
    """
    undo_key = ROLLBACK_KEY + check_run_key(run_key)
    if not is_folder(layout_of(folder).run(run_key).folder):
        return UndoReport(run_key, undo_key, 0, 0)
    with _opened(folder, run_key) as layout:
        run = run_of(layout, run_key)
        ids = None if commit_ids is None else set(commit_ids)
        commits = [c for c in commits_of(run, tag) if ids is None or c.id in ids]
        if not commits:
            return UndoReport(run_key, undo_key, 0, 0)
        dataset = Underfolder(layout.root, watch=True)
        changes = net_changes(commits)
        plan = _checked_plan(layout, run, run_key, dataset, changes, force)
        drops = tuple(f"{run.name}/{commit.id}" for commit in commits)
        if plan.todo:
            note_run(layout, undo_key, {"rolls_back": run_key})
            with _writer(dataset, undo_key, force).commit() as commit:
                _restore(commit, run, plan.todo, changes, force)
                _publish(commit, undo_key, tag or "main", drops)
        else:
            with commit_lock(layout):
                drop_commits(layout, drops)
        forget_dropped(layout, run)
        return _report(run_key, undo_key, plan)


@contextmanager
def _opened(folder: Folder, run_key: str) -> Iterator[Layout]:
    """The dataset, with the ledger to ourselves and nobody's commit half applied."""
    layout = layout_of(folder)
    if not is_folder(layout.root):
        raise DatasetNotFoundError(f"Dataset {layout.root}: no such folder.")
    if not is_folder(layout.runs):
        run_of(layout, run_key)  # raises: nothing was ever committed here
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


def _report(run_key: str, undo_key: str, plan: Plan) -> UndoReport:
    return UndoReport(
        run_key=run_key,
        undo_run_key=undo_key,
        samples=len(plan.todo),
        files=sum(map(len, plan.todo.values())),
        overwritten=tuple(name for names in plan.changed.values() for name in names),
        left=tuple(plan.left),
    )


# -- may it be done? -----------------------------------------------------------------------


def _refuse_if_running(layout: Layout, run_key: str) -> None:
    here = (socket.gethostname(), os.getpid())
    for writer in live_writers(layout).get(run_key, ()):
        if (writer.get("host"), writer.get("pid")) != here:
            raise UndoRefusedError(
                f"{layout.root}: run {run_key!r} is still being written, by process "
                f"{writer.get('pid')} on {writer.get('host')}. Stop it first, or use `force`."
            )


def _checked_plan(
    layout: Layout,
    run: RunLayout,
    run_key: str,
    dataset: Underfolder,
    changes: Mapping[str, Change],
    force: bool,
) -> Plan:
    plan = plan_of(layout, run, dataset, changes, force=force)
    if plan.changed and not force:
        shown = [f"{idx} ({', '.join(n)})" for idx, n in islice(plan.changed.items(), _SHOWN)]
        more = len(plan.changed) - len(shown)
        raise UndoRefusedError(
            f"{layout.root}: run {run_key!r} is not undone, for samples that it wrote were "
            f"changed since: {'; '.join(shown)}{f' and {more} more' if more else ''}. Undo what "
            "changed them first, or use `force`, which keeps what is there now for another undo.",
            list(plan.changed),
            [name for names in plan.changed.values() for name in names],
        )
    if plan.lost:
        raise DatasetError(
            f"{layout.root}: run {run_key!r} cannot be undone: {len(plan.lost)} of the files that "
            f"it replaced are not there any more, the first of them {plan.lost[0]}."
        )
    return plan


# -- doing it ------------------------------------------------------------------------------


def _intend(layout: Layout, run: RunLayout) -> tuple[str, str]:
    """Notes that the run is being undone: an undo that is killed is then gone on with.

    Returns:
        The key of the undo's run, and the name that the folder of the undone run gets.
    """
    intent = read_json(run.undoing)
    if not (is_run_key(intent.get("undo")) and isinstance(intent.get("name"), str)):
        key = info_of(run)["run_key"]
        undo_key, number = UNDO_KEY + key, 2
        while is_folder(layout.run(undo_key).folder):  # of an earlier run of this key
            undo_key, number = f"{UNDO_KEY}{key}#{number}", number + 1
        now = datetime.now(UTC)
        intent = {"undo": undo_key, "name": f"{run.name}~undone-{now:%Y%m%dT%H%M%S%f}"}
        write_json(run.undoing, intent)
    return intent["undo"], os.path.basename(intent["name"])


def _groups(todo: Mapping[int, list[str]]) -> Iterator[dict[int, list[str]]]:
    indices = sorted(todo)
    for start in range(0, len(indices), _GROUP):
        yield {idx: todo[idx] for idx in indices[start : start + _GROUP]}


def _restore(
    commit: Commit,
    run: RunLayout,
    todo: Mapping[int, list[str]],
    changes: Mapping[str, Change],
    force: bool,
) -> None:
    for idx, names in todo.items():
        kept = {name: kept_path(run, name, changes[name]) for name in names}
        commit.restore(
            idx,
            {name: path for name, path in kept.items() if path is not None},
            removes=[name for name, path in kept.items() if path is None],
            found=None if force else {name: changes[name].mark for name in names},
        )


def _publish(commit: Commit, undo_key: str, tag: str, drops: tuple[str, ...] = ()) -> None:
    try:
        commit.publish(undo_key, tag, drops)
    except ConflictError as error:
        raise UndoRefusedError(
            f"The undo stopped, for {error} Those samples were changed while it was under way.",
            error.indices,
        ) from error


def _retire(layout: Layout, run: RunLayout, name: str) -> None:
    """Lets a run count no more; if it was an undo, the run that it took back counts again.

    The caller holds the commit lock. The run's own folder is renamed last, so that a process
    killed in here is followed by one that does all of it again.
    """
    retired = RunLayout(layout, name)
    if not is_folder(run.folder) or is_folder(retired.folder):
        return
    facts = info_of(run)
    if "undoes_folder" in facts:
        undone = os.path.basename(facts["undoes_folder"])
        _revive(layout, RunLayout(layout, undone))
    update_run(run, undone=time.time())
    os.rename(run.folder, retired.folder)
    with suppress(FileNotFoundError):
        os.unlink(RunLayout(layout, name).undoing)


def _revive(layout: Layout, retired: RunLayout) -> None:
    """Lets an undone run count again, unless it was pruned or a new run has its key by now."""
    if not is_folder(retired.folder):
        return
    facts = info_of(retired)
    run = layout.run(facts["run_key"])
    if is_folder(run.folder):
        return
    if "undoes_folder" in facts:
        undone = os.path.basename(facts["undoes_folder"])
        _retire(layout, layout.run(facts["undoes"]), undone)
    with suppress(FileNotFoundError):
        os.unlink(retired.undoing)
    os.rename(retired.folder, run.folder)
