"""Runs of a bucket are pruned; contents stay there as long as they are needed."""

import itertools
from contextlib import suppress
from datetime import timedelta

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import RunNotFoundError, RunTakenOverError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.review import apply_review, compute_review, discard_review
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import Store, open_store
from prefect_pipestream.underfolder import (
    check,
    list_runs,
    prune_runs,
    undo_bytes,
    undo_run,
)
from prefect_pipestream.underfolder.bucket import checking_contents
from prefect_pipestream.underfolder.bucket.entry import Entry
from tests.bucket.stores import ROOT, Meanwhile, md5, process
from tests.bucket.test_killed import killed_at_each
from tests.dataset_files import new_address

SAMPLES = 3
AT_ONCE = timedelta(0)
DAY = 86_400.0
REVIEW = ".pipestream/review/looked-at"


def make(place: Place) -> None:
    made = DataStream.create_new_underfolder(place, run_key="make")
    with made.commit_group() as batch:
        for idx in range(SAMPLES):
            batch.set_output(idx, Sample({"value": JsonMetadataItem(f"made {idx}")}))
    made.end_run()
    change(place, "first", [0, 1])
    change(place, "second", [1, 2])


def change(place: Place, run_key: str, indices: list[int]) -> None:
    stream = DataStream.read_write_underfolder(place, run_key=run_key)
    with stream.commit_group() as batch:
        for idx in indices:
            batch.set_output(idx, stream[idx].set_value("value", f"{run_key} {idx}"))
    stream.end_run()


def values(place: Place) -> list[str]:
    stream = DataStream.read_write_underfolder(place)
    return [stream[idx]["value"]() for idx in range(SAMPLES)]


def keys(place: Place) -> list[str]:
    return [run.run_key for run in list_runs(place)]


def contents(store: Store) -> dict[str, int]:
    return {one.key: one.size for one in store.objects_in(".pipestream/objects")}


def needed(store: Store) -> set[str]:
    """The contents that are in their places, by the entries of the log."""
    refs: dict[str, str | None] = {}
    for one in store.objects_in(".pipestream/log"):
        entry = Entry.from_bytes(store.read(one.key).data)
        refs.update(dict.fromkeys(entry.before))
        refs.update({name: ref.object for name, ref in entry.placed.items()})
    return {f".pipestream/{one}" for one in refs.values() if one is not None}


@pytest.fixture
def place(new_place: Place) -> Place:
    """A dataset that the run `make` has made, and `first` and `second` have changed."""
    make(new_place)
    return new_place


def test_what_undo_holds_is_told(place: Place) -> None:
    held = undo_bytes(place)
    assert prune_runs(place, larger_than=held) == []
    pruned = [run.run_key for run in prune_runs(place, larger_than=0)]
    # A bucket keeps what a run wrote as long as the run, a folder what was replaced alone.
    assert pruned == (["make"] if is_address(place) else []) + ["first", "second"]
    assert undo_bytes(place) == 0
    assert prune_runs(place, larger_than=0) == []


# -- in a bucket alone -------------------------------------------------------------------------


@pytest.fixture
def address() -> Address:
    address = new_address()
    make(address)
    return address


def test_just_the_contents_stay_that_something_needs(address: Address) -> None:
    store = open_store(address)
    before = contents(store)
    prune_runs(address, AT_ONCE, keep_last=1)
    undo_run(address, "second")
    undo_run(address, "undo:second")
    assert values(address) == ["first 0", "second 1", "second 2"]
    freed = sum(run.undo_bytes for run in prune_runs(address, larger_than=0))
    assert set(contents(store)) == needed(store)
    assert 0 < freed <= sum(before.values()) - sum(contents(store).values())
    change(address, "later", [0, 1, 2])
    undo_run(address, "later")
    prune_runs(address, AT_ONCE)
    assert set(contents(store)) == needed(store)
    assert values(address) == ["first 0", "second 1", "second 2"]


def test_a_run_that_may_be_going_on_stays(address: Address) -> None:
    stream = DataStream.read_write_underfolder(address, run_key="on")
    attempt = stream.for_attempt()
    attempt.begin_run(fingerprint="f")
    attempt.set_output(0, attempt[0].set_value("value", "on"))
    assert [run.run_key for run in prune_runs(address, AT_ONCE)] == ["make", "first", "second"]
    attempt.set_output(1, attempt[1].set_value("value", "on"))
    attempt.end_run()
    assert [run.run_key for run in prune_runs(address, AT_ONCE)] == ["on"]
    with pytest.raises(RunTakenOverError):
        attempt.set_output(2, attempt[2].set_value("value", "on"))
    assert values(address) == ["on", "on", "second 2"]


def test_who_read_the_log_before_sees_what_was_pruned(address: Address) -> None:
    stream = DataStream.read_write_underfolder(address, run_key="second")
    assert stream.run.done_indices() == {1, 2}
    prune_runs(address, AT_ONCE)
    assert DataStream.read_write_underfolder(address, run_key="second").run.done_indices() == set()
    assert [stream[idx]["value"]() for idx in range(SAMPLES)] == values(address)


@pytest.mark.slow
@md5
def test_pruning_that_is_killed_at_any_request_loses_nothing_that_is_needed(md5: bool) -> None:
    def before() -> None:
        for key in ("first", "second", "third"):
            change_left(key)

    def prune() -> None:
        prune_runs(ROOT, AT_ONCE, keep_last=1)

    for objects in killed_at_each(prune, md5, before):
        with process(objects, md5=md5) as store:
            assert value_left() == "third"
            prune()
            assert {"first", "second"}.isdisjoint(keys(ROOT))
            undo_run(ROOT, "third")
            assert value_left() == "second"
            undo_run(ROOT, "undo:third")
            assert value_left() == "third"
            assert needed(store) <= set(contents(store))


@pytest.mark.slow
def test_contents_that_pruning_left_as_it_was_killed_are_removed_by_a_check_after_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def before() -> None:
        for key in ("first", "second"):
            change_left(key)

    def prune() -> None:
        prune_runs(ROOT, AT_ONCE)

    found = set()
    for objects in killed_at_each(prune, False, before):
        with process(objects) as store:
            is_pruned = not keys(ROOT)
            there = set(contents(store))
            assert check(ROOT, fix=True).problems == ()
            assert set(contents(store)) == there
            with monkeypatch.context() as patch:
                patch.setattr(checking_contents, "LEFT_AFTER_S", -DAY)
                problems = check(ROOT).problems
                assert check(ROOT, fix=True).ok
                assert check(ROOT).problems == ()
            assert {one.kind for one in problems} <= {"dead-staging"}
            assert set(contents(store)) == (needed(store) if is_pruned else there)
            assert value_left() == "second"
            found.add((is_pruned, any("their runs were pruned" in p.message for p in problems)))
    assert found == {(False, False), (True, False), (True, True)}


def change_left(value: str) -> None:
    stream = DataStream.read_write_underfolder(ROOT, run_key=value)
    stream.set_output(1, stream[1].set_value("left", value))
    stream.end_run()


def value_left() -> str:
    value: str = DataStream.read_write_underfolder(ROOT)[1]["left"]()
    return value


def test_two_who_prune_at_once_agree() -> None:
    objects = MemoryStore()
    with process(objects):
        make(ROOT)

    another = Meanwhile(objects, lambda: prune_runs(ROOT, AT_ONCE, keep_last=1))
    for number in itertools.count(1):
        with process(objects, at=number, happens=another) as store:
            prune_runs(ROOT, AT_ONCE)
            happened = len(store.requests) >= number
        with process(objects) as store:
            assert values(ROOT) == ["first 0", "second 1", "second 2"]
            assert needed(store) <= set(contents(store))
        if not happened:
            return


@pytest.mark.slow
def test_who_is_held_up_while_what_it_wrote_is_undone_and_pruned_is_told_nothing() -> None:
    def undo_and_prune() -> bool:
        with suppress(RunNotFoundError):
            undo_run(ROOT, "held up")
            prune_runs(ROOT, AT_ONCE)
            return True
        return False

    outcomes = set()
    for number in itertools.count(1):
        objects = MemoryStore()
        with process(objects):
            make(ROOT)
        another = Meanwhile(objects, undo_and_prune)
        with process(objects, at=number, happens=another) as store:
            change(ROOT, "held up", [0, 1])
            happened = len(store.requests) >= number
        with process(objects) as store:
            was = ["first 0", "second 1", "second 2"]
            now = ["held up 0", "held up 1", "second 2"]
            is_undone = another.did == [True]
            assert values(ROOT) == now or (is_undone and values(ROOT) == was), number
            outcomes.add((is_undone, values(ROOT) == now))
            assert needed(store) <= set(contents(store))
        if not happened:
            break
    assert {(False, True), (True, False)} <= outcomes


# -- reviews -----------------------------------------------------------------------------------


def test_the_run_of_a_review_stays_as_long_as_the_review(place: Place) -> None:
    review = compute_review(place, reviewed, "looked-at", indices=[0, 1])
    apply_review(review, {0}, {})
    undo_run(place, "looked-at")
    prune_runs(place, AT_ONCE)
    assert set(keys(place)) == {"looked-at"}
    discard_review(place, "looked-at")
    prune_runs(place, AT_ONCE)
    assert keys(place) == []


def reviewed(sample: Sample) -> Sample:
    return sample.set_value("value", "reviewed")


def test_a_review_whose_run_was_pruned_can_be_removed(address: Address) -> None:
    store = open_store(address)
    review = compute_review(address, reviewed, "looked-at", indices=[0, 1])
    saved = [(one.key, store.read(one.key).data) for one in store.objects_in(REVIEW)]
    apply_review(review, {0}, {})
    saved += [(one.key, store.read(one.key).data) for one in store.objects_in(f"{REVIEW}/decided")]
    discard_review(address, "looked-at")
    prune_runs(address, AT_ONCE)
    assert len(saved) == 2
    for key, content in saved:  # as if whoever removed it had been killed, or slow
        store.put(key, content)
    discard_review(address, "looked-at")
    assert list(store.objects_in(".pipestream/review")) == []
    assert values(address) == ["reviewed", "second 1", "second 2"]
    assert needed(store) <= set(contents(store))
