"""Undo in a bucket: one entry of the log puts back all that runs changed, or nothing of it."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from prefect_pipestream.errors import DatasetError, UndoRefusedError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.store import at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import object_of
from prefect_pipestream.underfolder.bucket.ledgers import entries_of
from prefect_pipestream.underfolder.bucket.restoring import Restoring, put_back, restoring_entry
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.prospect import Check, Items
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.format.run_key import ROLLBACK_KEY
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    new_commit_id,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.interleaved import refuse_if_moved
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.part_undo import chosen_samples, only, with_names
from prefect_pipestream.underfolder.runs.retiring import intent_for
from prefect_pipestream.underfolder.runs.undo import (
    UndoPlan,
    UndoReport,
    checked_keys,
    facts_of,
    plan_held_to_rules,
    planned,
    report_of,
    to_take_back,
)
from prefect_pipestream.underfolder.runs.undo_checks import refuse_at_first
from prefect_pipestream.underfolder.runs.undo_commits import key_of_undo, person_in, refuse_whole
from prefect_pipestream.underfolder.runs.undo_plan import Change, Commits, Files, Plan, net_changes


class BucketFiles(Files):
    """The files of a dataset in a bucket: what they are like now, and as runs found and left them.

    Args:
        dataset: The dataset.
    """

    dataset: Bucket

    def __init__(self, dataset: Bucket) -> None:
        super().__init__(dataset.log.ledgers(), dataset)
        self._before: dict[str, Mapping[str, Ref]] = {}

    def in_turn(self, runs: Iterable[Run], indices: Collection[int] | None = None) -> Commits:
        """The commits of several runs in the order of the log, each with its run; see `Files`."""
        runs = list(runs)
        gone = {run.name: run.taken_back() for run in runs}
        for run, entry in entries_of(runs):
            self._before[run.undo_of(entry.id)] = entry.before
            commit = gone[run.name].rest_of(_as_placed(entry))
            yield run, commit if indices is None else only(commit, indices)

    def asked_at_once(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Asks for many files at the same time."""
        return self.dataset.contents.asked_at_once(names)

    def mark(self, name: str) -> str | None:
        """The mark of a file as it is now; None where there is none."""
        return self.dataset.contents.mark_now(name)

    def kept_mark(self, name: str, kept_in: str) -> str | None:
        """The mark of a file that a commit kept; None where it kept none."""
        ref = self._before[kept_in].get(name)
        return None if ref is None else ref.version().mark

    def is_as_before(self, name: str, change: Change) -> bool:
        """Whether a file has the content that was kept (or, as then, there is none)."""
        kept_in = change.kept_in
        return self.mark(name) == (None if kept_in is None else self.kept_mark(name, kept_in))

    def lost(self, names: Iterable[str], changes: Mapping[str, Change]) -> list[str]:
        """Where contents were kept that are not there any more."""
        refs = (self.ref(name, changes[name]) for name in names)
        keys = [object_of(ref) for ref in refs if ref is not None]
        found = zip(keys, at_once(self.dataset.log.store.stat, keys), strict=True)
        return [self.dataset.address / key for key, there in found if there is None]

    def before(self, name: str, change: Change) -> FileSource | None:
        """A file as it was before; None: there was none."""
        ref = self.ref(name, change)
        return None if ref is None else BucketSource(self.dataset.contents, name, ref)

    def ref(self, name: str, change: Change) -> Ref | None:
        """The content of a file as it was before; None: there was none."""
        return None if change.kept_in is None else self._before[change.kept_in].get(name)


def _as_placed(entry: Entry) -> CommitRecord:
    """The commit of an entry, without names of which that has no content."""
    commit: CommitRecord = entry.commit
    known = entry.placed.keys() | entry.before.keys()
    samples = tuple(with_names(sample, known.__contains__) for sample in commit.samples)
    shared = {name: mark for name, mark in commit.shared.items() if name in known}
    return replace(commit, samples=samples, shared=shared)


class _Remembering:
    """A check that is not asked again of what it was asked before, where others are faster.

    Args:
        check: The check.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._known: dict[Any, Sequence[str]] = {}

    def __call__(self, items: Items) -> Sequence[str]:
        """Says what is wrong with a sample, given its items."""
        files = ((key, file) for key, item in items.items() for file in item.file_sources)
        made_of = frozenset(
            (key, file.name, file.ref, file.etag)
            for key, file in files
            if isinstance(file, BucketSource)
        )
        if made_of not in self._known:
            self._known[made_of] = self._check(items)
        return self._known[made_of]


@dataclass(frozen=True, kw_only=True)
class _Undo(Restoring):
    """An undo that is to be made.

    Attributes:
        files: The dataset's files.
        runs: The runs that are taken back, or something of them.
        changes: What is taken back.
        plan: What is to be done for it.
    """

    files: BucketFiles
    runs: Sequence[Run]
    changes: Mapping[str, Change]
    plan: Plan

    def contents(self) -> dict[int, dict[str, Ref | None]]:
        """The content that each file gets, by sample and name; None: it is removed."""
        found = {idx: {n: self._ref(n) for n in names} for idx, names in self.plan.todo.items()}
        back = {(idx, key_of(n)) for idx, own in found.items() for n, ref in own.items() if ref}
        for idx, names in self.plan.changed.items():  # by force
            others = (n for n in names if n not in self.changes and (idx, key_of(n)) in back)
            found.setdefault(idx, {}).update(dict.fromkeys(others))
        return found

    def _ref(self, name: str) -> Ref | None:
        return self.files.ref(name, self.changes[name])


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
    next commit; if just some samples are taken back, it goes on. What others change while `check`
    is asked is looked at anew.

    Args, Returns, Raises: As for a folder; see `undo_run`.
    """
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    remembering = None if check is None else _Remembering(check)

    def begin(files: BucketFiles) -> _Undo:
        intent = intent_for(files.layout, keys, some)
        runs = intent.runs(files.layout)
        refuse_at_first(files.layout, intent, runs, force)
        taken, changes = to_take_back(files, intent, runs, force)
        plan = plan_held_to_rules(files, runs, changes, force, some, remembering)
        noted = {**(facts or {}), **facts_of(intent, runs, changes)}
        return _Undo(
            key=intent.undo_key,
            facts=noted,
            has_ended=True,
            retired=intent.retired if some is None else {},
            taken={} if some is None else taken or {},
            moves=any(run.is_compaction for run in runs),
            files=files,
            runs=runs,
            changes=changes,
            plan=plan,
        )

    undo, _ = _done(Bucket(os.fspath(folder), watch=True), begin)
    keys = [run.key for run in undo.runs]
    return report_of(keys, undo.key, undo.plan, some, tuple(undo.retired.values()))


@DatasetError.explaining_questions()
def plan_undo_in_bucket(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    check: Check | None = None,
) -> UndoPlan:
    """Says what `undo_run` would do now in a bucket, and writes nothing; see `plan_undo`."""
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    files = BucketFiles(Bucket(os.fspath(folder), watch=True))
    return planned(files, intent_for(files.layout, keys, some), force, check)


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
    key = key_of_undo(run_key)
    noted = dict(facts or {})
    if key.startswith(ROLLBACK_KEY):
        noted["rolls_back"] = run_key

    def begin(files: BucketFiles) -> _Undo:
        run = Run.of(files.layout, run_key)
        commits = [
            (run, commit)
            for run, commit in files.in_turn([run])
            if (commit_ids is None or commit.id in commit_ids) and tag in (None, commit.tag)
        ]
        changes = net_changes(commits)
        plan = plan_held_to_rules(files, [run], changes, force, None, None)
        return _Undo(
            key=key,
            facts=noted,
            drops=tuple(f"{run.name}/{commit.id}" for run, commit in commits),
            tag=tag or "main",
            by=by,
            files=files,
            runs=[run],
            changes=changes,
            plan=plan,
        )

    undo, commit_id = _done(Bucket(address, watch=True), begin)
    return report_of([run_key], key, undo.plan, commit_id=commit_id if undo.plan.todo else None)


@DatasetError.explaining_questions()
def undo_commit_in_bucket(
    folder: Folder,
    run_key: str,
    commit_id: str,
    *,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> UndoReport:
    """Takes one commit of a run back; see `undo_commit`."""
    address = os.fspath(folder)
    log = Bucket(address).log
    run_key = existing_run(log.ledgers(), run_key).key
    for key in (run_key, key_of_undo(run_key)):
        run = Run.of(log.ledgers(), key)
        commit = run.commit(commit_id)
        if commit is not None:
            refuse_whole(run)
            refuse_if_moved(run.layout, [run], [sample.written_at for sample in commit.samples])
            by = person_in(facts or {})
            return undo_commits_in_bucket(
                address, key, [commit_id], force=force, facts=facts, by=by
            )
    raise UndoRefusedError(
        f"{address}: run {run_key!r} has no commit {commit_id!r} that could be taken back. It was "
        "taken back before, or is one of another run."
    )


def _done(dataset: Bucket, begin: Callable[[BucketFiles], _Undo]) -> tuple[_Undo, str]:
    """Makes an undo, anew where others are faster; returns it, with the id of its entry."""
    commit_id = new_commit_id()
    made: list[_Undo] = []

    def make(state: State) -> Entry | None:
        undo = begin(BucketFiles(dataset))
        made.append(undo)
        if not (undo.plan.todo or undo.retired or undo.taken or undo.drops):
            return None
        return restoring_entry(dataset, state, undo, undo.contents(), commit_id)

    put_back(dataset, make, "the undo")
    return made[-1], commit_id
