"""The command that shows a dataset in a browser. It does not import Prefect."""

from pathlib import Path
from typing import Annotated

import typer

from prefect_pipestream.cli.output import told_errors, write_line, write_note
from prefect_pipestream.errors import PipeBuildingError

Dataset = Annotated[
    Path, typer.Argument(metavar="DATASET", help="The dataset's folder, or address (s3://…).")
]


def browse(
    dataset: Dataset,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The port; 0 is any that is free.")
    ] = 8765,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Where to listen: another than 127.0.0.1 lets in the network, with the token.",
        ),
    ] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show the dataset, and refuse every change.")
    ] = False,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Show items, too, that are links out of the dataset."),
    ] = False,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="PACKAGE.MODULE:NAME",
            help="A stage of your own, with a title, to be offered too; again for more.",
        ),
    ] = None,
) -> None:
    """Show a dataset in a browser: look at samples, change them, save, take back."""
    from prefect_pipestream.browser.server import is_loopback, serve

    with told_errors(as_json=False):
        if not is_loopback(host):
            write_note(
                f"Everybody who reaches {host} and has the token can see the dataset"
                f"{'' if read_only else ' and change it'}. What is sent is not encrypted: put a "
                "proxy with TLS before it, and its address into PIPESTREAM_BROWSER_URL."
            )
        for name in stages or ():
            _offer(name)
        serve(
            dataset,
            host=host,
            port=port,
            is_read_only=read_only,
            follows_links=follow_links,
            tell=_told,
        )


def _offer(name: str) -> None:
    """Imports a stage, which then is among those that are known by their titles."""
    from prefect_pipestream.sequences.stage import stage_class

    if stage_class(name).stage_title is None:
        raise PipeBuildingError(
            f"--stage {name}: it has no title by which it could be chosen. Give it one: "
            '`class Mine(SampleStage, title="mine")`.'
        )


def _told(address: str) -> None:
    write_line(f"Open {address}")
    write_line("End with Ctrl-C.")
