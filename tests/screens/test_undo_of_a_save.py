"""One save is undone, and done again, and nothing else of the session."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream import (
    DataStream,
    RunNotFoundError,
    UndoRefusedError,
    sample_history,
    undo_commit,
    undo_run,
)
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import check, compact, list_runs
from tests.dataset_files import KINDS, Files, beside, made_at, temporary_place
from tests.underfolder.conftest import contents, ended, make_dataset, run_of, strays


@pytest.fixture
def stream(new_place: Place) -> DataStream:
    place = made_at(new_place, make_dataset)
    return DataStream.read_write_underfolder(place, run_key="anna")


def save(stream: DataStream, idx: int, label: int) -> str:
    """Saves a label, a flipped image, and metadata in another format; returns the commit."""
    sample = stream[idx].set_item("metadata", JsonMetadataItem({"label": label}))
    (saved,) = stream.set_output(idx, sample.set_value("image", sample["image"]()[::-1] + 1))
    assert saved.commit_id is not None
    return saved.commit_id


def test_one_save_is_undone_and_nothing_else(stream: DataStream) -> None:
    folder = stream.output_folder
    save(stream, 1, 7)
    before = contents(folder)
    commit = save(stream, 2, 8)
    after = contents(folder)
    report = stream.undo(commit)
    assert (report.samples, report.files, report.undo_run_key) == (1, 3, "rollback:anna")
    assert contents(folder) == before
    assert stream.run.done_indices() == {1}
    assert stream[2]["metadata"]() == {"idx": 2}
    assert report.commit_id is not None
    again = stream.undo(report.commit_id)
    assert contents(folder) == after
    assert stream.run.done_indices() == {1, 2}
    assert again.commit_id is not None
    stream.undo(again.commit_id)
    assert contents(folder) == before
    assert strays(folder) == []
    assert not check(folder).problems


def test_who_changes_her_mind_often_leaves_two_runs_and_a_whole_undo(stream: DataStream) -> None:
    before = contents(stream.output_folder)
    commit: str | None = save(stream, 2, 8)
    for _ in range(4):
        assert commit is not None
        commit = undo_commit(stream.output_folder, "anna", commit).commit_id
    assert {run.run_key for run in list_runs(stream.output_folder)} == {"anna", "rollback:anna"}
    assert stream[2]["metadata"]() == {"label": 8}
    assert [event.run_key for event in sample_history(stream.output_folder, 2)] == ["anna"]
    undo_run(stream.output_folder, "anna")
    assert contents(stream.output_folder) == before


def test_an_earlier_save_of_a_sample_that_was_saved_again_stays(stream: DataStream) -> None:
    first, second = save(stream, 2, 1), save(stream, 2, 2)
    before = contents(stream.output_folder)
    with pytest.raises(UndoRefusedError, match="changed since") as caught:
        stream.undo(first)
    assert caught.value.indices == [2]
    assert contents(stream.output_folder) == before
    stream.undo(second)
    stream.undo(first)
    assert stream[2]["metadata"]() == {"idx": 2}


@pytest.mark.usefixtures("listed_at_once")
def test_what_others_wrote_meanwhile_is_not_lost(stream: DataStream) -> None:
    commit = save(stream, 2, 1)
    other = DataStream.read_write_underfolder(stream.output_folder, run_key="ben")
    other.set_output(2, other[2].set_value("label", np.array([9])))
    stream.undo(commit)  # of another item
    assert stream[2]["label"]() == 9
    commit = save(stream, 3, 1)
    files = Files(stream.output_folder)
    files["data/000003_metadata.json"] = b'{"label": "by hand"}'
    with pytest.raises(UndoRefusedError):
        stream.undo(commit)
    report = stream.undo(commit, force=True)
    assert report.overwritten == ("000003_metadata.json",)
    assert report.commit_id is not None
    stream.undo(report.commit_id)
    assert files["data/000003_metadata.json"] == b'{"label": "by hand"}'


def test_a_removal_is_undone_and_done_again(stream: DataStream) -> None:
    before = contents(stream.output_folder)
    (removed,) = stream.remove(2)
    assert removed.commit_id is not None
    report = stream.undo(removed.commit_id)
    assert contents(stream.output_folder) == before
    assert report.commit_id is not None
    again = stream.undo(report.commit_id)
    assert stream.versions([2]) == {2: "absent"}
    stream.set_output(2, stream[1])  # another sample takes its place
    assert again.commit_id is not None
    with pytest.raises(UndoRefusedError):
        stream.undo(again.commit_id)


def test_a_save_of_a_session_that_was_packed_is_undone(stream: DataStream) -> None:
    before = contents(stream.output_folder)
    first, second = save(stream, 1, 1), save(stream, 2, 2)
    ended(stream.output_folder, "anna")
    stream.undo(first)
    with pytest.raises(UndoRefusedError, match="taken back before"):
        stream.undo(first)
    stream.undo(second)
    assert contents(stream.output_folder) == before


def test_what_cannot_be_undone_alone_says_so(stream: DataStream) -> None:
    folder = stream.output_folder
    commit = save(stream, 5, 2)
    with pytest.raises(UndoRefusedError, match="no commit 'nonsense'"):
        stream.undo("nonsense")
    with pytest.raises(UndoRefusedError, match=r"no commit '\.\./"):
        stream.undo("../../claim")
    with pytest.raises(RunNotFoundError):
        undo_commit(folder, "ben", commit)
    with pytest.raises(RunNotFoundError):
        undo_commit(made_at(beside(folder, "other"), make_dataset), "anna", commit)
    stream.remove(3)
    moved = compact(folder)
    with pytest.raises(UndoRefusedError, match="moved samples"):
        stream.undo(commit)
    (record,) = run_of(folder, str(moved.run_key)).commits()
    with pytest.raises(UndoRefusedError, match="as a whole"):
        undo_commit(folder, str(moved.run_key), record.id)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.data())
@settings(max_examples=10)
def test_saves_undone_in_any_order_give_what_was_there(
    kind: str, saved: list[int], data: st.DataObject
) -> None:
    with temporary_place(kind) as place:
        made_at(place, make_dataset, 3)
        stream = DataStream.read_write_underfolder(place, run_key="anna")
        states = [contents(place)]
        commits: dict[int, list[str]] = {}
        for label, idx in enumerate(saved):
            commits.setdefault(idx, []).append(save(stream, idx, label))
            states.append(contents(place))
        undone = []
        while any(commits.values()):
            idx = data.draw(st.sampled_from([idx for idx in sorted(commits) if commits[idx]]))
            undone.append(str(stream.undo(commits[idx].pop()).commit_id))
        assert contents(place) == states[0]
        assert stream.run.done_indices() == set()
        for commit in reversed(undone):
            stream.undo(commit)
        assert contents(place) == states[-1]
