"""What the command says of a dataset that it cannot show."""

from pathlib import Path

import pytest

from prefect_pipestream.cli import main


def test_what_is_no_dataset_is_told_before_there_is_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["browse", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    said = capsys.readouterr()
    assert "nowhere" in said.err
    assert said.out == ""


@pytest.mark.about_files
def test_a_dataset_that_cannot_be_read_ends_the_command(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / ".pipestream" / "log" / "0123-abc.json").write_bytes(b"{")
    assert main(["browse", str(dataset), "--port", "0"]) == 1
    assert "0123-abc.json" in capsys.readouterr().err
