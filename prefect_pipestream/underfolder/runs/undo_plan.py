"""What commits changed, all in all, and what it takes to put that back."""

import heapq
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.asking import is_there, names_in, status_of
from prefect_pipestream.storage.version import mark_at
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Layout, staged_name
from prefect_pipestream.underfolder.format.names import index_in, is_shared, key_of
from prefect_pipestream.underfolder.ledger.records import CommitRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.part_undo import only


class Change(NamedTuple):
    """What became of one file name, from before the first of some commits to after the last.

    Attributes:
        idx: The sample.
        kept_in: The folder in which the file was kept as it was before; None: there was none.
        mark: The mark of the file that is there after; None: there is none.
        is_whole: Whether all of the sample is put back: then no other file may be beside it.
        between: For each two consecutive commits that wrote the name: the mark that the first
            left, and the folder in which the second kept what it found (None: nothing). Where
            they differ, someone else's change lies between.
    """

    idx: int
    kept_in: str | None
    mark: str | None
    is_whole: bool = False
    between: tuple[tuple[str | None, str | None], ...] = ()


Commits = Iterable[tuple[Run, CommitRecord]]
"""Commits in the order of their making, each with its run."""


def net_changes(commits: Commits) -> dict[str, Change]:
    """What commits changed all in all, by file name."""
    changes: dict[str, Change] = {}

    def note(name: str, idx: int, kept_in: str | None, mark: str | None, is_whole: bool) -> None:
        earlier = changes.get(name)
        if earlier is None:
            changes[name] = Change(idx, kept_in, mark, is_whole)
        else:
            between = (*earlier.between, (earlier.mark, kept_in))
            changes[name] = Change(idx, earlier.kept_in, mark, is_whole, between)

    whole: dict[str, bool] = {}
    for run, commit in commits:
        undo = run.undo_of(commit.id)
        if run.name not in whole:
            facts = run.facts()
            whole[run.name] = bool(facts.get("compacts") or facts.get("whole"))
        is_of_whole = whole[run.name]
        for name, mark in commit.shared.items():
            idx = commit.samples[0].idx if commit.samples else 0
            changes.setdefault(name, Change(idx, None, mark))
        for sample in commit.samples:
            idx, is_whole = sample.written_at, is_of_whole or sample.outcome == "removed"
            for name, mark in (sample.writes or {}).items():
                note(name, idx, undo if name in sample.replaces else None, mark, is_whole)
            for name in sample.removes:  # one that was moved left them under its old index
                found = index_in(name)
                note(name, idx if found is None else found, undo, None, is_whole)
    return changes


def order_of(pair: tuple[Run, CommitRecord]) -> str:
    """What a commit of a run is sorted by among others, in the order of their making."""
    return pair[0].layout.order_of(pair[1].id)


@dataclass
class Plan:
    """What is to be done to take changes back.

    Attributes:
        todo: The names to restore, by sample.
        changed: Names of samples' files that are not as the commits left them, by sample.
        left: Names of shared items that are not as the commits left them, and stay so.
        lost: The paths of kept files that are not there any more.
    """

    todo: dict[int, list[str]] = field(default_factory=dict)
    changed: dict[int, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Files:
    """The files of a dataset in a folder: what they are like now, and as runs found and left them.

    Args:
        layout: The dataset's paths.
        dataset: The same, opened.
    """

    def __init__(self, layout: Layout, dataset: Underfolder) -> None:
        self.layout = layout
        self.dataset = dataset

    def commits(
        self, runs: Sequence[Run], force: bool, indices: Sequence[int] | None = None
    ) -> Commits:
        """The commits of runs in the order of their making, or what they did to some samples.

        Raises:
            DatasetError: If not all of them can be read; with `force`, those that are missing are
                left out.
        """
        try:
            yield from self.in_turn(runs, None if indices is None else frozenset(indices))
            known = {commit_id for run in runs for commit_id in run.commit_ids()}
        except FileNotFoundError as error:
            raise DatasetError(
                f"{error.filename}: this file of a ledger is missing. `pipestream check --fix` "
                "puts aside what is left of it."
            ) from error
        for run in runs:
            lost = [commit_id for commit_id in names_in(run.undo) if commit_id not in known]
            if lost and not force:
                raise DatasetError(
                    f"{run.layout.root}: run {run.key!r} cannot be undone: its ledger lacks "
                    f"{len(lost)} of its commits, as where a damaged part of it was put aside. "
                    f"What they replaced is kept in {run.undo}. To undo the others, use `force`."
                )

    def in_turn(self, runs: Iterable[Run], indices: Collection[int] | None = None) -> Commits:
        """The commits of several runs in the order of their making, each with its run.

        Args:
            runs: The runs.
            indices: What they did to these samples alone; None is all.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return heapq.merge(*(_commits(run, indices) for run in runs), key=order_of)

    def asked_at_once(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Lets what is asked inside of these files be of one moment, where each has its price."""
        return nullcontext()

    def mark(self, name: str) -> str | None:
        """The mark of a file as it is now; None where there is none."""
        return mark_at(self.layout.final(name))

    def kept_mark(self, name: str, kept_in: str) -> str | None:
        """The mark of a file that a commit kept; None where it is not there any more."""
        return mark_at(f"{kept_in}/{staged_name(name)}")

    def is_as_before(self, name: str, change: Change) -> bool:
        """Whether a file is the one that was kept (or, as then, none)."""
        return _is_as_before(self.layout.final(name), kept_path(name, change))

    def lost(self, names: Iterable[str], changes: Mapping[str, Change]) -> list[str]:
        """Where files were kept that are not there any more."""
        kept = (kept_path(name, changes[name]) for name in names)
        return [path for path in kept if path is not None and not is_there(path)]

    def before(self, name: str, change: Change) -> FileSource | None:
        """A file as it was before; None: there was none."""
        path = kept_path(name, change)
        return None if path is None else FileSource(path)


def _commits(
    run: Run, indices: Collection[int] | None = None
) -> Iterator[tuple[Run, CommitRecord]]:
    if indices is None:
        return ((run, commit) for commit in run.commits())
    return ((run, only(commit, indices)) for commit in run.commits(idx=indices))


def plan_of(files: Files, changes: Mapping[str, Change], *, force: bool) -> Plan:
    """Compares what commits left with what is there. Costs some `stat` calls a name.

    A file that is as it was before the commits needs nothing. One that is neither that nor as they
    left it was changed since. So was one that someone else changed between two of the commits: to
    restore what was there before would take that change back, too. `force` does it all the same.
    """
    plan = Plan()
    for name, change in changes.items():
        is_changed = files.mark(name) != change.mark
        if (is_changed or change.kept_in is None) and files.is_as_before(name, change):
            continue
        others = _others_of_key(files.dataset, name, change, changes)
        if is_shared(name) and (others or (is_changed and not force)):
            plan.left.append(name)
            continue
        changed = [name] * (is_changed or _is_changed_between(files, name, change)) + others
        if changed:
            plan.changed.setdefault(change.idx, []).extend(changed)
        plan.todo.setdefault(change.idx, []).append(name)
    plan.lost = files.lost((name for names in plan.todo.values() for name in names), changes)
    return plan


def _others_of_key(
    dataset: Underfolder, name: str, change: Change, changes: Mapping[str, Change]
) -> list[str]:
    """Files beside a restored one that someone must have written since: of its item, or sample."""
    if change.is_whole:
        names = [kind.name_of(change.idx) for kind in dataset.kinds_of(change.idx)]
        return [other for other in names if other not in changes]
    if change.kept_in is None:
        return []
    key = key_of(name)
    if is_shared(name):
        shared = dataset.shared_files().get(key)
        return ["/" + shared] if shared and "/" + shared not in changes else []
    kinds = dataset.kinds_of(change.idx)
    names = [kind.name_of(change.idx) for kind in kinds if kind.key == key]
    return [other for other in names if other not in changes]


def _is_changed_between(files: Files, name: str, change: Change) -> bool:
    """Whether someone else changed a name after the first of the commits and before the last."""
    for left, kept_in in change.between:
        found = None if kept_in is None else files.kept_mark(name, kept_in)
        if found != left and not (kept_in is not None and found is None):  # None: it is lost
            return True
    return False


def kept_path(name: str, change: Change) -> str | None:
    """The path of the file that was kept; None: there was none."""
    return None if change.kept_in is None else f"{change.kept_in}/{staged_name(name)}"


def _is_as_before(final: str, kept: str | None) -> bool:
    """Whether the file in place is the one that was kept (or, as then, none)."""
    now = status_of(final)
    if kept is None:
        return now is None
    before = status_of(kept)
    if now is None or before is None:
        return False
    if stat.S_ISLNK(now.st_mode) and stat.S_ISLNK(before.st_mode):
        return os.readlink(final) == os.readlink(kept)
    return os.path.samestat(now, before) or (
        now.st_mode == before.st_mode
        and (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    )
