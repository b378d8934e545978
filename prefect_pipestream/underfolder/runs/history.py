"""The history of a sample: which runs touched it, when, and its items before and after."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import check_index
from prefect_pipestream.underfolder.ledger.compactions import compactions
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    Outcome,
    SampleRecord,
    write_id_of,
)
from prefect_pipestream.underfolder.ledger.rows import Moves
from prefect_pipestream.underfolder.ledger.run import Run, reread_if_moved, runs_of
from prefect_pipestream.underfolder.runs.kept_files import ItemChange, Step, steps_of
from prefect_pipestream.underfolder.runs.listing import is_of_edits


@dataclass(frozen=True, slots=True)
class SampleEvent:
    """What one commit of a run did to a sample.

    Attributes:
        run_key: The run.
        folder: The name of its folder, which tells it from others of the same key.
        at: When.
        outcome: What became of the sample.
        idx: The index at which it was, or was written; later compactions may have moved it.
        moved_from: Its index before, where the run moved it and left its items as they were.
        counts: Whether it counts: not where the run, or the sample of it, was taken back since.
        items: What became of its own items, by key.
        commit_id: The commit.
        samples: How many samples the commit is of.
        is_edit: Whether the commit is a save of a person or a script, to be taken back by
            `undo_commit`; not a part of a run of a transform, an undo, a review and so on.
        attempts: How often it was tried.
        failure: Why it failed.
        fingerprint: The transform's of the run, if it is a run of one.
        undoes: The run that the run took back, for an undo.
        restores: The run before or after which the run put the sample back, for a restore.
        user: Who made the commit, or ran the run.
        host: Where.
    """

    run_key: str
    folder: str
    at: datetime
    outcome: Outcome
    idx: int
    moved_from: int | None
    counts: bool
    items: tuple[ItemChange, ...]
    commit_id: str
    samples: int
    is_edit: bool
    attempts: int
    failure: SampleFailure | None
    fingerprint: str | None
    undoes: str | None
    restores: str | None
    user: str | None
    host: str | None

    @property
    def write_id(self) -> str:
        """The id of the write, where who made it gave one; see `DataStream.set_output`."""
        return write_id_of(self.commit_id)


@dataclass(frozen=True, slots=True)
class _Found:
    run: Run
    commit: CommitRecord
    record: SampleRecord
    steps: tuple[Step, ...]
    counts: bool

    @property
    def is_move(self) -> bool:
        return self.record.before is not None or (
            self.record.target is not None and self.run.is_compaction
        )


@DatasetError.explaining_questions()
def sample_history(folder: Folder | Layout, idx: int) -> list[SampleEvent]:
    """What the runs of a dataset did to a sample, the first one first.

    All runs that are not pruned: those that stand, those that were undone, and their undos. Of a
    sample that compactions moved, its history at its earlier indices too; a compaction that was
    undone is not followed, so that what was done while it stood is found by the index of then.
    What people and scripts did to the files themselves is not known.

    Costs some tenths of a second for a run of 100,000 samples that has ended; of one that has
    not, all records are read.

    Args:
        folder: The dataset's root.
        idx: The sample's index now, or that of one that is not there any more.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ItemNameError: If that cannot be a sample's index.
        DatasetError: If a ledger cannot be read.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    stays = list(_stays(layout, check_index(idx)))
    found = [one for run in runs_of(layout) for one in reread_if_moved(partial(_of, run, stays))]
    found.sort(key=lambda one: layout.order_of(one.commit.id))
    layout.look_at(source for one in found for step in one.steps for source in step.sources)
    return [_event(one, found[number + 1 :]) for number, one in enumerate(found)]


_Stay = tuple[int, float, float]
"""An index, and since and until when the sample had it, in seconds."""


def _stays(layout: Layout, idx: int) -> Iterator[_Stay]:
    """The indices that a sample had, the last one first."""
    moves = Moves.joined(run.moves() for run in compactions(layout))
    until, before = np.inf, len(moves.at)
    while True:
        touched = np.flatnonzero((moves.new[:before] == idx) | (moves.old[:before] == idx))
        since = float(moves.at[touched[-1]]) if len(touched) else 0.0
        yield idx, since, until
        if not len(touched) or moves.new[touched[-1]] != idx:
            return  # nobody moved it here: it was new at this index, and free before
        before = int(touched[-1])
        idx, until = int(moves.old[before]), since


def _of(run: Run, stays: Sequence[_Stay]) -> list[_Found]:
    """What a run did to the sample that had these indices."""
    is_undone, gone = run.is_undone(), run.taken_back()
    found = []
    for commit in run.commits(idx=[idx for idx, _, _ in stays], with_taken_back=True):
        for record in commit.samples:
            idx = record.written_at
            if any(idx == i and since <= commit.at < until for i, since, until in stays):
                counts = not is_undone and idx not in gone.samples.get(commit.id, ())
                steps = tuple(steps_of(run, commit, record))
                found.append(_Found(run, commit, record, steps, counts))
    return found


def _event(found: _Found, later: Sequence[_Found]) -> SampleEvent:
    record, facts = found.record, found.run.facts()
    user, host = found.commit.by or (facts.get("user"), facts.get("host"))

    def where(step: Step) -> Iterator[FileSource]:
        names = [step.new] if step.new else []
        places = [step.placed]
        for other in later:
            same = [s for s in other.steps if s.key == step.key]
            yield from filter(None, (s.kept for s in same))
            if other.is_move:
                kept = (other.run.kept_source(other.commit.id, name) for name in names)
                yield from filter(None, kept)
            names += [s.new for s in same if s.new]
            places += [s.placed for s in same]
        yield from filter(None, reversed(places))

    items = (step.change(where) for step in found.steps)
    return SampleEvent(
        run_key=found.run.key,
        folder=found.run.name,
        at=datetime.fromtimestamp(found.commit.at, UTC),
        outcome=record.outcome,
        idx=record.written_at,
        moved_from=record.idx if found.is_move else None,
        counts=found.counts,
        items=() if found.is_move else tuple(items),
        commit_id=found.commit.id,
        samples=len(found.commit.samples),
        is_edit=is_of_edits(facts),
        attempts=record.attempts,
        failure=record.failure,
        fingerprint=facts.get("fingerprint"),
        undoes=facts.get("undoes") or facts.get("rolls_back"),
        restores=facts.get("restores"),
        user=user,
        host=host,
    )
