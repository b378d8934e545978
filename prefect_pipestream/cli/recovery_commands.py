"""Commands on the flow runs of a Prefect server."""

from typing import Annotated

import typer

from prefect_pipestream.cli.output import AsJson, write_json, write_line


def recover(
    tag: Annotated[
        str, typer.Option(metavar="TAG", help="The tag of the flow runs that this is about.")
    ] = "pipestream",
    silent_for: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="How long a run is to be silent before it is watched, and again while it is: more "
            "than the time between two of its heartbeats.",
        ),
    ] = 240,
    silent_without_heartbeats: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="How long a run that sends no heartbeats is to be silent before it is watched.",
        ),
    ] = 3600,
    as_json: AsJson = False,
) -> None:
    """Start flow runs again that count as running on the Prefect server, but are dead."""
    from prefect_pipestream.cli import prefect_terminal
    from prefect_pipestream.flows import recover_lost_runs

    prefect_terminal.require_server("lost runs are looked for on a Prefect server")

    def run() -> bool:
        found = recover_lost_runs(tag, silent_for, silent_without_heartbeats)
        if as_json:
            write_json({"scheduled_again": found})
        else:
            for one in found or ["No run is lost."]:
                write_line(one)
        return True

    prefect_terminal.Terminal(as_json).call(run)
