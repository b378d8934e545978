"""Folders that are missing, closed, read-only or full: a clear error, and all is as it was."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    DatasetWriteError,
    DecodeError,
    PipestreamError,
)
from prefect_pipestream.items import BinaryItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

from .folders import changed, image_of, make_dataset, snapshot

ROOT = Path(__file__).parents[2]

BLOB = Sample({"blob": BinaryItem(b"x")})

Opener = Callable[[Path], Any]
READERS: list[Opener] = [SamplesSequence.from_underfolder, DataStream.read_write_underfolder]


# -- missing, or something else ------------------------------------------------------------


@pytest.mark.parametrize("open_folder", READERS)
def test_a_missing_folder_is_an_error_that_names_it(open_folder: Opener, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"nowhere"):
        open_folder(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("open_folder", READERS)
def test_a_folder_without_samples_is_not_taken_for_an_empty_dataset(
    open_folder: Opener, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "datasets" / "mine")
    with pytest.raises(DatasetNotFoundError, match=r"datasets/data.*Give the folder that holds"):
        open_folder(tmp_path / "datasets")
    with pytest.raises(DatasetNotFoundError, match=r"mine/data/data"):
        open_folder(tmp_path / "datasets" / "mine" / "data")


@pytest.mark.parametrize("what", ["root", "data"])
def test_a_file_in_place_of_a_folder_is_an_error(what: str, dataset: Path) -> None:
    path = dataset if what == "root" else dataset / "data"
    shutil.rmtree(path)
    path.write_text("a file")
    for open_folder in READERS:
        with pytest.raises(DatasetNotFoundError, match=str(path)):
            open_folder(dataset)
    with pytest.raises(PipestreamError, match=str(path)):
        DataStream.create_output_stream(dataset).set_output(0, BLOB)
    with pytest.raises(PipestreamError, match=str(path)):
        DataStream.read_write_underfolder(dataset, must_exist=False).set_output(0, BLOB)
    assert path.read_text() == "a file"


def test_a_parent_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for open_folder in READERS:
        with pytest.raises(DatasetNotFoundError):
            open_folder(tmp_path / "file" / "set")
    for create in (DataStream.create_new_underfolder, DataStream.create_output_stream):
        with pytest.raises(DatasetWriteError, match=r"Not a directory|File exists"):
            create(tmp_path / "file" / "set").set_output(0, BLOB)
    with pytest.raises(DatasetError, match="too long"):
        DataStream.create_output_stream(tmp_path / ("x" * 300)).set_output(0, BLOB)


def test_a_link_to_nowhere_is_an_error_and_nothing_is_made_there(tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to(tmp_path / "nowhere")
    for open_folder in READERS:
        with pytest.raises(DatasetNotFoundError):
            open_folder(tmp_path / "set")
    for create in (DataStream.create_new_underfolder, DataStream.create_output_stream):
        with pytest.raises(DatasetError):
            create(tmp_path / "set").set_output(0, BLOB)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_dataset_that_exists_is_not_created_again(dataset: Path) -> None:
    before = snapshot(dataset)
    with pytest.raises(DatasetExistsError, match=str(dataset)):
        DataStream.create_new_underfolder(dataset)
    assert changed(before, snapshot(dataset)) == set()


@pytest.mark.parametrize("what", ["root", "data", "sample"])
def test_what_vanishes_while_the_stream_is_open_is_seen(what: str, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[1]
    assert len(stream) == 3
    if what == "sample":
        for path in (dataset / "data").glob("001_*"):
            path.unlink()
        assert sorted(stream[1]) == ["camera"]
    else:
        shutil.rmtree(dataset if what == "root" else dataset / "data")
        assert len(stream) == 0
        with pytest.raises(IndexError):
            stream[1]
    with pytest.raises(PipestreamError, match=r"001_image\.png: there is no such file"):
        sample["image"]()
    with pytest.raises((ConflictError, DecodeError)):
        stream.set_output(1, sample.set_value("image", image_of(5)))


# -- read-only -----------------------------------------------------------------------------


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Lets nobody change a file or folder, not even root."""
    made = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"chattr +i is not possible here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@contextmanager
def mounted(*arguments: str, folder: Path) -> Iterator[None]:
    """Mounts at a folder."""
    made = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not possible here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only_mount(folder: Path) -> Iterator[None]:
    """Mounts a folder over itself, read-only."""
    with mounted("--bind", str(folder), folder=folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield


@pytest.mark.parametrize("was_written", [False, True])
def test_a_read_only_file_system_is_read_and_a_write_is_a_clear_error(
    was_written: bool, dataset: Path
) -> None:
    if was_written:
        DataStream.read_write_underfolder(dataset).set_output(3, BLOB)
    before = snapshot(dataset.parent, private=True)
    with read_only_mount(dataset):
        stream = DataStream.read_write_underfolder(dataset)
        assert np.array_equal(stream[0]["image"](), image_of(0))
        for attempt in (
            lambda: stream.set_output(0, stream[0].set_value("image", image_of(5))),
            lambda: DataStream.create_output_stream(dataset).set_output(9, BLOB),
            lambda: DataStream.create_new_underfolder(dataset / "new").set_output(0, BLOB),
        ):
            with pytest.raises(DatasetWriteError, match="Read-only file system") as caught:
                attempt()
            assert caught.value.errno == errno.EROFS
            assert str(dataset) in str(caught.value)
        assert np.array_equal(stream[0]["image"](), image_of(0))
    assert changed(before, snapshot(dataset.parent, private=True)) == set()
    stream.set_output(0, stream[0].set_value("image", image_of(5)))
    assert np.array_equal(stream[0]["image"](), image_of(5))


@pytest.mark.parametrize("name", ["", "data", ".pipestream/log"])
def test_a_folder_that_may_not_be_changed_leaves_all_as_it_was(name: str, dataset: Path) -> None:
    first = DataStream.read_write_underfolder(dataset)
    first.set_output(0, first[0].set_value("image", image_of(4)))
    before = snapshot(dataset)
    for stream in (first, DataStream.read_write_underfolder(dataset)):
        sample = stream[0].set_value("image", image_of(5)).set_value("meta", {"new": 1})
        new_shared = sample.set_item("new", BinaryItem(b"x", shared=True))
        with immutable(dataset / name):
            assert np.array_equal(stream[0]["image"](), image_of(4))
            if name:
                with pytest.raises(DatasetWriteError, match="Operation not permitted"):
                    stream.set_output(0, sample)
            with pytest.raises(DatasetWriteError, match="Operation not permitted"):
                stream.set_output(0, new_shared)
            assert changed(before, snapshot(dataset)) == set()
        assert DataStream.read_write_underfolder(dataset)[0]["meta"]() == {"number": 0}
        assert changed(before, snapshot(dataset)) == set()


def test_one_file_that_may_not_be_changed_leaves_its_sample_as_it_was(dataset: Path) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with immutable(dataset / "data" / "001_image.png"):
        new = {"image": image_of(9), "meta": {"new": 1}}
        sample = stream[1].set_value("meta", new["meta"]).set_value("image", new["image"])
        with pytest.raises(DatasetWriteError, match=r"001_image\.png") as caught:
            stream.set_output(1, sample)
        assert caught.value.errno == errno.EPERM
        assert changed(before, snapshot(dataset)) == set()
        stream.set_output(1, stream[1].set_value("meta", new["meta"]))
        stream.set_output(2, stream[2].set_value("image", new["image"]))
    assert changed(before, snapshot(dataset)) == {"data/001_meta.yaml", "data/002_image.png"}


# -- full ----------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=512k", "tmpfs", folder=small):
        dataset = make_dataset(small / "set")
        stream = DataStream.read_write_underfolder(dataset)
        stream.set_output(0, stream[0].set_value("meta", {"first": 1}))
        before = snapshot(dataset)
        noise = np.random.default_rng(0).bytes(400_000)
        big = stream[1].set_value("meta", {"new": 1}).set_item("blob", BinaryItem(noise))
        with pytest.raises(DatasetWriteError, match=r"Sample 1.*No space left") as caught:
            stream.set_output(1, big.set_item("blob2", BinaryItem(noise)))
        assert caught.value.errno == errno.ENOSPC
        assert changed(before, snapshot(dataset)) == set()

        (small / "filler").write_bytes(b"x" * 200_000)
        written = _fill(stream)
        after = snapshot(dataset)
        assert changed(before, after) == {f"data/{idx:03d}_blob.bin" for idx in written}
        assert all(len(stream[idx]["blob"]()) == 20_000 for idx in written)
        assert np.array_equal(stream[1]["image"](), image_of(1))

        (small / "filler").unlink()
        stream.set_output(1, stream[1].set_value("meta", {"room": 1}))
        assert DataStream.read_write_underfolder(dataset)[1]["meta"]() == {"room": 1}


def _fill(stream: DataStream) -> list[int]:
    written: list[int] = []
    for idx in range(10, 100):
        try:
            stream.set_output(idx, Sample({"blob": BinaryItem(b"y" * 20_000)}))
        except DatasetWriteError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 # it comes after some writes
            return written
        written.append(idx)
    raise AssertionError("the disk was never full")


# -- permissions of another user -----------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A dataset that every user can read and nobody but its owner write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        dataset = make_dataset(Path(folder) / "set")
        for path in (dataset, *dataset.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            yield dataset
        finally:
            for path in (dataset, *dataset.rglob("*")):
                path.chmod(0o755)


def ask_stranger(action: str, folder: Path, own: Path) -> Any:
    command = [sys.executable, "-m", "tests.bad_input.stranger", action, str(folder), str(own)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_another_user_reads_a_dataset_and_cannot_write_it(public: Path, tmp_path: Path) -> None:
    before = snapshot(public, private=True)
    assert ask_stranger("read", public, tmp_path / "1") == []
    for action in ("write", "write_new"):
        answer = ask_stranger(action, public, tmp_path / action)
        assert "DatasetWriteError" in answer["error"]
        assert "Permission denied" in answer["message"]
        assert str(public) in answer["message"]
    assert changed(before, snapshot(public, private=True)) == set()


def test_one_unreadable_file_is_an_error_of_its_item_alone(public: Path, tmp_path: Path) -> None:
    (public / "data" / "001_image.png").chmod(0)
    [[key, error, message]] = ask_stranger("read", public, tmp_path)
    assert (key, error) == ("image", "DecodeError")
    assert "001_image.png: cannot be read (Permission denied)" in message


@pytest.mark.parametrize("name", ["", "data"])
@pytest.mark.parametrize("action", ["read", "length", "write"])
def test_a_closed_folder_is_a_clear_error(
    name: str, action: str, public: Path, tmp_path: Path
) -> None:
    (public / name).chmod(0)
    try:
        answer = ask_stranger(action, public, tmp_path)
    finally:
        (public / name).chmod(0o755)
    assert "DatasetError" in answer["error"]
    assert str(public / name) in answer["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave the stranger nothing to read")
def test_an_unreadable_private_folder_does_not_hinder_reading(public: Path, tmp_path: Path) -> None:
    stream = DataStream.read_write_underfolder(public)
    stream.set_output(0, stream[0].set_value("image", image_of(5)))
    (public / ".pipestream").chmod(0)
    assert ask_stranger("read", public, tmp_path / "1") == []
    assert "DatasetWriteError" in ask_stranger("write", public, tmp_path / "2")["error"]
