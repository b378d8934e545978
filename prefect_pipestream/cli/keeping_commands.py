"""Commands that say how long runs are kept. They do not import Prefect."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from prefect_pipestream import underfolder
from prefect_pipestream.cli.dataset_commands import RUN_COLUMNS, Dataset
from prefect_pipestream.cli.output import (
    AsJson,
    counted,
    told_errors,
    write_json,
    write_line,
    write_table,
)
from prefect_pipestream.storage.space import size_of

_TIMES = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
_SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def keep(
    dataset: Dataset,
    run_key: Annotated[
        str, typer.Argument(metavar="RUN", help="The key or name of a run, as `runs` lists them.")
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A name to ask for the run by, as by its key."),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Let `prune` remove it again; its name goes, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Protect a run from `prune`, with all that its undo needs, and give it a name."""
    if release and name is not None:
        raise typer.BadParameter("a released run has no name: leave out --name or --release")
    with told_errors(as_json):
        if release:
            run = underfolder.release_run(dataset, run_key)
        else:
            run = underfolder.keep_run(dataset, run_key, name)
        given = run.given_name()
    if as_json:
        write_json({"run_key": run.key, "kept": run.is_kept(), "name": given})
    elif release:
        write_line(f"Run {run.key!r} is kept no more: `pipestream prune` may remove it.")
    else:
        named = "" if given is None else f" as {given!r}"
        write_line(f"Run {run.key!r} is kept{named}: pruning leaves it, and what its undo needs.")


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dhmw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected a number and d, h, m or w: 30d")
    try:
        return timedelta(**{_TIMES[match[2]]: float(match[1])})
    except OverflowError as error:
        raise typer.BadParameter(f"{text!r}: that is longer than a time can be") from error


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|B|kB|MB|GB|TB)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected a number and B, kB, MB, GB or TB: 20GB")
    return int(float(match[1]) * _SIZES[match[2]])


def prune(
    dataset: Dataset,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            parser=_age,
            metavar="AGE",
            help="Remove runs that did nothing for so long: 30d, 12h, 90m or 2w.",
        ),
    ] = None,
    larger_than: Annotated[
        int | None,
        typer.Option(
            parser=_size,
            metavar="SIZE",
            help="Remove the oldest runs until undo holds no more than this: 20GB or 500MB.",
        ),
    ] = None,
    keep_last: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, help="So many of the last runs stay in any case."),
    ] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say which would be removed, and remove none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old runs with their undo files, for good; those that are kept stay."""
    if older_than is None and larger_than is None:
        raise typer.BadParameter("which runs? Give --older-than AGE, --larger-than SIZE, or both")
    with told_errors(as_json):
        pruned = underfolder.prune_runs(
            dataset, older_than, larger_than=larger_than, keep_last=keep_last, plan=plan
        )
    if as_json:
        write_json(pruned)
        return
    if pruned:
        write_table(pruned, RUN_COLUMNS)
    number, freed = counted(len(pruned), "run"), size_of(sum(run.undo_bytes for run in pruned))
    if plan:
        write_line(f"{number} would be removed; {freed} would be freed. Nothing was done.")
    else:
        write_line(f"{number} removed; {freed} freed.")
