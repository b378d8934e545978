"""Commits, kills, undos, restores, prunes and changes from outside agree with a plain model."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prefect_pipestream.errors import RunKeyError, RunNotFoundError, UndoRefusedError
from prefect_pipestream.items import PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import (
    Run,
    RunInfo,
    Underfolder,
    check,
    end_run,
    keep_run,
    list_runs,
    prune_runs,
    release_run,
    restore_sample,
    undo_bytes,
    undo_run,
)
from prefect_pipestream.underfolder.commits.apply import recover

from .killed import killed_in
from .ledger_model import Model, ModelRun, Name, Versions, pairs

SAMPLES = 5
KEYS = ("label", "image")
RUNS = st.sampled_from(["a", "b", "c"])
ONE = st.integers(0, SAMPLES - 1)
SOME = st.sets(ONE, min_size=1)
WHICH = st.integers(0, 99)
KILL = st.none() | st.integers(1, 120)
THEN = st.sampled_from(["recover", "check", "open", "commit", "undo", "prune"])
KILLS: Counter[str] = Counter()
STEPS: Counter[str] = Counter()


def transform_all(folder: Path, run_key: str, indices: list[int], count: int) -> None:
    """Adds one to the counters and inverts the images, of samples that the run has not done."""
    stream = DataStream.read_write_underfolder(folder, run_key=run_key)
    done = stream.run.done_indices()
    with stream.commit_group(count=count, seconds=1000) as group:
        for idx in indices:
            if idx not in done:
                sample = stream[idx]
                changed = sample.set_value("label", sample["label"]() + 1)
                group.set_output(idx, changed.set_value("image", 255 - sample["image"]()))


class LedgerMachine(RuleBasedStateMachine):
    """What may happen to the runs of a dataset; `Model` says what is to come of it.

    A kill may come a little sooner or later when an example is tried again. So what a rule does
    may depend on which runs there are, but whether it is drawn does not: it has no precondition.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "dataset"
        self.values: list[int] = []  # of each version of a file that there ever was
        self.model = Model()
        self.writers = 0  # that came next after one that was killed

    @initialize()
    def make(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        for idx in range(SAMPLES):
            TxtNumpyItem(np.array([idx])).serialize(self.path(idx, "label"))
            PngImageItem(np.full((2, 2), 10 + idx, np.uint8)).serialize(self.path(idx, "image"))
            self.model.files[idx, "label"] = self.new_version(idx)
            self.model.files[idx, "image"] = self.new_version(10 + idx)
        self.commit("a", set(range(SAMPLES)), count=2, at=None, then="open")

    def path(self, idx: int, key: str) -> Path:
        return self.folder / f"data/{idx}_{key}.{'txt' if key == 'label' else 'png'}"

    def new_version(self, value: int) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def value_on_disk(self, idx: int, key: str) -> int:
        item = (TxtNumpyItem if key == "label" else PngImageItem)(self.path(idx, key))
        return int(np.ravel(item())[0])

    # -- which runs there are --------------------------------------------------------------

    def infos(self) -> dict[datetime, RunInfo]:
        """What is listed of the runs, by their start: the one thing that no undo changes."""
        return {info.started: info for info in list_runs(self.folder) if info.started}

    def note_begun(self) -> None:
        """Lets the model know of runs that are new: those of a process that was killed, too."""
        for info in list_runs(self.folder):
            if info.started is None:  # killed as it had just made its folder: the next one says so
                Run.of(self.folder, info.run_key).note({})
        known = {run.started for run in self.model.runs}
        new = [ModelRun(i.run_key, at) for at, i in self.infos().items() if at not in known]
        self.model.runs += new

    def standing(self, which: int) -> ModelRun | None:
        """One of the runs that count."""
        runs = self.model.standing()
        return runs[which % len(runs)] if runs else None

    def killed(self, what: str, work: Callable[[], object], at: int | None, then: str) -> bool:
        """Whether work was tried in a process to be killed; then what comes next was done, too.

        Which runs it began is noted by the rule: an undo that was killed first goes on.
        """
        STEPS[what] += 1
        if at is None:
            return False
        KILLS[what] += killed_in(work, at)
        self.reopen(then)
        return True

    def reopen(self, how: str) -> None:
        """Comes next after a process that died, in one way or another."""
        if how == "recover":
            recover(os.fspath(self.folder))
        elif how == "check":
            check(self.folder, fix=True)
            assert check(self.folder).problems == ()
        elif how == "commit":  # of no sample that is there
            self.writers += 1
            key = f"new {self.writers}"
            stream = DataStream.read_write_underfolder(self.folder, run_key=key)
            with stream.commit_group() as group:
                group.record(SAMPLES, "skipped")
        elif how == "undo":
            with pytest.raises(RunNotFoundError):
                undo_run(self.folder, "no such run")
            recover(os.fspath(self.folder))
        elif how == "prune":  # nothing is so old
            assert prune_runs(self.folder, timedelta(days=1)) == []
            recover(os.fspath(self.folder))
        else:
            DataStream.read_write_underfolder(self.folder)

    # -- runs ------------------------------------------------------------------------------

    @rule(run_key=RUNS, indices=SOME, count=st.integers(1, 4), at=KILL, then=THEN)
    def commit(
        self, run_key: str, indices: set[int], count: int, at: int | None, then: str
    ) -> None:
        before = self.model.done_by(run_key)
        work = partial(transform_all, self.folder, run_key, sorted(indices), count)
        if self.killed("commit", work, at, then):
            done = Run.of(self.folder, run_key).done_indices() - before
            assert done <= indices
        else:
            work()
            done = indices - before
        self.note_begun()
        run = self.model.run(run_key)
        assert run is not None or not done
        if run is not None:
            self.model.commit(run, {name: self.transformed(name) for name in names_of(done)})

    def transformed(self, name: Name) -> int:
        value = self.values[self.model.files[name]]
        return self.new_version(value + 1 if name[1] == "label" else 255 - value)

    @rule(run_key=RUNS)
    def end(self, run_key: str) -> None:
        end_run(Run.of(self.folder, run_key))

    @rule(idx=ONE, value=st.integers(0, 200), in_place=st.booleans())
    def somebody_changes_a_counter(self, idx: int, value: int, in_place: bool) -> None:
        path = self.path(idx, "label")
        if in_place and path.stat().st_nlink == 1:  # else what is kept changes, too
            path.write_text(f"{value}\n")
        else:
            TxtNumpyItem(np.array([value])).serialize(path)
        self.model.files[idx, "label"] = self.new_version(value)

    @rule(fix=st.booleans())
    def look_it_over(self, fix: bool) -> None:
        assert check(self.folder, fix=fix).problems == ()

    # -- undo, of all sorts of runs --------------------------------------------------------

    @rule(which=WHICH, at=KILL, then=THEN, by_name=st.booleans())
    def undo(self, which: int, at: int | None, then: str, by_name: bool) -> None:
        run = self.standing(which)
        if run is not None:
            self.undo_it(run, None, at, then, by_name)

    @rule(run_key=RUNS, indices=SOME, at=KILL, then=THEN)
    def undo_part(self, run_key: str, indices: set[int], at: int | None, then: str) -> None:
        run = self.model.run(run_key)
        if run is not None:
            self.undo_it(run, indices, at, then, by_name=False)

    @rule(which=WHICH, indices=SOME)
    def undo_part_of_any_run(self, which: int, indices: set[int]) -> None:
        run = self.standing(which)
        if run is not None:
            self.undo_it(run, indices, None, "recover", by_name=False)

    def undo_it(
        self, run: ModelRun, indices: set[int] | None, at: int | None, then: str, by_name: bool
    ) -> None:
        key = run.name if by_name and run.name else run.key
        work = partial(undo_run, self.folder, key, indices=indices)
        todo = self.model.to_put_back(run, indices)
        if todo is None:
            with pytest.raises(UndoRefusedError):
                work()
            return
        what, before = "undo" if indices is None else "undo of a part", list(self.model.runs)
        if not self.killed(what, work, at, then) or not self.is_undone(run, indices):
            work()
        undo = self.begun_since(before, "undo:")
        assert (undo is not None) == bool(todo or indices is not None)
        self.model.undone(run, indices, undo)
        if undo is not None:
            self.model.commit(undo, todo)

    def begun_since(self, before: list[ModelRun], prefix: str) -> ModelRun | None:
        """The last run that began since, of those that have such a key."""
        self.note_begun()
        new = [one for one in self.model.runs if one not in before and one.key.startswith(prefix)]
        return new[-1] if new else None

    def is_undone(self, run: ModelRun, indices: set[int] | None) -> bool:
        """Whether an undo that may have been killed came to its end."""
        state = self.infos()[run.started].state
        if indices is None or state == "undoing":
            return state == "undone"
        return not indices & Run.of(self.folder, run.key).done_indices()

    # -- restoring a sample ----------------------------------------------------------------

    @rule(
        idx=ONE,
        which=WHICH,
        keys=st.none() | st.sets(st.sampled_from(KEYS), min_size=1),
        state=st.sampled_from(["before", "after"]),
        force=st.booleans(),
        at=KILL,
        then=THEN,
    )
    def restore(
        self,
        idx: int,
        which: int,
        keys: set[str] | None,
        state: Literal["before", "after"],
        force: bool,
        at: int | None,
        then: str,
    ) -> None:
        known = [run.key for run in self.model.runs] or ["a"]  # those that were undone, too
        key = known[which % len(known)]
        work = partial(restore_sample, self.folder, idx, key, keys, state=state, force=force)
        changes = self.model.since(idx, key, state)
        if changes is None:
            with pytest.raises(RunNotFoundError):
                work()
            return
        found = {one: versions for one, *versions in pairs(changes)}
        chosen = found.keys() if keys is None else keys
        todo: Versions = {}
        is_refused = not chosen <= found.keys()
        for one in chosen & found.keys():
            wanted, last = found[one]
            now = self.model.files[idx, one]
            if now != wanted:
                todo[idx, one] = wanted
                is_refused = is_refused or (now != last and not force)
        if is_refused:
            with pytest.raises(UndoRefusedError):
                work()
            return
        self.restore_it(idx, todo, work, at, then)

    def restore_it(
        self, idx: int, todo: Versions, work: Callable[[], object], at: int | None, then: str
    ) -> None:
        before = list(self.model.runs)
        if not self.killed("restore", work, at, then) or not self.is_restored(idx, before):
            work()
        run = self.begun_since(before, "restore:")
        assert run is not None or not todo
        if run is not None:
            self.model.commit(run, todo)

    def is_restored(self, idx: int, before: list[ModelRun]) -> bool:
        run = self.begun_since(before, "restore:")
        return run is not None and idx in Run.of(self.folder, run.key).done_indices()

    # -- keeping and pruning ---------------------------------------------------------------

    @rule(which=WHICH, name=st.sampled_from([None, "gold", "silver"]), at=KILL, then=THEN)
    def keep(self, which: int, name: str | None, at: int | None, then: str) -> None:
        run = self.of_any_key(which)
        if run is None:
            return
        work = partial(keep_run, self.folder, run.key, name)
        if any(one.name == name is not None for one in self.model.runs if one is not run):
            with pytest.raises(RunKeyError):
                work()
            return
        self.killed("keep", work, at, then)
        work()
        self.note_begun()
        run.kept, run.name = True, name or run.name

    @rule(which=WHICH, by_name=st.booleans(), at=KILL, then=THEN)
    def release(self, which: int, by_name: bool, at: int | None, then: str) -> None:
        run = self.of_any_key(which)
        if run is None:
            return
        name = run.name if by_name and run.name else run.key
        work = partial(release_run, self.folder, name)
        if not self.killed("release", work, at, then) or self.infos()[run.started].kept:
            work()
        self.note_begun()
        run.kept, run.name = False, None

    def of_any_key(self, which: int) -> ModelRun | None:
        """The run that some key means: the one that counts, or that was undone last."""
        if not self.model.runs:
            return None
        key = self.model.runs[which % len(self.model.runs)].key
        infos = self.infos()
        undone = [run for run in self.model.runs if run.key == key and not run.stands]
        undone.sort(key=lambda run: infos[run.started].undone or run.started)
        return self.model.run(key) or undone[-1]

    @rule(tenths=st.integers(0, 10), keep_last=st.integers(0, 4), at=KILL, then=THEN)
    def prune_by_size(self, tenths: int, keep_last: int, at: int | None, then: str) -> None:
        most = undo_bytes(self.folder) * tenths // 10
        left = self.prune(keep_last, at, then, larger_than=most)
        infos = self.infos()
        holding = [run for run in left if infos[run.started].undo_bytes]
        assert undo_bytes(self.folder) <= most or not holding

    @rule(which=WHICH, keep_last=st.integers(0, 4), at=KILL, then=THEN)
    def prune_by_age(self, which: int, keep_last: int, at: int | None, then: str) -> None:
        run = self.model.runs[which % len(self.model.runs)] if self.model.runs else None
        since = datetime.now(UTC) if run is None else last_active(self.infos()[run.started])
        left = self.prune(keep_last, at, then, older_than=datetime.now(UTC) - since)
        infos = self.infos()
        assert all(last_active(infos[one.started]) >= since for one in left)

    def prune(self, keep_last: int, at: int | None, then: str, **limits: Any) -> list[ModelRun]:
        """Prunes, in two goes if the first is killed; returns what might have gone and is left."""
        work = partial(prune_runs, self.folder, keep_last=keep_last, **limits)
        allowed = self.may_be_pruned(keep_last)
        if self.killed("prune", work, at, then):
            self.note_begun()
            infos = self.infos()
            gone = [run for run in self.model.runs if run.started not in infos]
            assert gone_in_turn(gone, allowed, limits)
            self.model.pruned(gone)
            allowed = self.may_be_pruned(keep_last)
        removed = {info.started for info in work()}
        gone = [run for run in self.model.runs if run.started in removed]
        assert gone_in_turn(gone, allowed, limits)
        self.model.pruned(gone)
        return [run for run in allowed if run not in gone]

    def may_be_pruned(self, keep_last: int) -> list[ModelRun]:
        """The runs that nothing protects, the one that did nothing for the longest time first."""
        infos = self.infos()
        runs = sorted(self.model.runs, key=lambda run: last_active(infos[run.started]))
        standing = [run for run in runs if run.stands]
        staying = self.model.protected(standing[max(0, len(standing) - keep_last) :])
        return [run for run in runs if run not in staying]

    # -- what is to hold -------------------------------------------------------------------

    @invariant()
    def files_are_as_the_model_has_them(self) -> None:
        if not self.values:
            return
        found = {name: self.value_on_disk(*name) for name in self.model.files}
        files = self.model.files
        assert found == {name: self.values[version] for name, version in files.items()}
        assert len(list((self.folder / "data").iterdir())) == len(files)
        assert len(Underfolder(self.folder)) == SAMPLES

    @invariant()
    def ledgers_tell_the_truth(self) -> None:
        if not self.values:
            return
        for run_key in ("a", "b", "c"):
            done = Run.of(self.folder, run_key).done_indices()
            assert done == self.model.done_by(run_key)

    @invariant()
    def the_runs_are_listed(self) -> None:
        if not self.values:
            return
        listed = [(i.run_key, i.undone is None, i.kept, i.name) for i in list_runs(self.folder)]
        expected = [(r.key, r.stands, r.kept, r.name) for r in self.model.runs]
        assert listed == expected, (listed, expected)

    def teardown(self) -> None:
        shutil.rmtree(self.root)


def names_of(indices: set[int]) -> list[Name]:
    return [(idx, key) for idx in sorted(indices) for key in KEYS]


def gone_in_turn(gone: list[ModelRun], allowed: list[ModelRun], limits: dict[str, Any]) -> bool:
    """Whether none went that was to stay, and by age none before an older one."""
    is_in_turn = "older_than" not in limits or set(gone) == set(allowed[: len(gone)])
    return set(gone) <= set(allowed) and is_in_turn


def last_active(info: RunInfo) -> datetime:
    """When a run did something."""
    return max(filter(None, (info.started, info.last_commit, info.undone)))


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
TestLedger.pytestmark = [pytest.mark.timeout(120)]


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestLedgerLong(LedgerMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

    @classmethod
    def tearDownClass(cls) -> None:
        print(f"tried {STEPS}, killed {KILLS}")
        assert KILLS.total() >= 20
