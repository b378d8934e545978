"""Folders of images, by class and split, in and out."""

import os
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    DecodeError,
    PipeBuildingError,
    SampleError,
)
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.layouts import LayoutKind
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence, build_pipe
from tests.layouts.photos import all_values, files_below, make_image, make_photos

SIDECARS = {"mask": "{stem}_mask.png", "boxes": "{stem}.json"}


def names_of(samples: SamplesSequence) -> list[str]:
    return [sample["metadata"]()["file"] for sample in samples]


def test_images_are_in_natural_order_whatever_the_file_system_says(tmp_path: Path) -> None:
    names = [f"x{number}.jpg" for number in range(12)] + ["b/y2.png", "b/y10.png", "X1.bmp"]
    random.Random(3).shuffle(names)
    make_photos(tmp_path / "photos", *names)

    samples = SamplesSequence.from_image_folder(tmp_path / "photos", classes=False)

    assert names_of(samples)[:3] == ["X1.bmp", "b/y2.png", "b/y10.png"]
    assert names_of(samples)[3:] == [f"x{number}.jpg" for number in range(12)]


def test_folders_are_classes_and_splits(tmp_path: Path) -> None:
    folder = make_photos(
        tmp_path, "train/dog/a.jpg", "train/cat/a.jpg", "val/dog/old/b.png", "val/cat/c.webp"
    )
    samples = SamplesSequence.from_image_folder(folder, origin="pets")

    said = [sample["metadata"]() for sample in samples]
    assert said[0] == {
        "name": "a",
        "file": "train/cat/a.jpg",
        "origin": "pets",
        "split": "train",
        "label": "cat",
        "label_id": 0,
    }
    assert [(one["split"], one["label"], one["label_id"]) for one in said[1:]] == [
        ("train", "dog", 1),
        ("val", "cat", 0),
        ("val", "dog", 1),
    ]
    assert samples[0]["categories"].is_shared
    assert samples[0]["categories"]() == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]


def test_a_folder_called_otherwise_than_a_split_is_a_class(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "train/a.jpg", "plane/b.jpg", "c.jpg")

    said = [s["metadata"]() for s in SamplesSequence.from_image_folder(folder)]
    assert [one.get("label") for one in said] == [None, "plane", "train"]
    said = [s["metadata"]() for s in SamplesSequence.from_image_folder(folder, splits=True)]
    assert [one.get("split") for one in said] == [None, "plane", "train"]


def test_given_classes_keep_their_numbers(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "ant/a.jpg", "cat/a.jpg", "dog/a.jpg")
    samples = SamplesSequence.from_image_folder(folder, classes=["dog", "emu"])
    said = {s["metadata"]()["label"]: s["metadata"]()["label_id"] for s in samples}
    assert said == {"dog": 0, "ant": 2, "cat": 3}


def test_files_beside_an_image_are_its_items_and_no_samples(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "x.jpg", "y.jpg", "x_mask.png", "gone_mask.png")
    (folder / "x.json").write_text('{"boxes": [1]}')

    samples = SamplesSequence.from_image_folder(folder, classes=False, sidecars=SIDECARS)

    assert names_of(samples) == ["x.jpg", "y.jpg"]
    assert set(samples[0]) == {"image", "mask", "boxes", "metadata"}
    assert samples[0]["boxes"]() == {"boxes": [1]}
    assert set(samples[1]) == {"image", "metadata"}


def test_files_beside_an_image_may_be_in_another_folder(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "images/x.jpg", "masks/x.png", "masks/z.png")
    samples = SamplesSequence.from_image_folder(
        folder, classes=False, sidecars={"mask": "../masks/{stem}.png"}
    )
    assert names_of(samples) == ["images/x.jpg"]
    assert samples[0]["mask"].local_sources == (folder / "masks/x.png",)


def test_nothing_is_decoded_and_images_are_linked_with_their_extensions(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", "a.JPG", "b.jpg", "c.jpeg", "d.png")
    (tmp_path / "photos/e.png").write_bytes(b"no image at all")
    samples = SamplesSequence.from_image_folder(tmp_path / "photos", classes=False)

    samples.to_underfolder(tmp_path / "set").run()

    data = tmp_path / "set/data"
    written = sorted(path.name for path in data.iterdir() if "image" in path.name)
    endings = ["JPG", "jpg", "jpeg", "png", "png"]
    assert written == [f"{number}_image.{one}" for number, one in enumerate(endings)]
    for name, file in zip(written, ("a.JPG", "b.jpg", "c.jpeg", "d.png", "e.png"), strict=True):
        assert os.path.samefile(data / name, tmp_path / "photos" / file)


def test_hidden_files_and_links_to_folders_are_left_out(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", "a.jpg", ".b.jpg", ".git/c.jpg")
    make_photos(tmp_path / "elsewhere", "d.jpg")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    assert names_of(SamplesSequence.from_image_folder(folder)) == ["a.jpg"]


def test_an_image_that_is_gone_is_an_error_of_its_sample_alone(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "a.jpg", "b.jpg")
    (folder / "c.jpg").symlink_to(folder / "nowhere.jpg")
    samples = SamplesSequence.from_image_folder(folder)
    assert len(samples) == 3
    (folder / "b.jpg").unlink()

    with pytest.raises(DecodeError, match=r"b\.jpg: there is no such file.*'b\.jpg'"):
        samples[1]
    assert samples[0]["image"]().shape == (6, 8, 3)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        SamplesSequence.from_image_folder(tmp_path / "nowhere")
    with pytest.raises(PipeBuildingError, match="stem"):
        SamplesSequence.from_image_folder(tmp_path, sidecars={"mask": "mask.png"})
    with pytest.raises(PipeBuildingError, match=r"a\.b"):
        SamplesSequence.from_image_folder(tmp_path, sidecars={"a.b": "{stem}.png"})


def test_splits_may_have_a_year(tmp_path: Path) -> None:
    make_photos(tmp_path, "train2017/cat/a.jpg", "val2017/dog/b.jpg")
    facts = [sample["metadata"]() for sample in SamplesSequence.from_image_folder(tmp_path)]
    assert [(one["split"], one["label"]) for one in facts] == [
        ("train2017", "cat"),
        ("val2017", "dog"),
    ]


def test_a_source_is_named_in_a_list_and_can_be_pickled(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, "cat/a.jpg", "dog/b.jpg")
    samples = build_pipe([{"from_image_folder": str(folder)}])
    assert all_values(pickle.loads(pickle.dumps(samples))) == all_values(samples)


# -- out ---------------------------------------------------------------------------------------


def test_what_was_imported_is_exported_byte_for_byte(tmp_path: Path) -> None:
    names = ["train/cat/x1.jpg", "train/cat/deep/x1.jpg", "val/dog/x1.PNG", "val/dog/x1_mask.png"]
    source = make_photos(tmp_path / "photos", *names)
    options = {"sidecars": {"mask": "{stem}_mask.png"}}
    samples = SamplesSequence.from_image_folder(source, **options, origin="o")
    samples.to_underfolder(tmp_path / "set").run()

    report = export(
        SamplesSequence.from_underfolder(tmp_path / "set"),
        "image-folder",
        tmp_path / "out",
        **options,
    )

    assert report.samples == 3
    assert files_below(tmp_path / "out") == files_below(source)
    again = SamplesSequence.from_image_folder(tmp_path / "out", **options, origin="o")
    assert all_values(again) == all_values(samples)
    assert (tmp_path / "out/train/cat/x1.jpg").stat().st_nlink == 1  # a copy


def test_a_relabelled_image_goes_to_the_folder_of_its_new_label(tmp_path: Path) -> None:
    source = make_photos(tmp_path / "photos", "cat/a.jpg", "dog/a.jpg")
    samples = SamplesSequence.from_image_folder(source)
    samples.to_underfolder(tmp_path / "set").run()
    stream = DataStream.read_write_underfolder(tmp_path / "set")
    stream.set_output(1, stream[1].deep_set("metadata.label", "cat"))

    export(SamplesSequence.from_underfolder(tmp_path / "set"), "image-folder", tmp_path / "out")

    files = files_below(tmp_path / "out")
    assert set(files) == {"cat/a.jpg", "cat/a-1.jpg"}  # neither is lost
    assert files["cat/a-1.jpg"] == (source / "dog/a.jpg").read_bytes()


@pytest.mark.parametrize("label", ["../up", "a/b", "..", "", "/etc", 2.5])
def test_a_label_that_is_no_folder_is_an_error_that_leaves_nothing(
    tmp_path: Path, label: object
) -> None:
    source = make_photos(tmp_path / "photos", "cat/a.jpg", "dog/b.jpg")
    samples = SamplesSequence.from_image_folder(source)
    bad = samples[1].deep_set("metadata.label", label)

    with pytest.raises(ExportError, match=r"1 of 2 samples.*sample 1.*label"):
        export(SamplesSequence.from_list([samples[0], bad]), "image-folder", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]

    report = export(
        SamplesSequence.from_list([samples[0], bad]),
        "image-folder",
        tmp_path / "out",
        max_failed=0.5,
    )
    assert list(report.failures) == [1]
    assert set(files_below(tmp_path / "out")) == {"cat/a.jpg"}


def test_a_path_in_the_metadata_leads_nowhere_else(tmp_path: Path) -> None:
    samples = SamplesSequence.from_image_folder(make_photos(tmp_path / "photos", "a.jpg"))
    for said in ("../../evil.jpg", "/tmp/evil.jpg", 3, None):
        target = tmp_path / f"out-{said!r}".replace("/", "-")
        one = samples[0].deep_set("metadata.file", said)
        export(SamplesSequence.from_list([one]), "images", target)
        assert set(files_below(target)) == {"000000.jpg"}


def test_an_export_does_not_touch_what_is_there(tmp_path: Path) -> None:
    samples = SamplesSequence.from_image_folder(make_photos(tmp_path / "photos", "a.jpg"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetExistsError, match="out exists"):
        export(samples, "images", tmp_path / "out")
    with pytest.raises(PipeBuildingError, match="bla"):
        export(samples, "images", tmp_path / "other", bla=1)
    with pytest.raises(PipeBuildingError, match="Known: images"):
        export(samples, "nothing", tmp_path / "other")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "table"])
def test_labels_that_a_layout_has_no_place_for_are_told(kind: LayoutKind, tmp_path: Path) -> None:
    samples = SamplesSequence.from_image_folder(make_photos(tmp_path / "in", "cat/a.jpg", "b.jpg"))
    report = export(samples, kind, tmp_path / "out")
    assert (report.samples, report.labels_left_out) == (2, 0 if kind == "table" else 1)


def test_a_sample_without_an_image_says_what_it_has(tmp_path: Path) -> None:
    sample = Sample({"text": make_image_item(tmp_path)})
    with pytest.raises(ExportError, match=r"sample 0 has no image 'image' \(its items: text\)"):
        export(SamplesSequence.from_list([sample]), "images", tmp_path / "out")
    assert issubclass(SampleError, Exception)


def make_image_item(folder: Path):  # type: ignore[no-untyped-def]
    from prefect_pipestream.items import Item

    return Item.get_instance(make_image(folder / "one.png"))


NAMES = st.text("abXY01_- éß漢", min_size=1, max_size=6).filter(lambda n: n.strip() == n)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@settings(max_examples=30, deadline=None)
@given(st.sets(PATHS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_tree_of_images_comes_back(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], rng: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    # A file and a folder of one name cannot be: the endings keep them apart.
    names = [path + rng.choice([".png", ".jpg", ".JPEG", ".bmp"]) for path in paths]
    source = make_photos(folder / "photos", *names)
    for kind, options in (("images", {"classes": False, "splits": False}), ("image-folder", {})):
        samples = SamplesSequence.from_image_folder(source, origin="o", **options)
        samples.to_underfolder(folder / f"set-{kind}").run()
        dataset = SamplesSequence.from_underfolder(folder / f"set-{kind}")
        export(dataset, kind, folder / kind)  # type: ignore[arg-type]
        assert files_below(folder / kind) == files_below(source)
        again = SamplesSequence.from_image_folder(folder / kind, origin="o", **options)
        assert all_values(again) == all_values(samples)
