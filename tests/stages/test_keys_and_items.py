"""The stages of the reference that work on keys and items; results as observed from it."""

import numpy as np
import pytest
from pydantic import ValidationError

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.items import (
    BmpImageItem,
    ImageItem,
    Item,
    JpegImageItem,
    JsonMetadataItem,
    MetadataItem,
    NpyNumpyItem,
    PngImageItem,
    TiffImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample
from prefect_pipestream.stages import (
    StageCompose,
    StageDuplicateKey,
    StageForgetSource,
    StageIdentity,
    StageItemInfo,
    StageKeyFormat,
    StageKeysFilter,
    StageLambda,
    StageRemap,
    StageReplaceItem,
    StageSampleHash,
    StageSetMetadata,
    StageShareItems,
    StageTimer,
    resolve_stage,
)

IMAGE = (np.arange(144) % 251).astype("uint8").reshape(6, 8, 3)


@pytest.fixture
def sample():
    return Sample(
        {
            "a": PngImageItem(IMAGE),
            "g": PngImageItem(IMAGE[..., 0], shared=True),
            "m": YamlMetadataItem({"x": [1, 2], "y": {"z": 3}}),
            "t": TxtNumpyItem(np.arange(4)),
            "n": NpyNumpyItem(np.eye(2)),
        }
    )


@pytest.fixture
def filed(sample, tmp_path):
    for key, item in sample.items():
        item.serialize(item.as_default_name(tmp_path / "data" / f"000000_{key}"))
    return Sample(
        {
            key: Item.get_instance(item.local_sources[0], item.is_shared)
            for key, item in sample.items()
        }
    )


# -- keys ------------------------------------------------------------------------------------


def test_remap(sample):
    assert list(StageRemap(remap={"a": "b", "zz": "q"})(sample)) == ["b"]
    kept = StageRemap(remap={"t": "b", "zz": "q"}, remove_missing=False)(sample)
    assert set(kept) == {"a", "g", "m", "n", "b"}
    assert kept["b"] is sample["t"]


def test_remap_keeps_keys_whose_new_name_is_taken(sample):
    assert StageRemap(remap={"t": "n"}, remove_missing=False)(sample) == sample
    two = StageRemap(remap={"t": "q", "n": "q"})(sample)
    assert (two["q"], two["n"]) == (sample["t"], sample["n"])


def test_filter_keys(sample):
    assert list(StageKeysFilter(key_list="a")(sample)) == ["a"]
    assert list(StageKeysFilter(key_list=["t", "zz"])(sample)) == ["t"]
    assert list(StageKeysFilter(key_list=["a", "g", "zz"], negate=True)(sample)) == ["m", "t", "n"]


def test_format_key(sample):
    assert "pre_a_post" in StageKeyFormat(key_format="pre_*_post")(sample)
    assert list(StageKeyFormat(key_format="x")(sample)) == ["ax", "gx", "mx", "tx", "nx"]
    assert set(StageKeyFormat(key_format="p_*_*", apply_to=["t"])(sample)) == {
        "a", "g", "m", "n", "p_t_t",
    }  # fmt: skip
    assert StageKeyFormat(key_format="p_*", apply_to="zz")(sample) == sample
    assert StageKeyFormat()(sample) == sample


def test_duplicate_key(sample):
    assert StageDuplicateKey(source_key="g", copy_to="h")(sample)["h"] is sample["g"]
    assert StageDuplicateKey(source_key="zz", copy_to="h")(sample) == sample
    assert StageDuplicateKey(source_key="t", copy_to="n")(sample)["n"] is sample["n"]


# -- items -----------------------------------------------------------------------------------


def test_replace_item_by_class_and_by_name(sample):
    stage = StageReplaceItem(
        key_item_map={
            "a": JpegImageItem,
            "g": "BmpImageItem",
            "m": "pipelime.items.JsonMetadataItem",
            "n": "TxtNumpyItem",
            "zz": "JsonMetadataItem",
        }
    )
    replaced = stage(sample)
    assert replaced.to_schema() == {
        "a": JpegImageItem,
        "g": BmpImageItem,
        "m": JsonMetadataItem,
        "t": TxtNumpyItem,
        "n": TxtNumpyItem,
    }
    assert replaced["g"].is_shared
    assert replaced["t"] is sample["t"]
    np.testing.assert_array_equal(replaced["a"](), IMAGE)


def test_replace_item_by_an_abstract_class_takes_its_default(sample):
    stage = StageReplaceItem(key_item_map={"t": "NumpyItem", "m": MetadataItem, "a": ImageItem})
    assert stage.key_item_map == {"t": NpyNumpyItem, "m": YamlMetadataItem, "a": PngImageItem}
    assert stage(sample)["a"] is sample["a"]


def test_replace_item_of_a_file_writes_the_new_format(filed, tmp_path):
    replaced = StageReplaceItem(key_item_map={"a": "TiffImageItem", "m": "JsonMetadataItem"})(filed)
    replaced["a"].serialize(tmp_path / "a.tiff")
    replaced["m"].serialize(tmp_path / "m.json")
    assert isinstance(Item.get_instance(tmp_path / "a.tiff"), TiffImageItem)
    np.testing.assert_array_equal(Item.get_instance(tmp_path / "a.tiff")(), IMAGE)
    assert Item.get_instance(tmp_path / "m.json")() == {"x": [1, 2], "y": {"z": 3}}


def test_replace_item_refuses_what_does_not_fit(sample):
    with pytest.raises(SampleError, match=r"'a' .*cannot be a TomlMetadataItem"):
        StageReplaceItem(key_item_map={"a": "TomlMetadataItem"})(sample)
    with pytest.raises(ValidationError, match="PngImageItem"):
        StageReplaceItem(key_item_map={"a": "PngImageIten"})


def test_set_meta(sample):
    assert StageSetMetadata(key_path="m.y.z", value=5)(sample)["m"]()["y"] == {"z": 5}
    assert StageSetMetadata(key_path="m.x[1]", value="s")(sample)["m"]()["x"] == [1, "s"]
    new = StageSetMetadata(key_path="new.y.z", value={"q": [1]})(sample)["new"]
    assert isinstance(new, YamlMetadataItem)
    assert new() == {"y": {"z": {"q": [1]}}}
    assert StageSetMetadata(key_path="new")(sample)["new"]() is None
    assert sample["m"]() == {"x": [1, 2], "y": {"z": 3}}


def test_set_meta_of_what_is_there_changes_nothing(filed):
    assert StageSetMetadata(key_path="m.y.z", value=3)(filed) is filed
    assert StageSetMetadata(key_path="m.y.z", value=True)(filed) is not filed
    assert StageSetMetadata(key_path="m.x", value=[1, 2])(filed) is filed


def test_sample_hash_is_of_the_content(filed, sample, tmp_path):
    stage = StageSampleHash(keys=["a", "m"])
    digest = stage(sample)["hash"]()
    assert len(digest) == 2 * 64
    assert stage(filed)["hash"]() == digest
    TiffImageItem(IMAGE).serialize(tmp_path / "a.tiff")
    other_file = sample.set_item("a", Item.get_instance(tmp_path / "a.tiff"))
    assert stage(other_file)["hash"]() == digest
    other_order = sample.set_value("m", {"y": {"z": 3}, "x": [1, 2]})
    assert stage(other_order)["hash"]() == digest
    changed = IMAGE.copy()
    changed[5, 7, 2] ^= 1
    assert stage(sample.set_value("a", changed))["hash"]() != digest
    assert stage(sample.set_value("a", IMAGE.astype("uint16")))["hash"]() != digest
    hashed = stage(sample)
    assert stage(hashed) is hashed


def test_sample_hash_takes_any_algorithm_and_key(sample):
    hashed = StageSampleHash(keys="t", algorithm="md5", hash_key="h")(sample)
    assert len(hashed["h"]()) == 32
    with pytest.raises(SampleError, match="'zz'"):
        StageSampleHash(keys=["zz"])(sample)
    with pytest.raises(ValidationError, match="sha256"):
        StageSampleHash(keys=["t"], algorithm="nope")
    with pytest.raises(ValidationError):
        StageSampleHash(keys=[])


def test_share_items_keeps_the_files_to_be_linked(filed):
    shared = StageShareItems(share=["a", "zz"], unshare=["g"])(filed)
    assert shared["a"].is_shared
    assert not shared["g"].is_shared
    assert shared["a"].file_sources == filed["a"].file_sources
    assert shared["t"] is filed["t"]
    assert not filed["a"].is_shared
    with pytest.raises(ValidationError, match="'a' is in both"):
        StageShareItems(share=["a"], unshare=["a"])


def test_forget_source_by_file_and_by_folder(filed, tmp_path):
    path = filed["a"].local_sources[0]
    one = StageForgetSource(path)(filed)
    assert one["a"].local_sources == ()
    np.testing.assert_array_equal(one["a"](), IMAGE)
    assert one["t"] is filed["t"]
    everything = StageForgetSource(always_remove=[tmp_path / "data"])(filed)
    assert all(item.local_sources == () for item in everything.values())
    assert everything["g"].is_shared
    by_key = StageForgetSource(remove_by_key={"m": [str(tmp_path)]})(filed)
    assert [key for key in by_key if by_key[key] is not filed[key]] == ["m"]
    assert StageForgetSource("/nowhere")(filed) == filed


def test_a_forgotten_file_is_not_linked_but_another_one_is(filed, tmp_path):
    filed["a"].serialize(tmp_path / "copy.png")
    kept = StageForgetSource(filed["a"].local_sources[0])(filed)["a"]
    assert kept.local_sources == (tmp_path / "copy.png",)
    assert not kept.has_value


def test_item_info(sample):
    stage = StageItemInfo()
    assert stage(sample) is sample
    stage(sample.remove_keys("t"))
    infos = stage.items_info
    assert (infos["g"].item_type, infos["g"].is_shared, infos["g"].count) == (PngImageItem, True, 2)
    assert infos["a"].item_type is PngImageItem
    assert infos["t"].count == infos["t"].count_ == 1


def test_item_info_refuses_what_is_not_the_same_in_all_samples(sample):
    stage = StageItemInfo()
    stage(sample)
    with pytest.raises(SampleError, match="JpegImageItem, and a PngImageItem"):
        stage(sample.set_item("a", JpegImageItem(IMAGE)))
    with pytest.raises(SampleError, match="shared in some samples only"):
        stage(sample.set_item("a", PngImageItem(IMAGE, shared=True)))


# -- around other stages ---------------------------------------------------------------------


def test_identity_and_compose(sample):
    assert StageIdentity()(sample) is sample
    composed = StageCompose(["identity", {"remap-key": {"remap": {"a": "b"}}}])
    assert list(composed(sample)) == ["b"]


def test_composition_runs_in_the_order_it_reads(sample):
    rename, again = StageRemap(remap={"a": "b"}), StageRemap(remap={"b": "c"})
    assert list((rename >> again)(sample)) == ["c"]
    assert list((again << rename)(sample)) == ["c"]


def test_a_callable_may_return_a_sample_none_or_a_new_index(sample):
    move = StageLambda(lambda sample: (sample.remove_keys("a"), 7))
    assert move(sample) == (sample.remove_keys("a"), 7)
    moved = (move >> StageKeysFilter(key_list=["t"]))(sample)
    assert moved == (sample.extract_keys("t"), 7)
    calls = []
    stop = StageLambda(lambda sample: None) >> StageLambda(calls.append)
    assert stop(sample) is None
    assert calls == []


def test_no_specification_names_a_callable():
    for spec in ({"lambda": "os:system"}, {"lambda": {"func": "os.system"}}, "os:system"):
        with pytest.raises(PipeBuildingError):
            resolve_stage(spec)


def test_timer_writes_nanoseconds_but_for_the_first_samples(sample):
    timer = StageTimer("identity")
    assert timer(sample) is sample
    assert timer(sample)["timings"]()["identity"] > 0
    timer = StageTimer(StageIdentity(), skip_first=0, time_key_path="m.times.*", process=True)
    assert timer(sample)["m"]()["times"]["identity"] >= 0
    dropped = StageTimer(StageLambda(lambda sample: None), skip_first=0)
    assert dropped(sample) is None
    moved = StageTimer(StageLambda(lambda sample: (sample, 3)), skip_first=0)(sample)
    assert moved[0]["timings"]()["lambda"] > 0
    assert moved[1] == 3
