"""Datasets from the shell: ``python -m prefect_pipestream runs|undo|check|prune|stages``.

Exit status: 0 all is well; 1 something is wrong with the dataset, or it was refused; 2 usage.
"""

import argparse
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.underfolder import (
    CheckReport,
    Problem,
    RunInfo,
    check,
    list_runs,
    prune_runs,
    undo_run,
)

_READER_LEFT = 141  # as the shell says of a program that SIGPIPE ended
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
_Column = tuple[str, Callable[[Any], str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line after the program's name; None is the process's own.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except PipestreamError as error:
        if options.json:
            _write_json({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            sys.stderr.write(_printable(f"{error}\n"))
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prefect_pipestream",
        description="List, undo and prune the runs of a dataset, check its files, and tell which "
        "stages there are.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    runs = _command(commands, "runs", _runs, "list the runs of a dataset")
    runs.add_argument("--all", action="store_true", help="also those that were undone")

    undo = _command(commands, "undo", _undo, "restore the dataset to what it was before a run")
    undo.add_argument(
        "--force", action="store_true", help="also where samples were changed since, or it runs"
    )

    look = _command(commands, "check", _check, "decode every item and find what does not belong")
    look.add_argument("--fix", action="store_true", help="mend what can be mended")

    prune = _command(commands, "prune", _prune, "remove old runs with their undo files, for good")
    prune.add_argument(
        "--older-than",
        required=True,
        type=_age,
        metavar="AGE",
        help="how long ago a run must have ended: 30d, 12h, 90m or 2w",
    )

    stages = _command(commands, "stages", _stages, "list the stages that a transform is made of")
    stages.add_argument("name", nargs="?", metavar="STAGE", help="one stage, with its arguments")
    for command in (runs, undo, look, prune):
        command.add_argument("dataset", metavar="DATASET", help="the dataset's folder")
    what = "the key of a run, as `runs` lists it, or of several that took turns on some samples"
    undo.add_argument("runs", metavar="RUN", nargs="+", help=what)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what + ".")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.set_defaults(command=run)
    return parser


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dhmw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and d, h, m or w: 30d")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


# -- commands ------------------------------------------------------------------------------


def _runs(options: argparse.Namespace) -> int:
    runs = list_runs(options.dataset)
    if not options.all:
        runs = [run for run in runs if run.state != "undone"]
    if options.json:
        _write_json(runs)
        return 0
    if runs:
        _write_table(runs, _RUN_COLUMNS)
    total = sum(run.undo_bytes for run in runs)
    _write_line(f"{len(runs)} runs; undo holds {_size(total)}.")
    return 0


def _undo(options: argparse.Namespace) -> int:
    report = undo_run(options.dataset, options.runs, options.force)
    if options.json:
        _write_json({**asdict(report), "run_key": report.run_key})
        return 0
    what = " and ".join(map(repr, report.run_keys))
    is_undone = "are undone" if len(report.run_keys) > 1 else "is undone"
    _write_line(
        f"Run {what} {is_undone}: {report.samples} samples restored, "
        f"{report.files} files put back or removed."
    )
    if report.overwritten:
        _write_line(f"{len(report.overwritten)} files that were changed since are among them.")
    for name in report.left:
        _write_line(f"Shared item {name[1:]} was changed since and is left as it is.")
    if report.samples:
        _write_line(f"To have its changes back, undo {report.undo_run_key!r}.")
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.json:
        report = check(options.dataset, options.fix)
        _write_json({**asdict(report), "ok": report.ok})
    else:
        with _progress() as advance:
            report = check(options.dataset, options.fix, advance)
        _write_check(report)
    return 0 if report.ok else 1


def _write_check(report: CheckReport) -> None:
    if report.problems:
        _write_table(report.problems, _PROBLEM_COLUMNS)
    mended = sum(problem.mended for problem in report.problems)
    problems = f"{len(report.problems)} problems" if report.problems else "no problem"
    _write_line(
        f"{report.samples} samples, {report.items} items decoded: {problems}"
        f"{f', {mended} of them mended' if mended else ''}."
    )
    for reason, number in report.unchecked.items():
        _write_line(f"{number} items were not decoded: {reason}")


def _prune(options: argparse.Namespace) -> int:
    pruned = prune_runs(options.dataset, options.older_than)
    if options.json:
        _write_json(pruned)
        return 0
    if pruned:
        _write_table(pruned, _RUN_COLUMNS)
    freed = sum(run.undo_bytes for run in pruned)
    _write_line(f"{len(pruned)} runs removed; {_size(freed)} freed.")
    return 0


def _stages(options: argparse.Namespace) -> int:
    from prefect_pipestream.sequences.stage import known_stages, stage_class

    if options.name is None:
        found = {name: _first_line(cls) for name, cls in known_stages().items()}
        if options.json:
            _write_json(found)
        else:
            _write_table(found.items(), (("stage", itemgetter(0)), ("what it does", itemgetter(1))))
        return 0
    cls = stage_class(options.name)
    if options.json:
        fields = {
            name: {"default": _default(field), "description": field.description}
            for name, field in cls.model_fields.items()
        }
        _write_json({"description": inspect.getdoc(cls), "arguments": fields})
        return 0
    _write_line(inspect.getdoc(cls) or "")
    if cls.model_fields:
        _write_line("")
        _write_table(cls.model_fields.items(), _FIELD_COLUMNS)
    return 0


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


# -- output --------------------------------------------------------------------------------


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _counts(run: RunInfo) -> str:
    return ", ".join(f"{n} {outcome}" for outcome, n in run.counts.items() if n)


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _sample(problem: Problem) -> str:
    return "" if problem.idx is None else str(problem.idx)


_RUN_COLUMNS: tuple[_Column, ...] = (
    ("run", lambda run: run.run_key),
    ("state", lambda run: run.state),
    ("started", lambda run: _when(run.started)),
    ("last commit", lambda run: _when(run.last_commit)),
    ("samples", _counts),
    ("undo", lambda run: _size(run.undo_bytes)),
    ("by", lambda run: "@".join(filter(None, (run.user, run.host)))),
)
_PROBLEM_COLUMNS: tuple[_Column, ...] = (
    ("problem", lambda problem: problem.kind),
    ("sample", _sample),
    ("file", lambda problem: problem.file),
    ("mended", lambda problem: "yes" if problem.mended else "no"),
    ("what", lambda problem: f"{problem.message} {problem.remedy}"),
)


_FIELD_COLUMNS: tuple[_Column, ...] = (
    ("argument", itemgetter(0)),
    ("default", lambda pair: _default(pair[1])),
    ("what it is", lambda pair: pair[1].description or ""),
)


def _default(field: Any) -> str:
    return "(needed)" if field.is_required() else repr(field.get_default(call_default_factory=True))


def _write_table(entries: Iterable[Any], columns: Sequence[_Column]) -> None:
    """A table for people in a terminal; else a line an entry, its cells parted by tabs."""
    rows = [[_printable(cell(entry)) for _, cell in columns] for entry in entries]
    headers = [header for header, _ in columns]
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            _write_line("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


@contextmanager
def _progress() -> Any:
    """Shows how far a check is, where there is a terminal to show it in."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _write_line(line: str) -> None:
    sys.stdout.write(_printable(line) + "\n")


def _printable(text: str) -> str:
    """Names on disk may have any bytes in them, and a stranger's dataset commands to a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _write_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else os.fspath(value)


if __name__ == "__main__":
    sys.exit(main())
