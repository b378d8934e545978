"""Changes that wait for a person's decision: staged where nobody looks, applied or discarded later.

Nothing of a dataset's samples changes before `apply_review`, which commits what was approved
by the usual protocol: atomically, noted in a run's ledger, and undoable. A review outlives the
process that made it (see `kept_review`). What is decided of it until then is kept beside it (see
`review_decisions`).

Some of this is done in another way in a bucket: take it from `opening`.
"""

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetNotFoundError
from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.format.layout import (
    Folder,
    Layout,
    staged_name,
)
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import (
    CHANGING,
    Outcome,
    SampleRecord,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.kept_review import (
    REVIEWS,
    Review,
    ReviewedSample,
    SavedSource,
    expired_reviews,
    named,
    save_review,
)
from prefect_pipestream.underfolder.runs.packing import end_run

TAG = "review"
"""The part of its run that a review is."""
_CONFLICT = ConflictError.__name__
_CHANGED = "another writer changed the sample after its change was computed. Review it anew."


@dataclass(frozen=True)
class ReviewOutcome:
    """What became of the samples of a review.

    Attributes:
        applied: The samples that were written or removed.
        discarded: Those that were not, as it was decided.
        conflicts: Those that were approved, and that another writer had changed meanwhile.
    """

    applied: tuple[int, ...]
    discarded: tuple[int, ...]
    conflicts: tuple[int, ...]


@DatasetError.explaining_questions()
def discard_review(folder: Folder, review_id: str) -> None:
    """Removes a review and its staged files, if there is one.

    Args:
        folder: The dataset.
        review_id: The review's name.

    Raises:
        DatasetError: If it stays.
    """
    layout = Layout.of(folder)
    _remove(layout, layout.at(*named(review_id)))


def _remove(layout: Layout, review: str) -> None:
    """Removes the folder of a review at once; what is left of it then is swept by a writer."""
    doomed = layout.at("staged", f"review-{secrets.token_hex(4)}")
    if is_there(review):
        os.rename(review, doomed)
        with suppress(OSError):
            remove(doomed)


def staged_source(review: Review, name: str) -> FileSource:
    """A staged file.

    Args:
        review: The review.
        name: The name that the file gets.

    Raises:
        DatasetError: If it is a symbolic link.
    """
    return FileSource(Layout.of(review.folder).at(*named(review.id, "staged", staged_name(name))))


# -- making one ----------------------------------------------------------------------------


@contextmanager
def staging_of_review(
    folder: Folder, review_id: str, writer: UnderfolderWriter
) -> Iterator[Staging]:
    """Gives an empty staging for a review, and removes reviews that expired.

    What a killed process left of a review of the same name is removed.

    Args:
        folder: The dataset.
        review_id: The review's name.
        writer: A writer of the dataset.
    """
    with DatasetError.explaining_questions():
        layout = Layout.of(folder)
        for name in expired_reviews(documents_of(folder)):
            _remove(layout, layout.at(REVIEWS, name))
        mine = layout.at(*named(review_id))
        _remove(layout, mine)
        staged = os.path.join(mine, "staged")
        os.makedirs(staged)
    yield writer.staging_in(staged)


def keep_review(review: Review, staging: Staging) -> Review:
    """Keeps a review with all that is staged: from here on it survives its process.

    Args:
        review: The review.
        staging: What is staged.

    Returns:
        The review as it is kept.
    """
    save_review(review)
    return review


def reviewed_samples(staging: Staging) -> list[ReviewedSample]:
    """What the staged samples would be written as, and what they were made from."""
    return [_reviewed(staged) for staged in staging.in_order()]


def _reviewed(staged: StagedSample) -> ReviewedSample:
    record, origin = staged.record, staged.origin
    why = record.failure
    if not staged.changes_files:
        failure = None if why is None else (why.error_type, why.message, why.traceback)
        return ReviewedSample(record.idx, record.outcome, failure=failure)
    sources = {} if origin is None else origin.sources
    return ReviewedSample(
        idx=record.idx,
        outcome="removed" if staged.is_removal else "written",
        files=tuple(file.name for file in staged.files),
        sources={name: SavedSource.saved(source) for name, source in sources.items()},
    )


# -- deciding ------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def apply_review(
    review: Review, approved: Collection[int], facts: Mapping[str, Any]
) -> ReviewOutcome:
    """Commits the approved samples, all together, and notes the others as skipped.

    A call that was interrupted is to be repeated: what is done is not done again, nor undone by
    another decision.

    Args:
        review: The review.
        approved: The indices of the samples to write, or to remove.
        facts: What the ledger is to say of the run: who decided what.

    Returns:
        What became of the samples.

    Raises:
        DatasetNotFoundError: If the dataset is not there any more. Where it was moved to, load the
            review again.
        DatasetWriteError: If the disk cannot take it; the dataset is as it was.
    """
    layout = Layout.of(review.folder)
    if not is_folder(layout.root):
        raise DatasetNotFoundError(
            f"Dataset {layout.root}: no such folder. If it was moved, load the review again, from "
            "where it is now."
        )
    run = Run.of(layout, review.id)
    run.note(facts)
    run.update(**facts)
    writer = UnderfolderWriter(review.folder, exists_ok=True, run_key=review.id)
    with writer.staging() as staging:
        stage_decided(review, approved, run.done_indices(), staging, staged_source)
        stale = _published(writer, staging)
    _record_conflicts(writer, stale)
    end_run(run)
    return outcome_of(review, run)


def stage_decided(
    review: Review,
    approved: Collection[int],
    done: Collection[int],
    staging: Staging,
    source_of: Callable[[Review, str], FileSource],
) -> None:
    """Stages what was approved of a review, and notes what was not.

    Args:
        review: The review.
        approved: The samples to write, or to remove.
        done: The samples that the run has done already.
        staging: Where that is staged.
        source_of: Gives a staged file of the review, by the name that it gets.
    """
    wanted = {sample.idx for sample in review.changed}.intersection(approved).difference(done)
    for sample in review.samples:
        if sample.idx not in wanted:
            if sample.idx not in done:
                staging.record(_record_of(sample))
            continue
        origin = sample.origin(staging.dataset)
        if sample.outcome == "removed":
            staging.remove(sample.idx, origin=origin)
        else:
            files = {name: source_of(review, name) for name in sample.files}
            staging.restore(sample.idx, files, origin=origin)
    if wanted:
        staging.restore_shared({name: source_of(review, name) for name in review.shared})


def outcome_of(review: Review, run: Run) -> ReviewOutcome:
    """What became of the samples of a review that was applied, by the ledger of its run."""
    records = run.outcomes()
    changed = {sample.idx for sample in review.changed}
    applied = {idx for idx in changed if idx in records and records[idx].outcome in CHANGING}
    conflicts = {idx for idx in changed if idx in records and is_conflict(records[idx])}
    return ReviewOutcome(
        applied=tuple(sorted(applied)),
        discarded=tuple(sorted(changed - applied - conflicts)),
        conflicts=tuple(sorted(conflicts)),
    )


def is_conflict(record: SampleRecord) -> bool:
    """Whether a sample was approved, and is as somebody else left it meanwhile."""
    return record.failure is not None and record.failure.error_type == _CONFLICT


def _published(writer: UnderfolderWriter, staging: Staging) -> set[int]:
    """Commits what is staged; gives the samples that others changed since they were read."""
    try:
        writer.publish(staging, TAG)
    except ConflictError as error:
        return set(error.indices)
    return set()


def _record_of(sample: ReviewedSample) -> SampleRecord:
    """What the ledger says of a sample that is not written."""
    outcome: Outcome = "skipped" if sample.outcome in CHANGING else sample.outcome
    failure = None if sample.failure is None else SampleFailure(*sample.failure)
    return SampleRecord(sample.idx, outcome, failure=failure)


def _record_conflicts(writer: UnderfolderWriter, indices: Iterable[int]) -> None:
    with writer.staging() as staging:
        for idx in sorted(indices):
            staging.record(conflict_record(idx))
        if len(staging):
            writer.publish(staging, TAG)


def conflict_record(idx: int) -> SampleRecord:
    """What the ledger says of an approved sample that others changed meanwhile."""
    return SampleRecord(idx, "failed", failure=SampleFailure(_CONFLICT, _CHANGED, ""))
