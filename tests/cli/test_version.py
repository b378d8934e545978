"""`pipestream --version` says what is installed."""

from importlib.metadata import version

import PIL
import pytest

from prefect_pipestream.cli import main


def test_version_tells_what_reads_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == version("prefect-pipestream")
    assert second.startswith("JPEG and PNG: ")
    assert f"Pillow {PIL.__version__}" in second
