"""What commands print: tables for people, lines with tabs or JSON for scripts."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from prefect_pipestream.errors import PipeBuildingError, PipestreamError

_READER_LEFT = 141  # as the shell says of a program that SIGPIPE ended

Column = tuple[str, Callable[[Any], str]]
"""The header of a column, and what it shows of an entry."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def told_errors(as_json: bool) -> Iterator[None]:
    """Prints what could not be done, and ends the command with status 1, or 2 for wrong usage."""
    try:
        yield
    except PipestreamError as error:
        if as_json:
            write_json({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            write_note(str(error))
        is_usage = isinstance(error, PipeBuildingError)  # a name or an argument of an operation
        raise typer.Exit(2 if is_usage else 1) from error


def write_table(entries: Iterable[Any], columns: Sequence[Column]) -> None:
    """A table for people in a terminal; else a line an entry, its cells parted by tabs."""
    rows = [[printable(cell(entry)) for _, cell in columns] for entry in entries]
    headers = [header for header, _ in columns]
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            write_line("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


@contextmanager
def terminal_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Shows how far it is, where there is a terminal to show it in.

    Yields:
        A function to call with how much is done, and of how much; None where nothing is shown.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def write_line(line: str) -> None:
    """Prints a line."""
    with reader_may_leave():
        sys.stdout.write(printable(line) + "\n")


def write_note(text: str) -> None:
    """Tells a person something on standard error, beside the output that a script reads."""
    sys.stderr.write(printable(f"{text}\n"))


def printable(text: str) -> str:
    """Names on disk may have any bytes in them, and a stranger's dataset commands to a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def flush() -> None:
    """Hands on what was printed."""
    with reader_may_leave():
        sys.stdout.flush()


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Ends the process in silence where the reader, such as `head`, has seen enough."""
    try:
        yield
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_READER_LEFT) from error


def write_json(content: Any) -> None:
    """Prints JSON: dataclasses, models, times and paths among it."""
    write_line(json.dumps(content, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else os.fspath(value)


def counted(number: int, thing: str) -> str:
    """A number of things: ``1 run``, ``1,200 runs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
