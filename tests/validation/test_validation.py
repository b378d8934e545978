"""A dataset is checked, and nothing of it is changed."""

from pathlib import Path
from typing import Any

import pytest

from flows.validate_dataset import validate_dataset
from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.validation import (
    FieldRule,
    InvalidDatasetError,
    ItemRule,
    check_rules,
    validate_samples,
)
from tests.dataset_files import Files, files_outside_private, made_at
from tests.prefect_layer.artifacts import artifact_texts
from tests.prefect_layer.datasets import make_dataset, truncate_image


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, samples=6)


def as_it_is(place: Place) -> object:
    """All files; in a folder, what the file system says of them, too."""
    if is_address(place):
        return dict(Files(place))
    found = {path: path.stat() for path in files_outside_private(Path(place))}
    return {path: (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in found.items()}


def problems(folder: Place, *rules: ItemRule, **options: Any) -> dict[int, list[str]]:
    found = validate_samples(open_dataset(folder), range(6), rules, **options)
    return {one.idx: one.problems for one in found}


def test_a_good_dataset_has_no_problem(folder: Place) -> None:
    rules = [
        ItemRule(
            key="image",
            item_class="ImageItem",
            dtypes=("uint8",),
            channels=(3,),
            min_width=8,
            max_width=8,
            min_height=1,
        ),
        ItemRule(
            key="metadata",
            item_class="YamlMetadataItem",
            required_fields=(
                FieldRule(path="number", type="integer", minimum=0, maximum=5),
                FieldRule(path="runs", one_of=("0", "1")),
            ),
        ),
        ItemRule(key="camera"),
    ]
    assert problems(folder, *rules, allow_other_items=False) == {}


def test_every_item_is_decoded_also_without_rules(folder: Place) -> None:
    truncate_image(folder, 2)
    Files(folder)["data/004_metadata.yaml"] = b"a: ["
    found = problems(folder)
    assert list(found) == [2, 4]
    assert found[2][0].startswith("image: data/002_image.png: ")
    assert found[4][0].startswith("metadata: data/004_metadata.yaml: ")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ItemRule(key="mask"), "mask: is missing"),
        (
            ItemRule(key="image", item_class="JpegImageItem"),
            "image: is a PngImageItem, expected a JpegImageItem",
        ),
        (
            ItemRule(key="image", dtypes=("uint16", "float32")),
            "image: has type uint8, expected uint16 or float32",
        ),
        (ItemRule(key="image", channels=(1,)), "image: has 3 channels, expected 1"),
        (ItemRule(key="image", min_width=9), "image: is 8 pixels wide, expected at least 9"),
        (
            ItemRule(key="image", min_height=2, max_height=7),
            "image: is 8 pixels high, expected 2 to 7",
        ),
        (ItemRule(key="metadata", channels=(1,)), "metadata: is a dict, expected an image"),
        (
            ItemRule(key="metadata", required_fields=(FieldRule(path="label"),)),
            "metadata.label: is missing",
        ),
        (
            ItemRule(key="metadata", required_fields=(FieldRule(path="runs", type="text"),)),
            "metadata.runs: is int 0, expected a text",
        ),
        (
            ItemRule(key="metadata", required_fields=(FieldRule(path="runs", minimum=1),)),
            "metadata.runs: is 0, expected at least 1",
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_told(folder: Place, rule: ItemRule, expected: str) -> None:
    assert problems(folder, rule)[0] == [expected]


def test_an_item_that_need_not_be_there_may_be_missing(folder: Place) -> None:
    assert problems(folder, ItemRule(key="mask", required=False)) == {}


def test_items_without_a_rule_are_refused_if_asked(folder: Place) -> None:
    found = problems(folder, ItemRule(key="image"), allow_other_items=False)
    assert found[0] == ["camera: is not expected", "metadata: is not expected"]


def test_two_rules_for_one_key_are_refused() -> None:
    with pytest.raises(PipeBuildingError, match="'image'"):
        check_rules([ItemRule(key="image"), ItemRule(key="image", channels=(1,))])


def test_the_flow_is_a_gate_and_changes_nothing(
    folder: Place, tmp_path: Path, prefect_api: None
) -> None:
    dataset = ReadWriteUnderfolder(folder=folder)
    assert validate_dataset(dataset).summary() == "6 valid, 0 invalid"
    truncate_image(folder, 2)
    before = as_it_is(folder)
    listed = tmp_path / "problems.csv"
    with pytest.raises(InvalidDatasetError, match="002_image"):
        validate_dataset(dataset, report_file=listed)
    assert validate_dataset(dataset, max_invalid=0.2).summary() == "5 valid, 1 invalid"
    assert as_it_is(folder) == before
    assert "002_image.png" in listed.read_text()
    assert any("5 valid, 1 invalid" in text for text in artifact_texts("validation-dataset"))
