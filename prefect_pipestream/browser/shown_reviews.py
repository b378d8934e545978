"""Reviews as a page shows them: how far each is, and its changes before and after."""

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.shown import Kind, is_too_large, kind_of
from prefect_pipestream.errors import DatasetError, ItemError
from prefect_pipestream.items import BinaryItem, Item
from prefect_pipestream.review import (
    Decisions,
    Review,
    ReviewedSample,
    changed_items,
    decided_review,
)
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.underfolder.runs.review_decisions import gone
from prefect_pipestream.views.differences import item_differences
from prefect_pipestream.views.item_thumbnails import shown_array

Both = dict[str, tuple[Item[Any] | None, Item[Any] | None]]
"""Items before and after, by key."""

_MOST_FAILURES = 50


class ReviewState(BaseModel):
    """How far a review is.

    Attributes:
        id: Its name.
        samples: How many samples would change.
        approved: How many of them are approved.
        rejected: How many are rejected.
        left: How many nobody decided about.
        first: The first sample that would change; None where none would.
        first_left: The first one that nobody decided about; None where there is none.
        people: Who decided so far.
        comments: What was said, by the names of who said it.
        expires: Until when it is kept.
        flow_run: The id of the flow run that waits for it, if one does.
        failed: The samples that could not be transformed: index and reason, the first ones.
        failures: How many these are.
        shared: The items that all samples share which come with it.
    """

    id: str
    samples: int
    approved: int
    rejected: int
    left: int
    first: int | None
    first_left: int | None
    people: list[str]
    comments: dict[str, str]
    expires: datetime
    flow_run: str | None
    failed: list[tuple[int, str]]
    failures: int
    shared: list[str]


class Reviews(BaseModel):
    """The reviews that wait for a decision, and what is wrong with others."""

    reviews: list[ReviewState]
    problems: list[str]


class DecidedState(BaseModel):
    """What became of a review.

    Attributes:
        run_key: The run that it is, to be seen and undone.
        reviewed_by: Who decided.
        decision: What, in words.
        comment: Why.
        applied: How many samples were written or removed.
        discarded: How many changes were discarded.
        conflicts: The samples that others had changed meanwhile, and that are as those left them.
    """

    run_key: str
    reviewed_by: str
    decision: str
    comment: str
    applied: int
    discarded: int
    conflicts: list[int]


class Looked(BaseModel):
    """A review: it waits for a decision, or it was decided."""

    waiting: ReviewState | None = None
    decided: DecidedState | None = None


class ChangedItem(BaseModel):
    """An item that would change.

    Attributes:
        key: Its key.
        kind: What it is.
        words: What would differ, a line each.
        has_picture: Whether there is anything to be seen of it.
        problem: Why it cannot be shown.
    """

    key: str
    kind: Kind
    words: list[str] = []
    has_picture: bool = False
    problem: str | None = None


class ChangedSample(BaseModel):
    """A sample of a review.

    Attributes:
        idx: Its index.
        is_removed: Whether it would be removed.
        position: Its place among the samples that would change, from 1.
        previous: The sample before it; None for the first one.
        next: The sample after it; None for the last one.
        next_left: The next one that nobody decided about, from the beginning if need be.
        approved: Whether it is approved; None where nobody decided.
        by: Who decided.
        changed_since: Its files that others changed since the change was computed.
        items: The items that would change; of a removed sample, all of its own.
        version: Another one if it is to be shown anew.
    """

    idx: int
    is_removed: bool
    position: int
    previous: int | None
    next: int | None
    next_left: int | None
    approved: bool | None
    by: str | None
    changed_since: list[str]
    items: list[ChangedItem]
    version: str


def state_of(review: Review, decisions: Decisions) -> ReviewState:
    """How far a review is."""
    left, approved = decisions.left(review), len(decisions.approved)
    failed = [(one.idx, one.failure) for one in review.samples if one.failure is not None]
    return ReviewState(
        id=review.id,
        samples=len(review.changed),
        approved=approved,
        rejected=len(decisions.by_sample) - approved,
        left=len(left),
        first=review.changed[0].idx if review.changed else None,
        first_left=left[0] if left else None,
        people=decisions.people(),
        comments=dict(decisions.comments),
        expires=datetime.fromtimestamp(review.expires, UTC),
        flow_run=review.flow_run,
        failed=[(idx, f"{why[0]}: {why[1]}") for idx, why in failed[:_MOST_FAILURES]],
        failures=len(failed),
        shared=[name.removeprefix("/") for name in review.shared],
    )


def decided_state(folder: Place, review_id: str) -> DecidedState:
    """What became of a review.

    Raises:
        ReviewNotFoundError: If nothing is known of it.
    """
    done = decided_review(folder, review_id)
    if done is None:
        raise gone(folder, review_id)
    return DecidedState(
        run_key=done.run_key,
        reviewed_by=done.reviewed_by,
        decision=done.decision,
        comment=done.comment,
        applied=len(done.outcome.applied),
        discarded=len(done.outcome.discarded),
        conflicts=list(done.outcome.conflicts),
    )


# -- one sample ----------------------------------------------------------------------------


def shown_change(
    dataset: ShownDataset, review: Review, decisions: Decisions, idx: int
) -> ChangedSample:
    """A sample of a review, as a page shows it.

    Raises:
        IndexError: If it is not among the changes.
        DatasetError: If its files cannot be asked for.
    """
    sample, changed = sample_of(review, idx), [one.idx for one in review.changed]
    at, left = bisect_left(changed, idx), decisions.left(review)
    others = [one for one in (*left[bisect_right(left, idx) :], *left) if one != idx]
    decision = decisions.by_sample.get(idx)
    return ChangedSample(
        idx=idx,
        is_removed=sample.outcome == "removed",
        position=at + 1,
        previous=changed[at - 1] if at else None,
        next=changed[at + 1] if at + 1 < len(changed) else None,
        next_left=others[0] if others else None,
        approved=None if decision is None else decision.is_approved,
        by=None if decision is None else decision.by,
        changed_since=_changed_since(review, sample),
        items=[_shown(key, *pair) for key, pair in both_of(dataset, review, sample).items()],
        version=version_of(dataset, review, idx),
    )


def sample_of(review: Review, idx: int) -> ReviewedSample:
    """A sample that would change.

    Raises:
        IndexError: If it is not among the changes.
    """
    for sample in review.changed:
        if sample.idx == idx:
            return sample
    raise IndexError(f"Sample {idx} is not among the changes of review {review.id!r}.")


def both_of(dataset: ShownDataset, review: Review, sample: ReviewedSample) -> Both:
    """The items that would change, before and after; of a removed sample, all of its own."""
    try:
        before = dict(dataset.sample(sample.idx).items())
    except IndexError:  # removed by somebody else
        before = {}
    if sample.outcome == "removed":
        return {key: (item, None) for key, item in before.items() if not item.is_shared}
    return {key: (before.get(key), item) for key, item in changed_items(review, sample).items()}


def version_of(dataset: ShownDataset, review: Review, idx: int) -> str:
    """What a sample and its change are like now."""
    return f"{dataset.versions([idx])[idx]}-{review.expires:.0f}"


@DatasetError.explaining_questions()
def _changed_since(review: Review, sample: ReviewedSample) -> list[str]:
    sources = sample.origin(open_dataset(review.folder)).sources
    return [name.removeprefix("/") for name, source in sources.items() if source.is_changed()]


def _shown(key: str, before: Item[Any] | None, after: Item[Any] | None) -> ChangedItem:
    items = [item for item in (before, after) if item is not None]
    shown = ChangedItem(key=key, kind=kind_of(items[-1]))
    try:
        if any(map(is_too_large, items)):
            return shown.model_copy(update={"words": ["it is too large to be compared in words"]})
        has_picture = shown.kind == "mesh" or any(shown_array(item()) is not None for item in items)
        words = _words(key, before, after)
    except (ItemError, OSError) as error:
        return shown.model_copy(update={"problem": str(error), "has_picture": True})
    return shown.model_copy(update={"words": words, "has_picture": has_picture})


def _words(key: str, before: Item[Any] | None, after: Item[Any] | None) -> list[str]:
    """What would differ; the items can be decoded."""
    if after is None:
        return ["it is removed"]
    if before is None:
        return ["it is new"]
    words = item_differences(key, before, after)
    old, new = _ending(before), _ending(after)
    if old != new:
        words.append(f"{key}: {old} → {new}")
    if isinstance(before, BinaryItem) and isinstance(after, BinaryItem):
        words.append(f"{key}: {len(before()):,} bytes → {len(after()):,} bytes")
    return words or ["it is written anew, with the same content as far as can be told"]


def _ending(item: Item[Any]) -> str:
    """How the name of its file ends."""
    name = item.file_sources[0].path.rpartition("/")[2] if item.file_sources else ""
    return name[name.find(".") :] if "." in name else "no ending"
