"""What the files of many samples are like, as it is told of each sample that is read."""

import os
from pathlib import Path

import pytest

from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.opening import open_dataset
from tests.dataset_files import Files, beside

SOUND, DOUBLE, GAP, LAST = range(4)


@pytest.fixture
def folder(new_place: Place) -> Place:
    """Samples: two sound ones, and between them others of which a look does not tell."""
    files = Files(new_place)
    for idx in (SOUND, DOUBLE, LAST):
        files[f"data/{idx}_label.txt"] = f"{idx}\n".encode()
        files[f"data/{idx}_metadata.json"] = b"{}"
    files[f"data/{DOUBLE}_label.csv"] = b"1\n"
    files["classes.json"] = b"[]"
    return new_place


def as_read(folder: Place, idx: int) -> dict[str, Version | None]:
    """The same of one sample, by reading it; without when it was looked at."""
    _, origin = open_dataset(folder, watch=True).take(idx)
    return without_time({name: source.version for name, source in origin.sources.items()})


def without_time(versions: dict[str, Version | None]) -> dict[str, Version | None]:
    return {n: one and one._replace(read_at_ns=0) for n, one in versions.items()}


def test_they_are_those_of_the_samples_when_they_are_read(folder: Place) -> None:
    found = open_dataset(folder, watch=True).file_versions([LAST, SOUND])
    assert [without_time(dict(one or {})) for one in found] == [
        as_read(folder, LAST),
        as_read(folder, SOUND),
    ]
    assert sorted(found[1] or ()) == ["/classes.json", "0_label.txt", "0_metadata.json"]


def test_nothing_is_told_of_samples_that_have_to_be_read(folder: Place) -> None:
    found = open_dataset(folder, watch=True).file_versions([SOUND, DOUBLE, GAP, LAST, LAST + 1])
    assert [one is not None for one in found] == [True, False, False, True, False]


@pytest.mark.about_files
def test_links_that_lead_nowhere_leave_samples_to_be_read(folder: Path) -> None:
    (folder / f"data/{LAST}_label.txt").unlink()
    (folder / f"data/{LAST}_label.txt").symlink_to("nowhere")
    assert Underfolder(folder, watch=True).file_versions([LAST]) == [None]
    (folder / "classes.json").unlink()
    (folder / "classes.json").symlink_to("nowhere")
    assert Underfolder(folder, watch=True).file_versions([SOUND, LAST]) == [None, None]


@pytest.mark.usefixtures("listed_at_once")
def test_a_change_and_a_removal_are_seen_by_the_next_question(folder: Place) -> None:
    stream, files = DataStream.read_write_underfolder(folder), Files(folder)
    before = stream.file_versions([SOUND, LAST])
    assert stream.file_versions([SOUND, LAST]) == before
    files[f"data/{SOUND}_label.txt"] = b"1000\n"
    del files[f"data/{LAST}_label.txt"]
    first, last = stream.file_versions([SOUND, LAST])
    assert first != before[0]
    assert sorted(last or ()) == ["/classes.json", f"{LAST}_metadata.json"]


@pytest.mark.about_files
def test_a_file_that_was_touched_is_another_version(folder: Path) -> None:
    stream = DataStream.read_write_underfolder(folder)
    before = stream.file_versions([SOUND, LAST])
    os.utime(folder / f"data/{SOUND}_label.txt", ns=(1, 1))
    first, last = stream.file_versions([SOUND, LAST])
    assert first != before[0]
    assert last == before[1]


def test_samples_of_no_dataset_are_to_be_read(folder: Place) -> None:
    new = beside(folder, "new")
    assert DataStream.create_output_stream(new).file_versions([0]) == [None]
    shuffled = SamplesSequence.from_underfolder(folder).slice(stop=1)
    pipe = [{"to_underfolder": {"folder": new, "exists_ok": True}}]
    assert DataStream(shuffled, pipe).file_versions([SOUND]) == [None]
