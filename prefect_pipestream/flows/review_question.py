"""The questions of a review's flow run: what is shown, how much is left, what an answer means."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from prefect_pipestream.reporting.artifacts import add_markdown, artifact_key
from prefect_pipestream.reporting.browser_links import review_link, sample_link
from prefect_pipestream.reporting.markdown import (
    Failure,
    failures_section,
    pictures_section,
    ranges,
    that_fit,
)
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.review import Decision as Decided
from prefect_pipestream.review import (
    Decisions,
    Review,
    changes_of_review,
    decisions_of,
    parse_indices,
)
from prefect_pipestream.underfolder.runs.review_decisions import (
    Answer,
    Question,
    ask,
    change_decisions,
    question_of,
)
from prefect_pipestream.views.differences import ShownChange

Decision = Literal[
    "approve all",
    "approve only these",
    "reject these",
    "reject all",
    "approve the rest",
    "reject the rest",
    "as decided in the browser",
]

KEEP_AFTER_S = 86_400.0
"""How long a review is kept after the time to wait for a decision is over, in seconds."""


class ReviewDecision(RunInput):
    """What a person decides about the changes that are shown, or about all that are left."""

    decision: Decision = Field(
        description="“All” and “these” are of the samples that are shown; “the rest” is all that "
        "are left, shown or not. “As decided in the browser” adds nothing to what was decided "
        "there."
    )
    samples: str = Field(
        default="",
        description="The indices that “these” means, such as `3, 7-9`; with “the rest”, those that "
        "are excepted.",
    )
    comment: str = Field(default="", description="Why. It is kept in the dataset's ledger.")
    reviewer: str = Field(
        min_length=1, description="Your name. It is kept in the dataset's ledger."
    )

    def about(self, shown: Collection[int], left: Collection[int]) -> dict[int, bool]:
        """Which samples it decides about, and whether they are approved.

        Args:
            shown: The samples that the person saw.
            left: All that nobody decided about by now.

        Raises:
            ValueError: If the decision does not say which.
        """
        if not self.reviewer.strip():
            raise ValueError("Your name is missing.")
        these, is_approved = parse_indices(self.samples), self.decision.startswith("approve")
        match self.decision:
            case "as decided in the browser":
                return {}
            case "approve all" | "reject all":
                return {idx: is_approved for idx in shown if idx in left}
            case "approve the rest" | "reject the rest":
                decided = {idx: is_approved != (idx in these) for idx in left}
            case _:
                if not these:
                    raise ValueError(
                        f"“{self.decision}” needs the indices of samples, such as `3, 7-9`."
                    )
                decided = {idx: is_approved == (idx in these) for idx in shown}
        if unknown := sorted(these - set(decided)):
            where = "left" if self.decision.endswith("rest") else "among the changes that are shown"
            raise ValueError(f"These are not {where}: {ranges(unknown)}.")
        return {idx: one for idx, one in decided.items() if idx in left}


# -- the question --------------------------------------------------------------------------


def is_asking(review: Review) -> bool:
    """Whether a question waits for an answer that was not noted yet."""
    question = question_of(review)
    return question is not None and question.number > _answered(review)


def _answered(review: Review) -> int:
    """The number of the question that was answered last; 0 for none."""
    return max((one.number for one in decisions_of(review).answers), default=0)


def decide_some(review: Review, left: list[int], most: int, wait_s: float, log: Log) -> None:
    """Shows some of the samples that are left, waits for a decision, and notes it."""
    question = question_of(review)
    last = _answered(review)
    if question is None or question.number <= last:
        shown, problem = _show(review, left, most, log)
        question = Question(last + 1, tuple(shown), problem)
        ask(review, question, expires=time.time() + wait_s + KEEP_AFTER_S)
    answer = _answer(review, question, len(left), wait_s)
    decided: dict[int, bool] = {}

    def with_answer(decisions: Decisions) -> Decisions:
        decided.clear()  # it may be asked for anew
        decided.update(answer.about(question.samples, set(decisions.left(review))))
        return _with_answer(decisions, question, answer, decided)

    try:
        decisions = change_decisions(review, with_answer)
    except ValueError as error:
        ask(review, Question(question.number + 1, question.samples, str(error)))
        return
    log.info(
        "%s decided “%s”: %d samples, %d are left.",
        answer.reviewer,
        answer.decision,
        len(decided),
        len(decisions.left(review)),
    )


def _with_answer(
    decisions: Decisions, question: Question, answer: ReviewDecision, decided: Mapping[int, bool]
) -> Decisions:
    new = {idx: Decided(is_approved, answer.reviewer) for idx, is_approved in decided.items()}
    said = Answer(question.number, answer.decision, answer.reviewer, answer.comment)
    return replace(
        decisions,
        by_sample={**decisions.by_sample, **new},
        answers=(*decisions.answers, said),
    )


def _answer(review: Review, question: Question, left: int, wait_s: float) -> ReviewDecision:
    """Waits for the answer to a question."""
    asked = ReviewDecision.with_initial_data(description=_in_words(review, question, left))
    options: dict[str, Any] = {
        "wait_for_input": asked,
        "timeout": round(wait_s),
        "key": f"decision-{question.number}",
    }
    # Only what a deployment started can be started again; a script waits.
    wait = suspend_flow_run if deployment.id else pause_flow_run
    return cast(ReviewDecision, wait(**options))


def _in_words(review: Review, question: Question, left: int) -> str:
    key = artifact_key("review", review.folder)
    again = f"**{question.problem}** Please decide again.\n\n" if question.problem else ""
    shown = len(question.samples)
    parts = [
        f"{again}**{len(review.changed):,}** sample{'s' if len(review.changed) > 1 else ''} of "
        f"`{review.folder}` would change. {_how_far(left, shown)}",
        f"The artifact `{key}` of this flow run shows {shown:,} of them before and after: "
        f"{ranges(question.samples)}. Nothing is written before all are decided.",
        review_link(review.id),
    ]
    return "\n\n".join(part for part in parts if part)


def _how_far(left: int, shown: int) -> str:
    """How many samples are left to decide about, with those that are shown."""
    if left <= shown:
        return f"**{left:,}** are left to decide about; all of them are shown."
    return (
        f"**{left:,}** are left to decide about: {shown:,} are shown, and **{left - shown:,}** "
        "more follow, unless the rest is approved or rejected as a whole."
    )


# -- what is shown -------------------------------------------------------------------------


def _show(review: Review, left: list[int], most: int, log: Log) -> tuple[list[int], str]:
    """Adds some of the samples that are left to the flow run's artifacts.

    Returns:
        The samples that a person can see there, and what went wrong.
    """
    some = left[:most]
    try:
        changes = that_fit(changes_of_review(review, some))
        shown = [change.idx for change in changes]
        text = review_markdown(review, changes, len(left))
        add_markdown(text, artifact_key("review", review.folder), "Changes to decide about")
    except Exception as error:  # noqa: BLE001 - such as a value that cannot be shown
        log.warning("The changes could not be shown: %r", error)
        return some, f"The changes could not be shown ({error!r:.300})."
    return shown, ""


def review_markdown(review: Review, changes: Sequence[ShownChange], left: int) -> str:
    """The changes to decide about as Markdown, of bounded size.

    Args:
        review: The review.
        changes: Those that are shown.
        left: How many samples nobody decided about, with these.
    """
    by_outcome: dict[str, list[int]] = {}
    for sample in review.samples:
        by_outcome.setdefault(sample.outcome, []).append(sample.idx)
    words = {"written": "would change", "unchanged": "stay as they are", "skipped": "are left out"}
    words["removed"] = "would be removed"
    lines = [
        f"- **{len(found):,}** {words.get(outcome, outcome)}: {ranges(found)}"
        for outcome, found in by_outcome.items()
    ]
    failed = [
        Failure(sample.idx, ": ".join(sample.failure[:2]), 1)
        for sample in review.samples
        if sample.failure is not None
    ]
    parts = [
        f"# Changes to {review.folder.name}",
        f"Dataset `{review.folder}`. Nothing is written yet: resume this flow run to decide.",
        review_link(review.id),
        "\n".join(lines),
        _how_far(left, len(changes)),
        pictures_section(changes, named=sample_link),
        failures_section(failed, len(failed), None, named=sample_link),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
