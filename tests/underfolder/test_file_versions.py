"""What the files of many samples are like, as it is told of each sample that is read."""

import os
from pathlib import Path

import pytest

from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder import Underfolder

SOUND, DOUBLE, GAP, BROKEN, LAST = range(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five samples: two sound ones, and others of which a look at the files does not tell."""
    data = tmp_path / "data"
    data.mkdir()
    for idx in (SOUND, DOUBLE, BROKEN, LAST):
        (data / f"{idx}_label.txt").write_text(f"{idx}\n")
        (data / f"{idx}_metadata.json").write_text("{}")
    (data / f"{DOUBLE}_label.csv").write_text("1\n")
    (data / f"{BROKEN}_label.txt").unlink()
    (data / f"{BROKEN}_label.txt").symlink_to("nowhere")
    (tmp_path / "classes.json").write_text("[]")
    return tmp_path


def as_read(folder: Path, idx: int) -> dict[str, Version | None]:
    """The same of one sample, by reading it; without when it was looked at."""
    _, origin = Underfolder(folder, watch=True).take(idx)
    return without_time({name: source.version for name, source in origin.sources.items()})


def without_time(versions: dict[str, Version | None]) -> dict[str, Version | None]:
    return {n: one and one._replace(read_at_ns=0) for n, one in versions.items()}


def test_they_are_those_of_the_samples_when_they_are_read(folder: Path) -> None:
    found = Underfolder(folder, watch=True).file_versions([LAST, SOUND])
    assert [without_time(dict(one or {})) for one in found] == [
        as_read(folder, LAST),
        as_read(folder, SOUND),
    ]
    assert sorted(found[1] or ()) == ["/classes.json", "0_label.txt", "0_metadata.json"]


def test_nothing_is_told_of_samples_that_have_to_be_read(folder: Path) -> None:
    asked = [SOUND, DOUBLE, GAP, BROKEN, LAST, LAST + 1]
    found = Underfolder(folder, watch=True).file_versions(asked)
    assert [one is not None for one in found] == [True, False, False, False, True, False]


def test_a_shared_item_that_leads_nowhere_leaves_all_samples_to_be_read(folder: Path) -> None:
    (folder / "classes.json").unlink()
    (folder / "classes.json").symlink_to("nowhere")
    assert Underfolder(folder, watch=True).file_versions([SOUND, LAST]) == [None, None]


def test_a_change_and_a_removal_are_seen_by_the_next_question(folder: Path) -> None:
    stream = DataStream.read_write_underfolder(folder)
    before = stream.file_versions([SOUND, LAST])
    assert stream.file_versions([SOUND, LAST]) == before
    os.utime(folder / f"data/{SOUND}_label.txt", ns=(1, 1))
    (folder / f"data/{LAST}_label.txt").unlink()
    first, last = stream.file_versions([SOUND, LAST])
    assert first != before[0]
    assert sorted(last or ()) == ["/classes.json", f"{LAST}_metadata.json"]


def test_samples_of_no_folder_are_to_be_read(folder: Path, tmp_path: Path) -> None:
    assert DataStream.create_output_stream(tmp_path / "new").file_versions([0]) == [None]
    shuffled = SamplesSequence.from_underfolder(folder).slice(stop=1)
    pipe = [{"to_underfolder": {"folder": tmp_path / "new", "exists_ok": True}}]
    assert DataStream(shuffled, pipe).file_versions([SOUND]) == [None]
