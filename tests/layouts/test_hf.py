"""Datasets that the library `datasets` saves and loads again, and what is wrong in them."""

import datetime
import decimal
import io
import json
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream import SamplesSequence
from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DecodeError
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import Item, JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample

pytest.importorskip("datasets.arrow_dataset")  # a folder `datasets` is no library
datasets = pytest.importorskip("datasets")  # heavy: the extra `hf`, not `test`
pyarrow = pytest.importorskip("pyarrow")


def picture(number: int, form: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


FEATURES = {
    "img": datasets.Image(),
    "mask": datasets.Image(),
    "views": datasets.Sequence(datasets.Image()),
    "fine": datasets.ClassLabel(names=["cat", "dog", "cow"]),
    "coarse": datasets.ClassLabel(names=["pet", "farm"]),
    "name": datasets.Value("string"),
    "score": datasets.Value("float32"),
    "big": datasets.Value("uint64"),
    "when": datasets.Value("timestamp[ns]"),
    "day": datasets.Value("date32"),
    "hour": datasets.Value("time64[us]"),
    "lasts": datasets.Value("duration[us]"),
    "price": datasets.Value("decimal128(10, 2)"),
    "raw": datasets.Value("binary"),
    "objects": [
        {"bbox": datasets.Sequence(datasets.Value("float32")), "id": datasets.Value("int8")}
    ],
    "grid": datasets.Array2D((2, 3), "int16"),
}


def row(number: int) -> dict:
    return {
        "img": {"bytes": picture(number), "path": f"{number}.JPG"},
        "mask": {"bytes": picture(number, "PNG"), "path": None} if number % 2 else None,
        "views": [{"bytes": picture(n, "PNG"), "path": None} for n in range(number % 3)],
        "fine": number % 3 if number else None,
        "coarse": number % 2,
        "name": f"n {number}",
        "score": 0.1 * number,
        "big": 2**64 - 1 - number,
        "when": datetime.datetime(2020, 1, 2, 3, 4, 5, 678901),
        "day": datetime.date(2020, 1, 2),
        "hour": datetime.time(1, 2, 3, 4),
        "lasts": datetime.timedelta(days=number, microseconds=5),
        "price": decimal.Decimal("1.50"),
        "raw": bytes(range(number)),
        "objects": [{"bbox": [0.1, 2.0, 3.0, 4.0], "id": n} for n in range(number)],
        "grid": [[number, 1, 2], [3, 4, 5]],
    }


def table(*numbers: int) -> datasets.Dataset:
    features = datasets.Features(FEATURES)
    rows = [features.encode_example(row(number)) for number in numbers]
    schema = features.arrow_schema  # `from_list` takes no number beyond int64
    return datasets.Dataset(pyarrow.Table.from_pylist(rows, schema=schema))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    splits = {"train": table(0, 1, 2), "test": table(3, 4)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def raw(folder: Path) -> dict:
    """All that the library loads, bytes of files as they are."""
    loaded = datasets.load_from_disk(str(folder))
    tables = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    return {
        name: (one.features, one.with_format("arrow")[:].to_pylist())
        for name, one in tables.items()
    }


def is_bytes(key: str, item: Item) -> bool:
    return key != "metadata" and not item.is_shared


def values(samples: SamplesSequence) -> list[dict]:
    return [
        {
            key: item.file_sources[0].read() if is_bytes(key, item) else item()
            for key, item in sample.items()
        }
        for sample in samples
    ]


def into_dataset(samples: SamplesSequence, folder: Path) -> SamplesSequence:
    samples.to_underfolder(folder).run()
    return SamplesSequence.from_underfolder(folder)


def test_a_saved_dataset_is_samples(saved):
    samples = SamplesSequence.from_hf(saved)
    assert len(samples) == 5
    sample = samples[4]
    assert set(sample) == {"image", "mask", "views_0", "grid", "categories", "hf", "metadata"} - (
        {"mask"}
    )
    assert sample["image"].file_sources[0].read() == picture(4)
    assert sample["image"].file_sources[0].path == str(saved / "test/1/image.JPG")
    assert samples[3]["mask"].file_sources[0].path == str(saved / "test/0/mask.png")
    assert sample["grid"]().tolist() == [[4, 1, 2], [3, 4, 5]]
    assert sample["grid"]().dtype == np.int16
    assert sample["categories"]()[1] == {"id": 1, "name": "dog"}
    facts = sample["metadata"]()
    assert {name: facts[name] for name in ("file", "split", "label", "label_id", "coarse")} == {
        "file": "test/1",
        "split": "test",
        "label": "dog",
        "label_id": 1,
        "coarse": 0,
    }
    assert facts["name"] == "1"
    assert facts["name_"] == "n 4"
    assert facts["when"] == "2020-01-02 03:04:05.678901000"
    assert facts["price"] == "1.50"
    assert facts["big"] == 2**64 - 5
    assert len(facts["objects"]) == 4
    assert samples[0]["metadata"]()["label"] is None


def test_exported_it_is_the_same_to_the_library_and_to_an_import(saved, tmp_path):
    samples = SamplesSequence.from_hf(saved, origin="it")
    dataset = into_dataset(samples, tmp_path / "dataset")
    assert (tmp_path / "dataset/data/3_image.JPG").read_bytes() == picture(3)
    assert values(dataset) == values(samples)
    export(dataset, "hf", tmp_path / "again")
    assert raw(tmp_path / "again") == raw(saved)
    assert values(SamplesSequence.from_hf(tmp_path / "again", origin="it")) == values(samples)
    assert sorted(os.listdir(tmp_path / "again")) == ["dataset_dict.json", "test", "train"]


def test_a_single_dataset_is_exported_as_one(tmp_path):
    table(0, 1, 2).save_to_disk(str(tmp_path / "saved"))
    samples = SamplesSequence.from_hf(tmp_path / "saved")
    assert [one["metadata"]()["file"] for one in samples] == ["0", "1", "2"]
    export(samples, "hf", tmp_path / "again", samples_per_file=2)
    assert raw(tmp_path / "again") == raw(tmp_path / "saved")
    assert len(list((tmp_path / "again").glob("*.arrow"))) == 2


def test_a_row_keeps_its_name_and_its_version_when_others_come_after_it(tmp_path):
    table(0, 1).save_to_disk(str(tmp_path / "a"))
    table(0, 2, 3).save_to_disk(str(tmp_path / "b"))
    before, after = (SamplesSequence.from_hf(tmp_path / name, origin="o") for name in "ab")
    assert before[0]["metadata"]() == after[0]["metadata"]()
    was, same = (
        {key: source.version for key, source in sample.origin.sources.items()}
        for sample in (before[0], after[0])
    )
    assert was == same
    assert after[1].origin.source_of("image").version != before[1].origin.source_of("image").version


def test_rows_are_called_by_a_column(saved):
    samples = SamplesSequence.from_hf(saved, id_column="name", keys={"mask": "segmentation"})
    assert samples[3]["metadata"]()["file"] == "test/n 3"
    assert "segmentation" in samples[3]


def test_columns_are_left_out_and_chosen(saved):
    samples = SamplesSequence.from_hf(saved, leave_out=["views", "grid"], label_column="coarse")
    assert samples[4]["metadata"]()["label"] == "pet"
    assert samples[4]["metadata"]()["fine"] == 1
    assert not {"views_0", "grid"} & set(samples[4])
    for wrong in ({"leave_out": ["x"]}, {"id_column": "x"}, {"keys": {"x": "y"}}):
        with pytest.raises(DatasetError, match="there is no column 'x'"):
            len(SamplesSequence.from_hf(saved, **wrong))
    with pytest.raises(DatasetError, match="none of classes"):
        SamplesSequence.from_hf(saved, label_column="name")[0]


def test_a_new_label_and_a_new_fact_are_exported(saved, tmp_path):
    samples = SamplesSequence.from_hf(saved)
    changed = [one.deep_set("metadata.sharpness", 0.5) for one in samples]
    changed[1] = changed[1].deep_set("metadata.label", "owl")
    export(SamplesSequence.from_list(changed), "hf", tmp_path / "again")
    loaded = datasets.load_from_disk(str(tmp_path / "again"))
    assert loaded["train"].features["fine"].names == ["cat", "dog", "cow", "owl"]
    assert loaded["train"]["fine"][:] == [None, 3, 2]
    assert loaded["test"]["sharpness"][:] == [0.5, 0.5]


def test_a_folder_of_classes_becomes_a_saved_dataset(tmp_path):
    for name in ("train/cat/1.jpg", "train/dog/1.png", "val/dog/2.jpg"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(len(name)))
    folder = SamplesSequence.from_image_folder(tmp_path / "folder")
    boxes = JsonMetadataItem([{"label": "cat", "bbox": [1, 2, 3, 4]}])
    samples = [
        Sample({"annotations": boxes, "a_mask": PngImageItem(np.zeros((3, 4), np.uint8)), **sample})
        for sample in folder
    ]
    export(SamplesSequence.from_list(samples), "hf", tmp_path / "saved")
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    assert {name: len(one) for name, one in loaded.items()} == {"train": 2, "val": 1}
    one = loaded["val"][0]
    assert loaded["val"].features["label"].int2str(one["label"]) == "dog"
    assert one["image"].size == (16, 12)
    assert json.loads(one["annotations"]) == boxes()
    samples = SamplesSequence.from_hf(tmp_path / "saved", id_column="file")
    assert samples[2]["metadata"]()["file"] == "val/val/dog/2.jpg"
    assert samples[2]["metadata"]()["label"] == "dog"
    assert samples[2]["image"].file_sources[0].read() == picture(len("val/dog/2.jpg"))
    assert samples[2]["a_mask"]().shape == (3, 4)


def test_samples_are_pickled(saved):
    samples = SamplesSequence.from_hf(saved)
    image = samples[4]["image"]
    assert values(pickle.loads(pickle.dumps(samples))) == values(samples)
    assert pickle.loads(pickle.dumps(image)).file_sources[0].read() == picture(4)


# -- what is wrong --------------------------------------------------------------------------


def linked(tmp_path: Path, *paths: str) -> Path:
    """A dataset whose images are files elsewhere, as the library has it before it is saved."""
    rows = [{"image": {"bytes": None, "path": path}} for path in paths]
    features = datasets.Features(
        {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    )
    folder = tmp_path / "linked"
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder))
    info = folder / "dataset_info.json"
    said = json.loads(info.read_text())
    said["features"] = {"image": {"_type": "Image"}}
    info.write_text(json.dumps(said))
    return folder


def test_files_outside_of_the_folder_are_refused_unless_it_is_named(tmp_path):
    outside = tmp_path / "images" / "1.jpg"
    outside.parent.mkdir()
    outside.write_bytes(picture(1))
    folder = linked(
        tmp_path, str(outside), "inside.jpg", "../images/1.jpg", "gone.jpg", "http://x/1.jpg"
    )
    (folder / "inside.jpg").write_bytes(picture(2))
    samples = SamplesSequence.from_hf(folder)
    assert samples[1]["image"].file_sources[0].path == str(folder / "inside.jpg")
    for idx in (0, 2, 3, 4):
        with pytest.raises(DecodeError, match="images_folder"):
            samples[idx]
    samples = SamplesSequence.from_hf(folder, images_folder=outside.parent)
    assert samples[0]["image"].file_sources[0].read() == picture(1)
    with pytest.raises(DecodeError, match="gone"):
        samples[3]


def test_what_is_no_saved_dataset_is_told(tmp_path, saved):
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_hf(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="save_to_disk"):
        len(SamplesSequence.from_hf(tmp_path / "empty"))
    (saved / "test/state.json").write_text("{")
    with pytest.raises(DatasetError, match=r"test/state\.json: is no JSON"):
        len(SamplesSequence.from_hf(saved))


@pytest.mark.parametrize("name", ["../train/data-00000-of-00001.arrow", "/etc/passwd", None])
def test_a_table_elsewhere_is_refused(saved, name):
    state = saved / "test/state.json"
    said = json.loads(state.read_text())
    said["_data_files"] = [{"filename": name}]
    state.write_text(json.dumps(said))
    with pytest.raises(DatasetError, match="no names of files"):
        len(SamplesSequence.from_hf(saved))


def test_splits_elsewhere_are_refused(saved):
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["../x"]}))
    with pytest.raises(DatasetError, match="no names of splits"):
        len(SamplesSequence.from_hf(saved))


def test_a_table_that_is_cut_off_is_told(saved):
    (path,) = (saved / "test").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match="cannot be read by the library"):
        len(SamplesSequence.from_hf(saved))


def test_an_image_that_is_none_is_copied_as_it_is(tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"image": {"bytes": b"no picture", "path": "x.png"}}]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    samples = SamplesSequence.from_hf(tmp_path / "saved")
    with pytest.raises(DecodeError, match=r"0/image\.png"):
        samples[0]["image"]()
    dataset = into_dataset(samples, tmp_path / "dataset")
    assert dataset[0]["image"].file_sources[0].read() == b"no picture"


def test_a_value_that_does_not_fit_its_column_fails_its_sample(saved, tmp_path):
    samples = list(SamplesSequence.from_hf(saved))
    samples[1] = samples[1].deep_set("metadata.score", "high")
    samples[2] = samples[2].set_value("grid", np.zeros((9, 9), np.int16))
    samples[3] = samples[3].deep_set("metadata.when", "some day")
    samples[4] = samples[4].deep_set("metadata.label", None).deep_set("metadata.label_id", 9)
    sequence = SamplesSequence.from_list(samples)
    with pytest.raises(ExportError, match=r"4 of 5 .*'score' does not fit the column 'score'"):
        export(sequence, "hf", tmp_path / "again")
    report = export(sequence, "hf", tmp_path / "again", max_failed=0.8)
    assert (report.samples, sorted(report.failures)) == (1, [1, 2, 3, 4])


plain_values = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(st.characters(exclude_categories=("Cs",))),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "number": st.none() | st.floats(allow_nan=False),
        "yes": st.none() | st.booleans(),
        "many": st.none() | st.lists(st.none() | st.integers(-128, 127), max_size=3),
        "raw": st.none() | st.binary(max_size=5),
        "when": st.none()
        | st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    }
)
PLAIN = {
    "text": datasets.Value("string"),
    "whole": datasets.Value("int64"),
    "number": datasets.Value("float64"),
    "yes": datasets.Value("bool"),
    "many": datasets.Sequence(datasets.Value("int8")),
    "raw": datasets.Value("binary"),
    "when": datasets.Value("timestamp[us]"),
    "image": datasets.Image(),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(plain_values, min_size=1, max_size=3))
def test_whatever_rows_hold_comes_back(rows):
    rows = [{**row, "image": {"bytes": picture(0), "path": "a.jpg"}} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved")
        features = datasets.Features(PLAIN)
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(saved))
        samples = SamplesSequence.from_hf(saved, origin="o")
        dataset = into_dataset(samples, Path(folder, "dataset"))
        export(dataset, "hf", Path(folder, "again"))
        assert raw(Path(folder, "again")) == raw(saved)
        assert values(SamplesSequence.from_hf(Path(folder, "again"), origin="o")) == values(samples)


# -- as a run -------------------------------------------------------------------------------


def test_an_import_takes_in_what_is_new_and_is_exported_again(tmp_path, prefect_api):
    from prefect_pipestream.flows import export_dataset, import_dataset

    dataset = tmp_path / "dataset"
    table(0, 1).save_to_disk(str(tmp_path / "saved"))
    options = {"id_column": "name", "origin": "o"}
    report = import_dataset("hf", tmp_path / "saved", dataset, options)
    assert report.counts["written"] == 2
    table(2, 0, 1).save_to_disk(str(tmp_path / "more"))
    report = import_dataset("hf", tmp_path / "more", dataset, options, chunk_size=1)
    assert report.counts["written"] == 1
    samples = SamplesSequence.from_underfolder(dataset)
    assert [one["metadata"]()["name_"] for one in samples] == ["n 0", "n 1", "n 2"]
    export_dataset(dataset, "hf", tmp_path / "again")
    table(0, 1, 2).save_to_disk(str(tmp_path / "wanted"))
    assert raw(tmp_path / "again") == raw(tmp_path / "wanted")
