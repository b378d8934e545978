"""Samples that a run has done are processed once more, as part of it."""

import json
from typing import Any

import pytest

from prefect_pipestream import cli
from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import RunNotFoundError, UndoRefusedError
from prefect_pipestream.flows import clean_dataset, process_samples
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import list_runs, undo_run
from tests.dataset_files import Files, made_at
from tests.prefect_layer.datasets import count_runs, files_of, make_dataset, runs_of

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)


def process(folder: Place, transform: Any = count_runs, **arguments: Any) -> Any:
    arguments = {"sample_retries": 0, "artifacts": False, "run_key": "r", **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def count_ten(sample: Any) -> Any:
    return sample.deep_set("metadata.runs", sample["metadata"]()["runs"] + 10)


def test_chosen_samples_of_a_run_are_done_once_more_from_what_they_were(folder: Place) -> None:
    before = files_of(folder)
    process(folder)

    report = process(folder, count_ten, indices=[1, 2, 3], where="metadata.number < 3", redo=True)

    assert runs_of(folder, range(6)) == [1, 10, 10, 1, 1, 1]
    assert report.counts["written"] == 6  # of the whole run
    assert [run.undoes for run in list_runs(folder)] == [None, "r"]
    assert process(folder, redo=True).counts["written"] == 6
    assert runs_of(folder, range(6)) == [1] * 6
    undo_run(folder, "r")
    assert files_of(folder) == before


def test_what_somebody_changed_since_is_not_redone(folder: Place) -> None:
    process(folder)
    Files(folder)["data/002_metadata.yaml"] = b"{number: 2, runs: 7}"
    before = files_of(folder)
    with pytest.raises(UndoRefusedError, match="2"):
        process(folder, indices=[1, 2], redo=True)
    assert files_of(folder) == before


def test_it_is_to_be_said_of_which_run(folder: Place) -> None:
    with pytest.raises(ValueError, match="run_key"):
        process(folder, run_key=None, redo=True)
    with pytest.raises(RunNotFoundError):
        process(folder, run_key="none", redo=True)
    with pytest.raises(ValueError, match="plan"):
        process(folder, redo=True, plan=True)
    assert list_runs(folder) == []


def test_by_form_and_command(folder: Place, capsys: pytest.CaptureFixture[str]) -> None:
    transform: list[Any] = ["invert"]
    clean_dataset(folder, transform, run_key="r")
    once = files_of(folder)
    report = clean_dataset(folder, transform, run_key="r", indices=[4], redo=True)
    assert report.done_before == 5
    assert files_of(folder) == once
    command = ["clean", str(folder), "--transform", "invert", "--run-key", "r", "--redo"]
    assert cli.main([*command, "--indices", "2-4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done_before"] == 3
    assert files_of(folder) == once
