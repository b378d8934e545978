"""Runs that are kept and named, and how long the others stay."""

import json
import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import (
    DatasetNotFoundError,
    RunKeyError,
    RunNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.items import JpegImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.sequences.where import find
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import (
    compact,
    failed_indices,
    keep_run,
    list_runs,
    plan_undo,
    prune_runs,
    release_run,
    restore_sample,
    run_differences,
    undo_bytes,
    undo_run,
)
from prefect_pipestream.underfolder.bucket.log import LOG
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from tests.dataset_files import KINDS, Files, beside, has_private_files, made_at, temporary_place

from .conftest import backdate, contents, ended, forget_log, make_dataset, run_of
from .test_ledger import run_on

ALL = timedelta(0)


def label(folder: Place, run_key: str, *indices: int, value: int = 7, size: int = 0) -> None:
    """A run that writes labels; the next one to write them keeps so many numbers for its undo."""
    with open_writer(folder, exists_ok=True, run_key=run_key).batch() as group:
        for idx in indices:
            numbers = np.full(1 + size, value)
            group.set_output(idx, {"label": TxtNumpyItem(numbers)})


def keys(folder: Place) -> list[str]:
    return [run.run_key for run in list_runs(folder)]


def pruned(folder: Place, older_than: timedelta | None = ALL, **options: int) -> list[str]:
    return [run.run_key for run in prune_runs(folder, older_than, **options)]  # type: ignore[arg-type]


def free_of(folder: Place) -> int:
    """The space that all private files take, each once; of a bucket, that of all contents."""
    if is_address(folder):
        return sum(s.size for s in open_store(Address.of(folder)).objects_in(".pipestream/objects"))
    files = [path.lstat() for path in Path(folder, ".pipestream").rglob("*") if path.is_file()]
    return sum({one.st_ino: one.st_blocks * 512 for one in files if one.st_nlink >= 1}.values())


# -- names ---------------------------------------------------------------------------------


def test_a_kept_run_is_listed_as_that_and_with_its_name(dataset: Place) -> None:
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    assert [(run.kept, run.name) for run in list_runs(dataset)] == [(False, None)] * 2
    assert keep_run(dataset, "a", "golden").key == "a"
    keep_run(dataset, "b")
    assert [(run.kept, run.name) for run in list_runs(dataset)] == [(True, "golden"), (True, None)]
    keep_run(dataset, "golden")  # its name stays
    assert list_runs(dataset)[0].name == "golden"
    keep_run(dataset, "golden", "silver")
    assert list_runs(dataset)[0].name == "silver"
    assert release_run(dataset, "silver").key == "a"
    release_run(dataset, "a")
    assert [(run.kept, run.name) for run in list_runs(dataset)] == [(False, None), (True, None)]
    with pytest.raises(RunNotFoundError):
        release_run(dataset, "silver")


def test_a_name_is_asked_for_as_the_key_is(dataset: Place) -> None:
    before = contents(dataset)
    run_on(dataset, "k")
    keep_run(dataset, "k", "golden")
    assert failed_indices(dataset, "golden") == [5]
    assert [one.idx for one in run_differences(dataset, "golden")] == [0, 1, 2]
    assert find(open_dataset(dataset), "`run:golden` == 'failed'").indices.tolist() == [5]
    restored = restore_sample(dataset, 1, "golden")
    assert restored.run_key == "restore:k"
    undo_run(dataset, "restore:k")
    writer = open_writer(dataset, exists_ok=True, run_key="golden")
    assert writer.run_key == "k"
    assert writer.for_run("golden").run_key == "k"
    assert DataStream.read_write_underfolder(dataset, run_key="golden").run.key == "k"
    assert undo_run(dataset, ["golden"]).run_keys == ("k",)
    assert contents(dataset) == before


def test_a_run_that_is_gone_on_with_by_its_name_is_that_run(dataset: Place) -> None:
    label(dataset, "k", 0)
    keep_run(dataset, "k", "golden")
    label(dataset, "golden", 1)
    assert keys(dataset) == ["k"]
    assert run_of(dataset, "k").done_indices() == {0, 1}


def test_a_compaction_is_found_by_its_name(dataset: Place) -> None:
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(1)
    compact(dataset, "c")
    keep_run(dataset, "c", "moved")
    assert compact(dataset, "moved").run_key == "c"


@pytest.mark.parametrize(
    "name", ["a", "b", "gone", "undo:gone", "undo:new", "rollback:x", "", 7, "\ud800"]
)
def test_a_name_that_is_a_key_or_can_be_none_is_refused(dataset: Place, name: str) -> None:
    label(dataset, "gone", 0)
    undo_run(dataset, "gone")
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    with pytest.raises(RunKeyError):
        keep_run(dataset, "a", name)
    assert not any(run.kept for run in list_runs(dataset))


def test_a_name_is_of_one_run(dataset: Place) -> None:
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    keep_run(dataset, "a", "golden")
    with pytest.raises(RunKeyError, match=r"run 'a' has the name 'golden' already.*--release"):
        keep_run(dataset, "b", "golden")
    undo_run(dataset, "a")
    with pytest.raises(RunKeyError, match="run 'a' has the name"):
        keep_run(dataset, "b", "golden")  # it may come back with it
    release_run(dataset, "golden")
    keep_run(dataset, "b", "golden")
    assert undo_run(dataset, "golden").run_keys == ("b",)


def test_a_key_counts_before_a_name_that_somebody_forged(dataset: Place) -> None:
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    forge(dataset, "a", kept=True, name="b")
    assert undo_run(dataset, "b").run_keys == ("b",)
    with pytest.raises(RunNotFoundError, match="'b' was undone already"):
        undo_run(dataset, "b")


def forge(folder: Place, run_key: str, **facts: object) -> None:
    """Lets a run say something of itself that this package would not."""
    if is_address(folder):
        key, entry = first_entry_of(Address.of(folder), run_key)
        entry["facts"].update(facts)
        open_store(Address.of(folder)).put(key, json.dumps(entry).encode())
        forget_log(Address.of(folder))
        return
    path = Path(run_of(folder, run_key).folder) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def first_entry_of(address: Address, run_key: str) -> tuple[str, dict[str, Any]]:
    store = open_store(address)
    entries = ((s.key, json.loads(store.read(s.key).data)) for s in store.objects_in(LOG))
    return next((key, entry) for key, entry in entries if entry["run_key"] == run_key)


@pytest.mark.parametrize(
    "facts",
    [
        {"kept": True, "name": 7},
        {"kept": True, "name": ["x"]},
        {"kept": True, "name": "\ud800"},
        {"kept": True, "name": "undo:a"},
        {"kept": "yes", "name": "x" * 10**6},
        {"kept": [[]], "name": None},
        {"name": "b"},
        {"kept": 10**400},
    ],
    ids=lambda facts: f"{facts!r:.40}",
)
def test_a_forged_name_breaks_nothing(dataset: Place, facts: dict[str, object]) -> None:
    before = contents(dataset)
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    forge(dataset, "a", **facts)
    assert keys(dataset) == ["a", "b"]
    label(dataset, "new", 2)
    for key in ("new", "b", "a"):
        assert undo_run(dataset, key).run_keys == (key,)
    assert contents(dataset) == before
    assert prune_runs(dataset, ALL)
    for key in keys(dataset):
        release_run(dataset, key)
    prune_runs(dataset, ALL)
    assert keys(dataset) == []


def test_a_name_that_was_forged_for_two_runs_means_neither(dataset: Place) -> None:
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    for key in ("a", "b"):
        forge(dataset, key, kept=True, name="x")
    with pytest.raises(RunKeyError, match="name of several runs: 'a' and 'b'"):
        undo_run(dataset, "x")
    release_run(dataset, "a")
    assert undo_run(dataset, "x").run_keys == ("b",)


def test_what_is_not_there_cannot_be_kept(dataset: Place) -> None:
    for do in (keep_run, release_run):
        with pytest.raises(RunNotFoundError, match="no run 'k'"):
            do(dataset, "k")
        with pytest.raises(RunKeyError):
            do(dataset, "")
        with pytest.raises(DatasetNotFoundError):
            do(beside(dataset, "missing"), "k")
    assert not has_private_files(dataset)


@pytest.mark.about_files
def test_a_run_that_is_kept_before_it_was_noted_is_noted_all_the_same(dataset: Path) -> None:
    key = "é" * 500  # its folder's name does not tell it
    label(dataset, key, 0)
    (note,) = dataset.rglob("run.json")
    note.unlink()  # as on a full disk
    keep_run(dataset, key, "early")
    DataStream.read_write_underfolder(dataset, run_key="early").begin_run(fingerprint="f")
    (run,) = list_runs(dataset)
    assert (run.run_key, run.kept, run.name, run.fingerprint) == (key, True, "early", "f")
    assert run.started is not None


# -- pruning and kept runs -----------------------------------------------------------------


def test_pruning_leaves_a_kept_run_until_it_is_released(dataset: Place) -> None:
    before = contents(dataset)
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    keep_run(dataset, "a")
    assert pruned(dataset) == ["b"]
    assert pruned(dataset, None, larger_than=0) == []
    release_run(dataset, "a")
    keep_run(dataset, "a")
    undo_run(dataset, "a")
    assert contents(dataset)["data/000000_label.txt"] == before["data/000000_label.txt"]


def test_what_the_undo_of_a_kept_run_needs_stays(dataset: Place) -> None:
    before = contents(dataset)
    label(dataset, "earlier", 0)
    label(dataset, "a", 0, 1)
    after_earlier = {**before, "data/000000_label.txt": b"7\n"}
    label(dataset, "later", 1, 2, value=8)
    label(dataset, "later still", 2, value=9)
    label(dataset, "elsewhere", 3)
    keep_run(dataset, "a")
    assert pruned(dataset) == ["earlier", "elsewhere"]
    assert pruned(dataset) == []
    assert keys(dataset) == ["a", "later", "later still"]
    undo_run(dataset, ["a", "later", "later still"])
    found = contents(dataset)
    assert found["data/000001_label.txt"] == before["data/000001_label.txt"]
    assert found["data/000002_label.txt"] == before["data/000002_label.txt"]
    assert set(after_earlier) == set(found)


def test_a_later_run_of_other_items_is_not_needed(dataset: Place) -> None:
    label(dataset, "a", 0)
    writer = open_writer(dataset, exists_ok=True, run_key="picture")
    writer.write(0, {"image": JpegImageItem(np.zeros((4, 5, 3), np.uint8))})
    del writer
    keep_run(dataset, "a")
    assert pruned(dataset) == ["picture"]
    undo_run(dataset, "a")


def test_a_compaction_that_moved_a_kept_runs_samples_stays(dataset: Place) -> None:
    label(dataset, "a", 4)
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(1)
    label(dataset, "elsewhere", 0)
    before = contents(dataset)
    compact(dataset, "c")
    keep_run(dataset, "a")
    assert pruned(dataset) == ["removal", "elsewhere"]
    undo_run(dataset, ["c", "a"])
    assert contents(dataset).keys() == before.keys()


def test_a_kept_run_that_is_undone_can_come_back_and_is_kept_then(dataset: Place) -> None:
    label(dataset, "a", 0)
    after = contents(dataset)
    keep_run(dataset, "a", "golden")
    undo_run(dataset, "golden")
    label(dataset, "b", 1)
    assert pruned(dataset) == ["b"]
    undo_run(dataset, "undo:a")
    assert contents(dataset)["data/000000_label.txt"] == after["data/000000_label.txt"]
    states = {run.run_key: (run.state, run.kept, run.name) for run in list_runs(dataset)}
    assert states["a"] == ("edited", True, "golden")
    assert set(pruned(dataset)) == {"undo:a", "undo:undo:a"}


def test_a_run_that_was_undone_is_kept_by_its_key(dataset: Place) -> None:
    label(dataset, "a", 0)
    after = contents(dataset)
    undo_run(dataset, "a")
    keep_run(dataset, "a")
    assert pruned(dataset) == []
    undo_run(dataset, "undo:a")
    assert contents(dataset) == after


@pytest.mark.parametrize("indices", [None, [0]])
def test_a_kept_undo_keeps_what_it_took_back(dataset: Place, indices: list[int] | None) -> None:
    label(dataset, "a", 0, 1)
    label(dataset, "other", 2)
    after = contents(dataset)
    undo = undo_run(dataset, "a", indices=indices).undo_run_key
    keep_run(dataset, undo)
    assert pruned(dataset) == ["other"]
    undo_run(dataset, undo)
    assert contents(dataset) == after
    assert run_of(dataset, "a").done_indices() == {0, 1}


@pytest.mark.about_files
def test_what_an_interrupted_undo_needs_stays(dataset: Path) -> None:
    label(dataset, "a", 0)
    label(dataset, "b", 1)
    run, undo = run_of(dataset, "a"), run_of(dataset, "undo:a")
    undo.note({"undoes": "a"})
    Layout.of(dataset).write_json(
        run.undoing, {"undo": "undo:a", "runs": {"a": "a~undone-20200101T000000"}}
    )
    assert pruned(dataset) == ["b"]
    assert keys(dataset) == ["a", "undo:a"]


# -- which of the others stay --------------------------------------------------------------


@pytest.fixture
def aged(dataset: Place) -> Place:
    """Runs of 40, 30, 20 and 10 days ago, which keep some 40 kB each for their undo."""
    label(dataset, "first", 0, 1, 2, 3, size=20_000)
    prune_runs(dataset, ALL)
    for idx, key in enumerate(("d40", "d30", "d20", "d10")):
        label(dataset, key, idx)
        backdate(dataset, key, 40 - 10 * idx)
    return dataset


def test_by_age(aged: Place) -> None:
    assert pruned(aged, timedelta(days=25)) == ["d40", "d30"]
    assert keys(aged) == ["d20", "d10"]


def test_by_size_the_oldest_go_until_undo_holds_no_more(aged: Place) -> None:
    each = list_runs(aged)[0].undo_bytes
    assert each > 20_000
    assert undo_bytes(aged) == 4 * each
    without = list_runs(aged, with_undo_bytes=False)
    assert without == [replace(run, undo_bytes=0) for run in list_runs(aged)]
    assert pruned(aged, None, larger_than=4 * each) == []
    assert pruned(aged, None, larger_than=4 * each - 1) == ["d40"]
    assert pruned(aged, None, larger_than=each) == ["d30", "d20"]
    assert undo_bytes(aged) == each


def test_by_size_runs_that_hold_nothing_stay(aged: Place) -> None:
    label(aged, "adds", 9)
    backdate(aged, "adds", 100)
    each = undo_bytes(aged) // 4
    assert pruned(aged, None, larger_than=3 * each) == ["d40"]
    assert "adds" in keys(aged)


def test_by_age_and_size_but_not_the_last_ones(aged: Place) -> None:
    keep_run(aged, "d30")
    assert pruned(aged, timedelta(days=35), larger_than=0, keep_last=1) == ["d40", "d20"]
    assert keys(aged) == ["d30", "d10"]
    assert pruned(aged, ALL, keep_last=2) == []
    assert pruned(aged, ALL, keep_last=100) == []


def test_a_plan_removes_nothing_and_says_what_would_go(aged: Place) -> None:
    before = free_of(aged)
    planned = prune_runs(aged, timedelta(days=25), larger_than=0, keep_last=1, plan=True)
    assert keys(aged) == ["d40", "d30", "d20", "d10"]
    assert free_of(aged) == before
    done = prune_runs(aged, timedelta(days=25), larger_than=0, keep_last=1)
    assert done == planned
    assert [run.run_key for run in done] == ["d40", "d30", "d20"]


@pytest.mark.parametrize(
    "do",
    [
        lambda d: prune_runs(d),
        lambda d: prune_runs(d, keep_last=3),
        lambda d: prune_runs(d, larger_than=-1),
        lambda d: prune_runs(d, ALL, keep_last=-1),
    ],
)
def test_what_says_nothing_or_cannot_be_meant_is_refused(
    aged: Place, do: Callable[[Place], object]
) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        do(aged)
    assert len(keys(aged)) == 4


def test_a_run_whose_review_waits_is_not_pruned(dataset: Place) -> None:
    label(dataset, "review", 0)
    Files(dataset)[".pipestream/review/review/review.json"] = b"{}"
    assert pruned(dataset) == []


# -- the space that undo holds -------------------------------------------------------------


@pytest.mark.about_files
def test_undo_files_that_have_another_name_elsewhere_take_no_space(
    dataset: Path, tmp_path: Path
) -> None:
    label(dataset, "large", *range(3), size=20_000)
    prune_runs(dataset, ALL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (dataset / "data").glob("*_label.txt"):  # as of an import of hard links
        os.link(path, elsewhere / path.name)
    label(dataset, "a", *range(3))
    assert undo_bytes(dataset) == 0
    (elsewhere / "000000_label.txt").unlink()
    assert undo_bytes(dataset) > 20_000


def test_a_file_that_two_runs_hold_is_free_once_both_are_gone(dataset: Place) -> None:
    label(dataset, "large", 0, size=20_000)
    prune_runs(dataset, ALL)
    label(dataset, "a", 0)
    undo_run(dataset, "a")  # the large file is in its place again, and with the run
    label(dataset, "b", 0)  # and held by both now
    by_key = {run.run_key: run.undo_bytes for run in list_runs(dataset)}
    assert by_key["a"] == by_key["b"] == 0
    assert undo_bytes(dataset) > 20_000
    before = free_of(dataset)
    freed = prune_runs(dataset, larger_than=8192)
    assert [run.run_key for run in freed][-1] == "b"
    assert sum(run.undo_bytes for run in freed) > 20_000
    assert before - free_of(dataset) >= sum(run.undo_bytes for run in freed)


@pytest.mark.about_files
def test_a_file_that_two_commits_of_a_run_hold_counts_once(dataset: Path) -> None:
    path = dataset / "data/000000_label.txt"
    label(dataset, "a", 0)
    (kept,) = dataset.glob(".pipestream/runs/a/undo/*/000000_label.txt")
    path.unlink()
    path.hardlink_to(kept)
    label(dataset, "a", 0)
    ended(dataset, "a")
    (run,) = list_runs(dataset)
    files = [path.lstat() for path in dataset.glob(".pipestream/runs/a/undo/*/*")]
    assert len(files) == 2
    assert run.undo_bytes == files[0].st_blocks * 512 == undo_bytes(dataset)


# -- any order of it all -------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("write"), st.sets(st.integers(0, 3), min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["undo", "keep", "release", "remove", "compact"]), st.integers(0, 5)),
    st.tuples(st.just("prune"), st.just(0)),
)


def together(folder: Place, key: str) -> tuple[str, list[str]]:
    """What an undo of a run says, and the runs that it says are to be undone with it."""
    refusal = plan_undo(folder, key).refusal or ""
    command = re.search(r"`pipestream undo ([^`]*)` undoes them together", refusal)
    return refusal, shlex.split(command[1])[1:] if command else [key]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(steps=st.lists(STEPS, max_size=14))
@settings(max_examples=100, deadline=None)
def test_what_a_kept_run_could_be_undone_with_is_never_pruned(
    kind: str, steps: list[tuple[str, Any]]
) -> None:
    with temporary_place(kind) as folder:
        made_at(folder, make_dataset, length=4)
        for number, (what, which) in enumerate([*steps, ("prune", 0)]):
            standing = [run for run in list_runs(folder) if run.undone is None]
            chosen = standing[which % len(standing)] if standing and what != "write" else None
            if what == "write":
                label(folder, f"k{number}", *which, value=number)
            elif what == "remove":
                DataStream.read_write_underfolder(folder, run_key=f"r{number}").remove(which % 4)
            elif what == "compact":
                compact(folder, f"c{number}")
            elif what == "prune":
                kept = [run.run_key for run in standing if run.kept]
                before = {key: together(folder, key) for key in kept}
                prune_runs(folder, ALL)
                assert {key: together(folder, key) for key in kept} == before
            elif chosen is not None and what == "undo":
                with suppress(UndoRefusedError):
                    undo_run(folder, chosen.run_key)
            elif chosen is not None:
                (keep_run if what == "keep" else release_run)(folder, chosen.run_key)
        for key, (_, keys_of) in before.items():
            if not plan_undo(folder, keys_of).refusal:
                undo_run(folder, keys_of)
                assert key not in [r.run_key for r in list_runs(folder) if r.undone is None]
                break
