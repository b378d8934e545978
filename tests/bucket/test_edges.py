"""What a bucket may hold that nobody expects, and stores that fail: the truth is told of it."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetWriteError,
    DuplicateItemError,
    RunTakenOverError,
    UndoRefusedError,
)
from prefect_pipestream.exporting import export
from prefect_pipestream.items import JsonMetadataItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage import store as stores
from prefect_pipestream.storage.address import Address, place_of
from prefect_pipestream.storage.store import Store, StoreError
from prefect_pipestream.underfolder import list_runs, undo_run
from prefect_pipestream.underfolder.bucket.placing import Placing
from tests.bucket.stores import ROOT, HostStore, process


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HostStore:
    """The store of this process: four samples that another program put there."""
    store = HostStore(MemoryStore())
    monkeypatch.setitem(stores._open, (os.getpid(), ROOT), store)
    for idx in range(4):
        put(store, idx, 0)
    return store


def put(store: Store, idx: int, value: int) -> None:
    Store.put(store, f"data/{idx}_m.json", json.dumps(value).encode())


def opened(run_key: str | None = None) -> DataStream:
    return DataStream.read_write_underfolder(ROOT, run_key=run_key)


def add_one(stream: DataStream, idx: int) -> None:
    sample = stream[idx]
    stream.set_output(idx, sample.set_value("m", sample["m"]() + 1))


def values(stream: DataStream | None = None) -> list[int]:
    stream = stream or opened()
    return [stream[int(idx)]["m"]() for idx in stream.indices()]


# -- attempts and parts ----------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_a_worker_of_an_attempt_that_was_taken_over_writes_nothing() -> None:
    first = opened("job").for_attempt()
    first.begin_run(fingerprint="f")
    worker = cloudpickle.dumps(first.part([0, 1]))
    second = opened("job").for_attempt()
    second.begin_run(fingerprint="f")
    with pytest.raises(RunTakenOverError):
        add_one(cloudpickle.loads(worker), 0)
    with pytest.raises(RunTakenOverError):
        first.begin_run(fingerprint="f")
    add_one(second, 1)
    undo_run(ROOT, "job")
    with pytest.raises(RunTakenOverError):
        add_one(cloudpickle.loads(worker), 0)
    assert values() == [0, 0, 0, 0]


@pytest.mark.parametrize("is_pickled", [False, True])
@pytest.mark.usefixtures("store")
def test_a_part_that_writes_another_sample_looks_what_is_there(is_pickled: bool) -> None:
    stream = opened("run")
    add_one(opened("before"), 3)
    part = stream.part([0])
    part = cloudpickle.loads(cloudpickle.dumps(part)) if is_pickled else part
    part.set_output(3, Sample({"m": YamlMetadataItem(9)}))
    assert values() == [0, 0, 0, 9]
    with pytest.raises(ConflictError):
        part.set_output(2, Sample({"m": JsonMetadataItem(9)}), if_version="absent")
    undo_run(ROOT, "run")
    assert values() == [0, 0, 0, 1]


# -- what others do to the files -------------------------------------------------------------


def test_what_others_put_where_a_sample_was_removed_counts(store: HostStore) -> None:
    opened().remove(0)
    put(store, 0, 99)
    assert values() == [99, 0, 0, 0]
    with pytest.raises(ConflictError):
        opened().set_output(0, Sample({"m": JsonMetadataItem(1)}), if_version="absent")
    run = opened("run")
    add_one(run, 0)
    undo_run(ROOT, "run")
    assert values() == [99, 0, 0, 0]


def test_of_what_others_change_a_part_hears_with_the_first_conflict(store: HostStore) -> None:
    part = opened().part([0])
    put(store, 0, 5)
    with pytest.raises(ConflictError):
        add_one(part, 0)
    add_one(part, 0)
    assert values()[0] == 6


def test_an_undo_puts_no_file_beside_another_of_the_same_item() -> None:
    with process(MemoryStore()):
        made = DataStream.create_new_underfolder(ROOT)
        made.set_output(0, Sample({"m": YamlMetadataItem(1)}))
        opened("remove").remove(0)
        opened("new").set_output(0, Sample({"m": JsonMetadataItem(2)}))
        with pytest.raises(UndoRefusedError):
            undo_run(ROOT, "remove")
        assert values() == [2]
        undo_run(ROOT, "remove", force=True)
        assert values() == [1]


@pytest.mark.usefixtures("store")
def test_what_is_as_it_was_before_a_run_needs_no_undo() -> None:
    opened("make").set_output(7, Sample({"m": JsonMetadataItem(1)}))
    opened("remove").remove(7)
    assert undo_run(ROOT, "make").files == 0
    assert values() == [0, 0, 0, 0]


# -- what is gone, or was never right --------------------------------------------------------


def test_an_undo_of_what_is_not_kept_any_more_is_refused(store: HostStore) -> None:
    run = opened("run")
    for idx in (0, 1):
        add_one(run, idx)
    kept = [stat.key for stat in store.objects_in(".pipestream/objects") if "before" in stat.name]
    store.delete(kept[0])
    with pytest.raises(DatasetError, match="not there any more"):
        undo_run(ROOT, "run")
    assert values() == [1, 1, 0, 0]


def test_a_missing_entry_of_the_log_is_told(store: HostStore) -> None:
    with process(store._connected):
        open_before = opened()
    for idx in range(3):
        add_one(opened(), idx)
    first = next(store.objects_in(".pipestream/log"))
    store.delete(first.key)
    for ask in (opened, lambda: list_runs(ROOT), lambda: add_one(open_before, 3)):
        with process(store._connected), pytest.raises(DatasetError, match="missing"):
            ask()


@pytest.mark.parametrize("noted", [b"999999", b" -3 ", b"x"])
def test_a_forged_note_of_what_is_in_place_is_not_believed(store: HostStore, noted: bytes) -> None:
    stream = opened()
    store.put(".pipestream/applied", noted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Placing, "put", lambda *_: None)
        add_one(stream, 0)
    assert store.read("data/0_m.json").data == b"0"
    opened()
    assert store.read("data/0_m.json").data.strip() == b"1"


FORGED: dict[str, Callable[[dict[str, Any]], None]] = {
    "name with a path": lambda entry: entry["placed"].update({"../x": ref_in(entry)}),
    "name of the private folder": lambda e: e["placed"].update({"/.pipestream/y": ref_in(e)}),
    "name that is none": lambda entry: entry["placed"].update({"x": ref_in(entry)}),
    "object elsewhere": lambda entry: ref_in(entry).update(object="objects/../../other"),
    "object in the data": lambda entry: ref_in(entry).update(object="data/1_m.json"),
    "size that is none": lambda entry: ref_in(entry).update(size=-1),
    "run of another": lambda entry: entry["commit"].update(run_key="other"),
    "long id": lambda entry: entry.update(id="x" * 300),
    "folder elsewhere": lambda entry: entry.update(undone={"../..": "x"}),
    "format of later": lambda entry: entry.update(format=2),
    "no object": lambda entry: entry.clear(),
}


def ref_in(entry: dict[str, Any]) -> dict[str, Any]:
    ref: dict[str, Any] = next(iter(entry["placed"].values()))
    return ref


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_entry_is_refused_and_nothing_is_written(store: HostStore, what: str) -> None:
    add_one(opened(), 0)
    *_, last = store.objects_in(".pipestream/log")
    entry = json.loads(store.read(last.key).data)
    FORGED[what](entry)
    store.put(last.key, json.dumps(entry).encode())
    before = {stat.key: store.read(stat.key).data for stat in store.objects_in("")}
    with pytest.raises(DatasetError, match="cannot be read"):
        opened()
    assert {stat.key: store.read(stat.key).data for stat in store.objects_in("")} == before


def test_two_files_of_one_item_are_told(store: HostStore) -> None:
    Store.put(store, "data/0_m.yaml", b"1")
    with pytest.raises(DuplicateItemError):
        opened()[0]


# -- stores that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("is_after", [False, True])
def test_what_is_said_of_a_write_through_a_store_that_fails_is_so(is_after: bool) -> None:
    number, ended = 0, False
    while not ended:
        number += 1
        objects = MemoryStore()
        with process(objects) as around:
            put(around, 0, 0)

        def fail(now_after: bool) -> None:
            if now_after == is_after:
                raise StoreError("503")

        said = "made"
        with process(objects, at=number, happens=fail) as store:
            try:
                add_one(opened(), 0)
            except DatasetWriteError as error:
                said = "made" if "is made" in str(error) else "not made"
            except DatasetError:
                said = "not made"  # it could not even be opened
            ended = len(store.requests) < number
        with process(objects):
            assert values() == [1 if said == "made" else 0], f"request {number}: {said}"
            add_one(opened(), 0)
            assert values() == [2 if said == "made" else 1]
    assert number > 10


def test_a_store_without_conditions_is_read_and_not_written(
    monkeypatch: pytest.MonkeyPatch, store: HostStore
) -> None:
    monkeypatch.setattr(HostStore, "create", lambda self, key, data: Store.put(self, key, data))
    assert values() == [0, 0, 0, 0]
    with pytest.raises(DatasetError, match="created twice"):
        add_one(opened(), 0)
    assert {stat.key.split("/")[0] for stat in store.objects_in("")} == {"data"}


# -- addresses -------------------------------------------------------------------------------


def test_an_address_is_known_in_each_of_its_spellings() -> None:
    for given in ("s3://b/x/y", "s3://b/x//y/", "s3a://b/x/y", Path("s3://b/x/y")):
        assert place_of(given) == Address("s3://b/x/y")
    assert place_of("az://c") == Address("az://c")
    assert place_of("folder/x") == "folder/x"
    assert Address.of("s3://b/x") / "y" == Address("s3://b/x/y")


@pytest.mark.parametrize(
    "given",
    [
        *("S3://b/x", "s3://b/x?v=1", "s3://b/a#b", "https://h/x", "s3://b/../x", "s3:///x"),
        *(" s3://b/x", "s3:b/x", "s3://", r"s3://b/a\b", "s3://b/a\tb"),
        *(Path("s3:b/x"), Path("s3://"), Path(" s3://b/x"), Path(r"s3://b/a\b")),
        *(Path("S3://b/x"), Path("http://h/x"), Path("memory://b/x?y")),
    ],
    ids=repr,
)
def test_what_looks_like_an_address_is_never_made_a_folder(
    given: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DatasetError, ValueError), match="no address of a dataset: expected"):
        DataStream.create_new_underfolder(given)
    assert os.listdir(tmp_path) == []


def test_an_export_goes_to_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: HostStore
) -> None:
    monkeypatch.chdir(tmp_path)
    stream = opened()
    assert stream.input_sequence is not None
    with pytest.raises(DatasetError, match="written to a folder of this machine"):
        export(stream.input_sequence, "images", ROOT)
    assert os.listdir(tmp_path) == []


# -- parts in other processes ----------------------------------------------------------------


def by_itself(stream: DataStream) -> DataStream:
    """The same part as another process has it."""
    other: DataStream = cloudpickle.loads(cloudpickle.dumps(stream))
    return other


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.usefixtures("store")
def test_a_chunk_that_is_given_out_again_does_the_rest_of_it(is_alone: bool) -> None:
    run = opened("run")
    if is_alone:
        run = run.for_attempt()
        run.begin_run(fingerprint="f")
    for _ in range(2):
        part = by_itself(run.part(range(4)))
        done = part.run.done_indices("chunk")
        with part.commit_group(tag="chunk") as batch:
            for idx in range(4 if done else 2):
                if idx not in done:
                    sample = part[idx]
                    batch.set_output(idx, sample.set_value("m", sample["m"]() + 1))
    assert values() == [1, 1, 1, 1]


def test_a_part_leaves_to_others_what_they_are_about_to_put_in_place(store: HostStore) -> None:
    slow = opened()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Placing, "put", lambda *_: None)
        add_one(slow, 3)
        slow.set_output(5, Sample({"m": JsonMetadataItem(5)}))
    part = by_itself(opened_without_recovery().part([0]))
    add_one(part, 0)
    assert store.read("data/3_m.json").data == b"0"
    assert values() == [1, 0, 0, 1, 5]
    assert store.read("data/3_m.json").data.strip() == b"1"


def opened_without_recovery() -> DataStream:
    from prefect_pipestream.underfolder.bucket.dataset import Bucket

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "recover", lambda self: None)
        return opened()


@pytest.mark.usefixtures("store")
def test_a_query_of_a_part_is_about_the_part() -> None:
    assert opened().part([2, 3]).indices("HAS m").tolist() == [2, 3]


# -- more of undo ----------------------------------------------------------------------------


def test_a_sample_that_was_made_since_is_not_mixed_with_one_that_was_removed() -> None:
    with process(MemoryStore()):
        made = DataStream.create_new_underfolder(ROOT)
        made.set_output(0, Sample({"m": JsonMetadataItem(1), "n": JsonMetadataItem(2)}))
        opened("remove").remove(0)
        opened("new").set_output(0, Sample({"q": JsonMetadataItem(9)}))
        with pytest.raises(UndoRefusedError):
            undo_run(ROOT, "remove")
        assert set(opened()[0]) == {"q"}


def test_a_shared_item_that_others_changed_is_left_by_an_undo(store: HostStore) -> None:
    run = opened("run")
    shared = run[0].set_item("sh", JsonMetadataItem(1, shared=True)).set_value("m", 7)
    run.set_output(0, shared)
    Store.put(store, "sh.json", b"5")
    undone = undo_run(ROOT, "run")
    assert undone.left == ("/sh.json",)
    assert values() == [0, 0, 0, 0]
    assert opened()[0]["sh"]() == 5


def test_an_undo_whose_files_are_not_in_place_yet_is_told_as_made(store: HostStore) -> None:
    add_one(opened("run"), 0)
    copy = HostStore.copy

    def away(self: Store, source: str, target: str, size: int) -> None:
        if target.startswith("data/"):
            raise StoreError("503")
        copy(self, source, target, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostStore, "copy", away)
        with pytest.raises(DatasetWriteError, match="the undo is made"):
            undo_run(ROOT, "run")
    assert values() == [0, 0, 0, 0]
    assert store.read("data/0_m.json").data == b"0"


def test_what_could_not_be_put_in_place_is_put_there_by_a_later_write(store: HostStore) -> None:
    stream = opened()
    copy = HostStore.copy
    fails = iter([True, True])

    def away(self: Store, source: str, target: str, size: int) -> None:
        if target == "data/0_m.json" and next(fails, False):
            raise StoreError("503")
        copy(self, source, target, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostStore, "copy", away)
        for idx in (0, 1):
            with pytest.raises(DatasetWriteError):
                add_one(stream, idx)
        add_one(stream, 2)
        add_one(stream, 3)
    assert {store.read(f"data/{idx}_m.json").data.strip() for idx in (0, 2, 3)} == {b"1"}


def test_what_nobody_could_read_is_not_added_to_the_log(store: HostStore) -> None:
    Store.put(store, "data/9_m\u0085.json", b"1")
    with pytest.raises(DatasetError, match="cannot be noted in the log"):
        opened().remove(9)
    add_one(opened(), 0)
    assert [opened()[idx]["m"]() for idx in range(4)] == [1, 0, 0, 0]


# -- what is kept of ledgers in this process ---------------------------------------------------


def test_a_timeout_is_not_lost_where_ledgers_go_that_nobody_knows_any_more(
    store: HostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in a finalizer is told, and ignored."""
    monkeypatch.setattr("prefect_pipestream.underfolder.bucket.log._KEPT", 0)
    stream = opened()
    folder = stream._writer.ledgers._folder  # type: ignore[attr-defined]

    def timed_out(*_: object, **__: object) -> None:
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", timed_out)
        del stream
        gc.collect()
        with pytest.raises(TimeoutError):
            opened()
    assert os.path.isdir(folder)
    opened()
    assert not os.path.exists(folder)
