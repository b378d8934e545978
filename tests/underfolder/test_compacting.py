"""Gaps are closed: order and bytes are kept, whatever is in the way, and an undo restores all."""

import os
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.items import TxtNumpyItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.storage.version import signature_of
from prefect_pipestream.underfolder import (
    check,
    compact,
    compactions,
    list_runs,
    moves_of,
    prune_runs,
    signatures,
    undo_run,
)
from prefect_pipestream.underfolder.format.names import parse_item_name
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from tests.dataset_files import KINDS, Files, beside, made_at, temporary_place

from .conftest import contents, ended, make_dataset, run_of, strays


def stream_of(folder: Place, run_key: str = "k") -> DataStream:
    return DataStream.read_write_underfolder(folder, run_key=run_key)


def remove(folder: Place, *indices: int, run_key: str = "removal") -> None:
    with stream_of(folder, run_key).commit_group() as batch:
        for idx in indices:
            batch.remove(idx)


def by_rank(folder: Place) -> list[dict[str, bytes]]:
    """The samples in their order: the content of each of their files, by what follows the index."""
    found: dict[int, dict[str, bytes]] = {}
    for name, content in contents(folder).items():
        if name.startswith("data/"):
            parsed = parse_item_name(name.removeprefix("data/"))
            assert parsed is not None
            found.setdefault(parsed[0], {})[parsed[1].tail] = content
    return [found[idx] for idx in sorted(found)]


def exact(folder: Place) -> dict[str, tuple[bytes, int, int]]:
    """All files with their rights and times, which objects do not have."""
    found = contents(folder)
    if is_address(folder):
        return {name: (content, 0, 0) for name, content in found.items()}
    status = {name: Path(folder, name).lstat() for name in found}
    return {name: (found[name], s.st_mode, s.st_mtime_ns) for name, s in status.items()}


def labels(folder: Place) -> list[int]:
    return [int(one["label.txt"]) for one in by_rank(folder)]


def inodes_of(folder: Place) -> set[int]:
    """Which files there are, whatever they are called; of a bucket, none."""
    return {path.stat().st_ino for path in Path(folder, "data").glob("*")}


# -- what it does --------------------------------------------------------------------------


def test_samples_move_down_in_their_order(dataset: Place) -> None:
    remove(dataset, 0, 3)
    before, files = by_rank(dataset), exact(dataset)
    inodes = inodes_of(dataset)
    report = compact(dataset, "c")
    assert (report.run_key, report.samples, report.moved) == ("c", 4, 4)
    assert by_rank(dataset) == before
    assert open_dataset(dataset).indices().tolist() == [0, 1, 2, 3]
    assert min(name for name in contents(dataset) if "/" in name) == "data/000000_image.png"
    assert inodes_of(dataset) == inodes  # linked
    assert moves_of(run_of(dataset, "c")).tolist() == [[1, 0], [2, 1], [4, 2], [5, 3]]
    assert check(dataset).ok
    assert strays(dataset) == []
    (run,) = [run for run in list_runs(dataset) if run.run_key == "c"]
    assert (run.state, run.counts["written"]) == ("finished", 4)
    undo_run(dataset, "c")
    assert exact(dataset) == files
    assert compactions(dataset) == []
    undo_run(dataset, "removal")
    assert labels(dataset) == list(range(6))


def test_an_open_stream_sees_it(dataset: Place) -> None:
    stream = stream_of(dataset)
    stream.remove(1)
    assert len(stream) == 6
    compact(dataset)
    assert len(stream) == 5
    assert [int(sample["label"]()[0]) for sample in stream] == [0, 2, 3, 4, 5]


def test_where_there_is_no_gap_no_run_is_made(dataset: Place) -> None:
    assert compact(dataset).moved == 0
    assert list_runs(dataset) == []
    remove(dataset, 5)
    assert compact(dataset).moved == 0


def test_an_ended_run_is_not_begun_again(dataset: Place) -> None:
    remove(dataset, 0)
    first = compact(dataset, "c")
    remove(dataset, 0, run_key="more")
    assert compact(dataset, "c").moved == first.moved
    assert open_dataset(dataset).indices().tolist() == [1, 2, 3, 4]


def test_what_cannot_be_compacted_is_refused(dataset: Place) -> None:
    with pytest.raises(DatasetNotFoundError):
        compact(beside(dataset, "none"))
    stream_of(dataset).remove(0)
    with pytest.raises(DatasetError, match="is no compaction"):
        compact(dataset, "k")


def test_names_keep_their_padding(new_place: Place) -> None:
    names = ["003_a.txt", "99_b.txt", "100_a.txt", "1000_a.txt", "0001001_a.txt", "1002_b.txt"]
    for name in names:
        Files(new_place)[f"data/{name}"] = name.encode()
    compact(new_place)
    found = contents(new_place).items()
    assert {name.removeprefix("data/"): text.decode() for name, text in found} == {
        "000_a.txt": "003_a.txt",
        "1_b.txt": "99_b.txt",
        "002_a.txt": "100_a.txt",
        "003_a.txt": "1000_a.txt",
        "0000004_a.txt": "0001001_a.txt",
        "005_b.txt": "1002_b.txt",
    }


TAILS = st.sampled_from(["image.png", "image.jpg", "label.txt", "meta.yml", "meta.json", "x.bin"])
SAMPLES = st.dictionaries(
    st.one_of(st.integers(0, 12), st.integers(90, 110), st.integers(998, 1002)),
    st.tuples(st.sets(TAILS, min_size=1), st.sampled_from([0, 3, 5])),
    max_size=14,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, shared=st.sets(st.sampled_from(["common.yml", "names.txt"])))
def test_any_gaps_and_names(
    kind: str, samples: dict[int, tuple[set[str], int]], shared: set[str]
) -> None:
    assume(samples or kind == "folder")  # where no object is, there is no dataset
    with temporary_place(kind) as folder:
        if not is_address(folder):
            Path(folder, "data").mkdir(parents=True)
        files = Files(folder)
        for idx, (tails, width) in samples.items():
            for tail in tails:
                name = f"data/{idx:0{width}d}_{tail}"
                files[name] = f"{idx} {tail}".encode()
                if not is_address(folder):
                    Path(folder, name).chmod(0o600 if idx % 2 else 0o644)
        files.update((name, name.encode()) for name in shared)
        order, before = by_rank(folder), exact(folder)
        report = compact(folder, "c")
        assert by_rank(folder) == order
        assert open_dataset(folder).indices().tolist() == list(range(len(samples)))
        assert {name for name in files if "/" not in name} == shared
        assert strays(folder) == []
        if report.moved:
            undo_run(folder, "c")
            assert exact(folder) == before
            redone = undo_run(folder, "undo:c")
            assert by_rank(folder) == order
            undo_run(folder, redone.undo_run_key)
        assert exact(folder) == before


@pytest.mark.about_files
def test_links_and_hard_links_are_moved_as_they_are(dataset: Path) -> None:
    data = dataset / "data"
    os.link(data / "000003_label.txt", data / "000003_copy.txt")
    (data / "000004_copy.txt").hardlink_to(data / "000003_label.txt")
    (data / "000005_label.txt").unlink()
    (dataset / "elsewhere.txt").write_text("5")
    (data / "000005_label.txt").symlink_to("../elsewhere.txt")
    (data / "000005_lost.txt").symlink_to("../nowhere")
    remove(dataset, 2)
    before = {p.name: os.readlink(p) for p in data.iterdir() if p.is_symlink()}
    compact(dataset, "c")
    assert os.readlink(data / "000004_label.txt") == "../elsewhere.txt"
    assert os.readlink(data / "000004_lost.txt") == "../nowhere"
    assert (data / "000003_copy.txt").read_bytes() == (data / "000002_label.txt").read_bytes()
    undo_run(dataset, "c")
    assert {p.name: os.readlink(p) for p in data.iterdir() if p.is_symlink()} == before


@pytest.mark.about_files
def test_a_link_to_another_sample_of_the_dataset_is_refused(dataset: Path) -> None:
    remove(dataset, 0)
    (dataset / "data/000001_copy.txt").symlink_to(dataset / "data/000004_label.txt")
    before = contents(dataset)
    with pytest.raises(DatasetError, match=r"000001_copy\.txt: this is a symbolic link"):
        compact(dataset)
    assert contents(dataset) == before
    assert [run.run_key for run in list_runs(dataset)] == ["removal"]


# -- other writers -------------------------------------------------------------------------


def test_what_is_written_meanwhile_is_kept(new_place: Place) -> None:
    folder = made_at(new_place, make_dataset, 60)
    remove(folder, *range(0, 60, 2))
    written: list[int] = []
    stop = threading.Event()

    def write() -> None:
        stream = stream_of(folder, "writer")
        while not stop.is_set() and len(written) < 200:
            idx = len(stream)
            try:
                stream.set_output(idx, Sample({"label": TxtNumpyItem(np.array([1000 + idx]))}))
            except ConflictError:
                continue
            written.append(1000 + idx)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(6):
        compact(folder)
    stop.set()
    thread.join()
    compact(folder)
    assert labels(folder)[:30] == list(range(1, 60, 2))
    assert labels(folder)[30:] == written
    assert check(folder).ok


def test_a_sample_taken_before_is_not_written_over_another(dataset: Place) -> None:
    stream = stream_of(dataset)
    last, third = stream[5], stream[3]
    remove(dataset, 0)
    compact(dataset)
    after = contents(dataset)
    with pytest.raises(ConflictError):
        stream.set_output(3, third.set_value("label", np.array([9])))
    with pytest.raises(ConflictError):  # though nothing was read of it
        stream.set_output(3, third.set_item("new", TxtNumpyItem(np.ones(1))), keys=["new"])
    with pytest.raises(ConflictError):
        stream.remove(5, last)
    assert contents(dataset) == after


_OTHER = """
import sys
from prefect_pipestream.sequences import DataStream
stream = DataStream.read_write_underfolder(sys.argv[1], run_key="other")
stream.remove(1)
print("removed", flush=True)
sys.stdin.read()
"""


@pytest.mark.about_files
def test_a_run_of_another_process_is_waited_for(dataset: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(dataset)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"removed\n"
        with pytest.raises(DatasetError, match="run 'other' is being written, by process"):
            compact(dataset)
        other.communicate(b"")
    assert compact(dataset).moved == 4


# -- undo ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["label", "new"])
@pytest.mark.parametrize("idx", [2, 5])
def test_an_undo_does_not_mix_samples(dataset: Place, key: str, idx: int) -> None:
    remove(dataset, 0)
    compact(dataset, "c")
    stream_of(dataset, "later").set_output(idx, Sample({key: TxtNumpyItem(np.ones(1))}))
    after = contents(dataset)
    with pytest.raises(UndoRefusedError, match="later"):
        undo_run(dataset, "c")
    assert contents(dataset) == after
    with pytest.raises(UndoRefusedError):
        undo_run(dataset, "removal")
    undo_run(dataset, ["removal", "c", "later"])
    assert labels(dataset) == list(range(6))


def test_a_run_from_before_is_undone_together_with_it(dataset: Place) -> None:
    before = contents(dataset)
    stream = stream_of(dataset, "before")
    for idx in (1, 4):
        stream.set_output(idx, stream[idx].set_value("label", np.array([70 + idx])))
    remove(dataset, 0)
    compact(dataset, "c")
    with pytest.raises(UndoRefusedError, match="pipestream undo"):
        undo_run(dataset, "before")
    undo_run(dataset, ["before", "removal", "c"])
    assert contents(dataset) == before


# -- what transforms noted -----------------------------------------------------------------


def see(folder: Place, run_key: str, indices: list[int], fingerprint: str = "f") -> None:
    """Notes samples as a transform sees them that changes nothing."""
    dataset = open_dataset(folder, watch=True)
    writer = open_writer(folder, exists_ok=True, run_key=run_key, dataset=dataset)
    writer.begin_run({"fingerprint": fingerprint})
    with writer.batch(signed=True) as batch:
        for idx in indices:
            batch.record(idx, "unchanged", origin=dataset.take(idx)[1])
    ended(folder, run_key)


def seen(folder: Place, fingerprint: str = "f") -> list[int]:
    """The labels of the samples that are as the transform saw them."""
    known = signatures(folder, fingerprint)
    dataset = open_dataset(folder)
    found = []
    for idx in dataset.indices().tolist():
        items, origin = dataset.take(idx)
        files = ((n, f.version) for n, f in origin.sources.items() if f.version is not None)
        if known.get(idx) == signature_of(files):
            found.append(int(items["label"]()[0]))
    return found


def test_what_was_seen_stays_seen_and_nothing_else(dataset: Place) -> None:
    see(dataset, "one", [0, 2, 3, 5])
    stream = stream_of(dataset)
    stream.set_output(5, stream[5].set_value("metadata", {"idx": 50}))
    remove(dataset, 1)
    assert seen(dataset) == [0, 2, 3]
    compact(dataset, "c")
    assert seen(dataset) == [0, 2, 3]
    see(dataset, "two", [3])  # which is the fourth by now
    remove(dataset, 0, run_key="more")
    compact(dataset, "d")
    assert [run.key for run in compactions(dataset)] == ["c", "d"]
    assert seen(dataset) == [2, 3, 4]
    undo_run(dataset, "d")
    assert seen(dataset) == [2, 3, 4]
    undo_run(dataset, "more")
    assert seen(dataset) == [0, 2, 3, 4]
    undo_run(dataset, "c")
    assert seen(dataset) == [0, 2, 3]


@pytest.mark.about_files
def test_one_of_equal_size_and_time_is_not_taken_for_another(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for idx in range(4):
        path = folder / f"data/{idx}_label.txt"
        path.write_text(f"{idx}\n")
        os.utime(path, (10**9, 10**9))
    see(folder, "one", [0, 1])
    remove(folder, 0)
    compact(folder)
    assert seen(folder) == [1]  # and not 2, which has the name and the time that 1 had
    (folder / "data/3_label.txt").write_text("3\n")
    os.utime(folder / "data/3_label.txt", (10**9, 10**9))
    assert seen(folder) == [1]


def test_pruned_runs_are_followed_too(dataset: Place) -> None:
    see(dataset, "one", [0, 2, 3, 4])
    prune_runs(dataset, timedelta(0))
    remove(dataset, 1)
    compact(dataset, "c")
    assert seen(dataset) == [0, 2, 3, 4]
    see(dataset, "two", [4])
    remove(dataset, 0, run_key="more")
    compact(dataset, "d")
    expected = [2, 3, 4, 5]
    assert seen(dataset) == expected
    pruned = prune_runs(dataset, timedelta(0))
    assert {"c", "d"} <= {run.run_key for run in pruned}
    assert seen(dataset) == expected


def test_a_run_of_another_transform_is_of_no_account(dataset: Place) -> None:
    see(dataset, "one", [2], "f")
    see(dataset, "two", [3], "g")
    remove(dataset, 0)
    compact(dataset)
    assert (seen(dataset, "f"), seen(dataset, "g"), seen(dataset, "h")) == ([2], [3], [])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("remove"), st.sets(st.integers(0, 9), max_size=3)),
            st.tuples(st.just("see"), st.sets(st.integers(0, 9), max_size=5)),
            st.tuples(st.just("change"), st.sets(st.integers(0, 9), max_size=2)),
            st.tuples(st.sampled_from(["compact", "prune", "add", "undo"]), st.just(set())),
        ),
        max_size=9,
    )
)
def test_any_history_of_what_was_seen(kind: str, steps: list[tuple[str, set[int]]]) -> None:
    with temporary_place(kind) as folder:
        made_at(folder, make_dataset, 6, zfill=3)
        known: set[int] = set()
        fresh, last = 100, ""
        for number, (what, indices) in enumerate(steps):
            at = {
                idx: int(s["label"]()[0]) for idx, s in enumerate(stream_of(folder)) if "label" in s
            }
            there = [idx for idx in sorted(indices) if idx in at]
            if what == "remove":
                remove(folder, *there, run_key=f"r{number}")
                known -= {at[idx] for idx in there}
                last = ""
            elif what == "see" and there:
                see(folder, f"s{number}", there)
                known |= {at[idx] for idx in there}
                last = ""
            elif what == "change":
                for idx in there:
                    stream = stream_of(folder, f"c{number}")
                    metadata = YamlMetadataItem({"new": number})
                    stream.set_output(idx, stream[idx].set_item("metadata", metadata))
                    known -= {at[idx]}
                last = ""
            elif what == "compact":
                last = f"k{number}" if compact(folder, f"k{number}").moved else ""
            elif what == "prune":
                prune_runs(folder, timedelta(0))
                last = ""
            elif what == "undo" and last:
                undo_run(folder, last)
                last = ""
            elif what == "add":
                fresh += 1
                item = TxtNumpyItem(np.array([fresh]))
                stream = stream_of(folder, f"a{number}")
                stream.set_output(len(stream) + 1, Sample({"label": item}))
                last = ""
            assert set(seen(folder)) == known, (number, what)


# -- killed --------------------------------------------------------------------------------

_KILLED = """
import os, sys
from prefect_pipestream.underfolder.runs import compacting
from prefect_pipestream.underfolder import compact
compacting._BATCH = 3
left = int(sys.argv[2])
def die(frame, event, arg):
    global left
    if event == "call" and "prefect_pipestream" in frame.f_code.co_filename:
        left -= 1
        if left < 0:
            os._exit(9)
sys.setprofile(die)
compact(sys.argv[1], "c")
sys.setprofile(None)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_anywhere_it_is_gone_on_with(tmp_path: Path) -> None:
    template = make_dataset(tmp_path / "template", 12)
    remove(template, 0, 4, 5, 11)
    see(template, "one", [1, 2, 8])
    order, before = by_rank(template), exact(template)
    random = np.random.default_rng(1)
    killed = 0
    for number in range(40):
        folder = tmp_path / f"set-{number}"
        shutil.copytree(template, folder)  # keeps times
        for _ in range(int(random.integers(1, 4))):
            calls = str(int(random.integers(50, 6000)))
            arguments = [sys.executable, "-c", _KILLED, str(folder), calls]
            killed += subprocess.run(arguments, cwd=Path(__file__).parents[2]).returncode == 9
        compact(folder, "c")
        assert by_rank(folder) == order
        assert open_dataset(folder).indices().tolist() == list(range(len(order)))
        assert seen(folder) == [1, 2, 8]
        assert check(folder).ok
        undo_run(folder, "c")
        assert exact(folder) == before
        shutil.rmtree(folder)
    assert killed > 20
