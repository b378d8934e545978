"""Flow runs, and people, that work on one dataset at once."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import ConflictError, UndoRefusedError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import check, list_runs, undo_run
from tests.runs.datasets import contents, copy_of, differences, image_of, labels, make_dataset
from tests.runs.processes import FlowProcess, Host

SAMPLES = 400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", SAMPLES, with_metadata=True)


class Person(threading.Thread):
    """Opens samples of a dataset, looks at them, and notes that they were seen, until stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}
        self.conflicts = 0
        self.mixed: list[int] = []
        self.stop = threading.Event()
        self._folder = folder

    def run(self) -> None:
        stream = DataStream.read_write_underfolder(self._folder)
        idx = 0
        while not self.stop.is_set():
            idx = (idx + 37) % SAMPLES
            sample = stream[idx]
            note = sample["note"]()
            changed = sample.set_value("note", {**note, "seen": note["seen"] + 1})
            try:
                stream.set_output(idx, changed, ["note"])
            except ConflictError:
                self.conflicts += 1
                continue
            self.seen[idx] = self.seen.get(idx, 0) + 1
            time.sleep(0.002)


def assert_sound(folder: Path, runs: int) -> None:
    assert check(folder).ok
    done = [run for run in list_runs(folder) if run.state == "finished"]
    assert [run.counts["written"] for run in done] == [SAMPLES] * runs


def notes_seen(folder: Path) -> dict[int, int]:
    paths = sorted(folder.glob("data/*_note.yaml"))
    seen = {idx: Item.get_instance(path)()["seen"] for idx, path in enumerate(paths)}
    return {idx: times for idx, times in seen.items() if times}


def test_runs_that_write_different_items_and_a_person(host: Host, folder: Path) -> None:
    before = contents(folder)
    person = Person(folder)
    common = {"folder": str(folder), "chunk_size": 50}
    with (
        FlowProcess(host, **common, transform="invert_slowly", keys=["image"]) as images,
        FlowProcess(host, **common, transform="count_slowly", keys=["label"]) as counters,
    ):
        person.start()
        reports = [images.result(), counters.result()]
        person.stop.set()
        person.join()

    assert [report["counts"]["written"] for report in reports] == [SAMPLES, SAMPLES]
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
    for idx in range(SAMPLES):
        image = Item.get_instance(folder / f"data/{idx:05d}_image.png")()
        assert np.array_equal(image, 255 - image_of(idx))
    assert sum(person.seen.values()) > 20
    assert notes_seen(folder) == person.seen
    assert_sound(folder, 2)

    undo_run(folder, reports[0]["run_key"])  # it takes back its own items, and no others

    changed = {name.partition("_")[2] for name in differences(contents(folder), before)}
    assert changed == {"label.txt", "note.yaml"}
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]


def test_runs_that_count_in_the_same_item(host: Host, folder: Path) -> None:
    common = {"folder": str(folder), "transform": "count_slowly"}
    with (
        FlowProcess(host, **common, chunk_size=40) as first,
        FlowProcess(host, **common, chunk_size=60) as second,
        FlowProcess(host, **common, runner="processes") as third,
    ):
        for process in (first, second, third):
            assert process.result()["counts"]["written"] == SAMPLES

    assert labels(folder) == [idx + 3 for idx in range(SAMPLES)]
    assert_sound(folder, 3)
    first_to_end = min(list_runs(folder), key=lambda run: run.last_commit or run.started)
    with pytest.raises(UndoRefusedError):
        undo_run(folder, first_to_end.run_key)
    assert labels(folder) == [idx + 3 for idx in range(SAMPLES)]


def test_same_run_started_twice_writes_each_sample_once(host: Host, folder: Path) -> None:
    common = {"folder": str(folder), "transform": "count_slowly", "run_key": "one"}
    with FlowProcess(host, 0.02, **common) as first, FlowProcess(host, 0.02, **common) as second:
        outcomes = [first.outcome(), second.outcome()]

    assert sorted(status for status, _ in outcomes) == [0, 1]
    (errors,) = (errors for status, errors in outcomes if status)
    assert "RunTakenOverError" in errors
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]


def test_build_from_a_dataset_that_another_run_changes(
    host: Host, folder: Path, tmp_path: Path
) -> None:
    before = contents(copy_of(folder, tmp_path / "before"))
    common = {"folder": str(folder), "chunk_size": 50}
    with (
        FlowProcess(
            host, **common, target=str(tmp_path / "new"), transform="invert_slowly"
        ) as build,
        FlowProcess(host, **common, transform="count_slowly") as change,
    ):
        for process in (build, change):
            assert process.result()["counts"]["written"] == SAMPLES

    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
    for idx, label in enumerate(labels(tmp_path / "new")):
        assert label in (idx, idx + 1)
    assert check(tmp_path / "new").ok
    unchanged = {name for name in before if not name.endswith("label.txt")}
    assert not unchanged.intersection(differences(contents(folder), before))


def test_one_that_removes_and_one_that_counts(host: Host, folder: Path) -> None:
    common = {"folder": str(folder)}
    with (
        FlowProcess(
            host, **common, transform="count_or_remove_slowly", chunk_size=40, runner="processes"
        ) as first,
        FlowProcess(host, **common, transform="count_slowly", chunk_size=60) as second,
    ):
        counts = [process.result()["counts"] for process in (first, second)]

    kept = [idx for idx in range(SAMPLES) if image_of(idx)[0, 0] % 5 != 3]
    assert labels(folder) == [idx + 2 for idx in kept]
    assert (counts[0]["written"], counts[0]["removed"]) == (len(kept), SAMPLES - len(kept))
    assert counts[1]["written"] + counts[1]["skipped"] == SAMPLES
    assert [one["failed"] for one in counts] == [0, 0]
    assert check(folder).ok
