"""From the commit point on: apply a logged commit, take it back, or finish a dead one's.

All functions here are called under the dataset's commit lock, and every step can be repeated:
a killed process leaves a pending record behind, and the next one to take the lock goes on with
it from the start.
"""

import logging
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.asking import NO_RIGHT, is_folder, is_there, names_in
from prefect_pipestream.storage.lock import exclusive, is_held, remove_unheld
from prefect_pipestream.storage.making import NO_LINKS, link_or_copy, sync_folder
from prefect_pipestream.storage.removing import empty_folder, remove
from prefect_pipestream.storage.untrusted import TEMPORARY
from prefect_pipestream.storage.version import mark_at
from prefect_pipestream.underfolder.format.journal import Journal, NameChange
from prefect_pipestream.underfolder.format.layout import Layout, staged_name
from prefect_pipestream.underfolder.format.names import index_in, is_shared
from prefect_pipestream.underfolder.ledger.records import CommitRecord
from prefect_pipestream.underfolder.ledger.run import Run

_log = logging.getLogger(__name__)

UNDO = "undo"
RECORD = "record.json"
_NEW = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def commit_lock(layout: Layout) -> Iterator[None]:
    """Holds the dataset's commit lock; what a dead writer logged is applied first."""
    with exclusive(layout.lock):
        layout.refuse_linked_data()
        _finish_pending(layout)
        yield


def recover(root: str) -> None:
    """Ends what dead writers left: applies logged commits, removes what was only staged.

    Does nothing in a folder to which nothing was ever committed. A reader without permission
    to write leaves it to the next writer.

    Raises:
        DatasetWriteError: If a logged commit cannot be applied, as on a full disk.
        DatasetError: If one cannot be read.
    """
    layout = Layout(root)
    try:
        if not is_folder(layout.log):
            return
        with commit_lock(layout):
            sweep(layout)
    except OSError as error:
        if error.errno not in NO_RIGHT:
            what = f"{root}: what an interrupted process left there cannot be finished"
            raise DatasetWriteError.of(error, what, "The next writer tries it again") from error


def sweep(layout: Layout) -> None:
    """Removes the staged files of writers that are dead."""
    staged = layout.staged
    for name in {name.removesuffix(".alive") for name in names_in(staged)}:
        path = f"{staged}/{name}"
        if is_dead(path):
            with suppress(OSError):  # as of what another user staged: the next sweep tries again
                if name.endswith(TEMPORARY):
                    remove_unheld(path)  # not if it is held by now
                else:
                    remove(path)
                    remove(path + ".alive")


def is_dead(path: str) -> bool:
    """Whether the process is dead that made what is at this path below ``staged``.

    Raises:
        OSError: If that could not be asked.
    """
    return not is_held(path if path.endswith(TEMPORARY) else path + ".alive")


def _finish_pending(layout: Layout) -> None:
    log = layout.log
    for name in sorted(names_in(log)):
        if not name.endswith(".json"):
            continue
        path = f"{log}/{name}"
        try:
            record = CommitRecord.read(path)
            _check_staged(layout, record, name)
        except ValueError as error:
            raise DatasetError(
                f"{path}: this pending commit cannot be read ({error}). Run `pipestream check "
                f"--fix {shlex.quote(layout.root)}`, which puts it aside."
            ) from error
        _log.info("%s: finishing commit %s of a process that died", layout.root, record.id)
        place(layout, record)


def _check_staged(layout: Layout, record: CommitRecord, name: str) -> None:
    if name != record.id + ".json":
        raise ValueError(f"it says that it is {record.id!r}")
    try:
        layout.at(*record.staged.split("/"), UNDO)
    except DatasetError as error:
        raise ValueError(str(error)) from error


def place(layout: Layout, record: CommitRecord, *, durable: bool = False) -> None:
    """Applies a logged commit and moves its record to the run's ledger."""
    try:
        before = os.stat(layout.data).st_mtime_ns
    except FileNotFoundError:
        os.makedirs(layout.data)
        before = 0
    _apply(layout, record)
    if durable:
        sync_folder(layout.data)
        sync_folder(layout.root)
    after = _mark_folder(layout.data)
    changes = list(_name_changes(record))
    Journal(layout.journal).append(before, after, changes, layout.staged)
    _finish(layout, record, durable=durable)


def _apply(layout: Layout, record: CommitRecord) -> None:
    staged = os.path.join(layout.private, record.staged)
    for name in record.shared:
        _place_if_absent(f"{staged}/{staged_name(name)}", layout.final(name))
    for sample in record.samples:
        for name in sample.writes or ():
            with suppress(FileNotFoundError):  # it is in its place already
                os.rename(f"{staged}/{staged_name(name)}", layout.final(name))
        for name in sample.removes:
            with suppress(FileNotFoundError):
                os.unlink(layout.final(name))


def _place_if_absent(staged: str, final: str) -> None:
    if not is_there(staged):
        return
    try:
        os.link(staged, final, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not is_there(final):
            os.rename(staged, final)


def _mark_folder(folder: str) -> int:
    """Gives the folder a modification time of its own, unlike the clock's coarse ticks.

    What anyone else does to the folder from now on changes that time, even within this tick.
    """
    now = time.time_ns()
    with suppress(PermissionError):  # not our folder: readers scan a little more often
        os.utime(folder, ns=(now, now))
    return os.stat(folder).st_mtime_ns


def _name_changes(record: CommitRecord) -> Iterator[NameChange]:
    for sample in record.samples:
        added = [n for n in sample.writes or () if n not in sample.replaces and not is_shared(n)]
        # A sample that is moved has them under another index than the one it is written at.
        removed = [n for n in sample.removes if not is_shared(n)]
        for idx in dict.fromkeys(map(index_in, [*added, *removed])):
            if idx is not None:
                names = ([n for n in some if index_in(n) == idx] for some in (added, removed))
                yield NameChange(idx, *names)


def _finish(layout: Layout, record: CommitRecord, *, durable: bool) -> None:
    staged = os.path.join(layout.private, record.staged)
    run = Run.of(layout, record.run_key)
    done = done_path(layout, record)
    undo = os.path.join(staged, UNDO)
    if is_there(undo):  # else there is nothing to undo, or it was moved already
        _move(undo, run.undo_of(record.id))
    drop_commits(layout, record.drops)
    _move(layout.pending(record.id), done)
    if durable:
        for folder in (run.undo, os.path.dirname(done), layout.log):
            sync_folder(folder)
    with suppress(OSError):  # the commit is done; the sweep removes what is left here
        empty_folder(staged)


def done_path(layout: Layout, record: CommitRecord) -> str:
    """The path of a commit's record in its run's ledger, once it is applied."""
    return Run.of(layout, record.run_key).at("done", record.tag, record.id + ".json")


def _move(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:  # the first of its folder
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)


def drop_commits(layout: Layout, commits: Iterable[str]) -> None:
    """Notes that commits, each given as ``<run folder>/<commit id>``, are of their run no more."""
    for name in commits:
        folder, _, commit_id = name.rpartition("/")
        run = Run(layout, folder)
        os.makedirs(run.dropped, exist_ok=True)
        os.close(os.open(run.at("dropped", commit_id), os.O_WRONLY | os.O_CREAT | _NEW, 0o666))


def revert(layout: Layout, record: CommitRecord) -> None:
    """Takes back a logged commit that could not be applied, and its record with it.

    Files that were not replaced yet are left alone: one of them may be why it failed. New files
    go back to where they were staged first, so that a process that is killed in here leaves a
    commit that can still be applied whole.
    """
    staged = os.path.join(layout.private, record.staged)
    undo = os.path.join(staged, UNDO)
    if not is_there(undo) and is_there(moved := Run.of(layout, record.run_key).undo_of(record.id)):
        os.rename(moved, undo)
    for sample in record.samples:
        for name in sample.writes or ():
            final, back = layout.final(name), f"{staged}/{staged_name(name)}"
            if is_there(back):
                continue
            os.rename(final, back)
            if name in sample.replaces:
                _restore(undo, name, final)
        for name in sample.removes:
            if not is_there(layout.final(name)):
                _restore(undo, name, layout.final(name))
    for name, mark in record.shared.items():
        _take_back_shared(f"{staged}/{staged_name(name)}", layout.final(name), mark)
    for name in record.drops:
        folder, _, commit_id = name.rpartition("/")
        with suppress(FileNotFoundError):
            os.unlink(Run(layout, folder).at("dropped", commit_id))
    os.unlink(layout.pending(record.id))


def _take_back_shared(staged: str, final: str, mark: str) -> None:
    """Removes a shared item if it was placed by this commit and not by another writer."""
    with suppress(FileNotFoundError):
        if not is_there(staged):
            if mark_at(final) == mark:
                os.rename(final, staged)
        elif os.path.samestat(os.lstat(staged), os.lstat(final)):
            os.unlink(final)


def _restore(undo: str, name: str, final: str) -> None:
    fresh = f"{os.path.dirname(undo)}/{staged_name(name)}.restored"
    remove(fresh)  # of a process that was killed in here
    link_or_copy(f"{undo}/{staged_name(name)}", fresh)
    os.replace(fresh, final)
