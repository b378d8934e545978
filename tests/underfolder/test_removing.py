"""Samples removed in place: wholly, in the commit of the batch, undoably, and never unseen."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import ConflictError, ItemNameError, UndoRefusedError
from prefect_pipestream.items import PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import REMOVE, DataStream, Sample, SamplesSequence, build_pipe
from prefect_pipestream.sequences.stage import StageCompose, StageLambda
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import check, list_runs, undo_run
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from tests.dataset_files import Files, beside

from .conftest import contents, ended, run_of, strays, taken_back


def stream_of(folder: Place, run_key: str = "k") -> DataStream:
    return DataStream.read_write_underfolder(folder, run_key=run_key)


def names_of(folder: Place, idx: int) -> list[str]:
    return Files(folder).of_sample(idx)


def without(files: dict[str, bytes], *indices: int) -> dict[str, bytes]:
    gone = tuple(f"data/{idx:06d}_" for idx in indices)
    return {name: content for name, content in files.items() if not name.startswith(gone)}


# -- the sentinel --------------------------------------------------------------------------


def test_the_sentinel_is_itself_after_pickling() -> None:
    assert pickle.loads(pickle.dumps(REMOVE)) is REMOVE


def test_a_composition_stops_at_a_removed_sample() -> None:
    def never(sample: Sample) -> Sample:
        raise AssertionError("it was removed before")

    stages = StageCompose([StageLambda(lambda sample: REMOVE), StageLambda(never)])
    assert stages(Sample()) is REMOVE


def test_in_a_sequence_a_removed_sample_is_empty(dataset: Place) -> None:
    mapped = SamplesSequence.from_underfolder(dataset).map(lambda sample: REMOVE)
    assert len(mapped) == 6
    assert dict(mapped[3]) == {}


def test_in_an_output_pipe_nothing_is_written_nor_removed(dataset: Place) -> None:
    before = contents(dataset)
    output = [
        {"map": StageLambda(lambda sample: REMOVE)},
        {"to_underfolder": {"folder": str(dataset), "exists_ok": True}},
    ]
    stream = DataStream(SamplesSequence.from_underfolder(dataset), output)
    assert stream.set_output(2, stream[2]) == []
    assert contents(dataset) == before
    new = {"to_underfolder": {"folder": str(beside(dataset, "new"))}}
    pipe = build_pipe([new], stream[:].map(len))
    assert len(pipe) == 6


# -- one sample, from Python ---------------------------------------------------------------


def test_all_own_files_of_a_sample_go_and_nothing_else(dataset: Place) -> None:
    before = contents(dataset)
    stream = stream_of(dataset)
    committed = stream.remove(2, stream[2])
    assert [(one.record.idx, one.record.outcome) for one in committed] == [(2, "removed")]
    assert contents(dataset) == without(before, 2)
    assert strays(dataset) == []
    assert stream.indices().tolist() == [0, 1, 3, 4, 5]
    assert set(stream[2]) == {"common"}
    assert run_of(dataset, "k").counts()["removed"] == 1
    assert is_address(dataset) or check(dataset).ok


def test_the_last_one_makes_the_dataset_shorter(dataset: Place) -> None:
    stream = stream_of(dataset)
    stream.remove(-1)
    assert len(stream) == len(open_dataset(dataset)) == 5
    with pytest.raises(IndexError):
        stream[5]


@pytest.mark.parametrize("idx", [6, 1000])
def test_where_there_is_no_sample_nothing_is_committed(dataset: Place, idx: int) -> None:
    assert stream_of(dataset).remove(idx) == []
    assert list_runs(dataset) == []


@pytest.mark.parametrize("idx", [True, "2", 1.0, 10**15])
def test_what_is_no_index_is_refused(dataset: Place, idx: object) -> None:
    before = contents(dataset)
    with pytest.raises((ItemNameError, TypeError)):
        stream_of(dataset).remove(idx)  # type: ignore[arg-type]
    assert contents(dataset) == before


def test_the_holder_of_a_removed_sample_may_set_it_again(dataset: Place) -> None:
    stream = stream_of(dataset)
    sample = stream[2]
    stream.remove(2, sample)
    stream.set_output(2, sample.extract_keys("label").set_value("label", np.array([8])))
    assert names_of(dataset, 2) == ["000002_label.txt"]


# -- batches -------------------------------------------------------------------------------


def test_a_batch_removes_and_writes_in_one_commit(dataset: Place) -> None:
    stream = stream_of(dataset)
    with stream.commit_group() as batch:
        batch.set_output(0, stream[0].set_value("label", np.array([7])))
        batch.remove(1, origin=stream[1].origin)
        batch.record(2, "skipped")
        batch.remove(9)
    commits = list(run_of(dataset, "k").commits())
    assert [{s.idx: s.outcome for s in commit.samples} for commit in commits] == [
        {0: "written", 1: "removed", 2: "skipped", 9: "skipped"}
    ]
    assert commits[0].samples[1].removes == tuple(
        f"000001_{tail}" for tail in ("image.png", "label.txt", "metadata.yml")
    ) or sorted(commits[0].samples[1].removes) == [
        "000001_image.png",
        "000001_label.txt",
        "000001_metadata.yml",
    ]


def test_one_set_after_its_removal_in_the_batch_is_there(dataset: Place) -> None:
    stream = stream_of(dataset)
    with stream.commit_group() as batch:
        batch.remove(1)
        batch.set_output(1, Sample({"label": TxtNumpyItem(np.array([4]))}))
        batch.set_output(3, Sample({"label": TxtNumpyItem(np.array([4]))}))
        batch.remove(3)
        batch.set_output(4, stream[4], target=0)
        batch.remove(0)
    assert names_of(dataset, 1) == ["000001_label.txt"]
    assert names_of(dataset, 3) == []
    assert names_of(dataset, 0) == []


def test_of_another_dataset_what_is_at_the_index_is_removed(dataset: Place) -> None:
    source, place = stream_of(dataset), beside(dataset, "target")
    target = DataStream.create_output_stream(place, run_key="k")
    target.set_output(1, source[1])
    with target.commit_group(signed=True) as batch:
        batch.remove(0, origin=source[0].origin)
        batch.remove(1, origin=source[1].origin)
        batch.remove(2, origin=source[2].origin, target=7)
    found = run_of(place, "k").outcomes()
    assert {idx: record.outcome for idx, record in found.items()} == {
        0: "skipped",
        1: "removed",
        2: "skipped",
    }
    assert all(record.signature for record in found.values())  # as the source's files were
    assert dict(Files(place)) == {"common.yml": Files(dataset)["common.yml"]}
    assert len(source.indices()) == 6


# -- other writers -------------------------------------------------------------------------


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("key", ["label", "extra", "image"])
def test_what_another_writer_changed_or_added_is_a_conflict(
    dataset: Place, part: bool, key: str
) -> None:
    stream = stream_of(dataset).part([2, 3]) if part else stream_of(dataset)
    sample = stream[2]
    item = PngImageItem(np.ones((3, 3), np.uint8)) if key == "image" else TxtNumpyItem(np.ones(2))
    stream_of(dataset, "other").set_output(2, Sample({key: item}))
    before = contents(dataset)
    with pytest.raises(ConflictError) as e:
        stream.remove(2, sample)
    assert e.value.indices == [2]
    assert contents(dataset) == before
    # Read anew, it is known whole.
    assert stream.remove(2, stream[2])
    assert names_of(dataset, 2) == []


@pytest.mark.usefixtures("listed_at_once")
def test_a_file_that_no_package_of_ours_put_there_is_a_conflict(dataset: Place) -> None:
    stream = stream_of(dataset)
    sample = stream[2]
    Files(dataset)["data/000002_note.txt"] = b"mine"
    with pytest.raises(ConflictError):
        stream.remove(2, sample)


def test_removed_by_another_is_a_conflict_and_the_others_are_committed(dataset: Place) -> None:
    first, second = stream_of(dataset, "a"), stream_of(dataset, "b")
    samples = [first[1], first[2]]
    second.remove(1)

    def remove_both() -> None:
        with first.commit_group() as batch:
            for idx, sample in zip((1, 2), samples, strict=True):
                batch.remove(idx, origin=sample.origin)

    with pytest.raises(ConflictError):
        remove_both()
    assert run_of(dataset, "a").done_indices() == {2}


def test_a_sample_set_after_another_removed_it_is_a_conflict(dataset: Place) -> None:
    stream = stream_of(dataset)
    sample = stream[2]
    stream_of(dataset, "other").remove(2)
    with pytest.raises(ConflictError):
        stream.set_output(2, sample.set_value("label", np.array([9])))
    assert names_of(dataset, 2) == []


def test_nothing_is_added_to_a_sample_that_another_removed(dataset: Place) -> None:
    stream = stream_of(dataset)
    sample = stream[2]
    stream_of(dataset, "other").remove(2)
    with pytest.raises(ConflictError):  # though it was made from none of its items
        stream.set_output(2, sample.set_item("new", TxtNumpyItem(np.ones(1))), keys=["new"])


# -- undo ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_an_undo_brings_it_back_byte_by_byte(dataset: Place, packed: bool) -> None:
    before = contents(dataset)
    stream = stream_of(dataset)
    with stream.commit_group() as batch:
        batch.remove(1)
        batch.set_output(3, stream[3].set_value("label", np.array([7])))
        batch.remove(5)
    after = contents(dataset)
    assert after != before
    if packed:
        ended(dataset, "k")
        assert run_of(dataset, "k").counts()["removed"] == 2
    report = undo_run(dataset, "k")
    assert (report.samples, report.files) == (3, 7)
    assert contents(dataset) == before
    undo_run(dataset, report.undo_run_key)
    assert contents(dataset) == after


@pytest.mark.parametrize("key", ["label", "new"])
def test_a_sample_written_since_in_its_place_is_not_mixed_with_it(dataset: Place, key: str) -> None:
    stream_of(dataset).remove(2)
    stream_of(dataset, "later").set_output(2, Sample({key: TxtNumpyItem(np.ones(1))}))
    after = contents(dataset)
    with pytest.raises(UndoRefusedError, match="later"):
        undo_run(dataset, "k")
    assert contents(dataset) == after
    undo_run(dataset, ["k", "later"])
    assert len(names_of(dataset, 2)) == 3


@pytest.mark.parametrize("packed", [False, True])
def test_a_rollback_brings_it_back(dataset: Place, packed: bool) -> None:
    before = contents(dataset)
    stream = stream_of(dataset)
    with stream.commit_group(tag="chunk") as batch:
        batch.remove(1)
    if packed:
        ended(dataset, "k")
    assert taken_back(dataset, "k", tag="chunk").samples == 1
    assert contents(dataset) == before
    assert run_of(dataset, "k").done_indices() == set()


@pytest.mark.about_files
def test_an_item_is_added_beside_a_broken_link(dataset: Path) -> None:
    for path in (dataset / "data").glob("000002_*"):
        path.unlink()
    (dataset / "data/000002_image.png").symlink_to("../nowhere.png")
    stream = stream_of(dataset)
    stream.set_output(2, stream[2].set_item("new", TxtNumpyItem(np.ones(1))), keys=["new"])
    assert names_of(dataset, 2) == ["000002_image.png", "000002_new.txt"]
    stream.remove(2, stream[2])
    assert names_of(dataset, 2) == []


@pytest.mark.about_files
def test_files_of_a_removed_sample_keep_mode_and_links(dataset: Path) -> None:
    image = dataset / "data/000002_image.png"
    target = dataset / "elsewhere.png"
    image.rename(target)
    image.symlink_to("../elsewhere.png")
    (dataset / "data/000002_label.txt").chmod(0o600)
    stream_of(dataset).remove(2)
    assert target.exists()
    undo_run(dataset, "k")
    assert os.readlink(image) == "../elsewhere.png"
    assert (dataset / "data/000002_label.txt").stat().st_mode & 0o777 == 0o600


def test_a_writer_removes_too(dataset: Place) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    assert len(writer.remove(4)) == 1
    assert writer.remove(4) == []
    assert names_of(dataset, 4) == []
