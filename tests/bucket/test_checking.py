"""A check of a bucket finds what there is not in a folder, and mends what can be mended."""

import itertools
import os
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream import cli
from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.where import find
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import Stat, Store, open_store
from prefect_pipestream.underfolder import check, compact, undo_run
from prefect_pipestream.underfolder.bucket.commit import BucketCommit
from prefect_pipestream.underfolder.bucket.placing import Placing
from prefect_pipestream.underfolder.opening import open_dataset
from tests.bucket.stores import ROOT, Dead, HostStore, KilledError, process
from tests.dataset_files import Files, new_address
from tests.underfolder.conftest import contents
from tests.underfolder.test_check import kinds, put_aside

DAY = 86_400


def make(place: Place) -> None:
    made = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with made.commit_group() as batch:
        for number in range(4):
            items = {
                "image": PngImageItem(np.full((4, 5), number, np.uint8)),
                "metadata": YamlMetadataItem({"number": number}),
                "common": JsonMetadataItem(2, shared=True),
            }
            batch.set_output(number, Sample(items))


@pytest.fixture(params=[False, True], ids=["etag of a write", "etag of a content"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HostStore:
    from prefect_pipestream.storage import store as stores

    store = HostStore(MemoryStore(), md5=request.param)
    monkeypatch.setitem(stores._open, (os.getpid(), ROOT), store)
    make(ROOT)
    return store


def change(idx: int = 1, number: int = 9, run_key: str = "change") -> None:
    stream = DataStream.read_write_underfolder(ROOT, run_key=run_key)
    stream.set_output(idx, stream[idx].set_value("metadata", {"number": number}))


def test_an_older_content_is_put_right(store: HostStore) -> None:
    old = store.read("data/001_metadata.yaml").data
    change()
    new = store.read("data/001_metadata.yaml").data
    removed = store.read("data/003_image.png").data
    DataStream.read_write_underfolder(ROOT).remove(3)
    before = contents(ROOT)
    Store.put(store, "data/001_metadata.yaml", old)  # as a writer that was held up does it
    Store.put(store, "data/003_image.png", removed)
    store.delete("data/002_image.png")
    report = check(ROOT)
    assert kinds(report) == {"out-of-place": 3}
    assert {(p.file, p.idx) for p in report.problems} == {
        ("data/001_metadata.yaml", 1),
        ("data/002_image.png", 2),
        ("data/003_image.png", 3),
    }
    assert not report.ok
    assert check(ROOT, fix=True).ok
    assert contents(ROOT) == before
    assert contents(ROOT)["data/001_metadata.yaml"] == new
    assert check(ROOT).problems == ()


def test_what_others_changed_is_theirs(store: HostStore) -> None:
    Store.put(store, "data/001_metadata.yaml", b"number: 77\n")
    DataStream.read_write_underfolder(ROOT).remove(3)
    Store.put(store, "data/003_metadata.yaml", b"number: 78\n")
    before = contents(ROOT)
    assert check(ROOT, fix=True).problems == ()
    assert contents(ROOT) == before


@pytest.mark.slow
def test_a_commit_whose_files_are_not_in_place_is_applied(
    store: HostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Placing, "put", lambda *_: None)
        change()
    before = store.read("data/001_metadata.yaml").data
    report = check(ROOT)
    assert kinds(report) == {"pending": 1}
    assert "run 'change'" in report.problems[0].message
    assert store.read("data/001_metadata.yaml").data == before
    assert check(ROOT, fix=True).ok
    assert store.read("data/001_metadata.yaml").data != before
    assert check(ROOT).problems == ()


def test_contents_that_are_gone_are_told_and_restored_where_the_file_has_them(
    store: HostStore,
) -> None:
    change()
    objects = {stat.name: stat.key for stat in store.objects_in(".pipestream/objects")}
    store.delete(objects["002_image.png"])
    assert kinds(check(ROOT)) == {"lost-content": 1}
    assert check(ROOT, fix=True).ok
    assert check(ROOT).problems == ()
    store.delete(objects["002_image.png"])
    store.delete("data/002_image.png")
    report = check(ROOT, fix=True)
    assert kinds(report)["lost-content"] == 1
    assert not report.ok


def test_contents_that_an_undo_needs_and_are_gone_are_told(store: HostStore) -> None:
    before = {stat.key for stat in store.objects_in(".pipestream/objects")}
    change()
    needed = [key for key in before if key.endswith("/001_metadata.yaml")]
    store.delete(needed[0])
    (problem,) = check(ROOT, fix=True).problems
    assert (problem.kind, problem.file, problem.mended) == ("lost-content", needed[0], False)
    assert "'change' cannot be undone" in problem.message
    change(number=10, run_key="other")
    with_it = check(ROOT).problems
    assert len(with_it) == 1


def test_what_was_sent_and_not_committed_is_removed_after_a_day(
    store: HostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    change()
    undo_run(ROOT, "change")
    needed = {stat.key for stat in store.objects_in(".pipestream/objects")}
    old = f"{time.time_ns() - 2 * DAY * 10**9:016x}-abcdef"
    fresh = f"{time.time_ns():016x}-abcdef"
    for folder in (old, fresh, "review.1"):
        Store.put(store, f".pipestream/objects/{folder}/001_image.png", b"sent")
    assert check(ROOT, fix=True).problems == ()  # they are just being sent

    listed = HostStore.objects_in

    def long_ago(self: HostStore, prefix: str, after: str = ""):  # type: ignore[no-untyped-def]
        for stat in listed(self, prefix, after):
            yield replace(stat, at=stat.at - 2 * DAY)

    monkeypatch.setattr(HostStore, "objects_in", long_ago)
    report = check(ROOT)
    assert kinds(report) == {"dead-staging": 1}
    assert report.problems[0].file == f".pipestream/objects/{old}"
    assert check(ROOT, fix=True).ok
    left = {stat.key for stat in store.objects_in(".pipestream/objects")}
    assert left - needed == {
        f".pipestream/objects/{folder}/001_image.png" for folder in (fresh, "review.1")
    }
    assert needed <= left


def test_a_commit_that_was_held_up_too_long_is_refused(
    store: HostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, now = BucketCommit._names_asked, time.time
    before = {stat.key for stat in store.objects_in(".pipestream/log")}

    def a_day_later(commit: BucketCommit) -> set[str]:
        monkeypatch.setattr(time, "time", lambda: now() + DAY)
        return asked(commit)

    stream = DataStream.read_write_underfolder(ROOT, run_key="make")
    sample = stream[1].set_value("metadata", {"number": 9})
    monkeypatch.setattr(BucketCommit, "_names_asked", a_day_later)
    with pytest.raises(DatasetWriteError, match="held up for so long"):
        stream.set_output(1, sample)
    assert {stat.key for stat in store.objects_in(".pipestream/log")} == before


def test_a_log_that_cannot_be_read_is_told_entry_by_entry(store: HostStore) -> None:
    for idx in range(3):
        change(idx, run_key=f"r{idx}")
    entries = sorted(stat.key for stat in store.objects_in(".pipestream/log"))
    Store.put(store, entries[2], b"{")
    store.delete(entries[4])
    report = check(ROOT, fix=True)
    assert [(p.kind, p.file, p.mended) for p in report.problems] == [
        ("unreadable-record", entries[2], False),
        ("unreadable-record", entries[4], False),
    ]
    assert not report.ok


def test_what_is_in_the_way_of_the_log_is_put_aside(store: HostStore) -> None:
    Store.put(store, ".pipestream/log/zzz", b"x")
    with pytest.raises(
        DatasetError, match=r"log/zzz: this is no entry .* `pipestream check --fix`"
    ):
        change()
    report = check(ROOT)
    assert kinds(report) == {"not-ours": 1}
    report = check(ROOT, fix=True)
    assert (kinds(report), report.ok, report.samples) == ({"not-ours": 1}, True, 4)
    change()
    assert check(ROOT).problems == ()


@pytest.mark.parametrize("said", [b"999999", b"-1", b"many", b"9" * 5000])
def test_a_wrong_note_of_what_is_in_place_is_mended(store: HostStore, said: bytes) -> None:
    Store.put(store, ".pipestream/applied", said)
    assert kinds(check(ROOT)) == {"unreadable-record": 1}
    assert check(ROOT, fix=True).ok
    assert check(ROOT).problems == ()
    assert int(store.read(".pipestream/applied").data) > 0


def test_a_probe_that_is_left_is_removed(store: HostStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.put(store, ".pipestream/probe-0123", b"first")
    assert check(ROOT, fix=True).problems == ()
    listed = HostStore.files_in

    def long_ago(self: HostStore, folder: str = "") -> list[Stat]:
        return [replace(stat, at=stat.at - 2 * DAY) for stat in listed(self, folder)]

    monkeypatch.setattr(HostStore, "files_in", long_ago)
    assert kinds(check(ROOT)) == {"leftover": 1}
    assert check(ROOT, fix=True).ok
    assert store.stat(".pipestream/probe-0123") is None


def test_a_check_makes_few_requests_a_sample() -> None:
    with process(MemoryStore(), md5=True) as store:
        made = DataStream.create_new_underfolder(ROOT)
        with made.commit_group() as batch:
            for idx in range(100):
                batch.set_output(idx, Sample({"m": YamlMetadataItem(idx)}))
        store.requests.clear()
        assert check(ROOT).items == 100
        assert len(store.requests) < 130


def test_the_command_tells_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    address = new_address()
    make(address)
    Files(address)["data/notes.txt"] = b"notes"
    for arguments, status in ([], 1), (["--fix"], 0), ([], 0):
        assert cli.main(["check", str(address), *arguments]) == status
    assert "put aside" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_who_is_killed_while_mending_leaves_it_to_the_next(after: bool) -> None:
    for number in itertools.count(1, 3):
        objects = MemoryStore()
        with process(objects) as store:
            make(ROOT)
            removed = store.read("data/003_image.png").data
            DataStream.read_write_underfolder(ROOT).remove(3)
            expected = contents(ROOT)
            Store.put(store, "data/003_image.png", removed)
            Store.put(store, "data/notes.txt", b"notes")
            Store.put(store, "data/001_image.bmp", b"no picture")
            store.delete("data/000_metadata.yaml")
        with process(objects, at=number, happens=Dead(after=after)) as store:
            with suppress(KilledError):
                check(ROOT, fix=True)
            if len(store.requests) < number:
                break
        with process(objects) as store:
            assert check(ROOT, fix=True).ok, f"at request {number}"
            assert check(ROOT).problems == ()
            assert contents(ROOT) == expected
            assert set(put_aside(ROOT)) == {"data/notes.txt", "data/001_image.bmp"}
            assert store.read(".pipestream/applied")


@pytest.mark.parametrize("server", ["in_moto", "in_azurite"])
def test_a_dataset_on_a_server_is_compacted_and_checked(
    server: str, request: pytest.FixtureRequest
) -> None:
    root: Address = request.getfixturevalue(server)
    make(root)
    open_store(root).put("data/009_metadata.yaml", b"number: 9\n")
    DataStream.read_write_underfolder(root).remove(1)
    before = contents(root)
    assert compact(root, "c").moved == 3
    assert (report := check(root, fix=True)).ok
    assert (report.samples, report.gaps) == (4, ())
    found = find(open_dataset(root), "metadata.number > 2")
    assert found.indices.tolist() == [2, 3]
    undo_run(root, "c")
    assert contents(root) == before
    assert check(root).gaps == ((1, 1), (4, 8))


@pytest.mark.parametrize("name", ["data//5_a.json", "data/../a.json", "data/5_\x1b[31m.json"])
def test_an_object_with_a_name_that_cannot_be_listed_is_named(in_moto: Address, name: str) -> None:
    import boto3

    bucket, _, path = in_moto.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{path}/{name}", Body=b"1")
    with pytest.raises(DatasetError, match=r"Rename or remove this object") as refused:
        check(in_moto)
    message = str(refused.value)
    assert message.isprintable()
    assert name.replace("\x1b", r"\x1b") in message
