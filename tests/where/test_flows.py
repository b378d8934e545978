"""Runs over the samples of which a query is true, by flows and by commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_pipestream import cli, list_runs
from prefect_pipestream.blocks import OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import DatasetWriteError, QueryError, UndoRefusedError
from prefect_pipestream.flows import (
    build_dataset,
    clean_dataset,
    export_dataset,
    import_dataset,
    process_samples,
    reprocess_failed,
    undo_run,
    validate_dataset,
)
from prefect_pipestream.review import compute_review
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.address import Place
from tests.dataset_files import Files, beside, made_at
from tests.layouts.photos import make_photos
from tests.prefect_layer.datasets import count_runs, files_of, make_dataset, runs_of
from tests.underfolder.conftest import run_of

pytestmark = pytest.mark.usefixtures("prefect_api")
QUERY = "metadata.number >= 2 and metadata.runs == 0"


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)


def process(folder: Place, transform: Any = count_runs, **arguments: Any) -> Any:
    arguments = {"sample_retries": 0, "artifacts": False, **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def test_a_run_is_over_what_query_indices_and_selection_all_choose(folder: Place) -> None:
    report = process(folder, where=QUERY, indices=[0, 1, 2, 3], run_key="r")
    assert report.counts["written"] == 2
    assert runs_of(folder, range(6)) == [0, 0, 1, 1, 0, 0]
    assert run_of(folder, "r").facts()["where"] == QUERY
    assert process(folder, where=QUERY, select="changed").counts["written"] == 2
    assert runs_of(folder, range(6)) == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("query", ["metadata.number = 2", "image.shape == 3", "'number' == 2"])
def test_a_wrong_query_is_refused_before_anything_runs(folder: Place, query: str) -> None:
    before = files_of(folder)
    for flow in (process, lambda folder, where: clean_dataset(folder, ["invert"], where=where)):
        with pytest.raises(QueryError, match=r"column|no metadata"):
            flow(folder, where=query)
    assert files_of(folder) == before
    assert list_runs(folder) == []


def test_a_run_that_is_gone_on_with_keeps_to_its_query(folder: Place) -> None:
    def stops_at_four(sample: Sample) -> Sample:
        if sample["metadata"]()["number"] == 4:
            raise DatasetWriteError(28, "the disk is full")
        return count_runs(sample)

    with pytest.raises(DatasetWriteError):
        process(folder, stops_at_four, where=QUERY, run_key="r", chunk_size=1)
    assert runs_of(folder, [0, 1]) == [0, 0]
    with pytest.raises(QueryError, match=r"was begun with where='metadata.number >= 2"):
        process(folder, where="metadata.number == 0", run_key="r")
    # What was done is not what the query says any more, and counts as done all the same.
    report = process(folder, run_key="r")
    assert report.total == 4
    assert runs_of(folder, range(6)) == [0, 0, 1, 1, 1, 1]
    process(folder, run_key="other", indices=[0])
    with pytest.raises(QueryError, match="was begun without a query"):
        process(folder, where=QUERY, run_key="other")


def test_outcomes_of_the_target_choose_samples_of_the_source(folder: Place) -> None:
    target = beside(folder, "built")
    build_dataset(folder, target, ["invert"], where="metadata.number < 4", run_key="r")
    assert sum(name.endswith("_metadata.yaml") for name in Files(target)) == 4
    left = "not has `run:r` and metadata.number < 9"
    assert (
        build_dataset(folder, OutputUnderfolder(folder=target), ["invert"], where=left).total == 2
    )


def test_a_validation_takes_a_query(folder: Place) -> None:
    Files(folder)["data/001_image.png"] = b"broken"
    assert validate_dataset(folder, where="metadata.number != 1").checked == 5
    assert validate_dataset(folder, where="metadata.number < 3", indices=[0, 2, 5]).checked == 2


def test_a_review_and_an_export_take_a_query(folder: Place, tmp_path: Path) -> None:
    review = compute_review(folder, ["invert"], "r", where="metadata.number > 3", indices=[0, 4, 5])
    assert [sample.idx for sample in review.changed] == [4, 5]
    report = export_dataset(folder, "image-folder", tmp_path / "out", where="metadata.number > 3")
    assert report.samples == 2


def test_commands_take_a_query(folder: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["where", str(folder), "metadata.number > 3"]) == 0
    assert capsys.readouterr().out.split() == ["4", "5"]
    assert cli.main(["where", str(folder), "not has mask", "--count"]) == 0
    assert capsys.readouterr().out.split() == ["6"]
    Files(folder)["data/001_metadata.yaml"] = b"["
    assert cli.main(["where", str(folder), "metadata.number > 3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["count"], found["indices"], list(found["problems"])) == (2, [4, 5], ["1"])
    for command in (["where", str(folder)], ["validate", str(folder), "--where"]):
        assert cli.main([*command, "metadata.number = 3"]) == 2
        assert "column 17" in capsys.readouterr().err
    clean = ["clean", str(folder), "--transform", "invert", "--where", "metadata.number > 3"]
    assert cli.main([*clean, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["written"] == 2
    metadata = yaml.safe_load(Files(folder)["data/004_metadata.yaml"])
    assert metadata["number"] == 4


def test_a_part_of_a_run_is_undone_by_a_query(
    folder: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    process(folder, run_key="r")
    undo_run(folder, "r", where="metadata.number > 3")
    assert runs_of(folder, range(6)) == [1, 1, 1, 1, 0, 0]
    undo_run(folder, "r", where="metadata.number < 2", indices=[1, 2])
    assert runs_of(folder, range(6)) == [1, 0, 1, 1, 0, 0]
    command = ["undo", str(folder), "r", "--where", "metadata.number == 2"]
    assert cli.main([*command, "--plan"]) == 0
    assert runs_of(folder, [2]) == [1]
    assert cli.main(command) == 0
    assert runs_of(folder, range(6)) == [1, 0, 0, 1, 0, 0]
    with pytest.raises(UndoRefusedError, match="is true of no sample of the 1 that are given"):
        undo_run(folder, "r", where="metadata.number > 9", indices=[3])
    with pytest.raises(QueryError):
        undo_run(folder, "r", where="metadata.number = 9")
    assert runs_of(folder, range(6)) == [1, 0, 0, 1, 0, 0]
    capsys.readouterr()
    assert cli.main(["undo", str(folder), "r", "--where", "metadata.number > 9"]) == 1
    assert "is true of no sample" in capsys.readouterr().err


def test_failed_samples_are_chosen_by_a_query(folder: Place) -> None:
    def fails(sample: Sample) -> Sample:
        raise ValueError("never")

    process(folder, fails, max_failed=1.0, run_key="r")
    report = reprocess_failed(folder, ["invert"], where="metadata.number > 3")
    assert report.counts["written"] == 2


def test_an_import_brings_in_what_a_query_says(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg")
    dataset = tmp_path / "dataset"
    report = import_dataset("image-folder", photos, dataset, where="metadata.label == 'dog'")
    assert report.counts["written"] == 2
    assert import_dataset("image-folder", photos, dataset).counts["written"] == 1
    with pytest.raises(QueryError):
        import_dataset("image-folder", photos, dataset, where="metadata.label = 'dog'")
