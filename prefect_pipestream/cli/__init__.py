"""The command line: `pipestream`, or ``python -m prefect_pipestream``.

Exit status: 0 it is done, and all is well; 1 it was refused or could not be done, or the dataset
or too many of its samples are not as they should be; 2 the command line is wrong; 130 it was
interrupted, 143 terminated; 141 who reads the output has left.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from prefect_pipestream.cli.output import flush, write_line

__all__ = ["main"]

_HELP = (
    "Clean, build, validate and undo datasets in folders and buckets: every change atomic, applied "
    "exactly once, and undoable."
)
_EPILOG = (
    "Exit status: 0 all is well; 1 it was refused or could not be done, or the dataset or too many "
    "samples are not as they should be; 2 the command line is wrong; 130 interrupted, 143 "
    "terminated."
)
_WORK = "Work on samples (as Prefect flows)"
_LAYOUTS = "Other layouts"
_RUNS = "Runs and files of a dataset"
_COMMANDS = {
    "clean": (_WORK, "flow_commands", "clean"),
    "build": (_WORK, "flow_commands", "build"),
    "validate": (_WORK, "flow_commands", "validate"),
    "review": (_WORK, "flow_commands", "review"),
    "reprocess": (_WORK, "flow_commands", "reprocess"),
    "recover": (_WORK, "recovery_commands", "recover"),
    "import": (_LAYOUTS, "layout_commands", "import_"),
    "export": (_LAYOUTS, "layout_commands", "export"),
    "browse": (_RUNS, "browse_command", "browse"),
    "where": (_RUNS, "dataset_commands", "where"),
    "runs": (_RUNS, "dataset_commands", "runs"),
    "undo": (_RUNS, "dataset_commands", "undo"),
    "diff": (_RUNS, "history_commands", "diff"),
    "history": (_RUNS, "history_commands", "history"),
    "restore": (_RUNS, "history_commands", "restore"),
    "check": (_RUNS, "dataset_commands", "check"),
    "copy": (_RUNS, "dataset_commands", "copy"),
    "compact": (_RUNS, "dataset_commands", "compact"),
    "keep": (_RUNS, "keeping_commands", "keep"),
    "prune": (_RUNS, "keeping_commands", "prune"),
    "stages": (_RUNS, "dataset_commands", "stages"),
}
"""By name, the panel of the help that a command is in, its module here, and its function."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line after the program's name; None is the process's own.

    Returns:
        The exit status.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _app_for(typed)(args=typed, prog_name="pipestream", obj=typed)
        flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _app_for(typed: Sequence[str]) -> typer.Typer:
    """The application for a command line: where that begins with a command, just this is loaded."""
    app = typer.Typer(
        name="pipestream",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for name in typed[:1] if _COMMANDS.keys() & typed[:1] else _COMMANDS:
        panel, module, function = _COMMANDS[name]
        command = getattr(import_module(f"{__name__}.{module}"), function)
        app.command(name, rich_help_panel=panel)(command)
    return app


def _write_version(is_wanted: bool) -> None:
    if is_wanted:
        from prefect_pipestream.items.pictures import fast  # the other commands load what they need

        write_line(version("prefect-pipestream"))
        write_line(f"JPEG and PNG: {fast.in_use()}")
        raise typer.Exit


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
