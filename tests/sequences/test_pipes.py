import functools
import os
import pickle

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from prefect_pipestream.errors import (
    DatasetExistsError,
    DecodeError,
    PipeBuildingError,
    SampleError,
    UnpicklingNotAllowedError,
)
from prefect_pipestream.items import (
    Item,
    JsonMetadataItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample, SamplesSequence, build_pipe


def numbers(length, key="x"):
    return SamplesSequence.from_list([Sample({key: YamlMetadataItem(i)}) for i in range(length)])


def values(sequence):
    return [sample.to_dict() for sample in sequence]


def xs(sequence):
    return [sample["x"]() if sample else None for sample in sequence]


# -- the sequence itself ---------------------------------------------------------------------


def test_indexing_is_that_of_python():
    five = numbers(5)
    assert five[-1]["x"]() == five[np.int64(4)]["x"]() == 4
    assert xs(five[::2]) == [0, 2, 4]
    assert xs(five[::-1]) == [4, 3, 2, 1, 0]
    assert xs(five[3:1:-1]) == [3, 2]
    assert xs(five[-2:]) == [3, 4]
    assert xs(five[1:100]) == [1, 2, 3, 4]
    assert xs(five + five[:1]) == [0, 1, 2, 3, 4, 0]
    assert xs(reversed(five)) == [4, 3, 2, 1, 0]
    assert five[2] in five
    for idx in (5, -6):
        with pytest.raises(IndexError, match=f"sample {idx} is out of range"):
            five[idx]
    for wrong in ("a", 1.0):
        with pytest.raises(TypeError):
            five[wrong]


def test_normalized_means_the_same_keys_everywhere():
    assert numbers(3).is_normalized()
    assert numbers(0).is_normalized()
    mixed = numbers(3).cat(numbers(2, "y"))
    assert not mixed.is_normalized()
    assert mixed.is_normalized(max_items=3)


def test_best_zfill_is_the_digits_of_the_last_index():
    lengths = (0, 1, 10, 11, 100, 101)
    assert [numbers(n).best_zfill() for n in lengths] == [1, 1, 1, 2, 2, 3]


def test_direct_access_gives_values():
    view = numbers(3).direct_access()
    assert (len(view), view[1]["x"], view[-1]["x"]) == (3, 1, 2)
    assert [sample["x"] for sample in view[1:]] == [1, 2]


def test_batch_yields_full_tuples():
    five = numbers(5)
    assert [xs(batch) for batch in five.batch(2)] == [[0, 1], [2, 3], [4, None]]
    assert [xs(batch) for batch in five.batch(2, drop_last=True)] == [[0, 1], [2, 3]]
    filled = list(five.batch(4, fill=five[0]))
    assert xs(filled[-1]) == [4, 0, 0, 0]
    assert list(numbers(0).batch(2)) == []
    with pytest.raises(ValueError, match="at least 1"):
        five.batch(0)


# -- which samples ---------------------------------------------------------------------------


def is_even(sample):
    return sample["x"]() % 2 == 0


def test_filter_keeps_what_is_true():
    five = numbers(5)
    assert xs(five.filter(is_even)) == [0, 2, 4]
    assert xs(five.filter(is_even, insert_empty_samples=True)) == [0, None, 2, None, 4]
    assert len(five.filter(lambda sample: False)) == 0


@pytest.mark.parametrize("pipe", ["filter", "sort"])
def test_lazy_pipes_read_at_the_first_access_only(pipe):
    calls = []

    def function(sample):
        calls.append(sample)
        return True

    lazy = getattr(numbers(5), pipe)(function)
    assert calls == []
    list(lazy)
    list(lazy)
    assert len(calls) == 5
    getattr(numbers(5), pipe)(function, lazy=False)
    assert len(calls) == 10


def test_sort_is_stable():
    five = numbers(5)
    assert xs(five.sort(lambda sample: -sample["x"]())) == [4, 3, 2, 1, 0]
    assert xs(five.sort(lambda sample: sample["x"]() % 2)) == [0, 2, 4, 1, 3]
    comparison = functools.cmp_to_key(lambda a, b: b["x"]() - a["x"]())
    assert xs(five.sort(comparison)) == [4, 3, 2, 1, 0]


def test_slice_is_a_python_slice():
    five = numbers(5)
    assert xs(five.slice(start=3, stop=0, step=-2)) == [3, 1]
    assert xs(five.slice(2, 4)) == [2, 3]
    with pytest.raises(IndexError):
        five.slice(stop=2)[-3]
    with pytest.raises(PipeBuildingError, match="other than 0"):
        five.slice(step=0)


def test_select_takes_indices_in_their_order():
    five = numbers(5)
    assert xs(five.select([4, 0, 0, -1])) == [4, 0, 0, 4]
    assert xs(five.select([0, -1, 0], negate=True)) == [1, 2, 3]
    for idx in (5, -6):
        with pytest.raises(IndexError, match=f"index {idx}"):
            len(five.select([idx]))


def test_shuffle_is_reproducible_and_that_of_the_reference():
    ten = numbers(10)
    assert xs(ten.shuffle(seed=0)) == [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]
    unseeded = ten.shuffle()
    assert sorted(xs(unseeded)) == list(range(10))
    copied = pickle.loads(pickle.dumps(unseeded))  # before its order is known
    assert xs(copied) == xs(unseeded) == xs(unseeded)


@pytest.mark.parametrize(
    ("count", "interleave", "result"),
    [
        (2, False, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]),
        (2, True, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (0, False, []),
        (0.5, False, [0, 1]),
        (1.5, False, [0, 1, 2, 3, 4, 0, 1, 2]),
        (1.5, True, [0, 0, 1, 1, 2, 2, 3, 4]),
        (2.3, True, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_repeat(count, interleave, result):
    assert xs(numbers(5).repeat(count, interleave=interleave)) == result


@pytest.mark.parametrize("count", [-1, float("inf"), float("nan")])
def test_repeat_refuses_what_is_no_count(count):
    with pytest.raises(PipeBuildingError, match="count"):
        numbers(5).repeat(count)
    assert xs(numbers(0).repeat(3, interleave=True)) == []


# -- several sequences -----------------------------------------------------------------------


def test_zip_merges_up_to_the_shorter():
    five, three = numbers(5), numbers(3, "y")
    assert values(five.zip(three)) == [{"x": i, "y": i} for i in range(3)]
    assert values(three.zip(five)) == [{"y": i, "x": i} for i in range(3)]
    assert xs(five.zip(five[2:])) == [2, 3, 4]


@pytest.mark.parametrize(
    ("key_format", "key"),
    [("*", "x"), ("", "x"), ("a_*_b", "a_x_b"), ("Suf", "xSuf"), ("*_*", "x_x")],
)
def test_zip_formats_the_keys_of_the_other(key_format, key):
    assert list(numbers(1, "y").zip(numbers(1), key_format=key_format)[0]) == ["y", key]


def test_cat_appends_or_interleaves():
    five, three, two, none = numbers(5), numbers(3), numbers(2), numbers(0)
    assert xs(three.cat(none, two)) == [0, 1, 2, 0, 1]
    assert xs(three.cat(to_cat=[two])) == xs(three.cat(two)) == xs(three + two)
    assert xs(none.cat(none, interleave=True)) == []
    assert xs(five.cat(three, none, two, interleave=True)) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 4]
    assert xs(none.cat(two, interleave=True)) == [0, 1]
    assert five.cat(three)[-1]["x"]() == 2
    with pytest.raises(PipeBuildingError, match="to_cat"):
        five.cat(5)


# -- each sample -----------------------------------------------------------------------------

RENAME = {"remap-key": {"remap": {"x": "q"}}}


def test_map_takes_a_specification_or_a_callable():
    assert values(numbers(2).map(RENAME)) == [{"q": 0}, {"q": 1}]
    assert xs(numbers(2).map(lambda sample: sample.set_value("x", 5))) == [5, 5]


def test_a_dropped_sample_becomes_an_empty_one():
    assert values(numbers(2).map(lambda sample: None)) == [{}, {}]
    assert values(numbers(1).map_if(stage=lambda s: None, condition=lambda: True)) == [{}]


@pytest.mark.parametrize(
    ("condition", "mapped"),
    [
        (lambda: True, [0, 1, 2, 3, 4]),
        (lambda i: i > 2, [3, 4]),
        (lambda i, sample: sample["x"]() == 1, [1]),
        (lambda i, sample, source: i == len(source) - 1, [4]),
        (lambda *everything: len(everything) == 3, [0, 1, 2, 3, 4]),
        (lambda i, flag=True: flag, [0, 1, 2, 3, 4]),
    ],
)
def test_map_if_gives_the_condition_what_it_takes(condition, mapped):
    result = numbers(5).map_if(stage=RENAME, condition=condition)
    assert [i for i, sample in enumerate(result) if "q" in sample] == mapped


def test_map_if_refuses_a_condition_with_too_many_arguments():
    with pytest.raises(PipeBuildingError, match="at most 3"):
        numbers(1).map_if(stage=RENAME, condition=lambda a, b, c, d: True)


def test_enumerate_adds_the_index():
    last = numbers(3).enumerate()[2]
    assert isinstance(last["~idx"], TxtNumpyItem)
    assert int(last["~idx"]().item()) == 2
    assert values(numbers(2).enumerate(idx_key="i", item_cls=JsonMetadataItem)) == [
        {"x": 0, "i": 0},
        {"x": 1, "i": 1},
    ]
    named = numbers(1).enumerate(idx_key="i", item_cls="prefect_pipestream.items.JsonMetadataItem")
    assert isinstance(named[0]["i"], JsonMetadataItem)


def test_data_cache_keeps_what_the_pipes_before_decode(tmp_path):
    path = tmp_path / "image.png"
    PngImageItem(np.zeros((2, 2), np.uint8)).serialize(path)

    def read_twice(sample):
        return sample.set_item("same", YamlMetadataItem(sample["image"]() is sample["image"]()))

    source = SamplesSequence.from_callable(
        generator_fn=lambda i: Sample({"image": Item.get_instance(path)}), length=1
    ).map(read_twice)
    assert source[0]["same"]() is False
    assert source.data_cache()[0]["same"]() is True
    assert source.data_cache("ImageItem")[0]["same"]() is True
    assert source.data_cache(YamlMetadataItem)[0]["same"]() is False
    assert source.no_data_cache(PngImageItem).data_cache()[0]["same"]() is False


# -- validation ------------------------------------------------------------------------------


class Schema(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    x: YamlMetadataItem


def positive(value):
    if value <= 0:
        raise ValueError("not positive")


@pytest.mark.parametrize(
    "schema",
    [
        Schema,
        {"sample_schema": Schema},
        f"{__name__}:Schema",
        {"sample_schema": {"x": {"class_path": "YamlMetadataItem"}}},
        {"sample_schema": {"x": {"class_path": "MetadataItem", "is_optional": False}}},
        {"x": {"class_path": YamlMetadataItem}},
        {"z": {"class_path": "PngImageItem"}},
    ],
)
def test_samples_that_satisfy_a_schema_pass(schema):
    assert xs(numbers(2).validate_samples(sample_schema=schema)) == [0, 1]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"x": {"class_path": "PngImageItem"}}, "x: is a YamlMetadataItem, expected a Png"),
        ({"z": {"class_path": "PngImageItem", "is_optional": False}}, "z: is missing"),
        ({"x": {"class_path": "YamlMetadataItem", "is_shared": True}}, "x: must be shared"),
        ({"sample_schema": {}, "ignore_extra_keys": False}, "x: is not expected"),
        ({"x": {"class_path": "YamlMetadataItem", "validator": positive}}, "not positive"),
    ],
)
def test_a_sample_that_does_not_satisfy_a_schema_is_named(schema, message):
    checked = numbers(2).validate_samples(sample_schema=schema)
    with pytest.raises(SampleError, match=f"sample 0 .*{message}"):
        checked[0]


def test_a_model_as_schema_names_the_key():
    with pytest.raises(SampleError, match=r"sample 0 .*y: Extra"):
        numbers(2).zip(numbers(2, "y")).validate_samples(sample_schema=Schema)[0]


def test_a_schema_that_is_not_lazy_is_checked_at_once():
    mixed = numbers(2).cat(numbers(1, "y"))
    schema = {"sample_schema": {"x": {"class_path": "Item", "is_optional": False}}, "lazy": False}
    with pytest.raises(SampleError, match="sample 2"):
        mixed.validate_samples(sample_schema={**schema, "max_samples": 0})
    assert len(mixed.validate_samples(sample_schema={**schema, "max_samples": 2})) == 3


@pytest.mark.parametrize(
    "schema", [5, "os:getcwd", {"x": {"class_path": "Nope"}}, {"x": {"class_path": "Item", "a": 1}}]
)
def test_a_wrong_schema_is_refused(schema):
    with pytest.raises(PipeBuildingError, match="sample_schema"):
        numbers(1).validate_samples(sample_schema=schema)


def test_a_schema_names_no_validator_by_text():
    with pytest.raises(PipeBuildingError, match="callable"):
        numbers(1).validate_samples(
            sample_schema={"x": {"class_path": "Item", "validator": "os:system"}}
        )


# -- the cache -------------------------------------------------------------------------------


def counting(calls):
    def generate(idx):
        calls.append(idx)
        return Sample({"x": YamlMetadataItem(idx, shared=True)})

    return SamplesSequence.from_callable(generator_fn=generate, length=3)


def test_cache_makes_each_sample_once(tmp_path):
    calls = []
    cached = counting(calls).cache(tmp_path / "c")
    for _ in range(2):
        assert xs(cached) == [0, 1, 2]
        assert cached[1]["x"].is_shared
    assert calls == [0, 1, 2]
    with pytest.raises(DatasetExistsError, match="reuse_cache"):
        counting(calls).cache(tmp_path / "c")
    with pytest.raises(UnpicklingNotAllowedError, match="allow_pickle"):
        counting(calls).cache(tmp_path / "c", reuse_cache=True)
    reused = counting(calls).cache(tmp_path / "c", reuse_cache=True, allow_pickle=True)
    assert xs(reused) == [0, 1, 2]
    assert calls == [0, 1, 2]


class Bomb:
    """What makes a file as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_that_a_stranger_put_into_a_cache_folder_run_only_where_allowed(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/1.pickle").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    calls = []
    for options in ({}, {"reuse_cache": True}, {"allow_pickle": True}):
        for build in (counting(calls).cache, lambda folder, **o: from_a_list(calls, folder, o)):
            with pytest.raises((UnpicklingNotAllowedError, DatasetExistsError)):
                xs(build(tmp_path / "c", **options))
    assert not (tmp_path / "ran").exists()
    assert calls == []
    allowed = counting(calls).cache(tmp_path / "c", reuse_cache=True, allow_pickle=True)
    assert allowed[0]["x"]() == 0
    with pytest.raises(DecodeError, match=r"1\.pickle: is no sample"):  # it ran, and is none
        allowed[1]
    assert (tmp_path / "ran").exists()
    (tmp_path / "c/1.pickle").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"1\.pickle: is no sample"):
        allowed[1]
    (tmp_path / "c/1.pickle").unlink()
    assert allowed[1]["x"]() == 1


def from_a_list(calls, folder, options):
    return build_pipe([{"cache": {"cache_folder": str(folder), **options}}], counting(calls))


def test_a_temporary_cache_goes_with_its_sequence(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    calls = []
    cached = counting(calls).cache()
    assert xs(cached) == xs(cached) == [0, 1, 2]
    assert calls == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1
    copied = pickle.loads(pickle.dumps(numbers(3).cache()))
    assert xs(copied) == [0, 1, 2]
    del cached
    assert list(tmp_path.iterdir()) == []


def test_a_failing_sample_leaves_nothing_in_the_cache(tmp_path):
    def fail(idx):
        raise ValueError("no")

    cached = SamplesSequence.from_callable(generator_fn=fail, length=1).cache(tmp_path / "c")
    with pytest.raises(ValueError, match="no"):
        cached[0]
    assert list((tmp_path / "c").iterdir()) == []
