import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import (
    JsonMetadataItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample


@pytest.fixture
def sample() -> Sample:
    return Sample(
        {
            "meta": JsonMetadataItem(
                {"a": {"b": [1, 2, {"c": 3}], "x.y": 7}, "n": None, "0": "zero"}
            ),
            "image": PngImageItem(np.arange(6, dtype=np.uint8).reshape(2, 3)),
            "label": YamlMetadataItem(3, shared=True),
        }
    )


def test_is_a_mapping_of_items(sample):
    assert list(sample) == ["meta", "image", "label"]
    assert len(sample) == 3
    assert "image" in sample
    assert sample["label"]() == 3
    assert dict(sample.items())["label"] is sample["label"]
    assert sample.get("none") is None
    with pytest.raises(KeyError):
        sample["none"]
    assert not Sample()


@pytest.mark.parametrize("data", [{"x": 5}, {"x": None}, {3: YamlMetadataItem(1)}])
def test_refuses_what_is_not_an_item(data):
    with pytest.raises(TypeError):
        Sample(data)


def test_cannot_be_changed(sample):
    with pytest.raises(TypeError):
        sample["x"] = YamlMetadataItem(1)
    source = {"x": YamlMetadataItem(1)}
    made = Sample(source)
    source["y"] = YamlMetadataItem(2)
    assert list(made) == ["x"]


def test_set_value_keeps_class_and_sharing_and_the_other_items(sample):
    changed = sample.set_value("label", 4)
    assert (changed["label"](), changed["label"].is_shared) == (4, True)
    assert isinstance(changed["label"], YamlMetadataItem)
    assert changed["image"] is sample["image"]
    assert sample["label"]() == 3
    with pytest.raises(KeyError):
        sample.set_value("none", 1)


def test_set_value_as_takes_the_class_of_another_item(sample):
    changed = sample.set_value_as("mask", "image", np.zeros((2, 3), np.uint8))
    assert isinstance(changed["mask"], PngImageItem)
    assert sample.set_value_as("l2", "label", 1)["l2"].is_shared
    assert not sample.set_value_as("l2", "label", 1, shared_item=False)["l2"].is_shared
    with pytest.raises(KeyError):
        sample.set_value_as("mask", "none", 1)


def test_set_item_replaces_or_adds(sample):
    item = TxtNumpyItem([1])
    assert sample.set_item("label", item)["label"] is item
    assert list(sample.set_item("new", item))[-1] == "new"
    with pytest.raises(TypeError, match="wrap it"):
        sample.set_item("new", 5)


def test_keys_are_changed_only_if_the_old_exists_and_the_new_does_not(sample):
    assert list(sample.rename_key("meta", "m")) == ["image", "label", "m"]
    assert list(sample.duplicate_key("meta", "m")) == ["meta", "image", "label", "m"]
    assert sample.duplicate_key("meta", "m")["m"] is sample["meta"]
    for unchanged in (
        sample.rename_key("none", "m"),
        sample.rename_key("meta", "image"),
        sample.rename_key("meta", "meta"),
        sample.duplicate_key("none", "m"),
        sample.duplicate_key("meta", "image"),
        sample.change_key("none", "m", delete_old_key=True),
    ):
        assert unchanged == sample


def test_keys_are_removed_and_extracted(sample):
    assert list(sample.remove_keys("meta", "none")) == ["image", "label"]
    assert list(sample.extract_keys("label", "none", "meta")) == ["meta", "label"]


def test_two_samples_combine_as_sets_of_keys_do(sample):
    other = Sample({"label": YamlMetadataItem("o"), "z": YamlMetadataItem("z")})
    for merged in (
        sample + other,
        sample | other,
        sample.merge(other),
        sample.update(other),
        sample.zip(other),
        sample + dict(other),
    ):
        assert list(merged) == ["meta", "image", "label", "z"]
        assert merged["label"] is other["label"]
    assert list(sample - other) == ["meta", "image"]
    assert list(sample & other) == ["label"]
    assert (sample & other)["label"] is sample["label"]
    assert list(sample ^ other) == ["meta", "image", "z"]
    for operation in ("__add__", "__or__", "__sub__", "__and__", "__xor__"):
        assert getattr(sample, operation)(5) is NotImplemented


def test_values_and_classes_as_plain_mappings(sample):
    assert sample.to_dict()["label"] == 3
    assert sample.to_schema() == {
        "meta": JsonMetadataItem,
        "image": PngImageItem,
        "label": YamlMetadataItem,
    }
    view = sample.direct_access()
    assert (view["label"], list(view), len(view), "image" in view) == (3, list(sample), 3, True)


def test_copies_share_items_or_not(sample):
    assert sample.shallow_copy() == sample
    deep = sample.deep_copy()
    assert deep["image"] is not sample["image"]
    assert deep["image"]() is not sample["image"]()
    assert np.array_equal(deep["image"](), sample["image"]())
    assert deep["label"].is_shared
    assert copy.deepcopy(sample)["meta"]() == sample["meta"]()


def test_survives_pickling(sample):
    again = pickle.loads(pickle.dumps(sample))
    assert isinstance(again, Sample)
    assert again["meta"]() == sample["meta"]()
    assert again["label"].is_shared


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("label", 3),
        ("meta.a.b[0]", 1),
        ("meta.a.b.0", 1),
        ("meta.a.b.[0]", 1),
        ("meta.a.b[-1].c", 3),
        (r"meta.a.x\.y", 7),
        ("meta.n", None),
        ("meta.0", "zero"),
        ("meta.", "whole"),
        ("image[1][2]", 5),
        ("image.shape[1]", 3),
        ("meta.a.b[9]", "default"),
        ("meta.q", "default"),
        ("meta.n.x", "default"),
        ("meta[a]", "default"),
        ("meta.keys", "default"),
        ("none", "default"),
        ("[0]", "default"),
        ("", "default"),
    ],
)
def test_deep_get_follows_a_path(sample, path, value):
    expected = sample["meta"]() if value == "whole" else value
    assert sample.deep_get(path, "default") == expected


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("label", "label", 5),
        ("meta.n.x", "meta", {"n": {"x": 5}, "l": [1]}),
        ("meta.n[1]", "meta", {"n": [None, 5], "l": [1]}),
        ("meta.l[0]", "meta", {"n": None, "l": [5]}),
        ("meta.l[2]", "meta", {"n": None, "l": [1, None, 5]}),
        ("meta.l.-1", "meta", {"n": None, "l": [5]}),
        ("meta.new.deep[1].z", "meta", {"n": None, "l": [1], "new": {"deep": [None, {"z": 5}]}}),
        (r"meta.d\.ot", "meta", {"n": None, "l": [1], "d.ot": 5}),
        ("none", "none", 5),
        ("none.k", "none", {"k": 5}),
        ("none[2]", "none", {2: 5}),
    ],
)
def test_deep_set_makes_what_is_missing(path, key, value):
    original = {"n": None, "l": [1]}
    sample = Sample({"meta": JsonMetadataItem(original), "label": YamlMetadataItem(3)})
    assert sample.deep_set(path, 5)[key]() == value
    assert sample["meta"]() == {"n": None, "l": [1]}


def test_deep_set_makes_an_item_of_the_class_asked_for():
    assert isinstance(Sample().deep_set("m.a", 1)["m"], YamlMetadataItem)
    assert isinstance(Sample().deep_set("m.a", 1, JsonMetadataItem)["m"], JsonMetadataItem)


def test_deep_set_changes_a_copy_of_an_array(sample):
    changed = sample.deep_set("image[0][1]", 200)
    assert changed["image"]()[0, 1] == 200
    assert sample["image"]()[0, 1] == 1


@pytest.mark.parametrize(
    "path", ["", "[0]", "label.x", "meta.a.b.x", "meta.a.b[-9]", "image[0][9]", "meta.a.b[9999999]"]
)
def test_deep_set_says_where_a_path_cannot_go(sample, path):
    with pytest.raises(SampleError, match=r"path|set"):
        sample.deep_set(path, 5)


def test_match_decodes_only_what_the_query_names(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    sample = Sample({"k": YamlMetadataItem({"v": 3}), "image": PngImageItem(broken)})
    assert sample.match("`k.v` > 2")
    assert sample.match("NOT `k.v` == 4 AND k CONTAINS 'v'")
    assert not sample.match("none == 1")
    assert sample.match("k.v > 2")
    with pytest.raises(SampleError, match="backticks"):
        sample.match("k-v > 2")


@given(
    st.permutations(["Image", "image", "mask_10", "mask_2", "mask_02", "2", "10a", "\u0663", "m"])
)
def test_items_have_one_order_for_people(keys: list[str]) -> None:
    own = Sample({key: YamlMetadataItem(1) for key in keys})
    shared = Sample(
        {"all": YamlMetadataItem(1, shared=True), "a": YamlMetadataItem(2, shared=True)}
    )
    in_order = (shared + own).in_order()
    assert list(in_order) == [
        *("2", "10a", "Image", "image", "m", "mask_02", "mask_2", "mask_10", "\u0663"),
        *("a", "all"),
    ]
    assert in_order["m"] is own["m"]
