import gzip
import os
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DatasetWriteError,
    RunNotFoundError,
)
from prefect_pipestream.items import PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import (
    CommitRecord,
    Run,
    SampleFailure,
    SampleRecord,
    end_run,
    failed_indices,
    last_run,
    list_runs,
    prune_runs,
    signatures,
    undo_run,
)
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.opening import ledgers_of, open_dataset, open_writer

from .conftest import backdate, contents, ended, make_dataset, run_of

FAILURE = SampleFailure("DecodeError", "it is broken", "Traceback …")


def white(value: int = 255) -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), value, dtype=np.uint8))


def run_on(
    folder: Place,
    run_key: str,
    tag: str = "main",
    fingerprint: str | None = None,
    value: int = 100,
) -> None:
    """Writes samples 0 to 2, leaves 3 as it is, skips 4, and fails at 5."""
    dataset = open_dataset(folder, watch=True)
    writer = open_writer(folder, exists_ok=True, run_key=run_key, dataset=dataset)
    if fingerprint:
        writer.begin_run({"fingerprint": fingerprint})
    with writer.batch(tag=tag, signed=True, count=2) as group:
        for idx in range(4):
            items, origin = dataset.take(idx)
            items["image"]()
            if idx < 3:
                items["image"] = white(value + idx)
            group.set_output(idx, items, None, origin)
        group.record(4, "skipped", origin=dataset.take(4)[1])
        group.record(5, "failed", failure=FAILURE, attempts=3, origin=dataset.take(5)[1])


def write(folder: Place, run_key: str, idx: int, value: int = 7) -> None:
    writer = open_writer(folder, exists_ok=True, run_key=run_key)
    writer.write(idx, {"image": white(value)})


def snapshot(folder: Place, run_key: str) -> list[object]:
    """All that a ledger can be asked."""
    return [
        {idx: record.to_json() for idx, record in run_of(folder, run_key).outcomes().items()},
        run_of(folder, run_key).done_indices(),
        run_of(folder, run_key).counts(),
        failed_indices(ledgers_of(folder), run_key),
        run_of(folder, run_key).failures(),
        [c.id for c in run_of(folder, run_key).commits()],
    ]


# -- what a run did ------------------------------------------------------------------------


def test_the_ledger_tells_each_samples_outcome(dataset: Place) -> None:
    run_on(dataset, "k")
    assert run_of(dataset, "k").counts() == {
        "written": 3,
        "unchanged": 1,
        "skipped": 1,
        "failed": 1,
        "removed": 0,
    }
    assert run_of(dataset, "k").done_indices() == {0, 1, 2, 3, 4}
    assert run_of(dataset, "k").outcome_rows().done().tolist() == [0, 1, 2, 3, 4]
    assert failed_indices(ledgers_of(dataset), "k") == [5]
    assert run_of(dataset, "k").failures() == [
        SampleRecord(
            5, "failed", run_of(dataset, "k").outcomes()[5].signature, attempts=3, failure=FAILURE
        )
    ]


def test_the_last_outcome_of_a_sample_counts(dataset: Place) -> None:
    run_on(dataset, "k")
    write(dataset, "k", 5)
    assert failed_indices(ledgers_of(dataset), "k") == []
    assert run_of(dataset, "k").failures() == []
    assert run_of(dataset, "k").done_indices() == set(range(6))
    assert sum(run_of(dataset, "k").counts().values()) == 6


def test_a_part_of_a_run_is_told_by_its_tag(dataset: Place) -> None:
    run_on(dataset, "k", tag="0-5")
    write(dataset, "k", 9)
    for _ in range(2):
        assert run_of(dataset, "k").done_indices("0-5") == {0, 1, 2, 3, 4}
        assert run_of(dataset, "k").done_indices("main") == {9}
        assert run_of(dataset, "k").counts("main")["written"] == 1
        assert [record.idx for record in run_of(dataset, "k").failures("0-5")] == [5]
        assert run_of(dataset, "k").failures("main") == []
        assert set(run_of(dataset, "k").outcomes("main")) == {9}
        ended(dataset, "k")


def test_of_no_run_there_is_nothing(dataset: Place) -> None:
    assert run_of(dataset, "none").outcomes() == {}
    assert run_of(dataset, "none").done_indices() == set()
    assert sum(run_of(dataset, "none").counts().values()) == 0
    assert list_runs(dataset) == []
    assert last_run(ledgers_of(dataset)) is None
    ended(dataset, "none")
    with pytest.raises(RunNotFoundError):
        failed_indices(ledgers_of(dataset))
    with pytest.raises(DatasetNotFoundError):
        list_runs(dataset / "missing")


# -- packed --------------------------------------------------------------------------------


def test_a_packed_ledger_answers_as_before(dataset: Place) -> None:
    run_on(dataset, "k", tag="part")
    write(dataset, "k", 4)
    before = snapshot(dataset, "k")
    ended(dataset, "k")
    assert snapshot(dataset, "k")[:4] == before[:4]
    assert snapshot(dataset, "k")[5] == before[5]
    assert [f.failure for f in run_of(dataset, "k").failures()] == [FAILURE]
    if not is_address(dataset):
        assert list(Path(dataset).glob(".pipestream/runs/k/done/**/*.json")) == []


@pytest.mark.about_files
def test_a_resumed_run_is_packed_again(dataset: Path) -> None:
    run_on(dataset, "k")
    ended(dataset, "k")
    write(dataset, "k", 5)
    after = snapshot(dataset, "k")
    assert after[1] == set(range(6))
    ended(dataset, "k")
    ended(dataset, "k")
    assert snapshot(dataset, "k") == after
    folders = [path.name for path in (dataset / ".pipestream/runs/k").glob("compact-*")]
    assert folders == ["compact-2"]


@pytest.mark.about_files
def test_a_record_that_is_packed_and_still_alone_counts_once(dataset: Path) -> None:
    """As a reader may find it in the midst of packing, or after it was killed."""
    run_on(dataset, "k")
    run = dataset / ".pipestream/runs/k"
    records = {path: path.read_bytes() for path in (run / "done").rglob("*.json")}
    before = snapshot(dataset, "k")
    ended(dataset, "k")
    for path, text in list(records.items())[::2]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    assert snapshot(dataset, "k")[:4] == before[:4]
    assert snapshot(dataset, "k")[5] == before[5]
    ended(dataset, "k")
    assert snapshot(dataset, "k")[5] == before[5]


@pytest.mark.about_files
def test_readers_see_the_whole_ledger_while_it_is_packed_over_and_over(dataset: Path) -> None:
    import threading

    run_on(dataset, "k")
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            found = run_of(dataset, "k").done_indices()
            if not found >= {0, 1, 2, 3, 4}:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    for value in range(10):
        writer.write(0, {"image": white(value)})
        ended(dataset, "k")
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(list(run_of(dataset, "k").commits())) == 13


def test_packing_on_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs the right to")
    try:
        run_on(make_dataset(folder), "k")
        before = snapshot(folder, "k")
        filler = folder / ".filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
            file.write(bytes(1 << 20))
        for name in ("a", "b", "c", "d"):  # the few blocks that were left
            with suppress(OSError):
                (folder / f".filler-{name}").write_bytes(bytes(4096))
        with pytest.raises(DatasetWriteError):
            ended(folder, "k")
        assert snapshot(folder, "k") == before
        run = folder / ".pipestream/runs/k"
        assert sorted(path.name for path in run.iterdir()) == ["done", "run.json", "undo"]
        for path in folder.glob(".filler*"):
            path.unlink()
        ended(folder, "k")
        assert snapshot(folder, "k")[5] == before[5]
        assert list_runs(folder)[0].state == "finished"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_big_run(folder: Path, samples: int, run_key: str = "big") -> None:
    """Writes the ledger of a run of many samples, as its commits would have."""
    layout = Layout.of(folder)
    layout.make()
    run_of(layout, run_key).note({"fingerprint": "f"})
    random = np.random.default_rng(0)
    done = Path(run_of(layout, run_key).done) / "main"
    done.mkdir(parents=True)
    for first in range(0, samples, 1000):
        marks = random.bytes(14 * 1000).hex()
        records = []
        for idx in range(first, first + 1000):
            mark = marks[(idx - first) * 28 : (idx - first + 1) * 28]
            name = f"{idx:06d}_image.png"
            records.append(
                SampleRecord(idx, "written", mark[:16], None, {name: mark[16:]}, (name,))
            )
        commit = CommitRecord(
            f"{first:016x}", run_key, "main", "staged/1/1", float(first), tuple(records)
        )
        (done / f"{commit.id}.json").write_bytes(commit.to_bytes())


@pytest.mark.slow
def test_the_ledger_of_a_million_samples_is_small_and_loads_fast(tmp_path: Path) -> None:
    make_big_run(tmp_path, 1_000_000)
    ended(tmp_path, "big")
    run = tmp_path / ".pipestream/runs/big"
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    began = time.process_time()
    done = run_of(tmp_path, "big").done_indices()
    done_s = time.process_time() - began
    began = time.process_time()
    found = signatures(tmp_path, "f")
    signatures_s = time.process_time() - began
    print(f"{size / 1e6:.0f} MB; done in {done_s:.2f} s, signatures in {signatures_s:.2f} s")
    assert len(done) == len(found) == 1_000_000
    assert size < 50e6
    assert done_s < 2
    assert signatures_s < 2


# -- damaged -------------------------------------------------------------------------------


@pytest.mark.about_files
def test_a_damaged_record_is_an_error_that_says_what_to_do(dataset: Path) -> None:
    run_on(dataset, "k")
    path = next((dataset / ".pipestream/runs/k/done").rglob("*.json"))
    path.write_bytes(path.read_bytes()[:20])
    for ask in (Run.outcomes, Run.done_indices, Run.counts):
        with pytest.raises(DatasetError, match=rf"{path.name}.*check --fix"):
            ask(run_of(dataset, "k"))


@pytest.mark.parametrize(
    "forged",
    [
        {"commit_by": [0, 2]},
        {"commit_by": [-2, 0]},
        {"commit_by": [0]},
        {"commit_by": [0.5, 0.5]},
        {"people": [["ada"]]},
        {"people": ["ada", "bob"]},
        {"people": [[1, 2], [3, 4]]},
        {"people": [["ada", "a"], ["b" * 10_000, "b"]]},
        {"people": [["ada", "a"], ["\ud800", "b"]]},
        {"people": np.full((2, 2), 0x7FFFFFFF, np.uint32).view("U1")},  # no character
    ],
)
@pytest.mark.about_files
def test_commits_of_nobody_that_a_packed_ledger_knows_are_a_clear_error(
    dataset: Path, forged: dict[str, Any]
) -> None:
    people = [("bob", "b"), ("ada", "a")]
    for idx, by in enumerate(people):
        writer = open_writer(dataset, exists_ok=True, run_key="k", by=by)
        writer.write(idx, {"label": TxtNumpyItem(np.array([70]))})
    run = run_of(dataset, "k")
    end_run(run)
    assert [commit.by for commit in run.commits()] == people
    path = dataset / ".pipestream/runs/k/compact-1/samples.npz"
    with np.load(path) as found:
        columns = dict(found)
    np.savez(path, **{**columns, **{name: np.array(one) for name, one in forged.items()}})
    with pytest.raises(DatasetError, match="cannot be right"):
        list(run.commits())


@pytest.mark.parametrize("name", ["samples.npz", "failures.jsonl.gz"])
@pytest.mark.about_files
def test_a_damaged_packed_ledger_is_a_clear_error(dataset: Path, name: str) -> None:
    run_on(dataset, "k")
    ended(dataset, "k")
    path = dataset / ".pipestream/runs/k/compact-1" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=name):
        run_of(dataset, "k").failures()


# -- runs ----------------------------------------------------------------------------------


def test_runs_are_listed_in_the_order_of_their_start(dataset: Place) -> None:
    run_on(dataset, "one", fingerprint="f")
    run_on(dataset, "two")
    ended(dataset, "one")
    first, second = list_runs(dataset)
    assert (first.run_key, first.state, first.fingerprint) == ("one", "finished", "f")
    assert (second.run_key, second.state, second.fingerprint) == ("two", "edited", None)
    assert first.counts == {"written": 3, "unchanged": 1, "skipped": 1, "failed": 1, "removed": 0}
    assert first.started is not None
    assert first.last_commit is not None
    assert first.finished is not None
    assert first.started <= first.last_commit <= first.finished <= datetime.now(UTC)
    assert first.user
    assert first.host == os.uname().nodename


@pytest.mark.about_files
def test_a_run_is_running_as_long_as_a_writer_of_it_lives(dataset: Path) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    writer.write(0, {"image": white()})
    ended(dataset, "k")
    assert [run.state for run in list_runs(dataset)] == ["running"]
    del writer
    assert [run.state for run in list_runs(dataset)] == ["finished"]
    write(dataset, "k", 1)
    assert [run.state for run in list_runs(dataset)] == ["edited"]


@pytest.mark.about_files
def test_undo_bytes_are_what_only_undo_files_hold(dataset: Path, tmp_path: Path) -> None:
    old = dataset / "data/000001_image.png"
    os.link(dataset / "data/000000_image.png", tmp_path / "elsewhere.png")
    blocks = old.stat().st_blocks * 512
    write(dataset, "k", 0)
    assert [run.undo_bytes for run in list_runs(dataset)] == [0]
    write(dataset, "k", 1)
    assert [run.undo_bytes for run in list_runs(dataset)] == [blocks]
    undo_run(dataset, "k")
    undone, undo = list_runs(dataset)
    assert undone.undo_bytes == 0  # its files are in their place again
    assert undo.undo_bytes == 2 * blocks


def test_the_last_run_is_of_a_transform_and_not_undone(dataset: Place) -> None:
    run_on(dataset, "one", fingerprint="f")
    run_on(dataset, "two", fingerprint="f")
    write(dataset, "by hand", 0)
    assert last_run(ledgers_of(dataset)) == "two"
    undo_run(dataset, "by hand")
    undo_run(dataset, "two")
    assert last_run(ledgers_of(dataset)) == "one"
    assert failed_indices(ledgers_of(dataset)) == [5]


# -- signatures ----------------------------------------------------------------------------


def signature_now(folder: Place, idx: int) -> str | None:
    """What a run that leaves the sample as it is notes of it, in a ledger of its own."""
    dataset = open_dataset(folder, watch=True)
    key = f"look {time.monotonic_ns()}"
    writer = open_writer(folder, exists_ok=True, run_key=key, dataset=dataset)
    with writer.batch(signed=True) as group:
        items, origin = dataset.take(idx)
        group.set_output(idx, items, None, origin)
    return run_of(folder, key).outcomes()[idx].signature


def test_signatures_are_of_the_samples_as_the_transform_left_them(dataset: Place) -> None:
    run_on(dataset, "k", fingerprint="f")
    for _ in range(2):
        found = signatures(ledgers_of(dataset), "f")
        assert sorted(found) == [0, 1, 2, 3, 4]  # what failed is to be tried again
        assert len(found) == 5
        assert 5 not in found
        assert found.get(99) is None
        for idx in found:
            assert found[idx] == signature_now(dataset, idx)
        assert len(signatures(ledgers_of(dataset), "other")) == 0
        ended(dataset, "k")
    write(dataset, "by hand", 1)
    assert signatures(ledgers_of(dataset), "f")[1] != signature_now(dataset, 1)


def test_the_latest_run_that_was_not_undone_has_the_last_word(dataset: Place) -> None:
    run_on(dataset, "one", fingerprint="f")
    first = dict(signatures(ledgers_of(dataset), "f"))
    run_on(dataset, "two", fingerprint="f", value=200)
    second = dict(signatures(ledgers_of(dataset), "f"))
    assert all(first[idx] != second[idx] for idx in (0, 1, 2))
    undo_run(dataset, "two")
    assert dict(signatures(ledgers_of(dataset), "f")) == first
    assert signature_now(dataset, 0) == first[0]


# -- pruning -------------------------------------------------------------------------------


def test_old_runs_are_pruned_with_their_undo_files(dataset: Place) -> None:
    run_on(dataset, "old", fingerprint="f")
    backdate(dataset, "old", 31)
    run_on(dataset, "new")
    before = contents(dataset)
    pruned = prune_runs(dataset, timedelta(days=30))
    assert [run.run_key for run in pruned] == ["old"]
    assert pruned[0].undo_bytes > 0
    assert [run.run_key for run in list_runs(dataset)] == ["new"]
    assert is_address(dataset) or not Path(dataset, ".pipestream/runs/old").exists()
    assert contents(dataset) == before
    assert prune_runs(dataset, timedelta(days=30)) == []
    with pytest.raises(RunNotFoundError, match="'new'"):
        undo_run(dataset, "old")
    undo_run(dataset, "new")


def test_what_pruned_runs_saw_is_still_known(dataset: Place) -> None:
    run_on(dataset, "oldest", fingerprint="f")
    backdate(dataset, "oldest", 50)
    run_on(dataset, "old", fingerprint="f")
    backdate(dataset, "old", 40)
    before = dict(signatures(ledgers_of(dataset), "f"))
    assert len(prune_runs(dataset, timedelta(days=45))) == 1
    assert dict(signatures(ledgers_of(dataset), "f")) == before
    assert len(prune_runs(dataset, timedelta(days=30))) == 1
    assert dict(signatures(ledgers_of(dataset), "f")) == before
    run_on(dataset, "new", fingerprint="f", value=90)
    after = dict(signatures(ledgers_of(dataset), "f"))
    assert [idx for idx in before if before[idx] != after[idx]] == [0, 1, 2]


def test_a_run_that_is_running_is_not_pruned(dataset: Place) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    writer.begin_run({"fingerprint": "f"})
    writer.write(0, {"label": TxtNumpyItem(np.array([1]))})
    assert prune_runs(dataset, timedelta(0)) == []
    del writer
    ended(dataset, "k")
    assert len(prune_runs(dataset, timedelta(0))) == 1


@pytest.mark.about_files
def test_pruning_a_folder_without_runs_leaves_it_alone(dataset: Path) -> None:
    assert prune_runs(dataset, timedelta(0)) == []
    assert not (dataset / ".pipestream").exists()


@pytest.mark.about_files
def test_failures_are_kept_in_full_when_packed(dataset: Path) -> None:
    run_on(dataset, "k")
    ended(dataset, "k")
    with gzip.open(dataset / ".pipestream/runs/k/compact-1/failures.jsonl.gz", "rt") as lines:
        assert len(list(lines)) == 1
    (failure,) = run_of(dataset, "k").failures()
    assert (failure.idx, failure.attempts, failure.failure) == (5, 3, FAILURE)


def test_what_a_person_changed_by_a_stream_is_no_run_that_stopped(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="mine")
    stream.set_output(0, stream.get_input(0).set_value("label", 7))
    if not is_address(dataset):
        assert [run.state for run in list_runs(dataset)] == ["running"]
    del stream
    assert [run.state for run in list_runs(dataset)] == ["edited"]
    DataStream.read_write_underfolder(dataset, run_key="flow").begin_run(fingerprint="f")
    assert [run.state for run in list_runs(dataset)] == ["edited", "stopped"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_history_of_a_sample(dataset: Place, packed: bool) -> None:
    run_on(dataset, "k")
    write(dataset, "k", 0, value=9)
    run = run_of(dataset, "k")
    before = {
        idx: [r for c in run.commits() for r in c.samples if r.idx == idx] for idx in range(7)
    }
    if packed:
        ended(dataset, "k")
    run = run_of(dataset, "k")
    for idx, records in before.items():
        assert [record for _, record in run.history(idx)] == records
    assert len(before[0]) == 2
    assert before[5][0].failure is not None
    assert run.history(6) == []
