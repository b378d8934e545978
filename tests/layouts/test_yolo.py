"""YOLO data sets as Ultralytics lays them out: imported, exported, and imported again."""

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DecodeError,
    PipeBuildingError,
)
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.sequences.sources.yolo_labels import (
    LabelError,
    Pose,
    geometry_of,
    line_of,
    object_of,
)

BOX = "0 0.5 0.5 0.25 0.3333"
POLYGON = "1 0.10 0.1 0.3 0.1 0.200000 0.5"


def picture(path: Path, width: int = 53, height: int = 37) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    iio.imwrite(path, rng.integers(0, 255, (height, width, 3), np.uint8))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits, boxes and polygons, an image without labels and one with an empty file."""
    root = tmp_path / "set"
    for name in ("train/1", "train/2", "train/10", "val/a", "val/b"):
        picture(root / f"images/{name}.jpg")
    put(root / "labels/train/1.txt", f"{BOX}\n{POLYGON}\n")
    put(root / "labels/train/2.txt", f"{BOX}\n")
    put(root / "labels/val/a.txt", "")
    put(root / "labels/train/10.txt", "1  1 1 0 0\n")
    put(root / "data.yaml", "train: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n")
    return root


def read(folder: Path, **options: Any) -> SamplesSequence:
    return SamplesSequence.from_yolo(folder, origin="here", **options)


def everything(sequence: SamplesSequence) -> list[dict[str, Any]]:
    """All that samples have, images by the bytes of their files."""
    found = []
    for sample in sequence:
        values = {key: item() for key, item in sample.items() if key != "image"}
        image = sample["image"].file_sources[0].path
        found.append({**values, "image": (Path(image).suffix, Path(image).read_bytes())})
    return found


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# -- in --------------------------------------------------------------------------------------


def test_objects_are_as_coco_has_them(folder):
    sample = read(folder)[0]
    box, polygon = sample["annotations"]()
    assert box == {
        "label": "cat",
        "category_id": 0,
        "bbox": [19.875, 12.33395, 13.25, 12.3321],
        "area": 13.25 * 12.3321,
        "iscrowd": 0,
        "yolo": BOX,
    }
    assert polygon["segmentation"] == [[5.3, 3.7, 15.9, 3.7, 10.6, 18.5]]
    assert polygon["bbox"] == pytest.approx([5.3, 3.7, 10.6, 14.8])
    assert polygon["area"] == pytest.approx(10.6 * 14.8 / 2)
    assert sample["categories"]() == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert sample["categories"].is_shared
    assert sample["metadata"]() == {
        "name": "1",
        "file": "images/train/1.jpg",
        "origin": "here",
        "split": "train",
        "label_file": "labels/train/1.txt",
        "width": 53,
        "height": 37,
    }


def test_the_order_is_natural_and_no_labels_are_not_empty_labels(folder):
    found = [(s["metadata"]()["file"], s["metadata"]()["label_file"]) for s in read(folder)]
    assert found == [
        ("images/train/1.jpg", "labels/train/1.txt"),
        ("images/train/2.jpg", "labels/train/2.txt"),
        ("images/train/10.jpg", "labels/train/10.txt"),
        ("images/val/a.jpg", "labels/val/a.txt"),
        ("images/val/b.jpg", None),
    ]
    assert [s["annotations"]() for s in read(folder)][3:] == [[], []]


def picture_on_its_side(path: Path) -> None:
    """20 pixels wide and 40 high as it is seen, and 40 by 20 as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)


def test_a_picture_on_its_side_has_its_labels_as_it_is_seen(folder):
    picture_on_its_side(folder / "images/train/2.jpg")
    sample = read(folder)[1]
    assert sample["annotations"]()[0]["bbox"] == [7.5, 13.334, 5.0, 13.332]
    facts = sample["metadata"]()
    assert (facts["width"], facts["height"]) == (20, 40)


def without_size(sample: Sample) -> Sample:
    facts = sample["metadata"]()
    return sample.set_value("metadata", {key: facts[key] for key in ("name", "file", "split")})


@pytest.mark.parametrize("change", [None, without_size], ids=["known", "asked"])
@pytest.mark.parametrize("inverted", [False, True])
def test_all_that_comes_of_a_picture_on_its_side_is_as_it_is_seen(
    folder, tmp_path, change, inverted
):
    picture_on_its_side(folder / "images/train/2.jpg")
    sample = read(folder)[1]
    if inverted:  # the new file has the EXIF of the old one
        image = sample["image"]
        sample = sample.set_item("image", image.make_new(255 - image()))
    samples = SamplesSequence.from_list([sample if change is None else change(sample)])
    (masked,) = samples.map({"annotations-to-mask": {"background": 255}})
    mask = masked["mask"]()
    assert mask.shape == (40, 20)
    assert (np.argwhere(mask == 0).min(axis=0) == (13, 8)).all()
    export(samples, "coco", tmp_path / "coco")
    (path,) = (tmp_path / "coco/annotations").iterdir()
    (entry,) = json.loads(path.read_text())["images"]
    assert (entry["width"], entry["height"]) == (20, 40)
    export(samples, "voc", tmp_path / "voc")
    (path,) = (tmp_path / "voc/Annotations").rglob("*.xml")
    assert "<width>20</width>" in path.read_text()
    assert "<depth>3</depth>" in path.read_text()
    export(samples, "yolo", tmp_path / "yolo")
    (path,) = (tmp_path / "yolo/labels").rglob("*.txt")
    assert path.read_text() == f"{BOX}\n"


def test_a_picture_on_its_side_in_a_shard_is_as_it_is_seen(folder, tmp_path):
    picture_on_its_side(folder / "images/train/2.jpg")
    export(read(folder)[1:2].map(without_size), "webdataset", tmp_path / "shards")
    export(SamplesSequence.from_webdataset(tmp_path / "shards"), "coco", tmp_path / "coco")
    (path,) = (tmp_path / "coco/annotations").iterdir()
    (entry,) = json.loads(path.read_text())["images"]
    assert (entry["width"], entry["height"]) == (20, 40)


def test_objects_that_were_drawn_on_a_picture_on_its_side_as_it_is_stored_fail(folder, tmp_path):
    picture_on_its_side(folder / "images/train/2.jpg")
    sample = read(folder)[1].deep_set("metadata.width", 40).deep_set("metadata.height", 20)
    with pytest.raises(ExportError, match=r"drawn on a picture of 40×20.*is seen as 20×40"):
        export(SamplesSequence.from_list([sample]), "yolo", tmp_path / "out")


def test_a_png_whose_pixels_are_damaged_has_a_size_all_the_same(folder):
    (folder / "images/train/2.jpg").unlink()
    picture(folder / "images/train/2.png")
    path = folder / "images/train/2.png"
    path.write_bytes(path.read_bytes()[:200])
    assert read(folder)[1]["annotations"]()[0]["bbox"][0] == 19.875


@pytest.mark.parametrize(
    "said",
    [
        "path: /content/of/another/machine\ntrain: images/train\nval: images/val\n",
        "path: .\ntrain: [images/train]\nval: ./images/val\ntest:\n",
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\n",  # Roboflow's
        "path: /content/x\ntrain: train.txt\nval: /content/x/images/val\n",
        "path: nowhere\ntrain: absolute.txt\nval: images/val/\n",
    ],
)
def test_splits_are_found_whatever_the_description_is_relative_to(folder, said):
    names = ("1", "2", "10")
    put(folder / "train.txt", "".join(f"./images/train/{name}.jpg\n" for name in names))
    put(folder / "absolute.txt", "\n".join(f"{folder}/images/train/{name}.jpg" for name in names))
    expected = [sample["metadata"]()["split"] for sample in read(folder)]
    put(folder / "data.yaml", f"{said}names: {{0: cat, 1: dog}}\n")
    assert [sample["metadata"]()["split"] for sample in read(folder)] == expected


def test_a_description_beside_the_folder_is_one_too(folder, tmp_path):
    (folder / "data.yaml").unlink()
    put(tmp_path / "set.yaml", "path: set\ntrain: images/train\nval: images/val\nnames: [a, b]\n")
    assert read(tmp_path / "set.yaml")[0]["metadata"]()["file"] == "set/images/train/1.jpg"
    assert read(tmp_path / "set.yaml")[0]["annotations"]()[0]["label"] == "a"
    inside = folder / "deep/data.yaml"
    put(inside, "path: ..\ntrain: images/train\nval: images/val\nnames: [a, b]\n")
    with pytest.raises(DatasetError, match=r"outside of .*`root`"):
        len(read(inside))
    assert len(read(inside, root=folder)) == 5


def test_an_image_in_two_splits_is_one_sample(folder):
    put(folder / "data.yaml", "train: images/train\nval: images/train\nnames: [cat, dog]\n")
    assert len(read(folder)) == 3
    assert read(folder)[0]["metadata"]()["splits"] == ["train", "val"]
    assert read(folder)[0]["metadata"]()["split"] == "train"


def test_without_a_description_folders_tell_splits_and_a_file_the_classes(folder, tmp_path):
    (folder / "data.yaml").unlink()
    assert read(folder)[0]["categories"]() == [{"id": 0, "name": "0"}, {"id": 1, "name": "1"}]
    put(folder / "classes.txt", "cat\ndog\nfish\n")
    assert [one["name"] for one in read(folder)[0]["categories"]()] == ["cat", "dog", "fish"]
    assert [s["metadata"]()["split"] for s in read(folder)] == ["train"] * 3 + ["val"] * 2
    other = tmp_path / "other"
    for split in ("train", "valid"):
        picture(other / split / "images/x.png")
        put(other / split / "labels/x.txt", BOX)
    assert [s["metadata"]()["split"] for s in read(other)] == ["train", "val"]
    assert [len(s["annotations"]()) for s in read(other)] == [1, 1]


def test_keypoints_are_read(folder):
    put(
        folder / "data.yaml",
        "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n",
    )
    for name in ("1", "2", "10"):
        put(folder / f"labels/train/{name}.txt", "0 0.5 0.5 0.2 0.2 0.1 0.2 2 0 0 0\n")
    sample = read(folder)[0]
    assert sample["annotations"]()[0]["keypoints"] == [5.3, 7.4, 2, 0.0, 0.0, 0]
    assert sample["categories"]()[0]["kpt_shape"] == [2, 3]
    put(folder / "labels/train/1.txt", "0 0.5 0.5 0.2 0.2 0.1 0.2 2\n")
    with pytest.raises(DecodeError, match=r"1\.txt, line 1: .* 10 numbers .*, not 7"):
        read(folder)[0]


def test_a_sample_is_told_apart_by_what_is_said_of_it_alone(folder):
    def versions() -> dict[str, Any]:
        return {
            sample["metadata"]()["file"]: {
                name.partition("_")[2]: source.version[:2]
                for name, source in sample.origin.sources.items()
            }
            for sample in read(folder)
        }

    before = versions()
    picture(folder / "images/train/0.jpg")
    put(folder / "labels/train/2.txt", f"{BOX}\n{BOX}\n")
    put(folder / "labels/val/b.txt", "")
    after = versions()
    changed = {name for name, version in before.items() if after[name] != version}
    assert changed == {"images/train/2.jpg", "images/val/b.jpg"}


# -- there and back --------------------------------------------------------------------------


def test_the_files_come_back_as_they_were(folder, tmp_path):
    read(folder).to_underfolder(tmp_path / "dataset").run(track_fn=False)
    dataset = SamplesSequence.from_underfolder(tmp_path / "dataset")
    report = export(dataset, "yolo", tmp_path / "out")
    assert (report.samples, report.failures) == (5, {})
    assert files(tmp_path / "out") == files(folder)
    assert everything(read(tmp_path / "out")) == everything(read(folder))


@pytest.mark.parametrize(
    "said",
    [
        "train: images/train\nval: images/train\nnames: [cat, dog]\n",
        "val: images/train\ntest: images/val\nnames: {0: cat, 1: cat}\n",
        "train: [images/train/1.txt, images/val]\nval: images/train\nnames: ['no', '007']\n",
        "names: [cat, dog]\n",
        "nc: 2\n",
        None,
    ],
)
def test_samples_come_back_whatever_the_splits(folder, tmp_path, said):
    put(folder / "images/train/1.txt", "./1.jpg\n./10.jpg\n")
    (folder / "data.yaml").unlink()
    if said is not None:
        put(folder / "data.yaml", said)
    export(read(folder), "yolo", tmp_path / "out")
    assert everything(read(tmp_path / "out")) == everything(read(folder))


def test_classes_without_any_object_come_back(folder, tmp_path):
    shutil.rmtree(folder / "labels")
    export(read(folder), "yolo", tmp_path / "out")
    assert files(tmp_path / "out") == files(folder)


def test_flat_folders_and_pictures_of_one_stem_come_back(tmp_path):
    folder = tmp_path / "flat"
    for name in ("a.jpg", "a.png", "b.JPG"):
        picture(folder / name)
    put(folder / "a.txt", f"{BOX}\n")
    put(folder / "classes.txt", "cat\n")
    export(read(folder), "yolo", tmp_path / "out")
    assert everything(read(tmp_path / "out")) == everything(read(folder))


def test_keypoints_come_back(folder, tmp_path):
    put(
        folder / "data.yaml",
        "train: images/train\nnc: 1\nnames: [cat]\nkpt_shape: [2, 2]\nflip_idx: [1, 0]\n",
    )
    for name in ("1", "2", "10"):
        put(folder / f"labels/train/{name}.txt", "0 0.5 0.5 0.2 0.2 0.10 0.2 0 0\n")
    export(read(folder), "yolo", tmp_path / "out")
    assert everything(read(tmp_path / "out")) == everything(read(folder))
    assert (tmp_path / "out/data.yaml").read_bytes() == (folder / "data.yaml").read_bytes()


sizes = st.tuples(st.integers(1, 9000), st.integers(1, 9000))
shares = st.floats(0, 1)


@st.composite
def labels(draw: st.DrawFn) -> tuple[str, Pose | None]:
    form = draw(st.sampled_from(["box", "polygon", "pose"]))
    pose = Pose(draw(st.integers(1, 4)), draw(st.sampled_from([2, 3]))) if form == "pose" else None
    count = draw(st.integers(3, 6)) * 2 if form == "polygon" else 4
    numbers = [repr(draw(shares)) for _ in range(count)]
    for _ in range(pose.points if pose else 0):
        point = [f"{draw(shares):.{draw(st.integers(1, 9))}f}" for _ in range(2)]
        numbers += point + [str(draw(st.integers(0, 2)))] * (pose.numbers - 2)
    return f"{draw(st.integers(0, 2))} {' '.join(numbers)}", pose


@given(labels(), sizes)
def test_any_line_comes_back_as_it_was(label, size):
    line, pose = label
    found = object_of(line, size, {0: "a", 1: "b", 2: "c"}, pose)
    assert line_of(found, found["category_id"], size, None, pose) == line
    assert line_of(found, 7, size, None, pose) == "7" + line[1:]


pixels = st.floats(0, 1, allow_subnormal=True)


@settings(max_examples=200)
@given(st.lists(pixels, min_size=4, max_size=4), sizes, st.integers(0, 17))
def test_any_pixels_come_back_from_the_line(values, size, digits):
    x, y, width, height = (round(one, digits) for one in values)
    bbox = [x * size[0] / 2, y * size[1] / 2, width * size[0] / 2, height * size[1] / 2]
    line = line_of({"bbox": bbox}, 0, size, None, None)
    assert object_of(line, size, {0: "a"}, None)["bbox"] == bbox
    polygon = [*bbox, *bbox[:2]]
    line = line_of({"bbox": bbox, "segmentation": [polygon]}, 0, size, None, None)
    assert object_of(line, size, {0: "a"}, None)["segmentation"] == [polygon]


# -- out -------------------------------------------------------------------------------------

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]


def of_coco(*objects: dict[str, Any], **facts: Any) -> Sample:
    return Sample(
        {
            "image": PngImageItem(np.zeros((48, 64, 3), np.uint8)),
            "metadata": JsonMetadataItem({"file": "val2017/7.png", **facts}),
            "annotations": JsonMetadataItem(list(objects)),
            "categories": JsonMetadataItem(CATEGORIES, shared=True),
        }
    )


def test_what_came_from_elsewhere_gets_its_place_and_numbers_from_zero(tmp_path):
    dog = {"label": "dog", "category_id": 18, "bbox": [12.34, 5.67, 8.9, 1.23]}
    bird = {"label": "bird", "category_id": 18, "bbox": [0, 0, 64, 48]}
    samples = SamplesSequence.from_list([of_coco(dog, bird, split="val"), of_coco(split="val2")])
    export(samples, "yolo", tmp_path / "out")
    said = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert said == {"val": "images/val", "nc": 3, "names": ["dog", "car", "bird"]}
    second, first = read(tmp_path / "out")
    assert first["metadata"]()["file"] == "images/val/7.png"
    assert second["metadata"]()["label_file"] == "labels/val/7-1.txt"
    assert [(one["label"], one["bbox"]) for one in first["annotations"]()] == [
        ("dog", [12.34, 5.67, 8.9, 1.23]),
        ("bird", [0, 0, 64, 48]),
    ]


def test_a_label_that_was_changed_wins_and_a_moved_box_is_written_anew(folder, tmp_path):
    def change(sample: Sample) -> Sample:
        objects = sample["annotations"]()
        objects[0]["label"] = "fish"
        objects[0]["bbox"][0] = 3.1
        objects[1]["label"] = "cat"
        return sample.set_value("annotations", objects)

    export(read(folder)[:1].map(change), "yolo", tmp_path / "out")
    fish, cat = (tmp_path / "out/labels/train/1.txt").read_text().splitlines()
    assert (fish[:2], cat) == ("2 ", "0" + POLYGON[1:])
    assert read(tmp_path / "out")[0]["annotations"]()[0]["bbox"][0] == 3.1


def test_a_picture_that_was_turned_upright_has_its_lines_as_they_were(folder, tmp_path):
    picture_on_its_side(folder / "images/train/2.jpg")
    upright = read(folder)[1:2].map({"rotate-flip": {"rotate": 0}})
    assert upright[0]["image"]().shape == (40, 20, 3)
    export(upright, "yolo", tmp_path / "out")
    assert (tmp_path / "out/labels/train/2.txt").read_text() == f"{BOX}\n"


def test_labels_of_a_resized_picture_are_those_of_its_new_size(folder, tmp_path):
    def halve(sample: Sample) -> Sample:
        image = sample["image"]
        sample = sample.set_item("image", image.make_new(image()[::2, ::2]))
        objects = [{"label": "cat", "bbox": [1, 2, 3, 4]}]
        return sample.set_value("annotations", objects)

    export(read(folder)[:1].map(halve), "yolo", tmp_path / "out")
    assert read(tmp_path / "out")[0]["annotations"]()[0]["bbox"] == [1, 2, 3, 4]


def test_tasks_and_what_yolo_has_not(tmp_path):
    many = {"label": "dog", "segmentation": [[0, 0, 4, 0, 4, 4], [9, 9, 12, 9, 12, 12]]}
    many["bbox"] = [0, 0, 12, 12]
    mask = {"label": "dog", "bbox": [1, 1, 5, 5], "segmentation": {"size": [48, 64], "counts": "x"}}
    crowd = {**mask, "iscrowd": 1}
    outside = {"label": "dog", "bbox": [60, 0, 90, 3]}
    not_numbers = {"label": "dog", "bbox": [float("nan"), 0, 1, 1]}

    def error(one: dict[str, Any], **options: Any) -> str:
        with pytest.raises(ExportError) as caught:
            export(SamplesSequence.from_list([of_coco(one)]), "yolo", tmp_path / "no", **options)
        assert not (tmp_path / "no").exists()
        return str(caught.value)

    assert "sample 0, object 0 ('dog'): it has 2 polygons" in error(many)
    assert "no polygon but a mask" in error(mask)
    assert "leave_out_crowds" in error(crowd)
    assert "not a share of the image" in error(outside)
    assert "is not a list of 4 numbers" in error(not_numbers)
    assert "no `bbox`" in error({"label": "dog"})
    assert "no category has the id 5" in error({"category_id": 5, "bbox": [1, 1, 1, 1]})
    assert "no class tells its keypoints" in error(outside, task="pose")
    export(
        SamplesSequence.from_list([of_coco(mask, many, crowd)]),
        "yolo",
        tmp_path / "boxes",
        task="detect",
        leave_out_crowds=True,
    )
    found = read(tmp_path / "boxes")[0]["annotations"]()
    assert [one["bbox"] for one in found] == [[1, 1, 5, 5], [0, 0, 12, 12]]
    export(SamplesSequence.from_list([of_coco(many)]), "yolo", tmp_path / "one", join_polygons=True)
    joined = read(tmp_path / "one")[0]["annotations"]()[0]
    assert joined["bbox"] == [0, 0, 12, 12]
    assert joined["area"] == 8 + 4.5


def test_keypoints_of_coco_are_written_and_come_back(tmp_path):
    def sample(*names: str, **more: Any) -> Sample:
        man = {"label": "man", "bbox": [1.1, 2.2, 30.3, 40.4], **more}
        listed = [{"id": 1, "name": "man", "keypoints": names}]
        return of_coco(man).set_item("categories", JsonMetadataItem(listed, shared=True))

    points = [3.3, 4.4, 2, 5.5, 6.6, 1, 0, 0, 0]
    three = sample("nose", "eye", "ear", keypoints=points)
    samples = SamplesSequence.from_list([three, sample("nose", "eye", "ear")])
    export(samples, "yolo", tmp_path / "out", task="pose")
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["kpt_shape"] == [3, 3]
    unseen, seen = (one["annotations"]()[0] for one in read(tmp_path / "out"))
    assert (seen["bbox"], seen["keypoints"]) == ([1.1, 2.2, 30.3, 40.4], points)
    assert unseen["keypoints"] == [0] * 9
    other = SamplesSequence.from_list([three, sample("nose", keypoints=[1, 1, 1])])
    with pytest.raises(ExportError, match="has other keypoints"):
        export(other, "yolo", tmp_path / "no", task="pose")
    few = SamplesSequence.from_list([sample("nose", "eye", keypoints=[1, 1, 1])])
    with pytest.raises(ExportError, match="not a list of 6 numbers"):
        export(few, "yolo", tmp_path / "no", task="pose")


def test_a_failed_sample_leaves_nothing_in_the_export(tmp_path):
    bad = of_coco({"label": "new", "bbox": [0, 0, 1, 1]}, {"label": "dog", "bbox": [0, 0, -1, 1]})
    good = of_coco({"label": "dog", "bbox": [0, 0, 1, 1]}, file="good.png")
    export(SamplesSequence.from_list([bad, good]), "yolo", tmp_path / "out", max_failed=0.5)
    assert set(files(tmp_path / "out")) == {
        "data.yaml",
        "images/train/good.png",
        "labels/train/good.txt",
    }
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"] == ["dog", "car"]


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is not declared: there are 2 classes"),
        ("cat 0.5 0.5 0.1 0.1", "'cat' is not the number of a class"),
        ("-1 0.5 0.5 0.1 0.1", "'-1' is not the number"),
        ("0.5 0.5 0.5 0.1 0.1", "'0.5' is not the number"),
        ("1e300 0.5 0.5 0.1 0.1", "not the number"),
        ("0 0.5 0.5 0.1", "3 numbers behind the class"),
        ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers behind the class.*confidence"),
        ("0 0.5 0.5 0.1 0.1 0.9 0.1 0.1", "7 numbers behind the class"),
        ("0 0.5 0.5 10 0.1", "10 is not a share"),
        ("0 -0.5 0.5 0.1 0.1", "-0.5 is not a share"),
        ("0 0.5 0.5 -0.001 0.1", "the box is -0.001 wide"),
        ("0 nan 0.5 0.1 0.1", "'nan' is no number"),
        ("0 inf 0.5 0.1 0.1", "'inf' is no number"),
        ("0 1e99999999999 0.5 0.1 0.1", "is no number"),
        ("0 0.5 0,5 0.1 0.1", "'0,5' is no number"),
        (f"0 0.{'5' * 9999} 0.5 0.1 0.1", "is no number"),
        ("0 \u0660.\u0665 0.5 0.1 0.1", "is no number"),
    ],
)
def test_a_bad_line_is_an_error_of_its_sample_alone(folder, line, message):
    put(folder / "labels/train/2.txt", f"{BOX}\n\n{line}\n")
    sequence = read(folder)
    with pytest.raises(DecodeError, match=message) as caught:
        sequence[1]
    assert "labels/train/2.txt, line 3: " in str(caught.value)
    assert len(sequence[0]["annotations"]()) == 2


WORDS = """
names train val path nc kpt_shape : - [ ] { } 0 1 -1 2 0.5 1e5 nan cat images/train . .. / \0 & * !
| > \ufeff \x85 ' " # ~ true train.txt 99999999999999999999
"""
words = st.sampled_from([*WORDS.split(), "\n", "\n  "])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(words).map(" ".join) | st.binary(), st.sampled_from(["data.yaml", "train.txt", "1"])
)
def test_whatever_is_in_a_file_it_is_read_or_an_error(folder, content, where):
    put(folder / "train.txt", "images/train/1.jpg\n")
    put(folder / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    put(folder / "labels/train/1.txt", BOX)
    path = folder / ("labels/train/1.txt" if where == "1" else where)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sequence = read(folder)
    try:
        names = sequence.names
    except (DecodeError, DatasetError):
        return
    for idx in range(len(names)):
        with contextlib.suppress(DecodeError):
            json.dumps(sequence[idx]["annotations"]())


def test_a_box_that_leads_over_the_edge_is_kept(folder):
    put(folder / "labels/train/2.txt", "0 1.0 0.5 0.5 1.005\n")
    assert read(folder)[1]["annotations"]()[0]["bbox"][0] == 39.75


def test_labels_that_are_no_text_and_pictures_that_are_missing_fail_alone(folder):
    (folder / "labels/train/2.txt").write_bytes(b"\xff\xfe0 0.5")
    put(folder / "images/train/10.jpg", "no picture")
    put(folder / "train.txt", "images/train/1.jpg\nimages/train/2.jpg\nimages/train/gone.jpg\n")
    put(folder / "labels/train/gone.txt", BOX)
    put(folder / "data.yaml", "train: [train.txt, images/train]\nnames: [cat, dog]\n")
    sequence = read(folder)
    assert len(sequence[0]["annotations"]()) == 2
    with pytest.raises(DecodeError, match=r"labels/train/2.txt: is no text in UTF-8"):
        sequence[1]
    with pytest.raises(DecodeError, match=r"10\.jpg: its width and height cannot be read"):
        sequence[2]
    with pytest.raises(DecodeError, match=r"images/train/gone\.jpg: there is no such file"):
        sequence[3]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("names: [cat", "data.yaml: malformed YAML in line"),
        ("just text", "is not a mapping with `names`"),
        ("names: cat\ntrain: images/train", "`names` 'cat' is neither"),
        ("names: {x: cat}\ntrain: images/train", "is neither a list of names nor a mapping"),
        ("names: [[a]]\ntrain: images/train", "is neither"),
        ("names: [a]\nnc: 3\ntrain: images/train", "`nc` says 3 classes, and `names` has 1"),
        ("nc: 999999999999\ntrain: images/train", "`nc` 999999999999 is not the number"),
        ("names: [a]\ntrain: images/gone", "names 'images/gone', and there is no"),
        ("names: [a]\ntrain: {a: b}", "a folder, a .txt file or a list"),
        ("names: [a]\ntrain: images/train\nkpt_shape: [99999999, 3]", "`kpt_shape`"),
        ("names: [a]\ntrain: /etc", "outside of"),
        ("names: [a]\npath: /\ntrain: etc", "outside of"),
        ("names: [a]\ntrain: out", "leads out of"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\ntrain: images/train", "is neither"),
        ("names: " + "[" * 400, "malformed YAML"),
    ],
)
def test_a_bad_description_says_what_is_wrong(folder, said, message):
    os.symlink("/etc", folder / "out")
    put(folder / "data.yaml", said)
    with pytest.raises((DecodeError, DatasetError), match=message):
        len(read(folder))


@pytest.mark.parametrize("declared", ["names: [cat, dog]\n", ""])
def test_what_a_list_names_outside_fails_alone(folder, declared):
    bad = ["../../../../../../etc/passwd", "/etc/passwd", "a\0b.jpg", "images/../../set/x.jpg"]
    put(folder / "list.txt", "\n".join(["images/train/1.jpg", *bad]))
    put(folder / "data.yaml", f"train: list.txt\n{declared}")
    sequence = read(folder)
    failed = []
    for idx, name in enumerate(sequence.names):
        try:
            assert len(sequence[idx]["annotations"]()) == 2
            assert name == "images/train/1.jpg"
        except DecodeError as error:
            failed.append(str(error))
    assert len(failed) == 4
    assert sum("is not below" in one for one in failed) == 3
    assert sum("there is no such file" in one for one in failed) == 1  # that is `x.jpg`


def test_a_linked_folder_is_not_a_way_out(folder, tmp_path):
    shutil.move(folder / "images/val", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "images/val")
    put(folder / "list.txt", "images/val/a.jpg\nimages/train/1.jpg\n")
    put(folder / "data.yaml", "train: list.txt\nnames: [cat, dog]\n")
    sequence = read(folder)
    assert len(sequence[0]["annotations"]()) == 2
    with pytest.raises(DecodeError, match=r"leads out of .* by a link"):
        sequence[1]
    assert len(read(folder, root=tmp_path)[1]["annotations"]()) == 0


def test_a_folder_without_labels_is_not_taken_for_one_of_backgrounds(folder):
    (folder / "data.yaml").unlink()
    with pytest.raises(DatasetError, match="no image has a file of labels"):
        len(read(folder / "images"))
    with pytest.raises(DatasetNotFoundError):
        read(folder / "gone")


def test_two_descriptions_are_asked_about(folder):
    (folder / "data.yaml").rename(folder / "one.yaml")
    put(folder / "two.yaml", "names: [a]")
    with pytest.raises(DatasetError, match=r"one\.yaml, two\.yaml"):
        len(read(folder))
    assert len(read(folder / "one.yaml")) == 5


def test_a_hostile_file_name_or_split_stays_in_the_export(tmp_path):
    sample = of_coco(file="../../x.png", label_file=None)
    export(SamplesSequence.from_list([sample]), "yolo", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"data.yaml", "000000.png"}
    for split in ("../x", "fold1", 7):
        sequence = SamplesSequence.from_list([of_coco(split=split)])
        with pytest.raises(ExportError, match="YOLO has train, val, test"):
            export(sequence, "yolo", tmp_path / "no")
    with pytest.raises(PipeBuildingError, match="no argument 'tasks'"):
        export(sequence, "yolo", tmp_path / "no", tasks="detect")


def test_the_source_goes_to_other_processes(folder):
    sequence = read(folder)
    len(sequence)
    assert everything(pickle.loads(pickle.dumps(sequence))) == everything(sequence)


def test_numbers_have_one_meaning():
    with pytest.raises(LabelError):
        geometry_of(["0.5"] * 5, (10, 10), None)


# -- with the libraries of the format ------------------------------------------------------------


def test_supervision_loads_what_is_exported(folder, tmp_path):
    supervision = pytest.importorskip("supervision")
    export(read(folder), "yolo", tmp_path / "out")
    out = tmp_path / "out"
    dataset = supervision.DetectionDataset.from_yolo(
        str(out / "images/train"), str(out / "labels/train"), str(out / "data.yaml")
    )
    assert dataset.classes == ["cat", "dog"]
    assert len(dataset) == 3
    boxes = {Path(path).name: found.xyxy for path, _, found in dataset}["2.jpg"]
    np.testing.assert_allclose(boxes, [[19.875, 12.33395, 33.125, 24.66605]], rtol=1e-6)


def test_what_supervision_wrote_is_imported(tmp_path):
    supervision = pytest.importorskip("supervision")
    picture(tmp_path / "x.png", 64, 48)
    path = str(tmp_path / "x.png")
    masks = np.zeros((2, 48, 64), bool)
    masks[0, 10:20, 10:30] = masks[1, 30:40, 5:25] = True
    found = supervision.Detections(
        xyxy=np.array([[10, 10, 29, 19], [5, 30, 24, 39]], np.float32),
        mask=masks,
        class_id=np.array([1, 0]),
    )
    dataset = supervision.DetectionDataset(["cat", "dog"], [path], {path: found})
    out = tmp_path / "sv"
    dataset.as_yolo(str(out / "images"), str(out / "labels"), str(out / "data.yaml"))
    first, second = read(out)[0]["annotations"]()
    assert (first["label"], second["label"]) == ("dog", "cat")
    assert first["bbox"] == pytest.approx([10, 10, 19, 9], abs=0.01)
    export(read(out), "yolo", tmp_path / "again")
    assert (tmp_path / "again/labels/x.txt").read_text().splitlines() == (
        out / "labels/x.txt"
    ).read_text().splitlines()


def test_aliases_and_numbers_without_end_are_refused_at_once(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{other}: &{other} [" + ", ".join([f"*{one}"] * 9) + "]\n"
    (tmp_path / "images").mkdir()
    for names in (f"{bomb}names: *i\n", "names: {0: a, 1000000000000: b}\n"):
        (tmp_path / "data.yaml").write_text(f"train: images\n{names}")
        with pytest.raises(DecodeError, match="`names`"):
            SamplesSequence.from_yolo(tmp_path).shared_items  # type: ignore[attr-defined] # noqa: B018
