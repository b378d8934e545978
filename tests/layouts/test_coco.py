"""COCO: in by `from_coco`, out by `export`, and read again by pycocotools."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DecodeError,
    PipeBuildingError,
    SampleError,
)
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import JpegImageItem, JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from tests.layouts.objects import contents, draw, imported

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person", "keypoints": ["nose", "eye"]},
    {"id": 44, "name": "bottle", "supercategory": "kitchen"},
]


def specimen(folder: Path, split: str = "val2017", count: int = 3, first: int = 1) -> Path:
    """COCO's own layout: polygons, run lengths of both kinds, keypoints, and an empty image."""
    images, objects = [], []
    for number in range(first, first + count):
        name = f"{number:012d}.jpg"
        draw(folder / split / name, seed=number)
        images.append(
            {
                "license": 4,
                "file_name": name,
                "coco_url": f"http://images.cocodataset.org/{split}/{name}",
                "height": 8,
                "width": 12,
                "date_captured": "2013-11-14 17:02:52",
                "id": number * 7,
            }
        )
        objects += objects_of(number)
    content = {
        "info": {"description": f"A specimen of {split}", "year": 2017},
        "licenses": [{"id": 4, "name": "CC BY", "url": "http://creativecommons.org"}],
        "images": images[::-1],
        "annotations": [*objects[1::2], *objects[::2]],
        "categories": CATEGORIES,
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))
    return path


def objects_of(number: int) -> list[dict[str, Any]]:
    if number % 3 == 0:
        return []
    runs = rle.encode(np.asfortranarray(np.tri(8, 12, dtype=np.uint8)))
    shapes: list[Any] = [
        [[1.5, 1.25, 9.1, 1.3, 9.7, 6.66]],
        {"size": [8, 12], "counts": runs["counts"].decode()},
        {"size": [8, 12], "counts": [5, 20, 71]},
    ]
    return [
        {
            "segmentation": shape,
            "num_keypoints": 1,
            "area": 20.123456789012345,
            "iscrowd": int(isinstance(shape, dict)),
            "keypoints": [5, 4, 2, 0, 0, 0],
            "image_id": number * 7,
            "bbox": [1.1, 2.2 + number, 0.1 + 0.2, 4],
            "category_id": CATEGORIES[place % 2]["id"],
            "id": number * 10_000_000_000 + place,
        }
        for place, shape in enumerate(shapes)
    ]


def by_id(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    for name in ("images", "annotations"):
        content[name].sort(key=lambda entry: entry["id"])
    return content


def test_samples_are_what_the_file_says(tmp_path):
    path = specimen(tmp_path)
    samples = SamplesSequence.from_coco(path)
    assert len(samples) == 3
    sample = samples[0]
    assert list(sample) == ["categories", "coco", "image", "annotations", "metadata"]
    assert sample["image"].file_sources[0].path == str(tmp_path / "val2017/000000000001.jpg")
    assert sample["categories"]() == CATEGORIES
    assert sample["categories"].is_shared
    assert sample["coco"]()["val2017"]["info"]["year"] == 2017
    facts = sample["metadata"]()
    assert facts["file"] == "val2017/000000000001.jpg"
    assert facts["name"] == "000000000001"
    assert facts["origin"] == str(path)
    assert (facts["split"], facts["width"], facts["height"]) == ("val2017", 12, 8)
    assert facts["coco"]["id"] == 7
    listed = sorted(sample["annotations"](), key=lambda one: one["id"])
    assert [one.pop("label") for one in listed] == ["person", "bottle", "person"]
    assert listed == objects_of(1)
    assert samples[2]["annotations"]() == []


def test_pycocotools_finds_in_the_export_what_is_in_the_original(tmp_path, capsys):
    path = specimen(tmp_path / "coco")
    samples = imported(SamplesSequence.from_coco(path), tmp_path / "dataset")
    report = export(samples, "coco", tmp_path / "out")
    assert (report.samples, report.failures) == (3, {})
    assert by_id(tmp_path / "out/annotations/instances_val2017.json") == by_id(path)
    was, now = COCO(str(path)), COCO(str(tmp_path / "out/annotations/instances_val2017.json"))
    assert set(now.getAnnIds()) == set(was.getAnnIds())
    for number in was.getImgIds():
        assert set(now.getAnnIds(number)) == set(was.getAnnIds(number))
        file = now.loadImgs(number)[0]["file_name"]
        assert (tmp_path / "out/val2017" / file).read_bytes() == (
            tmp_path / "coco/val2017" / file
        ).read_bytes()
    for number in was.getAnnIds():
        one, other = was.loadAnns(number)[0], now.loadAnns(number)[0]
        np.testing.assert_array_equal(was.annToMask(one), now.annToMask(other))


def test_splits_are_files_and_come_back_equal(tmp_path):
    specimen(tmp_path / "coco", "val2017", 2)
    specimen(tmp_path / "coco", "train2017", 11, first=50)
    (tmp_path / "coco/annotations/captions_val2017.json").write_text("{}")
    source = SamplesSequence.from_coco(tmp_path / "coco", origin="x")
    assert [one["metadata"]()["split"] for one in source] == ["train2017"] * 11 + ["val2017"] * 2
    export(imported(source, tmp_path / "dataset"), "coco", tmp_path / "out")
    again = SamplesSequence.from_coco(tmp_path / "out", origin="x")
    assert contents(again) == contents(source)
    export(again, "coco", tmp_path / "more")
    one, other = tmp_path / "out", tmp_path / "more"
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_roboflow_has_its_files_beside_the_images(tmp_path):
    for number, split in enumerate(("train", "valid")):
        path = specimen(tmp_path, split, 2, first=5 * number + 1)
        path.rename(tmp_path / split / "_annotations.coco.json")
    source = SamplesSequence.from_coco(tmp_path, origin="x")
    assert [one["metadata"]()["file"][:-5] for one in source] == [
        "train/00000000000",
        "train/00000000000",
        "valid/00000000000",
        "valid/00000000000",
    ]
    assert len(SamplesSequence.from_coco(tmp_path / "valid/_annotations.coco.json")) == 2
    export(source, "coco", tmp_path / "out")
    assert contents(SamplesSequence.from_coco(tmp_path / "out", origin="x")) == contents(source)


@pytest.mark.parametrize("place", ["images", "images/val2017", "val2017", "."])
def test_images_are_found_in_the_usual_places(tmp_path, place):
    path = specimen(tmp_path / "made", count=1)
    image = tmp_path / "made/val2017/000000000001.jpg"
    target = tmp_path / "coco" / place / image.name
    target.parent.mkdir(parents=True, exist_ok=True)
    image.rename(target)
    (tmp_path / "coco/annotations").mkdir()
    path = path.rename(tmp_path / "coco/annotations" / path.name)
    found = SamplesSequence.from_coco(path)[0]["image"].file_sources[0].path
    assert Path(found).samefile(target)
    given = SamplesSequence.from_coco(path, images=target.parent)[0]["image"]
    assert Path(given.file_sources[0].path).samefile(target)


def test_a_linked_folder_is_not_a_way_out(tmp_path):
    path = specimen(tmp_path / "coco")
    (tmp_path / "coco/val2017").rename(tmp_path / "elsewhere")
    (tmp_path / "coco/val2017").symlink_to(tmp_path / "elsewhere")
    source = SamplesSequence.from_coco(path)
    assert len(source) == 3
    with pytest.raises(DecodeError, match=r"val2017: leads out of .* by a link.* as `images`"):
        source[0]
    meant = SamplesSequence.from_coco(path, images=tmp_path / "coco/val2017")
    assert meant[0]["image"]().shape == (8, 12, 3)


def test_annotations_in_a_linked_folder_are_to_be_named_themselves(tmp_path):
    specimen(tmp_path / "coco")
    (tmp_path / "coco/annotations").rename(tmp_path / "annotations")
    (tmp_path / "coco/annotations").symlink_to(tmp_path / "annotations")
    with pytest.raises(DecodeError, match=r"leads out of .* by a link.*name the file itself"):
        len(SamplesSequence.from_coco(tmp_path / "coco"))
    source = SamplesSequence.from_coco(tmp_path / "coco/annotations/instances_val2017.json")
    assert source[0]["image"]().shape == (8, 12, 3)


def test_a_folder_that_is_linked_within_the_source_is_read(tmp_path):
    path = specimen(tmp_path / "coco")
    (tmp_path / "coco/val2017").rename(tmp_path / "coco/all")
    (tmp_path / "coco/val2017").symlink_to("all")
    assert SamplesSequence.from_coco(path)[0]["image"]().shape == (8, 12, 3)


def test_images_that_are_nowhere_are_asked_for(tmp_path):
    path = specimen(tmp_path)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"000000000003\.jpg, is in one of .*as `images`"):
        SamplesSequence.from_coco(path)[0]
    assert len(SamplesSequence.from_coco(path, images=tmp_path / "elsewhere")[0]) == 5


def test_a_sample_depends_only_on_what_is_said_of_it(tmp_path):
    path = specimen(tmp_path, count=4)
    before = contents(SamplesSequence.from_coco(path))
    content = json.loads(path.read_text())
    draw(tmp_path / "val2017/0.jpg")
    content["images"].insert(0, {"id": 1, "file_name": "0.jpg", "width": 12, "height": 8})
    content["annotations"].insert(0, {"id": 2, "image_id": 1, "category_id": 1})
    changed = [one for one in content["annotations"] if one["image_id"] == 2 * 7]
    changed[0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    source = SamplesSequence.from_coco(path)
    after = contents(source)
    assert [one == other for one, other in zip(after[1:], before, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_class_is_changed_by_its_label(tmp_path):
    path = specimen(tmp_path, count=1)
    source = SamplesSequence.from_coco(path)
    objects = source[0]["annotations"]()
    objects[0]["label"], objects[1]["label"] = "cup", objects[0]["label"]
    del objects[2]["category_id"], objects[2]["label"]
    changed = source[0].set_value("annotations", objects)
    export(SamplesSequence.from_list([changed]), "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert content["categories"] == [*CATEGORIES, {"id": 45, "name": "cup"}]
    known = {entry["id"]: entry["name"] for entry in content["categories"]}
    named = [known.get(one.get("category_id")) for one in content["annotations"]]
    assert named == ["cup", objects[1]["label"], None]
    assert all("label" not in one for one in content["annotations"])


def test_samples_of_no_coco_get_what_is_missing(tmp_path):
    pixels = np.zeros((8, 12, 3), np.uint8)
    square = [[1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]]
    objects = [
        {"label": "b", "bbox": [1.0, 2.0, 3.0, 4.0]},
        {"label": "a", "bbox": [1.0, 1.0, 3.0, 3.0], "segmentation": square},
    ]
    samples = [
        Sample({"image": PngImageItem(pixels), "annotations": JsonMetadataItem(objects)}),
        Sample({"image": JpegImageItem(pixels)}),
    ]
    export(SamplesSequence.from_list(samples), "coco", tmp_path / "out")
    path = tmp_path / "out/annotations/instances.json"
    content = json.loads(path.read_text())
    assert content["images"] == [
        {"width": 12, "height": 8, "file_name": "000000.png", "id": 1},
        {"width": 12, "height": 8, "file_name": "000001.jpeg", "id": 2},
    ]
    assert content["categories"] == [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}]
    assert [(one["id"], one["image_id"], one["area"]) for one in content["annotations"]] == [
        (1, 1, 12.0),
        (2, 1, 9.0),
    ]
    assert sorted(COCO(str(path)).getAnnIds(imgIds=1)) == [1, 2]


def test_ids_that_two_samples_have_are_numbered_anew(tmp_path):
    path = specimen(tmp_path, count=2)
    one, other = SamplesSequence.from_coco(path)
    export(SamplesSequence.from_list([one, other, one]), "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert [image["id"] for image in content["images"]] == [7, 14, 15]
    assert content["images"][2]["file_name"] == "000000000001-2.jpg"
    assert len({entry["id"] for entry in content["annotations"]}) == 9
    assert [entry["image_id"] for entry in content["annotations"]] == [7] * 3 + [14] * 3 + [15] * 3


def test_images_without_a_list_of_objects_have_none(tmp_path):
    path = specimen(tmp_path)
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    source = SamplesSequence.from_coco(path, origin="x")
    assert "annotations" not in source[0]
    export(source, "coco", tmp_path / "out")
    assert contents(SamplesSequence.from_coco(tmp_path / "out", origin="x")) == contents(source)


def test_a_source_is_pickled_without_what_it_has_read(tmp_path):
    source = SamplesSequence.from_coco(specimen(tmp_path, count=30))
    assert len(source) == 30
    data = pickle.dumps(source)
    assert len(data) < 2000
    assert contents(pickle.loads(data)) == contents(source)


# -- bad input -----------------------------------------------------------------------------


def changed(path: Path, change: Any) -> SamplesSequence:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return SamplesSequence.from_coco(path)


def images_at(content: Any, number: int) -> Any:
    return next(image for image in content["images"] if image["id"] == number)


def objects_at(content: Any, number: int) -> Any:
    return [one for one in content["annotations"] if one["image_id"] == number]


BAD = {
    "leads out": (lambda c: images_at(c, 14).update(file_name="../../etc/x.jpg"), "file_name"),
    "absolute": (lambda c: images_at(c, 14).update(file_name="/etc/x.jpg"), "file_name"),
    "a null byte": (lambda c: images_at(c, 14).update(file_name="x\0.jpg"), "file_name"),
    "a surrogate": (lambda c: images_at(c, 14).update(file_name="\ud800.jpg"), "file_name"),
    "no name": (lambda c: images_at(c, 14).pop("file_name"), "file_name"),
    "no image": (lambda c: images_at(c, 14).update(file_name="../passwd"), "file_name"),
    "no extension": (lambda c: images_at(c, 14).update(file_name="x.json"), "extension"),
    "missing": (lambda c: images_at(c, 14).update(file_name="gone.jpg"), "no such file"),
    "too long": (lambda c: images_at(c, 14).update(file_name="x" * 5000 + ".jpg"), "no such file"),
    "no class": (lambda c: objects_at(c, 14)[0].update(category_id=9), "category 9 is none"),
    "a class of a list": (lambda c: objects_at(c, 14)[0].update(category_id=[]), "category"),
    "a short box": (lambda c: objects_at(c, 14)[0].update(bbox=[1, 2, 3]), "bbox"),
    "a box of NaN": (lambda c: objects_at(c, 14)[0].update(bbox=[1, 2, 3, float("nan")]), "bbox"),
    "a huge box": (lambda c: objects_at(c, 14)[0].update(bbox=[1, 2, 3, 10**400]), "bbox"),
    "an infinite box": (lambda c: objects_at(c, 14)[0].update(bbox=[1, 2, 3, 1e999]), "bbox"),
    "a box of text": (lambda c: objects_at(c, 14)[0].update(bbox=[1, 2, 3, "4"]), "bbox"),
    "a box that is none": (lambda c: objects_at(c, 14)[0].update(bbox=7), "bbox"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_wrong_with_one_image_is_an_error_of_it_alone(tmp_path, case):
    change, message = BAD[case]
    path = specimen(tmp_path)
    source = changed(path, change)
    assert len(source) == 3
    failed = []
    for idx in range(3):
        try:
            source[idx]
        except DecodeError as error:
            failed.append(str(error))
    assert len(failed) == 1
    assert str(tmp_path) in failed[0]
    assert message in failed[0]


def test_images_of_one_id_fail_both(tmp_path):
    source = changed(specimen(tmp_path), lambda c: images_at(c, 14).update(id=7))
    for idx in range(2):
        with pytest.raises(DecodeError, match="another image has its id 7"):
            source[idx]
    assert source[2]["annotations"]() == []


def test_a_box_outside_of_its_image_stays_as_it_is(tmp_path):
    outside = [-5, 700.5, 10000, 0]
    source = changed(specimen(tmp_path), lambda c: objects_at(c, 7)[0].update(bbox=outside))
    assert outside in [one["bbox"] for one in source[0]["annotations"]()]


def test_objects_of_no_image_are_told(tmp_path):
    def change(content: Any) -> None:
        content["annotations"] += [{"id": 5, "image_id": 99}, 3, {"image_id": [1]}]

    with pytest.warns(UserWarning, match=r"instances_val2017\.json: 3 annotations are of no image"):
        len(changed(specimen(tmp_path), change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n}', "line 2, column 1"),
        ("[" * 200_000, "JSON"),
        ('{"images": [1' + "0" * 5000 + "]}", "JSON"),
        (b"\xff\xfe\xfd", "JSON"),
        ("[]", "no list `images`"),
        ('{"images": 3}', "no list `images`"),
        ('{"images": [], "categories": {}}', "`categories` is {}"),
        ('{"images": [], "categories": [{"id": 1}]}', r"categories\[0\]"),
        ('{"images": [], "annotations": [{"segments_info": []}]}', "panoptic"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((DatasetError, DecodeError), match=message) as caught:
        len(SamplesSequence.from_coco(path))
    assert str(path) in str(caught.value)


def test_entries_that_are_no_mappings(tmp_path):
    source = changed(specimen(tmp_path), lambda c: c["images"].append(["x"]))
    assert source.names[-1] == "val2017/images[3]"
    with pytest.raises(DecodeError, match=r"images\[3\]: \['x'\] is no mapping"):
        source[3]


def test_two_files_that_number_classes_differently(tmp_path):
    specimen(tmp_path, "train", 1)
    other = specimen(tmp_path, "val", 1)
    changed(other, lambda c: c["categories"][0].update(name="cat"))
    with pytest.raises(DatasetError, match="category 1 is 'person' and 'cat'"):
        SamplesSequence.from_coco(tmp_path)[0]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_coco(tmp_path / "none.json")
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_coco(specimen(tmp_path), images=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no annotations of COCO"):
        len(SamplesSequence.from_coco(tmp_path / "empty"))
    with pytest.raises(PipeBuildingError, match="image_key"):
        SamplesSequence.from_coco(tmp_path, image_key=3)


def export_of(tmp_path: Path, **items: Any) -> None:
    image = PngImageItem(np.zeros((4, 4), np.uint8))
    data = {key: JsonMetadataItem(value) for key, value in items.items()}
    export(SamplesSequence.from_list([Sample({"image": image, **data})]), "coco", tmp_path / "out")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"annotations": [{"category_id": 3}]}, "category 3 is none"),
        ({"annotations": [{"category_id": []}]}, "object 0"),
        ({"annotations": [{"label": 3}]}, "`label` is 3"),
        ({"annotations": [{"label": "a", "bbox": [1, 2, 3, float("nan")]}]}, "bbox"),
        ({"annotations": {"a": 1}}, "no list of objects"),
        ({"categories": [1]}, "`categories` has 1"),
        ({"categories": [{"id": [], "name": "a"}]}, "`categories` has"),
        ({"metadata": {"split": "../x"}}, "`split`"),
        ({"metadata": {"split": 3}}, "`split`"),
    ],
)
def test_what_cannot_be_exported(tmp_path, items, message):
    with pytest.raises(ExportError, match=message):
        export_of(tmp_path, **items)
    assert not (tmp_path / "out").exists()


def test_a_name_that_leads_out_is_not_written_there(tmp_path):
    export_of(tmp_path, metadata={"file": "x.png", "coco": {"file_name": "../../x.png", "id": 1}})
    assert (tmp_path / "out/images/x.png").is_file()
    content = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert content["images"] == [{"file_name": "x.png", "id": 1}]


def test_what_is_odd_is_written_as_it_is(tmp_path):
    objects = [
        {"label": "a", "category_id": [], "segmentation": [["x", 1]], "bbox": [1, 2, 3, 4]},
        {"label": "a", "segmentation": 3},
    ]
    export_of(tmp_path, annotations=objects, coco={"": 3}, metadata={"coco": 7, "width": "9"})
    content = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert content["images"] == [{"width": 4, "height": 4, "file_name": "000000.png", "id": 1}]
    assert [one["segmentation"] for one in content["annotations"]] == [[["x", 1]], 3]
    assert [one["area"] for one in content["annotations"]] == [12.0, 0.0]
    assert [one["category_id"] for one in content["annotations"]] == [1, 1]


def test_a_failed_sample_leaves_nothing(tmp_path):
    source = SamplesSequence.from_coco(specimen(tmp_path))
    bad = source[0].set_value("annotations", [{"bbox": 1}])
    samples = SamplesSequence.from_list([bad, source[1]])
    report = export(samples, "coco", tmp_path / "out", max_failed=0.5)
    assert list(report.failures) == [0]
    assert report.failures[0].error_type == SampleError.__name__
    assert len(list((tmp_path / "out/val2017").iterdir())) == 1
    content = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert [image["id"] for image in content["images"]] == [14]


# -- round trips -----------------------------------------------------------------------------

numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
extra = st.dictionaries(st.sampled_from(["note", "attributes", "área", "score"]), plain)
objects = st.builds(
    lambda box, category, more: {"bbox": box, "category_id": category, **more},
    st.lists(numbers, min_size=4, max_size=4),
    st.sampled_from([1, 44]),
    extra,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    per_image=st.lists(st.lists(objects, max_size=3), min_size=1, max_size=3),
    names=st.lists(
        st.from_regex(r"[A-Za-zé0-9 ]{1,6}(/[a-z]{1,3})?", fullmatch=True),
        min_size=3,
        max_size=3,
        unique_by=lambda name: name.partition("/")[0].casefold(),
    ),
    more=extra,
    split=st.sampled_from([None, "train"]),
)
def test_round_trips_lose_nothing(tmp_path_factory, per_image, names, more, split):
    folder = tmp_path_factory.mktemp("coco")
    images = []
    listed = []
    for number, several in enumerate(per_image, 3):
        file = f"{names[number - 3]}.png"
        draw(folder / "images" / file, seed=number)
        images.append({"id": number, "file_name": file, "width": 12, "height": 8, **more})
        for one in several:
            listed.append({"id": len(listed), "image_id": number, **one})
    content = {"images": images, "annotations": listed, "categories": CATEGORIES, **more}
    name = "instances.json" if split is None else f"instances_{split}.json"
    (folder / "annotations").mkdir()
    (folder / "annotations" / name).write_text(json.dumps(content))
    source = SamplesSequence.from_coco(folder, origin="x")
    export(imported(source, folder / "dataset"), "coco", folder / "out")
    assert by_id(folder / "out/annotations" / name) == by_id(folder / "annotations" / name)
    assert contents(SamplesSequence.from_coco(folder / "out", origin="x")) == contents(source)
