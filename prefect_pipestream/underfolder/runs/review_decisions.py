"""What was decided of a review so far, by whom; kept beside it until it is applied as a whole.

::

    .pipestream/review/<id>/decided.json     how each sample was decided; comments; answers
    .pipestream/review/<id>/decided.lock     held by whoever decides, or applies
    .pipestream/review/<id>/question.json    which samples a flow run asks about just now

A decision is on the disk before it counts as made, whatever becomes of the process. Of two people
none takes a decision of the other back unseen.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetWriteError,
    ReviewNotFoundError,
)
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.lock import exclusive
from prefect_pipestream.storage.untrusted import read_regular, write_anew
from prefect_pipestream.underfolder.format.layout import Layout, folder_of
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.runs.staged_review import Review, review_folder

FORMAT = 1
_FILE, _LOCK, _QUESTION = "decided.json", "decided.lock", "question.json"
_T = TypeVar("_T")


class Decision(NamedTuple):
    """What a person decided about one sample.

    Attributes:
        is_approved: Whether its change is to be written.
        by: The person's name.
    """

    is_approved: bool
    by: str


@dataclass(frozen=True)
class Answer:
    """What a person answered to a question of a flow run.

    Attributes:
        number: The question's.
        decision: The decision in words, as the form has it.
        reviewer: The person's name.
        comment: Why.
    """

    number: int
    decision: str
    reviewer: str
    comment: str = ""


@dataclass(frozen=True)
class Decisions:
    """What was decided of a review so far.

    Attributes:
        by_sample: The decisions by the index of the sample.
        comments: What people said of the review, by their names.
        answers: The answers to questions of a flow run, in order.
    """

    by_sample: Mapping[int, Decision] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()

    @property
    def approved(self) -> set[int]:
        """The samples whose changes are to be written."""
        return {idx for idx, one in self.by_sample.items() if one.is_approved}

    def left(self, review: Review) -> list[int]:
        """The samples that nobody decided about, by index."""
        return [one.idx for one in review.changed if one.idx not in self.by_sample]

    def people(self) -> list[str]:
        """Who decided, by name."""
        named = {one.by for one in self.by_sample.values()}
        return sorted(named | {one.reviewer for one in self.answers})

    def said(self) -> list[str]:
        """What people said, each thing once."""
        said = [*self.comments.values(), *(one.comment for one in self.answers)]
        return [text for text in dict.fromkeys(map(str.strip, said)) if text]


@dataclass(frozen=True)
class Question:
    """What a flow run asks.

    Attributes:
        number: 1 for the first one.
        samples: The samples that a person sees.
        problem: Why the answer to the question before did not do; empty if it did.
    """

    number: int
    samples: tuple[int, ...]
    problem: str = ""


class Held:
    """A review that nobody else decides about just now; see `holding`.

    Attributes:
        review: The review.
        decisions: What is decided.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        self.decisions = decisions_of(review)

    def save(self, decisions: Decisions) -> None:
        """Puts decisions on the disk.

        Raises:
            DatasetWriteError: If they cannot be written; then those of before count.
        """
        saved = _Saved(
            FORMAT,
            _ranges(self.review, decisions.by_sample),
            dict(decisions.comments),
            decisions.answers,
        )
        _write(self.review, _FILE, _SAVED.dump_json(saved))
        self.decisions = decisions

    def ask(self, question: Question) -> None:
        """Notes what a flow run asks."""
        _write(self.review, _QUESTION, _ASKED.dump_json(question))


@contextmanager
def holding(review: Review) -> Iterator[Held]:
    """Keeps others from deciding about a review, and from applying it.

    Raises:
        ReviewNotFoundError: If it is not there any more.
        DatasetError: If what was decided cannot be read.
    """
    layout = Layout.of(review.folder)
    folder = review_folder(layout, review.id)
    lock = layout.at("review", folder_of(review.id), _LOCK)
    with ExitStack() as stack:
        with DatasetWriteError.explaining(f"{folder}: cannot be decided about"):
            try:
                stack.enter_context(exclusive(lock))
            except FileNotFoundError as error:
                raise gone(review.folder, review.id) from error
        with DatasetError.explaining_questions():
            # Whoever held it before may have applied and removed it.
            is_gone = not is_there(f"{folder}/review.json")
        if is_gone:
            raise gone(review.folder, review.id)
        yield Held(review)


def gone(folder: Path, review_id: str) -> ReviewNotFoundError:
    """The error for a review that is not there."""
    return ReviewNotFoundError(
        f"{folder}: no review {review_id!r} waits for a decision. It was decided meanwhile, or "
        "its time was over."
    )


def decide(
    review: Review, idx: int, is_approved: bool | None, by: str, *, seen: bool | None
) -> Decisions:
    """Decides about a sample of a review.

    Args:
        review: The review.
        idx: The sample.
        is_approved: Whether its change is to be written; None takes a decision back.
        by: The name of who decides.
        seen: How that person saw it decided; None: not at all.

    Returns:
        All that is decided now.

    Raises:
        IndexError: If the sample is not among the changes.
        ConflictError: If somebody else decided otherwise meanwhile; then that stands.
        ReviewNotFoundError: If the review is not there any more.
    """
    if all(idx != sample.idx for sample in review.changed):
        raise IndexError(f"Sample {idx} is not among the changes of review {review.id!r}.")
    with holding(review) as held:
        decided = dict(held.decisions.by_sample)
        before = decided.pop(idx, None)
        if before is None:
            is_news = seen is not None and seen != is_approved
        else:
            is_news = before.is_approved not in (seen, is_approved)
        if is_news:
            raise ConflictError(f"Sample {idx}: {_in_words(before)} meanwhile. Decide anew.", [idx])
        if is_approved is not None:
            is_same = before is not None and before.is_approved == is_approved
            decided[idx] = before if before and is_same else Decision(is_approved, by)
        held.save(replace(held.decisions, by_sample=decided))
        return held.decisions


def _in_words(decision: Decision | None) -> str:
    if decision is None:
        return "the decision was taken back"
    return f"{decision.by} {'approved' if decision.is_approved else 'rejected'} it"


def decide_rest(review: Review, is_approved: bool, by: str) -> Decisions:
    """Decides about all samples that nobody decided about; see `decide`."""
    with holding(review) as held:
        rest = {idx: Decision(is_approved, by) for idx in held.decisions.left(review)}
        held.save(replace(held.decisions, by_sample={**held.decisions.by_sample, **rest}))
        return held.decisions


def comment_on(review: Review, comment: str, by: str) -> Decisions:
    """Says something of a review, in place of what the same person said before; see `decide`."""
    with holding(review) as held:
        held.save(replace(held.decisions, comments={**held.decisions.comments, by: comment}))
        return held.decisions


# -- on disk -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Saved:
    """What ``decided.json`` says.

    Attributes:
        decided: The first and the last sample of each part that one person decided alike, which
            may have samples in it that do not change; whether approved; by whom. By index.
    """

    format: int
    decided: tuple[tuple[int, int, bool, str], ...]
    comments: dict[str, str]
    answers: tuple[Answer, ...]

    def check(self) -> None:
        """Raises `ValueError` if it is not what this version wrote."""
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, and {FORMAT} is known here")
        before = -1
        for first, last, _, _ in self.decided:
            if not before < first <= last < MAX_INDEX:
                raise ValueError(f"it decides about {first} to {last} after {before}")
            before = last


_SAVED, _ASKED = TypeAdapter(_Saved), TypeAdapter(Question)


def decisions_of(review: Review) -> Decisions:
    """What was decided of a review so far.

    Raises:
        DatasetError: If it cannot be read.
    """
    saved = _read(review, _FILE, _SAVED, _Saved.check)
    if saved is None:
        return Decisions()
    changed = sorted(sample.idx for sample in review.changed)
    decided = {
        idx: Decision(is_approved, by)
        for first, last, is_approved, by in saved.decided
        for idx in changed[bisect_left(changed, first) : bisect_right(changed, last)]
    }
    return Decisions(decided, saved.comments, saved.answers)


def question_of(review: Review) -> Question | None:
    """What a flow run asked last; None where it asked nothing.

    Raises:
        DatasetError: If it cannot be read.
    """
    return _read(review, _QUESTION, _ASKED, lambda question: None)


def _ranges(
    review: Review, decided: Mapping[int, Decision]
) -> tuple[tuple[int, int, bool, str], ...]:
    """Decisions as `_Saved` has them."""
    parts: list[tuple[int, int, bool, str]] = []
    last: Decision | None = None
    for idx in sorted(sample.idx for sample in review.changed):
        one = decided.get(idx)
        if one is not None and one == last:
            parts[-1] = (parts[-1][0], idx, *one)
        elif one is not None:
            parts.append((idx, idx, *one))
        last = one
    return tuple(parts)


@DatasetError.explaining_questions()
def _read(
    review: Review, name: str, adapter: TypeAdapter[_T], check: Callable[[_T], None]
) -> _T | None:
    layout = Layout.of(review.folder)
    path = layout.at("review", folder_of(review.id), name)
    if not is_there(path):
        return None
    try:
        saved = adapter.validate_json(read_regular(path), strict=True)
        check(saved)
    except ValueError as error:
        raise DatasetError(
            f"{path}: what was decided cannot be read ({error}). Remove the file and decide anew."
        ) from error
    return saved


def _write(review: Review, name: str, content: bytes) -> None:
    layout = Layout.of(review.folder)
    path = layout.at("review", folder_of(review.id), name)
    with DatasetWriteError.explaining(f"{path}: cannot be written", "Nothing is decided"):
        os.makedirs(layout.staged, exist_ok=True)
        write_anew(path, content, layout.staged)
