"""What people do with sequences, items, stages and data streams, for either package.

Each example takes the package's name and an empty folder, and returns plain values and arrays that
two interpreters can compare; see `specimens.canonical`. Imported by the tests and, in its own
environment, by the reference.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr
from specimens import canonical

EXAMPLES: dict[str, Callable[[Any, Path], Any]] = {}


class Package:
    """The modules of one of the packages, as attributes: `package.items`, `package.stages`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, module: str) -> Any:
        return importlib.import_module(f"{self._name}.{module.replace('__', '.')}")


def example(function: Callable[[Any, Path], Any]) -> Callable[[Any, Path], Any]:
    EXAMPLES[function.__name__] = function
    return function


def run_example(package: str, name: str, folder: Path) -> Any:
    """Run an example with one of the packages, in a new folder; an error is a result, too."""
    folder.mkdir(parents=True)
    try:
        return canonical(EXAMPLES[name](Package(package), folder))
    except Exception as error:  # noqa: BLE001 # it is to be seen in the test of this example alone
        return f"{type(error).__name__}: {error}"


def sample(p: Any, number: int) -> Any:
    return p.sequences.Sample(
        {
            "image": p.items.PngImageItem(np.full((4, 6, 3), number, np.uint8)),
            "label": p.items.TxtNumpyItem(number),
            "meta": p.items.JsonMetadataItem({"score": number / 10, "tags": ["a", "b"]}),
            "names": p.items.YamlMetadataItem({"0": "cat"}, shared=True),
        }
    )


def samples(p: Any, count: int) -> Any:
    return p.sequences.SamplesSequence.from_list([sample(p, number) for number in range(count)])


def labels(sequence: Any) -> list[int]:
    return [int(each["label"]()[0]) for each in sequence]


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".pipestream")


# -- items -----------------------------------------------------------------------------------


@example
def an_item_is_called_for_its_value(p: Any, folder: Path) -> Any:
    kinds = (p.items.TxtNumpyItem(7), p.items.NpyNumpyItem([1, 2]), p.items.YamlMetadataItem(None))
    return [(item(), item.is_shared, len(item.local_sources)) for item in kinds]


@example
def a_written_item_is_linked_by_the_next_write(p: Any, folder: Path) -> Any:
    item = p.items.PngImageItem(np.zeros((2, 2), np.uint8))
    item.serialize(folder / "one", folder / "two.png")
    same = p.items.PngImageItem(folder / "one.png")
    return [
        [path.name for path in item.local_sources],
        (folder / "one.png").stat().st_ino == (folder / "two.png").stat().st_ino,
        same(),
    ]


@example
def an_item_forgets_a_file(p: Any, folder: Path) -> Any:
    p.items.NpyNumpyItem([1, 2]).serialize(folder / "a.npy")
    item = p.items.NpyNumpyItem(folder / "a.npy")
    same = item.remove_data_source(Path("/nowhere"))
    none = item.remove_data_source(folder / "a.npy")
    return [[path.name for path in each.local_sources] for each in (item, same, none)] + [none()]


@example
def an_item_names_its_files(p: Any, folder: Path) -> Any:
    jpeg, path = p.items.JpegImageItem(), Path("/x/a.b")
    unknown = p.items.UnknownItem(Path("/y/c.xyz"))
    return [
        [str(jpeg.with_extension(path, ext)) for ext in (None, "", ".png")],
        [jpeg.default_extension(), unknown.default_extension()],
        [str(each.as_default_name(path)) for each in (jpeg, unknown)],
        [str(name) for each in (jpeg, unknown) for name in each.get_all_names(path)],
        p.items.UnknownItem().default_extension(),
    ]


@example
def modes_are_set_for_an_item_and_for_classes(p: Any, folder: Path) -> Any:
    own, other = p.items.NpyNumpyItem(1), p.items.NpyNumpyItem(2)
    own.serialization_mode = "SYM_LINK"
    seen = [int(own.effective_serialization_mode()), int(other.effective_serialization_mode())]
    with p.items.item_serialization_mode("CREATE_NEW_FILE"):
        seen.append(int(other.effective_serialization_mode()))
    with p.items.item_disabled_serialization_modes(["HARD_LINK"], p.items.NpyNumpyItem):
        modes = p.items.SerializationMode
        seen += [other.is_mode_enabled(mode) for mode in modes]
        seen += [p.items.TxtNumpyItem(1).is_mode_enabled(mode) for mode in modes]
    return seen


@example
def links_of_samples_and_of_shared_items(p: Any, folder: Path) -> Any:
    samples(p, 2).to_underfolder(folder / "a").run(track_fn=None)
    reader = p.sequences.SamplesSequence.from_underfolder(folder / "a")
    reader.to_underfolder(
        folder / "b", key_serialization_mode={"names": "SYM_LINK", "label": "SYM_LINK"}
    ).run(track_fn=None)
    with p.items.item_serialization_mode("SYM_LINK"):
        reader.to_underfolder(folder / "c").run(track_fn=None)
    return [
        (name, (folder / each / name).is_symlink(), (folder / each / name).stat().st_nlink)
        for each in "bc"
        for name in files(folder / each)
    ]


@example
def links_of_a_stream(p: Any, folder: Path) -> Any:
    samples(p, 2).to_underfolder(folder / "a").run(track_fn=None)
    reader = p.sequences.SamplesSequence.from_underfolder(folder / "a")
    with p.items.item_serialization_mode("SYM_LINK", p.items.Item):
        stream = p.sequences.DataStream.create_new_underfolder(folder / "b")
        for index, each in enumerate(reader):
            stream.set_output(index, each)
    return [
        (name, (folder / "b" / name).is_symlink(), (folder / "b" / name).stat().st_nlink)
        for name in files(folder / "b")
    ]


@example
def values_are_cached_where_it_is_asked_for(p: Any, folder: Path) -> Any:
    p.items.NpyNumpyItem([1]).serialize(folder / "a.npy")
    item = p.items.NpyNumpyItem(folder / "a.npy")
    seen = [item() is item()]
    with p.items.data_cache(p.items.NpyNumpyItem):
        seen.append(item() is item())
    return seen


# -- samples ---------------------------------------------------------------------------------


@example
def a_sample_gives_back_the_items_it_was_given(p: Any, folder: Path) -> Any:
    one = sample(p, 1)
    item = p.items.TxtNumpyItem([3])
    listed = p.sequences.SamplesSequence.from_list([one])
    changed = [
        p.sequences.Sample(dict(one)),
        one.set_value("label", 5),
        one.shallow_copy(),
        listed[0],
        listed.map("identity")[0],
        listed.apply(track_fn=None)[0],
        (listed + listed)[1],
        listed.to_underfolder(folder / "a")[0],
    ]
    return [each["image"] is one["image"] for each in changed] + [
        one.set_item("x", item)["x"] is item,
        p.sequences.Sample({"x": item})["x"] is item,
        one.deep_copy()["image"] is one["image"],
    ]


@example
def values_inside_of_items(p: Any, folder: Path) -> Any:
    changed = sample(p, 1).deep_set("meta.tags[1]", "c").deep_set("new.a.b", 2)
    return [
        changed.deep_get("meta.tags"),
        changed.deep_get(key_path="new"),
        changed.deep_get("meta.nothing", "-"),
        changed.match("`meta.score` > 0.05"),
        {key: cls.__name__ for key, cls in changed.to_schema().items()},
    ]


@example
def keys_and_sets_of_them(p: Any, folder: Path) -> Any:
    one, two = sample(p, 1), sample(p, 2).rename_key("label", "other")
    merged = (one + two, one | two, one - two, one & two, one ^ two, one.merge(two))
    return [sorted(each) for each in merged] + [
        (one + two)["image"]().max().item(),
        sorted(one.extract_keys("label", "nothing")),
        sorted(one.duplicate_key("label", "again").remove_keys("image")),
        one.direct_access()["label"],
    ]


# -- sequences -------------------------------------------------------------------------------


@example
def choosing_samples(p: Any, folder: Path) -> Any:
    ten = samples(p, 10)
    return [
        labels(ten[2:8:3]),
        labels(ten[::-1]),
        labels(ten.shuffle(seed=4)),
        labels(ten.filter(lambda each: each["label"]()[0] % 3 == 0)),
        labels(ten.sort(lambda each: -each["label"]()[0])),
        labels(ten.select([3, -1, 0])),
        labels(ten.select([3, 9, 0], negate=True)),
        labels(ten[:3].repeat(2, interleave=True)),
        labels(ten[:2].cat(ten[5:8], ten[9:], interleave=True)),
        labels(ten[:2] + ten[8:]),
        [len(each) for each in ten.batch(4)],
        ten.is_normalized(),
        ten.best_zfill(),
    ]


@example
def pipes_made_by_their_classes(p: Any, folder: Path) -> Any:
    pipes, four = p.sequences__pipes__operations, samples(p, 4)
    samples(p, 2).to_underfolder(folder / "a").run(track_fn=None)
    made = [
        pipes.RepeatedSequence(2, source=four),
        pipes.ConcatSequences(four[:1], four[2:], source=four, to_cat=[]),
        pipes.IndexSelectionSequence([1, 0], source=four, negate=True),
        pipes.EnableItemDataCache(p.items.ImageItem, source=four),
        p.sequences__sources__raw.SamplesList([sample(p, 5)]),
        p.sequences__sources__readers.UnderfolderReader(folder / "a"),
        p.sequences__pipes__mapping.MappedSequence("identity", source=four),
    ]
    return [labels(each) for each in made]


@example
def the_index_of_a_sample_as_an_item(p: Any, folder: Path) -> Any:
    two = samples(p, 2)
    text, plain = two.enumerate(), two.enumerate(idx_key="n", item_cls=p.items.JsonMetadataItem)
    return [(type(each["~idx"]).__name__, each["~idx"]()) for each in text] + [
        each["n"]() for each in plain
    ]


@example
def conditions_of_a_map(p: Any, folder: Path) -> Any:
    mapping = p.sequences__pipes__mapping
    ten, stage = samples(p, 10), {"filter-keys": {"key_list": "label"}}
    conditions = [
        mapping.MappingConditionIndexRange(start=1, stop=-1, step=3),
        mapping.MappingConditionIndexRange(start=8, stop=2, step=-2),
        mapping.MappingConditionProbability(p=0.5, seed=3),
        lambda index, each: index == each["label"]()[0] == 2,
    ]
    return [
        [len(each) for each in ten.map_if(stage=stage, condition=condition)]
        for condition in conditions
    ]


@example
def batches_and_back(p: Any, folder: Path) -> Any:
    batched = samples(p, 6).batched(batch_size=3)
    unbatched = [batched.unbatched(), batched.unbatched(batch_size=3)]
    unbatched.append(samples(p, 7).batched(batch_size=3).unbatched(batch_size="variable"))
    return [
        [item() for item in batched[1].values()],
        [(len(each), labels(each)) for each in unbatched],
    ]


@example
def a_sequence_by_its_values(p: Any, folder: Path) -> Any:
    two = samples(p, 2)
    both = two.direct_access() + two.direct_access()
    more = both + two
    return [len(both), len(more), [each["label"] for each in more[1:]], sorted(more[0])]


@example
def pipes_of_lists(p: Any, folder: Path) -> Any:
    samples(p, 3).to_underfolder(folder / "a").run(track_fn=None)
    pipe = [
        {"from_underfolder": {"folder": str(folder / "a")}},
        {"slice": {"start": 1}},
        {"map": {"remap-key": {"remap": {"label": "number"}}}},
        "enumerate",
    ]
    built = p.sequences.build_pipe(pipe)
    return [sorted(each) for each in built] + [[next(iter(each)) for each in built.to_pipe()]]


@example
def wrong_pipes(p: Any, folder: Path) -> Any:
    raised = []
    for wrong in ("nothing", {"slice": {"begin": 1}}, {"map": "nothing"}):
        try:
            p.sequences.build_pipe(wrong, samples(p, 1))
        except p.sequences.PipeBuildingError:
            raised.append(True)
    return raised


@example
def samples_are_checked(p: Any, folder: Path) -> Any:
    schema = {"label": {"class_path": "TxtNumpyItem", "is_optional": False}}
    good = p.sequences.SampleValidationInterface(sample_schema=schema)
    extra = p.sequences.SampleValidationInterface(sample_schema=schema, ignore_extra_keys=False)

    class Model(BaseModel, arbitrary_types_allowed=True):
        image: p.items.ImageItem
        label: p.items.NumpyItem

    passed = []
    for given in (good, extra, {"sample_schema": Model}, {"sample_schema": {"x": schema["label"]}}):
        try:
            passed.append(len(list(samples(p, 2).validate_samples(sample_schema=given))))
        except Exception:  # noqa: BLE001 # its class is not the same
            passed.append(-1)
    appended = good.append_validator(samples(p, 2))
    again = p.sequences.build_pipe(good.as_pipe(), samples(p, 2))
    return [passed, labels(appended), labels(again)]


@example
def going_through_a_sequence(p: Any, folder: Path) -> Any:
    six, seen = samples(p, 6), []
    six.run(sample_fn=lambda each, index: seen.append((index, labels([each])[0])), track_fn=None)
    six.run(sample_fn=lambda each: seen.append(labels([each])[0]), track_fn=None)
    applied = six.map({"filter-keys": {"key_list": ["label"]}}).apply(track_fn=None)
    return [seen, labels(applied), [len(each) for each in applied]]


@example
def grabbing_samples(p: Any, folder: Path) -> Any:
    three, grabber = samples(p, 3), p.sequences.Grabber(keep_order=True)
    kinds, seen = p.sequences__grabber.ReturnType, []
    p.sequences.grab_all(
        grabber,
        three,
        sample_fn=lambda each, index: seen.append((index, labels([each])[0])),
        track_fn=lambda found: found,
        worker_init_fn=(seen.append, ("started",)),
    )
    with grabber(three) as found:
        seen += labels(found)
    with grabber(three, kinds.SAMPLE_AND_INDEX) as found:
        seen += [(index, labels([each])[0]) for index, each in found]
    return seen


# -- folders and streams -----------------------------------------------------------------------


@example
def a_folder_comes_back(p: Any, folder: Path) -> Any:
    samples(p, 3).to_underfolder(folder / "a", zfill=2).run(track_fn=None)
    reader = p.sequences.SamplesSequence.from_underfolder(folder / "a")
    alone = p.sequences.SamplesSequence.from_underfolder(folder / "a", merge_root_items=False)
    return [
        files(folder / "a"),
        [each.to_dict() for each in reader],
        [sorted(each) for each in alone],
        {key: (item(), item.is_shared) for key, item in reader.root_sample.items()},
    ]


@example
def a_stream_of_a_new_folder(p: Any, folder: Path) -> Any:
    stream = p.sequences.DataStream.create_new_underfolder(path=folder / "a", zfill=3)
    lengths = [len(stream)]
    stream.set_output(10, sample(p, 4))
    lengths.append(len(stream))
    other = p.sequences.DataStream.read_write_underfolder(folder / "a", zfill=3)
    other.set_output(11, sample(p, 5))
    lengths.append(len(stream))
    stream.set_output(10, stream[10].set_value("label", 9), keys=["label"])
    return [
        lengths,
        stream[10].to_dict(),
        sorted(stream[3]),
        stream.get_input(11)["label"](),
        other[-2]["label"](),
        files(folder / "a"),
    ]


@example
def a_stream_of_a_folder(p: Any, folder: Path) -> Any:
    samples(p, 3).to_underfolder(folder / "a").run(track_fn=None)
    stream = p.sequences.DataStream.read_write_underfolder(
        path=folder / "a", must_exists=True, zfill=1
    )
    black = np.zeros((2, 2), np.uint8)
    stream.set_output(1, stream[1].set_value("label", 8).set_value("image", black))
    return [len(stream), labels(stream[index] for index in range(3)), stream[1]["meta"]()]


@example
def a_stream_that_only_writes(p: Any, folder: Path) -> Any:
    stream = p.sequences.DataStream.create_output_stream(path=folder / "a")
    stream.set_output(2, sample(p, 1))
    try:
        stream[2]
    except IndexError:
        return [len(stream), files(folder / "a")]


@example
def a_stream_of_an_output(p: Any, folder: Path) -> Any:
    class Output:
        def as_pipe(self) -> Any:
            return {"to_underfolder": {"folder": str(folder / "a"), "exists_ok": True, "zfill": 2}}

        def as_input(self) -> Any:
            return self

        def create_reader(self) -> Any:
            return p.sequences.SamplesSequence.from_underfolder(
                folder / "a", must_exist=False, watch=True
            )

    writes = p.sequences.DataStream.from_output_dataset(Output())
    writes.set_output(0, sample(p, 1))
    both = p.sequences.DataStream.from_output_dataset(Output(), bidirectional=True)
    both.set_output(1, both[0])
    return [len(writes), len(both), labels(both[index] for index in range(2)), files(folder / "a")]


# -- stages ------------------------------------------------------------------------------------


@example
def stages_on_keys(p: Any, folder: Path) -> Any:
    one, stages = sample(p, 1), p.stages
    return [
        sorted(stage(one))
        for stage in (
            stages.StageIdentity(),
            stages.StageRemap(remap={"label": "x"}),
            stages.StageRemap(remap={"label": "x"}, remove_missing=False),
            stages.StageKeysFilter(key_list="label"),
            stages.StageKeysFilter(key_list=["label"], negate=True),
            stages.StageKeyFormat(key_format="a_*", apply_to=["label"]),
            stages.StageDuplicateKey(source_key="label", copy_to="x"),
            stages.StageLambda(lambda each: each.remove_keys("image")),
            stages.StageCompose(["identity", {"filter-keys": {"key_list": ["image"]}}]),
            stages.StageRemap(remap={"label": "x"}) >> stages.StageKeyFormat(key_format="b_*"),
            stages.StageRemap(remap={"label": "x"}) << stages.StageKeyFormat(key_format="b_*"),
        )
    ]


@example
def stages_on_items(p: Any, folder: Path) -> Any:
    one, stages = sample(p, 1), p.stages
    more = p.sequences.Sample({"extra": p.items.TxtNumpyItem([5])})
    copy = p.stages__item_replacement.StageCopyItems
    changed = [
        stages.StageReplaceItem(key_item_map={"label": "NpyNumpyItem"})(one),
        stages.StageSetMetadata(key_path="meta.tags[0]", value="z")(one),
        stages.StageShareItems(share=["label"], unshare=["names"])(one),
        copy(source=more, key_list=["extra"])(one),
        copy(source=more, k=["extra"], f=True)(one),
    ]
    return [
        {key: (type(item).__name__, item.is_shared, item()) for key, item in each.items()}
        for each in changed
    ]


@example
def what_items_there_are(p: Any, folder: Path) -> Any:
    stage = p.stages.StageItemInfo()
    one = sample(p, 1)
    for each in (one, one, one.remove_keys("image")):
        stage(each)
    refused = []
    for other in (p.items.NpyNumpyItem(1), p.items.TxtNumpyItem(1, shared=True)):
        try:
            stage(one.set_item("label", other))
        except Exception:  # noqa: BLE001 # its class is not the same
            refused.append(type(other).__name__)
    infos = stage.items_info
    return [refused] + [
        (key, info.item_type.__name__, info.is_shared, info.count_)
        for key, info in sorted(infos.items())
    ]


@example
def an_action_on_an_entity(p: Any, folder: Path) -> Any:
    entities, items = p.stages__entities, p.items

    class Score(BaseModel):
        score: float
        tags: list[str] = []

    class Rated(entities.BaseEntity):
        label: items.TxtNumpyItem
        meta: entities.ParsedItem[items.JsonMetadataItem, Score]

    # A string, as this module's annotations are, could not name a class of a function.
    def double_rating(rated: Any) -> Any:
        score = Score(score=rated.meta().score * 2)
        return Rated.merge(rated, label=[rated.label()[0] + 1], meta=score)

    double_rating.__annotations__ = {"rated": Rated, "return": Rated}
    entities.register_action(title="double-the-rating")(double_rating)
    one = sample(p, 4)
    results = [
        p.stages.StageEntity(double_rating)(one),
        p.stages.StageEntity("double-the-rating")(one),
        samples(p, 5).map({"entity": "double-the-rating"})[4],
    ]
    return (
        [sorted(each) for each in results]
        + [(each["label"](), each["meta"](), type(each["meta"]).__name__) for each in results]
        + [results[0]["image"] is one["image"]]
    )


@example
def entities_take_items_and_values(p: Any, folder: Path) -> Any:
    entities, items = p.stages__entities, p.items

    class Loose(entities.BaseEntity):
        array: items.NumpyItem
        _any = entities.DynamicKey(items.TxtNumpyItem)
        _perhaps = entities.DynamicKey(items.TxtNumpyItem, None)

    loose = Loose(array=[1, 2], x=items.TxtNumpyItem(3), y=items.JsonMetadataItem(1))
    refused = []
    for wrong in ({}, {"array": items.JsonMetadataItem(1)}):
        try:
            Loose(**wrong)
        except ValueError:
            refused.append(len(wrong))
    for key in ("y", "nothing"):
        try:
            loose._any.validate(key)
        except ValueError:
            refused.append(key)
    return [
        (type(loose.array).__name__, loose.array()),
        loose._any.validate("x")(),
        loose._perhaps.validate("nothing"),
        refused,
    ]


@example
def parsed_items(p: Any, folder: Path) -> Any:
    entities, items = p.stages__entities, p.items

    class Box(BaseModel):
        x: int
        y: int = 2

    parsed = entities.ParsedItem[items.YamlMetadataItem, Box]
    anything = entities.ParsedData[Box]
    item = items.YamlMetadataItem({"x": 1})
    values = [parsed.validate(value) for value in (item, {"x": 3}, Box(x=4, y=5))]
    values.append(anything.validate(item))
    return [
        [
            (each().x, each.value.y, type(each.raw_item).__name__, each.raw_item())
            for each in values
        ],
        values[0].raw_item is item,
        parsed.raw_item_type().__name__,
        parsed.parsed_value_type() is Box,
        parsed.make_new(Box(x=6))(),
        parsed.make_parsed_value({"x": 7}).x,
        parsed.value_to_item_data(Box(x=8)),
    ]


@example
def images_of_a_folder(p: Any, folder: Path) -> Any:
    for name in ("b", "abc", "a"):
        p.items.PngImageItem(np.full((2, 3), len(name), np.uint8)).serialize(folder / name)
    (folder / "e.txt").write_text("1")
    made = p.sequences.SamplesSequence.from_images
    found = made(folder, sort_files=True, image_key="x")
    return [
        [(sorted(each), each["x"]().tolist()) for each in found],
        len(made(folder, recursive=False)),
        len(made(folder / "nothing", must_exist=False)),
    ]


@example
def a_toy_dataset(p: Any, folder: Path) -> Any:
    made = p.sequences.SamplesSequence.toy_dataset(3, image_size=16, key_format="a_*")
    plain = p.sequences.SamplesSequence.toy_dataset(
        2, with_images=False, with_masks=False, with_instances=False, with_kpts=False, seed=1
    )
    return [
        {key: cls.__name__ for key, cls in made[0].remove_keys("a_keypoints").to_schema().items()},
        "a_keypoints" in made[0],
        made[0]["a_image"]().shape,
        made[0]["a_mask"]().shape,
        sorted(made[0]["a_metadata"]()),
        [sorted(each) for each in plain],
        plain[0]["bboxes"]().shape[1],
    ]


@example
def a_cache_of_samples(p: Any, folder: Path) -> Any:
    calls: list[int] = []

    def count(each: Any) -> Any:
        calls.append(1)
        return each

    cached = samples(p, 2).map(p.stages.StageLambda(count)).cache(folder / "cache")
    return [labels(cached), labels(cached), len(calls)]


@example
def more_stages_on_items(p: Any, folder: Path) -> Any:
    one, stages = sample(p, 1), p.stages
    samples(p, 1).to_underfolder(folder / "a").run(track_fn=None)
    (read,) = p.sequences.SamplesSequence.from_underfolder(folder / "a")
    timer = stages.StageTimer("identity", skip_first=1, time_key_path="times.*")
    timed = [timer(one), timer(one)]
    forgotten = stages.StageForgetSource(folder / "a")(read)
    hashed = stages.StageSampleHash(algorithm="md5", keys=["label", "meta"])(one)["hash"]
    crop = stages.StageCropAndPad(x=1, y=-1, width=3, height=4, images="image")
    nearest = stages.StageResize(size=(8, 12), interpolation="nearest", images="image")
    return [
        [sorted(each) for each in timed],
        [list(each.deep_get("times", {})) for each in timed],
        [len(item.local_sources) for item in forgotten.values()],
        [len(item.local_sources) for item in read.values()],
        (type(hashed).__name__, len(hashed())),
        crop(one)["image"](),
        nearest(one)["image"](),
        stages.StageResize(size=("max", 12), images=["image"])(one)["image"]().shape,
        stages.StageResize(size=("min", 2), images="image")(one)["image"]().shape,
    ]


# -- of one's own --------------------------------------------------------------------------------


@example
def a_stage_of_ones_own(p: Any, folder: Path) -> Any:
    class Adding(p.stages.SampleStage, title="example-adding"):
        amount: float = Field(1.0, description="What is added.")
        keys_to_change: Sequence[str] = ["label"]

        def __call__(self, x: Any) -> Any:
            for key in self.keys_to_change:
                x = x.set_value(key, x[key]() + self.amount)
            return x

    stage = Adding(amount=2)
    stage.amount = 3
    twice = stage >> stage
    return [stage(sample(p, 1))["label"](), labels(samples(p, 2).map(twice))]


@example
def a_pipe_and_a_source_of_ones_own(p: Any, folder: Path) -> Any:
    @p.sequences.piped_sequence
    class Multiplied(p.sequences__pipes.PipedSequenceBase, title="example_multiplied"):
        factor: int = 2
        _seen: int = PrivateAttr(0)

        def get_sample(self, idx: int) -> Any:
            self._seen += 1
            read = self.source[idx]
            return read.set_value("label", read["label"]() * self.factor)

    @p.sequences.source_sequence
    class Counted(p.sequences.SamplesSequence, title="example_counted"):
        count_to: int

        def size(self) -> int:
            return self.count_to

        def get_sample(self, idx: int) -> Any:
            return sample(p, idx)

    made = p.sequences.SamplesSequence.example_counted(count_to=4)
    pipe = [{"example_counted": {"count_to": 3}}, {"example_multiplied": {"factor": 5}}]
    return [
        labels(made.example_multiplied(factor=3)),
        labels(p.sequences.build_pipe(pipe)),
        labels([made[-1]]),
        made.name(),
        isinstance(made, Counted),
    ]


@example
def an_item_class_of_ones_own(p: Any, folder: Path) -> Any:
    class Words(p.items.Item):
        @classmethod
        def file_extensions(cls) -> Sequence[str]:
            return (".words",)

        @classmethod
        def decode(cls, fp: Any) -> list[str]:
            return fp.read().decode().split()

        @classmethod
        def encode(cls, value: list[str], fp: Any) -> None:
            fp.write(" ".join(value).encode())

    one = p.sequences.Sample({"words": Words(["a", "b"])})
    p.sequences.SamplesSequence.from_list([one]).to_underfolder(folder / "a").run(track_fn=None)
    (read,) = p.sequences.SamplesSequence.from_underfolder(folder / "a")
    taken = p.items.Item.get_instance(folder / "a" / "data" / "0_words.words")
    try:
        type("Taken", (Words,), {"file_extensions": classmethod(lambda cls: (".png",))})
    except ValueError:
        return [type(read["words"]).__name__, read["words"](), taken(), files(folder / "a")]


# -- the modules of the reference ----------------------------------------------------------------


@example
def everything_is_where_it_was(p: Any, folder: Path) -> Any:
    places = {
        "items__binary_item": "BinaryItem",
        "items__numpy_item": "TxtNumpyItem",
        "sequences": "DataStream PipeBuildingError SampleValidationInterface Grabber grab_all",
        "sequences__pipes": "PipedSequenceBase",
        "sequences__pipes__mapping": "MappedSequence",
        "sequences__pipes__operations": "ShuffledSequence EnableItemDataCache",
        "sequences__pipes__writers": "UnderfolderWriter",
        "sequences__sources__readers": "UnderfolderReader",
        "stages": "StageEntity StageInput",
        "stages__entities": "BaseEntity ParsedItem EntityAction DynamicKey register_action",
    }
    made = samples(p, 1).shuffle(seed=1).to_underfolder(folder / "a")
    return [
        [operator.attrgetter(name)(getattr(p, module)) is not None for name in names.split()]
        for module, names in places.items()
    ] + [
        isinstance(made, p.sequences__pipes__writers.UnderfolderWriter),
        isinstance(made.source, p.sequences__pipes__operations.ShuffledSequence),
        isinstance(made.source, p.sequences__pipes.PipedSequenceBase),
        isinstance(made.source.source, p.sequences__sources__raw.SamplesList),
    ]
