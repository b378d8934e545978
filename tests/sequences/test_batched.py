import numpy as np
import pytest

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.items import (
    BinaryItem,
    JpegImageItem,
    JsonMetadataItem,
    NpyNumpyItem,
    PickleItem,
    PngImageItem,
    TiffImageItem,
    TomlMetadataItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample, SamplesSequence


def sample(i):
    return Sample(
        {
            "image": PngImageItem(np.full((2, 3), i, np.uint8)),
            "photo": JpegImageItem(np.full((2, 3, 3), i, np.uint8)),
            "array": NpyNumpyItem(np.arange(3) + i),
            "text": TxtNumpyItem(np.arange(2) + i),
            "table": TxtNumpyItem(np.zeros((2, 2)) + i),
            "json": JsonMetadataItem({"a": i}),
            "toml": TomlMetadataItem({"a": i}),
            "pickle": PickleItem({1: i}),
            "shared": YamlMetadataItem("s", shared=True),
        }
    )


@pytest.fixture
def five():
    return SamplesSequence.from_list([sample(i) for i in range(5)])


def test_values_are_stacked_along_a_new_dimension(five):
    batch = five.batched(batch_size=2)[1]
    assert {key: type(item) for key, item in batch.items()} == {
        "image": TiffImageItem,
        "photo": TiffImageItem,
        "array": NpyNumpyItem,
        "text": TxtNumpyItem,
        "table": NpyNumpyItem,
        "json": JsonMetadataItem,
        "toml": YamlMetadataItem,
        "pickle": PickleItem,
        "shared": YamlMetadataItem,
    }
    assert batch["image"]().shape == (2, 2, 3)
    assert batch["photo"]().shape == (2, 2, 3, 3)
    assert batch["image"]()[:, 0, 0].tolist() == [2, 3]
    assert batch["array"]().tolist() == [[2, 3, 4], [3, 4, 5]]
    assert batch["json"]() == batch["toml"]() == [{"a": 2}, {"a": 3}]
    assert (batch["shared"](), batch["shared"].is_shared) == ("s", True)


def test_the_last_batch_is_short_or_left_out(five):
    assert [len(b["image"]()) for b in five.batched(batch_size=2)] == [2, 2, 1]
    assert [len(b["image"]()) for b in five.batched(batch_size=2, drop_last=True)] == [2, 2]
    assert len(five.batched(batch_size=6, drop_last=True)) == 0
    assert len(SamplesSequence.from_list([]).batched(batch_size=2)) == 0


def test_only_the_keys_asked_for_are_batched(five):
    assert set(five.batched(batch_size=2, key_list=["json", "none"])[0]) == {"json"}


def test_a_sample_without_the_key_adds_nothing():
    mixed = SamplesSequence.from_list(
        [Sample(), Sample({"x": YamlMetadataItem(1)}), Sample({"x": YamlMetadataItem(2)})]
    )
    assert mixed.batched(batch_size=3)[0]["x"]() == [1, 2]


@pytest.mark.parametrize(
    "items",
    [
        [NpyNumpyItem(np.zeros(2)), NpyNumpyItem(np.zeros(3))],
        [NpyNumpyItem(np.zeros(2)), YamlMetadataItem({"a": 1})],
        [BinaryItem(b"a"), BinaryItem(b"b")],
    ],
)
def test_values_that_do_not_stack_are_named(items):
    source = SamplesSequence.from_list([Sample({"x": item}) for item in items])
    with pytest.raises(SampleError, match="'x' of samples 0 to 1"):
        source.batched(batch_size=2)[0]


def test_a_batch_size_below_one_is_refused(five):
    with pytest.raises(PipeBuildingError, match="batch_size"):
        five.batched(batch_size=0)
    with pytest.raises(PipeBuildingError, match="batch_size"):
        five.unbatched(batch_size="some")


@pytest.mark.parametrize("batch_size", [2, "fixed", "variable"])
def test_unbatched_undoes_batched(five, batch_size):
    again = five.batched(batch_size=2).unbatched(batch_size=batch_size)
    assert len(again) == 5
    for mine, theirs in zip(again, five, strict=True):
        for key, item in theirs.items():
            assert np.array_equal(mine[key](), item())
        assert mine["shared"].is_shared


def test_batches_of_several_sizes_are_taken_apart(five):
    batches = five[:2].batched(batch_size=2) + five[2:].batched(batch_size=3)
    json = batches.unbatched(batch_size="variable", key_list=["json"])
    assert [s["json"]()["a"] for s in json] == [0, 1, 2, 3, 4]
    assert set(json[0]) == {"json"}
    assert len(SamplesSequence.from_list([]).unbatched()) == 0


def test_a_wrong_batch_size_is_named(five):
    wrong = five.batched(batch_size=2).unbatched(batch_size=3)
    with pytest.raises(SampleError, match="element 2 of batch 0, which has 2"):
        wrong[2]


@pytest.mark.parametrize(
    "sample",
    [
        Sample({"x": YamlMetadataItem(5)}),
        Sample({"x": YamlMetadataItem([1, 2]), "y": YamlMetadataItem([1])}),
    ],
)
def test_what_cannot_be_taken_apart_is_named(sample):
    with pytest.raises(SampleError, match="batch 0 cannot be taken apart"):
        len(SamplesSequence.from_list([sample]).unbatched())


def test_a_batch_of_one_vector_of_text_stays_one(new_place):
    samples = [Sample({"v": TxtNumpyItem(np.arange(4) + 10 * idx)}) for idx in range(4)]
    batches = SamplesSequence.from_list(samples).batched(batch_size=3)
    batches.to_underfolder(new_place).run(track_fn=False)

    again = SamplesSequence.from_underfolder(new_place).unbatched(batch_size="variable")

    assert [sample["v"]().tolist() for sample in again] == [
        [10 * idx, 10 * idx + 1, 10 * idx + 2, 10 * idx + 3] for idx in range(4)
    ]


def test_a_mapping_cannot_be_taken_apart():
    batches = SamplesSequence.from_list([Sample({"m": YamlMetadataItem({"a": 1, "b": 2})})])
    with pytest.raises(SampleError, match="no length"):
        list(batches.unbatched(batch_size="variable"))
