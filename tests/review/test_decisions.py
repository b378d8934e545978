"""What is decided of a review before it is applied: kept, by everybody, whatever is killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefect_pipestream import ConflictError, DatasetError, ReviewNotFoundError
from prefect_pipestream.review import (
    Review,
    apply_decided,
    comment_on,
    compute_review,
    decide,
    decide_rest,
    decided_review,
    decisions_of,
    load_review,
    pending_reviews,
)
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import check
from prefect_pipestream.underfolder.opening import staged_source
from tests.dataset_files import made_at
from tests.prefect_layer.datasets import count_runs, make_dataset, runs_of


@pytest.fixture
def dataset(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, samples=12)


@pytest.fixture
def review(dataset: Place) -> Review:
    return compute_review(dataset, count_runs, "r1")


def test_decisions_are_read_again_by_another_process(dataset: Place, review: Review) -> None:
    decide(review, 1, True, "Ada", seen=None)
    decide(review, 3, False, "Bob", seen=None)
    comment_on(review, "The third is blurred.", "Bob")
    comment_on(review, "Not that I see.", "Ada")
    again = load_review(dataset, "r1")
    assert again is not None
    found = decisions_of(again)
    assert found.approved == {1}
    assert found.by_sample == {1: (True, "Ada"), 3: (False, "Bob")}
    assert found.said() == ["The third is blurred.", "Not that I see."]
    assert found.left(again) == [0, 2, *range(4, 12)]
    assert check(dataset).ok


def test_two_people_at_once_lose_no_decision(review: Review) -> None:
    with ThreadPoolExecutor(12) as people:
        list(
            people.map(
                lambda idx: decide(review, idx, idx % 3 > 0, f"p{idx}", seen=None), range(12)
            )
        )
    found = decisions_of(review).by_sample
    assert {idx: one.by for idx, one in found.items()} == {idx: f"p{idx}" for idx in range(12)}


def test_what_somebody_decided_meanwhile_is_not_decided_otherwise_unseen(review: Review) -> None:
    decide(review, 4, False, "Bob", seen=None)
    with pytest.raises(ConflictError, match="Bob rejected it meanwhile"):
        decide(review, 4, True, "Ada", seen=None)
    assert decide(review, 4, False, "Ada", seen=None).by_sample[4].by == "Bob"
    assert decide(review, 4, True, "Ada", seen=False).approved == {4}
    assert decide_rest(review, False, "Eve").approved == {4}
    assert decide(review, 4, None, "Ada", seen=True).left(review) == [4]
    with pytest.raises(IndexError, match="Sample 77 is not among the changes"):
        decide(review, 77, True, "Ada", seen=None)


def test_it_is_applied_once_all_is_decided_and_only_once(dataset: Place, review: Review) -> None:
    decide(review, 1, True, "Ada", seen=None)
    with pytest.raises(DatasetError, match="11 samples of the review 'r1' are left"):
        apply_decided(review, "as decided")
    assert runs_of(dataset, range(12)) == [0] * 12
    decide(review, 2, False, "Ada", seen=None)  # who is refused has ended nothing
    decide_rest(review, False, "Bob")
    assert apply_decided(review, "as decided").applied == (1,)
    assert runs_of(dataset, range(12)) == [0, 1] + [0] * 10
    assert pending_reviews(dataset) == ([], [])
    for late in (
        lambda: apply_decided(review, "as decided"),
        lambda: decide(review, 2, True, "Ada", seen=False),
        lambda: decide_rest(review, True, "Ada"),
    ):
        with pytest.raises(ReviewNotFoundError, match="It was decided meanwhile"):
            late()
    done = decided_review(dataset, "r1")
    assert done is not None
    assert (done.reviewed_by, done.decision) == ("Ada, Bob", "as decided")
    assert done.outcome.applied == (1,)
    assert len(done.outcome.discarded) == 11
    assert check(dataset).ok


_DECIDING = """
import sys
from prefect_pipestream.review import decide, load_review
review = load_review(sys.argv[1], "r1")
for idx in range(1, 12):
    decide(review, idx, True, "Ada", seen=None)
    print(idx, flush=True)
"""


@pytest.mark.about_files
def test_what_was_decided_outlives_a_kill(dataset: Path, review: Review) -> None:
    decide(review, 0, False, "Bob", seen=None)
    command = [sys.executable, "-c", _DECIDING, str(dataset)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(4)][-1]
        os.kill(process.pid, signal.SIGKILL)
    found = decisions_of(review)
    assert {0, *range(1, told + 1)} <= set(found.by_sample)
    decide_rest(review, True, "Eve")  # nobody holds it any more
    check(dataset, fix=True)  # a file that was half made is no harm, and removed
    assert check(dataset).ok


@pytest.mark.about_files
@pytest.mark.parametrize("name", ["decided.json", "question.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"format": 1, "decided": [[0, 999999999999999999, true, "x"]], "comments": {}, '
        b'"answers": []}',
        b'{"format": 1, "decided": [[3, 3, true, "x"], [2, 4, false, "y"]], "comments": {}, '
        b'"answers": []}',
        b'{"format": 9, "decided": [], "comments": {}, "answers": []}',
        b'{"number": "1", "samples": []}',
    ],
)
def test_forged_decisions_are_refused(
    name: str, content: bytes, dataset: Path, review: Review
) -> None:
    from prefect_pipestream.underfolder.runs.review_decisions import question_of

    (dataset / ".pipestream/review/r1" / name).write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read"):
        (decisions_of if name == "decided.json" else question_of)(review)


@pytest.mark.about_files
def test_a_damaged_review_hides_no_other(dataset: Path, review: Review) -> None:
    other = dataset / ".pipestream/review/other"
    other.mkdir()
    (other / "review.json").write_text('{"format": 3}')
    (dataset / ".pipestream/review/link").symlink_to(dataset)
    reviews, problems = pending_reviews(dataset)
    assert [one.id for one in reviews] == ["r1"]
    assert len(problems) == 2


@pytest.mark.about_files
def test_a_link_among_the_staged_files_is_not_followed(dataset: Path, review: Review) -> None:
    secret = dataset.parent / "secret.yaml"
    secret.write_text("a: 1")
    name = review.samples[0].files[0]
    staged = Path(staged_source(review, name).path)
    staged.unlink()
    staged.symlink_to(secret)
    with pytest.raises(DatasetError, match="symbolic link"):
        staged_source(review, name)


def test_of_two_who_apply_at_once_one_applies(dataset: Place, review: Review) -> None:
    decide_rest(review, True, "Ada")

    def apply() -> bool:
        try:
            apply_decided(review, "as decided")
        except ReviewNotFoundError:
            return False
        return True

    with ThreadPoolExecutor(4) as people:
        done = [people.submit(apply) for _ in range(4)]
    # Of a dataset in a bucket, who comes while it is applied is told what was done, too.
    told = sorted(one.result() for one in done)
    assert told[-1] if is_address(dataset) else told == [False, False, False, True]
    assert runs_of(dataset, range(12)) == [1] * 12
