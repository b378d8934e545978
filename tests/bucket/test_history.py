"""What runs did to samples, and their restoring, is the same in a folder and in a bucket."""

import json
import os
import time
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream import cli
from prefect_pipestream.errors import (
    DatasetError,
    DatasetWriteError,
    UndoRefusedError,
)
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage import store as stores
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.store import Store, StoreError
from prefect_pipestream.underfolder import (
    ItemChange,
    KeptFile,
    restore_sample,
    run_differences,
    sample_history,
    undo_run,
)
from prefect_pipestream.views.changes import changes_of_run
from tests.bucket.stores import ROOT, HostStore, process
from tests.dataset_files import Files
from tests.underfolder.conftest import lose


@pytest.fixture
def place(new_place: Place) -> Place:
    """Three samples with a number and an image, and a shared item."""
    place = new_place
    made = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with made.commit_group() as batch:
        for number in range(3):
            batch.set_output(number, sample_of(number))
    return place


def sample_of(number: int) -> Sample:
    return Sample(
        {
            "image": PngImageItem(np.full((4, 5), number, np.uint8)),
            "n": YamlMetadataItem(number),
            "factor": JsonMetadataItem(2, shared=True),
        }
    )


def opened(place: Place, run_key: str | None = None) -> DataStream:
    return DataStream.read_write_underfolder(place, run_key=run_key)


def write(place: Place, run_key: str, idx: int, value: int) -> str:
    """Writes a sample's number; returns the id of the commit."""
    stream = opened(place, run_key)
    (staged,) = stream.set_output(idx, stream[idx].set_value("n", value))
    return str(staged.commit_id)


def of_sample(place: Place, idx: int) -> dict[str, bytes]:
    """What is in a sample's files, as anybody sees them."""
    files = Files(place)
    return {name: files[f"data/{name}"] for name in files.of_sample(idx)}


def value(file: KeptFile | None) -> Any:
    """A file's value, of an image that of its first pixel; "lost" where it is kept nowhere."""
    item = None if file is None else file.item()
    if item is None:
        return None if file is None else "lost"
    found = item()
    return int(found.flat[0]) if isinstance(found, np.ndarray) else found


def values(changes: tuple[ItemChange, ...]) -> dict[str, tuple[Any, Any]]:
    return {one.key: (value(one.before), value(one.after)) for one in changes}


def told(place: Place, idx: int) -> list[tuple[str, bool, dict[str, tuple[Any, Any]]]]:
    events = sample_history(place, idx)
    return [(event.run_key, event.counts, values(event.items)) for event in events]


# -- the history of a sample -------------------------------------------------------------------


def test_an_undo_of_a_new_shared_item_is_told_of_samples_that_it_restored(place: Place) -> None:
    run = opened(place, "run")
    run.set_output(2, run[2].set_value("n", 5).set_item("sh", JsonMetadataItem(1, shared=True)))
    undo_run(place, "run")
    assert [event.run_key for event in sample_history(place, 0)] == ["make"]
    assert told(place, 2)[-1] == ("undo:run", True, {"n": (5, 2)})


def test_pictures_of_a_run_are_of_what_it_found_and_left(place: Place) -> None:
    stream = opened(place, "run")
    stream.set_output(1, stream[1].set_value("n", 11).set_value("image", stream[1]["image"]() + 99))
    stream.remove(2)
    changed, removed = changes_of_run(stream, stream)
    assert (changed.idx, removed.idx, removed.metadata) == (1, 2, ("removed",))
    assert set(changed.metadata) == {"image: mean 1 → 100", "n: 1 → 11"}
    assert changed.before
    assert changed.after
    assert removed.before


# -- a sample is restored ----------------------------------------------------------------------


@pytest.fixture
def states(place: Place) -> list[dict[str, bytes]]:
    """What sample 1 was at first, and after each of the runs a, b and c."""
    found = [of_sample(place, 1)]
    write(place, "a", 1, 10)
    found.append(of_sample(place, 1))
    stream = opened(place, "b")
    stream.set_output(1, stream[1].set_item("n", JsonMetadataItem(20)))
    found.append(of_sample(place, 1))
    stream = opened(place, "c")
    image = PngImageItem(np.full((2, 2), 200, np.uint8))
    stream.set_output(1, stream[1].set_item("image", image), removes=["n"])
    found.append(of_sample(place, 1))
    return found


def test_a_format_that_was_changed_since_makes_way(
    place: Place, states: list[dict[str, bytes]]
) -> None:
    restore_sample(place, 1, "b", state="after")
    report = restore_sample(place, 1, "b")
    assert report.written == ("001_n.yaml",)
    assert of_sample(place, 1) == states[1]
    undo_run(place, str(report.run_key))
    assert of_sample(place, 1) == states[2]


def test_what_was_put_by_hand_where_an_item_was_removed_is_refused(
    place: Place, states: list[dict[str, bytes]]
) -> None:
    Files(place)["data/001_n.txt"] = b"99\n"
    with pytest.raises(UndoRefusedError, match=r"by no run: 001_n\.txt"):
        restore_sample(place, 1, "a")
    restore_sample(place, 1, "a", force=True)
    assert of_sample(place, 1) == states[0]


def test_what_is_not_kept_any_more_is_told(place: Place, states: list[dict[str, bytes]]) -> None:
    lose(place, "001_n.yaml")
    history = told(place, 1)
    assert history[1] == ("a", True, {"n": ("lost", "lost")})
    assert history[2] == ("b", True, {"n": ("lost", 20)})
    (difference,) = run_differences(place, "a")
    assert values(difference.items) == {"n": ("lost", "lost")}
    lost = [one.before for one in difference.items if one.before is not None]
    assert [(one.path, one.is_as_then()) for one in lost] == [(None, False)]
    with pytest.raises(DatasetError, match=r"001_n\.yaml of then is not kept any more"):
        restore_sample(place, 1, "a", force=True)
    assert of_sample(place, 1) == states[3]
    restore_sample(place, 1, "a", ["image"])
    assert opened(place)[1]["image"]().flat[0] == 1


# -- the commands ------------------------------------------------------------------------------


def test_a_person_looks_at_changes_and_takes_them_back_by_commands(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, status: int = 0) -> str:
        assert cli.main([words[0], str(place), *words[1:]]) == status
        both = capsys.readouterr()
        return both.err if status else both.out

    write(place, "a", 1, 10)
    assert "1\tn\tchanged\tn: 1 → 10" in said("diff", "a")
    assert "n changed (n: 1 → 10)" in said("history", "1")
    (event,) = json.loads(said("history", "1", "--json"))[1:]
    (item,) = event["items"]
    assert (item["key"], item["kind"]) == ("n", "changed")
    assert item["before"]["name"] == item["after"]["name"] == "001_n.yaml"
    assert item["before"]["path"].startswith(str(place))
    assert item["before"]["mark"] != item["after"]["mark"]
    (difference,) = json.loads(said("diff", "a", "--json"))
    assert difference["items"] == event["items"]
    assert "1 file put back, 0 removed." in said("restore", "1", "--run", "a")
    assert opened(place)[1]["n"]() == 1
    assert "nothing was to be done" in said("restore", "1", "--run", "a")
    again = json.loads(said("restore", "1", "--run", "a", "--after", "--key", "n", "--json"))
    assert (again["run_key"], again["written"]) == ("restore:a#2", ["001_n.yaml"])
    assert "Those that did: 'make', 'a'" in said("restore", "1", "--run", "b", status=1)
    lose(place, "001_n.yaml")
    assert "what it was before is not kept" in said("history", "1")


# -- of buckets alone --------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HostStore:
    """The store of this process, with three samples that another program put there."""
    store = HostStore(MemoryStore(), md5=True)
    monkeypatch.setitem(stores._open, (os.getpid(), ROOT), store)
    for idx in range(3):
        Store.put(store, f"data/{idx:03d}_n.yaml", f"{idx}\n".encode())
    return store


def test_a_restore_sends_and_fetches_no_content(store: HostStore) -> None:
    write(ROOT, "a", 1, 10)
    write(ROOT, "b", 1, 20)
    store.requests.clear()
    restore_sample(ROOT, 1, "a")
    contents = [one for one in store.requests if ".pipestream/objects/" in one or "data/" in one]
    assert {one.split(" ")[0] for one in contents} == {"copied", "asked"}
    assert of_sample(ROOT, 1) == {"001_n.yaml": b"1\n"}


def test_of_a_long_history_each_entry_is_fetched_once(store: HostStore) -> None:
    for number in range(30):
        write(ROOT, "edits", 1, number + 10)
    store.requests.clear()
    assert len(sample_history(ROOT, 1)) == 30
    fetched = [one for one in store.requests if ".pipestream/log/" in one and "read" in one]
    assert len(fetched) <= 30 + 4
    asked = [one for one in store.requests if "asked for .pipestream/objects/" in one]
    assert len(asked) == 31  # contents, each of which some commit found or left


@pytest.mark.usefixtures("store")
def test_commits_are_told_in_the_order_of_the_log_whatever_clocks_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(ROOT, "first", 1, 10)
    hour_ago = time.time_ns() - 3600 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: hour_ago)
        write(ROOT, "second", 1, 20)
        write(ROOT, "first", 1, 30)
    assert told(ROOT, 1) == [
        ("first", True, {"n": (1, 10)}),
        ("second", True, {"n": (10, 20)}),
        ("first", True, {"n": (20, 30)}),
    ]
    (difference,) = run_differences(ROOT, "first")
    assert values(difference.items) == {"n": (1, 30)}
    restore_sample(ROOT, 1, "second")
    assert opened(ROOT)[1]["n"]() == 10


def test_a_restore_looks_again_where_another_writer_is_faster(store: HostStore) -> None:
    write(ROOT, "a", 1, 10)
    done = []
    create = HostStore.create

    def slow(self: HostStore, key: str, data: bytes) -> str:
        if "log/" in key and not done:
            done.append(key)
            with process(store._connected, md5=True):
                write(ROOT, "b", 1, 20)
        return create(self, key, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostStore, "create", slow)
        report = restore_sample(ROOT, 1, "a")
    assert done
    assert opened(ROOT)[1]["n"]() == 1
    assert told(ROOT, 1)[-1] == ("restore:a", True, {"n": (20, 1)})
    undo_run(ROOT, str(report.run_key))
    assert opened(ROOT)[1]["n"]() == 20


def test_what_a_forged_log_says_leads_nowhere(store: HostStore) -> None:
    write(ROOT, "a", 1, 10)
    *_, last = store.objects_in(".pipestream/log")
    entry = json.loads(store.read(last.key).data)
    (record,) = entry["commit"]["samples"]
    record["writes"] = {"001_n.yaml": "0" * 12, "..": "0" * 12, "001_o.yml": "0" * 12}
    entry["before"] = {}
    store.put(last.key, json.dumps(entry).encode())
    with pytest.raises(DatasetError, match="cannot be read"):
        sample_history(ROOT, 1)
    record["writes"].pop("..")
    store.put(last.key, json.dumps(entry).encode())
    assert told(ROOT, 1) == [("a", True, {"n": ("lost", "lost"), "o": (None, "lost")})]
    with pytest.raises(DatasetError):
        restore_sample(ROOT, 1, "a", force=True)


def test_a_restore_through_a_store_that_fails_says_so(store: HostStore) -> None:
    write(ROOT, "a", 1, 10)
    copy, create = HostStore.copy, HostStore.create

    def away(self: Store, source: str, target: str, size: int) -> None:
        if target.startswith("data/"):
            raise StoreError("503")
        copy(self, source, target, size)

    def closed(self: HostStore, key: str, data: bytes) -> str:
        if "log/" in key:
            raise StoreError("503")
        return create(self, key, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostStore, "create", closed)
        with pytest.raises(DatasetWriteError, match="could not be written"):
            restore_sample(ROOT, 1, "a")
    assert opened(ROOT)[1]["n"]() == 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostStore, "copy", away)
        with pytest.raises(DatasetWriteError, match="the restoring of sample 1 is made"):
            restore_sample(ROOT, 1, "a")
    assert opened(ROOT)[1]["n"]() == 1
    assert of_sample(ROOT, 1) == {"001_n.yaml": b"1\n"}
