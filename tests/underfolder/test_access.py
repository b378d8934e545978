"""Who may read a file of a dataset stays as it was, whatever is written in its place."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.items import BmpImageItem, Item, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder.runs.undo import undo_run

from .conftest import make_dataset

pytestmark = pytest.mark.about_files

PRIVATE, SHARED = 0o600, 0o664
IMAGE = "data/000000_image.png"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    old = os.umask(0o027)
    yield
    os.umask(old)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def black(cls: type[Item[Any]] = PngImageItem) -> Item[Any]:
    return cls(np.full((4, 5, 3), 9, np.uint8))


def set_image(folder: Path, item: Item[Any], run_key: str = "run", **options: Any) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key=run_key, **options)
    stream.set_output(0, stream[0].set_item("image", item))


@pytest.mark.parametrize("mode", [PRIVATE, SHARED, 0o444])
def test_a_rewritten_file_keeps_its_mode_and_undo_and_redo_keep_it_too(
    dataset: Path, mode: int
) -> None:
    path = dataset / IMAGE
    path.chmod(mode)
    old = path.read_bytes()

    set_image(dataset, black())
    assert mode_of(path) == mode
    new = path.read_bytes()
    report = undo_run(dataset, "run")
    assert (mode_of(path), path.read_bytes()) == (mode, old)
    undo_run(dataset, report.undo_run_key)
    assert (mode_of(path), path.read_bytes()) == (mode, new)
    assert old != new


def test_undo_restores_the_mode_that_was_changed_with_the_file(dataset: Path) -> None:
    path = dataset / IMAGE
    path.chmod(PRIVATE)
    set_image(dataset, black())
    path.chmod(SHARED)

    undo_run(dataset, "run")
    assert mode_of(path) == PRIVATE
    undo_run(dataset, "undo:run")
    assert mode_of(path) == SHARED


def test_new_files_follow_the_umask(dataset: Path, tmp_path: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(6, Sample({"image": black()}))
    made = DataStream.create_new_underfolder(tmp_path / "new", zfill=6)
    made.set_output(0, Sample({"image": black(), "common": YamlMetadataItem({}, shared=True)}))

    new = tmp_path / "new"
    for path in (dataset / "data/000006_image.png", new / IMAGE, new / "common.yaml"):
        assert mode_of(path) == 0o640
    assert mode_of(new / "data") == 0o750


@pytest.mark.parametrize(
    ("zfill", "item", "name"),
    [
        (None, black(BmpImageItem), "000000_image.bmp"),
        (8, black(), "00000000_image.png"),
    ],
    ids=["another format", "another padding"],
)
def test_what_supersedes_a_file_under_another_name_keeps_its_mode(
    dataset: Path, zfill: int | None, item: Item[Any], name: str
) -> None:
    (dataset / IMAGE).chmod(PRIVATE)
    set_image(dataset, item, zfill=zfill)
    assert not (dataset / IMAGE).exists()
    assert mode_of(dataset / "data" / name) == PRIVATE
    undo_run(dataset, "run")
    assert mode_of(dataset / IMAGE) == PRIVATE


def test_a_private_file_behind_a_link_is_not_rewritten_for_all_to_read(
    dataset: Path, tmp_path: Path
) -> None:
    behind = tmp_path / "behind.png"
    (dataset / IMAGE).rename(behind)
    behind.chmod(PRIVATE)
    (dataset / IMAGE).symlink_to(behind)

    set_image(dataset, black())

    assert not (dataset / IMAGE).is_symlink()
    assert mode_of(dataset / IMAGE) == PRIVATE
    undo_run(dataset, "run")
    assert (dataset / IMAGE).is_symlink()
    assert mode_of(behind) == PRIVATE


@pytest.mark.parametrize(
    ("how", "mode"), [("CREATE_NEW_FILE", PRIVATE), ("DEEP_COPY", PRIVATE), ("HARD_LINK", SHARED)]
)
def test_what_comes_from_another_dataset_keeps_the_mode_unless_it_is_the_same_file(
    dataset: Path, tmp_path: Path, how: str, mode: int
) -> None:
    other = make_dataset(tmp_path / "other")
    (dataset / IMAGE).chmod(PRIVATE)
    (other / "data/000001_image.png").chmod(SHARED)
    item = SamplesSequence.from_underfolder(other)[1]["image"]
    item.serialization_mode = how

    set_image(dataset, item)

    assert mode_of(dataset / IMAGE) == mode
    assert mode_of(other / "data/000001_image.png") == SHARED
    undo_run(dataset, "run")
    assert mode_of(dataset / IMAGE) == PRIVATE


def test_an_item_written_by_itself_keeps_the_mode_of_what_was_there(tmp_path: Path) -> None:
    path, link = tmp_path / "image.png", tmp_path / "link.png"
    black().serialize(path)
    assert mode_of(path) == 0o640
    path.chmod(PRIVATE)
    link.symlink_to(path)
    for target in (path, link):
        PngImageItem(np.ones((4, 5, 3), np.uint8)).serialize(target)
        assert mode_of(target) == PRIVATE
        assert not target.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files any group")
def test_a_rewritten_file_keeps_its_group(dataset: Path) -> None:
    path = dataset / IMAGE
    os.chown(path, -1, 4242)
    path.chmod(0o660)

    set_image(dataset, black())
    assert (path.stat().st_gid, mode_of(path)) == (4242, 0o660)
    undo_run(dataset, "run")
    assert (path.stat().st_gid, mode_of(path)) == (4242, 0o660)
