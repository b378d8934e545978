"""Samples on a command line, such as ``3,7-9``."""

from typing import Annotated

import typer

from prefect_pipestream.review import parse_indices as _parse

Indices = Annotated[
    str | None,
    typer.Option("--indices", metavar="INDICES", help="Only these samples, such as `3,7-9`."),
]

Where = Annotated[
    str | None,
    typer.Option(
        metavar="QUERY",
        help="Only samples of which this is true, such as 'metadata.label == 3 and not HAS mask'. "
        "`pipestream where` tries a query.",
    ),
]


def chosen_indices(text: str | None) -> list[int] | None:
    """The indices, ascending; None for none given.

    Raises:
        typer.BadParameter: If they are something else.
    """
    if text is None:
        return None
    try:
        return sorted(_parse(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--indices") from error
