"""Gaps are closed in a bucket as in a folder: order, bytes, and what runs noted go with samples."""

import itertools
from contextlib import suppress

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import (
    DatasetError,
    RunTakenOverError,
    UndoRefusedError,
)
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.store import Store, open_store
from prefect_pipestream.underfolder import (
    Run,
    compact,
    undo_run,
)
from prefect_pipestream.underfolder.ledger.compactions import refuse_if_compacted_since
from prefect_pipestream.underfolder.opening import ledgers_of
from tests.bucket.stores import ROOT, Dead, KilledError, Meanwhile, md5, process
from tests.dataset_files import Files

SAMPLES = 6
KEYS = ("left", "right")


@pytest.fixture
def place(new_place: Place) -> Place:
    """Six samples of an image, and of metadata that others put there; and a shared item."""
    place = new_place
    made = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with made.commit_group() as batch:
        for number in range(SAMPLES):
            items = {
                "image": PngImageItem(np.full((4, 5), number, np.uint8)),
                "factor": JsonMetadataItem(2, shared=True),
            }
            batch.set_output(number, Sample(items))
    for number in range(SAMPLES):
        Files(place)[f"data/{number:03d}_metadata.yaml"] = b"number: %d\n" % number
    return place


def opened(place: Place, run_key: str | None = None) -> DataStream:
    return DataStream.read_write_underfolder(place, run_key=run_key)


def remove(place: Place, *indices: int, run_key: str = "removal") -> None:
    stream = opened(place, run_key)
    with stream.commit_group() as batch:
        for idx in indices:
            batch.remove(idx)


def numbers(place: Place) -> list[tuple[int, int]]:
    """The index and the number of each sample; image and metadata agree."""
    stream = opened(place)
    found = [(idx, stream[idx]) for idx in stream.indices().tolist()]
    both = [
        (i, s["metadata"]()["number"], int(s["image"]()[0, 0]), s["factor"]()) for i, s in found
    ]
    assert all(number == pixel and factor == 2 for _, number, pixel, factor in both)
    return [(idx, number) for idx, number, _, _ in both]


def test_who_put_a_sample_where_one_was_is_in_the_way_of_an_undo(place: Place) -> None:
    remove(place, 0)
    compact(place, "c")
    Files(place)["data/005_other.yaml"] = b"1\n"
    with pytest.raises(UndoRefusedError):
        undo_run(place, "c")


def test_attempts_at_other_runs_end_with_it(place: Place) -> None:
    remove(place, 0)
    begun, before = opened(place, "begun").for_attempt(), opened(place, "before").for_attempt()
    begun.begin_run(fingerprint="f")
    taken = begun[3]
    worker = begun.part([2, 3])
    compact(place, "c")
    for stream in (begun, worker):
        with pytest.raises(RunTakenOverError, match="run 'c' moved samples"):
            stream.set_output(3, taken.set_value("metadata", {"number": 9}))
    with pytest.raises(RunTakenOverError, match="run 'c' moved samples"):
        before.begin_run(fingerprint="f")
    after = opened(place, "after").for_attempt()
    after.begin_run(fingerprint="f")
    after.set_output(0, after[0].set_value("metadata", {"number": 1, "seen": True}))


def test_a_run_of_before_is_not_gone_on_with(place: Place) -> None:
    stream = opened(place, "run")
    stream.set_output(4, stream[4].set_value("metadata", {"number": 4, "seen": True}))
    remove(place, 0)
    refuse_if_compacted_since(Run.of(ledgers_of(place), "run"), ledgers_of(place))
    compact(place, "c")
    layout = ledgers_of(place)
    with pytest.raises(DatasetError, match="began before run 'c' moved samples"):
        refuse_if_compacted_since(Run.of(layout, "run"), layout)
    refuse_if_compacted_since(Run.of(layout, "c"), layout)


def test_many_samples_move_by_several_commits(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_pipestream.underfolder.bucket import compacting as in_bucket
    from prefect_pipestream.underfolder.runs import compacting as in_folder

    monkeypatch.setattr(in_bucket, "BATCH", 2)
    monkeypatch.setattr(in_folder, "BATCH", 2)
    remove(place, 0)
    before = dict(Files(place))
    seen: list[tuple[int, int]] = []
    compact(place, "c", on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert numbers(place) == [(idx, idx + 1) for idx in range(5)]
    undo_run(place, "c")
    assert dict(Files(place)) == before


# -- of a bucket alone -----------------------------------------------------------------------


def moving(objects: MemoryStore, md5: bool) -> None:
    """A dataset with two gaps, of files that others put there and that we wrote."""
    with process(objects, md5=md5) as store:
        for idx in range(4):
            for key in KEYS:
                Store.put(store, f"data/{idx}_{key}.json", b"%d" % idx)
        stream = opened(ROOT, "make")
        stream.set_output(4, stream[3].set_value("left", 4).set_value("right", 4))
        remove(ROOT, 0, 2)


def values(objects: MemoryStore, md5: bool) -> dict[int, int]:
    """The samples by index as a reader has them who opens the dataset now; none is torn."""
    with process(objects, md5=md5):
        stream = opened(ROOT)
        found = {i: {stream[i][k]() for k in KEYS} for i in stream.indices().tolist()}
    assert all(len(both) == 1 for both in found.values()), f"torn: {found}"
    return {idx: both.pop() for idx, both in found.items()}


GAPS, CLOSED = {1: 1, 3: 3, 4: 4}, {0: 1, 1: 3, 2: 4}


@pytest.mark.slow
@md5
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_it_is_killed_at_any_request_and_gone_on_with(md5: bool, after: bool) -> None:
    outcomes = set()
    for number in itertools.count(1 + md5, 2):
        objects = MemoryStore()
        moving(objects, md5)
        with process(objects, md5=md5, at=number, happens=Dead(after=after)) as store:
            with suppress(KilledError):
                compact(ROOT, "c")
            if len(store.requests) < number:
                break
        found = values(objects, md5)
        assert found in (GAPS, CLOSED), f"at request {number}"
        outcomes.add(tuple(found))
        with process(objects, md5=md5) as store:
            report = compact(ROOT, "c")
            assert (report.moved, report.samples) == (3, 3)
            seen = {stat.name: store.read(stat.key).data for stat in store.objects_in("data")}
        assert {int(name[0]): int(content) for name, content in seen.items()} == CLOSED
        assert values(objects, md5) == CLOSED
        with process(objects, md5=md5) as store:
            undo_run(ROOT, "c")
            seen = {stat.name: store.read(stat.key).data for stat in store.objects_in("data")}
            assert {int(name[0]): int(content) for name, content in seen.items()} == GAPS
    assert outcomes == {tuple(GAPS), tuple(CLOSED)}


@md5
def test_others_that_write_at_any_request_lose_nothing(md5: bool) -> None:
    """A sample's owner adds a hundred to what is sample 4 to begin with, wherever it is by then."""

    def add_a_hundred() -> None:
        stream = opened(ROOT, "other")
        (idx,) = [i for i in stream.indices().tolist() if stream[i]["left"]() == 4]
        stream.set_output(idx, stream[idx].set_value("left", 104).set_value("right", 104))

    for number in itertools.count(1 + md5, 2):
        objects = MemoryStore()
        moving(objects, md5)
        another = Meanwhile(objects, add_a_hundred, md5=md5)
        with process(objects, md5=md5, at=number, happens=another):
            compact(ROOT, "c")
        if not another.did:
            break
        assert values(objects, md5) == {0: 1, 1: 3, 2: 104}, f"held up at request {number}"
        with process(objects, md5=md5) as store:
            opened(ROOT).recover()
            seen = {stat.name: store.read(stat.key).data for stat in store.objects_in("data")}
            assert {int(name[0]): int(content) for name, content in seen.items()} == {
                **CLOSED,
                2: 104,
            }
    assert number > 10


@pytest.mark.slow
def test_what_others_put_in_a_gap_meanwhile_is_not_overwritten() -> None:
    def put_around() -> None:
        for key in KEYS:
            open_store(ROOT).put(f"data/2_{key}.json", b"7")

    outcomes: list[int] = []
    for number in itertools.count(1):
        objects = MemoryStore()
        moving(objects, False)
        another = Meanwhile(objects, put_around)
        with process(objects, at=number, happens=another):
            compact(ROOT, "c")
        if not another.did:
            break
        with process(objects):
            stream = opened(ROOT)
            both = [{i: stream[i][k]() for i in stream.indices().tolist()} for k in KEYS]
        for found in both:
            # In the instant between the last look and the copy it is overwritten; and overwrites
            # after that.
            is_kept = sorted(found.values()) == [1, 3, 4, 7]
            assert is_kept or found in (CLOSED, {**CLOSED, 2: 7}), f"at request {number}"
            outcomes.append(len(found))
    assert set(outcomes) == {3, 4}


def test_contents_that_the_log_has_are_not_sent_again() -> None:
    with process(MemoryStore()) as store:
        made = DataStream.create_new_underfolder(ROOT, run_key="make")
        with made.commit_group() as batch:
            for idx in range(50):
                batch.set_output(idx, Sample({"m": YamlMetadataItem(idx)}))
        remove(ROOT, 0)
        known = {stat.key for stat in store.objects_in(".pipestream/objects")}
        store.requests.clear()
        compact(ROOT)
        assert {stat.key for stat in store.objects_in(".pipestream/objects")} == known
        assert sum(request.startswith("copied") for request in store.requests) == 49
        assert len(store.requests) < 49 * 4 + 40


def test_clocks_of_writers_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with process(MemoryStore()):
        made = DataStream.create_new_underfolder(ROOT, run_key="make")
        with made.commit_group() as batch:
            for idx in range(3):
                batch.set_output(idx, Sample({"m": YamlMetadataItem(idx)}))
        remove(ROOT, 0)
        now = time.time()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now - 3600)
            compact(ROOT, "c")
        layout = ledgers_of(ROOT)
        with pytest.raises(DatasetError, match="began before"):
            refuse_if_compacted_since(Run.of(layout, "make"), layout)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now - 7200)
            stream = opened(ROOT, "late")
            stream.set_output(0, stream[0].set_value("m", 9))
        layout = ledgers_of(ROOT)
        refuse_if_compacted_since(Run.of(layout, "late"), layout)
        undo_run(ROOT, "late")
