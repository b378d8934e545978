import pickle

import pytest
from pydantic import Field

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.items import JsonMetadataItem, YamlMetadataItem
from prefect_pipestream.sequences import (
    Sample,
    SamplesSequence,
    build_pipe,
    piped_sequence,
    source_sequence,
)


@source_sequence
class Numbers(SamplesSequence, title="test_numbers"):
    upto: int = Field(description="How many.")

    def size(self) -> int:
        return self.upto

    def get_sample(self, idx: int) -> Sample:
        return Sample({"x": YamlMetadataItem(idx)})


@piped_sequence
class Reversed(SamplesSequence, title="test_reversed"):
    backwards: SamplesSequence = Field(json_schema_extra={"pipe_source": True})
    keep: bool = False

    def size(self) -> int:
        return len(self.backwards)

    def get_sample(self, idx: int) -> Sample:
        return self.backwards[idx if self.keep else -idx - 1]


def values(sequence):
    return [sample["x"]() if sample else None for sample in sequence]


@pytest.fixture
def five():
    return SamplesSequence.from_list([Sample({"x": YamlMetadataItem(i)}) for i in range(5)])


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        ([], [0, 1, 2, 3, 4]),
        ("test_reversed", [4, 3, 2, 1, 0]),
        ({"slice": {"start": 3}}, [3, 4]),
        ({"slice": [1, 3]}, [1, 2]),
        ({"slice": 3}, [3, 4]),
        ({"slice": None}, [0, 1, 2, 3, 4]),
        ({"select": [0, -1]}, [0, 4]),
        ({"select": [[0, -1]]}, [0, 4]),
        ({"select": {"indexes": [0, -1], "negate": True}}, [1, 2, 3]),
        ({"repeat": 2, "slice": {"start": 7}}, [2, 3, 4]),
        ([{"slice": {"stop": 2}}, {"repeat": {"count": 2}}], [0, 1, 0, 1]),
        ({"map": "identity"}, [0, 1, 2, 3, 4]),
        ({"map": {"stage": "identity"}}, [0, 1, 2, 3, 4]),
        ({"map": {"set-meta": {"key_path": "x", "value": 9}}}, [9] * 5),
        ({"map": ["identity", {"set-meta": ["x", 8]}]}, [8] * 5),
        ({"cat": {"to_cat": [[{"test_numbers": 2}]]}}, [0, 1, 2, 3, 4, 0, 1]),
    ],
)
def test_a_list_of_operations_makes_a_sequence(five, spec, result):
    assert values(build_pipe(spec, five)) == result


def test_a_list_may_begin_with_its_source():
    assert values(build_pipe([{"test_numbers": {"upto": 3}}, "test_reversed"])) == [2, 1, 0]


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("shufle", ["no operation 'shufle'", "Did you mean 'shuffle'", "to_underfolder"]),
        ({"slice": {"strt": 1}}, ["slice", "'strt'", "Did you mean 'start'", "stop=None"]),
        ({"slice": {"start": "x"}}, ["slice", "'start' = 'x'", "integer"]),
        ({"slice": [1, 2, 1, 4]}, ["slice", "4 arguments"]),
        ({"slice": {"step": 0}}, ["slice", "'step'"]),
        ("repeat", ["repeat", "'count' is missing", "count (required)"]),
        ({"repeat": -1}, ["repeat", "'count'", "greater than or equal to 0"]),
        ({"map": "nope"}, ["map", "'stage'", "no stage 'nope'"]),
        ({"map": {"set-meta": {"key_pth": 1}}}, ["set-meta", "'key_pth'", "'key_path'"]),
        ({"map": "os:system"}, ["map", "is not a stage"]),
        ({"filter": "math:sqrt"}, ["filter", "callable"]),
        ({"map_if": {"stage": "identity", "condition": "m:f"}}, ["condition", "callable"]),
        ({"enumerate": {"item_cls": "YamlItem"}}, ["item_cls", "YamlMetadataItem"]),
        ({"from_list": []}, ["from_list", "can only come first"]),
        ({"zip": 5}, ["zip", "'to_zip'"]),
        (5, ["5 is not an operation"]),
        ([["slice"]], ["['slice'] is not an operation"]),
        ({"test_numbers": 3}, ["can only come first"]),
    ],
)
def test_a_wrong_operation_says_what_is_allowed(five, spec, parts):
    with pytest.raises(PipeBuildingError) as caught:
        build_pipe(spec, five)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("spec", [[], "shuffle", [{"slice": 1}]])
def test_a_list_needs_a_source(spec):
    with pytest.raises(PipeBuildingError, match="begin"):
        build_pipe(spec)


def test_a_new_source_and_pipe_are_methods_too(five):
    assert values(SamplesSequence.test_numbers(3)) == [0, 1, 2]
    assert values(five.test_reversed()) == [4, 3, 2, 1, 0]
    assert values(five.test_reversed(keep=True)) == [0, 1, 2, 3, 4]
    with pytest.raises(PipeBuildingError, match="'kep'"):
        five.test_reversed(kep=True)


def test_a_taken_or_missing_title_is_refused():
    for title in ("shuffle", "run", "test_numbers"):
        with pytest.raises(ValueError, match="is taken"):

            @source_sequence
            class Clash(Numbers, title=title):
                pass

    with pytest.raises(ValueError, match="fields marked"):

        @piped_sequence
        class NoSource(Numbers, title="test_no_source"):
            pass


def test_to_pipe_gives_the_operations_that_make_the_sequence_again(five, tmp_path):
    sequence = (
        SamplesSequence.test_numbers(6)
        .shuffle(seed=1)
        .zip(SamplesSequence.test_numbers(5), key_format="z*")
        .map([{"set-meta": {"key_path": "x", "value": 4}}, "identity"])
        .enumerate(item_cls=JsonMetadataItem)
        .select([0, 2])
        .repeat(1.5)
        .data_cache(JsonMetadataItem)
    )
    pipe = sequence.to_pipe()
    assert [next(iter(step)) for step in pipe] == [
        "test_numbers",
        "shuffle",
        "zip",
        "map",
        "enumerate",
        "select",
        "repeat",
        "data_cache",
    ]
    again = build_pipe(pipe)
    assert [s.to_dict() for s in again] == [s.to_dict() for s in sequence]
    assert again.to_pipe() == pipe


def test_to_pipe_leaves_objects_and_sequences_where_asked(five):
    other = SamplesSequence.test_numbers(1)
    function = len
    step = five.zip(other).to_pipe(recursive=False, objs_to_str=False)[-1]
    assert step["zip"]["to_zip"] is other
    assert five.filter(function).to_pipe(objs_to_str=False)[-1]["filter"]["filter_fn"] is function
    assert five.filter(function).to_pipe()[-1]["filter"]["filter_fn"] == "builtins:len"


def test_repr_shows_the_calls(five):
    assert repr(five[1:].shuffle(seed=3)) == (
        "from_list(samples=<5 Sample>).slice(start=1).shuffle(seed=3)"
    )


def test_every_operation_refuses_extra_arguments_and_survives_pickling(five):
    sequence = five[::2].shuffle(seed=0).repeat(2).cat(five).test_reversed()
    again = pickle.loads(pickle.dumps(sequence))
    assert values(again) == values(sequence)
    with pytest.raises(ValueError, match="Extra inputs"):
        Numbers(upto=3, more=4)


def test_a_pipe_of_the_reference_marks_its_source_in_the_field(five):
    with pytest.warns(DeprecationWarning, match="json_schema_extra"):

        @piped_sequence
        class FirstTwo(SamplesSequence, title="test_first_two"):
            source: SamplesSequence = Field(pipe_source=True)

            def size(self) -> int:
                return 2

            def get_sample(self, idx: int) -> Sample:
                return self.source[idx]

    assert values(five.test_first_two()) == [0, 1]
