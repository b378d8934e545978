"""A dataset copied with its log: a dataset at every moment, the same as its source at the end."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from prefect_pipestream import cli
from prefect_pipestream.errors import DatasetError, DatasetExistsError, DatasetNotFoundError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import Store, open_store
from prefect_pipestream.underfolder import copy_dataset, list_runs, prune_runs, undo_run
from prefect_pipestream.underfolder.bucket.copying import CopyReport
from prefect_pipestream.underfolder.bucket.log import whole_log
from tests.bucket.stores import ROOT, Dead, HostStore, KilledError, md5, process
from tests.bucket.test_killed import seen, values

COPY = Address.of("memory://elsewhere/copy")
NUMBERS = itertools.count()


def another_memory() -> MemoryStore:
    """Objects whose etags are not those of others, which are the numbers of their writes."""
    objects = MemoryStore()
    for _ in range(1000):
        objects.put("used", b"")
    objects.delete("used")
    return objects


def same_as(objects: MemoryStore) -> MemoryStore:
    """The same objects, in a store of their own."""
    other = another_memory()
    for some in objects.list():
        for one in some:
            other.put(one["path"], bytes(objects.get(one["path"]).bytes()))
    return other


def written(root: Address, idx: int, value: int, run_key: str | None = None) -> None:
    items = {key: JsonMetadataItem(value) for key in ("left", "right")}
    DataStream.read_write_underfolder(root, run_key=run_key).set_output(idx, Sample(items))


def history() -> MemoryStore:
    """Samples that others put there, some changed and undone, some made, moved and removed."""
    objects = MemoryStore()
    with process(objects) as store:
        for idx in range(3):
            for key in ("left", "right"):
                Store.put(store, f"data/{idx}_{key}.json", b"0")
        Store.put(store, "notes.txt", b"ours")
        Store.put(store, "factor.json", b"2")
        written(ROOT, 1, 1, "change")
        written(ROOT, 3, 3, "make")
        written(ROOT, 1, 2, "again")
        undo_run(ROOT, "again")
        DataStream.read_write_underfolder(ROOT, run_key="remove").remove(2)
        written(ROOT, 4, 4, "others")
        Store.put(store, "data/4_left.json", b"44")
    return objects


AS_MADE = [(0, 0), (1, 1), (3, 3), (44, 4)]
EARLIER = [  # as of the entries of the log; what others put last comes last
    [(0, 0), (0, 0), (0, 0)],
    [(0, 0), (1, 1), (0, 0)],
    [(0, 0), (1, 1), (0, 0), (3, 3)],
    [(0, 0), (2, 2), (0, 0), (3, 3)],
    [(0, 0), (1, 1), (3, 3)],
    [(0, 0), (1, 1), (3, 3), (4, 4)],
]


def samples_of(root: Address) -> list[tuple[int, int]]:
    stream = DataStream.read_write_underfolder(root)
    return [values(stream, int(idx)) for idx in stream.indices()]


@contextmanager
def both(
    objects: MemoryStore, copied: MemoryStore, md5: bool = True, **options: object
) -> Iterator[tuple[HostStore, HostStore]]:
    """A process that sees the source, and the copy; the options are about the copy's store."""
    with (
        process(objects, md5=md5) as source,
        process(copied, root=COPY, md5=md5, **options) as target,
    ):
        yield source, target


def private_of(store: HostStore) -> dict[str, bytes]:
    """The log, and all that it names."""
    found = {}
    for folder in (".pipestream/log", ".pipestream/objects"):
        found |= {stat.key: Store.read(store, stat.key).data for stat in store.objects_in(folder)}
    return found


@md5
def test_a_copy_is_the_same_with_all_its_runs(md5: bool) -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied, md5) as (source, target):
        report = copy_dataset(ROOT, COPY)
        assert private_of(target) == private_of(source)
        assert seen(target) == seen(source)
        assert target.read("notes.txt").data == b"ours"
        assert samples_of(COPY) == samples_of(ROOT) == AS_MADE
        keys = [run.run_key for run in list_runs(ROOT)]
        assert [run.run_key for run in list_runs(COPY)] == keys
        log = whole_log(open_store(ROOT))
        log.refresh()
        assert (report.entries, report.gone) == (log.state.position, 0)
    with process(copied, root=COPY, md5=md5):
        undo_run(COPY, "remove")
        undo_run(COPY, "change")
        assert samples_of(COPY) == [(0, 0), (0, 0), (0, 0), (3, 3), (44, 4)]
        assert DataStream.read_write_underfolder(COPY)[0]["factor"]() == 2


@md5
def test_a_copy_is_brought_up_to_date_by_what_came_since(md5: bool) -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied, md5) as (source, target):
        copy_dataset(ROOT, COPY)
        again = copy_dataset(ROOT, COPY)
        assert (again.entries, again.contents, again.files) == (0, 0, 0)
        target.requests.clear()
        written(ROOT, 0, 7, "new")
        Store.put(source, "data/5_left.json", b"5")
        Store.put(source, "data/5_right.json", b"5")
        since = copy_dataset(ROOT, COPY)
        assert (since.contents, since.files) == (4, 2)  # what was there before, too
        assert samples_of(COPY) == samples_of(ROOT) == [(7, 7), *AS_MADE[1:], (5, 5)]
        undo_run(ROOT, "new")
        assert copy_dataset(ROOT, COPY).contents == 0
        assert samples_of(COPY) == samples_of(ROOT) == [(0, 0), *AS_MADE[1:], (5, 5)]


@pytest.mark.slow
@md5
@pytest.mark.parametrize(
    ("is_sync", "is_known"),
    [(False, False), (False, True), (True, False)],
    ids=["new", "new, of a log that the process knows", "brought up to date"],
)
def test_a_copy_that_is_killed_at_any_request_is_a_dataset_and_is_gone_on_with(
    md5: bool, is_sync: bool, is_known: bool
) -> None:
    objects, copied_before = history(), another_memory()
    allowed = [AS_MADE]
    if is_sync:
        with both(objects, copied_before, md5):
            copy_dataset(ROOT, COPY)
            for idx, value in ((1, 8), (0, 9)):
                written(ROOT, idx, value, "more")
                allowed.append(samples_of(ROOT))
    else:
        allowed += EARLIER
    outcomes = set()
    for copied in killed_at_each(objects, copied_before, md5, is_known):
        with both(objects, copied, md5) as (source, target):
            log = whole_log(open_store(COPY))
            log.refresh()
            if log.state.position:
                found = samples_of(COPY)
                outcomes.add(str(found))
                assert found in allowed
            copy_dataset(ROOT, COPY)
            assert private_of(target) == private_of(source)
            assert seen(target) == seen(source)
            assert samples_of(COPY) == samples_of(ROOT)
    assert len(outcomes) >= 3


def killed_at_each(
    objects: MemoryStore, before: MemoryStore, md5: bool, is_known: bool
) -> Iterator[MemoryStore]:
    """What a copy leaves that dies before its n-th request to the target, for each n."""
    for number in itertools.count(1):
        copied, dead = same_as(before), Dead(after=False)
        with both(objects, copied, md5, at=number, happens=dead):
            if is_known:
                list_runs(ROOT)
            with suppress(KilledError):
                copy_dataset(ROOT, COPY)
        if not dead.is_dead:
            assert number > 20
            return
        yield copied


@md5
def test_contents_of_runs_that_were_pruned_since_are_removed_from_a_copy(md5: bool) -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied, md5) as (source, target):
        copy_dataset(ROOT, COPY)
        before = private_of(target)
        prune_runs(ROOT, timedelta(0), keep_last=1)
        copy_dataset(ROOT, COPY)
        assert private_of(target) == private_of(source)
        assert before.keys() - private_of(target).keys()
        assert samples_of(COPY) == samples_of(ROOT) == AS_MADE


def test_a_copy_from_which_runs_are_pruned_meanwhile_is_gone_on_with() -> None:
    objects, copied = history(), another_memory()

    def change_and_prune(is_after: bool) -> None:
        if not is_after:
            with process(objects, md5=True):
                written(ROOT, 1, 9, "late")
                prune_runs(ROOT, timedelta(0))

    with both(objects, another_memory()) as (_, target):
        copy_dataset(ROOT, COPY)
        number = target.requests.index("written data/1_left.json") + 1
    with (
        both(objects, copied, at=number, happens=change_and_prune),
        pytest.raises(DatasetError, match=r"while it was copied\. Repeat the copy: it goes on"),
    ):
        copy_dataset(ROOT, COPY)
    with both(objects, copied) as (source, target):
        copy_dataset(ROOT, COPY)
        assert samples_of(COPY) == samples_of(ROOT)
        assert private_of(target) == private_of(source)


def test_a_copy_that_was_written_to_is_refused_and_left() -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied):
        copy_dataset(ROOT, COPY)
        written(COPY, 0, 5)
        written(ROOT, 0, 6)
        with pytest.raises(DatasetExistsError, match="it was written to, or is another dataset"):
            copy_dataset(ROOT, COPY)
        assert samples_of(COPY)[0] == (5, 5)


def test_something_else_at_the_target_is_left() -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied) as (_, target):
        Store.put(target, "data/0_left.json", b"theirs")
        with pytest.raises(DatasetExistsError, match="there is something already"):
            copy_dataset(ROOT, COPY)
        assert seen(target) == {"0_left.json": b"theirs"}
        Store.delete(target, "data/0_left.json")
        items = {"left": JsonMetadataItem(1)}
        DataStream.create_new_underfolder(COPY).set_output(0, Sample(items))
        with pytest.raises(DatasetExistsError, match="is another dataset"):
            copy_dataset(ROOT, COPY)


def test_a_copy_of_plain_files_is_one_and_no_other() -> None:
    objects, copied, others = MemoryStore(), another_memory(), Address.of("memory://third/parts")
    with both(objects, copied) as (source, target), process(MemoryStore(), root=others) as third:
        Store.put(source, "data/0_left.json", b"1")
        Store.put(third, "data/0_left.json", b"3")
        assert copy_dataset(ROOT, COPY).files == 1
        Store.put(source, "data/0_left.json", b"2")
        assert copy_dataset(ROOT, COPY).files == 1
        assert seen(target) == {"0_left.json": b"2"}
        with pytest.raises(DatasetExistsError, match="it is a copy of memory://bucket/parts"):
            copy_dataset(others, COPY)


def test_a_content_that_is_gone_is_told_where_it_is_needed_and_only_there() -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied) as (source, _):
        log = whole_log(open_store(ROOT))
        log.refresh()
        needed = {ref.object for ref in log.state.refs.values() if ref is not None}
        kept = [s.key for s in source.objects_in(".pipestream/objects")]
        old = [key for key in kept if key.removeprefix(".pipestream/") not in needed]
        Store.delete(source, old[-1])
        assert copy_dataset(ROOT, COPY).gone == 1
        assert samples_of(COPY) == AS_MADE
    copied = another_memory()
    with both(objects, copied) as (source, _):
        lost = next(iter(needed))
        Store.delete(source, f".pipestream/{lost}")
        with pytest.raises(DatasetError, match="that its files are to hold are gone"):
            copy_dataset(ROOT, COPY)


def test_a_content_that_was_damaged_is_not_copied() -> None:
    objects, copied = history(), another_memory()
    with both(objects, copied) as (source, _):
        first = next(iter(source.objects_in(".pipestream/objects"))).key
        Store.put(source, first, b"something else")
        with pytest.raises(DatasetError, match="not the content that it was written with"):
            copy_dataset(ROOT, COPY)


def test_what_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    for source, target in ((tmp_path, ROOT), (ROOT, tmp_path), (str(tmp_path), str(ROOT))):
        with pytest.raises(DatasetError, match=r"this is a folder.*process_samples.*rsync"):
            copy_dataset(source, target)
    for source, target in ((ROOT, ROOT), (ROOT, ROOT / "data"), (ROOT / "x", ROOT)):
        with pytest.raises(DatasetError, match="cannot be copied into itself"):
            copy_dataset(source, target)
    missing = Address.of(f"memory://nothing-{next(NUMBERS)}/parts")
    with pytest.raises(DatasetNotFoundError):
        copy_dataset(missing, COPY)
    with pytest.raises(DatasetError, match="no address of a dataset"):
        copy_dataset("ftp://bucket/parts", COPY)


def test_a_person_copies_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = [f"memory://command-{next(NUMBERS)}/parts" for _ in range(2)]
    items = {"left": JsonMetadataItem(1)}
    DataStream.create_new_underfolder(addresses[0]).set_output(0, Sample(items))
    assert cli.main(["copy", *addresses]) == 0
    assert "1 content, and 0 other files copied" in capsys.readouterr().out
    assert cli.main(["copy", *addresses, "--json"]) == 0
    assert '"entries": 0' in capsys.readouterr().out
    assert cli.main(["copy", *reversed(addresses)]) == 0
    assert cli.main(["copy", addresses[0], "here"]) == 1
    assert "this is a folder" in capsys.readouterr().err
    assert isinstance(copy_dataset(*addresses), CopyReport)
