"""Undo in a bucket: one entry of the log puts back all that runs changed, or nothing of it."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetWriteError, UndoRefusedError
from prefect_pipestream.storage.store import StoreError, at_once
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.bucket.commit import kept_aside
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.log import object_of
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import (
    PRIVATE_FOLDER,
    index_in,
    is_shared,
    key_of,
)
from prefect_pipestream.underfolder.format.run_key import ROLLBACK_KEY
from prefect_pipestream.underfolder.ledger.provenance import PROVENANCE, software, who
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    SampleRecord,
    new_commit_id,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.interleaved import (
    describe_runs,
    newest_first,
    undo_key_of,
)
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.undo import UndoReport, checked_keys
from prefect_pipestream.underfolder.runs.undo_commits import key_of_undo, refuse_whole


@dataclass(frozen=True)
class _Change:
    """What became of a file by some entries: what it was before the first, and after the last."""

    before: Ref | None
    after: Ref | None
    is_whole: bool = False  # all of its sample was removed


@dataclass(frozen=True)
class _Undo:
    """An undo that is to be made.

    Attributes:
        keys: The runs that are taken back, or something of them.
        key: The run that it is.
        changes: What is taken back.
        facts: What is noted of its run.
        retired: The names that the folders of the runs get, where they are taken back whole.
        drops: The commits that are taken back, where they are not.
        tag: The part of its run.
    """

    keys: tuple[str, ...]
    key: str
    changes: Mapping[str, _Change]
    facts: Mapping[str, Any]
    retired: Mapping[str, str] = field(default_factory=dict)
    drops: tuple[str, ...] = ()
    tag: str = "main"


@DatasetError.explaining_questions()
def undo_run_in_bucket(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    facts: Mapping[str, Any] | None = None,
    check: Check | None = None,
) -> UndoReport:
    """Restores a dataset in a bucket to what it was before runs; see `undo_run`.

    It is one commit, whatever the number of samples. A run that is still running stops with its
    next commit.

    Args:
        folder: The dataset's address.
        run_key: The run, by its key or the name that it was given, or several.
        force: Whether to restore also what others changed since.
        indices: None: of a dataset in a bucket whole runs are undone.
        facts: What the ledger is to say of the undo, beside what it took back.
        check: None: nothing is checked.

    Raises:
        RunNotFoundError: If there is no such run, or it was undone already.
        UndoRefusedError: If someone changed samples of the runs since.
        DatasetWriteError: If the dataset cannot be written.
    """
    if indices is not None or check is not None:
        raise DatasetError(
            f"{folder}: of a dataset in a bucket whole runs are undone; neither samples nor rules "
            "can be given."
        )
    given = checked_keys(run_key)
    dataset = Bucket(os.fspath(folder), watch=True)

    def begin() -> _Undo:
        layout = dataset.log.ledgers()
        runs = newest_first(existing_run(layout, key) for key in dict.fromkeys(given))
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        keys = tuple(run.key for run in runs)
        retired = {run.name: f"{run.name}~undone-{now}" for run in runs}
        noted = {
            **(facts or {}),
            "undoes": ", ".join(keys),
            "undoes_folders": list(retired.values()),
        }
        changes = _changes_of(dataset, runs, dataset.log.entries_of(runs), force)
        return _Undo(keys, undo_key_of(layout, keys), changes, noted, retired)

    return _done(dataset, begin, force)


def undo_commits_in_bucket(
    address: str,
    run_key: str,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them; see `undo_commits`.

    Args:
        address: The dataset's address.
        run_key: The run.
        commit_ids: The commits; None is all.
        tag: The part of the run; None is any.
        force: Whether to restore also what others changed since.
        facts: What is noted of the run that takes commits back.

    Raises:
        UndoRefusedError: If someone changed the samples since.
        DatasetWriteError: If the dataset cannot be written.
    """
    dataset = Bucket(address, watch=True)

    def begin() -> _Undo:
        run = Run.of(dataset.log.ledgers(), run_key)
        entries = [
            entry
            for entry in dataset.log.entries_of([run])
            if (commit_ids is None or entry.id in commit_ids)
            and (tag is None or entry.commit.tag == tag)
        ]
        key = key_of_undo(run_key)
        noted = dict(facts or {})
        if key.startswith(ROLLBACK_KEY):
            noted["rolls_back"] = run_key
        drops = tuple(f"{run.name}/{entry.id}" for entry in entries)
        changes = _changes_of(dataset, [run], entries, force)
        return _Undo((run_key,), key, changes, noted, drops=drops, tag=tag or "main")

    return _done(dataset, begin, force)


@DatasetError.explaining_questions()
def undo_commit_in_bucket(
    folder: Folder,
    run_key: str,
    commit_id: str,
    *,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> UndoReport:
    """Takes one commit of a run back; see `undo_commit`.

    Raises:
        UndoRefusedError: If someone changed the samples since, or there is no such commit (any
            more).
        DatasetWriteError: If the dataset cannot be written.
    """
    address = os.fspath(folder)
    log = Bucket(address).log
    run_key = existing_run(log.ledgers(), run_key).key
    for key in (run_key, key_of_undo(run_key)):
        run = Run.of(log.ledgers(), key)
        if any(entry.id == commit_id for entry in log.entries_of([run])):
            refuse_whole(run)
            return undo_commits_in_bucket(address, key, [commit_id], force=force, facts=facts)
    raise UndoRefusedError(
        f"{address}: run {run_key!r} has no commit {commit_id!r} that could be taken back. It was "
        "taken back before, or is one of another run."
    )


def _done(dataset: Bucket, begin: Callable[[], _Undo], force: bool) -> UndoReport:
    """Makes an undo, anew where others are faster."""
    commit_id = new_commit_id()
    made: list[tuple[_Undo, list[str], Mapping[str, Ref | None], list[str]]] = []

    def make(state: State) -> Entry | None:
        undo = begin()
        changed, as_before = _changed_since(dataset, undo)
        todo = {n: one.before for n, one in undo.changes.items() if n not in as_before}
        beside = _beside(dataset, todo, undo.changes)
        left = [name for name in todo if _is_left(name, changed, beside, force)]
        for name in left:
            del todo[name]
        changed = [name for name in changed if name not in left]
        beside = [name for name in beside if not is_shared(name)]
        changed += beside
        if changed and not force:
            raise _refused(dataset, undo, changed)
        put_back = {(index_in(name), key_of(name)) for name, ref in todo.items() if ref}
        instead = [name for name in beside if (index_in(name), key_of(name)) in put_back]
        todo.update(dict.fromkeys(instead))
        _refuse_lost(dataset, todo)
        made.append((undo, changed, todo, left))
        if not (todo or undo.retired or undo.drops):
            return None
        return _entry(dataset, state, undo, todo, commit_id)

    try:
        dataset.log.store.require_create(PRIVATE_FOLDER)
        added = dataset.log.append(make)
    except StoreError as error:
        what = f"{dataset.address}: the undo could not be written ({error})"
        raise DatasetWriteError(None, what) from error
    try:
        if added is not None:
            dataset.log.place(added[1], added[0])
    except StoreError as error:
        what = (
            f"{dataset.address}: the undo is made, and some of its files could not be put in place "
            f"({error}). The next writer does it"
        )
        raise DatasetWriteError(None, what) from error
    undo, changed, todo, left = made[-1]
    return UndoReport(
        run_keys=undo.keys,
        undo_run_key=undo.key,
        samples=len({index_in(name) for name in todo} - {None}),
        files=len(todo),
        overwritten=tuple(changed),
        left=tuple(left),
        folders=tuple(undo.retired.values()),
        commit_id=commit_id if todo else None,
    )


def _changes_of(
    dataset: Bucket, runs: Sequence[Run], entries: Iterable[Entry], force: bool
) -> dict[str, _Change]:
    """What entries of runs changed all in all, by file name.

    Raises:
        UndoRefusedError: If others changed a file between two changes of these runs.
    """
    changes: dict[str, _Change] = {}
    for entry in entries:
        removed = [one for one in entry.commit.samples if one.outcome == "removed"]
        whole = {name for one in removed for name in one.removes}
        for name in {**entry.placed, **entry.before}:
            before, after = entry.before.get(name), entry.placed.get(name)
            known = changes.get(name)
            if known is not None and known.after != before and not force:
                raise UndoRefusedError(
                    f"{dataset.address}: {name} was changed by others between two commits of "
                    f"{describe_runs([run.key for run in runs])}. Undo those that did it with them,"
                    " or use `force`, which takes that back, too.",
                    [idx] if (idx := index_in(name)) is not None else [],
                )
            first = before if known is None else known.before
            changes[name] = _Change(first, after, name in whole)
    return changes


def _changed_since(dataset: Bucket, undo: _Undo) -> tuple[list[str], set[str]]:
    """The files that are neither as the runs left nor as they found them; and those that are so."""
    with dataset.contents.asked_at_once(undo.changes):
        now = {name: dataset.contents.version_now(name) for name in undo.changes}
    found = undo.changes.items()
    as_before = {name for name, one in found if _is_same(_version(one.before), now[name])}
    changed = [name for name, one in found if not _is_same(_version(one.after), now[name])]
    return [name for name in changed if name not in as_before], as_before


def _refuse_lost(dataset: Bucket, todo: Mapping[str, Ref | None]) -> None:
    """Checks that what is to be put back is there.

    Raises:
        DatasetError: If something is not. Nothing was changed.
    """
    keys = [object_of(ref) for ref in todo.values() if ref is not None]
    found = zip(keys, at_once(dataset.log.store.stat, keys), strict=True)
    lost = [key for key, there in found if there is None]
    if lost:
        raise DatasetError(
            f"{dataset.address}: {len(lost)} objects that the undo needs are not there any more: "
            f"{', '.join(lost[:3])}. Nothing was changed. Restore them, and repeat it."
        )


def _beside(
    dataset: Bucket, todo: Mapping[str, Ref | None], changes: Mapping[str, _Change]
) -> list[str]:
    """Other files of items, or whole samples, that are put back: nobody of these runs made them."""
    found: dict[str, None] = {}
    for name, ref in todo.items():
        idx = index_in(name)
        if ref is None:
            continue
        if is_shared(name):
            there = dataset.shared_files().get(key_of(name))
            names = [] if there is None else ["/" + there]
        elif idx is not None:
            kinds, is_whole = dataset.kinds_of(idx), changes[name].is_whole
            names = [k.name_of(idx) for k in kinds if is_whole or k.key == key_of(name)]
        else:
            continue
        found.update(dict.fromkeys(one for one in names if one not in changes))
    return list(found)


def _is_left(name: str, changed: Sequence[str], beside: Sequence[str], force: bool) -> bool:
    """Whether a shared item stays as others left it, as it does in a folder."""
    is_of_others = any(is_shared(one) and key_of(one) == key_of(name) for one in beside)
    return is_shared(name) and (is_of_others or (name in changed and not force))


def _version(ref: Ref | None) -> Version | None:
    return None if ref is None else ref.version()


def _is_same(was: Version | None, now: Version | None) -> bool:
    return was is now if was is None or now is None else was.may_be(now)


def _refused(dataset: Bucket, undo: _Undo, changed: Sequence[str]) -> UndoRefusedError:
    indices = sorted({idx for name in changed if (idx := index_in(name)) is not None})
    some = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    return UndoRefusedError(
        f"{dataset.address}: {describe_runs(undo.keys)} cannot be undone: others changed {some} "
        "since. Undo what changed them first, or use `force`, which takes that back, too.",
        indices,
        changed,
    )


def _entry(
    dataset: Bucket,
    state: State,
    undo: _Undo,
    todo: Mapping[str, Ref | None],
    commit_id: str,
) -> Entry:
    with dataset.contents.asked_at_once(todo):
        before = kept_aside(dataset, state, todo, commit_id)
    placed = {name: ref for name, ref in todo.items() if ref is not None}
    now = time.time()
    facts = {"started": now, **who(), PROVENANCE: software(), **undo.facts}
    if undo.retired:
        facts["finished"] = now
    record = CommitRecord(
        id=commit_id,
        run_key=undo.key,
        tag=undo.tag,
        staged=f"staged/bucket/{commit_id}",
        at=now,
        samples=_samples(placed, before),
        drops=undo.drops,
    )
    return Entry(
        commit_id, undo.key, placed, before, facts=facts, undone=undo.retired, commit=record
    )


def _samples(placed: Mapping[str, Ref], before: Mapping[str, Ref]) -> tuple[SampleRecord, ...]:
    """The records of the samples that are restored; a shared item is noted with the first one."""
    by_sample: dict[int, list[str]] = {}
    for name in dict.fromkeys([*placed, *before]):
        idx = 0 if is_shared(name) else index_in(name)
        by_sample.setdefault(0 if idx is None else idx, []).append(name)
    return tuple(
        SampleRecord(
            idx,
            "written",
            writes={name: placed[name].version().mark for name in names if name in placed},
            replaces=tuple(name for name in names if name in placed and name in before),
            removes=tuple(name for name in names if name not in placed),
        )
        for idx, names in sorted(by_sample.items())
    )
