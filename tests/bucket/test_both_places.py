"""What a stream does is the same in a folder and in a bucket."""

import inspect
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from prefect_pipestream.errors import (
    ConflictError,
    DatasetExistsError,
    DatasetNotFoundError,
    EncodeError,
    ItemNameError,
    RunNotFoundError,
    RunTakenOverError,
    UndoRefusedError,
)
from prefect_pipestream.items import (
    BmpImageItem,
    JsonMetadataItem,
    PngImageItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import list_runs, opening, undo_run
from tests.dataset_files import new_address


@pytest.fixture
def place(new_place: Place) -> Place:
    return new_place


def sample_of(number: int) -> Sample:
    return Sample(
        {
            "image": PngImageItem(np.full((4, 5), number, np.uint8)),
            "metadata": YamlMetadataItem({"number": number}),
            "factor": JsonMetadataItem(2, shared=True),
        }
    )


@pytest.fixture
def stream(place: Place) -> DataStream:
    """Three samples and a shared item."""
    made = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with made.commit_group() as batch:
        for number in range(3):
            batch.set_output(number, sample_of(number))
    return DataStream.read_write_underfolder(place)


def numbers(stream: DataStream) -> list[int]:
    return [stream[int(i)]["metadata"]()["number"] for i in stream.indices()]


def numbered(sample: Sample, number: int) -> Sample:
    return sample.set_value("metadata", {"number": number})


def test_what_is_set_is_read(stream: DataStream) -> None:
    assert len(stream) == 3
    assert set(stream[0]) == {"image", "metadata", "factor"}
    assert stream[0]["factor"].is_shared
    stream.set_output(1, numbered(stream[1], 10))
    assert numbers(stream) == [0, 10, 2]
    assert numbers(DataStream.read_write_underfolder(stream.output_folder)) == [0, 10, 2]
    stream.set_output(-1, numbered(stream[2], 12))
    assert numbers(stream) == [0, 10, 12]
    with pytest.raises(IndexError):
        stream[3]


def test_an_item_that_is_there_is_not_written_again(stream: DataStream) -> None:
    assert stream.set_output(0, stream[0]) == []
    (written,) = stream.set_output(0, numbered(stream[0], 5))
    assert set(written.record.writes or ()) == {"000_metadata.yaml"}


def test_only_keys_that_are_given_are_written(stream: DataStream) -> None:
    sample = numbered(stream[0], 7).set_value("image", np.zeros((2, 2), np.uint8))
    stream.set_output(0, sample, keys=["image"])
    assert stream[0]["metadata"]() == {"number": 0}
    assert stream[0]["image"]().shape == (2, 2)


def test_another_class_of_an_item_supersedes_its_file(stream: DataStream) -> None:
    stream.set_output(0, stream[0].set_item("image", BmpImageItem(np.ones((2, 2), np.uint8))))
    again = DataStream.read_write_underfolder(stream.output_folder)
    assert isinstance(again[0]["image"], BmpImageItem)
    assert again[0]["image"]().tolist() == [[1, 1], [1, 1]]
    undo_run(stream.output_folder, stream.run_key)
    assert isinstance(stream[0]["image"], PngImageItem)


def test_what_another_writer_changed_is_a_conflict(stream: DataStream) -> None:
    other = DataStream.read_write_underfolder(stream.output_folder)
    mine, theirs = stream[0], other[0]
    other.set_output(0, numbered(theirs, 5))
    with pytest.raises(ConflictError) as error:
        stream.set_output(0, numbered(mine, 6))
    assert error.value.indices == [0]
    assert numbers(stream)[0] == 5
    stream.set_output(1, numbered(stream[1], 6))
    overwriting = DataStream.read_write_underfolder(stream.output_folder, on_conflict="overwrite")
    mine = overwriting[0]
    other.set_output(0, numbered(other[0], 7))
    overwriting.set_output(0, numbered(mine, 8))
    assert numbers(stream) == [8, 6, 2]


def test_a_batch_leaves_out_what_is_in_conflict(stream: DataStream) -> None:
    taken = [stream[i] for i in range(3)]
    DataStream.read_write_underfolder(stream.output_folder).set_output(1, numbered(stream[1], 9))

    def set_all() -> None:
        with stream.commit_group() as batch:
            for idx, sample in enumerate(taken):
                batch.set_output(idx, numbered(sample, 20 + idx))

    with pytest.raises(ConflictError):
        set_all()
    assert numbers(stream) == [20, 9, 22]


def test_the_version_that_a_sample_is_to_have_is_held_to(stream: DataStream) -> None:
    version = stream[0].version
    assert stream.versions([0]) == {0: version}
    stream.set_output(0, numbered(stream[0], 4), if_version=version)
    with pytest.raises(ConflictError):
        stream.set_output(0, numbered(stream[0], 5), if_version=version)
    assert numbers(stream)[0] == 4
    assert stream.versions([7]) == {7: "absent"}


def test_samples_and_items_are_removed(stream: DataStream) -> None:
    assert stream.remove(2)
    assert stream.remove(2) == []
    assert len(stream) == 2
    stream.set_output(0, stream[0], removes=["image"])
    assert set(stream[0]) == {"metadata", "factor"}
    undo_run(stream.output_folder, stream.run_key)
    assert numbers(stream) == [0, 1, 2]
    assert set(stream[0]) == {"image", "metadata", "factor"}


def test_names_are_padded_as_those_that_are_there(stream: DataStream) -> None:
    (written,) = stream.set_output(3, sample_of(3))
    assert set(written.record.writes or ()) == {"003_image.png", "003_metadata.yaml"}
    wide = DataStream.read_write_underfolder(stream.output_folder, zfill=5)
    wide.set_output(0, numbered(wide[0], 9))
    assert numbers(wide) == [9, 1, 2, 3]
    assert sorted(wide._writer.dataset.index().names_of(0)) == [  # type: ignore[attr-defined]
        "00000_image.png",
        "00000_metadata.yaml",
    ]


def test_what_cannot_be_written_changes_nothing(stream: DataStream) -> None:
    with pytest.raises(ItemNameError):
        stream.set_output(0, stream[0].set_item("a/b", YamlMetadataItem(1)))
    with pytest.raises((EncodeError, TypeError)):
        stream.set_output(0, stream[0].set_value("metadata", {"x": object()}))
    assert stream[0]["metadata"]() == {"number": 0}


def test_a_new_dataset_belongs_to_the_run_that_made_it(stream: DataStream) -> None:
    place = stream.output_folder
    with pytest.raises(DatasetExistsError):
        DataStream.create_new_underfolder(place)
    DataStream.create_new_underfolder(place, zfill=3, run_key="make").set_output(3, sample_of(3))
    assert len(stream) == 4
    missing = place / "missing"
    with pytest.raises(DatasetNotFoundError):
        DataStream.read_write_underfolder(missing)
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_underfolder(missing)


def test_a_run_is_undone_and_its_undo_is(stream: DataStream) -> None:
    place = stream.output_folder
    run = DataStream.read_write_underfolder(place, run_key="double")
    with run.commit_group() as batch:
        for idx in range(3):
            batch.set_output(idx, numbered(run[idx], 2 * idx + 1))
    assert run.run.done_indices() == {0, 1, 2}
    undone = undo_run(place, "double")
    assert (undone.samples, numbers(stream)) == (3, [0, 1, 2])
    with pytest.raises(RunNotFoundError):
        undo_run(place, "double")
    undo_run(place, undone.undo_run_key)
    assert numbers(stream) == [1, 3, 5]
    assert "double" in {one.run_key for one in list_runs(place)}


def test_a_run_whose_samples_were_changed_since_is_not_undone(stream: DataStream) -> None:
    place = stream.output_folder
    run = DataStream.read_write_underfolder(place, run_key="run")
    run.set_output(0, numbered(run[0], 5))
    stream.set_output(0, numbered(stream[0], 6))
    with pytest.raises(UndoRefusedError):
        undo_run(place, "run")
    assert numbers(stream)[0] == 6
    forced = undo_run(place, "run", force=True)
    assert numbers(stream)[0] == 0
    undo_run(place, forced.undo_run_key)
    assert numbers(stream)[0] == 6


def test_one_write_is_undone_alone(stream: DataStream) -> None:
    (first,) = stream.set_output(0, numbered(stream[0], 5))
    stream.set_output(1, numbered(stream[1], 6))
    assert first.commit_id is not None
    undone = stream.undo(first.commit_id)
    assert numbers(stream) == [0, 6, 2]
    assert stream.run.done_indices() == {1}
    with pytest.raises(UndoRefusedError):
        stream.undo(first.commit_id)
    assert undone.commit_id is not None
    stream.undo(undone.commit_id)
    assert numbers(stream) == [5, 6, 2]
    undo_run(stream.output_folder, stream.run_key)
    assert numbers(stream) == [0, 1, 2]


def test_of_two_attempts_at_a_run_the_later_one_writes(stream: DataStream) -> None:
    run = stream.with_run("run")
    first = run.for_attempt()
    first.begin_run(fingerprint="x")
    first.set_output(0, numbered(first[0], 5))
    second = run.for_attempt()
    with pytest.raises(RunTakenOverError):
        first.set_output(1, numbered(first[1], 6))
    assert second.run.done_indices() == {0}
    second.set_output(1, numbered(second[1], 7))
    assert numbers(stream) == [5, 7, 2]


def test_a_part_of_a_stream_writes_as_the_stream_does(stream: DataStream) -> None:
    part = stream.part([1])
    part.set_output(1, numbered(part[1], 5))
    assert numbers(stream) == [0, 5, 2]
    assert part[1]["metadata"]() == {"number": 5}
    assert stream.part([2])[2]["metadata"]() == {"number": 2}


def test_a_pickled_part_and_a_pickled_sample_are_as_they_were(stream: DataStream) -> None:
    part, sample = cloudpickle.loads(cloudpickle.dumps((stream.part([1]), stream[1])))
    second = cloudpickle.loads(cloudpickle.dumps(sample))
    part.set_output(1, numbered(sample, 5))
    assert stream[1]["metadata"]() == {"number": 5}
    with pytest.raises(ConflictError):
        part.set_output(1, numbered(second, 6))


def test_a_dataset_is_copied_from_any_place_to_any(
    stream: DataStream, tmp_path: Path, place: Place
) -> None:
    for target in (tmp_path / "copy", new_address()):
        source = SamplesSequence.from_underfolder(stream.output_folder)
        source.to_underfolder(target, zfill=3).run()
        copied = SamplesSequence.from_underfolder(target)
        for sample, other in zip(source, copied, strict=True):
            assert sample.keys() == other.keys()
            assert (sample["image"]() == other["image"]()).all()
            assert sample["metadata"]() == other["metadata"]()
        assert copied.root_sample["factor"]() == 2  # type: ignore[attr-defined]


def test_a_query_finds_samples_by_their_metadata(stream: DataStream) -> None:
    assert stream.indices("metadata.number >= 1").tolist() == [1, 2]


def test_what_is_done_in_two_ways_takes_the_same_arguments() -> None:
    pairs = {
        name: one
        for name, one in vars(opening).items()
        if hasattr(one, "in_bucket") and callable(one)
    }
    assert {"undo_run", "undo_commit", "restore_sample"} <= set(pairs)
    for name, in_folder in pairs.items():
        in_bucket = inspect.signature(in_folder.in_bucket())
        there = [(p.name, p.kind, p.default) for p in in_bucket.parameters.values()]
        here = inspect.signature(in_folder).parameters.values()
        assert there == [(p.name, p.kind, p.default) for p in here], name
