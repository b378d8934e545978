"""The flows as scripts: what a person sees in the terminal."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.cli import main
from prefect_pipestream.errors import RunNotFoundError
from prefect_pipestream.flows import (
    build_dataset,
    clean_dataset,
    reprocess_failed,
    undo_run,
    validate_dataset,
)
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import list_runs
from tests.dataset_files import Files, beside, made_at

from .datasets import files_of, image_of, make_dataset, truncate_image

FLOWS = Path(__file__).parents[2] / "flows"
CHANGE = '["verify-items", "invert"]'


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder and a terminal of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for handler in logging.getLogger().handlers:  # a command quietens Prefect until it ends
        monkeypatch.setattr(handler, "level", handler.level)


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)


pytestmark = pytest.mark.usefixtures("prefect_api")


def test_demonstration_is_cleaned_and_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["clean"]) == 0

    shown = capsys.readouterr().out
    counts = re.findall(r"^ *(\d+) +(written|unchanged|skipped|failed|removed)", shown, re.M)
    assert counts == [
        ("50", "written"),
        ("236", "unchanged"),
        ("0", "skipped"),
        ("2", "failed"),
        ("12", "removed"),
    ]
    assert re.search(r"300 samples in \d+\.\d s, \d+ samples/s", shown)
    assert re.search(r"77 +3 .*data/000077_image\.png: .*truncated", shown)
    assert re.search(r"205 +3 .*data/000205_metadata\.yaml: ", shown)
    assert "Traceback" not in shown


def test_own_folder_is_cleaned(folder: Place) -> None:
    assert main(["clean", str(folder), "--transform", CHANGE, "--keys", "image"]) == 0

    image = DataStream.read_write_underfolder(folder)[3]["image"]()
    assert np.array_equal(image, 255 - image_of(3))


def test_bad_sample_gives_a_report_and_no_stack_trace(
    folder: Place,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truncate_image(folder, 2)

    assert main(["clean", str(folder), "--transform", CHANGE]) == 1

    shown = capsys.readouterr()
    assert "data/002_image.png" in shown.out
    assert "Too many samples failed" in shown.out
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{folder}", "--transform", "invrt"], 2, "Did you mean 'invert'"),
        (["{folder}/none", "--transform", "invert"], 1, "no (folder|objects)"),
        (["{folder}", "--transform", "invert", "--select", "failed"], 1, "no run was made"),
    ],
)
def test_mistake_is_told_in_a_line(
    folder: Place,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    before = files_of(folder)

    assert main(["clean", *(one.format(folder=folder) for one in arguments)]) == status

    shown = capsys.readouterr()
    assert re.search(message, shown.err)
    assert "Traceback" not in shown.out + shown.err
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["somewhere"], "--transform: it is needed"),
        (["somewhere", "--transform", "3"], "no list of operations"),
        (["somewhere", "--transform", "{a: [1"], "not YAML"),
    ],
)
def test_wrong_command_line_is_explained(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["clean", *arguments]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["clean", "{at}", "--transform", "invert"],
        ["build", "{at}", "new", "--transform", "invert"],
        ["reprocess", "{at}", "--transform", "invert"],
        ["validate", "{at}"],
        ["review", "{at}", "--transform", "invert"],
    ],
)
def test_what_is_no_dataset_is_told_before_prefect_starts(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").touch()
    for at in ("none", "a file"):
        assert main([word.format(at=at) for word in command]) == 1
        shown = capsys.readouterr()
        assert f"there is no folder {tmp_path}/{at}." in shown.err
        assert "Prefect" not in shown.err + shown.out


def test_a_report_file_that_cannot_be_written_is_a_sentence(
    folder: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(folder), "--report-file", "none/problems.csv"]) == 1
    shown = capsys.readouterr().err
    assert "none/problems.csv" in shown
    assert "Traceback" not in shown


def test_new_dataset_is_built(folder: Place) -> None:
    before, target = files_of(folder), beside(folder, "built")
    arguments = [str(folder), str(target), "--transform", CHANGE, "--zfill", "4"]

    assert main(["build", *arguments]) == 0
    assert main(["build", *arguments]) == 1

    assert files_of(folder) == before
    assert "data/0005_image.png" in Files(target)


def test_dataset_is_built_of_the_demonstration(tmp_path: Path) -> None:
    assert main(["build"]) == 0

    assert len(DataStream.read_write_underfolder(tmp_path / "datasets/demo/built-1")) == 300


def script(tmp_path: Path, stdout: int) -> "subprocess.CompletedProcess[str]":
    """Runs the demonstration as a script, with a Prefect of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    return subprocess.run(
        [sys.executable, str(FLOWS / "clean_dataset.py")],
        cwd=tmp_path,
        env={**environment, "PREFECT_HOME": str(tmp_path / "prefect")},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.slow
def test_a_reader_of_the_report_may_leave(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = script(tmp_path, write)
    os.close(write)

    assert done.returncode == 141
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_script_runs_with_the_embedded_api(tmp_path: Path) -> None:
    done = script(tmp_path, subprocess.PIPE)

    assert done.returncode == 0, done.stderr
    assert "300 samples" in done.stdout
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_failed_samples_are_processed_again_once_they_are_mended(
    folder: Place,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = Files(folder)["data/001_image.png"]
    truncate_image(folder, 1)
    command = [str(folder), "--transform", CHANGE]
    assert main(["clean", *command]) == 1
    Files(folder)["data/001_image.png"] = whole
    capsys.readouterr()

    assert main(["reprocess", *command, "--failed-run", ""]) == 0  # the last one

    assert re.search(r"^ *1 +written", capsys.readouterr().out, re.M)
    images = [s["image"]() for s in DataStream.read_write_underfolder(folder)]
    assert all((image == 255 - image_of(idx)).all() for idx, image in enumerate(images))


def test_a_run_is_taken_back_and_an_unknown_one_is_a_mistake(
    folder: Place,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_of(folder)
    assert main(["clean", str(folder), "--transform", CHANGE, "--run-key", "k"]) == 0
    assert files_of(folder) != before

    assert main(["undo", str(folder), "k"]) == 0

    assert files_of(folder) == before
    assert main(["undo", str(folder), "k"]) == 1
    assert "undone already" in capsys.readouterr().err


def test_forms_take_the_folder_of_a_dataset_or_its_block(folder: Place) -> None:
    before, new = files_of(folder), str(beside(folder, "new"))
    block = ReadWriteUnderfolder(folder=folder)

    assert clean_dataset(folder, ["invert"]).counts["written"] == 6
    assert clean_dataset({"folder": str(folder)}, ["invert"]).counts["written"] == 6  # as deployed
    assert build_dataset(str(folder), new, ["invert"]).counts["written"] == 6
    assert validate_dataset(block).checked == validate_dataset(str(folder)).checked == 6
    undo_run(folder)
    undo_run(block)
    assert files_of(folder) == before


def test_some_samples_are_taken_back_and_the_run_does_them_again(folder: Place) -> None:
    before = files_of(folder)
    clean_dataset(folder, ["invert"], run_key="k")
    after = files_of(folder)
    undo_run(folder, indices=[1, 2])
    changed = {name for name in after if after[name] != files_of(folder)[name]}
    assert {int(Path(name).name.split("_")[0]) for name in changed} == {1, 2}
    report = clean_dataset(folder, ["invert"], run_key="k")
    assert (report.total, report.counts["written"]) == (6, 6)
    again = files_of(folder)
    assert {name: again[name] == after[name] for name in again} == dict.fromkeys(after, True)
    undo_run(folder, "k")
    assert files_of(folder) == before


def test_without_a_key_the_last_run_is_meant_and_a_wrong_key_lists_the_last_ones(
    folder: Place,
) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run was made on this dataset yet\.$"):
        undo_run(folder)
    truncate_image(folder, 2)
    for key in ("first", "second"):
        clean_dataset(folder, ["verify-items", "invert"], run_key=key, max_failed=1)

    listed = r"second \(\d{4}-.*: 5 written, 1 failed\)\nfirst \(\d{4}-.*5 written, 1 failed\)$"
    with pytest.raises(RunNotFoundError, match=listed):
        undo_run(folder, "third")
    with pytest.raises(RunNotFoundError, match=listed):
        reprocess_failed(folder, ["invert"], "third")

    assert reprocess_failed(folder, ["invert"], max_failed=1).total == 1
    assert [run.run_key for run in list_runs(folder) if run.counts["failed"]][:2] == [
        "first",
        "second",
    ]


def test_where_all_runs_were_undone_that_is_said_and_not_that_there_were_none(
    folder: Place,
) -> None:
    clean_dataset(folder, ["invert"], run_key="only")
    undo_run(folder)
    said = r"all were undone or pruned\. The last runs that stand:\nundo:only "
    with pytest.raises(RunNotFoundError, match=said):
        reprocess_failed(folder, ["invert"])


def test_a_run_that_goes_on_with_another_transform_says_so(
    folder: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", str(folder), "--transform", "invert", "--run-key", "k"]) == 0
    assert "another transform" not in capsys.readouterr().out

    assert main(["clean", str(folder), "--transform", "autocontrast", "--run-key", "k"]) == 0

    assert "was begun with another transform" in capsys.readouterr().out


def test_lost_runs_are_looked_for_on_a_server_only(capsys: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    assert main(["recover", "--tag", "of none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"scheduled_again": []}
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main(["recover"]) == 2
    assert "prefect server start" in capsys.readouterr().err
