"""Commits, kills, undos and changes from outside, in any order, agree with a plain model."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prefect_pipestream.errors import RunNotFoundError, UndoRefusedError
from prefect_pipestream.items import PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import (
    Run,
    RunInfo,
    Underfolder,
    check,
    end_run,
    list_runs,
    prune_runs,
    undo_run,
)
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.runs import pruning

SAMPLES = 6
RUNS = st.sampled_from(["a", "b", "c"])
SOME = st.sets(st.integers(0, SAMPLES - 1), min_size=1)
CALLS = {"open", "write", "close", "mkdir", "rename", "replace", "link", "unlink", "rmdir"}
CALLS |= {"utime", "flock", "listdir"}
MOMENTS = st.integers(1, 200)
KILLS = {"in a commit": 0, "in an undo": 0, "in an undo of a part": 0}

Name = tuple[int, str]


@dataclass
class Expected:
    """What the ledger of a run is to say, and what its undo needs: versions of files."""

    done: set[int] = field(default_factory=set)
    before: dict[Name, int] = field(default_factory=dict)
    after: dict[Name, int] = field(default_factory=dict)

    def part(self, indices: set[int]) -> "Expected":
        """What it says of some samples."""
        return Expected(
            self.done & indices,
            {name: version for name, version in self.before.items() if name[0] in indices},
            {name: version for name, version in self.after.items() if name[0] in indices},
        )

    def updated(self, other: "Expected") -> None:
        """Takes over what another says."""
        self.done |= other.done
        self.before.update(other.before)
        self.after.update(other.after)


@dataclass
class PartUndo:
    """What an undo of a part of a run took back."""

    run: Expected
    taken: Expected
    found: dict[Name, int]


def transform_all(folder: Path, run_key: str, indices: list[int], count: int) -> None:
    """Adds one to the counters and inverts the images, of samples that the run has not done."""
    stream = DataStream.read_write_underfolder(folder, run_key=run_key)
    done = Run.of(folder, run_key).done_indices()
    with stream.commit_group(count=count, seconds=1000) as group:
        for idx in indices:
            if idx not in done:
                sample = stream[idx]
                changed = sample.set_value("label", sample["label"]() + 1)
                group.set_output(idx, changed.set_value("image", 255 - sample["image"]()))


def killed_in(work: Callable[[], object], at: int) -> bool:
    """Runs `work` in a process that kills itself at a call of the operating system.

    Args:
        work: What to do.
        at: The number of the call, of those in `CALLS`.

    Returns:
        Whether it came so far.
    """
    pid = os.fork()
    if pid == 0:
        _run_until(work, at)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _run_until(work: Callable[[], object], at: int) -> NoReturn:
    left = at

    def kill_in_time(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        if event == "c_call" and argument.__name__ in CALLS:
            left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.setprofile(kill_in_time)
        work()
        status = 0
    finally:
        os._exit(status)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "dataset"
        self.values: list[int] = []  # of each version of a file that there ever was
        self.files: dict[Name, int] = {}  # the version that is there
        self.runs: dict[str, Expected] = {}
        self.part_undos: dict[str, PartUndo] = {}

    @initialize()
    def make(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        for idx in range(SAMPLES):
            TxtNumpyItem(np.array([idx])).serialize(self.path(idx, "label"))
            PngImageItem(np.full((2, 2), 10 + idx, np.uint8)).serialize(self.path(idx, "image"))
            self.files[idx, "label"] = self.new_version(idx)
            self.files[idx, "image"] = self.new_version(10 + idx)

    def path(self, idx: int, key: str) -> Path:
        return self.folder / f"data/{idx}_{key}.{'txt' if key == 'label' else 'png'}"

    def new_version(self, value: int) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def value_on_disk(self, idx: int, key: str) -> int:
        item = (TxtNumpyItem if key == "label" else PngImageItem)(self.path(idx, key))
        return int(np.ravel(item())[0])

    # -- what happens ----------------------------------------------------------------------

    @rule(run_key=RUNS, indices=SOME, count=st.integers(1, 4))
    def commit(self, run_key: str, indices: set[int], count: int) -> None:
        transform_all(self.folder, run_key, sorted(indices), count)
        self.note_done(run_key, indices - self.done_by(run_key))

    def done_by(self, run_key: str) -> set[int]:
        return self.runs[run_key].done if run_key in self.runs else set()

    def note_done(self, run_key: str, indices: set[int]) -> None:
        run = self.runs.setdefault(run_key, Expected())
        run.done |= indices
        for idx in indices:
            for key in ("label", "image"):
                old = self.files[idx, key]
                value = self.values[old] + 1 if key == "label" else 255 - self.values[old]
                run.before.setdefault((idx, key), old)
                run.after[idx, key] = self.files[idx, key] = self.new_version(value)

    @rule(
        run_key=RUNS,
        indices=SOME,
        count=st.integers(1, 4),
        at=MOMENTS,
        then=st.sampled_from(["recover", "check", "open", "commit", "undo"]),
    )
    def commit_and_be_killed(
        self, run_key: str, indices: set[int], count: int, at: int, then: str
    ) -> None:
        todo = sorted(indices)
        KILLS["in a commit"] += killed_in(
            lambda: transform_all(self.folder, run_key, todo, count), at
        )
        self.reopen(then)
        done = set(Run.of(self.folder, run_key).outcomes()) - self.done_by(run_key)
        assert done <= indices
        if done or run_key in self.runs:
            self.note_done(run_key, done)

    def reopen(self, how: str) -> None:
        """Comes next after a process that died, in one way or another."""
        if how == "recover":
            recover(os.fspath(self.folder))
        elif how == "check":
            check(self.folder, fix=True)
            assert check(self.folder).problems == ()
        elif how == "commit":  # of nothing that is there
            stream = DataStream.read_write_underfolder(self.folder, run_key="new")
            with stream.commit_group() as group:
                group.record(0, "skipped")
        elif how == "undo":
            with pytest.raises(RunNotFoundError):
                undo_run(self.folder, "no such run")
            recover(os.fspath(self.folder))
        else:
            DataStream.read_write_underfolder(self.folder)

    def may_be_undone(self, run: Expected) -> bool:
        return all(self.files[name] == version for name, version in run.after.items())

    def take_back(self, run_key: str) -> None:
        self.files.update(self.runs.pop(run_key).before)

    def has_changes(self, run_key: str) -> bool:
        """Whether a run is there to be undone: a kill may come a little sooner or later.

        So it is no precondition of a rule, which must be drawn the same when tried again.
        """
        return run_key in self.runs and bool(self.runs[run_key].after)

    @rule(run_key=RUNS)
    def undo(self, run_key: str) -> None:
        if not self.has_changes(run_key):
            return
        if self.may_be_undone(self.runs[run_key]):
            undo_run(self.folder, run_key)
            self.take_back(run_key)
        else:
            with pytest.raises(UndoRefusedError):
                undo_run(self.folder, run_key)

    @rule(run_key=RUNS, at=MOMENTS, then=st.sampled_from(["recover", "open"]))
    def undo_and_be_killed(self, run_key: str, at: int, then: str) -> None:
        if not self.has_changes(run_key) or not self.may_be_undone(self.runs[run_key]):
            return
        KILLS["in an undo"] += killed_in(lambda: undo_run(self.folder, run_key), at)
        self.reopen(then)
        if run_key in {run.run_key for run in list_runs(self.folder) if run.state != "undone"}:
            undo_run(self.folder, run_key)
        self.take_back(run_key)

    @rule(run_key=RUNS, indices=SOME, at=st.one_of(st.none(), MOMENTS))
    def undo_part(self, run_key: str, indices: set[int], at: int | None) -> None:
        if not self.has_changes(run_key):
            return
        run = self.runs[run_key]
        part = run.part(indices)
        if not part.done or not self.may_be_undone(part):
            with pytest.raises(UndoRefusedError):
                undo_run(self.folder, run_key, indices=indices)
            return
        report = self.undo_part_and_be_killed(run_key, indices, at)
        self.note_part_undone(run, part, report)

    def undo_part_and_be_killed(self, run_key: str, indices: set[int], at: int | None) -> str:
        """Undoes some samples of a run, in two goes if it is killed; returns the undo's key."""
        before = {run.folder for run in list_runs(self.folder)}
        if at is not None:
            KILLS["in an undo of a part"] += killed_in(
                lambda: undo_run(self.folder, run_key, indices=indices), at
            )
            recover(os.fspath(self.folder))
        run = Run.of(self.folder, run_key)
        if run.is_half_undone() or self.runs[run_key].done == run.done_indices():
            return undo_run(self.folder, run_key, indices=indices).undo_run_key
        (new,) = (run for run in list_runs(self.folder) if run.folder not in before)
        return new.run_key

    def note_part_undone(self, run: Expected, part: Expected, undo_key: str) -> None:
        found = {name: self.files[name] for name in part.before}
        self.files.update(part.before)
        run.done -= part.done
        for name in part.before:
            del run.before[name], run.after[name]
        self.part_undos[undo_key] = PartUndo(run, part, found)

    @rule(number=st.integers(0, 9), at=st.one_of(st.none(), MOMENTS))
    def undo_the_undo_of_a_part(self, number: int, at: int | None) -> None:
        key = self.a_part_undo(number)
        if key is None:
            return
        undo = self.part_undos[key]
        is_retired = all(run is not undo.run for run in self.runs.values())
        is_changed = any(self.files[name] != old for name, old in undo.taken.before.items())
        if is_retired or is_changed:
            with pytest.raises(UndoRefusedError):
                undo_run(self.folder, key)
            return
        if at is not None:
            KILLS["in an undo of a part"] += killed_in(lambda: undo_run(self.folder, key), at)
            recover(os.fspath(self.folder))
        if key in {run.run_key for run in list_runs(self.folder) if run.state != "undone"}:
            undo_run(self.folder, key)
        self.files.update(undo.found)
        undo.run.updated(undo.taken)
        del self.part_undos[key]

    def a_part_undo(self, number: int) -> str | None:
        keys = sorted(self.part_undos)
        return keys[number % len(keys)] if keys else None

    @rule(number=st.integers(0, 9))
    def prune_the_undo_of_a_part(self, number: int) -> None:
        key = self.a_part_undo(number)
        if key is None:
            return

        def only_it(_: object, runs: Sequence[RunInfo], __: int) -> list[RunInfo]:
            return [info for info in runs if info.run_key == key]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pruning, "_removable", only_it)
            prune_runs(self.folder, timedelta(0))
        del self.part_undos[key]

    @rule(idx=st.integers(0, SAMPLES - 1), value=st.integers(0, 200), in_place=st.booleans())
    def somebody_changes_a_counter(self, idx: int, value: int, in_place: bool) -> None:
        path = self.path(idx, "label")
        if in_place:
            path.write_text(f"{value}\n")
        else:
            TxtNumpyItem(np.array([value])).serialize(path)
        self.files[idx, "label"] = self.new_version(value)

    @rule(run_key=RUNS)
    def end(self, run_key: str) -> None:
        end_run(Run.of(self.folder, run_key))

    @rule(fix=st.booleans())
    def look_it_over(self, fix: bool) -> None:
        assert check(self.folder, fix=fix).problems == ()

    # -- what is to hold -------------------------------------------------------------------

    @invariant()
    def files_are_as_the_model_has_them(self) -> None:
        if not self.files:
            return
        found = {name: self.value_on_disk(*name) for name in self.files}
        assert found == {name: self.values[version] for name, version in self.files.items()}
        assert len(list((self.folder / "data").iterdir())) == len(self.files)
        assert len(Underfolder(self.folder)) == SAMPLES

    @invariant()
    def ledgers_tell_the_truth(self) -> None:
        if not self.files:
            return
        for run_key in ("a", "b", "c"):
            assert Run.of(self.folder, run_key).done_indices() == self.done_by(run_key)

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestLedger.pytestmark = [pytest.mark.timeout(120)]


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestLedgerLong(LedgerMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=80, stateful_step_count=30, deadline=None)

    @classmethod
    def tearDownClass(cls) -> None:
        print(f"killed {KILLS}")
        assert all(KILLS.values())
