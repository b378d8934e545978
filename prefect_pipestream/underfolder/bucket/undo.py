"""Undo in a bucket: one entry of the log puts back all that runs changed, or nothing of it."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect_pipestream.errors import DatasetError, UndoRefusedError
from prefect_pipestream.storage.store import at_once
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.log import object_of
from prefect_pipestream.underfolder.bucket.restoring import Restoring, put_back, restoring_entry
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import index_in, is_shared, key_of
from prefect_pipestream.underfolder.format.run_key import ROLLBACK_KEY
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.interleaved import (
    describe_runs,
    newest_first,
    undo_key_of,
)
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.undo import UndoReport, checked_keys
from prefect_pipestream.underfolder.runs.undo_commits import key_of_undo, person_in, refuse_whole


@dataclass(frozen=True)
class _Change:
    """What became of a file by some entries: what it was before the first, and after the last."""

    before: Ref | None
    after: Ref | None
    is_whole: bool = False  # all of its sample was removed


@dataclass(frozen=True, kw_only=True)
class _Undo(Restoring):
    """An undo that is to be made.

    Attributes:
        keys: The runs that are taken back, or something of them.
        changes: What is taken back.
    """

    keys: tuple[str, ...]
    changes: Mapping[str, _Change]


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
        return _Undo(
            key=undo_key_of(layout, keys),
            facts=noted,
            has_ended=True,
            retired=retired,
            keys=keys,
            changes=changes,
        )

    return _done(dataset, begin, force)


def undo_commits_in_bucket(
    address: str,
    run_key: str,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
    by: tuple[str, str] | None = None,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them; see `undo_commits`.

    Args:
        address: The dataset's address.
        run_key: The run.
        commit_ids: The commits; None is all.
        tag: The part of the run; None is any.
        force: Whether to restore also what others changed since.
        facts: What is noted of the run that takes commits back, where it begins by this.
        by: Who does it, and on which host, where that is noted of this undo alone.

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
        return _Undo(
            key=key,
            facts=noted,
            tag=tag or "main",
            drops=drops,
            by=by,
            keys=(run_key,),
            changes=changes,
        )

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
            by = person_in(facts or {})
            return undo_commits_in_bucket(
                address, key, [commit_id], force=force, facts=facts, by=by
            )
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
        restored = {(index_in(name), key_of(name)) for name, ref in todo.items() if ref}
        instead = [name for name in beside if (index_in(name), key_of(name)) in restored]
        todo.update(dict.fromkeys(instead))
        _refuse_lost(dataset, todo)
        made.append((undo, changed, todo, left))
        if not (todo or undo.retired or undo.drops):
            return None
        return restoring_entry(dataset, state, undo, todo, commit_id)

    put_back(dataset, make, "the undo")
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
    )
