"""How far a run is: a live progress bar in a terminal, nothing where there is none."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int, int], None]
Log = logging.Logger | logging.LoggerAdapter[Any]


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


@contextmanager
def progress_bar(total: int, done: int, what: str) -> Iterator[Advance]:
    """Shows how far a run is, with its rate and the time that remains.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.
        what: What is done.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    console = _console()
    failed = 0
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total, completed=done, failed="")

        def advance(samples: int, failures: int) -> None:
            nonlocal failed
            failed += failures
            note = f"{failed:,} failed" if failed else ""
            progress.update(bar, advance=samples, failed=note)

        yield advance


def _console() -> Console:
    """The console that Prefect's log goes to, so that its lines appear above the bar."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            return handler.console
    return Console(stderr=True)
