"""What scripts of pipelime use beside the pipes; tests/interop compares it with pipelime."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from prefect_pipestream.errors import MissingItemError, PipeBuildingError
from prefect_pipestream.items import (
    Item,
    JsonMetadataItem,
    NpyNumpyItem,
    NumpyItem,
    PickleItem,
    PngImageItem,
    SerializationMode,
    TxtNumpyItem,
    UnknownItem,
    allow_unpickling,
    item_disabled_serialization_modes,
)
from prefect_pipestream.sequences import (
    DataStream,
    Grabber,
    Sample,
    SamplesSequence,
    SampleValidationInterface,
    build_pipe,
    grab_all,
)
from prefect_pipestream.sequences.grabber import ReturnType
from prefect_pipestream.sequences.pipes.mapping import (
    MappingConditionIndexRange,
    MappingConditionProbability,
)
from prefect_pipestream.sequences.stage import known_stages, registered_stages
from prefect_pipestream.stages import StageEntity
from prefect_pipestream.stages.entities import (
    BaseEntity,
    DynamicKey,
    ParsedData,
    ParsedItem,
    register_action,
)
from prefect_pipestream.stages.item_replacement import StageCopyItems
from tests.dataset_files import beside


def numbers(count: int) -> SamplesSequence:
    return SamplesSequence.from_list([Sample({"n": TxtNumpyItem(n)}) for n in range(count)])


def values(samples):
    return [int(sample["n"]()[0]) for sample in samples]


# -- streams ---------------------------------------------------------------------------------


def test_a_new_dataset_is_read_back_and_watched(new_place):
    stream = DataStream.create_new_underfolder(path=new_place, zfill=4)
    assert len(stream) == 0
    stream.set_output(10, numbers(3)[2])
    assert (len(stream), values([stream[10], stream[-1]])) == (11, [2, 2])
    other = DataStream.read_write_underfolder(path=new_place, must_exists=True)
    other.set_output(12, numbers(1)[0])
    assert (len(stream), values([stream[12]])) == (13, [0])
    assert stream.indices().tolist() == [10, 12]


def test_a_new_dataset_reads_pickles_only_if_allowed(new_place):
    for allow in (True, False):
        stream = DataStream.create_new_underfolder(
            beside(new_place, str(allow)), allow_pickle=allow
        )
        stream.set_output(0, Sample({"p": PickleItem({1, 2})}))
        assert stream[0]["p"].allow_pickle is allow
    with allow_unpickling():
        assert stream[0]["p"]() == {1, 2}


def test_a_stream_of_what_describes_an_output(new_place):
    class Output:
        def as_pipe(self):
            return {"to_underfolder": {"folder": new_place, "exists_ok": True}}

        def as_input(self):
            return self

        def create_reader(self):
            return SamplesSequence.from_underfolder(new_place, must_exist=False, watch=True)

    DataStream.from_output_dataset(Output(), run_key="r").set_output(0, numbers(1)[0])
    both = DataStream.from_output_dataset(Output(), bidirectional=True)
    both.set_output(1, both[0])
    assert values(both[:]) == [0, 0]


# -- sequences -------------------------------------------------------------------------------


def test_direct_access_is_joined():
    two = numbers(2).direct_access()
    assert [each["n"].tolist() for each in two + numbers(1) + two] == [[0], [1], [0], [0], [1]]


def test_the_shared_items_of_a_dataset(new_place):
    shared = {"n": TxtNumpyItem(1), "s": JsonMetadataItem("x", shared=True)}
    SamplesSequence.from_list([Sample(shared)]).to_underfolder(new_place).run()
    root = SamplesSequence.from_underfolder(new_place).root_sample
    assert [(key, item(), item.is_shared) for key, item in root.items()] == [("s", "x", True)]


def test_conditions_of_map_if():
    def changed(condition):
        mapped = numbers(8).map_if(stage={"filter-keys": "none"}, condition=condition)
        return [number for number, sample in enumerate(mapped) if not sample]

    assert changed(MappingConditionIndexRange(start=1, stop=-1, step=2)) == [1, 3, 5]
    picked = changed(MappingConditionProbability(p=0.5, seed=1))
    assert picked == changed(MappingConditionProbability(p=0.5, seed=1))
    assert changed(MappingConditionProbability(p=0)) == []


def test_a_validator_as_a_pipe():
    schema = {"n": {"class_path": "TxtNumpyItem", "is_optional": False}}
    validator = SampleValidationInterface(sample_schema=schema)
    assert values(validator.append_validator(numbers(2))) == [0, 1]
    assert values(build_pipe(validator.as_pipe(), numbers(2))) == [0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_grabbing_in_this_process_and_in_workers(tmp_path, workers):
    grabber, seen = Grabber(num_workers=workers, keep_order=True), []
    mark = (Path.touch, (tmp_path / "started",))
    grab_all(
        grabber,
        numbers(6),
        sample_fn=lambda sample, idx: seen.append((idx, values([sample])[0])),
        size=4,
        worker_init_fn=mark,
    )
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert (tmp_path / "started").exists()
    with grabber(numbers(6)) as samples:
        assert values(samples) == [0, 1, 2, 3, 4, 5]
    with grabber(numbers(6), ReturnType.SAMPLE_AND_INDEX, size=2) as pairs:
        assert [(idx, values([sample])) for idx, sample in pairs] == [(0, [0]), (1, [1])]


# -- items -----------------------------------------------------------------------------------


def test_an_item_names_its_files():
    png, unknown = PngImageItem(), UnknownItem(Path("/a/b.xyz"))
    assert png.with_extension("/x/a", ".jpg") == Path("/x/a.jpg")
    assert (png.default_extension(), unknown.default_extension()) == (".png", ".xyz")
    assert png.get_all_names("/x/a") == [png.as_default_name("/x/a")] == [Path("/x/a.png")]
    assert UnknownItem().as_default_name("/x/a") == Path("/x/a")
    with pytest.raises(ValueError, match="png"):
        png.with_extension("/x/a", "png")


def test_the_modes_of_an_item():
    item = NpyNumpyItem([1])
    item.serialization_mode = "SYM_LINK"
    with item_disabled_serialization_modes("SYM_LINK", NumpyItem):
        assert item.effective_serialization_mode() is SerializationMode.DEEP_COPY
        assert not item.is_mode_enabled("SYM_LINK")
    assert item.is_mode_enabled(SerializationMode.SYM_LINK)
    assert PngImageItem.save_options() == PngImageItem.encoder_defaults


def test_an_item_forgets_files_and_keeps_its_value(tmp_path):
    NpyNumpyItem([1, 2]).serialize(tmp_path / "a.npy")
    item = NpyNumpyItem(tmp_path / "a.npy", dont_check_paths=True)
    assert item.remove_data_source(tmp_path / "b.npy") is item
    assert (none := item.remove_data_source(tmp_path)).local_sources == ()
    assert none().tolist() == [1, 2]
    assert item.local_sources == (tmp_path / "a.npy",)


def test_a_single_number_in_text_is_an_array_of_one():
    assert TxtNumpyItem(5)().shape == (1,)
    assert numbers(1).enumerate()[0]["~idx"]().shape == (1,)


def test_a_model_takes_an_item_or_its_value():
    class Model(BaseModel):
        array: NumpyItem
        maybe: Item[object] | None = None

    given = NpyNumpyItem([1])
    assert Model(array=given).array is given
    assert type(Model(array=[1, 2]).array) is NpyNumpyItem
    with pytest.raises(ValidationError):
        Model(array=JsonMetadataItem(1))


# -- stages ----------------------------------------------------------------------------------


class Score(BaseModel):
    score: float
    tags: list[str] = []


class Rated(BaseEntity):
    n: TxtNumpyItem
    meta: ParsedItem[JsonMetadataItem, Score]
    _any = DynamicKey(TxtNumpyItem)
    _perhaps = DynamicKey(JsonMetadataItem, default_factory=lambda: JsonMetadataItem(0))


@register_action(title="double-score", description="Doubles the score.")
def double(rated: Rated) -> Rated:
    score = Score(score=rated.meta().score * 2)
    return Rated.merge(rated, meta=score, n=rated._any.validate("other")() + 1)


RATED = Sample(
    {
        "n": TxtNumpyItem(1),
        "meta": JsonMetadataItem({"score": 0.5}),
        "other": TxtNumpyItem(6),
    }
)
HERE = f"{__name__}:double"


@pytest.mark.parametrize("action", [double, "double-score", "double", HERE, {"action": double}])
def test_an_action_changes_a_sample_as_an_entity(action):
    changed = StageEntity(action)(RATED)
    assert changed["meta"]() == {"score": 1.0, "tags": []}
    assert isinstance(changed["meta"], JsonMetadataItem)
    assert changed["n"]().tolist() == [7]
    assert changed["other"] is RATED["other"]


def test_an_action_in_a_list_of_operations():
    (sample,) = SamplesSequence.from_list([RATED]).map({"entity": "double-score"})
    assert sample["meta"]()["score"] == 1.0


@pytest.mark.parametrize(
    "action", ["nothing", "os:getcwd", 3, lambda: None, {"action": "double", "x": 1}]
)
def test_what_is_no_action_is_refused(action):
    with pytest.raises((ValidationError, PipeBuildingError)):
        StageEntity(action)


def test_an_action_is_registered_once():
    assert register_action(double) is double
    with pytest.raises(ValueError, match="registered already"):
        register_action(title="double-score")(lambda entity: entity)


def test_an_entity_refuses_what_it_cannot_hold():
    for sample in (RATED.remove_keys("n"), RATED.set_item("meta", TxtNumpyItem(1))):
        with pytest.raises(ValidationError):
            StageEntity(double)(sample)


def test_dynamic_keys():
    entity = Rated(**RATED)
    assert entity._any.validate("other") is RATED["other"]
    assert entity._perhaps.validate("nothing")() == 0
    assert entity._any.owner is entity
    with pytest.raises(ValidationError):
        entity._any.validate("nothing")
    with pytest.raises(ValueError, match="one default"):
        DynamicKey(TxtNumpyItem, None, default_factory=TxtNumpyItem)


def test_parsed_items():
    item = JsonMetadataItem({"score": 2})
    parsed = ParsedData[Score].validate(item)
    assert (parsed.raw_item, parsed(), parsed.value.score) == (item, Score(score=2), 2)
    made = ParsedItem[NpyNumpyItem, float].validate(2.5)
    assert (made(), made.raw_item().tolist()) == (2.5, 2.5)
    kind = ParsedItem[JsonMetadataItem, list[Score]]
    assert kind.validate([{"score": 1}]).raw_item() == [{"score": 1.0, "tags": []}]
    assert kind.make_new([Score(score=1)])() == [{"score": 1.0, "tags": []}]
    assert kind.validate(kind.validate([])).raw_item_type() is JsonMetadataItem


def test_items_of_another_sample():
    other = Sample({"x": NpyNumpyItem(np.arange(3))})
    assert StageCopyItems(source=other, k=["x"])(RATED)["x"] is other["x"]
    shared = StageCopyItems(source=other, key_list="x", force_shared=True)(RATED)["x"]
    assert shared.is_shared
    with pytest.raises(MissingItemError):
        StageCopyItems(source=other, k=["y"])(RATED)


def test_stages_to_choose_from_are_those_that_a_text_can_name():
    assert {"copy-items", "lambda"} <= registered_stages().keys() - known_stages().keys()
