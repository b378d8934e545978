"""Rules before a commit, and before an undo, are held to in a folder and in a bucket."""

import itertools
import json
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import ConflictError, InvalidSampleError, UndoRefusedError
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import plan_undo, undo_run
from prefect_pipestream.underfolder.commits.prospect import Items
from prefect_pipestream.validation import FieldRule, ItemRule, SampleRules
from tests.bucket.stores import ROOT, Meanwhile, md5, process
from tests.dataset_files import new_address

LOG = ".pipestream/log"
SMALL = ItemRule(key="metadata", required_fields=(FieldRule(path="number", maximum=9),))
FACTOR = ItemRule(key="factor", required_fields=(FieldRule(path="by", maximum=3),))


@pytest.fixture
def place(new_place: Place) -> Place:
    return made_at(new_place)


def made_at(place: Place) -> Place:
    """Three samples and a shared item."""
    made = DataStream.create_new_underfolder(place, run_key="make")
    with made.commit_group() as batch:
        for number in range(3):
            batch.set_output(
                number,
                Sample(
                    {
                        "image": PngImageItem(np.full((4, 5), number, np.uint8)),
                        "metadata": YamlMetadataItem({"number": number}),
                        "factor": JsonMetadataItem({"by": 2}, shared=True),
                    }
                ),
            )
    return place


def opened(place: Place, *rules: ItemRule, other: bool = True, run_key: str = "run") -> DataStream:
    stream = DataStream.read_write_underfolder(place, run_key=run_key)
    return stream.checking(SampleRules.of(rules, other).problems) if rules else stream


def set_number(stream: DataStream, idx: int, number: int) -> None:
    stream.set_output(idx, stream[idx].set_value("metadata", {"number": number}))


def numbers(place: Place) -> list[int]:
    stream = opened(place)
    return [stream[int(i)]["metadata"]()["number"] for i in stream.indices()]


def test_items_that_are_there_and_not_written_count(place: Place) -> None:
    other = opened(place)
    other.set_output(1, other[1].set_item("extra", JsonMetadataItem({"side": 3})))
    stream = opened(place, SMALL, ItemRule(key="image"), ItemRule(key="factor"), other=False)
    sample = Sample({"metadata": YamlMetadataItem({"number": 5})})
    with pytest.raises(InvalidSampleError, match="extra: is not expected"):
        stream.set_output(1, sample)
    stream.set_output(0, sample)
    assert numbers(place) == [5, 1, 2]
    with pytest.raises(InvalidSampleError, match="metadata"):
        stream.set_output(2, stream[2], removes=["metadata"])
    assert numbers(place) == [5, 1, 2]


def test_a_file_is_named_as_in_its_place(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    stream = opened(place, ItemRule(key="image"))
    with pytest.raises(InvalidSampleError) as raised:
        stream.set_output(0, Sample({"image": PngImageItem(broken)}))
    assert "data/0_image.png" in str(raised.value)
    assert str(place) not in str(raised.value)


def test_shared_items_count_those_that_are_there_and_new_ones(place: Place) -> None:
    set_number(opened(place, FACTOR), 0, 5)
    less = FieldRule(path="by", maximum=1)
    with pytest.raises(InvalidSampleError, match="factor"):
        set_number(opened(place, ItemRule(key="factor", required_fields=(less,))), 0, 6)
    stream = opened(place, ItemRule(key="level", required_fields=(FieldRule(path="is"),)))
    wrong = stream[1].set_item("level", JsonMetadataItem({"was": 1}, shared=True))
    with pytest.raises(InvalidSampleError, match="level"):
        stream.set_output(1, wrong)
    assert "level" not in opened(place)[1]
    stream.set_output(1, stream[1].set_item("level", JsonMetadataItem({"is": 1}, shared=True)))
    assert opened(place)[0]["level"]() == {"is": 1}


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_what_it_was_judged_by_is_not_to_be_changed_before_the_commit(
    place: Place, what: str
) -> None:
    stream = opened(place, SMALL)
    image = PngImageItem(np.ones((2, 2), np.uint8))
    sample = Sample({"image": image})  # which was not read: `metadata` stays, and is judged

    def write() -> None:
        with stream.commit_group() as batch:
            batch.set_output(0, sample)
            other = opened(place, run_key="other")
            if what == "changed":
                set_number(other, 0, 99)
            else:
                other.set_output(0, other[0], removes=["metadata"])

    with pytest.raises(ConflictError) as raised:
        write()
    assert raised.value.indices == [0]
    assert opened(place)[0]["image"]().shape == (4, 5)


def test_what_it_was_not_judged_by_may_be_changed(place: Place) -> None:
    stream = opened(place, SMALL)
    with stream.commit_group() as batch:
        batch.set_output(0, Sample({"image": PngImageItem(np.ones((2, 2), np.uint8))}))
        set_number(opened(place, run_key="other"), 1, 99)
    assert opened(place)[0]["image"]().shape == (2, 2)


@md5
def test_whoever_changes_it_at_whichever_request_is_before_or_refuses_it(md5: bool) -> None:
    def change() -> None:
        set_number(opened(ROOT, run_key="other"), 0, 99)

    for number in itertools.count(1):
        objects = MemoryStore()
        with process(objects, md5=md5):
            made_at(ROOT)
        another = Meanwhile(objects, change, md5=md5)
        is_refused = False
        with process(objects, md5=md5, happens=another) as store:
            stream = opened(ROOT, SMALL)
            store._at = len(store.requests) + number
            try:
                stream.set_output(0, Sample({"image": PngImageItem(np.ones((2, 2), np.uint8))}))
            except (ConflictError, InvalidSampleError):
                is_refused = True
        if not another.did:
            break
        with process(objects, md5=md5) as store:
            assert (opened(ROOT)[0]["image"]().shape == (4, 5)) == is_refused
            commits = [json.loads(store.read(stat.key).data) for stat in store.objects_in(LOG)]
            keys = [entry["run_key"] for entry in commits if "commit" in entry]
        assert keys == ["make", "other"] if is_refused else ["make", "run", "other"], number
    assert number > 10


# -- an undo ---------------------------------------------------------------------------------

SOME = SampleRules.of(
    [ItemRule(key="metadata", required_fields=(FieldRule(path="number", maximum=1),))]
)


def test_an_undo_is_held_to_what_would_be_there(place: Place) -> None:
    stream = opened(place)
    stream.set_output(0, stream[0].set_value("metadata", {"number": 0}), removes=["image"])
    stream.set_output(9, Sample({"image": PngImageItem(np.zeros((2, 2), np.uint8))}))
    lens = JsonMetadataItem({"zoom": 1}, shared=True)
    stream.set_output(1, stream[1].set_item("lens", lens))
    every = SampleRules.of([ItemRule(key="metadata"), ItemRule(key="image")])
    assert plan_undo(place, "run", check=every.problems).refusal is None
    seen = SampleRules.of([ItemRule(key="lens")]).problems
    with pytest.raises(UndoRefusedError, match=r"lens: is missing"):
        undo_run(place, "run", check=seen)
    assert undo_run(place, "run", check=every.problems).samples == 3
    assert numbers(place) == [0, 1, 2]
    assert opened(place)[0]["image"]().shape == (4, 5)


def test_what_others_change_while_an_undo_is_checked_counts() -> None:
    place = made_at(new_address())
    stream = opened(place)
    for idx in range(2):
        stream.set_output(idx, stream[idx].set_value("image", np.ones((2, 2), np.uint8)))
    asked = []

    def check(items: Items) -> list[str]:
        asked.append(items["metadata"]()["number"])
        if len(asked) == 2:  # both were as they should be until here
            set_number(opened(place, run_key="other"), 1, 7)
        return SOME.problems(items)

    with pytest.raises(UndoRefusedError, match=r"1 \(metadata.number: is 7"):
        undo_run(place, "run", check=check)
    assert asked == [0, 1, 7]  # of what nobody changed it is not asked again


def test_a_pickled_part_is_held_to_the_rules(place: Place) -> None:
    part = cloudpickle.loads(cloudpickle.dumps(opened(place, SMALL).part([1])))
    with pytest.raises(InvalidSampleError):
        set_number(part, 1, 10)
    set_number(part, 1, 9)
    other = cloudpickle.loads(cloudpickle.dumps(opened(place, SMALL).part([1])))
    with pytest.raises(InvalidSampleError, match="metadata: is missing"):
        other.set_output(2, other[1], removes=["metadata"])
    assert numbers(place) == [0, 9, 2]
