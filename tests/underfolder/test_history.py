"""What runs did to a sample, and a run to its samples, with the values of before and after."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import DatasetNotFoundError, ItemNameError, RunNotFoundError
from prefect_pipestream.items import JpegImageItem, PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import (
    ItemChange,
    KeptFile,
    SampleFailure,
    compact,
    prune_runs,
    restore_sample,
    run_differences,
    sample_history,
    undo_commit,
    undo_run,
)
from prefect_pipestream.underfolder.ledger.provenance import who
from prefect_pipestream.underfolder.opening import open_writer
from tests.dataset_files import Files, beside, content_of

from .conftest import ended, run_of


def label(value: int) -> TxtNumpyItem:
    return TxtNumpyItem(np.array([value]))


def write(folder: Place, run_key: str, idx: int, **items: Any) -> None:
    open_writer(folder, exists_ok=True, run_key=run_key).write(idx, items)


def value(file: KeptFile | None) -> Any:
    """A label's value; None for none; "lost" where it is kept nowhere."""
    if file is None:
        return None
    item = file.item()
    return "lost" if item is None else int(np.ravel(item())[0])


def values(change: ItemChange) -> tuple[Any, Any]:
    return value(change.before), value(change.after)


def labels_of(folder: Place, idx: int) -> list[tuple[str, tuple[Any, Any]]]:
    return [
        (event.run_key, values(change))
        for event in sample_history(folder, idx)
        for change in event.items
        if change.key == "label"
    ]


@pytest.mark.parametrize("is_packed", [False, True])
def test_each_run_is_told_with_the_values_that_it_found_and_left(
    dataset: Place, is_packed: bool
) -> None:
    for number, key in enumerate(("a", "b", "c")):
        write(dataset, key, 2, label=label(10 * number + 10))
        write(dataset, key, 3, label=label(7))
        if is_packed:
            ended(dataset, key)
    assert labels_of(dataset, 2) == [("a", (2, 10)), ("b", (10, 20)), ("c", (20, 30))]
    events = sample_history(dataset, 2)
    assert [event.outcome for event in events] == ["written"] * 3
    assert all(event.counts and event.idx == 2 and event.moved_from is None for event in events)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert sample_history(dataset, 5) == []


def test_undone_runs_and_undos_are_part_of_it(dataset: Place) -> None:
    write(dataset, "a", 2, label=label(10))
    write(dataset, "b", 2, label=label(20))
    undo_run(dataset, "b", indices=[2])
    undo_run(dataset, "a")
    write(dataset, "a", 2, label=label(30))
    assert labels_of(dataset, 2) == [
        ("a", (2, 10)),
        ("b", (10, 20)),
        ("undo:b", (20, 10)),
        ("undo:a", (10, 2)),
        ("a", (2, 30)),
    ]
    events = sample_history(dataset, 2)
    assert [event.counts for event in events] == [False, False, True, True, True]
    assert [event.undoes for event in events] == [None, None, "b", "a", None]


def test_items_come_go_and_change_their_format(dataset: Place) -> None:
    jpeg = JpegImageItem(np.full((4, 5, 3), 9, np.uint8))
    write(dataset, "a", 1, image=jpeg, note=label(1))
    DataStream.read_write_underfolder(dataset, run_key="b").remove(1)
    (first, second) = sample_history(dataset, 1)
    image, note = first.items
    assert (image.key, image.kind, note.kind) == ("image", "changed", "added")
    assert image.before is not None
    assert image.after is not None
    assert (image.before.name, image.after.name) == ("000001_image.png", "000001_image.jpeg")
    assert values(image) == (1, 9)
    assert {change.kind for change in second.items} == {"removed"}
    assert second.outcome == "removed"


def test_what_failed_or_was_left_alone_is_told(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="a")
    with stream.commit_group() as group:
        group.record(1, "failed", failure=SampleFailure("ValueError", "bad", ""))
        group.record(2, "unchanged")
    (failed,) = sample_history(dataset, 1)
    assert (failed.outcome, failed.items) == ("failed", ())
    assert failed.failure is not None
    assert failed.failure.message == "bad"
    assert [event.outcome for event in sample_history(dataset, 2)] == ["unchanged"]


def test_values_that_are_kept_nowhere_are_said_to_be_lost(dataset: Place) -> None:
    write(dataset, "a", 2, label=label(10))
    files = Files(dataset)
    del files["data/000002_label.txt"]
    files["data/000002_label.txt"] = content_of(label(99))
    write(dataset, "b", 2, label=label(20))
    left = 10 if is_address(dataset) else "lost"  # a bucket keeps what was written, too
    assert labels_of(dataset, 2) == [("a", (2, left)), ("b", (99, 20))]
    prune_runs(dataset, timedelta(0))
    assert sample_history(dataset, 2) == []


def test_history_follows_a_sample_that_compactions_moved(dataset: Place) -> None:
    for idx in (3, 4, 5):
        write(dataset, "a", idx, label=label(10 + idx))
    removal = DataStream.read_write_underfolder(dataset, run_key="removal")
    removal.remove(1)
    removal.remove(2)
    first = compact(dataset).run_key  # 3, 4, 5 -> 1, 2, 3
    write(dataset, "b", 3, label=label(20))
    write(dataset, "new", 5, label=label(50))
    assert labels_of(dataset, 3) == [("a", (5, 15)), ("b", (15, 20))]
    events = sample_history(dataset, 3)
    assert [(e.run_key, e.idx, e.moved_from) for e in events] == [
        ("a", 5, None),
        (first, 3, 5),
        ("b", 3, None),
    ]
    assert [e.run_key for e in sample_history(dataset, 5)] == ["new"]
    assert [e.run_key for e in sample_history(dataset, 1)] == ["a", first]
    DataStream.read_write_underfolder(dataset, run_key="again").remove(0)
    second = compact(dataset).run_key
    assert [e.run_key for e in sample_history(dataset, 2)] == ["a", first, "b", second]
    assert labels_of(dataset, 2) == [("a", (5, 15)), ("b", (15, 20))]


def test_a_save_is_told_from_what_is_part_of_a_larger_run(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="anna")
    (saved,) = stream.set_output(2, stream[2].set_value("label", np.array([10])))
    restore_sample(dataset, 2, "anna")
    with stream.commit_group() as group:
        group.remove(2)
        group.remove(3)
    open_writer(dataset, exists_ok=True, run_key="flow").begin_run({"fingerprint": "0" * 16})
    write(dataset, "flow", 2, label=label(1))
    save, restored, both, of_flow = sample_history(dataset, 2)
    assert (save.commit_id, save.samples, save.is_edit) == (saved.commit_id, 1, True)
    assert (restored.restores, restored.is_edit) == ("anna", False)
    assert (both.samples, both.is_edit, both.restores) == (2, True, None)
    assert (of_flow.samples, of_flow.is_edit) == (1, False)


@pytest.mark.parametrize("idx", [-1, "1", 1.5, True, 10**15])
def test_a_wrong_index_is_refused(dataset: Place, idx: Any) -> None:
    with pytest.raises(ItemNameError):
        sample_history(dataset, idx)
    with pytest.raises(DatasetNotFoundError):
        sample_history(beside(dataset, "none"), 1)


# -- of a run ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_runs_differences_are_from_before_its_first_commit_to_after_its_last(
    dataset: Place, is_packed: bool
) -> None:
    write(dataset, "a", 4, label=label(1), new=label(5))
    write(dataset, "a", 2, label=label(10))
    write(dataset, "a", 2, label=label(11), image=PngImageItem(np.zeros((3, 3), np.uint8)))
    if is_packed:
        ended(dataset, "a")
    write(dataset, "later", 2, label=label(12))
    found = {one.idx: one for one in run_differences(dataset, "a")}
    assert list(found) == [2, 4]
    assert {c.key: (c.kind, *values(c)) for c in found[2].items} == {
        "label": ("changed", 2, 11),
        "image": ("changed", 2, 0),
    }
    assert {c.key: (c.kind, *values(c)) for c in found[4].items} == {
        "label": ("changed", 4, 1),
        "new": ("added", None, 5),
    }
    assert [one.idx for one in run_differences(dataset, "a", [4, 5])] == [4]


def test_the_samples_that_a_run_changed_are_known_without_their_files(dataset: Place) -> None:
    write(dataset, "a", 4, label=label(1))
    stream = DataStream.read_write_underfolder(dataset, run_key="a")
    with stream.commit_group() as group:
        group.record(3, "unchanged")
        group.remove(1)
    assert run_of(dataset, "a").changed_indices().tolist() == [1, 4]
    moved = run_of(dataset, str(compact(dataset).run_key))
    assert moved.changed_indices().tolist() == [
        one.idx for one in run_differences(dataset, moved.key)
    ]
    assert run_of(dataset, "none").changed_indices().tolist() == []


def test_differences_are_without_what_was_taken_back_or_left_as_it_was(dataset: Place) -> None:
    write(dataset, "a", 1, label=label(10))
    write(dataset, "a", 2, label=label(10))
    stream = DataStream.read_write_underfolder(dataset, run_key="a")
    with stream.commit_group() as group:
        group.record(3, "unchanged")
        group.remove(4)
    undo_run(dataset, "a", indices=[1])
    found = list(run_differences(dataset, "a"))
    assert [(one.idx, one.outcome) for one in found] == [(2, "written"), (4, "removed")]
    assert {change.kind for change in found[1].items} == {"removed"}
    undo_run(dataset, "a")
    with pytest.raises(RunNotFoundError, match="undone already"):
        run_differences(dataset, "a")
    with pytest.raises(ItemNameError):
        run_differences(dataset, "undo:a", [-1])


@pytest.mark.parametrize("is_packed", [False, True])
def test_each_undo_of_a_save_and_each_undo_of_one_has_its_person(
    dataset: Place, is_packed: bool
) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="ada")
    ids = [writer.write(idx, {"label": label(50)})[0].commit_id for idx in (0, 1)]
    del writer
    people = iter(["bob", "cleo", "d\ud800n"])
    for commit_id in filter(None, ids):
        undo_commit(dataset, "ada", commit_id, facts={"user": next(people)})
    (undone,) = [one for one in sample_history(dataset, 0) if one.undoes == "ada"]
    undo_commit(dataset, "ada", undone.commit_id, facts={"user": next(people)})
    undo_commit(dataset, "ada", sample_history(dataset, 1)[-1].commit_id)
    write(dataset, "ada", 2, label=label(50))
    if is_packed:
        for key in ("ada", "rollback:ada"):
            ended(dataset, key)
    said = who()
    assert [one.user for one in sample_history(dataset, 0)] == ["d\\ud800n"]
    assert [one.user for one in sample_history(dataset, 1)] == [said["user"]]
    (saved,) = sample_history(dataset, 2)
    assert (saved.user, saved.host) == (said["user"], said["host"])

    (again,) = sample_history(dataset, 0)
    undo_commit(dataset, "ada", again.commit_id, facts={"user": "eve"})
    (last,) = sample_history(dataset, 0)
    assert (last.undoes, last.user, last.host) == ("ada", "eve", said["host"])
