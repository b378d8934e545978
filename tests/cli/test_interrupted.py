"""Ctrl-C, SIGTERM, a full disk: what is said of the run that did not come to its end."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_pipestream import cli, list_runs
from prefect_pipestream.storage.address import Place
from tests.dataset_files import beside, made_at
from tests.prefect_layer.datasets import make_dataset

TRANSFORM = '["verify-items", "tests.cli.stages:press_ctrl_c", {"rotate-flip": {"rotate": 90}}]'


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("command", "options", "key"),
    [
        ("clean", ["--keys", "image", "--select", "changed", "--max-failed", "0.25"], "--run-key"),
        ("clean", ["--json"], "--run-key"),
        ("clean", ["--run-key", "my own"], None),
        ("reprocess", ["--keys", "image"], "--failed-run"),
    ],
)
def test_the_command_that_goes_on_can_be_pasted_and_is_the_same(
    command: str,
    options: list[str],
    key: str | None,
    capsys: pytest.CaptureFixture[str],
    new_place: Place,
) -> None:
    folder = made_at(beside(new_place, "some photos"), make_dataset)
    given = [command, str(folder), "--transform", TRANSFORM, *options]
    if command == "reprocess":
        assert cli.main(["clean", str(folder), "--transform", "tests.cli.stages:fail"]) == 1
    assert cli.main(given) == 130
    (*_, last) = [run.run_key for run in list_runs(folder)]
    pasted = capsys.readouterr().err.strip().splitlines()[-1]
    assert shlex.split(pasted) == ["pipestream", *given, *([key, last] if key else [])]


@pytest.mark.usefixtures("prefect_api")
def test_termination_is_told_as_ctrl_c_is_and_has_its_own_status(
    capsys: pytest.CaptureFixture[str], new_place: Place
) -> None:
    folder = made_at(new_place, make_dataset)
    given = ["clean", str(folder), "--transform", '["tests.cli.stages:terminate", "invert"]']
    assert cli.main(given) == 143
    said = capsys.readouterr().err
    assert "Terminated. What was done is kept." in said
    (run,) = list_runs(folder)
    pasted = shlex.split(said.strip().splitlines()[-1])
    assert pasted == ["pipestream", *given, "--run-key", run.run_key]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("prefect_api")
def test_of_a_full_disk_one_commit_is_taken_back_and_the_way_on_is_told(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL

    folder = make_dataset(tmp_path / "photos")
    given = ["clean", str(folder), "--transform", '["tests.cli.stages:fill_disk", "invert"]']
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-m", "prefect_pipestream", *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr
    assert "File too large" in said
    assert "The dataset is as it was before this step" in said
    assert ".." not in said
    (run,) = list_runs(folder)
    pasted = shlex.split(said.strip().splitlines()[-1])
    assert pasted == ["pipestream", *given, "--run-key", run.run_key]


@pytest.mark.parametrize("key", ["", "\udcff"])
def test_what_is_no_run_key_is_refused_before_anything_runs(
    key: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["clean", str(tmp_path), "--transform", "invert", "--run-key", key]) == 2
    assert "--run-key" in capsys.readouterr().err
