import errno
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from prefect_pipestream.errors import (
    ConflictError,
    DatasetExistsError,
    DatasetWriteError,
    DuplicateItemError,
    EncodeError,
    ItemNameError,
)
from prefect_pipestream.items import (
    BinaryItem,
    JpegImageItem,
    JsonMetadataItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import Underfolder, UnderfolderWriter, list_runs
from prefect_pipestream.underfolder.format import watched_index
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from tests.dataset_files import Files, beside, has_private_files

from .conftest import contents, run_of, strays


def open_both(folder: Place, **options: object) -> tuple[Underfolder, UnderfolderWriter]:
    dataset = open_dataset(folder, watch=True)
    return dataset, open_writer(folder, exists_ok=True, dataset=dataset, **options)


def white() -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), 255, dtype=np.uint8))


def test_a_written_item_replaces_its_file_and_nothing_else(dataset: Place) -> None:
    before = contents(dataset)
    reader, writer = open_both(dataset)
    items, origin = reader.take(3)
    writer.write(3, {**items, "image": white()}, origin=origin)
    after = contents(dataset)
    assert {name for name in before if before[name] != after[name]} == {"data/000003_image.png"}
    assert after.keys() == before.keys()
    assert reader.read(3)["image"]().mean() == 255


@pytest.mark.about_files
def test_writing_what_is_there_changes_nothing(dataset: Path) -> None:
    before = {path: path.stat() for path in (dataset / "data").iterdir()}
    reader, writer = open_both(dataset)
    for idx in range(6):
        items, origin = reader.take(idx)
        assert writer.write(idx, items, origin=origin) == []
    assert {path: path.stat().st_ino for path in before} == {p: s.st_ino for p, s in before.items()}


def test_a_sample_taken_earlier_shows_the_new_value(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    items, origin = reader.take(3)
    assert items["image"]().mean() == 3
    writer.write(3, {"image": white()}, origin=origin)
    assert items["image"]().mean() == 255
    jpeg = JpegImageItem(np.zeros((4, 5, 3), dtype=np.uint8))
    writer.write(3, {"image": jpeg}, origin=origin)
    assert items["image"]().mean() == 0
    assert "000003_image.jpeg" in Files(dataset).of_sample(3)
    assert "000003_image.png" not in Files(dataset).of_sample(3)


@pytest.mark.about_files
def test_hard_links_of_the_old_file_keep_the_old_content(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    os.link(dataset / "data/000002_image.png", other)
    old = other.read_bytes()
    reader, writer = open_both(dataset)
    writer.write(2, {"image": white()})
    assert other.read_bytes() == old
    assert reader.read(2)["image"]().mean() == 255


@pytest.mark.about_files
def test_an_unchanged_item_is_linked_into_another_dataset(dataset: Path, tmp_path: Path) -> None:
    reader = open_dataset(dataset)
    writer = open_writer(tmp_path / "new", length=lambda: len(reader))
    for idx in reader.indices().tolist():
        writer.write(idx, reader.read(idx))
    for name in ("data/4_image.png", "data/4_label.txt"):
        old = dataset / name.replace("4_", "000004_")
        assert (tmp_path / "new" / name).stat().st_ino == old.stat().st_ino
    assert (tmp_path / "new/common.yml").exists()
    assert strays(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("zfill", "name"), [(None, "000002_image.png"), (2, "02_image.png"), (0, "2_image.png")]
)
def test_zfill_pads_what_is_written_and_leaves_no_second_copy(
    dataset: Place, zfill: int | None, name: str
) -> None:
    _, writer = open_both(dataset, zfill=zfill)
    writer.write(2, {"image": white()})
    assert [one for one in Files(dataset).of_sample(2) if one.endswith("_image.png")] == [name]


def test_a_new_item_is_padded_like_the_names_on_disk(dataset: Place) -> None:
    _, writer = open_both(dataset)
    writer.write(2, {"note": JsonMetadataItem({"a": 1})})
    writer.write(9, {"note": JsonMetadataItem({"a": 1})})
    assert {"data/000002_note.json", "data/000009_note.json"} <= set(Files(dataset))


def test_shared_items_are_written_once_and_never_overwritten(dataset: Place) -> None:
    _, writer = open_both(dataset)
    old = Files(dataset)["common.yml"]
    with pytest.warns(UserWarning, match="stays as it is"):
        writer.write(0, {"common": YamlMetadataItem({"new": 1}, shared=True)})
    writer.write(0, {"more": YamlMetadataItem({"first": 1}, shared=True)})
    with pytest.warns(UserWarning, match="stays as it is"):
        writer.write(1, {"more": YamlMetadataItem({"second": 1}, shared=True)})
    assert Files(dataset)["common.yml"] == old
    assert yaml.safe_load(Files(dataset)["more.yaml"]) == {"first": 1}


def test_keys_choose_what_is_written(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    before = contents(dataset)
    writer.write(1, {"image": white(), "label": TxtNumpyItem(np.array([9]))}, keys=["label"])
    after = contents(dataset)
    assert {n for n in before if before[n] != after[n]} == {"data/000001_label.txt"}
    writer.write(1, {"image": white()}, keys=[])
    assert contents(dataset) == after
    assert reader.read(1)["label"]().tolist() == [9]


@pytest.mark.parametrize("key", ["../up", "a/b", "a.b", ".a", ""])
def test_a_key_that_would_leave_the_folder_is_refused(dataset: Place, key: str) -> None:
    around = dataset if is_address(dataset) else Path(dataset).parent
    before = contents(around)
    _, writer = open_both(dataset)
    writer.claim()
    with pytest.raises(ItemNameError, match="Item key"):
        writer.write(0, {"image": white(), key: white()})
    assert contents(around) == before
    assert strays(dataset) == []


def test_a_value_that_cannot_be_encoded_leaves_all_as_it_was(dataset: Place) -> None:
    before = contents(dataset)
    _, writer = open_both(dataset)
    with pytest.raises(EncodeError, match="Sample 2, item 'bad'"):
        writer.write(2, {"image": white(), "bad": PngImageItem(np.zeros((2, 2), dtype=np.float64))})
    assert contents(dataset) == before
    assert strays(dataset) == []
    writer.write(2, {"image": white()})
    assert contents(dataset) != before


def test_duplicate_items_are_an_error_that_names_both_files(dataset: Place) -> None:
    Files(dataset)["data/2_image.png"] = Files(dataset)["data/000002_image.png"]
    for read in (open_dataset(dataset).read, open_dataset(dataset, watch=True).take):
        with pytest.raises(DuplicateItemError, match=r"\b2_image.png"):
            read(2)
        read(3)


# -- several writers -----------------------------------------------------------------------


def test_another_writers_change_is_a_conflict(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    _, other = open_both(dataset)
    items, origin = reader.take(3)
    value = items["image"]()
    other.write(3, {"image": white()})
    before = contents(dataset)
    with pytest.raises(ConflictError, match="sample 3") as caught:
        writer.write(3, {"image": items["image"].make_new(255 - value)}, origin=origin)
    assert caught.value.indices == [3]
    assert contents(dataset) == before
    items, origin = reader.take(3)
    writer.write(3, {"image": items["image"].make_new(255 - items["image"]())}, origin=origin)
    assert reader.read(3)["image"]().mean() == 0


def test_overwrite_turns_the_check_off(dataset: Place) -> None:
    reader, writer = open_both(dataset, on_conflict="overwrite")
    _, other = open_both(dataset)
    _, origin = reader.take(3)
    other.write(3, {"image": white()})
    writer.write(3, {"image": PngImageItem(np.zeros((4, 5, 3), np.uint8))}, origin=origin)
    assert reader.read(3)["image"]().mean() == 0


def test_a_streams_own_writes_are_no_conflict(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    items, origin = reader.take(3)
    items["image"]()
    for value in (10, 20, 30):
        new = items["image"].make_new(np.full((4, 5, 3), value, dtype=np.uint8))
        writer.write(3, {"image": new}, origin=origin)
    assert reader.read(3)["image"]().mean() == 30


def test_a_rewrite_of_the_same_size_within_one_clock_tick_is_a_conflict(dataset: Place) -> None:
    files = Files(dataset)
    for number in range(30):
        files["data/000001_label.txt"] = b"1\n"
        reader, writer = open_both(dataset)
        items, origin = reader.take(1)
        assert items["label"]().tolist() == [1]
        files["data/000001_label.txt"] = b"2\n"  # in place: of the same size, often the same time
        with pytest.raises(ConflictError):
            writer.write(1, {"label": TxtNumpyItem(np.array([number]))}, origin=origin)


def test_a_file_touched_but_not_changed_is_no_conflict(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    items, origin = reader.take(1)
    items["label"]()
    files = Files(dataset)
    files["data/000001_label.txt"] = files["data/000001_label.txt"]
    writer.write(1, {"label": TxtNumpyItem(np.array([5]))}, origin=origin)


def test_only_the_conflicting_samples_of_a_group_are_left_out(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    _, other = open_both(dataset)
    taken = {idx: reader.take(idx) for idx in range(6)}
    other.write(4, {"image": white()})
    with pytest.raises(ConflictError) as caught, writer.batch() as group:  # noqa: PT012
        for idx, (_, origin) in taken.items():
            group.set_output(
                idx, {"image": PngImageItem(np.full((4, 5, 3), 77, np.uint8))}, None, origin
            )
    assert caught.value.indices == [4]
    assert [reader.read(i)["image"]().mean() for i in range(6)] == [77, 77, 77, 77, 255, 77]
    assert strays(dataset) == []


COUNTER = """
import sys, time
from prefect_pipestream.underfolder import Underfolder, UnderfolderWriter, list_runs
from prefect_pipestream.errors import ConflictError
dataset = Underfolder(sys.argv[1], watch=True)
writer = UnderfolderWriter(sys.argv[1], exists_ok=True, dataset=dataset)
end, done = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    idx = done % 3
    items, origin = dataset.take(idx)
    new = items["label"].make_new(items["label"]() + 1)
    try:
        writer.write(idx, {"label": new}, origin=origin)
    except ConflictError:
        continue
    done += 1
print(done)
"""


def count_with_processes(folder: Place, processes: int, seconds: float) -> tuple[int, int]:
    """Lets processes increment the labels of samples 0 to 2; returns sum and commits."""
    for idx in range(3):
        (folder / f"data/{idx:06d}_label.txt").write_text("0\n")
    command = [sys.executable, "-c", COUNTER, str(folder), str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    commits = sum(int(process.communicate()[0]) for process in running)
    reader = open_dataset(folder)
    return int(sum(reader.read(idx)["label"]()[0] for idx in range(3))), commits


@pytest.mark.about_files
def test_no_increment_of_two_processes_is_lost(dataset: Path) -> None:
    total, commits = count_with_processes(dataset, 2, 2)
    assert total == commits > 20
    assert strays(dataset) == []


@pytest.mark.slow
@pytest.mark.about_files
def test_no_increment_of_four_processes_is_lost(dataset: Path) -> None:
    total, commits = count_with_processes(dataset, 4, 20)
    assert total == commits > 100
    assert strays(dataset) == []


# -- creating a dataset --------------------------------------------------------------------


def test_a_place_where_a_dataset_is_is_refused_at_once(dataset: Place) -> None:
    with pytest.raises(DatasetExistsError, match="exists"):
        open_writer(dataset)


def test_a_folder_that_exists_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetExistsError, match="exists"):
        UnderfolderWriter(tmp_path)


def test_the_run_that_created_a_dataset_goes_on_with_it_and_nobody_else(new_place: Place) -> None:
    writer = open_writer(new_place, run_key="mine")
    assert not has_private_files(new_place)
    assert dict(Files(new_place)) == {}
    writer.write(0, {"image": white()})
    open_writer(new_place, run_key="mine").write(1, {"image": white()})
    pickle.loads(pickle.dumps(writer)).write(2, {"image": white()})
    with pytest.raises(DatasetExistsError, match="'mine'"):
        open_writer(new_place, run_key="other")
    assert len(open_dataset(new_place)) == 3


def test_of_two_runs_that_create_one_dataset_one_gets_it(new_place: Place, tmp_path: Path) -> None:
    for number in range(20):
        place = beside(new_place, f"new{number}")
        both = [open_writer(place, run_key=key) for key in ("a", "b")]
        both[number % 2].claim()
        with pytest.raises(DatasetExistsError):
            both[1 - number % 2].claim()
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


# -- when the disk does not take it ----------------------------------------------------------


@pytest.mark.parametrize("run_key", ["a/b", "..", "", "ü ~ x", "k" * 300, "undo:x"])
def test_any_text_is_a_run_key(dataset: Place, run_key: str) -> None:
    if run_key:
        _, writer = open_both(dataset, run_key=run_key)
        writer.write(0, {"image": white()})
        assert [run.run_key for run in list_runs(dataset)] == [run_key]
        if not is_address(dataset):
            assert len(list((Path(dataset) / ".pipestream/runs").iterdir())) == 1
        assert run_of(dataset, run_key).outcomes()[0].outcome == "written"


def test_a_full_disk_leaves_the_dataset_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs the right to")
    try:
        writer = open_writer(folder, exists_ok=True)
        reader = open_dataset(folder, must_exist=False)
        writer.write(0, {"blob": BinaryItem(b"x" * 1000)})
        before = contents(folder)
        with pytest.raises(DatasetWriteError) as caught:
            writer.write(1, {"a": BinaryItem(b"y" * 100_000), "b": BinaryItem(b"y" * 200_000)})
        assert caught.value.errno == errno.ENOSPC
        assert contents(folder) == before
        filler = folder / "filler.bin"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"z" * 300_000)
        for idx in range(2, 40):
            try:
                writer.write(idx, {"blob": BinaryItem(b"x" * 4096)})
            except DatasetWriteError:
                break
        filler.unlink()
        writer.write(50, {"blob": BinaryItem(b"x" * 1000)})
        assert open_dataset(folder).read(50)["blob"]() == b"x" * 1000
        assert reader.folder == folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.about_files
def test_file_handles_run_out(dataset: Path) -> None:
    code = """
import resource, sys, os
from prefect_pipestream.underfolder import Underfolder, UnderfolderWriter, list_runs
from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import BinaryItem
writer = UnderfolderWriter(sys.argv[1], exists_ok=True)
writer.write(0, {"blob": BinaryItem(b"1")})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for free in range(8):
    try:
        writer.write(0, {"blob": BinaryItem(b"2")})
        break
    except DatasetError as error:
        assert "Too many open files" in str(error), error
    os.close(held.pop())
else:
    raise SystemExit("never written")
assert free > 0
"""
    subprocess.run([sys.executable, "-c", code, str(dataset)], check=True)
    assert open_dataset(dataset).read(0)["blob"]() == b"2"
    assert strays(dataset) == []


# -- watching --------------------------------------------------------------------------------


@pytest.mark.about_files
def test_what_others_do_to_the_folder_is_seen_by_the_next_read(dataset: Path) -> None:
    reader, writer = open_both(dataset)
    data = dataset / "data"
    for number in range(25):
        (data / f"{6 + number:06d}_new{number}.txt").write_text("1\n")
        assert f"new{number}" in reader.read(6 + number)
        writer.write(0, {"label": TxtNumpyItem(np.array([number]))})
        assert reader.take(0)[0]["label"]().tolist() == [number]
        (data / f"000000_extra{number}.txt").write_text("1\n")
        assert f"extra{number}" in reader.take(0)[0]
        (data / f"000000_extra{number}.txt").unlink()
        assert f"extra{number}" not in reader.take(0)[0]
    assert len(reader) == 31


@pytest.mark.about_files
def test_reads_and_writes_do_not_scan_the_folder_again(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_index, "_CHECK_AFTER_S", 600.0)  # when it is looked through again
    reader, writer = open_both(dataset)
    _, other = open_both(dataset)
    reader.take(0)
    time.sleep(0.05)
    reader.take(0)
    index = reader.index()
    for number in range(30):
        _, origin = reader.take(number % 6)
        writer.write(number % 6, {"image": white(), f"k{number}": white()}, origin=origin)
        other.write(number % 6, {f"other{number}": white()})
        assert f"other{number}" in reader.take(number % 6)[0]
    assert reader.index() is index


def test_a_change_to_a_shared_item_that_is_there_is_told(dataset: Place) -> None:
    reader, writer = open_both(dataset)
    items, _ = reader.take(0)
    writer.write(0, items)  # unchanged: nothing to say
    with pytest.warns(UserWarning, match="common.yml is there already and stays"):
        writer.write(0, {"common": items["common"].make_new({"x": 1}, shared=True)})
