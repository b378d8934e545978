"""Review: changes that are computed and shown first, and applied once a person approved them."""

import re
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetWriteError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences import Sample, resolve_stage
from prefect_pipestream.sequences.stage import Removal, SampleStage
from prefect_pipestream.sequences.where import find
from prefect_pipestream.storage.address import Place, place_of
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.format.index import checked_indices
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.opening import (
    apply_review,
    discard_review,
    keep_review,
    ledgers_of,
    open_dataset,
    open_writer,
    staged_source,
    staging_of_review,
)
from prefect_pipestream.underfolder.runs.kept_review import (
    Review,
    ReviewedSample,
    load_review,
    review_ids,
)
from prefect_pipestream.underfolder.runs.review_decisions import (
    Decision,
    Decisions,
    comment_on,
    decide,
    decide_rest,
    decisions_of,
    refuse_undecided,
    settling,
)
from prefect_pipestream.underfolder.runs.staged_review import (
    ReviewOutcome,
    is_conflict,
    reviewed_samples,
)
from prefect_pipestream.views.differences import ShownChange, change_between, removal_of

__all__ = [
    "DecidedReview",
    "Decision",
    "Decisions",
    "Review",
    "ReviewOutcome",
    "ReviewedSample",
    "apply_decided",
    "apply_review",
    "changed_items",
    "changes_of_review",
    "comment_on",
    "compute_review",
    "decide",
    "decide_rest",
    "decided_review",
    "decisions_of",
    "discard_review",
    "facts_of",
    "load_review",
    "pending_reviews",
    "refuse_undecided",
    "parse_indices",
]

_MOST_IN_RANGE = 1_000_000


def compute_review(
    folder: str | Place,
    transform: Any,
    review_id: str,
    *,
    indices: Sequence[int] | None = None,
    most: int | None = None,
    keys: Collection[str] | None = None,
    zfill: int | None = None,
    keep_s: float = 14 * 86400,
    where: str | None = None,
    flow_run: str | None = None,
) -> Review:
    """Computes what a transform would write, and stages it; the dataset stays as it is.

    A review of this id that is there already is given back as it is.

    Args:
        folder: The dataset.
        transform: A stage, a list of operations, or a callable.
        review_id: The review's name, and the run key of what is applied of it.
        indices: The samples; None is all.
        most: After how many changes to stop; None is never.
        keys: The items to write; None is all.
        zfill: The digits to which the names written are padded; None keeps names.
        keep_s: After how many seconds it may be removed.
        where: A query that is to be true of the samples; None for none. See `Sample.match`.
        flow_run: The id of the Prefect flow run that waits for the decision and applies it; None
            where whoever decides does.

    Returns:
        The review.

    Raises:
        PipeBuildingError: If the transform is wrong.
        QueryError: If the query cannot be understood, or asks what cannot be answered.
        IndexError: If the dataset has no sample of one of the indices.
        DatasetWriteError: If the changes cannot be staged.
    """
    stage = resolve_stage(transform, allow_callable=True)
    known = load_review(folder, review_id)
    if known is not None:
        return known
    dataset = open_dataset(place_of(folder), watch=True)
    chosen = _chosen(dataset, indices, where)
    writer = open_writer(place_of(folder), exists_ok=True, zfill=zfill, dataset=dataset)
    writer.claim()
    with staging_of_review(dataset.folder, review_id, writer) as staged:
        changes = 0
        for idx in chosen:
            if changes == most:
                break
            changes += _stage_change(staged, dataset, stage, idx, keys)
        review = Review(
            id=review_id,
            folder=dataset.folder,
            samples=tuple(reviewed_samples(staged)),
            shared=tuple(staged.shared),
            expires=time.time() + keep_s,
            flow_run=flow_run,
        )
        return keep_review(review, staged)


def _chosen(dataset: Underfolder, indices: Sequence[int] | None, where: str | None) -> list[int]:
    chosen = dataset.indices() if indices is None else checked_indices(indices, len(dataset))
    if where is None:
        return [int(idx) for idx in chosen]
    found = find(dataset, where)
    if (warning := found.warning()) is not None:
        warnings.warn(warning, stacklevel=3)
    among = set(found.indices.tolist())
    return [int(idx) for idx in chosen if int(idx) in among]


def _stage_change(
    staged: Staging,
    dataset: Underfolder,
    stage: SampleStage,
    idx: int,
    keys: Collection[str] | None,
) -> bool:
    """Stages one sample's change; a bad sample is noted and does not stop the others.

    Returns:
        Whether there is a change.
    """
    origin = None
    try:
        items, origin = dataset.take(idx)
        result: Any = stage(Sample.of(items, origin))
        if result is None:
            staged.record(SampleRecord(idx, "skipped"), origin)
            return False
        if isinstance(result, Removal):
            staged.remove(idx, origin=origin)
            return True
        changed, target = result if isinstance(result, tuple) else (result, idx)
        if target != idx:
            raise ValueError(
                f"the transform gives the sample the index {target}; a review changes samples in "
                "place. Use a flow that builds a dataset."
            )
        return staged.add(idx, changed, keys=keys, origin=origin)
    except DatasetWriteError:
        raise
    except Exception as error:  # whatever a transform raises is this sample's failure
        if isinstance(error, DatasetError) and not isinstance(error, ConflictError):
            raise
        staged.record(SampleRecord(idx, "failed", failure=SampleFailure.of_error(error)), origin)
        return False


def changes_of_review(
    review: Review, indices: Collection[int] | None = None
) -> Iterator[ShownChange]:
    """Shows the changes to decide about, before and after.

    Args:
        review: The review.
        indices: The samples to show; None is all.
    """
    dataset = open_dataset(review.folder)
    wanted = None if indices is None else set(indices)
    for sample in review.changed:
        if wanted is not None and sample.idx not in wanted:
            continue
        before: dict[str, Item[Any]] = {}
        if sample.idx < len(dataset):
            before = dataset.read(sample.idx)
        if sample.outcome == "removed":
            yield removal_of(sample.idx, before)
            continue
        after = changed_items(review, sample)
        yield change_between(sample.idx, before, after, list(after), sample.idx)


def changed_items(review: Review, sample: ReviewedSample) -> dict[str, Item[Any]]:
    """The items that a sample would get, by key: those that change, as they are staged."""
    return {
        key_of(name): Item.from_source(staged_source(review, name), shared=False)
        for name in sample.files
    }


def pending_reviews(folder: str | Place) -> tuple[list[Review], list[str]]:
    """The reviews of a dataset that wait for a decision.

    Returns:
        The reviews, by the time of their end; and what is wrong with those that cannot be read.

    Raises:
        DatasetError: If the dataset cannot be asked for them.
    """
    reviews, problems = [], []
    for review_id in review_ids(folder):
        try:
            review = load_review(folder, review_id)
        except DatasetError as error:
            problems.append(str(error))
        else:
            if review is not None:  # applied just now
                reviews.append(review)
    return sorted(reviews, key=lambda review: review.expires), problems


# -- deciding ------------------------------------------------------------------------------


def apply_decided(review: Review, decision: str, decided_by: str = "") -> ReviewOutcome:
    """Applies a review of which everything is decided, once, and removes it.

    Args:
        review: The review.
        decision: What was decided, in words; it is kept in the ledger, with names and comments.
        decided_by: Who is to be named where nothing was to be decided.

    Raises:
        DatasetError: If a sample is left that nobody decided about; nothing is applied.
        ReviewNotFoundError: If the review is not there any more.
        DatasetWriteError: If the disk cannot take it; the dataset is as it was.
    """
    with settling(review) as decisions:
        facts = facts_of(decisions, decision, decided_by)
        outcome = apply_review(review, decisions.approved, facts)
        discard_review(review.folder, review.id)
    return outcome


def facts_of(decisions: Decisions, decision: str, decided_by: str = "") -> dict[str, Any]:
    """What the ledger says of who decided what."""
    return {
        "reviewed_by": ", ".join(decisions.people()) or decided_by,
        "decision": decision,
        "comment": "; ".join(decisions.said()),
    }


class DecidedReview(NamedTuple):
    """A review that was applied, as the ledger has it.

    Attributes:
        run_key: Its run, which has its name.
        reviewed_by: Who decided.
        decision: What, in words.
        comment: Why.
        outcome: What became of its samples.
    """

    run_key: str
    reviewed_by: str
    decision: str
    comment: str
    outcome: ReviewOutcome


def decided_review(folder: str | Place, review_id: str) -> DecidedReview | None:
    """What became of a review that is not there any more; None where no ledger knows it.

    Raises:
        DatasetError: If its ledger cannot be read.
    """
    run = Run.of(ledgers_of(folder), review_id)
    with DatasetError.explaining_questions():
        facts = run.facts() if run.exists() else {}
    if "reviewed_by" not in facts:
        return None
    by_outcome: dict[str, list[int]] = {}
    for idx, record in sorted(run.outcomes().items()):
        became = "conflict" if is_conflict(record) else record.outcome
        by_outcome.setdefault(became, []).append(idx)
    found = {outcome: tuple(indices) for outcome, indices in by_outcome.items()}
    applied = sorted([*found.get("written", ()), *found.get("removed", ())])
    outcome = ReviewOutcome(tuple(applied), found.get("skipped", ()), found.get("conflict", ()))
    said = {name: str(facts.get(name, "")) for name in ("reviewed_by", "decision", "comment")}
    return DecidedReview(review_id, **said, outcome=outcome)


def parse_indices(text: str) -> set[int]:
    """Reads indices such as ``3, 7-9``.

    Raises:
        ValueError: If it is something else.
    """
    found: set[int] = set()
    for part in re.sub(r"\s*-\s*", "-", text).replace(";", ",").replace(" ", ",").split(","):
        if not part:
            continue
        match = re.fullmatch(r"(\d{1,14})(?:-(\d{1,14}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not 0 <= last - first < _MOST_IN_RANGE:
            raise ValueError(f"{part!r} is no sample index. Write indices as `3, 7-9`.")
        found.update(range(first, last + 1))
    return found
