"""What was decided of a review so far, by whom; kept beside it until it is applied as a whole.

::

    .pipestream/review/<id>/decided.json     how each sample was decided; comments; answers
    .pipestream/review/<id>/decided.lock     held by whoever decides, or applies
    .pipestream/review/<id>/decided/<n>.json in place of both in a bucket: the last one counts
    .pipestream/review/<id>/question.json    which samples a flow run asks about just now

A decision is on the disk before it counts as made, whatever becomes of the process. Of two people
none takes a decision of the other back unseen. In a bucket, where nobody can hold a lock, the last
decision is how the review ends: none is made after it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar

from pydantic import TypeAdapter

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetWriteError,
    ReviewNotFoundError,
)
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.format.documents import Documents, documents_of
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.runs.kept_review import (
    Review,
    named,
    review_file,
    save_review,
)

FORMAT = 1
_DECIDED, _QUESTION = "decided.json", "question.json"
_T = TypeVar("_T")

End = Literal["applied", "discarded"]
"""How a review in a bucket ends."""


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
        end: How the review ends: then nothing is decided any more. None: it waits, or its end is
            not noted, as in a folder.
    """

    by_sample: Mapping[int, Decision] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    end: End | None = None

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


@contextmanager
def _alone(review: Review) -> Iterator[Documents]:
    """Keeps others from deciding about a review, and from applying it, where there are locks.

    Raises:
        ReviewNotFoundError: If it is not there any more.
    """
    documents = documents_of(review.folder)
    with ExitStack() as stack:
        with DatasetWriteError.explaining(
            f"{documents.at(*named(review.id))}: cannot be decided about"
        ):
            try:
                stack.enter_context(documents.alone(*named(review.id, _DECIDED)))
            except FileNotFoundError as error:
                raise gone(review.folder, review.id) from error
        # Whoever held it before may have applied and removed it.
        _refuse_gone(review, documents)
        yield documents


@DatasetError.explaining_questions()
def _refuse_gone(review: Review, documents: Documents) -> None:
    if not documents.is_there(*review_file(review.id)):
        raise gone(review.folder, review.id)


def change_decisions(review: Review, change: Callable[[Decisions], Decisions]) -> Decisions:
    """Changes what is decided of a review, whatever others decide at the same time.

    Args:
        review: The review.
        change: Gives what is to be decided, given what is; asked anew where others were faster.

    Returns:
        All that is decided now.

    Raises:
        ReviewNotFoundError: If the review is not there any more.
        DatasetError: If what was decided cannot be read.
        DatasetWriteError: If it cannot be written; then what was decided before counts.
    """
    return _changed(review, lambda decisions: change(_open(review, decisions)))


def _open(review: Review, decisions: Decisions) -> Decisions:
    if decisions.end is not None:
        raise gone(review.folder, review.id)
    return decisions


def _changed(review: Review, change: Callable[[Decisions], Decisions]) -> Decisions:
    made = Decisions()

    def changed(content: bytes | None) -> bytes:
        nonlocal made
        made = change(_decisions_in(review, content))
        return _SAVED.dump_json(_saved(review, made))

    with _alone(review) as documents:
        name = named(review.id, _DECIDED)
        what = f"{documents.at(*name)}: cannot be written"
        try:
            with DatasetWriteError.explaining(what, "Nothing is decided"):
                documents.change(changed, *name)
        finally:  # where there are no locks it may have been removed meanwhile
            _refuse_gone(review, documents)
    return made


@contextmanager
def settling(review: Review) -> Iterator[Decisions]:
    """Gives what was decided of a review, to be applied: others decide nothing about it any more.

    Raises:
        DatasetError: If a sample is left that nobody decided about; or what was decided cannot be
            read.
        ReviewNotFoundError: If the review is not there any more.
    """
    with _alone(review) as documents:
        decisions = decisions_of(review)
        if not documents.has_locks and decisions.end is None:
            decisions = _changed(review, lambda found: _ended(review, found))
        if decisions.end == "discarded":
            raise gone(review.folder, review.id)
        refuse_undecided(review, decisions)
        yield decisions


def _ended(review: Review, decisions: Decisions) -> Decisions:
    refuse_undecided(review, decisions)
    return replace(decisions, end=decisions.end or "applied")


def end_review(review: Review, end: End, approved: Collection[int] = ()) -> Decisions:
    """Ends a review in a bucket, unless it has ended: then all stays as it was decided.

    Args:
        review: The review.
        end: How it ends.
        approved: The samples that are approved, if it is to be applied.

    Returns:
        What is decided for good, and how it ends.
    """

    def ended(decisions: Decisions) -> Decisions:
        if decisions.end is not None:
            return decisions
        return replace(decisions, by_sample=_as_approved(review, decisions, approved), end=end)

    decisions = decisions_of(review)
    return decisions if decisions.end is not None else _changed(review, ended)


def _as_approved(
    review: Review, decisions: Decisions, approved: Collection[int]
) -> dict[int, Decision]:
    before = decisions.by_sample
    return {
        sample.idx: Decision(
            sample.idx in approved, before[sample.idx].by if sample.idx in before else ""
        )
        for sample in review.changed
    }


def refuse_undecided(review: Review, decisions: Decisions) -> None:
    """Checks that everything is decided.

    Raises:
        DatasetError: If a sample is left.
    """
    if left := decisions.left(review):
        raise DatasetError(
            f"{review.folder}: {len(left):,} samples of the review {review.id!r} are left to "
            f"decide about, the first is {left[0]}. Decide about them, or about the rest as a "
            "whole."
        )


def gone(folder: Place, review_id: str) -> ReviewNotFoundError:
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

    def with_it(decisions: Decisions) -> Decisions:
        decided = dict(decisions.by_sample)
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
        return replace(decisions, by_sample=decided)

    return change_decisions(review, with_it)


def _in_words(decision: Decision | None) -> str:
    if decision is None:
        return "the decision was taken back"
    return f"{decision.by} {'approved' if decision.is_approved else 'rejected'} it"


def decide_rest(review: Review, is_approved: bool, by: str) -> Decisions:
    """Decides about all samples that nobody decided about; see `decide`."""

    def with_rest(decisions: Decisions) -> Decisions:
        rest = {idx: Decision(is_approved, by) for idx in decisions.left(review)}
        return replace(decisions, by_sample={**decisions.by_sample, **rest})

    return change_decisions(review, with_rest)


def comment_on(review: Review, comment: str, by: str) -> Decisions:
    """Says something of a review, in place of what the same person said before; see `decide`."""

    return change_decisions(
        review, lambda found: replace(found, comments={**found.comments, by: comment})
    )


def ask(review: Review, question: Question, expires: float | None = None) -> None:
    """Notes what a flow run asks.

    Args:
        review: The review.
        question: What it asks.
        expires: Until when the review is to be kept then; None: as it is.

    Raises:
        ReviewNotFoundError: If the review is not there any more.
        DatasetWriteError: If it cannot be noted.
    """
    with _alone(review) as documents:
        _open(review, decisions_of(review))
        name = named(review.id, _QUESTION)
        with DatasetWriteError.explaining(f"{documents.at(*name)}: cannot be written"):
            documents.write(_ASKED.dump_json(question), *name)
        if expires is not None:
            save_review(replace(review, expires=expires))


# -- as it is kept -------------------------------------------------------------------------------


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
    end: End | None = None

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


def _saved(review: Review, decisions: Decisions) -> _Saved:
    decided = _ranges(review, decisions.by_sample)
    return _Saved(FORMAT, decided, dict(decisions.comments), decisions.answers, decisions.end)


@DatasetError.explaining_questions()
def decisions_of(review: Review) -> Decisions:
    """What was decided of a review so far.

    Raises:
        DatasetError: If it cannot be read.
    """
    name = named(review.id, _DECIDED)
    try:
        content = documents_of(review.folder).last(*name)
    except ValueError as error:
        raise _unreadable(review, _DECIDED, error) from error
    return _decisions_in(review, content)


def _decisions_in(review: Review, content: bytes | None) -> Decisions:
    if content is None:
        return Decisions()
    saved = _checked(review, _DECIDED, content, _SAVED)
    try:
        saved.check()
    except ValueError as error:
        raise _unreadable(review, _DECIDED, error) from error
    changed = sorted(sample.idx for sample in review.changed)
    decided = {
        idx: Decision(is_approved, by)
        for first, last, is_approved, by in saved.decided
        for idx in changed[bisect_left(changed, first) : bisect_right(changed, last)]
    }
    return Decisions(decided, saved.comments, saved.answers, saved.end)


@DatasetError.explaining_questions()
def question_of(review: Review) -> Question | None:
    """What a flow run asked last; None where it asked nothing.

    Raises:
        DatasetError: If it cannot be read.
    """
    try:
        content = documents_of(review.folder).read(*named(review.id, _QUESTION))
    except ValueError as error:
        raise _unreadable(review, _QUESTION, error) from error
    return None if content is None else _checked(review, _QUESTION, content, _ASKED)


def _checked(review: Review, name: str, content: bytes, adapter: TypeAdapter[_T]) -> _T:
    try:
        return adapter.validate_json(content, strict=True)
    except ValueError as error:
        raise _unreadable(review, name, error) from error


def _unreadable(review: Review, name: str, error: ValueError) -> DatasetError:
    path = documents_of(review.folder).at(*named(review.id, name))
    return DatasetError(
        f"{path}: what was decided cannot be read ({error}). Remove the file and decide anew."
    )


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
