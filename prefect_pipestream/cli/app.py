"""The command with its sub-commands."""

import typer

from prefect_pipestream.cli import dataset_commands, flow_commands

app = typer.Typer(
    name="pipestream",
    help="Clean, build, validate and undo datasets that are plain folders: every change atomic, "
    "applied exactly once, and undoable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_WORK = "Work on samples (as Prefect flows)"
_RUNS = "Runs and files of a dataset"

app.command(rich_help_panel=_WORK)(flow_commands.clean)
app.command(rich_help_panel=_WORK)(flow_commands.build)
app.command(rich_help_panel=_WORK)(flow_commands.validate)
app.command(rich_help_panel=_WORK)(flow_commands.review)
app.command(rich_help_panel=_WORK)(flow_commands.reprocess)
app.command(rich_help_panel=_RUNS)(dataset_commands.runs)
app.command(rich_help_panel=_RUNS)(dataset_commands.undo)
app.command(rich_help_panel=_RUNS)(dataset_commands.check)
app.command(rich_help_panel=_RUNS)(dataset_commands.prune)
app.command(rich_help_panel=_RUNS)(dataset_commands.stages)
