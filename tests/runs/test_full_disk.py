"""A disk that is full, read-only or closed to us: a clear error, and the run goes on later."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow
from prefect.runtime import flow_run

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.flows.processing import RunReport, process_samples
from prefect_pipestream.items import PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.tasks import ChunkReport, process_chunk
from prefect_pipestream.underfolder import Run, check, undo_run
from tests.prefect_layer.artifacts import artifact_texts
from tests.runs.datasets import contents, differences, labels
from tests.runs.transforms import count
from tests.underfolder.conftest import strays

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.about_files]

SAMPLES = 60
KEY = "the-run"


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    if not mounted(folder, "size=2m"):
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def noise(idx: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """An image that does not compress: uint8, 80×80×3, some 19 kB."""
    return np.random.default_rng(idx).integers(0, 256, (80, 80, 3), dtype=np.uint8)


def make_large(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for idx in range(SAMPLES):
        PngImageItem(noise(idx)).serialize(folder / f"data/{idx:03d}_image.png")
        TxtNumpyItem(np.array([idx])).serialize(folder / f"data/{idx:03d}_label.txt")
    return folder


def fill(disk: Path) -> Path:
    """Takes all the space of a disk; returns the file that does."""
    ballast = disk / "ballast"
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, bytes(4096))
    os.close(handle)
    return ballast


def change(sample: Sample) -> Sample:
    """Makes a new image as large as the old one, and adds one to the counter."""
    return count(sample).set_value("image", 255 - sample["image"]())


def run_by(folder: Path, chunk_size: int = 5, **options: Any) -> RunReport:
    block = ReadWriteUnderfolder(folder=folder)
    return process_samples(block, change, chunk_size=chunk_size, run_key=KEY, **options)


def assert_each_sample_is_whole(folder: Path, done: set[int]) -> None:
    for idx, label in enumerate(labels(folder)):
        image = PngImageItem(folder / f"data/{idx:03d}_image.png")()
        assert label == idx + (idx in done)
        assert np.array_equal(image, 255 - noise(idx) if idx in done else noise(idx))


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_disk_that_fills_in_the_middle_of_a_flow(disk: Path, tasks_per: Any) -> None:
    folder = make_large(disk / "dataset")
    before = contents(folder)

    with pytest.raises(DatasetWriteError, match=r"No space left on device.*as it was"):
        run_by(folder, tasks_per=tasks_per)

    done = Run.of(folder, KEY).done_indices()
    assert 0 < len(done) < SAMPLES
    text = artifact_texts(f"report-{folder.name}")[0]
    assert "The run stopped before its end: DatasetWriteError" in text
    assert f"**{len(done)} samples**" in text
    assert_each_sample_is_whole(folder, done)
    assert sum(Run.of(folder, KEY).counts().values()) == len(done)

    with pytest.raises(DatasetWriteError, match="No space left on device"):
        run_by(folder, tasks_per=tasks_per)  # there is still no room
    assert_each_sample_is_whole(folder, Run.of(folder, KEY).done_indices())

    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    report = run_by(folder, tasks_per=tasks_per)

    assert report.counts == {
        "written": SAMPLES,
        "unchanged": 0,
        "skipped": 0,
        "failed": 0,
        "removed": 0,
    }
    assert_each_sample_is_whole(folder, set(range(SAMPLES)))
    assert check(folder).ok
    assert strays(folder) == []
    undo_run(folder, KEY)
    assert differences(contents(folder), before) == []


def test_disk_without_a_byte_left(disk: Path) -> None:
    folder = make_large(disk / "dataset")
    before = contents(folder)
    ballast = fill(disk)

    with pytest.raises(DatasetWriteError, match="No space left on device"):
        run_by(folder)
    stream = DataStream.read_write_underfolder(folder)
    with pytest.raises(DatasetWriteError, match="No space left on device"):
        stream.set_output(0, change(stream[0]))
    assert differences(contents(folder), before) == []
    with pytest.raises(DatasetWriteError, match="No space left on device"):
        DataStream.create_new_underfolder(disk / "new")
    assert sorted(path.name for path in disk.iterdir()) == ["ballast", "dataset"]

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    assert run_by(folder).counts["written"] == SAMPLES


def test_disk_that_fills_while_it_is_undone(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    folder = make_large(disk / "dataset")
    before = contents(folder)
    run_by(folder)
    ballast = fill(disk)

    with contextlib.suppress(DatasetWriteError):  # links may be had where bytes are not
        undo_run(folder, KEY)
    assert_each_sample_is_whole(folder, {i for i, label in enumerate(labels(folder)) if label > i})
    ballast.unlink()

    if contents(folder) != before:
        undo_run(folder, KEY)
    assert differences(contents(folder), before) == []
    assert check(folder).ok


def test_disk_that_becomes_read_only(disk: Path) -> None:
    folder = make_large(disk / "dataset")
    before = contents(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with pytest.raises(DatasetWriteError, match="Read-only file system"):
        run_by(folder)
    stream = DataStream.read_write_underfolder(folder)
    assert int(stream[3]["label"]()[0]) == 3
    with pytest.raises(DatasetWriteError, match="Read-only file system"):
        stream.set_output(3, change(stream[3]))

    subprocess.run(["mount", "-o", "remount,rw,size=20m", str(disk)], check=True)
    assert differences(contents(folder), before) == []
    assert run_by(folder).counts["written"] == SAMPLES


def test_read_only_source_is_read(disk: Path, tmp_path: Path) -> None:
    folder = make_large(disk / "dataset")
    run_by(folder, indices=[0, 1])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    new = CreateNewUnderfolder(folder=tmp_path / "new", zfill=3)
    report = process_samples(ReadWriteUnderfolder(folder=folder), ["identity"], new)

    assert report.counts["written"] == SAMPLES
    assert labels(tmp_path / "new") == labels(folder)


@contextlib.contextmanager
def few_file_handles(more: int) -> Iterator[None]:
    """Lets this process open only some more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_file_handles() -> Iterator[None]:
    """Takes all the file handles that this process may have."""
    with few_file_handles(2):
        taken = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            yield
        finally:
            for handle in taken:
                os.close(handle)


def test_no_file_handles_left(dataset: Path) -> None:
    before = contents(dataset)
    stream = DataStream.read_write_underfolder(dataset, run_key=KEY)
    sample = count(stream[0])
    stream.set_output(11, count(stream[11]))

    with no_file_handles(), pytest.raises(DatasetError, match="Too many open"):
        stream.set_output(0, sample)
    with no_file_handles(), pytest.raises(DatasetError, match="Too many open"):
        DataStream.read_write_underfolder(dataset).set_output(0, sample)

    assert labels(dataset) == [*range(11), 12]
    stream.set_output(0, sample)
    assert labels(dataset) == [1, *range(1, 11), 12]
    undo_run(dataset, KEY)
    assert differences(contents(dataset), before) == []
    assert strays(dataset) == []


def test_file_handles_that_run_out_in_a_chunk(dataset: Path) -> None:
    taken = contextlib.ExitStack()
    attempts: list[str] = []

    def takes_them_once(sample: Sample) -> Sample:
        if int(sample["label"]()[0]) == 6 and len(attempts) == 1:
            attempts.append("")
            taken.enter_context(no_file_handles())
        return count(sample)

    @flow(retries=1)
    def run() -> ChunkReport:
        attempts.append(str(flow_run.id))
        with taken:
            block = ReadWriteUnderfolder(folder=dataset)
            return process_chunk(block, takes_them_once, range(12), sample_retries=0)

    report = run()

    assert attempts == [attempts[0], "", attempts[0]]
    assert report.counts["written"] == 12
    assert labels(dataset) == [idx + 1 for idx in range(12)]
    assert check(dataset).ok
