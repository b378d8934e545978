"""A stream writes only samples that are as its rules say, as they would be on disk."""

import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from prefect_pipestream.errors import (
    ConflictError,
    InvalidSampleError,
    PipeBuildingError,
    UndoRefusedError,
)
from prefect_pipestream.items import BinaryItem, JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import plan_undo, undo_run
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.validation import FieldRule, ItemRule, SampleRules
from tests.dataset_files import (
    Files,
    beside,
    content_of,
    made_at,
)
from tests.prefect_layer.datasets import files_of, make_dataset
from tests.underfolder.conftest import run_of, strays

NUMBER = ItemRule(key="metadata", required_fields=(FieldRule(path="number", maximum=5),))


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, samples=6)


def gated(folder: Place, *rules: ItemRule, other: bool = True, **options: Any) -> DataStream:
    stream = DataStream.read_write_underfolder(folder, **options)
    return stream.checking(SampleRules.of(rules, other).problems)


def numbered(stream: DataStream, idx: int, number: int) -> Sample:
    return stream[idx].set_value("metadata", {"number": number, "runs": 1})


# -- what is written -------------------------------------------------------------------------


def test_a_sample_that_would_not_be_valid_is_not_written(folder: Place) -> None:
    stream = gated(folder, NUMBER)
    before = files_of(folder)
    with pytest.raises(InvalidSampleError) as raised:
        stream.set_output(2, numbered(stream, 2, 6))
    assert str(raised.value) == (
        "sample 2 is not written, for it would not be valid: "
        "metadata.number: is 6, expected at most 5"
    )
    assert files_of(folder) == before
    assert strays(folder) == []
    stream.set_output(2, numbered(stream, 2, 5))
    assert stream[2]["metadata"]()["number"] == 5


def test_the_others_of_a_batch_are_written(folder: Place) -> None:
    stream = gated(folder, NUMBER, run_key="r")
    with stream.commit_group() as batch:
        for idx in range(6):
            try:
                batch.set_output(idx, numbered(stream, idx, 4 + idx % 3))
            except InvalidSampleError:
                batch.record(idx, "skipped")
    assert [stream[idx]["metadata"]()["number"] for idx in range(6)] == [4, 5, 2, 4, 5, 5]
    assert stream.run.counts()["written"] == 4


def test_items_on_disk_that_are_not_written_count(folder: Place) -> None:
    Files(folder)["data/001_extra.json"] = b'{"side": 3}'
    stream = gated(folder, ItemRule(key="image"), ItemRule(key="metadata"), other=False)
    for idx, expected in ((0, "camera: is not expected"), (1, "extra: is not expected")):
        with pytest.raises(InvalidSampleError, match=expected):
            stream.set_output(idx, numbered(stream, idx, 1).extract_keys("metadata"))
    extra = ItemRule(key="extra", required_fields=(FieldRule(path="side", minimum=4),))
    stream = gated(folder, extra.model_copy(update={"required": False}))
    stream.set_output(0, numbered(stream, 0, 1))
    with pytest.raises(InvalidSampleError, match=r"extra.side: is 3, expected at least 4"):
        stream.set_output(1, numbered(stream, 1, 1), ["metadata"])


def test_with_keys_only_those_change(folder: Place) -> None:
    stream = gated(folder, NUMBER, ItemRule(key="image", max_width=8))
    wide = numbered(stream, 0, 9).set_value("image", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(InvalidSampleError, match="9 pixels wide"):
        stream.set_output(0, wide, ["image"])
    with pytest.raises(InvalidSampleError, match="number: is 9"):
        stream.set_output(0, wide, ["metadata"])
    assert stream.set_output(0, numbered(stream, 0, 9), ["image"]) == []


def test_shared_items_count_those_on_disk_and_new_ones(folder: Place) -> None:
    camera = ItemRule(key="camera", required_fields=(FieldRule(path="camera", one_of=("c",)),))
    stream = gated(folder, camera)
    stream.set_output(0, numbered(stream, 0, 1).remove_keys("camera"))
    lens = ItemRule(key="lens", required_fields=(FieldRule(path="zoom", maximum=2),))
    stream = gated(folder, camera, lens)
    with stream.commit_group() as batch:
        for idx, zoom in ((0, 3), (1, 2), (2, 3)):
            sample = stream[idx].set_item("lens", YamlMetadataItem({"zoom": zoom}, shared=True))
            if idx == 0:
                with pytest.raises(InvalidSampleError, match=r"lens.zoom: is 3"):
                    batch.set_output(idx, sample)
            else:  # what is shared already stays
                batch.set_output(idx, sample)
    assert yaml.safe_load(Files(folder)["lens.yaml"]) == {"zoom": 2}


def test_what_is_held_is_what_the_file_says(folder: Place) -> None:
    """JPEG has no alpha, and a binary file is no picture."""
    stream = gated(folder, ItemRule(key="image", item_class="PngImageItem"))
    with pytest.raises(InvalidSampleError, match="image: is a BinaryItem, expected"):
        stream.set_output(0, stream[0].set_item("image", BinaryItem(b"abc")))
    broken = stream[0].set_item("other", YamlMetadataItem({"a": 1}))
    Files(folder)["data/000_image.png"] = b"broken"
    with pytest.raises(InvalidSampleError, match=r"valid: image: data/000_image.png: "):
        stream.set_output(0, broken)


def test_a_sample_that_stays_as_it_is_is_checked_too(folder: Place) -> None:
    stream = gated(folder, NUMBER.model_copy(update={"required_fields": ()}), ItemRule(key="mask"))
    with pytest.raises(InvalidSampleError, match="mask: is missing"):
        stream.set_output(0, stream[0])
    stream.remove(0)  # of what is removed there is nothing to check
    assert 0 not in stream.indices()


def test_another_dataset_counts_as_it_is(folder: Place) -> None:
    target = beside(folder, "target")
    output = DataStream.create_output_stream(target, zfill=3)
    output.set_output(1, Sample({"extra": JsonMetadataItem({"side": 3})}))
    extra = ItemRule(key="extra", required_fields=(FieldRule(path="side", maximum=2),))
    rules = SampleRules.of([extra.model_copy(update={"required": False})])
    checked = output.checking(rules.problems)
    source = DataStream.read_write_underfolder(folder)
    checked.set_output(0, source[0])
    with pytest.raises(InvalidSampleError, match=r"extra\.side: is 3"):
        checked.set_output(1, source[1])
    assert sorted(name for name in Files(target) if name.startswith("data/")) == [
        "data/000_image.png",
        "data/000_metadata.yaml",
        "data/001_extra.json",
    ]


# -- beside others ---------------------------------------------------------------------------


def test_what_others_change_between_check_and_commit_is_a_conflict(folder: Place) -> None:
    """Also of an item that the transform did not look at."""
    stream = gated(folder, NUMBER)
    with ExitStack() as batches:
        batch = batches.enter_context(stream.commit_group())
        batch.set_output(0, stream[0].set_value("image", np.zeros((8, 8, 3), np.uint8)), ["image"])
        Files(folder)["data/000_metadata.yaml"] = b"number: 77\n"
        with pytest.raises(ConflictError):
            batch.flush()
    assert int(stream[0]["image"]().max()) > 0


def test_a_part_sees_what_others_added_before_it_calls_a_sample_invalid(folder: Place) -> None:
    stream = gated(folder, ItemRule(key="mask"), run_key="r").part(range(6))
    sample = numbered(stream, 0, 1)
    other = DataStream.read_write_underfolder(folder)
    mask = PngImageItem(np.zeros((8, 8), np.uint8))
    other.set_output(0, other[0].set_item("mask", mask))
    if not is_address(folder):  # by the log of a bucket it knows before it looks
        with pytest.raises(ConflictError):
            stream.set_output(0, sample, ["metadata"])
    stream.set_output(0, numbered(stream, 0, 1), ["metadata"])
    assert sorted(stream[0]) == ["camera", "image", "mask", "metadata"]


def test_a_stream_that_is_checked_can_be_pickled_and_is_small(folder: Place) -> None:
    part = gated(folder, NUMBER).part([2])
    assert len(pickle.dumps(part)) < 4000
    again = pickle.loads(pickle.dumps(part))
    with pytest.raises(InvalidSampleError):
        again.set_output(2, numbered(again, 2, 6))


# -- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"key": "image", "min_width": -1}], r"^rules\[0\]\.min_width: .*\(given: -1\)"),
        ([{"key": "a"}, {"kye": "image"}], r"^rules\[1\]\.key: Field required"),
        ([{"key": "a", "required_fields": [{"path": "x", "type": "int"}]}], r"fields\[0\]\.type"),
        ([{"key": "a", "min_width": 9, "max_width": 8}], r"rules\[0\]: min_width 9 is above"),
        ([{"key": "a", "required_fields": [{"path": "."}]}], r"fields\[0\]\.path: '\.' leads"),
        ([{"key": "a"}, {"key": "a"}], "two for the key 'a'"),
        ("image", r"^rules: "),
    ],
)
def test_wrong_rules_are_refused_with_their_place(rules: Any, expected: str) -> None:
    with pytest.raises(PipeBuildingError, match=expected):
        SampleRules.of(rules)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- key: image\n  min_width: wide\n", r"rules.yaml: rules\[0\]\.min_width: "),
        ("rules: [{key: image}]\nothers: 1\n", "'others' is unknown"),
        ("rules: [{key: image}]\nallow_other_items: maybe\n", "allow_other_items: "),
        ("- key: [", "no YAML"),
        ("", "expected a list of rules"),
        ("rules: []", "expected a list of rules"),
        ("image", "expected a list of rules"),
    ],
)
def test_a_wrong_file_of_rules_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(PipeBuildingError, match=expected):
        SampleRules.read(path)
    with pytest.raises(PipeBuildingError, match="no such file"):
        SampleRules.read(tmp_path / "none.yaml")


def test_rules_are_noted_as_a_text_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n- key: image\n  channels: [1, 3]\nallow_other_items: false\n")
    rules = SampleRules.read(path)
    assert rules == SampleRules.of([ItemRule(key="image", channels=(1, 3))], False)
    assert SampleRules.noted(rules.text) == rules
    with pytest.raises(PipeBuildingError, match="the run's rules"):
        SampleRules.noted('{"rules": 3}')


# -- undo ------------------------------------------------------------------------------------


def test_an_undo_is_refused_if_samples_would_not_be_valid_then(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key="r")
    for idx in range(6):
        stream.set_output(idx, numbered(stream, idx, 0))
    rule = ItemRule(key="metadata", required_fields=(FieldRule(path="number", maximum=3),))
    check = SampleRules.of([rule]).problems
    before = files_of(folder)
    told = r"2 of the samples .*: 4 \(metadata.number: is 4"
    with pytest.raises(UndoRefusedError, match=told) as raised:
        undo_run(folder, "r", check=check)
    assert raised.value.indices == [4, 5]
    assert plan_undo(folder, "r", check=check).refusal == str(raised.value)
    assert files_of(folder) == before
    stream.set_output(0, numbered(stream, 0, 1))  # the run is not shut
    assert undo_run(folder, "r", check=check, indices=[1, 2]).samples == 2
    assert undo_run(folder, "r", check=check, force=True).samples == 4


def test_an_undo_looks_at_what_stays_and_not_at_what_goes(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key="r")
    stream.set_output(0, numbered(stream, 0, 0))
    stream.set_output(9, Sample({"image": PngImageItem(np.zeros((8, 8, 3), np.uint8))}))
    Files(folder)["data/000_image.png"] = b"broken"
    check = SampleRules.of([ItemRule(key="metadata")]).problems
    with pytest.raises(UndoRefusedError, match=r"valid then: 0 \(image: data/000_image.png: "):
        undo_run(folder, "r", check=check)
    Files(folder)["data/000_image.png"] = content_of(PngImageItem(np.zeros((8, 8, 3), np.uint8)))
    assert undo_run(folder, "r", check=check).samples == 2
    assert 9 not in open_dataset(folder).indices()


def test_an_undo_looks_at_shared_items(folder: Place) -> None:
    stream = DataStream.create_output_stream(folder, zfill=3, run_key="r")
    lens = YamlMetadataItem({"zoom": 1}, shared=True)
    stream.set_output(7, Sample({"metadata": YamlMetadataItem({"number": 7}), "lens": lens}))
    check = SampleRules.of([ItemRule(key="lens")]).problems
    with pytest.raises(UndoRefusedError, match=r"0 \(lens: is missing\)"):
        undo_run(folder, "r", check=check)


def test_an_interrupted_check_leaves_the_run_as_it_was(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key="r")
    stream.set_output(0, numbered(stream, 0, 0))

    def interrupted(items: Any) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undo_run(folder, "r", check=interrupted)
    assert not run_of(folder, "r").is_half_undone()
