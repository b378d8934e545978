"""Commands between a dataset and other layouts: `import` and `export`."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer
import yaml

from prefect_pipestream.cli.flow_commands import (
    Follow,
    MaxFailed,
    OnInvalid,
    Plan,
    Rules,
    RunKey,
    Select,
    again_with,
    gate_in,
    planning,
    process,
)
from prefect_pipestream.cli.indices import Where
from prefect_pipestream.cli.output import AsJson, told_errors, write_json, write_line
from prefect_pipestream.layouts import LayoutKind
from prefect_pipestream.sequences.query import parse_where

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the layout, its value as YAML; give it again for more.",
    ),
]

_KINDS = get_args(LayoutKind)


def import_(
    typed: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] SOURCE [DATASET]",
            help=f"The layout ({', '.join(_KINDS)}), the folder or file to import, and the dataset "
            "to bring it into. Without a KIND nothing is imported: SOURCE is looked at.",
        ),
    ],
    options: Options = None,
    select: Select = "changed",
    vanished: Annotated[
        Literal["report", "remove"],
        typer.Option(help="Whether samples that are gone from the source are removed, too."),
    ] = "report",
    link: Annotated[
        bool,
        typer.Option("--link/--copy", help="Whether files are hard links, where that can be."),
    ] = True,
    where: Where = None,
    max_failed: MaxFailed = None,
    rules: Rules = None,
    on_invalid: OnInvalid = "fail",
    run_key: RunKey = None,
    plan: Plan = False,
    follow: Follow = None,
    as_json: AsJson = False,
) -> None:
    """Bring samples of another layout into a dataset: what is new or changed at their source."""
    if words[0] not in _KINDS or (len(words) == 1 and Path(words[0]).exists()):
        _look(words, as_json)
        return
    if len(words) != 3:
        raise typer.BadParameter(
            f"{len(words)} words: expected KIND SOURCE DATASET.", param_hint="words"
        )
    kind = cast("LayoutKind", words[0])
    source, dataset = Path(words[1]), Path(words[2])
    given = _parsed(options)
    gate = gate_in(rules, as_json)
    from prefect_pipestream.flows import import_dataset
    from prefect_pipestream.flows.importing import source_of

    with told_errors(as_json):
        source_of(kind, source, given)  # what is wrong with it is told before Prefect is started
        if where is not None:
            parse_where(where)
    work: dict[str, Any] = {"kind": kind, "source": source, "dataset": dataset, "options": given}
    work |= {"select": select, "vanished": vanished, "link": link, "run_key": run_key}
    work |= {"where": where}
    work |= {"max_failed": max_failed or 0.0, "on_invalid": on_invalid, **gate}
    work |= planning(plan, follow)
    again = again_with(typed, "--run-key", run_key)
    process(import_dataset, work, dataset, again, as_json, typed.obj)


def _look(words: list[str], as_json: bool) -> None:
    """Says what something looks like; nothing is imported."""
    from prefect_pipestream.underfolder.checks.other_layouts import described, layouts_at

    source = words[0]
    if len(words) > 2 or not Path(source).expanduser().exists():
        known = ", ".join(_KINDS)
        what = "nothing is there, and it" if len(words) <= 2 else "it"
        raise typer.BadParameter(
            f"{source!r}: {what} is no layout, of which there are: {known}.", param_hint="KIND"
        )
    with told_errors(as_json):
        found = layouts_at(source)
        if as_json:
            write_json([{**vars(one), "command": one.command(*words[1:])} for one in found])
        else:
            write_line(described(source, *words[1:]))
    raise typer.Exit(0 if found else 1)


def export(
    kind: Annotated[
        LayoutKind, typer.Argument(metavar="KIND", help=f"The layout: {', '.join(_KINDS)}.")
    ],
    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="The dataset to export: its folder, or address."),
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder to make.")],
    options: Options = None,
    max_failed: MaxFailed = None,
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset in another layout: the whole of it, or nothing."""
    given = _parsed(options)
    if where is not None:
        with told_errors(as_json):
            parse_where(where)
    from prefect_pipestream.cli.prefect_terminal import Terminal
    from prefect_pipestream.flows import export_dataset

    def run() -> bool:
        report = export_dataset(
            dataset, kind, target, given, max_failed=max_failed or 0.0, where=where
        )
        if as_json:
            write_json(report)
        else:
            write_line(f"{report.samples:,} samples written to {report.folder}")
            if report.labels_left_out:
                write_line(
                    f"{report.labels_left_out:,} of them have a label of the whole image, and no "
                    f"objects: {kind} has no place for it."
                )
            for idx, failure in report.failures.items():
                write_line(f"{idx:>8}  left out: {failure.error_type}: {failure.message}")
        return True

    Terminal(as_json).call(run)


def _parsed(options: list[str] | None) -> dict[str, Any]:
    """The options as they were typed: ``name=value``, each value as YAML."""
    parsed = {}
    for text in options or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r}: expected NAME=VALUE.", param_hint="--option")
        try:
            parsed[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(
                f"{text!r}: its value is not YAML: {error}", param_hint="--option"
            ) from error
    return parsed
