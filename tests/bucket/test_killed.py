"""A process that dies, or is held up, at any request: nothing is torn, lost or done twice."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import ConflictError
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.store import Store
from prefect_pipestream.underfolder import restore_sample, sample_history, undo_run
from tests.bucket.stores import ROOT, Dead, HostStore, KilledError, Meanwhile, md5, process

Work = Callable[[], None]


def put_around(objects: MemoryStore) -> None:
    """Three samples of two items, as another program puts them there, and one that we wrote."""
    with process(objects) as store:
        for idx in range(3):
            for key in ("left", "right"):
                Store.put(store, f"data/{idx}_{key}.json", b"0")
        add_one(3)


def values(stream: DataStream, idx: int) -> tuple[int, int]:
    sample = stream[idx]
    return sample["left"](), sample["right"]()


def both(sample: Sample, value: int) -> Sample:
    for key in ("left", "right"):
        sample = sample.set_value_as("left" if key not in sample else key, key, value)
    return sample


def add_one(idx: int, run_key: str | None = None) -> None:
    stream = DataStream.read_write_underfolder(ROOT, run_key=run_key)
    if idx >= len(stream):
        stream.set_output(idx, stream[0])
        return
    sample = stream[idx]
    for key in ("left", "right"):
        sample = sample.set_value(key, sample[key]() + 1)
    stream.set_output(idx, sample)


def add_one_to_all(run_key: str = "run") -> None:
    stream = DataStream.read_write_underfolder(ROOT, run_key=run_key)
    done = stream.run.done_indices()
    with stream.commit_group() as batch:
        for idx in range(4):
            if idx not in done:
                sample = stream[idx]
                for key in ("left", "right"):
                    sample = sample.set_value(key, sample[key]() + 1)
                batch.set_output(idx, sample)


def seen(store: HostStore) -> dict[str, bytes]:
    """What is in the files in their places."""
    return {stat.name: store.read(stat.key).data for stat in store.objects_in("data")}


def as_by_log(objects: MemoryStore, md5: bool) -> list[tuple[int, int]]:
    """The samples as a reader has them who opens the dataset now; none of them is torn."""
    with process(objects, md5=md5):
        stream = DataStream.read_write_underfolder(ROOT)
        found = [values(stream, idx) for idx in range(4)]
    assert all(left == right for left, right in found), f"torn: {found}"
    return found


def killed_at_each(work: Work, md5: bool, before: Work = lambda: None) -> Iterator[MemoryStore]:
    """The objects as a process leaves them that dies at its n-th request, for each n."""

    def each(after: bool) -> Iterator[MemoryStore]:
        for number in itertools.count(1):
            objects = MemoryStore()
            put_around(objects)
            with process(objects, md5=md5):
                before()
            with process(objects, md5=md5, at=number, happens=Dead(after=after)) as store:
                with suppress(KilledError):
                    work()
                if len(store.requests) < number:
                    return
            yield objects

    return itertools.chain(each(False), each(True))


@md5
def test_a_write_that_is_killed_at_any_request_is_whole_or_nothing(md5: bool) -> None:
    outcomes = set()
    for objects in killed_at_each(lambda: add_one(1), md5):
        found = as_by_log(objects, md5)
        assert found in ([(0, 0)] * 4, [(0, 0), (1, 1), (0, 0), (0, 0)])
        outcomes.add(found[1])
        with process(objects, md5=md5) as store:
            add_one(1)
            assert seen(store)["1_left.json"].strip() == str(found[1][0] + 1).encode()
            assert seen(store)["1_left.json"] == seen(store)["1_right.json"]
    assert outcomes == {(0, 0), (1, 1)}


@md5
def test_a_batch_that_is_killed_at_any_request_is_gone_on_with_exactly_once(md5: bool) -> None:
    for objects in killed_at_each(add_one_to_all, md5):
        found = as_by_log(objects, md5)
        assert found in ([(0, 0)] * 4, [(1, 1)] * 4)
        with process(objects, md5=md5) as store:
            add_one_to_all()
            assert {content.strip() for content in seen(store).values()} == {b"1"}
        assert as_by_log(objects, md5) == [(1, 1)] * 4


@pytest.mark.slow
@md5
def test_an_undo_that_is_killed_at_any_request_is_whole_or_nothing(md5: bool) -> None:
    def undo() -> None:
        undo_run(ROOT, "run")

    for objects in killed_at_each(undo, md5, before=add_one_to_all):
        found = as_by_log(objects, md5)
        assert found in ([(0, 0)] * 4, [(1, 1)] * 4)
        with process(objects, md5=md5) as store:
            if found == [(1, 1)] * 4:
                undo()
            else:
                DataStream.read_write_underfolder(ROOT)  # finishes what is left of it
            assert {content.strip() for content in seen(store).values()} == {b"0"}


@pytest.mark.slow
@md5
def test_a_restore_that_is_killed_at_any_request_is_whole_or_nothing(md5: bool) -> None:
    before, after = [(1, 1)] * 4, [(1, 1), (0, 0), (1, 1), (1, 1)]

    def restore() -> None:
        restore_sample(ROOT, 1, "run")

    for objects in killed_at_each(restore, md5, before=add_one_to_all):
        found = as_by_log(objects, md5)
        assert found in (before, after)
        with process(objects, md5=md5) as store:
            restore()
            DataStream.read_write_underfolder(ROOT)  # finishes what is left of it
            assert seen(store)["1_left.json"] == seen(store)["1_right.json"] == b"0"
            assert [one.restores for one in sample_history(ROOT, 1)] == [None, "run"]


@md5
def test_a_recovery_that_is_killed_at_any_request_is_done_by_the_next(md5: bool) -> None:
    def leave_unplaced() -> None:
        from prefect_pipestream.underfolder.bucket.placing import Placing

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Placing, "put", lambda *_: None)
            add_one(1)

    for objects in killed_at_each(
        lambda: DataStream.read_write_underfolder(ROOT).recover(), md5, leave_unplaced
    ):
        assert as_by_log(objects, md5) == [(0, 0), (1, 1), (0, 0), (0, 0)]
        with process(objects, md5=md5) as store:
            assert seen(store)["1_left.json"].strip() == seen(store)["1_right.json"].strip() == b"1"


@md5
def test_an_owner_that_is_held_up_at_any_request_loses_nothing_of_others(md5: bool) -> None:
    for number in itertools.count(1):
        objects = MemoryStore()
        put_around(objects)
        total = 1
        another = Meanwhile(objects, lambda: add_one(1), md5=md5)
        with process(objects, md5=md5, at=number, happens=another), suppress(ConflictError):
            add_one(1)
            total += 1
        if not another.did:
            break
        assert as_by_log(objects, md5)[1] == (total, total), f"held up at request {number}"
        with process(objects, md5=md5) as store:
            content = seen(store)
            assert content["1_left.json"].strip() == content["1_right.json"].strip()
            assert content["1_left.json"].strip() == str(total).encode(), f"at {number}"
    assert number > 5
