"""Old runs of a dataset in a bucket are removed for good, with the contents that only they need.

The log says so by an entry: from then on the runs can be neither undone nor resumed. A content is
removed once it is neither in its place, nor written or replaced by a run that stays. Entries stay:
they say what is in the files.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.store import StoreError, at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, fact_entry
from prefect_pipestream.underfolder.bucket.keys import object_of
from prefect_pipestream.underfolder.bucket.ledgers import all_entries_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.bucket.undo_files import BucketFiles
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.imported import ImportLine, told_instead
from prefect_pipestream.underfolder.runs.keeping import (
    RELEASED,
    any_run,
    needed_with,
    to_be_kept,
)
from prefect_pipestream.underfolder.runs.kept_review import REVIEWS
from prefect_pipestream.underfolder.runs.listing import RunInfo, runs_of_ledgers
from prefect_pipestream.underfolder.runs.pruning import Known, Retention, doomed_runs, last_active
from prefect_pipestream.underfolder.runs.undo_space import UndoSpace

_ALIVE = timedelta(minutes=10)
"""A run that has not ended, and did something in this time, may still be going on."""


# -- kept runs ---------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def keep_run_in_bucket(folder: Folder, run_key: str, name: str | None = None) -> Run:
    """Protects a run from pruning, and gives it a name; see `keep_run`."""
    log = Bucket(os.fspath(folder)).log
    key = run_key

    def note(state: State) -> Entry:
        nonlocal key
        run, facts = to_be_kept(log.ledgers(), run_key, name)
        key = run.key
        return fact_entry(run.key, {}, notes={run.name: facts})

    with StoreError.explaining_writes(f"{log.root}: that a run is kept could not be noted"):
        log.append(note)
    return any_run(log.ledgers(), key)


@DatasetError.explaining_questions()
def release_run_in_bucket(folder: Folder, run_key: str) -> Run:
    """Lets pruning remove a run that was kept, and takes its name away; see `release_run`."""
    log = Bucket(os.fspath(folder)).log
    found: list[Run] = []

    def note(state: State) -> Entry | None:
        run = any_run(log.ledgers(), run_key)
        found.append(run)
        return fact_entry(run.key, {}, notes={run.name: RELEASED}) if run.is_kept() else None

    with StoreError.explaining_writes(f"{log.root}: that a run is released could not be noted"):
        log.append(note)
    return found[-1]


# -- what undo holds ---------------------------------------------------------------------------


@DatasetError.explaining_questions()
def runs_and_space_in_bucket(folder: Folder | Layout) -> tuple[list[RunInfo], UndoSpace]:
    """What `list_runs` gives, and the space that the undo of all these runs holds."""
    log = Bucket(str(folder)).log
    layout = log.ledgers()
    return runs_of_ledgers(layout, lambda runs: _space(log, runs))


@DatasetError.explaining_questions()
def list_runs_in_bucket(folder: Folder | Layout, *, with_undo_bytes: bool = True) -> list[RunInfo]:
    """All runs of a dataset that are not pruned, in the order of their start."""
    log = Bucket(str(folder)).log
    return runs_of_ledgers(
        log.ledgers(), lambda runs: _space(log, runs if with_undo_bytes else ())
    )[0]


@DatasetError.explaining_questions()
def undo_bytes_in_bucket(folder: Folder) -> int:
    """The bytes that undo holds in a dataset: what pruning all runs would free."""
    return runs_and_space_in_bucket(folder)[1].total


@DatasetError.explaining_questions()
def undo_bytes_of_in_bucket(folder: Folder, run_key: str) -> int:
    """The bytes that the undo of one run holds, as far as nothing else does."""
    log = Bucket(os.fspath(folder)).log
    return _space(log, [Run.of(log.ledgers(), run_key)]).total


def _space(log: BucketLog, runs: Iterable[Run]) -> UndoSpace:
    """What contents take that runs need, and that are in no file's place."""
    in_place = _in_place(log.state)
    held: dict[str, dict[str, int]] = {}
    for run in runs:
        contents = held.setdefault(run.name, {})
        for entry in all_entries_of(run):
            known = (ref for ref in entry.refs if ref.object not in in_place)
            contents.update((ref.object, ref.size) for ref in known)
    return UndoSpace.of_contents(held)


def _in_place(state: State) -> set[str]:
    return {ref.object for ref in list(state.refs.values()) if ref is not None}


# -- removing ----------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def prune_runs_in_bucket(
    folder: Folder,
    older_than: timedelta | None = None,
    *,
    larger_than: int | None = None,
    keep_last: int = 0,
    plan: bool = False,
) -> list[RunInfo]:
    """Removes old runs with the contents that only they need: for good; see `prune_runs`.

    A run that has not ended stays for ten minutes after it did something last: whether it is still
    running is not known.

    Args, Returns, Raises: As for a folder.
    """
    retention = Retention(older_than, larger_than, keep_last)
    dataset = Bucket(os.fspath(folder), watch=True)
    log = dataset.log
    if plan:
        return list(doomed_runs(_known(dataset), retention))
    doomed: list[RunInfo] = []
    contents: set[str] = set()

    def remove(state: State) -> Entry | None:
        nonlocal doomed, contents
        doomed = list(doomed_runs(_known(dataset), retention))
        if not doomed:
            return None
        contents = _unneeded(log, doomed)
        names = tuple(info.folder for info in doomed)
        return fact_entry(doomed[0].run_key, {}, pruned=names, imported=_told_instead(log, names))

    with StoreError.explaining_writes(f"{log.root}: runs could not be removed, or not whole"):
        added = log.append(remove)
        if added is not None:
            at_once(log.store.delete, sorted(contents))
    return doomed


def _known(dataset: Bucket) -> Known:
    log = dataset.log
    layout, files = log.ledgers(), partial(BucketFiles, dataset)
    runs, space = runs_of_ledgers(layout, lambda runs: _space(log, runs))
    since = datetime.now(UTC) - _ALIVE
    runs = [
        replace(one, state="running")
        if one.state == "stopped" and last_active(layout, one) > since
        else one
        for one in runs
    ]
    reviews = documents_of(dataset.address).names_in(REVIEWS)
    return Known(layout, runs, space, lambda: needed_with(layout, files), reviews)


def _told_instead(log: BucketLog, names: Iterable[str]) -> tuple[ImportLine, ...]:
    """What samples tell that are there although the runs were undone that assigned their names."""
    samples = Bucket(log.root, must_exist=False, merge_root_items=False, log=log)
    runs = [run for name in names if (run := Run(log.ledgers(), name)).is_undone()]
    return tuple(line for run in runs for line in told_instead(run, samples))


def _unneeded(log: BucketLog, doomed: Sequence[RunInfo]) -> set[str]:
    """The keys of the contents that nothing needs any more once runs are gone."""
    layout = log.ledgers()
    gone = {info.folder for info in doomed}
    theirs = {one for name in gone for one in _objects_of(Run(layout, name))}
    return theirs - needed_contents(log, gone)


def needed_contents(log: BucketLog, gone: Collection[str] = ()) -> set[str]:
    """The keys of the contents that are in their places, or that a run wrote or replaced.

    Of what an entry names, what is not needed is never needed again: an entry names contents that
    were just sent, and such ones.

    Args:
        log: The log.
        gone: The names of the folders of runs that do not count.
    """
    layout = log.ledgers()
    staying = (run for run in runs_of(layout) if run.name not in gone)
    in_place = (f"{PRIVATE_FOLDER}/{one}" for one in _in_place(log.state))
    return {*in_place, *(one for run in staying for one in _objects_of(run))}


def _objects_of(run: Run) -> Iterator[str]:
    return (object_of(ref) for entry in all_entries_of(run) for ref in entry.refs)
