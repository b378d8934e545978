"""Keys, indices and values given to `set_output`: nothing may leave the folder or get lost."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import (
    EncodeError,
    ItemError,
    ItemNameError,
    PipeBuildingError,
    PipestreamError,
)
from prefect_pipestream.items import BinaryItem, Item, JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

from .folders import changed, image_of, snapshot

pytestmark = pytest.mark.usefixtures("surroundings")

BAD_KEYS = [
    *("a/b", "/etc/passwd", "../up", "../../up", "..", ".", "a/../../../up", "a/", "/"),
    *(".hidden", "a.b", "image.png", ".", "..a", "a..", "", "a\\b", "a\0b", "a\nb", "\t", "\x7f"),
    *("\u202e", "\u200b", "\ud800", "k" * 201, "é" * 101, "\N{ROCKET}" * 51),
]
ODD_KEYS = [
    *(" ", "_", "-", "~", "~root", "a b", "$HOME", "*", "?", "con", "'", '"', "%2e%2e", "&", "|"),
    *("ключ", "画像", "e\u0301", "\N{ROCKET}", "k" * 200, "0", "0_1", "-rf", "data", "undefined"),
]


def sample_of(key: str, shared: bool = False) -> Sample:
    return Sample({"image": PngImageItem(image_of(9)), key: BinaryItem(b"x", shared=shared)})


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_key_that_could_leave_the_folder_is_refused_and_nothing_is_written(
    key: str, shared: bool, dataset: Path
) -> None:
    before = snapshot(dataset.parent)
    for stream in (
        DataStream.read_write_underfolder(dataset),
        DataStream.read_write_underfolder(dataset, zfill=0),
        DataStream.create_output_stream(dataset),
        DataStream(
            SamplesSequence.from_underfolder(dataset),
            ["data_cache", {"to_underfolder": {"folder": dataset, "exists_ok": True}}],
        ),
    ):
        with pytest.raises(ItemNameError) as caught:
            stream.set_output(0, sample_of(key, shared))
        assert repr(key)[:20] in str(caught.value)
        with pytest.raises(ItemNameError), stream.commit_group() as group:
            group.set_output(0, sample_of(key, shared))
    assert changed(before, snapshot(dataset.parent)) == set()


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_other_key_comes_back_as_it_was(key: str, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(1, stream[1].set_item(key, BinaryItem(b"own")))
    stream.set_output(2, Sample({key + "s"[: 200 - len(key)]: BinaryItem(b"s", shared=True)}))
    reader = SamplesSequence.from_underfolder(dataset)
    assert reader[1][key]() == b"own"
    assert len(reader) == 3


def test_a_bad_key_in_a_group_leaves_the_other_samples(dataset: Path) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with stream.commit_group() as group:
        group.set_output(0, stream[0].set_value("image", image_of(7)))
        with pytest.raises(ItemNameError):
            group.set_output(1, sample_of("../up").set_item("new", BinaryItem(b"", shared=True)))
        group.set_output(2, stream[2].set_value("image", image_of(8)))
    assert changed(before, snapshot(dataset)) == {"data/000_image.png", "data/002_image.png"}


def test_a_key_that_is_not_written_does_no_harm(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, sample_of("../up"), keys=["image"])
    assert np.array_equal(stream[0]["image"](), image_of(9))


@pytest.mark.parametrize("keys", ["image", "", "a"])
def test_one_string_is_not_taken_for_several_keys(keys: str, dataset: Path) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(TypeError, match="expected a collection of keys"):
        stream.set_output(0, sample_of("mag"), keys=keys)
    assert changed(before, snapshot(dataset)) == set()


# -- indices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "idx", [-4, -(10**30), 10**14, 10**30, True, False, 1.0, "0", "../0", None, np.float64(1), ()]
)
def test_what_is_no_index_is_refused(idx: Any, dataset: Path) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises((ItemNameError, IndexError, TypeError)):
        stream.set_output(idx, sample_of("k"))
    with stream.commit_group() as group:
        with pytest.raises((ItemNameError, IndexError, TypeError)):
            group.set_output(idx, sample_of("k"))
        if idx is not None:
            with pytest.raises((ItemNameError, IndexError, TypeError)):
                group.set_output(0, stream[0], target=idx)
    assert changed(before, snapshot(dataset)) == set()
    if not isinstance(idx, bool):
        with pytest.raises((IndexError, TypeError)):
            stream[idx]


def test_negative_indices_count_from_the_end(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(-1, Sample({"a": BinaryItem(b"last")}))
    stream.set_output(np.int64(-3), Sample({"a": BinaryItem(b"first")}))  # type: ignore[arg-type]
    assert (stream[2]["a"](), stream[0]["a"]()) == (b"last", b"first")


def test_indices_of_numpy_are_indices(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    for idx in stream.indices():
        stream.set_output(idx, stream[idx].set_value("image", 255 - stream[idx]["image"]()))
    with stream.commit_group() as group:
        for idx in stream.indices():
            group.set_output(idx, stream[idx].set_value("meta", {"i": int(idx)}), target=idx)
    assert [sample["meta"]()["i"] for sample in stream] == [0, 1, 2]


def test_a_write_only_stream_has_no_end_to_count_from(tmp_path: Path) -> None:
    stream = DataStream.create_output_stream(tmp_path / "new")
    with pytest.raises(IndexError):
        stream.set_output(-1, sample_of("k"))
    with pytest.raises(IndexError):
        stream[0]
    assert not (tmp_path / "new").exists()


# -- values --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "text", {"image": BinaryItem(b"")}, [], b"x"])
def test_what_is_no_sample_is_refused(value: Any, dataset: Path) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(TypeError, match="expected a Sample"):
        stream.set_output(0, value)
    assert changed(before, snapshot(dataset)) == set()


@pytest.mark.parametrize("value", [None, 1, "text", np.zeros(3), object()])
def test_a_sample_holds_nothing_but_items(value: Any) -> None:
    for make in (
        lambda: Sample({"a": value}),
        lambda: Sample().set_item("a", value),
        lambda: Sample().merge({"a": value}),
        lambda: Sample() | {"a": value},
        lambda: Sample() ^ {"a": value},
    ):
        with pytest.raises(TypeError, match="expected an Item"):
            make()
    with pytest.raises(TypeError, match="expected a str"):
        Sample({1: BinaryItem(b"")})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "make",
    [
        lambda: PngImageItem(np.zeros((3, 3, 7), np.uint8)),
        lambda: PngImageItem(np.zeros((3, 3), np.float64)),
        lambda: PngImageItem(np.zeros((0, 3), np.uint8)),
        lambda: JsonMetadataItem({"a": {1, 2}}),
        lambda: JsonMetadataItem({"a": object()}),
        lambda: JsonMetadataItem(),
        lambda: BinaryItem(),
        lambda: Item.get_instance("/nowhere/gone.png"),
    ],
)
def test_a_value_that_cannot_be_written_is_an_error_and_leaves_no_file(
    make: Any, dataset: Path
) -> None:
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[1].set_value("image", image_of(7)).set_item("bad", make())
    with pytest.raises((EncodeError, ItemError), match="Sample 1, item 'bad'"):
        stream.set_output(1, sample)
    assert changed(before, snapshot(dataset)) == set()
    assert not [
        p
        for p in (dataset / ".pipestream" / "staged").rglob("*")
        if p.is_file() and p.suffix != ".alive"
    ]


def test_a_file_without_an_extension_is_refused_as_it_would_not_be_found_again(
    dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "README").write_text("text")
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    for shared in (False, True):
        item = Item.get_instance(tmp_path / "README", shared)
        with pytest.raises(ItemNameError, match="without an extension"):
            stream.set_output(0, stream[0].set_item("blob", item))
    assert changed(before, snapshot(dataset)) == set()


def test_a_folder_in_the_way_of_a_new_item_is_an_error_that_names_it(dataset: Path) -> None:
    (dataset / "data" / "000_blob.bin").mkdir()
    (dataset / "common.bin").mkdir()
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(PipestreamError, match=r"item 'blob'.*000_blob\.bin is a folder"):
        stream.set_output(0, sample_of("blob"))
    with pytest.raises(PipestreamError, match=r"item 'common'.*common\.bin is a folder"):
        stream.set_output(0, sample_of("common", shared=True))
    assert changed(before, snapshot(dataset)) == set()


def test_two_classes_for_one_new_shared_item_make_one_file(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    with stream.commit_group() as group:
        group.set_output(0, Sample({"new": JsonMetadataItem({"a": 1}, shared=True)}))
        group.set_output(1, Sample({"new": BinaryItem(b"x", shared=True)}))
    assert stream[0]["new"]() == stream[1]["new"]() == {"a": 1}


# -- names that become paths elsewhere -----------------------------------------------------


@pytest.mark.parametrize("run_key", ["../../up", "/abs", "..", ".", "a/b", "a\0b", "\n", "é" * 300])
def test_no_run_key_leads_out_of_the_dataset(run_key: str, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key=run_key)
    stream.set_output(0, sample_of("k"))
    runs = os.listdir(dataset / ".pipestream" / "runs")
    assert len(runs) == 1


@pytest.mark.parametrize("tag", ["../../../../up", "/abs", "..", ".", "", "a/b", "a\0b"])
def test_no_tag_of_a_group_leads_out_of_the_dataset(tag: str, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(PipestreamError, match="tag"), stream.commit_group(tag=tag) as group:
        group.set_output(0, sample_of("k"))
    assert not (dataset / "data" / "000_k.bin").exists()


@pytest.mark.parametrize("keys", [["../up"], ["/"], [".."]])
def test_stages_that_rename_to_a_bad_key_do_not_write_it(keys: list[str], dataset: Path) -> None:
    source = SamplesSequence.from_underfolder(dataset)
    pipe: list[Any] = [
        {"map": {"stage": {"remap-key": {"remap": {"image": keys[0]}}}}},
        {"to_underfolder": {"folder": dataset, "exists_ok": True}},
    ]
    stream = DataStream(source, pipe)
    with pytest.raises((ItemNameError, PipeBuildingError)):
        stream.set_output(0, source[0])
