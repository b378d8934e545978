"""How far a run is: a live bar in a terminal, and an artifact of the flow run that moves."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.default_styles import DEFAULT_STYLES
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

PERIOD_S = 2.0
"""How often the artifact moves, at most: a request of some milliseconds, in another thread."""

API_ERRORS = (HTTPError, PrefectException, OSError)
"""What may go wrong with a report; none of it is a reason for a run to fail."""


@contextmanager
def shown_progress(total: int, done: int, key: str | None, log: Log) -> Iterator[Advance]:
    """Shows how far the run is: in a terminal, and among the flow run's artifacts.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.
        key: The key of the artifact; None: there is to be none.
        log: The flow run's logger.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    with progress_bar(total, done) as move_bar:
        if key is None:
            yield move_bar
            return
        with progress_artifact(total, done, key, log) as move_artifact:

            def advance(samples: int, failed: int) -> None:
                move_bar(samples, failed)
                move_artifact(samples, failed)

            yield advance


# -- in a terminal --------------------------------------------------------------------------


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


@contextmanager
def progress_bar(total: int, done: int) -> Iterator[Advance]:
    """Shows how far a run is, with its rate and the time that remains.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    console = _console()
    failed = 0
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(
            style=DEFAULT_STYLES["bar.back"],
            complete_style=DEFAULT_STYLES["bar.complete"],
            finished_style=DEFAULT_STYLES["bar.finished"],
            pulse_style=DEFAULT_STYLES["bar.pulse"],
        ),  # by value: Prefect's console has no theme but its own, and does not know the names
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Samples", total=total, completed=done, failed="")

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


# -- among the flow run's artifacts ----------------------------------------------------------


@contextmanager
def progress_artifact(total: int, done: int, key: str, log: Log) -> Iterator[Advance]:
    """Shows in the flow run's artifacts how far the run is.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.
        key: The key under which Prefect lists the artifact.
        log: Where it is said that the API did not take it.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    progress = _Progress(total, done)
    try:
        artifact = create_progress_artifact(progress.percent, key=key, description=str(progress))
    except API_ERRORS as error:
        log.warning("No progress artifact: %s", error)
        yield progress.advance
        return
    ended = threading.Event()
    with get_client(sync_client=True) as client:
        sender = threading.Thread(
            target=_send_until, args=(ended, client, artifact, progress, log), daemon=True
        )
        sender.start()
        try:
            yield progress.advance
        finally:
            ended.set()
            sender.join()


class _Progress:
    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._failed = total, done, 0

    def advance(self, samples: int, failures: int) -> None:
        self._done += samples
        self._failed += failures

    @property
    def percent(self) -> float:
        return round(100 * self._done / self._total, 1) if self._total else 100.0

    def __str__(self) -> str:
        failed = f", {self._failed:,} failed" if self._failed else ""
        return f"{self._done:,} of {self._total:,} samples{failed}"


def _send_until(
    ended: threading.Event, client: SyncPrefectClient, artifact: UUID, progress: _Progress, log: Log
) -> None:
    sent = ""
    is_last = False
    while not is_last:
        is_last = ended.wait(PERIOD_S)
        text = str(progress)
        if text == sent:
            continue
        update = ArtifactUpdate(data=progress.percent, description=text)
        try:
            client.update_artifact(artifact, update)
            sent = text
        except API_ERRORS as error:
            log.debug("The progress artifact did not move: %s", error)
