"""Reviews of a dataset in a folder or in a bucket: computed, decided about, and applied once."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream import list_runs, undo_run
from prefect_pipestream.errors import (
    DatasetError,
    DatasetWriteError,
    ReviewNotFoundError,
)
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.review import (
    Review,
    apply_decided,
    apply_review,
    compute_review,
    decide,
    decide_rest,
    decided_review,
    decisions_of,
    discard_review,
    load_review,
    pending_reviews,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import Run
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.opening import ledgers_of
from tests.bucket.stores import ROOT, Meanwhile, md5, process
from tests.bucket.test_killed import killed_at_each
from tests.dataset_files import new_address

SAMPLES = 6
ALL = range(SAMPLES)
FEW = 3


def make(place: Place, samples: int = SAMPLES) -> Place:
    stream = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with stream.commit_group() as batch:
        for idx in range(samples):
            image = PngImageItem(np.full((4, 5), idx, np.uint8))
            batch.set_output(
                idx, Sample({"image": image, "metadata": YamlMetadataItem({"runs": 0})})
            )
    return place


@pytest.fixture
def place(new_place: Place) -> Place:
    return make(new_place)


@pytest.fixture
def bucket() -> Address:
    address = new_address()
    make(address)
    return address


def counted(sample: Sample) -> Sample:
    runs = sample["metadata"]()["runs"] + 1
    image = 255 - sample["image"]()
    return sample.set_value("metadata", {"runs": runs}).set_value("image", image)


def runs_of(place: Place) -> list[int]:
    stream = DataStream.read_write_underfolder(place)
    return [stream[int(idx)]["metadata"]()["runs"] for idx in stream.indices()]


def ledger(place: Place, review_id: str = "r1") -> Run:
    return Run.of(ledgers_of(place), review_id)


def loaded(place: Place, review_id: str = "r1") -> Review:
    review = load_review(place, review_id)  # as another process would see it
    assert review is not None
    return review


def objects_of(address: Address, below: str = "") -> set[str]:
    return {stat.key for stat in open_store(address).objects_in(f".pipestream/{below}")}


# -- in both places ----------------------------------------------------------------------------


def test_a_review_of_which_all_is_in_conflict_is_noted(place: Place) -> None:
    compute_review(place, counted, "r1", indices=[2])
    other = DataStream.read_write_underfolder(place)
    other.set_output(2, other[2].set_value("metadata", {"runs": 40}))
    assert apply_review(loaded(place), [2], {}).conflicts == (2,)
    assert ledger(place).counts()["failed"] == 1
    assert runs_of(place)[2] == 40


def test_a_review_of_nothing_is_noted_too(place: Place) -> None:
    review = compute_review(place, counted, "r1", indices=[])
    outcome = apply_decided(review, "nothing", "nobody")
    done = decided_review(place, "r1")
    assert done is not None
    assert (done.decision, done.reviewed_by, done.outcome) == ("nothing", "nobody", outcome)


def test_old_reviews_are_removed_when_another_is_computed(place: Place) -> None:
    compute_review(place, counted, "old", keep_s=-1)
    compute_review(place, counted, "waits")
    compute_review(place, counted, "new")
    assert {review.id for review in pending_reviews(place)[0]} == {"waits", "new"}


def test_a_damaged_review_hides_no_other(place: Place) -> None:
    from prefect_pipestream.underfolder.format.documents import documents_of

    review = compute_review(place, counted, "r1")
    compute_review(place, counted, "other")
    documents_of(place).write(b'{"format": 3}', "review", "other", "review.json")
    reviews, problems = pending_reviews(place)
    assert [one.id for one in reviews] == [review.id]
    assert len(problems) == 1
    discard_review(place, "other")
    assert pending_reviews(place)[1] == []


# -- in a bucket -------------------------------------------------------------------------------


def test_applying_is_one_entry_and_sends_no_content_again(bucket: Address) -> None:
    review = compute_review(bucket, counted, "r1")
    decide_rest(review, True, "Ada")
    store = open_store(bucket)
    before = objects_of(bucket)
    sent = objects_of(bucket, "objects")
    entries = objects_of(bucket, "log")
    apply_decided(review, "as decided")
    assert len(objects_of(bucket, "log") - entries) == 1
    assert objects_of(bucket, "objects") == sent  # what was there before is known to the log
    assert objects_of(bucket) - before <= objects_of(bucket, "log")
    (number,) = objects_of(bucket, "log") - entries
    entry = Entry.from_bytes(store.read(number).data)
    assert {ref.object for ref in entry.placed.values()} == {
        ref.object for ref in review.contents.values()
    }


def test_a_discarded_review_leaves_no_object(bucket: Address) -> None:
    before = objects_of(bucket)
    review = compute_review(bucket, counted, "r1")
    decide(review, 1, True, "Ada", seen=None)
    discard_review(bucket, "r1")
    assert objects_of(bucket) == before
    assert load_review(bucket, "r1") is None
    with pytest.raises(ReviewNotFoundError):
        apply_review(review, ALL, {})
    assert objects_of(bucket) == before
    discard_review(bucket, "r1")


def test_what_is_rejected_is_removed_once_the_rest_is_applied(bucket: Address) -> None:
    sent = objects_of(bucket, "objects")
    review = compute_review(bucket, counted, "r1")
    decide(review, 1, True, "Ada", seen=None)
    decide_rest(review, False, "Ada")
    apply_decided(review, "as decided")
    assert len(objects_of(bucket, "objects") - sent) == 2
    assert not objects_of(bucket, "review")
    undo_run(bucket, "r1")
    assert runs_of(bucket) == [0] * SAMPLES


def test_a_review_whose_contents_are_gone_is_not_applied(bucket: Address) -> None:
    review = compute_review(bucket, counted, "r1")
    open_store(bucket).delete(f".pipestream/{review.contents['003_image.png'].object}")
    with pytest.raises(DatasetError, match=r"003_image.png is to hold is gone. Nothing was"):
        apply_review(review, ALL, {})
    assert runs_of(bucket) == [0] * SAMPLES
    with pytest.raises(DatasetError, match="is being applied, or that was interrupted"):
        discard_review(bucket, "r1")


FORGED: list[Callable[[dict[str, Any]], Any]] = [
    lambda saved: [],
    lambda saved: saved | {"format": 9},
    lambda saved: saved | {"contents": {}},
    lambda saved: saved | {"contents": dict.fromkeys(saved["contents"], "x")},
    lambda saved: (
        saved | {"contents": {n: c | {"object": "../data/x"} for n, c in saved["contents"].items()}}
    ),
    lambda saved: (
        saved
        | {"contents": {n: c | {"object": "log/1.json"} for n, c in saved["contents"].items()}}
    ),
    lambda saved: saved | {"samples": [saved["samples"][0] | {"files": ["../../x"]}]},
    lambda saved: saved | {"samples": [saved["samples"][0] | {"sources": {"a/b": {"size": 1}}}]},
]


@pytest.mark.parametrize("forge", FORGED)
def test_a_forged_review_is_refused(
    bucket: Address, forge: Callable[[dict[str, Any]], Any]
) -> None:
    compute_review(bucket, counted, "r1")
    store, key = open_store(bucket), ".pipestream/review/r1/review.json"
    store.put(key, json.dumps(forge(json.loads(store.read(key).data))).encode())
    with pytest.raises(DatasetError, match="this review cannot be read"):
        load_review(bucket, "r1")
    discard_review(bucket, "r1")
    assert not objects_of(bucket, "review")


def test_a_review_that_names_a_file_that_is_none_does_not_spoil_the_log(bucket: Address) -> None:
    review = compute_review(bucket, counted, "r1")
    (ref,) = itertools.islice(review.contents.values(), 1)
    bad = replace(review.samples[0], files=("no-item",))
    forged = replace(review, samples=(bad,), contents={"no-item": ref})
    with pytest.raises(DatasetError, match=r"no-item|damaged"):
        apply_review(forged, [0], {})
    assert runs_of(bucket) == [0] * SAMPLES


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"format": 1, "decided": [[3, 3, true, "x"], [2, 4, false, "y"]], "comments": {}, '
        b'"answers": []}',
        b'{"format": 1, "decided": [], "comments": {}, "answers": [], "end": "eaten"}',
        b'{"format": 9, "decided": [], "comments": {}, "answers": []}',
    ],
)
def test_forged_decisions_are_refused(bucket: Address, content: bytes) -> None:
    review = compute_review(bucket, counted, "r1")
    open_store(bucket).put(".pipestream/review/r1/decided/000000000007.json", content)
    open_store(bucket).put(".pipestream/review/r1/decided/notes.txt", b"what is this")
    for ask in (
        lambda: decisions_of(review),
        lambda: decide(review, 1, True, "Ada", seen=None),
        lambda: apply_decided(review, "as decided"),
    ):
        with pytest.raises(DatasetError, match="cannot be read"):
            ask()


# -- killed, and held up -----------------------------------------------------------------------


def computed() -> None:
    make(ROOT, FEW)
    compute()


def all_decided() -> None:
    computed()
    decide(loaded(ROOT), 1, False, "Ada", seen=None)
    decide_rest(loaded(ROOT), True, "Ada")


def applied() -> None:
    review = load_review(ROOT, "r1")
    if review is not None:
        apply_decided(review, "as decided")


AFTER = [1, 0, 1]


def kills(work: Callable[[], None], before: Callable[[], None], md5: bool = False) -> Any:
    """The objects as a process leaves them that dies at a request of some work, for each."""

    def made() -> None:
        store = open_store(ROOT)
        for stat in list(store.objects_in("")):
            store.delete(stat.key)
        before()

    return killed_at_each(work, md5, made)


@pytest.mark.slow
def test_computing_that_is_killed_at_any_request_is_repeated() -> None:
    for objects in kills(compute, lambda: make(ROOT, FEW) and None):
        with process(objects):
            assert runs_of(ROOT) == [0] * FEW
            review = compute_review(ROOT, counted, "r1")
            decide_rest(review, True, "Ada")
            assert apply_decided(review, "as decided").applied == (0, 1, 2)
            assert runs_of(ROOT) == [1] * FEW


def compute() -> None:
    compute_review(ROOT, counted, "r1")


def test_a_decision_that_is_killed_at_any_request_is_made_or_not() -> None:
    found = set()
    for objects in kills(lambda: decide_one(2), computed):
        with process(objects):
            review = loaded(ROOT)
            found.add(frozenset(decisions_of(review).approved))
            decide(review, 0, False, "Bob", seen=None)
            decide_one(2)
            assert set(decisions_of(review).by_sample) == {0, 2}
    assert found == {frozenset(), frozenset({2})}


def decide_one(idx: int) -> None:
    decide(loaded(ROOT), idx, True, "Ada", seen=None)


@pytest.mark.slow
@md5
def test_a_review_that_is_killed_at_any_request_is_applied_exactly_once(md5: bool) -> None:
    found = set()
    for objects in kills(applied, all_decided, md5):
        with process(objects, md5=md5) as store:
            seen = tuple(runs_of(ROOT))
            found.add(seen)
            assert seen in ((0,) * FEW, tuple(AFTER))
            applied()
            assert runs_of(ROOT) == AFTER
            done = decided_review(ROOT, "r1")
            assert done is not None
            assert (done.outcome.applied, done.outcome.discarded) == ((0, 2), (1,))
            assert [run.run_key for run in list_runs(ROOT)].count("r1") == 1
            assert b"runs: 1" in store.read("data/000_metadata.yaml").data
            undo_run(ROOT, "r1")
            assert runs_of(ROOT) == [0] * FEW
    assert found == {(0,) * FEW, tuple(AFTER)}


def test_a_discard_that_is_killed_at_any_request_is_finished_by_the_next() -> None:
    for objects in kills(lambda: discard_review(ROOT, "r1"), all_decided):
        with process(objects):
            discard_review(ROOT, "r1")
            assert not objects_of(ROOT, "review")
            assert not [key for key in objects_of(ROOT, "objects") if "/review." in key]
            assert runs_of(ROOT) == [0] * FEW


def held_up(work: Callable[[], None], other: Callable[[], None]) -> Any:
    """The outcome of some work, and of another's that is done at its n-th request, for each n."""
    for number in itertools.count(1):
        objects = MemoryStore()
        with process(objects):
            all_decided()
        another = Meanwhile(objects, lambda: outcome_of(other))
        with process(objects, at=number, happens=another):
            outcome = outcome_of(work)
        if not another.did:
            assert number > 5
            return
        with process(objects) as store:
            yield {"work": outcome, "other": another.did[0]}, store


def outcome_of(work: Callable[[], None]) -> str:
    try:
        work()
    except (DatasetError, DatasetWriteError) as error:
        return type(error).__name__
    return "done"


@pytest.mark.slow
def test_of_two_who_apply_at_once_both_have_it_applied_once() -> None:
    for did, _ in held_up(applied, applied):
        assert set(did.values()) <= {"done", "ReviewNotFoundError"}, did
        assert runs_of(ROOT) == AFTER
        assert [run.run_key for run in list_runs(ROOT)].count("r1") == 1
        assert load_review(ROOT, "r1") is None


def test_a_review_is_applied_or_discarded_and_never_half_of_both() -> None:
    found = set()
    for did, store in held_up(applied, lambda: discard_review(ROOT, "r1")):
        runs = runs_of(ROOT)
        found.add(tuple(runs))
        assert runs == (AFTER if did["work"] == "done" else [0] * FEW) or (
            did == {"work": "done", "other": "done"}
        ), did
        for stat in store.objects_in(".pipestream/log"):
            entry = Entry.from_bytes(store.read(stat.key).data)
            for ref in entry.placed.values():
                assert store.stat(f".pipestream/{ref.object}") is not None, did
    assert found == {tuple(AFTER), (0,) * FEW}


@pytest.mark.slow
def test_a_decision_that_was_made_while_it_was_applied_is_kept_or_refused() -> None:
    def take_back() -> None:
        if load_review(ROOT, "r1") is not None:
            decide(loaded(ROOT), 1, True, "Bob", seen=False)

    found = set()
    for did, _ in held_up(applied, take_back):
        assert did["work"] == "done"
        found.add(tuple(runs_of(ROOT)))
        if did["other"] != "done":
            assert runs_of(ROOT) == AFTER
    assert found == {tuple(AFTER), (1,) * FEW}
