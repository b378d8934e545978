"""Tables that name files: imported, exported, and imported again."""

import contextlib
import csv
import datetime
import decimal
import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DecodeError,
    MissingExtraError,
    PipeBuildingError,
)
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import ImageItem, JpegImageItem, JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from tests.layouts.photos import needs_datasets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    (root / "img").mkdir(parents=True)
    for number in range(4):
        iio.imwrite(root / f"img/{number}.png", np.full((4, 5), number, np.uint8))
        iio.imwrite(root / f"img/{number}_m.png", np.full((4, 5), 100 + number, np.uint8))
    return root


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / name


def read(file: Path, **options: Any) -> SamplesSequence:
    return SamplesSequence.from_table(file, origin="here", **options)


def facts(sample: Sample) -> dict[str, Any]:
    return {key: v for key, v in sample["metadata"]().items() if key not in ("name", "origin")}


def everything(sequence: SamplesSequence) -> list[dict[str, Any]]:
    """All that samples have, files by their bytes."""
    found = []
    for sample in sequence:
        values: dict[str, Any] = {}
        for key, item in sample.items():
            is_file = isinstance(item, ImageItem)
            path = Path(item.file_sources[0].path) if is_file else None
            values[key] = (path.suffix, path.read_bytes()) if path else item()
        found.append(values)
    return found


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# -- CSV -------------------------------------------------------------------------------------


def test_the_columns_are_metadata_in_the_order_of_the_rows(folder):
    file = table(folder, "file_name,label,split\nimg/2.png,cat,train\nimg/0.png,dog,val\n")
    first, second = read(file)
    assert first["metadata"]() == {
        "name": "2",
        "file": "img/2.png",
        "origin": "here",
        "file_name": "img/2.png",
        "label": "cat",
        "split": "train",
    }
    assert second["image"]()[0, 0] == 0
    assert first["image"].extension_in_use() == ".png"
    assert first["table"].is_shared


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_values_have_types_where_the_text_comes_back(folder, tmp_path, delimiter):
    lines = [
        ["path", "whole", "number", "id", "price", "yes", "Yes", "note", "e", "hex", "mixed"],
        ["img/0.png", "1", "0.5", "007", "1.50", "true", "True", "a,b;c\td", "", "0x1", "1"],
        ["img/1.png", "-2", "3", "8", "2.25", "false", "", ' "x"\nline', "", "2", "true"],
        ["img/2.png", "", "1e-07", "9", "3", "", "False", "", "", "1_0", ""],
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(lines)
    file = table(folder, text.getvalue())
    columns = {name: [facts(s)[name] for s in read(file)] for name in lines[0]}
    assert columns == {
        "path": ["img/0.png", "img/1.png", "img/2.png"],
        "whole": [1, -2, None],
        "number": [0.5, 3, 1e-7],
        "id": ["007", "8", "9"],
        "price": ["1.50", "2.25", "3"],
        "yes": [True, False, None],
        "Yes": [True, None, False],
        "note": ["a,b;c\td", ' "x"\nline', ""],
        "e": ["", "", ""],
        "hex": ["0x1", "2", "1_0"],
        "mixed": ["1", "true", ""],
    }
    export(read(file), "table", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_bytes() == file.read_bytes()
    assert everything(read(tmp_path / "out")) == everything(read(file))


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_the_table(folder):
    (folder / "a.csv").write_bytes(b"\xef\xbb\xbfpath,x\r\nimg/0.png,1\r\n\r\nimg/1.png,2\r\n")
    assert [facts(sample)["x"] for sample in read(folder / "a.csv")] == [1, 2]


def test_the_delimiter_is_that_which_makes_the_columns_that_are_asked_for(folder):
    file = table(folder, "who, where;picture;a, b\nx;img/0.png;y, z\n")
    assert facts(read(file, path_column="picture")[0])["a, b"] == "y, z"


def test_a_sample_is_told_apart_by_what_is_said_of_it_alone(folder):
    def versions(text: str) -> dict[str, Any]:
        samples = list(read(table(folder, text)))
        return {
            sample["metadata"]()["file"]: {
                name.partition("_")[2]: source.version[:2]
                for name, source in sample.origin.sources.items()
            }
            for sample in samples
        }

    before = versions("path,x\nimg/0.png,1\nimg/1.png,2\n")
    after = versions("path,x\nimg/2.png,7\nimg/0.png,1\nimg/1.png,3\n")
    assert after["img/0.png"] == before["img/0.png"]
    assert after["img/1.png"] != before["img/1.png"]


def test_masks_and_others_are_items_and_empty_cells_none(folder, tmp_path):
    file = table(folder, "image,mask_path,x\nimg/0.png,img/0_m.png,1\nimg/1.png,,2\n")
    options: dict[str, Any] = {"columns": {"mask": "mask_path"}}
    first, second = read(file, **options)
    assert first["mask"]()[0, 0] == 100
    assert "mask" not in second
    read(file, **options).to_underfolder(tmp_path / "dataset").run(track_fn=False)
    export(SamplesSequence.from_underfolder(tmp_path / "dataset"), "table", tmp_path / "out")
    assert everything(read(tmp_path / "out", **options)) == everything(read(file, **options))
    assert (tmp_path / "out/labels.csv").read_bytes() == file.read_bytes()


def test_an_id_names_the_samples_which_may_have_no_image_then(folder, tmp_path):
    file = table(folder, "id,path\n007,img/0.png\n8,\n9,img/0.png\n")
    sequence = read(file, id_column="id")
    assert [sample["metadata"]()["file"] for sample in sequence] == ["007", "8", "9"]
    assert "image" not in sequence[1]
    export(sequence, "table", tmp_path / "out")
    assert everything(read(tmp_path / "out", id_column="id")) == everything(sequence)
    assert set(files(tmp_path / "out")) == {"labels.csv", "img/0.png"}


def test_columns_that_are_called_as_what_metadata_has_keep_their_values(folder, tmp_path):
    text = "file,name,origin,column_name\nimg/0.png,n,o,x\n./img/1.png,m,p,y\n"
    file = table(folder, text)
    first, second = (sample["metadata"]() for sample in read(file))
    assert (first["name"], first["file"], first["origin"]) == ("0", "img/0.png", "here")
    assert first["column_name"] == "x"
    assert first["column_column_name"] == "n"
    assert "column_file" not in first
    assert second["column_file"] == "./img/1.png"
    export(read(file), "table", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_text() == text


def test_an_index_without_a_name_as_pandas_writes_it(folder, tmp_path):
    text = ",path\n0,img/0.png\n1,img/1.png\n"
    export(read(table(folder, text)), "table", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_text() == text


def test_paths_are_relative_to_the_root(folder, tmp_path):
    (folder / "meta").mkdir()
    file = table(folder / "meta", "path\n../img/0.png\n")
    with pytest.raises(DecodeError, match="is no path below"):
        read(file)[0]
    assert read(file, root=folder)[0]["metadata"]()["file"] == "img/0.png"
    whole = table(folder / "meta", f"path\n{folder}/img/0.png\n")
    assert read(whole, root=folder)[0]["metadata"]()["file"] == "img/0.png"
    below = table(folder / "meta", "path\nimg/0.png\n")
    assert read(below, root=folder)[0]["image"]()[0, 0] == 0
    export(read(whole, root=folder), "table", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_text() == "path\nimg/0.png\n"


cells = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    st.sampled_from(["true", "false", "", "007", "1", "-1", "0.5", "1e10", "nan", "inf", "True"]),
    st.integers().map(str),
    st.floats().map(repr),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_any_cells_come_back(folder, tmp_path_factory, rows, data):
    delimiter = data.draw(st.sampled_from([",", ";", "\t"]))
    with (folder / "any.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(["path", "a", "b", "c"])
        writer.writerows([f"img/{number}.png", *row] for number, row in enumerate(rows))
    out = tmp_path_factory.mktemp("any") / "out"
    export(read(folder / "any.csv"), "table", out)
    with (out / "any.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file, delimiter=delimiter))
    assert [record[1:] for record in found[1:]] == rows
    assert everything(read(out)) == everything(read(folder / "any.csv"))


# -- JSON Lines ------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
columns_of = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda name: name not in ("file", "file_name", "filename", "image", "image_path", "path")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.dictionaries(columns_of, values, max_size=4), min_size=1, max_size=4))
def test_any_json_comes_back(folder, tmp_path_factory, rows):
    rows = [{"path": f"img/{number}.png", **row} for number, row in enumerate(rows)]
    table(folder, "".join(json.dumps(row) + "\n" for row in rows), "any.jsonl")
    out = tmp_path_factory.mktemp("any") / "out"
    export(read(folder / "any.jsonl"), "table", out)
    lines = (out / "any.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == rows
    assert everything(read(out)) == everything(read(folder / "any.jsonl"))


def test_bad_lines_of_json_fail_alone(folder):
    lines = [
        '{"path": "img/0.png", "x": {"a": [1, {"b": null}]}}',
        '{"path": "img/1.png"',
        "[1, 2]",
        "[" * 100_000,
        '{"path": "img/2.png", "x": ' + "[" * 500 + "]" * 500 + "}",
        '{"path": 7}',
        '{"x": 1}',
        '{"path": "img/3.png", "n": ' + "9" * 5000 + "}",
        '{"path": "\\ud800.png"}',
        '{"path": "img/1.png", "x": 1}',
    ]
    sequence = read(table(folder, "\n".join(lines), "a.jsonl"))
    errors = {}
    for idx in range(len(sequence)):
        try:
            sequence[idx]
        except DecodeError as error:
            errors[idx + 1] = str(error)
    assert sorted(errors) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert all(f"a.jsonl, line {line}" in error for line, error in errors.items())
    assert "is no JSON" in errors[2]
    assert "is a list, not an object" in errors[3]
    assert "nested deeper" in errors[5]
    assert "has None in column 'path'" in errors[7]
    assert facts(sequence[0])["x"] == {"a": [1, {"b": None}]}


# -- Parquet ---------------------------------------------------------------------------------


def whole_table() -> Any:
    time = datetime.datetime(2024, 2, 29, 12, 30, 1, 123456)
    zone = datetime.timezone(datetime.timedelta(0))
    nested = [{"at": time, "raw": b"\0\xff", "more": [1, None]}]
    columns = {
        "path": pa.array(["img/0.png", "img/1.png"]),
        "when": pa.array([time, None], pa.timestamp("us")),
        "nano": pa.array([1, -5], pa.int64()).cast(pa.timestamp("ns")),
        "zoned": pa.array([time.replace(tzinfo=zone), None], pa.timestamp("ms", "Europe/Rome")),
        "day": pa.array([time.date(), None]),
        "clock": pa.array([time.time(), None], pa.time64("us")),
        "clock_s": pa.array([1, None], pa.int32()).cast(pa.time32("s")),
        "took": pa.array([datetime.timedelta(1, 2, 3), None]),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2)),
        "raw": pa.array([b"\0\x01\xff", None]),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "half": pa.array([1.5, None], pa.float16()),
        "single": pa.array([0.1, float("inf")], pa.float32()),
        "small": pa.array([7, None], pa.uint8()),
        "large": pa.array([2**64 - 1, None], pa.uint64()),
        "kind": pa.array(["a", None]).dictionary_encode(),
        "nested": pa.array([nested, None]),
        "pairs": pa.array([[("k", time.date())], None], pa.map_(pa.string(), pa.date32())),
        "vector": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2)),
        "yes": pa.array([True, None]),
        "nothing": pa.nulls(2),
        "text": pa.array(["007", None], pa.large_string()),
    }
    return pa.table(columns)


def test_every_type_of_parquet_comes_back(folder, tmp_path):
    pq.write_table(whole_table(), folder / "t.parquet")
    written = pq.read_table(folder / "t.parquet")
    sequence = read(folder / "t.parquet")
    found = facts(sequence[0])
    json.dumps(found, allow_nan=False)
    assert found["when"] == "2024-02-29 12:30:01.123456"
    assert found["nano"] == "1970-01-01 00:00:00.000000001"
    assert found["price"] == "1.50"
    assert found["day"] == "2024-02-29"
    assert found["raw"] == "AAH/"
    assert found["nested"] == [
        {"at": "2024-02-29 12:30:01.123456", "raw": "AP8=", "more": [1, None]}
    ]
    sequence.to_underfolder(tmp_path / "dataset").run(track_fn=False)
    export(SamplesSequence.from_underfolder(tmp_path / "dataset"), "table", tmp_path / "out")
    assert pq.read_table(tmp_path / "out/t.parquet").equals(written, check_metadata=True)
    assert everything(read(tmp_path / "out")) == everything(sequence)


def test_columns_that_were_added_to_parquet_get_the_type_of_their_values(folder, tmp_path):
    pq.write_table(whole_table(), folder / "t.parquet")

    def add(sample: Sample) -> Sample:
        return sample.set_value("metadata", {**sample["metadata"](), "sharpness": 0.5})

    export(read(folder / "t.parquet").map(add), "table", tmp_path / "out")
    out = pq.read_table(tmp_path / "out/t.parquet")
    assert out.column_names[-1] == "sharpness"
    assert out.column("sharpness").to_pylist() == [0.5, 0.5]
    assert out.drop_columns("sharpness").equals(pq.read_table(folder / "t.parquet"))


def test_a_value_that_has_no_place_in_its_column_fails_its_sample(folder, tmp_path):
    pq.write_table(whole_table(), folder / "t.parquet")

    def spoil(sample: Sample) -> Sample:
        facts = sample["metadata"]()
        return sample.set_value("metadata", {**facts, "small": 300 if facts["small"] else None})

    sequence = read(folder / "t.parquet").map(spoil)
    with pytest.raises(ExportError, match="column 'small': its values are not of type uint8"):
        export(sequence, "table", tmp_path / "no")
    report = export(sequence, "table", tmp_path / "out", max_failed=0.5)
    assert list(report.failures) == [0]
    assert set(files(tmp_path / "out")) == {"t.parquet", "img/1.png"}


def test_what_pandas_writes_is_read_and_the_other_way_round(folder, tmp_path):
    pandas = pytest.importorskip("pandas")
    paths = [f"img/{number}.png" for number in range(3)]
    taken = pandas.date_range("2024-01-01", periods=3, freq="h")
    frame = pandas.DataFrame({"path": paths, "score": [0.5, None, 1], "taken": taken})
    frame.index = ["x", "y", "z"]
    frame.to_parquet(folder / "t.parquet")
    export(read(folder / "t.parquet"), "table", tmp_path / "out")
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "out/t.parquet"), frame)
    frame.to_csv(folder / "t.csv")
    export(read(folder / "t.csv"), "table", tmp_path / "csv")
    pandas.testing.assert_frame_equal(
        pandas.read_csv(tmp_path / "csv/t.csv"), pandas.read_csv(folder / "t.csv")
    )


def test_without_pyarrow_the_extra_is_named(folder, monkeypatch):
    pq.write_table(whole_table(), folder / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"prefect-pipestream\[parquet\]"):
        len(read(folder / "t.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_said_to_be_none(folder, content):
    (folder / "t.parquet").write_bytes(content)
    with pytest.raises(DecodeError, match=r"t\.parquet: is no Parquet file"):
        len(read(folder / "t.parquet"))


# -- out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_samples_from_elsewhere_get_a_table(folder, tmp_path, kind):
    samples = SamplesSequence.from_image_folder(folder, classes=True)
    export(samples, "table", tmp_path / "out", format=kind)
    found = read(tmp_path / "out")
    assert len(found) == 8
    assert facts(found[0]) == {
        "file": "img/0.png",
        "file_name": "img/0.png",
        "label": "img",
        "label_id": 0,
    }


def test_the_images_and_columns_are_loaded_by_datasets(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    needs_datasets()
    import datasets

    file = table(folder, "file_name,score,note\nimg/0.png,0.5,x\nimg/1.png,,y\n", "metadata.csv")
    export(read(file), "table", tmp_path / "out")
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=cache)
    rows = loaded["train"]
    assert [row["note"] for row in rows] == ["x", "y"]
    assert [np.asarray(row["image"])[0, 0] for row in rows] == [0, 1]


def test_one_format_becomes_another(folder, tmp_path):
    file = table(folder, "path;x;yes\nimg/0.png;0.5;true\nimg/1.png;;false\n")
    export(read(file), "table", tmp_path / "p", format="parquet")
    export(read(tmp_path / "p"), "table", tmp_path / "j", format="jsonl")
    export(read(tmp_path / "j/labels.jsonl"), "table", tmp_path / "c", format="csv")
    assert [facts(s) for s in read(tmp_path / "c")] == [facts(s) for s in read(file)]


def test_a_changed_picture_has_its_new_extension_in_the_table(folder, tmp_path):
    file = table(folder, "path,label\nimg/0.png,cat\nimg/1.png,dog\n")

    def change(sample: Sample) -> Sample:
        sample = sample.set_item("image", JpegImageItem(np.zeros((9, 9, 3), np.uint8)))
        return sample.set_value("metadata", {**sample["metadata"](), "label": "fish", "new": [1]})

    export(read(file).map(change), "table", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_text() == (
        "path,label,new\nimg/0.jpeg,fish,[1]\nimg/1.jpeg,fish,[1]\n"
    )
    assert read(tmp_path / "out")[0]["image"]().shape == (9, 9, 3)


def test_a_hostile_path_or_table_name_stays_in_the_export(tmp_path):
    about = {
        "file": "../x.csv",
        "format": "csv",
        "columns": [{"name": "path", "key": "path"}],
        "paths": {"image": "path"},
    }

    def sample(said: Any) -> Sample:
        return Sample(
            {
                "image": PngImageItem(np.zeros((2, 2), np.uint8)),
                "metadata": JsonMetadataItem({"path": "../../etc/x.png"}),
                "table": JsonMetadataItem(said, shared=True),
            }
        )

    export(SamplesSequence.from_list([sample(about)]), "table", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"metadata.csv", "000000.png"}
    for said in ([], {**about, "paths": 1}, {**about, "format": "x"}, {**about, "delimiter": "ab"}):
        with pytest.raises(ExportError, match="does not tell what a table was like"):
            export(SamplesSequence.from_list([sample(said)]), "table", tmp_path / "no")
    numbers = JsonMetadataItem({"path": "a.png", "x": float("nan"), "y": "\ud800"})
    bad = Sample({**sample(about), "metadata": numbers})
    with pytest.raises(ExportError, match="cannot be a row of a table"):
        export(SamplesSequence.from_list([bad]), "table", tmp_path / "no")
    nothing = Sample({"metadata": JsonMetadataItem({})})
    with pytest.raises(ExportError, match="has no image"):
        export(SamplesSequence.from_list([nothing]), "table", tmp_path / "no")


# -- bad input -------------------------------------------------------------------------------


def test_bad_rows_fail_alone(folder):
    os.symlink("/etc", folder / "out")
    text = (
        "path,x\nimg/0.png,1\n../../etc/passwd,2\n/etc/passwd,3\nimg/gone.png,4\nimg/1.png\n"
        ",5\na\0b,6\nout/passwd,7\nimg/2.png,8\n"
    )
    sequence = read(table(folder, text))
    errors = {}
    for idx in range(len(sequence)):
        try:
            sequence[idx]
        except DecodeError as error:
            errors[idx] = str(error)
    assert sorted(errors) == [1, 2, 3, 4, 5, 6, 7]
    assert "labels.csv, line 3: '../../etc/passwd' in column 'path' is no path" in errors[1]
    assert "is no path below" in errors[2]
    assert "img/gone.png: there is no such file" in errors[3]
    assert "line 6 has 1 cells, and the table 2 columns" in errors[4]
    assert "line 7 has '' in column 'path'" in errors[5]
    assert "is no path below" in errors[6]
    assert "leads out of" in errors[7]
    assert facts(sequence[8])["x"] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line with the names"),
        ("a,b\n1,2\n", "there is no column of paths. Columns: a, b"),
        ("path,path\nimg/0.png,1\n", "two columns are called 'path'"),
        ('path,x\nimg/0.png,"1\n', "labels.csv, line 2: unexpected end of data"),
        ('path,x\nimg/0.png,"1"2\n', "labels.csv, line 2: .* expected after"),
        ("path\nimg/0.png\n./img/0.png\n", "lines 2 and 3: both are called 'img/0.png'"),
        ("path,x\n" + "a" * 200_000 + ",1\n", "line 2: field larger"),
    ],
)
def test_a_bad_table_says_where(folder, text, message):
    with pytest.raises((DecodeError, DatasetError), match=message):
        len(read(table(folder, text)))


WORDS = 'path , ; " "" \' img/0.png img/1.png ../x / . 1 1.5 true { } [ ] : \0 \ufeff'
words = st.sampled_from([*WORDS.split(), "\n", "\r", "\t", " "])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(words).map("".join).map(str.encode) | st.binary(),
    st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    st.booleans(),
)
def test_whatever_is_in_a_table_it_is_read_or_an_error(folder, content, kind, with_header):
    header = {"csv": b"path,x\n", "tsv": b"path\tx\n", "jsonl": b'{"path": "img/2.png"}\n'}
    path = folder / f"any.{kind}"
    path.write_bytes((header.get(kind, b"PAR1") if with_header else b"") + content)
    sequence = read(path)
    try:
        names = sequence.names
    except (DecodeError, DatasetError):
        return
    for idx in range(len(names)):
        with contextlib.suppress(DecodeError):
            json.dumps(sequence[idx]["metadata"]())


def test_a_table_of_another_encoding_is_refused(folder):
    (folder / "a.csv").write_bytes("path,x\nimg/0.png,é\n".encode("latin-1"))
    with pytest.raises(DecodeError, match=r"a\.csv: is no text in UTF-8 \(byte 17\)"):
        len(read(folder / "a.csv"))


def test_arguments_that_cannot_be_meant(folder):
    file = table(folder, "path\nimg/0.png\n")
    with pytest.raises(DecodeError, match="no column 'mask_path'"):
        len(read(file, columns={"mask": "mask_path"}))
    with pytest.raises(DecodeError, match="no column 'id'"):
        len(read(file, id_column="id"))
    with pytest.raises(PipeBuildingError, match="'table' is that of"):
        read(file, columns={"table": "path"})
    with pytest.raises(DatasetNotFoundError):
        read(folder / "gone.csv")
    with pytest.raises(DecodeError, match="is no table by its name"):
        len(read(folder / "img/0.png"))
    table(folder, "path\nimg/0.png\n", "other.jsonl")
    with pytest.raises(DatasetError, match=r"there is: labels\.csv, other\.jsonl"):
        len(read(folder))


def test_the_source_goes_to_other_processes(folder):
    sequence = read(table(folder, "path\nimg/0.png\n"))
    len(sequence)
    assert everything(pickle.loads(pickle.dumps(sequence))) == everything(sequence)
