"""What is printed of datasets that may come from anybody."""

from pathlib import Path

import pytest

from prefect_pipestream.cli.prefect_terminal import print_report, print_validation
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.validation import InvalidSample, ValidationReport

EVIL = "data/03_\x1b]0;owned\x07\x1b[31mmeta.json: malformed"


def test_names_give_no_command_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"idx": 3, "error_type": "E", "message": EVIL, "attempts": 1, "traceback": ""}
    counts = {"written": 0, "unchanged": 0, "skipped": 0, "failed": 1, "removed": 0}
    report = RunReport.model_validate(
        {
            "run_key": "k\x1b[2J",
            "counts": counts,
            "failures": [failed],
            "duration_s": 1.0,
            "samples_per_second": 1.0,
            "warnings": [EVIL],
        }
    )
    print_report(report, tmp_path, is_ok=False)
    invalid = [InvalidSample(idx=3, problems=[EVIL])]
    print_validation(ValidationReport(folder=tmp_path, checked=4, invalid=invalid))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[31mmeta.json" in "".join(shown.split())
