"""What every export holds: a sample is written whole, or it fails and nothing is left of it."""

import datetime
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.exporting import ExportError, ExportReport, export
from prefect_pipestream.items import (
    Item,
    JsonMetadataItem,
    PngImageItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample, SamplesSequence
from tests.layouts.photos import files_below, make_image, needs_datasets

KINDS = ("images", "image-folder", "coco", "voc", "yolo", "table", "webdataset", "hf")


@pytest.fixture
def photo(tmp_path):
    """Makes a sample with an image of its own, which says that it was `file` at its source."""
    made = iter(range(1000))

    def make(file: str, **facts: Any) -> Sample:
        number = next(made)
        path = make_image(tmp_path / "from" / f"{number}{Path(file).suffix.lower() or '.png'}")
        make_image(path, number)
        metadata = JsonMetadataItem({"file": file, **facts})
        return Sample({"image": Item.get_instance(path), "metadata": metadata})

    return make


def written(kind: Any, target: Path, *samples: Sample, **options: Any) -> ExportReport:
    """Exports samples, of which any may fail."""
    needs_datasets(kind)
    sequence = SamplesSequence.from_list(list(samples))
    return export(sequence, kind, target, max_failed=1.0, **options)


def images_in(target: Path) -> list[str]:
    return sorted(
        name for name in files_below(target) if Path(name).suffix in (".jpg", ".png", ".PNG")
    )


def content_of(sample: Sample) -> bytes:
    return sample["image"].file_sources[0].read()


def categories(*entries: Any) -> JsonMetadataItem:
    return JsonMetadataItem(list(entries), shared=True)


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["images", "image-folder", "coco", "voc", "yolo", "table"])
def test_images_whose_other_name_is_taken_get_one_more(tmp_path, photo, kind):
    samples = [photo("a-2.jpg"), photo("a.jpg"), photo("a.jpg")]

    report = written(kind, tmp_path / "out", *samples)

    assert (report.samples, report.failures) == (3, {})
    found = [content for name, content in files_below(tmp_path / "out").items() if ".jpg" in name]
    assert sorted(found) == sorted(map(content_of, samples))


def test_samples_of_a_shard_have_names_of_their_own(tmp_path, photo):
    samples = [photo("a-2.jpg"), photo("a.jpg"), photo("a.jpg")]

    written("webdataset", tmp_path / "out", *samples)

    with tarfile.open(next((tmp_path / "out").glob("*.tar"))) as shard:
        names = shard.getnames()
    assert len(names) == len(set(names))
    assert len(SamplesSequence.from_webdataset(tmp_path / "out")) == 3


def test_objects_of_voc_are_in_a_file_of_their_own(tmp_path, photo):
    samples = [
        photo(file).set_item(
            "annotations", JsonMetadataItem([{"label": file, "bbox": [0, 0, 2, 2]}])
        )
        for file in ("a-2.jpg", "a.jpg", "a.png")
    ]

    written("voc", tmp_path / "out", *samples)

    again = SamplesSequence.from_voc(tmp_path / "out")
    labels = {content_of(sample): sample["annotations"]()[0]["label"] for sample in again}
    assert labels == {content_of(sample): sample["annotations"]()[0]["label"] for sample in samples}


def test_voc_has_the_image_if_its_extension_is_spelled_otherwise_now(tmp_path, photo):
    sample = photo("a.PNG").set_item("annotations", JsonMetadataItem([]))

    report = written("voc", tmp_path / "out", sample)

    assert report.samples == len(images_in(tmp_path / "out")) == 1
    assert content_of(SamplesSequence.from_voc(tmp_path / "out")[0]) == content_of(sample)


@pytest.mark.parametrize("kind", ["images", "coco", "voc", "yolo", "table"])
@pytest.mark.parametrize("file", ["", ".", "a/..", "../a.jpg", "/a.jpg"])
def test_file_that_is_no_path_below_is_called_by_the_index(tmp_path, photo, kind, file):
    sample = photo("x.jpg").set_item("metadata", JsonMetadataItem({"file": file}))

    written(kind, tmp_path / "out", sample)

    assert [Path(name).name for name in images_in(tmp_path / "out")] == ["000000.jpg"]


@pytest.mark.parametrize("kind", ["images", "image-folder", "coco", "voc", "yolo", "table"])
def test_names_that_no_file_can_have_fail_their_sample(tmp_path, photo, kind):
    long = "n" * 300
    samples = [photo("d.jpg"), photo("d.jpg/e.jpg"), photo(f"{long}.jpg"), photo("f.jpg")]

    report = written(kind, tmp_path / "out", *samples)

    assert report.samples == 2
    assert {idx: one.error_type for idx, one in report.failures.items()} == {
        1: "SampleError",
        2: "SampleError",
    }
    assert [Path(name).name for name in images_in(tmp_path / "out")] == ["d.jpg", "f.jpg"]


def test_shard_with_a_name_that_is_too_long_fails_its_sample(tmp_path, photo):
    report = written(
        "webdataset", tmp_path / "out", photo("a.jpg", split="s" * 300), photo("b.jpg")
    )

    assert report.samples == 1
    assert report.failures[0].error_type == "SampleError"


# -- classes ---------------------------------------------------------------------------------


@pytest.fixture
def rows_of_classes(tmp_path, photo):
    """A saved dataset with the classes person and car, imported."""
    samples = [photo("a.png", label="person"), photo("b.png", label="car")]
    written("hf", tmp_path / "rows", *samples)
    return SamplesSequence.from_hf(tmp_path / "rows")


@pytest.mark.parametrize("facts", [{"label": "person"}, {"label_id": 1}])
@pytest.mark.parametrize("is_known_column", [True, False])
def test_hf_has_the_class_whatever_its_number(
    tmp_path, photo, rows_of_classes, facts, is_known_column
):
    listed = categories({"id": 1, "name": "person"}, {"id": 5, "name": "car"})
    sample = rows_of_classes[0] if is_known_column else photo("a.png")
    sample = sample.set_item("categories", listed)
    metadata = [facts, {"label": "car"}, {"label_id": 5}, {"label_id": 0}, {"label_id": 7}]
    samples = [sample.set_item("metadata", JsonMetadataItem(one)) for one in metadata]

    report = written("hf", tmp_path / "out", *samples)

    assert {idx: one.error_type for idx, one in report.failures.items()} == {
        3: "SampleError",
        4: "SampleError",
    }
    again = SamplesSequence.from_hf(tmp_path / "out")
    assert [one["metadata"]()["label"] for one in again] == ["person", "car", "car"]


def test_hf_gives_no_number_of_no_class_to_a_class_that_comes_later(tmp_path, photo):
    samples = [photo("a.png", label_id=0), photo("b.png", label="cat")]

    report = written("hf", tmp_path / "out", *samples)

    assert report.failures[1].error_type == "SampleError"
    again = SamplesSequence.from_hf(tmp_path / "out")
    assert [one["metadata"]().get("label") for one in again] == [None]


def test_webdataset_gives_no_number_of_no_class_to_a_class_that_comes_later(tmp_path, photo):
    samples = [photo("a.png", label_id=0), photo("b.png", label="cat")]

    written("webdataset", tmp_path / "out", *samples)

    again = SamplesSequence.from_webdataset(tmp_path / "out")
    assert [one["metadata"]().get("label") for one in again] == [None, "cat"]


@pytest.mark.parametrize("kind", ["coco", "voc", "webdataset", "hf"])
def test_number_of_another_class_in_a_sample_before_fails_the_sample(tmp_path, photo, kind):
    samples = [
        photo(f"{name}.png", label_id=1).set_item("categories", categories({"id": 1, "name": name}))
        for name in ("cat", "dog")
    ]

    report = written(kind, tmp_path / "out", *samples)

    assert report.failures[1].error_type == "SampleError"


def test_hf_has_classes_of_one_name_as_one(tmp_path, photo):
    listed = categories(
        {"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}
    )
    samples = [
        photo(f"{id_}.png", label_id=id_).set_item("categories", listed) for id_ in (1, 2, 3)
    ]

    written("hf", tmp_path / "out", *samples)

    again = SamplesSequence.from_hf(tmp_path / "out")
    assert [one["metadata"]()["label"] for one in again] == ["cat", "cat", "dog"]


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "webdataset", "hf"])
@pytest.mark.parametrize(
    "listed",
    [{"id": 0, "name": "cat"}, [{"id": [1], "name": "cat"}], [{"id": True, "name": "cat"}], [3], 3],
)
def test_classes_that_are_none_never_end_the_export(tmp_path, photo, kind, listed):
    objects = JsonMetadataItem([{"label": "cat", "bbox": [0, 0, 2, 2]}])
    odd = photo("a.png", label="cat").set_item("annotations", objects)
    odd = odd.set_item("categories", JsonMetadataItem(listed, shared=True))

    report = written(kind, tmp_path / "out", odd, photo("b.png"))

    assert {one.error_type for one in report.failures.values()} <= {"SampleError"}
    assert report.samples + len(report.failures) == 2
    assert 1 not in report.failures


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
@pytest.mark.parametrize(
    "entry",
    [
        {"category_id": [1], "label": "cat", "bbox": [0, 0, 2, 2]},
        {"category_id": {}, "bbox": [0, 0, 2, 2]},
        {"label": "cat", "segmentation": [["a", "b"]]},
        {"label": "cat", "segmentation": [1, 2, 3]},
        {"label": "cat", "segmentation": 7, "bbox": "wide"},
        {"label": ["cat"], "bbox": [0, 0, 2, 2]},
        {"id": [1], "label": "cat", "bbox": [0, 0, 2, 2]},
    ],
)
def test_objects_that_are_none_never_end_the_export(tmp_path, photo, kind, entry):
    odd = photo("a.png").set_item("annotations", JsonMetadataItem([entry]))

    report = written(kind, tmp_path / "out", odd, photo("b.png"))

    assert {one.error_type for one in report.failures.values()} <= {"SampleError"}
    assert len(images_in(tmp_path / "out")) == report.samples
    assert 1 not in report.failures


@pytest.mark.parametrize("kind", ["coco", "yolo", "webdataset", "hf"])
def test_classes_of_samples_that_failed_are_not_listed(tmp_path, photo, kind):
    gone = Item.get_instance(tmp_path / "gone.png")
    objects = JsonMetadataItem([{"label": "ghost", "bbox": [0, 0, 2, 2]}])
    failing = photo("a.png", label="ghost").set_item("annotations", objects)
    listed = categories({"id": 3, "name": "ghost"})
    failing = failing.set_item("image", gone).set_item("categories", listed)
    objects = JsonMetadataItem([{"label": "cat", "bbox": [0, 0, 2, 2]}])
    good = photo("b.png", label="cat").set_item("annotations", objects)

    report = written(kind, tmp_path / "out", failing, good)

    assert list(report.failures) == [0]
    again = getattr(SamplesSequence, f"from_{kind}")(tmp_path / "out")
    assert [one["name"] for one in again[0]["categories"]()] == ["cat"]


# -- nothing of it is left -------------------------------------------------------------------


def test_file_beside_an_image_that_is_gone_is_not_left(tmp_path):
    items = {
        "image": Item.get_instance(tmp_path / "gone.jpg"),
        "mask": PngImageItem.get_instance(make_image(tmp_path / "m.png")),
        "metadata": JsonMetadataItem({"file": "deep/q.jpg"}),
    }

    report = written("images", tmp_path / "out", Sample(items), sidecars={"mask": "{stem}_m.png"})

    assert list(report.failures) == [0]
    assert list((tmp_path / "out").iterdir()) == []


def test_image_of_a_sample_that_coco_cannot_list_is_not_left(tmp_path, photo):
    broken = tmp_path / "coco.json"
    broken.write_text("{")
    sample = photo("a.jpg").set_item("coco", Item.get_instance(broken))

    report = written("coco", tmp_path / "out", sample)

    assert list(report.failures) == [0]
    assert images_in(tmp_path / "out") == []


def test_what_json_cannot_have_fails_its_sample_and_not_the_end_of_coco(tmp_path, photo):
    facts = {"file": "a.jpg", "coco": {"date_captured": datetime.date(2020, 1, 1)}}
    dated = photo("a.jpg").set_item("metadata", YamlMetadataItem(facts))
    objects = [{"label": "cat", "bbox": [0, 0, 2, 2], "seen": datetime.date(2020, 1, 1)}]
    seen = photo("b.jpg").set_item("annotations", YamlMetadataItem(objects))

    report = written("coco", tmp_path / "out", dated, seen, photo("c.jpg"))

    assert sorted(report.failures) == [0, 1]
    listed = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert [one["file_name"] for one in listed["images"]] == ["c.jpg"]
    assert listed["categories"] == []


# -- files beside images ---------------------------------------------------------------------


@pytest.fixture
def masked(tmp_path, photo):
    mask = Item.get_instance(make_image(tmp_path / "mask.png"))
    return lambda file: photo(file).set_item("mask", mask)


def test_pattern_that_leads_out_of_the_export_fails_the_sample(tmp_path, masked):
    before = set(tmp_path.rglob("*"))
    samples = [masked("a.jpg"), masked("deep/er/b.jpg")]

    report = written(
        "images", tmp_path / "out", *samples, sidecars={"mask": "../../{stem}_escaped.png"}
    )

    assert report.failures[0].error_type == "SampleError"
    assert sorted(files_below(tmp_path / "out")) == ["b_escaped.png", "deep/er/b.jpg"]
    outside = {path for path in tmp_path.rglob("*") if "out" not in path.parts} - before
    assert {path for path in outside if path.name.endswith("escaped.png")} == set()


@pytest.mark.parametrize("pattern", ["m.png", "/tmp/{stem}.png"])
def test_pattern_that_is_none_is_refused_before_anything_is_written(tmp_path, masked, pattern):
    with pytest.raises(PipeBuildingError, match="mask"):
        written("images", tmp_path / "out", masked("a.jpg"), sidecars={"mask": pattern})
    assert not (tmp_path / "out").exists()


def test_files_beside_images_have_names_of_their_own(tmp_path, masked):
    samples = [masked("a.jpg"), masked("a.png")]

    report = written("images", tmp_path / "out", *samples, sidecars={"mask": "{stem}_m.png"})

    assert report.samples == 2
    assert sorted(files_below(tmp_path / "out")) == ["a-1.png", "a-1_m.png", "a.jpg", "a_m.png"]


# -- folders of classes ----------------------------------------------------------------------


def test_folders_that_were_neither_split_nor_class_stay(tmp_path, photo):
    samples = [photo("2020/01/a.jpg", label="cat"), photo("2021/01/a.jpg", label="cat")]

    written("image-folder", tmp_path / "out", *samples)

    assert images_in(tmp_path / "out") == ["cat/2020/01/a.jpg", "cat/2021/01/a.jpg"]


def test_class_that_was_changed_takes_the_place_of_the_folder(tmp_path, photo):
    listed = categories({"id": 0, "name": "cat"}, {"id": 1, "name": "dog"})
    sample = photo("train/cat/in/a.jpg", split="val", label="dog").set_item("categories", listed)

    written("image-folder", tmp_path / "out", sample)

    assert images_in(tmp_path / "out") == ["val/dog/in/a.jpg"]


@pytest.mark.parametrize("file", ["images/train/a.jpg", "train/images/a.jpg", "a.jpg"])
def test_sample_without_a_class_gets_none_by_its_folder(tmp_path, photo, file):
    written("image-folder", tmp_path / "out", photo(file, split="train"))

    again = SamplesSequence.from_image_folder(tmp_path / "out")
    assert again[0]["metadata"]().get("label") is None
    assert again[0]["metadata"]()["split"] == "train"


# -- splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hf", "webdataset", "coco", "voc", "image-folder", "yolo"])
def test_split_that_is_no_name_fails_its_sample(tmp_path, photo, kind):
    samples = [photo("a.png", split="../x"), photo("b.png", split=["x"]), photo("c.png")]

    report = written(kind, tmp_path / "out", *samples)

    assert {idx: one.error_type for idx, one in report.failures.items()} == {
        0: "SampleError",
        1: "SampleError",
    }


def test_hf_keeps_a_split_called_other_apart_from_samples_without_one(tmp_path, photo):
    samples = [photo("a.png", split="other"), photo("b.png"), photo("c.png", split="train")]

    written("hf", tmp_path / "out", *samples)

    again = SamplesSequence.from_hf(tmp_path / "out")
    assert sorted(map(content_of, again)) == sorted(map(content_of, samples))


# -- the whole -------------------------------------------------------------------------------


def test_coco_of_nothing_is_read_back_as_nothing(tmp_path):
    assert written("coco", tmp_path / "out").samples == 0

    assert len(SamplesSequence.from_coco(tmp_path / "out")) == 0


def test_voc_of_nothing_has_the_folders_of_the_layout(tmp_path):
    assert written("voc", tmp_path / "out").samples == 0

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["Annotations", "JPEGImages"]


@pytest.mark.parametrize("kind", KINDS)
def test_export_that_fails_leaves_no_folder(tmp_path, kind):
    needs_datasets(kind)
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "new" / "newer" / "out"
    gone = Item.get_instance(tmp_path / "gone.jpg")
    samples = SamplesSequence.from_list([Sample({"image": gone})])

    with pytest.raises(ExportError):
        export(samples, kind, target)

    assert list(tmp_path.iterdir()) == [tmp_path / "there"]
    assert list((tmp_path / "there").iterdir()) == []
