"""Puts kept contents back by one entry of the log, as an undo and the restoring of a sample do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_pipestream.errors import DatasetWriteError
from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.bucket.commit import kept_aside
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER, index_in
from prefect_pipestream.underfolder.ledger.provenance import PROVENANCE, software, who
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """A run that puts contents back, or a commit of it.

    Attributes:
        key: Its key.
        facts: What is noted of it, where it begins by this.
        has_ended: Whether it does nothing after this.
        retired: The names that the folders of runs get which it takes back whole.
        drops: The commits that it takes back of others.
        tag: The part of the run that it is.
        by: Who does it, and on which host, where that is noted of the commit alone.
    """

    key: str
    facts: Mapping[str, Any]
    has_ended: bool = False
    retired: Mapping[str, str] = field(default_factory=dict)
    drops: tuple[str, ...] = ()
    tag: str = "main"
    by: tuple[str, str] | None = None


def restoring_entry(
    dataset: Bucket,
    state: State,
    run: Restoring,
    todo: Mapping[str, Ref | None],
    commit_id: str,
) -> Entry:
    """The entry that puts contents back, given what is so before it.

    Args:
        dataset: The dataset.
        state: What its log says.
        run: The run that it is.
        todo: The content of each file, by name; None: it is removed.
        commit_id: The id of the entry.

    Raises:
        StoreError: If what is there now cannot be asked for, or kept.
    """
    with dataset.contents.asked_at_once(todo):
        before = kept_aside(dataset, state, todo, commit_id)
    placed = {name: ref for name, ref in todo.items() if ref is not None}
    now = time.time()
    record = CommitRecord(
        id=commit_id,
        run_key=run.key,
        tag=run.tag,
        staged=f"staged/bucket/{commit_id}",
        at=now,
        samples=_samples(placed, before),
        drops=run.drops,
        by=run.by,
    )
    facts: dict[str, Any] = {}
    if "started" not in Run.of(dataset.log.ledgers(), run.key).facts():
        facts = {"started": now, **who(), PROVENANCE: software(), **run.facts}
    if run.has_ended:
        facts["finished"] = now
    return Entry(commit_id, run.key, placed, before, facts=facts, undone=run.retired, commit=record)


def _samples(placed: Mapping[str, Ref], before: Mapping[str, Ref]) -> tuple[SampleRecord, ...]:
    """The records of the samples that are restored; a shared item is noted with the first one."""
    names = dict.fromkeys([*placed, *before])
    first = min((idx for name in names if (idx := index_in(name)) is not None), default=0)
    by_sample: dict[int, list[str]] = {}
    for name in names:
        idx = index_in(name)
        by_sample.setdefault(first if idx is None else idx, []).append(name)
    return tuple(
        SampleRecord(
            idx,
            "written",
            writes={name: placed[name].version().mark for name in own if name in placed},
            replaces=tuple(name for name in own if name in placed and name in before),
            removes=tuple(name for name in own if name not in placed),
        )
        for idx, own in sorted(by_sample.items())
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
    try:
        dataset.log.store.require_create(PRIVATE_FOLDER)
        added = dataset.log.append(make)
    except StoreError as error:
        problem = f"{dataset.address}: {what} could not be written ({error})"
        raise DatasetWriteError(None, problem) from error
    try:
        if added is not None:
            dataset.log.place(added[1], added[0])
    except StoreError as error:
        problem = (
            f"{dataset.address}: {what} is made, and some of its files could not be put in place "
            f"({error}). The next writer does it"
        )
        raise DatasetWriteError(None, problem) from error
