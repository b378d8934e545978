"""The live bar in a terminal."""

import io
import logging

import pytest
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from prefect_pipestream.reporting.progress import progress_bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal that Prefect logs to, as it does on a screen: with a theme that inherits none."""
    screen = io.StringIO()
    handler = PrefectConsoleHandler(stream=screen, styles={"log.flow_name": "magenta"})
    theirs = handler.console
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(theirs, "_force_terminal", True)
    monkeypatch.setattr(theirs, "_color_system", Console(color_system="standard")._color_system)
    return screen


def test_the_bar_shows_on_the_console_of_prefect(terminal: io.StringIO) -> None:
    with progress_bar(4, 1) as advance:
        advance(2, 1)
        advance(1, 0)
    last = terminal.getvalue()
    assert "Samples" in last
    assert "4/4" in last
    assert "1 failed" in last
    assert "━" in last
