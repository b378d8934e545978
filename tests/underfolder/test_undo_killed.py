"""Killed at any system call of packing, undoing and pruning, the ledger tells the truth."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import TxtNumpyItem
from prefect_pipestream.underfolder import (
    Run,
    UnderfolderWriter,
    check,
    keep_run,
    list_runs,
    undo_run,
)
from prefect_pipestream.underfolder.commits.apply import recover
from tests.faults import actions
from tests.faults.killing import fresh, kill_everywhere

from .conftest import contents, make_dataset, strays

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A dataset on which a run of six samples, in commits of three, was made."""
    folder = make_dataset(tmp_path / "done")
    Run.of(folder, actions.RUN).note({"fingerprint": "f"})
    actions.add_to_labels(folder)
    return folder


def of_sample(state: dict[str, bytes], idx: int) -> dict[str, bytes]:
    return {name: text for name, text in state.items() if f"/{idx:06d}_" in name}


def test_a_killed_packing_loses_no_record(done: Path, tmp_path: Path) -> None:
    before = Run.of(done, actions.RUN).outcomes()

    def verify(folder: Path) -> None:
        assert Run.of(folder, actions.RUN).outcomes() == before
        assert Run.of(folder, actions.RUN).done_indices() == set(range(6))
        actions.end_it(folder)
        assert Run.of(folder, actions.RUN).outcomes() == before
        run = folder / ".pipestream/runs" / actions.RUN
        assert sorted(path.name for path in run.iterdir() if "run.json." not in path.name) in (
            [["compact-1", "done", "run.json", "undo"], ["compact-2", "done", "run.json", "undo"]]
        )

    kills = kill_everywhere("end_it", done, tmp_path, verify)
    print(f"end: {kills} kills")
    assert kills > 20


def test_a_killed_undo_tells_what_it_did(tmp_path: Path, done: Path) -> None:
    new, old = contents(done), contents(make_dataset(tmp_path / "old"))

    def verify(folder: Path) -> None:
        recover(os.fspath(folder))
        found = contents(folder)
        state = {run.run_key: run.state for run in list_runs(folder)}[actions.RUN]
        if state == "stopped":
            assert found == new
            assert Run.of(folder, actions.RUN).done_indices() == set(range(6))
            undo_run(folder, actions.RUN)
        elif state == "undoing":
            with pytest.raises(DatasetError):
                Run.of(folder, actions.RUN).done_indices()
            assert check(folder, fix=True).ok
        assert contents(folder) == old
        assert Run.of(folder, actions.RUN).done_indices() == set()
        assert strays(folder) == []
        actions.redo(folder)
        assert contents(folder) == new
        assert Run.of(folder, actions.RUN).done_indices() == set(range(6))

    kills = kill_everywhere("undo", done, tmp_path, verify)
    print(f"undo: {kills} kills")
    assert kills > 40


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_killed_undo_of_a_part_tells_what_it_did(
    tmp_path: Path, done: Path, is_packed: bool
) -> None:
    new, old = contents(done), contents(make_dataset(tmp_path / "old"))
    if is_packed:
        actions.end_it(done)
    back = {name for idx in actions.PART for name in of_sample(new, idx)}
    between = {name: (old if name in back else new)[name] for name in new}
    rest = set(range(6)) - set(actions.PART)

    def verify(folder: Path) -> None:
        recover(os.fspath(folder))
        state = {run.run_key: run.state for run in list_runs(folder)}[actions.RUN]
        if state == "undoing":
            with pytest.raises(DatasetError):
                Run.of(folder, actions.RUN).done_indices()
            assert check(folder, fix=True).ok
        elif Run.of(folder, actions.RUN).done_indices() == set(range(6)):
            assert contents(folder) == new
            actions.undo_part(folder)
        assert contents(folder) == between
        assert Run.of(folder, actions.RUN).done_indices() == rest
        assert strays(folder) == []
        actions.add_to_labels(folder)
        assert Run.of(folder, actions.RUN).done_indices() == set(range(6))
        undo_run(folder, actions.RUN)
        assert contents(folder) == old

    kills = kill_everywhere("undo_part", done, tmp_path, verify, step=2)
    print(f"undo of a part: {kills} kills")
    assert kills > 40


def test_a_killed_redo_of_a_part_is_finished_by_the_next(tmp_path: Path, done: Path) -> None:
    new = contents(done)
    part_undone = tmp_path / "part-undone"
    fresh(done, part_undone)
    actions.undo_part(part_undone)
    between = contents(part_undone)

    def verify(folder: Path) -> None:
        recover(os.fspath(folder))
        states = {run.run_key: run.state for run in list_runs(folder)}
        if states[f"undo:{actions.RUN}"] != "undone":
            assert contents(folder) in (between, new)
            actions.redo_part(folder)
        assert contents(folder) == new
        assert Run.of(folder, actions.RUN).done_indices() == set(range(6))
        undo_run(folder, actions.RUN)

    kills = kill_everywhere("redo_part", part_undone, tmp_path, verify, step=2)
    print(f"redo of a part: {kills} kills")
    assert kills > 40


def test_a_killed_redo_is_finished_by_the_next(tmp_path: Path, done: Path) -> None:
    new = contents(done)
    undone = tmp_path / "undone"
    fresh(done, undone)
    actions.undo(undone)
    old = contents(undone)

    def verify(folder: Path) -> None:
        recover(os.fspath(folder))
        states = {run.run_key: run.state for run in list_runs(folder)}
        assert contents(folder) in (old, new)
        if states[f"undo:{actions.RUN}"] != "undone":
            actions.redo(folder)
        assert contents(folder) == new
        assert Run.of(folder, actions.RUN).done_indices() == set(range(6))
        undo_run(folder, actions.RUN)
        assert contents(folder) == old

    kills = kill_everywhere("redo", undone, tmp_path, verify)
    print(f"redo: {kills} kills")
    assert kills > 40


def test_a_killed_rollback_is_whole_or_nothing(tmp_path: Path, done: Path) -> None:
    new, old = contents(done), contents(make_dataset(tmp_path / "old"))
    packed = tmp_path / "packed"
    fresh(done, packed)
    actions.end_it(packed)

    def verify(folder: Path) -> None:
        recover(os.fspath(folder))
        found, still_done = contents(folder), Run.of(folder, actions.RUN).done_indices()
        assert still_done in (set(range(6)), {3, 4, 5})
        for idx in range(6):
            assert of_sample(found, idx) == of_sample(new if idx in still_done else old, idx)
        assert strays(folder) == []
        undo_run(folder, actions.RUN)
        assert contents(folder) == old

    kills = kill_everywhere("roll_back", done, tmp_path, verify)
    kills += kill_everywhere("roll_back", packed, tmp_path, verify, step=2)
    print(f"rollback: {kills} kills")
    assert kills > 40


def test_a_killed_pruning_leaves_the_run_or_what_it_saw(tmp_path: Path, done: Path) -> None:
    before = contents(done)

    def verify(folder: Path) -> None:
        runs = list_runs(folder)
        assert [run.run_key for run in runs] in ([], [actions.RUN])
        assert Run.of(folder, actions.RUN).failures() == []
        actions.prune(folder)
        recover(os.fspath(folder))
        assert list_runs(folder) == []
        assert contents(folder) == before
        assert list((folder / ".pipestream/staged").iterdir()) == []

    kills = kill_everywhere("prune", done, tmp_path, verify)
    print(f"prune: {kills} kills")
    assert kills > 5


def test_a_killed_pruning_leaves_what_a_kept_run_needs(tmp_path: Path, done: Path) -> None:
    old = contents(make_dataset(tmp_path / "old"))
    for key, idx in (("again", 1), ("other", 9), ("more", 9)):
        writer = UnderfolderWriter(done, exists_ok=True, run_key=key)
        writer.write(idx, {"label": TxtNumpyItem(np.array([7]))})
        writer.write(idx, {"label": TxtNumpyItem(np.array([8]))})
        del writer
    keep_run(done, actions.RUN, "golden")
    needed = [actions.RUN, "again"]

    def verify(folder: Path) -> None:
        assert [run.run_key for run in list_runs(folder)] in (
            [*needed, *rest] for rest in (["other", "more"], ["more"], [])
        )
        actions.prune_by_size(folder)
        recover(os.fspath(folder))
        assert [run.run_key for run in list_runs(folder)] == needed
        assert list((folder / ".pipestream/staged").iterdir()) == []
        undo_run(folder, ["golden", "again"])
        assert contents(folder).items() - old.items() == {("data/000009_label.txt", b"8\n")}

    kills = kill_everywhere("prune_by_size", done, tmp_path, verify)
    print(f"prune by size: {kills} kills")
    assert kills > 10


def test_a_killed_keeping_is_done_or_not(tmp_path: Path, done: Path) -> None:
    before = contents(done)

    def verify(folder: Path) -> None:
        (run,) = list_runs(folder)
        assert (run.kept, run.name) in ((False, None), (True, "golden"))
        assert (run.fingerprint, run.counts["written"]) == ("f", 6)
        actions.keep(folder)
        recover(os.fspath(folder))
        assert list_runs(folder)[0].name == "golden"
        assert strays(folder) == []
        assert contents(folder) == before

    kills = kill_everywhere("keep", done, tmp_path, verify)
    print(f"keep: {kills} kills")
    assert kills > 2


@pytest.mark.parametrize("undone", [False, True])
def test_a_killed_pruning_of_an_undo_of_a_part_leaves_it_whole_or_removed(
    done: Path, tmp_path: Path, undone: bool
) -> None:
    full = contents(done)
    undo = undo_run(done, actions.RUN, indices=[1]).undo_run_key
    partly = contents(done)
    if undone:
        undo_run(done, undo)
    keep_run(done, actions.RUN)
    done_now = Run.of(done, actions.RUN).done_indices()

    def verify(folder: Path) -> None:
        assert Run.of(folder, actions.RUN).done_indices() == done_now
        there = {run.run_key for run in list_runs(folder) if run.undone is None}
        again = f"undo:{undo}" if undone else undo
        if again in there:  # whole: it can be undone, and the ledger follows
            undo_run(folder, again)
            is_full = contents(folder) == full
            assert is_full or contents(folder) == partly
            is_done = 1 in Run.of(folder, actions.RUN).done_indices()
            assert is_done == is_full or undo not in {run.run_key for run in list_runs(folder)}
        actions.prune(folder)
        recover(os.fspath(folder))
        assert [run.run_key for run in list_runs(folder)] == [actions.RUN]
        assert list((folder / ".pipestream/staged").iterdir()) == []

    kills = kill_everywhere("prune", done, tmp_path, verify)
    print(f"prune an undo of a part: {kills} kills")
