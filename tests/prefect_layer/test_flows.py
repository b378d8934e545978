"""The flows as scripts: what a person sees in the terminal."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from prefect_pipestream.sequences import DataStream

from .datasets import files_of, image_of, make_dataset, truncate_image

FLOWS = Path(__file__).parents[2] / "flows"
CHANGE = '["verify-items", "invert"]'


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], Callable[[list[str]], int]]:
    """Loads a flow as `python flows/<name>.py` does, to run in this process's Prefect API."""
    monkeypatch.syspath_prepend(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for handler in logging.getLogger().handlers:  # a script quietens Prefect until it ends
        monkeypatch.setattr(handler, "level", handler.level)

    def load(name: str) -> Callable[[list[str]], int]:
        module: ModuleType = __import__(name)
        main: Callable[[list[str]], int] = module.main
        return main

    return load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "set")


pytestmark = pytest.mark.usefixtures("prefect_api")


def test_demonstration_is_cleaned_and_reported(
    script: Callable[[str], Callable[[list[str]], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("clean_dataset")([]) == 0

    shown = capsys.readouterr().out
    counts = re.findall(r"^ *(\d+) +(written|unchanged|skipped|failed)", shown, re.M)
    assert counts == [("50", "written"), ("236", "unchanged"), ("12", "skipped"), ("2", "failed")]
    assert re.search(r"300 samples in \d+\.\d s, \d+ samples/s", shown)
    assert re.search(r"77 +3 .*data/000077_image\.png: .*truncated", shown)
    assert re.search(r"205 +3 .*data/000205_metadata\.yaml: ", shown)
    assert "Traceback" not in shown


def test_own_folder_is_cleaned(
    script: Callable[[str], Callable[[list[str]], int]], folder: Path
) -> None:
    assert script("clean_dataset")([str(folder), "--transform", CHANGE, "--keys", "image"]) == 0

    image = DataStream.read_write_underfolder(folder)[3]["image"]()
    assert np.array_equal(image, 255 - image_of(3))


def test_bad_sample_gives_a_report_and_no_stack_trace(
    script: Callable[[str], Callable[[list[str]], int]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truncate_image(folder, 2)

    assert script("clean_dataset")([str(folder), "--transform", CHANGE]) == 1

    shown = capsys.readouterr()
    assert "data/002_image.png" in shown.out
    assert "Too many samples failed" in shown.out
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--transform", "invrt"], "Did you mean 'invert'"),
        (["{folder}/none", "--transform", "invert"], "DatasetNotFoundError"),
        (["{folder}", "--transform", "invert", "--select", "failed"], "no run was made"),
    ],
)
def test_mistake_is_told_in_a_line(
    script: Callable[[str], Callable[[list[str]], int]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    before = files_of(folder)

    assert script("clean_dataset")([one.format(folder=folder) for one in arguments]) == 2

    shown = capsys.readouterr()
    assert message in shown.out
    assert "Traceback" not in shown.out + shown.err
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["somewhere"], "--transform is needed"),
        (["somewhere", "--transform", "3"], "no list of operations"),
        (["somewhere", "--transform", "{a: [1"], "not YAML"),
    ],
)
def test_wrong_command_line_is_explained(
    script: Callable[[str], Callable[[list[str]], int]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        script("clean_dataset")(arguments)

    assert message in capsys.readouterr().err


def test_new_dataset_is_built(
    script: Callable[[str], Callable[[list[str]], int]], folder: Path, tmp_path: Path
) -> None:
    before = files_of(folder)
    target = tmp_path / "built"
    arguments = [str(folder), str(target), "--transform", CHANGE, "--zfill", "4"]

    assert script("build_dataset")(arguments) == 0
    assert script("build_dataset")(arguments) == 2

    assert files_of(folder) == before
    assert (target / "data" / "0005_image.png").exists()


def test_dataset_is_built_of_the_demonstration(
    script: Callable[[str], Callable[[list[str]], int]], tmp_path: Path
) -> None:
    assert script("build_dataset")([]) == 0

    assert len(DataStream.read_write_underfolder(tmp_path / "datasets/demo/built-1")) == 300


@pytest.mark.slow
def test_script_runs_with_the_embedded_api(tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        [sys.executable, str(FLOWS / "clean_dataset.py")],
        cwd=tmp_path,
        env={**environment, "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "300 samples" in done.stdout
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_failed_samples_are_processed_again_once_they_are_mended(
    script: Callable[[str], Callable[[list[str]], int]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = (folder / "data/001_image.png").read_bytes()
    path = truncate_image(folder, 1)
    command = [str(folder), "--transform", CHANGE]
    assert script("clean_dataset")(command) == 1
    path.write_bytes(whole)
    capsys.readouterr()

    assert script("reprocess_failed")([*command, "--failed-run", ""]) == 0  # the last one

    assert re.search(r"^ *1 +written", capsys.readouterr().out, re.M)
    images = [s["image"]() for s in DataStream.read_write_underfolder(folder)]
    assert all((image == 255 - image_of(idx)).all() for idx, image in enumerate(images))


def test_a_run_is_taken_back_and_an_unknown_one_is_a_mistake(
    script: Callable[[str], Callable[[list[str]], int]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_of(folder)
    assert script("clean_dataset")([str(folder), "--transform", CHANGE, "--run-key", "k"]) == 0
    assert files_of(folder) != before

    assert script("undo_run")([str(folder), "k"]) == 0

    assert files_of(folder) == before
    assert script("undo_run")([str(folder), "k"]) == 2
    assert "RunNotFoundError" in capsys.readouterr().out
