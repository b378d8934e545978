"""A long log is read in few requests, and whatever its packs hold, as it is."""

import gzip
import time
from collections.abc import Callable

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.underfolder import list_runs
from prefect_pipestream.underfolder.bucket.keys import PACKS, entry_key
from prefect_pipestream.underfolder.bucket.packs import LENGTH
from tests.bucket.stores import ROOT, HostStore, process

WRITES = 2 * LENGTH + 30


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    """What a counter that was set many times has left in the store."""
    objects = MemoryStore()
    with process(objects) as store:
        stream = DataStream.create_new_underfolder(ROOT, run_key="count")
        for number in range(WRITES):
            stream.set_output(0, Sample({"n": JsonMetadataItem(number)}))
        until = time.monotonic() + 60
        while len(store.files_in(PACKS)) < 2 and time.monotonic() < until:
            time.sleep(0.05)  # they are made in the background
        return {stat.key: store.read(stat.key).data for stat in store.objects_in("")}


@pytest.fixture
def objects(written: dict[str, bytes]) -> MemoryStore:
    """The same, for a test to change."""
    objects = MemoryStore()
    with process(objects) as store:
        for key, content in written.items():
            store.put(key, content)
    return objects


def assert_all_is_known(store: HostStore) -> None:
    stream = DataStream.read_write_underfolder(ROOT)
    assert stream[0]["n"]() == WRITES - 1
    assert [run.counts["written"] for run in list_runs(ROOT)] == [1]
    assert stream.set_output(0, stream[0].set_value("n", 0))
    assert store.read("data/0_n.json").data.strip() == b"0"


def test_a_long_log_is_read_in_few_requests(objects: MemoryStore) -> None:
    with process(objects) as store:
        DataStream.read_write_underfolder(ROOT)
        assert len(store.requests) < WRITES / 4
        assert_all_is_known(store)
        asked = len(store.requests)
        DataStream.read_write_underfolder(ROOT)
        assert len(store.requests) - asked < 15


Change = Callable[[HostStore], None]
FIRST, SECOND = f"{PACKS}/{LENGTH:012d}.gz", f"{PACKS}/{2 * LENGTH:012d}.gz"


def forged(store: HostStore) -> None:
    """Other entries, but for the last one, which is looked at: they are none of this format."""
    last = store.read(entry_key(LENGTH)).data
    store.put(FIRST, gzip.compress(b"\n".join([b"{}"] * (LENGTH - 1) + [last])))


def damaged(store: HostStore) -> None:
    """Some bits in the middle are other ones, with which it cannot be decompressed."""
    content = store.read(FIRST).data
    store.put(FIRST, content[:100] + bytes(100) + content[200:])


CHANGES: dict[str, Change] = {
    "the first is gone": lambda store: store.delete(FIRST),
    "the second is gone": lambda store: store.delete(SECOND),
    "cut off": lambda store: store.put(FIRST, store.read(FIRST).data[:-20]) and None,
    "damaged": damaged,
    "no gzip": lambda store: store.put(SECOND, b"entries") and None,
    "empty": lambda store: store.put(FIRST, b"") and None,
    "others": forged,
    "of another number": lambda store: store.put(FIRST, store.read(SECOND).data) and None,
    "too large": lambda store: store.put(FIRST, gzip.compress(b"\n" * (1 << 29))) and None,
    "another name": lambda store: store.put(f"{PACKS}/0.gz", b"") and None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_packs_that_are_damaged_are_passed_over(objects: MemoryStore, what: str) -> None:
    with process(objects) as store:
        CHANGES[what](store)
    with process(objects) as store:
        assert_all_is_known(store)


def test_packs_of_a_log_that_is_gone_say_nothing(objects: MemoryStore) -> None:
    with process(objects) as store:
        for stat in list(store.objects_in(".pipestream/log")):
            store.delete(stat.key)
    with process(objects):
        stream = DataStream.read_write_underfolder(ROOT)
        assert list_runs(ROOT) == []
        assert stream[0]["n"]() == WRITES - 1
        stream.set_output(0, stream[0].set_value("n", 1))
        assert stream[0]["n"]() == 1
