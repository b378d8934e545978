"""Ctrl-C: what is said of the run that was interrupted."""

import shlex
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_pipestream import cli
from prefect_pipestream.cli import prefect_terminal

TRANSFORM = (
    '["verify-items", {"resize-images": {"size": [64, 64]}}, {"rotate-flip": {"rotate": 90}}]'
)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_that_goes_on_can_be_pasted_and_is_the_same(
    as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(terminal: prefect_terminal.Terminal, *_: object) -> None:
        def run() -> bool:
            terminal._run_key = "the key"  # as the flow run's hook notes it
            raise KeyboardInterrupt

        terminal.call(run)

    monkeypatch.setattr(prefect_terminal, "call_and_report", interrupted)
    given = ["clean", "some photos", "--transform", TRANSFORM, "--keys", "image"]
    given += ["--select", "changed", "--max-failed", "0.25", *(["--json"] if as_json else [])]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert cli.main(given) == 130
    command = capsys.readouterr().err.strip().splitlines()[-1]
    assert shlex.split(command) == ["pipestream", *given, "--run-key", "the key"]


@pytest.mark.parametrize("key", ["", "\udcff"])
def test_what_is_no_run_key_is_refused_before_anything_runs(
    key: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["clean", str(tmp_path), "--transform", "invert", "--run-key", key]) == 2
    assert "--run-key" in capsys.readouterr().err
