import pickle

import pytest
from pydantic import Field

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.sequences import (
    Sample,
    SamplesSequence,
    SampleStage,
    resolve_stage,
    sample_stage,
)


class Append(SampleStage, title="test-append"):
    text: str = Field(description="What to append.")
    times: int = Field(1, description="How often.")

    def __call__(self, sample: Sample) -> Sample | None:
        return sample.set_value("x", sample["x"]() + self.text * self.times)


class Untitled(Append):
    pass


@sample_stage
def shout(sample: Sample, mark: str = "!") -> Sample | None:
    """Adds a mark."""
    return sample.set_value("x", sample["x"]().upper() + mark)


@sample_stage(title="test-drop")
def drop(sample: Sample) -> Sample | None:
    return None


def plain(sample: Sample) -> Sample:
    return sample


START = Sample({"x": YamlMetadataItem("s")})
HERE = __name__


def applied(spec):
    return resolve_stage(spec)(START)["x"]()


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        ({"test-append": {"text": "a"}}, "sa"),
        ({"test-append": ["a", 3]}, "saaa"),
        ({"test-append": "a"}, "sa"),
        ([{"test-append": "a"}, {"test-append": "b"}], "sab"),
        ({"compose": [{"test-append": "a"}, {"test-append": "b"}]}, "sab"),
        ({"compose": {"stages": [{"test-append": "a"}]}}, "sa"),
        (f"{HERE}:shout", "S!"),
        ({f"{HERE}:shout": "?"}, "S?"),
        ({f"{HERE}:Untitled": "u"}, "su"),
        (Append(text="i"), "si"),
        ([], "s"),
    ],
)
def test_a_specification_makes_a_stage(spec, result):
    assert applied(spec) == result


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("test-apend", ["no stage 'test-apend'", "Did you mean 'test-append'", "identity"]),
        ("test-append", ["test-append", "'text' is missing", "text (required)", "times=1"]),
        ({"test-append": {"text": "a", "tmes": 2}}, ["'tmes'", "Did you mean 'times'"]),
        ({"test-append": {"text": "a", "times": "x"}}, ["test-append", "'times'", "integer"]),
        ({"test-append": ["a", 1, 2]}, ["test-append", "3 arguments"]),
        ({"compose": ["nope"]}, ["no stage 'nope'"]),
        ("os:system", ["'os:system' is not a stage"]),
        (f"{HERE}:plain", ["is not a stage", "sample_stage"]),
        (f"{HERE}:shuot", ["Did you mean 'shout'"]),
        ("no_such_module:x", ["'no_such_module'", "cannot be imported"]),
        ("a b:c", ["is not of the form"]),
        ({"lambda": "os:system"}, ["func", "callable"]),
        ("prefect_pipestream.sequences.stage:SampleStage", ["abstract"]),
        (5, ["5 is not a stage"]),
        (plain, ["is not a stage"]),
    ],
)
def test_a_wrong_specification_says_what_is_allowed(spec, parts):
    with pytest.raises(PipeBuildingError) as caught:
        resolve_stage(spec)
    for part in parts:
        assert part in str(caught.value)


def test_a_callable_is_a_stage_only_where_allowed():
    assert resolve_stage(plain, allow_callable=True)(START) == START


def test_stages_combine_in_both_directions():
    a, b = Append(text="a"), Append(text="b")
    assert (a >> b)(START)["x"]() == "sab"
    assert (a << b)(START)["x"]() == "sba"
    assert (a >> b >> a)(START)["x"]() == "saba"


def test_a_composition_stops_at_a_dropped_sample():
    assert (Append(text="a") >> drop() >> Append(text="b"))(START) is None


def test_a_function_keeps_its_name_text_and_arguments():
    assert shout.__doc__ == "Adds a mark."
    assert shout.model_fields.keys() == {"mark"}
    assert shout(mark="?")(START)["x"]() == "S?"
    assert pickle.loads(pickle.dumps(shout(mark="?"))) == shout(mark="?")


def test_a_function_without_sample_or_with_unnamed_arguments_is_refused():
    with pytest.raises(TypeError, match="expected the sample"):
        sample_stage(lambda: None)
    with pytest.raises(TypeError, match="must be named"):
        sample_stage(lambda sample, **kwargs: None)


def test_a_taken_title_is_refused_where_the_class_is_defined():
    for title in ("test-append", "identity"):
        with pytest.raises(ValueError, match="is taken by"):

            class Clash(SampleStage, title=title):
                def __call__(self, sample: Sample) -> Sample | None:
                    return sample


def test_a_stage_gives_the_specification_it_is_made_of():
    for stage in (Append(text="a"), Untitled(text="a"), shout()):
        assert resolve_stage(stage.to_spec()) == stage


def test_a_sequence_does_not_move_samples():
    moving = SamplesSequence.from_list([START]).map(lambda sample: (sample, 7))
    with pytest.raises(SampleError, match="new index 7"):
        moving[0]
