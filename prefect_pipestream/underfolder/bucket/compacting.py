"""Gaps closed in a bucket: entries of the log place contents that are there under new names."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prefect_pipestream.errors import ConflictError, DatasetError
from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.storage.version import Version, signature_of
from prefect_pipestream.underfolder.bucket.commit import taken_over
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref, fact_entry
from prefect_pipestream.underfolder.bucket.sending import forget_unused, kept_aside
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.attempts import new_attempt
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.run_key import new_run_key
from prefect_pipestream.underfolder.ledger.provenance import beginning
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    SampleRecord,
    new_commit_id,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs.compacting import (
    BATCH,
    CompactReport,
    Moves,
    Progress,
    move_all,
    moves_left,
    new_names,
    refuse_other_kind,
    widths_of,
)


@DatasetError.explaining_questions()
def compact_in_bucket(
    folder: Folder,
    run_key: str | None = None,
    *,
    durable: bool = False,
    on_progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> CompactReport:
    """Moves samples to lower indices, so that there are no gaps; see `compact`.

    No content is sent: the log places those that it has under new names. Of a file that it never
    changed a copy is made first. Attempts at other runs end with it, wherever they are.

    Args:
        folder: The dataset's address.
        run_key: A name for the run, or the key of one that was interrupted, to go on with it.
        durable: Whatever it says: what is in the log is on disk.
        on_progress: Called after each commit.
        facts: What the ledger is to say of the run, beside what it is.

    Raises:
        DatasetNotFoundError: If there is nothing at the address.
        DatasetError: If the run key is that of another kind of run.
        ConflictError: If other programs got in the way again and again.
        RunTakenOverError: If another attempt at the run began meanwhile.
        DatasetWriteError: If the dataset cannot be written; every sample is whole.
    """
    dataset = Bucket(os.fspath(folder), watch=True)
    layout = dataset.log.ledgers()
    key = new_run_key("compact") if run_key is None else key_meant(layout, run_key)
    run = Run.of(layout, key)
    refuse_other_kind(run)
    is_over = "finished" in run.facts()
    if not is_over and (run.exists() or len(moves_left(dataset.indices()))):
        compaction = _Compaction(dataset, key)
        with StoreError.explaining_writes(f"{dataset.address}: it could not be compacted"):
            compaction.begin(facts or {})
            move_all(dataset, compaction.move, on_progress)
            compaction.end()
    moved = len(Run.of(dataset.log.ledgers(), key).moves().at)
    return CompactReport(key, len(dataset.indices()), moved)


class _Compaction:
    """One attempt at a compaction.

    Args:
        dataset: The dataset.
        key: The key of the run that it is.
    """

    def __init__(self, dataset: Bucket, key: str) -> None:
        self._dataset = dataset
        self._log = dataset.log
        self._key = key
        self._attempt = new_attempt()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Notes the run, and that this attempt has it to itself."""

        def make(state: State) -> Entry:
            run = Run.of(self._log.ledgers(), self._key)
            refuse_other_kind(run)
            noted = {} if run.is_compaction else {**beginning(), "compacts": True, **facts}
            return fact_entry(self._key, noted, attempt=self._attempt)

        self._log.placing.recover()
        self._log.append(make)

    def end(self) -> None:
        """Notes that the run has ended."""

        def make(state: State) -> Entry:
            self._refuse_if_taken_over(state)
            return fact_entry(self._key, {"finished": time.time()})

        self._log.append(make)

    def move(self) -> Moves:
        """Moves the first samples that are to be, by one entry: all of them, or none."""
        commit_id = new_commit_id()
        kept: dict[tuple[str, str], Ref] = {}
        moves: Moves = np.empty((0, 2), dtype=np.int64)

        def make(state: State) -> Entry | None:
            nonlocal moves
            self._refuse_if_taken_over(state)
            index = self._index()
            moves = moves_left(index.indices())[:BATCH]
            return _entry(self._dataset, index, state, self._key, commit_id, moves, kept)

        try:
            added = self._log.append(make)
        except ConflictError:
            forget_unused(self._log, kept.values(), None)
            raise
        if added is not None:
            forget_unused(self._log, kept.values(), added[1])
            self._log.placing.put(*added)
        return moves

    def _index(self) -> UnderfolderIndex:
        """The index; that there is nothing to be moved is said of what is listed just now."""
        index = self._dataset.index()
        if len(moves_left(index.indices())):
            return index
        self._dataset.settle()
        return self._dataset.index()

    def _refuse_if_taken_over(self, state: State) -> None:
        if state.attempts.get(self._key) != self._attempt:
            raise taken_over(self._dataset.address, state, self._key)


def _entry(
    dataset: Bucket,
    index: UnderfolderIndex,
    state: State,
    key: str,
    commit_id: str,
    moves: Moves,
    kept: dict[tuple[str, str], Ref],
) -> Entry | None:
    """The entry that moves samples; None where there is none to be moved.

    Raises:
        ConflictError: If others removed a file since it was listed, or put one in the way.
    """
    if not len(moves):
        return None
    widths = widths_of(index.kinds())
    renamed = {
        (idx, target): new_names(index.kinds_of(idx), idx, target, widths)
        for idx, target in moves.tolist()
    }
    leaving = {old: new for names in renamed.values() for old, new in names.items()}
    shared = ["/" + name for name in dataset.shared_files().values()]
    touched = dict.fromkeys([*leaving, *leaving.values()])
    contents = dataset.contents
    with contents.asked_at_once([*touched, *shared]):
        before = kept_aside(dataset, state, touched, commit_id, kept)
        common = {name: version for name in shared if (version := contents.version_now(name))}
    _refuse_others(dataset, before, leaving)
    placed = {new: before[old] for old, new in leaving.items()}
    samples = tuple(
        _record(idx, target, names, before, placed, common)
        for (idx, target), names in renamed.items()
    )
    record = CommitRecord(
        id=commit_id,
        run_key=key,
        tag="main",
        staged=f"staged/bucket/{commit_id}",
        at=time.time(),
        samples=samples,
    )
    return Entry(commit_id, key, placed, before, commit=record, moves=True)


def _refuse_others(dataset: Bucket, there: Iterable[str], leaving: Mapping[str, str]) -> None:
    """Raises `ConflictError` if not all files that are to leave are there, or others, too."""
    wrong = leaving.keys() ^ set(there)
    if wrong:
        raise ConflictError(
            f"{dataset.address}: {min(wrong)} came or went by another program while samples were "
            "moved."
        )


def _record(
    idx: int,
    target: int,
    names: Mapping[str, str],
    before: Mapping[str, Ref],
    placed: Mapping[str, Ref],
    common: Mapping[str, Version],
) -> SampleRecord:
    was = {old: before[old].version() for old in names}
    now = {new: placed[new].version() for new in names.values()}
    return SampleRecord(
        idx,
        "written",
        signature=signature_of([*now.items(), *common.items()]),
        target=target,
        writes={new: version.mark for new, version in now.items()},
        replaces=tuple(new for new in now if new in before),
        removes=tuple(old for old in names if old not in placed),
        before=signature_of([*was.items(), *common.items()]),
    )
