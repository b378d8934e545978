"""The command line: `pipestream`, or ``python -m prefect_pipestream``.

Exit status: 0 it is done, and all is well; 1 it was refused or could not be done, or the dataset
or too many of its samples are not as they should be; 2 the command line is wrong; 130 it was
interrupted, 143 terminated; 141 who reads the output has left.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from prefect_pipestream.cli import (
    browse_command,
    dataset_commands,
    flow_commands,
    history_commands,
    keeping_commands,
    layout_commands,
    recovery_commands,
)
from prefect_pipestream.cli.output import flush, write_line
from prefect_pipestream.items.pictures import fast

__all__ = ["main"]

_WORK = "Work on samples (as Prefect flows)"
_LAYOUTS = "Other layouts"
_RUNS = "Runs and files of a dataset"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line after the program's name; None is the process's own.

    Returns:
        The exit status.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _app(args=typed, prog_name="pipestream", obj=typed)
        flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


_app = typer.Typer(
    name="pipestream",
    help="Clean, build, validate and undo datasets that are plain folders: every change atomic, "
    "applied exactly once, and undoable.",
    epilog="Exit status: 0 all is well; 1 it was refused or could not be done, or the dataset or "
    "too many samples are not as they should be; 2 the command line is wrong; 130 interrupted, 143 "
    "terminated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _write_version(is_wanted: bool) -> None:
    if is_wanted:
        write_line(version("prefect-pipestream"))
        write_line(f"JPEG and PNG: {fast.in_use()}")
        raise typer.Exit


@_app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version, and what reads and writes JPEG and PNG here.",
            callback=_write_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Has the options that are of no command."""


_app.command(rich_help_panel=_WORK)(flow_commands.clean)
_app.command(rich_help_panel=_WORK)(flow_commands.build)
_app.command(rich_help_panel=_WORK)(flow_commands.validate)
_app.command(rich_help_panel=_WORK)(flow_commands.review)
_app.command(rich_help_panel=_WORK)(flow_commands.reprocess)
_app.command(rich_help_panel=_WORK)(recovery_commands.recover)
_app.command("import", rich_help_panel=_LAYOUTS)(layout_commands.import_)
_app.command(rich_help_panel=_LAYOUTS)(layout_commands.export)
_app.command(rich_help_panel=_RUNS)(browse_command.browse)
_app.command(rich_help_panel=_RUNS)(dataset_commands.where)
_app.command(rich_help_panel=_RUNS)(dataset_commands.runs)
_app.command(rich_help_panel=_RUNS)(dataset_commands.undo)
_app.command(rich_help_panel=_RUNS)(history_commands.diff)
_app.command(rich_help_panel=_RUNS)(history_commands.history)
_app.command(rich_help_panel=_RUNS)(history_commands.restore)
_app.command(rich_help_panel=_RUNS)(dataset_commands.check)
_app.command(rich_help_panel=_RUNS)(dataset_commands.compact)
_app.command(rich_help_panel=_RUNS)(keeping_commands.keep)
_app.command(rich_help_panel=_RUNS)(keeping_commands.prune)
_app.command(rich_help_panel=_RUNS)(dataset_commands.stages)
