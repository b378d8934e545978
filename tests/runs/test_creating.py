"""A new dataset belongs to the run that created it, also when two runs race."""

import json
import multiprocessing
import time
import traceback
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from prefect_pipestream.errors import DatasetExistsError
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import Underfolder, check, list_runs
from tests.runs.datasets import contents, labels, make_dataset
from tests.runs.processes import FlowProcess, Host

SAMPLES = 60


def race(folder: Path, run_key: str, start: Barrier, result: Path) -> None:
    start.wait()
    try:
        stream = DataStream.create_new_underfolder(folder, zfill=3, run_key=run_key)
        sample = DataStream.read_write_underfolder(folder.parent / "source")[0]
        stream.set_output(0, sample.set_value("label", sample["label"]() + 1))
        result.write_text("won")
    except DatasetExistsError as error:
        result.write_text(str(error))
    except BaseException:
        result.write_text(traceback.format_exc())
        raise


def test_of_processes_that_create_one_folder_one_wins(tmp_path: Path) -> None:
    make_dataset(tmp_path / "source", 1)
    fork = multiprocessing.get_context("fork")
    for number in range(25):
        folder = tmp_path / f"new{number}"
        start = fork.Barrier(4)
        results = [tmp_path / f"result{number}-{racer}" for racer in range(4)]
        racers = [
            fork.Process(target=race, args=(folder, f"run {racer}", start, result))
            for racer, result in enumerate(results)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()

        said = [result.read_text() for result in results]
        assert said.count("won") == 1, said
        winner = f"run {said.index('won')}"
        assert all(f"created by run '{winner}'" in text for text in said if text != "won"), said
        assert json.loads((folder / ".pipestream/claim.json").read_text())["run_key"] == winner
        assert labels(folder) == [1]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_of_flow_runs_that_create_one_folder_one_wins_and_is_resumed(
    host: Host, tmp_path: Path
) -> None:
    source = make_dataset(tmp_path / "source", SAMPLES)
    new = tmp_path / "new"
    common = {"folder": str(source), "target": str(new), "transform": "count_slowly"}
    with (
        FlowProcess(host, 0.02, **common, run_key="a") as a,
        FlowProcess(host, 0.02, **common, run_key="b") as b,
    ):
        ended = {"a": a.outcome(), "b": b.outcome()}

    (winner,) = (key for key, (status, _) in ended.items() if status == 0)
    (errors,) = (errors for status, errors in ended.values() if status)
    assert "DatasetExistsError" in errors
    assert f"created by run '{winner}'" in errors
    assert labels(new) == [idx + 1 for idx in range(SAMPLES)]

    time.sleep(0.01)
    before = contents(new)
    with FlowProcess(host, **common, run_key=winner) as again:
        assert again.result()["counts"]["written"] == SAMPLES
    assert contents(new) == before
    assert len(Underfolder(new)) == SAMPLES
    assert [run.run_key for run in list_runs(new)] == [winner]
    assert check(new).ok
    assert not list(tmp_path.glob(".*"))
