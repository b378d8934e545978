"""Puts kept contents back by one entry of the log, as an undo and the restoring of a sample do."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.sending import kept_aside
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.ledger.provenance import beginning
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.part_undo import Taken


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """A run that puts contents back, or a commit of it.

    Attributes:
        key: Its key.
        facts: What is noted of it, where it begins by this.
        has_ended: Whether it does nothing after this.
        retired: The names that the folders of runs get which it takes back whole.
        taken: The samples that it takes back of runs that stand.
        drops: The commits that it takes back of others.
        moves: Whether samples get back the indices that they had.
        tag: The part of the run that it is.
        by: Who does it, and on which host, where that is noted of the commit alone.
    """

    key: str
    facts: Mapping[str, Any]
    has_ended: bool = False
    retired: Mapping[str, str] = field(default_factory=dict)
    taken: Taken = field(default_factory=dict)
    drops: tuple[str, ...] = ()
    moves: bool = False
    tag: str = "main"
    by: tuple[str, str] | None = None


def restoring_entry(
    dataset: Bucket,
    state: State,
    run: Restoring,
    todo: Mapping[int, Mapping[str, Ref | None]],
    commit_id: str,
) -> Entry:
    """The entry that puts contents back, given what is so before it.

    Args:
        dataset: The dataset.
        state: What its log says.
        run: The run that it is.
        todo: The content that each file gets, by sample and name; None: it is removed.
        commit_id: The id of the entry.

    Raises:
        StoreError: If what is there now cannot be asked for, or kept.
    """
    contents = {name: ref for own in todo.values() for name, ref in own.items()}
    with dataset.contents.asked_at_once(contents):
        before = kept_aside(dataset, state, contents, commit_id)
    entry = Entry(
        commit_id,
        run.key,
        placed={name: ref for name, ref in contents.items() if ref is not None},
        before=before,
        undone=run.retired,
        taken_back=_noted(run.taken),
        moves=run.moves,
    )
    if not (contents or run.drops or run.taken):
        return entry  # then there is no run of it
    facts: dict[str, Any] = {}
    if "started" not in Run.of(dataset.log.ledgers(), run.key).facts():
        facts = {**beginning(), **run.facts}
    now = time.time()
    if run.has_ended:
        facts["finished"] = now
    if not (contents or run.drops):
        return replace(entry, facts=facts)
    record = CommitRecord(
        id=commit_id,
        run_key=run.key,
        tag=run.tag,
        staged=f"staged/bucket/{commit_id}",
        at=now,
        samples=tuple(_record(idx, todo[idx], entry) for idx in sorted(todo)),
        drops=run.drops,
        by=run.by,
    )
    return replace(entry, facts=facts, commit=record)


def _noted(taken: Taken) -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        run: {commit_id: tuple(indices) for commit_id, indices in commits.items()}
        for run, commits in taken.items()
    }


def _record(idx: int, names: Iterable[str], entry: Entry) -> SampleRecord:
    """The record of a sample that an entry restores, with the names of its files."""
    placed, before = entry.placed, entry.before
    return SampleRecord(
        idx,
        "written",
        writes={name: placed[name].version().mark for name in names if name in placed},
        replaces=tuple(name for name in names if name in placed and name in before),
        removes=tuple(name for name in names if name not in placed and name in before),
    )


def put_back(dataset: Bucket, make: Callable[[State], Entry | None], what: str) -> None:
    """Adds such an entry to the log, and puts its files in place.

    Args:
        dataset: The dataset.
        make: Makes the entry, anew where others are faster; None: nothing is to be done.
        what: What it is called in errors.

    Raises:
        DatasetWriteError: If it cannot be added, or some of its files not be put in place.
    """
    with StoreError.explaining_writes(f"{dataset.address}: {what} could not be written"):
        added = dataset.log.append(make)
    if added is not None:
        dataset.log.placing.put(*added, what)
