"""Links in a dataset: a write replaces a link, it never goes through it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import DatasetError, DecodeError, PipestreamError
from prefect_pipestream.items import BinaryItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder.runs.undo import undo_run

from .folders import changed, image_of, snapshot

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def linked(dataset: Path) -> Path:
    """The dataset, with the image of sample 0 a link to a file outside."""
    path = dataset / "data" / "000_image.png"
    path.unlink()
    path.symlink_to("../../data/000_image.png")
    return dataset


@pytest.mark.parametrize("zfill", [None, 0, 6])
def test_a_write_replaces_a_link_and_not_the_file_outside(zfill: int | None, linked: Path) -> None:
    stream = DataStream.read_write_underfolder(linked, zfill=zfill)
    assert np.array_equal(stream[0]["image"](), image_of(0))
    for _ in range(2):
        stream.set_output(0, stream[0].set_value("image", 255 - stream[0]["image"]()))
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    written = [p for p in (linked / "data").glob("*_image.png") if int(p.name.split("_")[0]) == 0]
    assert [path.is_symlink() for path in written] == [False]
    assert np.array_equal(stream[0]["image"](), image_of(50))


def test_undo_brings_the_link_back(linked: Path) -> None:
    before = snapshot(linked)
    stream = DataStream.read_write_underfolder(linked, run_key="mine")
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    undo_run(linked, "mine")
    assert changed(before, snapshot(linked)) == set()


def test_an_unchanged_link_stays(linked: Path) -> None:
    before = snapshot(linked)
    stream = DataStream.read_write_underfolder(linked)
    stream.set_output(0, stream[0].set_value("meta", {"new": 1}))
    assert changed(before, snapshot(linked)) == {"data/000_meta.yaml"}


def test_a_linked_item_in_another_dataset_does_not_break_with_the_link(
    linked: Path, tmp_path: Path
) -> None:
    for mode in ("HARD_LINK", "SYM_LINK", "DEEP_COPY"):
        target = tmp_path / mode
        SamplesSequence.from_underfolder(linked).to_underfolder(
            target, key_serialization_mode={"image": mode}
        ).run(track_fn=False)
        copy = DataStream.read_write_underfolder(target)
        assert np.array_equal(copy[0]["image"](), image_of(0))
        copy.set_output(0, copy[0].set_value("image", image_of(50)))
        assert not (target / "data" / "0_image.png").is_symlink()


def test_a_hard_link_outside_keeps_its_content(dataset: Path, tmp_path: Path) -> None:
    outside = tmp_path / "hard.png"
    os.link(dataset / "data" / "000_image.png", outside)
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    assert np.array_equal(PngImageItem(outside)(), image_of(0))


def test_a_shared_link_is_never_written_through(dataset: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    YamlMetadataItem({"mine": 1}).serialize(outside)
    (dataset / "camera.yaml").unlink()
    (dataset / "camera.yaml").symlink_to(outside)
    (dataset / "other.yaml").symlink_to(tmp_path / "not there.yaml")
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.warns(UserWarning, match="stays as it is"):
        stream.set_output(0, stream[0].set_value("camera", {"yours": 2}))
    new = Sample({"other": YamlMetadataItem({"yours": 2}, shared=True)})
    with pytest.warns(UserWarning, match="stays as it is"):
        stream.set_output(0, new)
    assert YamlMetadataItem(outside)() == {"mine": 1}
    assert not (tmp_path / "not there.yaml").exists()
    assert (dataset / "camera.yaml").is_symlink()


def test_a_broken_link_is_an_error_and_can_be_replaced(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "data" / "001_image.png"
    path.unlink()
    path.symlink_to(tmp_path / "not there.png")
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(DecodeError, match=r"001_image\.png: is a broken symbolic link"):
        stream[1]["image"]()
    stream.set_output(1, stream[1].set_value("image", image_of(1)))
    assert np.array_equal(stream[1]["image"](), image_of(1))
    assert not (tmp_path / "not there.png").exists()


# -- folders that are links ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", ".pipestream", "staged", "log", "runs"])
def test_a_folder_that_leads_out_of_the_dataset_is_read_and_not_written(
    name: str, dataset: Path, tmp_path: Path
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    below = dataset if name in ("data", ".pipestream") else dataset / ".pipestream"
    elsewhere = tmp_path / "elsewhere"
    (below / name).rename(elsewhere)
    (elsewhere / ".precious").mkdir()
    (elsewhere / ".precious" / "thesis.txt").write_text("not yours")
    (below / name).symlink_to(elsewhere)
    before = snapshot(tmp_path, private=True)

    for open_stream in (DataStream.read_write_underfolder, DataStream.create_output_stream):
        with pytest.raises(DatasetError, match=r"is a symbolic link to .*elsewhere"):
            open_stream(dataset).set_output(0, Sample({"blob": BinaryItem(b"x")}))
    sequence = SamplesSequence.from_underfolder(dataset)
    assert np.array_equal(sequence[0]["image"](), image_of(50))
    with pytest.raises(DatasetError, match="is a symbolic link"):
        sequence.to_underfolder(dataset, exists_ok=True).run(track_fn=False)
    assert changed(before, snapshot(tmp_path, private=True)) == set()


def test_the_dataset_itself_may_be_a_link(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(dataset)
    stream = DataStream.read_write_underfolder(tmp_path / "alias")
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    assert np.array_equal(PngImageItem(dataset / "data" / "000_image.png")(), image_of(50))
    assert (tmp_path / "alias").is_symlink()


@pytest.mark.parametrize("name", ["journal", "lock"])
def test_a_private_file_that_leads_out_is_not_written_through(
    name: str, dataset: Path, tmp_path: Path
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    private = dataset / ".pipestream"
    (tmp_path / "shell profile").write_text("alias ls=ls")
    for target in ("shell profile", "does not exist"):
        (private / name).unlink(missing_ok=True)
        (private / name).symlink_to(tmp_path / target)
        before = snapshot(dataset)
        with pytest.raises(PipestreamError, match=r"Too many levels|symbolic link"):
            DataStream.read_write_underfolder(dataset).set_output(1, stream[2])
        assert changed(before, snapshot(dataset)) == set()
    assert (tmp_path / "shell profile").read_text() == "alias ls=ls"
    assert not (tmp_path / "does not exist").exists()


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_new_journal_is_not_written_through_a_link(
    make: Callable[[Path, Path], None], dataset: Path, tmp_path: Path
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    private = dataset / ".pipestream"
    (private / "journal").write_bytes(b"\n" * 2_000_000)  # the next commit begins a new one
    (tmp_path / "shell profile").write_text("alias ls=ls")
    make(tmp_path / "shell profile", private / "journal.new")
    stream.set_output(1, stream[1].set_value("image", image_of(51)))
    assert (tmp_path / "shell profile").read_text() == "alias ls=ls"
    assert (private / "journal").stat().st_size < 1000


def test_a_copy_of_hard_links_has_a_journal_of_its_own(dataset: Path, tmp_path: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    subprocess.run(["cp", "-al", str(dataset), str(tmp_path / "copy")], check=True)
    before = snapshot(dataset, private=True)
    copy = DataStream.read_write_underfolder(tmp_path / "copy")
    for idx in range(3):
        copy.set_output(idx, copy[idx].set_value("image", image_of(60 + idx)))
        copy.set_output(3 + idx, Sample({"blob": BinaryItem(b"x")}))
    assert changed(before, snapshot(dataset, private=True)) == set()
    assert len(copy) == 6
    assert len(stream) == 3
