"""What the flows have in common when they are run as scripts: a terminal with one story."""

import argparse
import logging
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_UI_URL,
    temporary_settings,
)
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.process import RunReport, TooManyFailedError

_SHOWN_FAILURES = 20
_COLOURS = {"written": "green", "unchanged": "cyan", "skipped": "yellow", "failed": "red"}

console = Console()


def parse_operations(text: str) -> list[str | dict[str, Any]]:
    """Reads operations from the command line: a name, or YAML (which JSON is part of).

    Raises:
        argparse.ArgumentTypeError: If it is neither a name, a mapping nor a list.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"not YAML: {error}") from error
    operations = value if isinstance(value, list) else [value]
    if not operations or not all(isinstance(one, str | dict) for one in operations):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of operations. Write a name, or YAML such as "
            '\'["invert", {"resize-images": {"size": [64, 64]}}]\'.'
        )
    return operations


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that all processing scripts share."""
    parser.add_argument(
        "--transform",
        type=parse_operations,
        metavar="OPERATIONS",
        help="what to do with each sample, as YAML or JSON: "
        '\'["verify-items", {"resize-images": {"size": [64, 64]}}]\'; '
        "`python -m prefect_pipestream stages` lists the operations",
    )
    parser.add_argument(
        "--keys", nargs="+", metavar="KEY", help="write only these items (default: all)"
    )
    parser.add_argument(
        "--max-failed", type=float, metavar="SHARE", help="the share of samples that may fail"
    )
    parser.add_argument(
        "--select",
        choices=["all", "changed", "failed"],
        default="all",
        help="which samples: all, those that changed since the same transform saw them, or those "
        "that failed in the last run",
    )
    parser.add_argument(
        "--run-key", metavar="KEY", help="the run to resume, or a name for a new one"
    )


def run_and_report(run: Callable[[], RunReport], folder: Path) -> int:
    """Runs a flow, shows its progress, and prints its report.

    Args:
        run: Calls the flow.
        folder: The dataset that is written.

    Returns:
        The exit code: 0, or 1 if too many samples failed, or 2 if nothing could be done.
    """
    is_ok = True

    def run_and_print() -> None:
        nonlocal is_ok
        try:
            report = run()
        except TooManyFailedError as error:
            report, is_ok = error.report, False
        print_report(report, folder)

    code = run_quietly(run_and_print)
    if not is_ok:
        console.print("[bold red]Too many samples failed:[/] the flow run ended as Failed.")
    return code if is_ok else 1


def run_quietly(run: Callable[[], None]) -> int:
    """Runs what runs a flow, with nothing of Prefect's in the terminal.

    Returns:
        The exit code: 0, or 2 if nothing could be done, or 130 if interrupted; then the error is
        printed.
    """
    _quieten()
    timeout = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
    try:
        # Prefect's 20 seconds are too few for the first start on a busy machine.
        with temporary_settings({timeout: max(timeout.value(), 120)}):
            if PREFECT_API_URL.value() is None and PREFECT_SERVER_EPHEMERAL_ENABLED.value():
                _start_server()
            run()
    except KeyboardInterrupt:
        _print_error(
            "Interrupted. ",
            "What was done is kept: `python -m prefect_pipestream runs` lists the run, whose key "
            "goes on with it.",
        )
        return 130
    except (PipestreamError, PrefectException, IndexError) as error:
        _print_error(f"{type(error).__name__}: ", str(error))
        return 2
    except RuntimeError as error:  # what Prefect raises where its server cannot be reached
        if "API" not in str(error):
            raise
        hint = "Start it, or unset PREFECT_API_URL." if PREFECT_API_URL.value() else ""
        _print_error("Prefect: ", f"{error} {hint}")
        return 2
    return 0


def _start_server() -> None:
    """Starts the embedded API out of reach of Ctrl-C: the flow run has its end to tell it."""
    from prefect.server.api.server import SubprocessASGIServer  # slow: only where it is needed

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process takes over
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _print_error(title: str, message: str) -> None:
    console.print(Text.assemble((title, "bold red"), message))


def _quieten() -> None:
    """Leaves the terminal to the progress bar and the report; Prefect's API gets every line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL)
    if PREFECT_API_URL.value() is None:
        console.print("Starting Prefect's embedded API (some seconds) …", style="dim")
        # Of these only the embedded server, which is a process of its own, takes note.
        os.environ.setdefault("PREFECT_LOGGING_ROOT_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def print_report(report: RunReport, folder: Path) -> None:
    """Prints the counts, each failed sample with its file and reason, and where to look."""
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
        console.print(Text(warning, style="yellow"))
    if report.failures:
        console.print(_failures_table(report, folder))
    if len(report.failures) > _SHOWN_FAILURES:
        console.print(f"… and {len(report.failures) - _SHOWN_FAILURES:,} more failed samples.")
    _print_where_to_look(report, folder)


def _failures_table(report: RunReport, folder: Path) -> Table:
    table = Table(title="Failed samples", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("sample", justify="right", style="red")
    table.add_column("tries", justify="right")
    table.add_column("file and reason", overflow="fold")
    inside = f"{folder.resolve()}{os.sep}"
    for failure in report.failures[:_SHOWN_FAILURES]:
        reason = Text(failure.message.replace(inside, ""))
        table.add_row(str(failure.idx), str(failure.attempts), reason)
    return table


def _print_where_to_look(report: RunReport, folder: Path) -> None:
    server = PREFECT_UI_URL.value() or "http://127.0.0.1:4200"
    start = "" if PREFECT_API_URL.value() else "`prefect server start`, then "
    lines = (
        f"\nDataset  {folder}",
        f"Run key  {report.run_key}",
        f"Prefect  {start}{server}/runs shows the flow run and its log",
        f"Undo     python -m prefect_pipestream undo {shlex.join([str(folder), report.run_key])}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
