"""A sample is put back to what it was before, or after, a run."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import (
    DatasetError,
    ItemNameError,
    RunKeyError,
    RunNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.items import JpegImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import (
    check,
    compact,
    list_runs,
    prune_runs,
    restore_sample,
    sample_history,
    undo_run,
)
from prefect_pipestream.underfolder.opening import open_writer
from tests.dataset_files import Files

from .conftest import backdate, contents, ended, lose, run_of, strays


def label(value: int) -> TxtNumpyItem:
    return TxtNumpyItem(np.array([value]))


def jpeg(value: int) -> JpegImageItem:
    return JpegImageItem(np.full((4, 5, 3), value, np.uint8))


def write(folder: Place, run_key: str, idx: int, **items: Any) -> None:
    open_writer(folder, exists_ok=True, run_key=run_key).write(idx, items)


def of_sample(folder: Place, idx: int) -> dict[str, bytes]:
    return {name: text for name, text in contents(folder).items() if f"/{idx:06d}_" in name}


@pytest.fixture
def states(dataset: Place) -> list[dict[str, bytes]]:
    """What sample 2 was at first, and after each of the runs a, b and c."""
    found = [of_sample(dataset, 2)]
    for key, items in (
        ("a", {"label": label(10), "note": label(1)}),
        ("b", {"image": jpeg(9)}),
        ("c", {"label": label(30), "image": jpeg(200)}),
    ):
        write(dataset, key, 2, **items)
        write(dataset, key, 3, label=label(7))
        found.append(of_sample(dataset, 2))
    ended(dataset, "b")
    return found


def test_a_sample_is_as_it_was_before_or_after_any_of_its_runs(
    dataset: Place, states: list[dict[str, bytes]]
) -> None:
    others = of_sample(dataset, 3)
    done = {key: run_of(dataset, key).done_indices() for key in "abc"}
    for number, key in ((0, "a"), (2, "c"), (1, "b"), (3, "restore:a")):
        report = restore_sample(dataset, 2, key)
        assert report.run_key is not None
        assert of_sample(dataset, 2) == states[number]
    for number, key in ((2, "b"), (1, "a"), (3, "c")):
        restore_sample(dataset, 2, key, state="after")
        assert of_sample(dataset, 2) == states[number]
    assert of_sample(dataset, 3) == others
    assert {key: run_of(dataset, key).done_indices() for key in "abc"} == done
    assert strays(dataset) == []
    assert check(dataset).ok
    assert restore_sample(dataset, 2, "c", state="after").run_key is None


def test_a_restore_is_a_run_that_can_be_undone(
    dataset: Place, states: list[dict[str, bytes]]
) -> None:
    report = restore_sample(dataset, 2, "a")
    assert report.run_key == "restore:a"
    assert set(report.removed) == {"000002_note.txt"}
    assert set(report.written) == {"000002_label.txt", "000002_image.png"}
    assert {run.run_key: run.state for run in list_runs(dataset)}["restore:a"] == "finished"
    assert sample_history(dataset, 2)[-1].run_key == "restore:a"
    undo_run(dataset, "restore:a")
    assert of_sample(dataset, 2) == states[3]
    assert restore_sample(dataset, 2, "a").run_key == "restore:a"
    assert of_sample(dataset, 2) == states[0]


def test_some_items_are_restored(dataset: Place, states: list[dict[str, bytes]]) -> None:
    restore_sample(dataset, 2, "a", ["label"])
    name = "data/000002_label.txt"
    assert of_sample(dataset, 2) == {**states[3], name: states[0][name]}
    with pytest.raises(UndoRefusedError, match=r"no item 'metadata' .* since before run 'a'"):
        restore_sample(dataset, 2, "a", ["metadata"])


def test_a_removed_sample_comes_back(dataset: Place) -> None:
    before = of_sample(dataset, 4)
    DataStream.read_write_underfolder(dataset, run_key="k").remove(4)
    assert of_sample(dataset, 4) == {}
    restore_sample(dataset, 4, "k")
    assert of_sample(dataset, 4) == before
    restore_sample(dataset, 4, "k", state="after")
    assert of_sample(dataset, 4) == {}


def test_what_was_changed_by_hand_is_refused(
    dataset: Place, states: list[dict[str, bytes]]
) -> None:
    Files(dataset)["data/000002_label.txt"] = b"99\n"
    with pytest.raises(UndoRefusedError, match=r"changed since, by no run: 000002_label\.txt"):
        restore_sample(dataset, 2, "a")
    restore_sample(dataset, 2, "a", ["image"])
    report = restore_sample(dataset, 2, "a", force=True)
    assert report.overwritten == ("000002_label.txt",)
    assert of_sample(dataset, 2) == states[0]
    assert report.run_key is not None
    undo_run(dataset, report.run_key)
    assert Files(dataset)["data/000002_label.txt"] == b"99\n"


def test_a_sample_that_was_moved_is_restored_where_it_is(dataset: Place) -> None:
    write(dataset, "a", 5, label=label(10), image=jpeg(9))
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(1)
    compact(dataset)
    others = {name: text for name, text in contents(dataset).items() if "/000004_" not in name}
    restore_sample(dataset, 4, "a")
    found = of_sample(dataset, 4)
    assert set(found) == {f"data/000004_{n}" for n in ("image.png", "label.txt", "metadata.yml")}
    assert found["data/000004_label.txt"].strip() == b"5"
    assert {n: t for n, t in contents(dataset).items() if "/000004_" not in n} == others


def test_what_is_pruned_cannot_be_restored(dataset: Place, states: list[dict[str, bytes]]) -> None:
    before = contents(dataset)
    backdate(dataset, "c", 2)
    assert [run.run_key for run in prune_runs(dataset, timedelta(days=1))] == ["c"]
    with pytest.raises(UndoRefusedError, match="by no run"):
        restore_sample(dataset, 2, "a")  # what c did is as if by hand
    with pytest.raises(RunNotFoundError, match=r"sample 2\. Those that did: 'a', 'b'"):
        restore_sample(dataset, 2, "c")
    lose(dataset, "000002_label.txt")
    with pytest.raises(DatasetError, match=r"000002_label\.txt of then is not kept"):
        restore_sample(dataset, 2, "a", force=True)
    assert contents(dataset) == before


@pytest.mark.parametrize(
    ("idx", "run_key", "error"),
    [
        (-1, "a", ItemNameError),
        ("2", "a", ItemNameError),
        (2, "", RunKeyError),
        (2, "none", RunNotFoundError),
        (5, "a", RunNotFoundError),
    ],
)
def test_bad_input_is_refused(
    dataset: Place, states: list[dict[str, bytes]], idx: Any, run_key: str, error: type[Exception]
) -> None:
    before = contents(dataset)
    with pytest.raises(error):
        restore_sample(dataset, idx, run_key)
    assert contents(dataset) == before


def test_one_save_of_several_is_restored_by_its_commit(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="anna")
    commits = []
    for value in (10, 20, 30):
        (saved,) = stream.set_output(2, stream[2].set_value("label", np.array([value])))
        commits.append(str(saved.commit_id))
    first, second, _ = commits
    for commit, state, expected in (
        (second, "before", 10),
        (second, "after", 20),
        (first, "before", 2),
    ):
        report = restore_sample(
            dataset, 2, "anna", state=state, commit_id=commit, facts={"user": "ben"}
        )
        assert stream[2]["label"]() == expected
        assert sample_history(dataset, 2)[-1].user == "ben"
        undo_run(dataset, str(report.run_key))
        assert stream[2]["label"]() == 30
    with pytest.raises(RunNotFoundError, match="no run 'anna' with a commit 'none'"):
        restore_sample(dataset, 2, "anna", commit_id="none")
