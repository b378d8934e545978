"""A folder that is no dataset is looked at, and the command that imports it is said."""

import json
import os
import shutil
from pathlib import Path

import pytest

from prefect_pipestream.cli import main
from prefect_pipestream.errors import DatasetError, DatasetNotFoundError
from prefect_pipestream.layouts import LAYOUTS
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.sequences.registry import find_operation
from prefect_pipestream.underfolder import Underfolder, check
from prefect_pipestream.underfolder.checks.other_layouts import layouts_at
from tests.layouts.photos import make_photos

COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def make(folder: Path, kind: str) -> Path:
    """A small folder, or file, of a kind: as much of it as tells."""
    match kind:
        case "images":
            make_photos(folder, "a.jpg", "b.png")
        case "image-folder":
            make_photos(folder, "cat/a.jpg", "dog/b.png")
        case "coco":
            make_photos(folder, "train2017/a.jpg")
            write(folder / "annotations/instances_train2017.json", json.dumps(COCO))
        case "yolo":
            make_photos(folder, "images/train/a.jpg")
            write(folder / "labels/train/a.txt", "0 .5 .5 1 1")
        case "voc":
            make_photos(folder, "JPEGImages/a.jpg")
            write(folder / "Annotations/a.xml", "<annotation/>")
        case "table":
            make_photos(folder, "images/a.jpg")
            write(folder / "labels.csv", "path,label\nimages/a.jpg,cat\n")
            return folder / "labels.csv"
        case "webdataset":
            write(folder / "shard-000.tar")
        case "hf":
            write(folder / "state.json", "{}")
            write(folder / "dataset_info.json", "{}")
    return folder


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_is_known_by_its_looks(kind: str, tmp_path: Path) -> None:
    source = make(tmp_path / "data of mine", kind)
    found = layouts_at(tmp_path / "data of mine")
    assert found[0].kind == kind
    assert found[0].command("set") == f"pipestream import {kind} '{source}' set"
    assert layouts_at(source)[0].kind == kind


def test_voc_is_found_inside_of_its_kit_and_beside_images(tmp_path: Path) -> None:
    kit = make(tmp_path / "VOCdevkit/VOC2012", "voc").parent
    write(kit / "VOC2007/Annotations/b.xml", "<annotation/>")
    assert layouts_at(kit)[0].source == str(kit / "VOC2007")
    beside = make_photos(tmp_path / "beside", "train/a.jpg", "train/b.jpg")
    write(beside / "train/a.xml", "<html/>")
    assert "voc" not in [found.kind for found in layouts_at(beside)]
    write(beside / "train/a.xml", "<annotation/>")
    assert (layouts_at(beside)[0].kind, layouts_at(beside)[0].source) == ("voc", str(beside))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_has_a_source_and_an_exporter(kind: str) -> None:
    from prefect_pipestream.exporting.exporter import exporter_of

    layout = LAYOUTS[kind]  # type: ignore[index]
    assert layout.arguments.keys() <= find_operation(layout.source).model_fields.keys()
    assert exporter_of(kind).model_fields


def test_the_command_looks_and_imports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make(tmp_path / "photos", "image-folder")
    assert main(["import", str(photos)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (
        "looks like `image-folder` (2 images, all of them in folders inside: cat (1), " in shown[0]
    )
    assert shown[1] == f"pipestream import image-folder {photos} DATASET"
    assert shown[3].startswith(f"pipestream import images {photos} DATASET")

    assert main(["import", str(photos), str(tmp_path / "set"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["command"] == f"pipestream import image-folder {photos} {tmp_path / 'set'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_a_folder_that_is_called_as_a_layout_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "images", "images")
    monkeypatch.chdir(tmp_path)
    assert main(["import", "images"]) == 0
    assert "looks like `images`" in capsys.readouterr().out


def test_a_check_of_such_a_folder_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make(tmp_path / "photos", "coco")
    (problem,) = check(photos).problems
    assert problem.kind == "no-data"
    assert f"pipestream import coco {photos} DATASET" in problem.remedy
    assert main(["check", str(photos)]) == 1
    assert f"pipestream import coco {photos} DATASET" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(DatasetNotFoundError, match=r"`pipestream import .*photos` says how"):
        Underfolder(photos)


def test_what_looks_like_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "empty/read.me")
    write(tmp_path / "empty/broken.json", "[" * 100_000)
    write(tmp_path / "empty/other.json", '{"images": 3}')
    assert main(["import", str(tmp_path / "empty")]) == 1
    assert "looks like no layout" in capsys.readouterr().out
    problem = next(p for p in check(tmp_path / "empty").problems if p.kind == "no-data")
    assert problem.remedy == "Give the folder that `data` is in."


def test_a_folder_inside_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "photos/a.jpg")
    flags, name = os.O_RDONLY | os.O_DIRECTORY, "d" * 250
    folder = os.open(tmp_path, flags)
    for _ in range(17):  # a path longer than an operating system takes
        os.mkdir(name, dir_fd=folder)
        folder, above = os.open(name, flags, dir_fd=folder), folder
        os.close(above)
    os.close(folder)
    try:
        for look in (layouts_at, lambda path: SamplesSequence.from_image_folder(path).names):
            with pytest.raises(DatasetError, match="could not be asked for"):
                look(tmp_path)
    finally:
        shutil.rmtree(tmp_path / name)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nowhere"], "nothing is there"),
        (["cocoo", "a", "b"], "is no layout"),
        (["images", "a"], "expected KIND SOURCE DATASET"),
        (["images", "a", "b", "c"], "expected KIND SOURCE DATASET"),
        (["images", "a", "b", "--option", "x"], "expected NAME=VALUE"),
        (["images", "a", "b", "--option", "x=[1"], "is not YAML"),
    ],
)
def test_wrong_words_are_explained(
    words: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *words]) == 2
    assert what in " ".join(capsys.readouterr().err.replace("│", " ").split())
