"""A dataset that is compacted between its runs, against a real Prefect API."""

from typing import Any

import pytest

from prefect_pipestream import REMOVE
from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import DatasetError, RunTakenOverError, UndoRefusedError
from prefect_pipestream.flows import compact_dataset, process_samples
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import compact, compactions, list_runs, moves_of, undo_run
from tests.dataset_files import made_at
from tests.underfolder.conftest import run_of

from .datasets import count_runs, files_of, make_dataset

pytestmark = pytest.mark.usefixtures("prefect_api")

N = 12


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, N)


def number(sample: Sample) -> int:
    return int(sample["metadata"]()["number"])


def count_or_remove(sample: Sample) -> Any:
    return REMOVE if number(sample) in (0, 3, 4, 11) else count_runs(sample)


def process(folder: Place, transform: Any = count_or_remove, **arguments: Any) -> RunReport:
    arguments = {"sample_retries": 0, "artifacts": False, **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def counts(folder: Place) -> dict[int, int]:
    """How often each sample was counted, by its number, in their order."""
    stream = DataStream.read_write_underfolder(folder)
    found = (stream[idx]["metadata"]() for idx in stream.indices().tolist())
    return {one["number"]: one["runs"] for one in found}


KEPT = [idx for idx in range(N) if idx not in (0, 3, 4, 11)]


def test_the_nightly_run_after_it_has_nothing_to_do(folder: Place) -> None:
    first = process(folder, select="changed")
    between = files_of(folder)
    key = compact_dataset(folder)
    assert counts(folder) == dict.fromkeys(KEPT, 1)
    assert process(folder, select="changed").total == 0
    (run,) = compactions(folder)
    assert run.key == key
    assert moves_of(run)[0].tolist() == [1, 0]
    assert {r.run_key: r.state for r in list_runs(folder)}[key] == "finished"
    stream = DataStream.read_write_underfolder(folder)
    stream.set_output(2, stream[2].deep_set("metadata.runs", 7))
    assert process(folder, select="changed").counts["written"] == 1
    with pytest.raises(UndoRefusedError):
        undo_run(folder, key)
    later = [r.run_key for r in list_runs(folder)[2:]]
    undo_run(folder, [key, *later])
    assert files_of(folder) == between
    assert process(folder, select="changed").total == 0
    undo_run(folder, first.run_key)
    assert len(counts(folder)) == N


def test_what_earlier_runs_noted_of_indices_is_not_used(folder: Place) -> None:
    def fails(sample: Sample) -> Any:
        if number(sample) in (6, 7):
            raise ValueError("not now")
        return count_or_remove(sample)

    process(folder, fails, run_key="k", max_failed=1.0)
    assert run_of(folder, "k").failed_indices() == [6, 7]
    key = compact_dataset(str(folder), "c")
    after = files_of(folder)
    for arguments in ({"select": "failed"}, {"run_key": "k"}, {"run_key": "k", "select": "failed"}):
        with pytest.raises(DatasetError, match="run 'k' began before run 'c' moved samples"):
            process(folder, **arguments)
    assert files_of(folder) == after
    # What failed was never noted as seen.
    assert process(folder, fails, select="changed", max_failed=1.0).counts["failed"] == 2
    report = process(folder, fails, select="changed", run_key="new", max_failed=1.0)
    assert report.total == 2
    undo_run(folder, key)
    assert process(folder, run_key="k", select="failed").done_before == 10
    assert counts(folder)[6] == 1


@pytest.mark.parametrize("at", [1, 6])
def test_a_run_that_chose_its_samples_before_stops(folder: Place, at: int) -> None:
    stream = DataStream.read_write_underfolder(folder)
    stream.remove(0)

    def interrupted(sample: Sample) -> Any:
        if number(sample) == at:
            compact(folder, "c")
        return count_runs(sample)

    with pytest.raises(RunTakenOverError, match="run 'c' moved samples to other indices"):
        process(folder, interrupted, run_key="k", chunk_size=3)
    done = len(run_of(folder, "k").done_indices())
    assert sum(counts(folder).values()) == done
    assert process(folder, interrupted, select="changed").counts["written"] == N - 1 - done
    assert counts(folder) == dict.fromkeys(range(1, N), 1)


def test_a_run_that_had_not_begun_to_write_stops_too(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key="k").for_attempt()
    DataStream.read_write_underfolder(folder, run_key="other").remove(0)
    compact(folder, "c")
    with pytest.raises(RunTakenOverError, match="run 'c' moved samples"):
        stream.begin_run(fingerprint="f")


def test_a_flow_by_that_name_may_be_run_again(folder: Place) -> None:
    process(folder)
    assert compact_dataset(folder, "c") == compact_dataset(ReadWriteUnderfolder(folder=folder), "c")
    assert compact_dataset(folder, "d") == "d"
    assert [run.key for run in compactions(folder)] == ["c"]
