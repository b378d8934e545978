"""Flows called from a terminal, in which our own output stands and none of Prefect's."""

import logging
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from prefect import Flow
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_UI_URL,
    temporary_settings,
)
from prefect.utilities.urls import url_for
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefect_pipestream.cli.output import (
    printable,
    reader_may_leave,
    told_errors,
    write_line,
    write_note,
)
from prefect_pipestream.errors import DatasetWriteError, PipestreamError, WorkerDiedError
from prefect_pipestream.flows.reviewing import ReviewReport
from prefect_pipestream.reporting.markdown import ranges
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.storage.address import place_of
from prefect_pipestream.validation import ValidationReport

_SHOWN_FAILURES = 20
_SHOWN_INVALID = 20
_INTERRUPTED, _TERMINATED = 130, 143
_COLOURS = {
    "written": "green",
    "unchanged": "cyan",
    "skipped": "yellow",
    "failed": "red",
    "removed": "magenta",
}


class Terminal:
    """A terminal in which one flow is called.

    Args:
        as_json: Whether its output is for a script.
        again: Makes the words of the command that goes on with a run, from its key; None where
            nothing is to go on.
    """

    def __init__(self, as_json: bool, again: Callable[[str], Sequence[str]] | None = None) -> None:
        self._as_json = as_json
        self._again = again
        self._run_id: str | None = None
        self._is_terminated = False

    def watched(self, flow: Flow[..., Any]) -> Callable[..., Any]:
        """The flow, watched for the id of its run."""

        def note_id(flow: Any, flow_run: Any, state: Any) -> None:
            self._run_id = str(flow_run.id)

        return flow.with_options(on_running=[note_id])

    def call(self, run: Callable[[], bool]) -> None:
        """Calls what calls a flow, and ends the command with its exit status.

        Args:
            run: Calls the flow, prints what came of it, and says whether all is well.
        """
        _quieten()
        timeout = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
        with self._explained_errors(), self._termination_as_ctrl_c():
            # Prefect's 20 seconds are too few for the first start on a busy machine.
            with temporary_settings({timeout: max(timeout.value(), 120)}):
                if PREFECT_API_URL.value() is None and PREFECT_SERVER_EPHEMERAL_ENABLED.value():
                    _start_server()
                is_ok = run()
            raise typer.Exit(0 if is_ok else 1)

    @contextmanager
    def _termination_as_ctrl_c(self) -> Iterator[None]:
        """Lets SIGTERM end the flow as Ctrl-C does: the embedded server is stopped, too."""
        if threading.current_thread() is not threading.main_thread():  # only that one hears it
            yield
            return

        def interrupt(*_: object) -> None:
            self._is_terminated = True
            raise KeyboardInterrupt

        former = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        try:
            with told_errors(self._as_json), self._translated_errors():
                yield
        except KeyboardInterrupt:
            self._tell("Terminated." if self._is_terminated else "Interrupted.")
            raise typer.Exit(_TERMINATED if self._is_terminated else _INTERRUPTED) from None
        except typer.Exit as end:
            if isinstance(end.__cause__, DatasetWriteError | WorkerDiedError):
                self._tell("Stopped.")
            raise

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (PrefectException, IndexError) as error:
            raise PipestreamError(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:  # what Prefect raises where its server cannot be reached
            if "API" not in str(error):
                raise
            hint = "Start it, or unset PREFECT_API_URL." if PREFECT_API_URL.value() else ""
            raise PipestreamError(f"Prefect: {error} {hint}") from error

    def _tell(self, what: str) -> None:
        """Says what ended the run, and which command goes on with it."""
        lines = " What was done is kept."
        if self._again is not None and self._run_id is not None:
            command = shlex.join(["pipestream", *self._again(self._run_id)])
            lines += f" This goes on with it:\n{command}"
        # Unwrapped: what is broken into lines cannot be pasted into a shell.
        Console(stderr=True).print(Text.assemble((what, "bold red"), lines), soft_wrap=True)


def require_server(why: str) -> None:
    """Refuses what needs a server of its own where there is none.

    Args:
        why: Says what needs it.

    Raises:
        typer.BadParameter: If Prefect's embedded server would be used.
    """
    if PREFECT_API_URL.value() is None:
        raise typer.BadParameter(
            f"{why}: start one with `prefect server start`, and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )


def telling_where_to_decide(flow: Flow[..., Any]) -> Callable[..., Any]:
    """The flow, which prints the address of its run as it begins."""

    def tell(flow: Any, flow_run: Any, state: Any) -> None:
        write_note(f"Open {url_for(flow_run)} and press Resume, to decide.")

    return flow.with_options(on_running=[tell])


def _start_server() -> None:
    """Starts the embedded API out of reach of Ctrl-C: the flow run has its end to tell it."""
    from prefect.server.api.server import SubprocessASGIServer  # slow: only where it is needed

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process takes over
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _quieten() -> None:
    """Leaves the terminal to the progress bar and the report; Prefect's API gets every line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL)
    if PREFECT_API_URL.value() is None:
        write_note("Starting Prefect's embedded API (some seconds) …")
        # Of these only the embedded server, which is a process of its own, takes note.
        os.environ.setdefault("PREFECT_LOGGING_ROOT_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


# -- reports -------------------------------------------------------------------------------


class ReportConsole(Console):
    """A console that, where its reader left, says so as Python does."""

    def on_broken_pipe(self) -> None:
        """Raises the error that was met."""
        raise BrokenPipeError


@reader_may_leave()
def print_report(report: RunReport, folder: Path, is_ok: bool) -> None:
    """Prints the counts, the failed samples with their files and reasons, and where to look.

    Args:
        report: The run's report.
        folder: The dataset that was written.
        is_ok: Whether no more samples failed than the run allows.
    """
    console = ReportConsole()
    counts = Table.grid(padding=(0, 2))
    for outcome, number in report.counts.items():
        style = _COLOURS[outcome] if number else "dim"
        counts.add_row(
            Text(f"{number:,}", style=style, justify="right"), Text(outcome, style=style)
        )
    console.print()
    console.print(f"[bold]{report.total:,} samples[/]{report.pace()}")
    console.print(counts)
    for warning in report.warnings:
        console.print(Text(printable(warning), style="yellow"))
    if report.failures:
        console.print(_failures_table(report, folder))
    if len(report.failures) > _SHOWN_FAILURES:
        console.print(f"… and {len(report.failures) - _SHOWN_FAILURES:,} more failed samples.")
    _print_where_to_look(console, report, folder)
    if not is_ok:
        console.print("[bold red]Too many samples failed:[/] the flow run ended as Failed.")
    if report.taken_back:
        console.print("The run took itself back: the dataset is as it was before.")


def _failures_table(report: RunReport, folder: Path) -> Table:
    table = Table(title="Failed samples", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("sample", justify="right", style="red")
    table.add_column("tries", justify="right")
    table.add_column("file and reason", overflow="fold")
    place = place_of(folder)
    inside = f"{place.resolve() if isinstance(place, Path) else place}{os.sep}"
    for failure in report.failures[:_SHOWN_FAILURES]:
        reason = Text(printable(failure.message.replace(inside, "")))
        table.add_row(str(failure.idx), str(failure.attempts), reason)
    return table


def _print_where_to_look(console: Console, report: RunReport, folder: Path) -> None:
    server = PREFECT_UI_URL.value() or "http://127.0.0.1:4200"
    start = "" if PREFECT_API_URL.value() else "`prefect server start`, then "
    lines = [
        f"\nDataset  {place_of(folder)}",
        f"Run key  {report.run_key}",
        f"Prefect  {start}{server}/runs shows the flow run and its log",
    ]
    undone = report.undone_by if report.taken_back else report.run_key
    if report.changed and undone is not None:
        key = ["--"] * undone.startswith("-") + [undone]
        undo = shlex.join(["pipestream", "undo", str(place_of(folder)), *key])
        lines.append(f"{'Redo' if report.taken_back else 'Undo'}     {undo}")
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def print_validation(report: ValidationReport) -> None:
    """Prints how many samples are valid, and the first ones that are not."""
    write_line(f"{report.folder}: {report.summary()}")
    for sample in report.invalid[:_SHOWN_INVALID]:
        write_line(f"{sample.idx:>8}  {'; '.join(sample.problems)}")
    if len(report.invalid) > _SHOWN_INVALID:
        write_line(f"… and {len(report.invalid) - _SHOWN_INVALID:,} more invalid samples.")


def print_review(report: ReviewReport) -> None:
    """Prints what became of the samples of a review."""
    write_line(f"{report.reviewer} decided “{report.decision}”.")
    for word in ("applied", "discarded", "conflicts"):
        found = getattr(report, word)
        if found:
            write_line(f"{len(found):>8,}  {word}: {ranges(found)}")
    write_line(f"Run key  {report.run_key}")
