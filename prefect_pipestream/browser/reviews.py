"""What pages ask of reviews: what waits for a decision, to decide sample by sample, to apply it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from prefect_pipestream.browser import flow_runs
from prefect_pipestream.browser.dataset import ShownDataset, name_of
from prefect_pipestream.browser.person import Person
from prefect_pipestream.browser.pictures import picture_answer
from prefect_pipestream.browser.shown_reviews import (
    ChangedSample,
    DecidedState,
    Looked,
    Reviews,
    ReviewState,
    both_of,
    decided_state,
    sample_of,
    shown_change,
    state_of,
    version_of,
)
from prefect_pipestream.errors import ConflictError, DatasetError
from prefect_pipestream.review import (
    Review,
    apply_decided,
    comment_on,
    decide,
    decide_rest,
    decisions_of,
    load_review,
    pending_reviews,
    refuse_undecided,
)
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.runs.kept_review import (
    review_file,
)
from prefect_pipestream.underfolder.runs.review_decisions import gone
from prefect_pipestream.views.compared import Which, compared_picture

ReviewId = Annotated[str, Query(min_length=1, max_length=1_000)]

_LONGEST_COMMENT = 10_000  # characters


class One(BaseModel):
    """A review that is meant."""

    id: str = Field(min_length=1, max_length=1_000)


class Said(One):
    """What is said of a review."""

    comment: str = Field(max_length=_LONGEST_COMMENT)


class DecidedSample(One):
    """A decision about a sample; None takes one back. `seen` is how it was shown."""

    idx: int
    is_approved: bool | None
    seen: bool | None


class DecidedRest(One):
    """A decision about all that nobody decided about."""

    is_approved: bool


class Applied(BaseModel):
    """What was done with a review that is decided.

    Attributes:
        how: Whether it was applied here, or its flow run resumed, which applies it.
        note: What else is to be known, in words.
        decided: What became of it, if it was applied.
        flow_run: The flow run that was resumed.
    """

    how: Literal["applied", "resumed"]
    note: str = ""
    decided: DecidedState | None = None
    flow_run: flow_runs.FlowRun | None = None


def review_routes(dataset: ShownDataset) -> APIRouter:
    """The routes for the reviews of a dataset."""
    routes, reviews = APIRouter(), _LoadedReviews(dataset)

    @routes.get("/api/reviews")
    def listed() -> Reviews:
        waiting, problems = pending_reviews(dataset.folder)
        found = []
        for review in waiting:
            try:
                found.append(state_of(review, decisions_of(review)))
            except DatasetError as error:
                problems.append(str(error))
        return Reviews(reviews=found, problems=problems)

    @routes.get("/api/review")
    def look(id: ReviewId) -> Looked:
        review = reviews.get(id)
        if review is not None:
            return Looked(waiting=state_of(review, decisions_of(review)))
        return Looked(decided=decided_state(dataset.folder, id))

    @routes.get("/api/review/flow-run")
    def flow_run(id: ReviewId) -> flow_runs.FlowRun | None:
        review = reviews.waiting(id)
        return None if review.flow_run is None else flow_runs.flow_run_of(review.flow_run)

    @routes.get("/api/review/sample")
    def sample(id: ReviewId, idx: int) -> ChangedSample:
        review = reviews.waiting(id)
        return shown_change(dataset, review, decisions_of(review), idx)

    @routes.get("/review-picture")
    def picture(id: ReviewId, idx: int, key: str, which: Which, version: str = "") -> Response:
        review = reviews.waiting(id)
        before, after = both_of(dataset, review, sample_of(review, idx)).get(key, (None, None))
        found = compared_picture(before, after, which)
        return picture_answer(found, is_lasting=version == version_of(dataset, review, idx))

    @routes.post("/api/review/decide")
    def decide_one(asked: DecidedSample, person: Person) -> ReviewState:
        review = reviews.waiting(asked.id)
        name = name_of(person)
        return state_of(review, decide(review, asked.idx, asked.is_approved, name, seen=asked.seen))

    @routes.post("/api/review/decide-rest")
    def decide_others(asked: DecidedRest, person: Person) -> ReviewState:
        review = reviews.waiting(asked.id)
        return state_of(review, decide_rest(review, asked.is_approved, name_of(person)))

    @routes.post("/api/review/comment")
    def say(asked: Said, person: Person) -> ReviewState:
        review = reviews.waiting(asked.id)
        return state_of(review, comment_on(review, asked.comment, name_of(person)))

    @routes.post("/api/review/apply")
    def apply(asked: One, person: Person) -> Applied:
        return _apply(dataset, reviews.waiting(asked.id), name_of(person))

    return routes


class _LoadedReviews:
    """The reviews of a dataset, the last of which is not read again as long as it is the same."""

    def __init__(self, dataset: ShownDataset) -> None:
        self._folder = dataset.folder
        self._last: tuple[object, Review] | None = None

    @DatasetError.explaining_questions()
    def get(self, review_id: str) -> Review | None:
        """A review; None where there is none."""
        mark = documents_of(self._folder).mark(*review_file(review_id))
        if mark is None:
            return None
        last = self._last
        if last is not None and last[1].id == review_id and last[0] == mark:
            return last[1]
        review = load_review(self._folder, review_id)
        if review is not None:
            self._last = (mark, review)
        return review

    def waiting(self, review_id: str) -> Review:
        """A review that waits for a decision.

        Raises:
            ReviewNotFoundError: If there is none.
        """
        review = self.get(review_id)
        if review is None:
            raise gone(self._folder, review_id)
        return review


def _apply(dataset: ShownDataset, review: Review, name: str) -> Applied:
    """Applies a review, or has its flow run do so, where one waits for it.

    Raises:
        ConflictError: If the flow run neither waits nor has ended.
        DatasetError: If a sample is left that nobody decided about.
        PrefectUnreachableError: If it is not known what the flow run does.
    """
    decisions, note = decisions_of(review), ""
    refuse_undecided(review, decisions)
    if review.flow_run is not None:
        found = flow_runs.flow_run_of(review.flow_run)
        if found is not None and found.is_waiting:
            flow_runs.resume(review.flow_run, name, decisions.comments.get(name, ""))
            return Applied(how="resumed", flow_run=found)
        if found is not None and not found.is_over:
            raise ConflictError(
                f"The flow run {found.name!r} of this review is {found.state}: it was decided in "
                "Prefect meanwhile, or is about to ask. This page shows what becomes of it."
            )
        note = (
            "Its flow run is not in Prefect any more: it was applied here."
            if found is None
            else f"Its flow run {found.name!r} ended as {found.state}: it was applied here."
        )
    apply_decided(review, flow_runs.ANSWER, name)
    return Applied(how="applied", note=note, decided=decided_state(dataset.folder, review.id))
