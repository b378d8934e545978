"""Commands that work on samples: each calls a flow, in the terminal or on a Prefect server."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml

from prefect_pipestream.cli.output import AsJson, write_json
from prefect_pipestream.errors import RunKeyError
from prefect_pipestream.underfolder.format.run_key import check_run_key

if TYPE_CHECKING:
    from prefect_pipestream.reporting.outcomes import RunReport

Operations = list[str | dict[str, Any]]

Transform = Annotated[
    str | None,
    typer.Option(
        metavar="OPERATIONS",
        help="What to do with each sample, as a name, YAML or JSON: "
        '\'["verify-items", {"resize-images": {"size": [64, 64]}}]\'. `pipestream stages` lists '
        "the operations.",
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Write only this item; give it again for more. All if none."),
]
MaxFailed = Annotated[
    float | None,
    typer.Option(metavar="SHARE", min=0, max=1, help="The share of samples that may fail."),
]
Select = Annotated[
    Literal["all", "changed", "failed"],
    typer.Option(
        help="Which samples: all, those that changed since the same transform saw them, or those "
        "that failed in the last run."
    ),
]


def _check_run_key(key: str | None) -> str | None:
    """Refuses what is no key: an empty one would begin a new run, where a script forgot its own."""
    if key is None:
        return None
    try:
        return check_run_key(key)
    except RunKeyError as error:
        raise typer.BadParameter(str(error)) from error


RunKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="The run to go on with, or a name for a new one.",
        callback=_check_run_key,
    ),
]


def clean(
    dataset: Annotated[
        Path | None,
        typer.Argument(metavar="DATASET", help="The dataset to clean. A demonstration if none."),
    ] = None,
    transform: Transform = None,
    keys: Keys = None,
    max_failed: MaxFailed = None,
    select: Select = "all",
    run_key: RunKey = None,
    as_json: AsJson = False,
) -> None:
    """Change the samples of a dataset in place, each wholly or not at all, and each once."""
    from prefect_pipestream.cli import demo, prefect_terminal

    operations: Operations = demo.TRANSFORM if transform is None else parse_operations(transform)
    if dataset is None:
        dataset = demo.new_demo_folder("clean")
        prefect_terminal.say(f"Making a demonstration dataset in {dataset}: {demo.STORY}.", as_json)
        demo.make_demo_dataset(dataset)
        max_failed = demo.MAX_FAILED if max_failed is None else max_failed
    elif transform is None:
        raise typer.BadParameter("it is needed: say what to do with the samples.", **_TRANSFORM)

    terminal = prefect_terminal.Terminal(
        as_json, _again("clean", [dataset], operations, keys, select, max_failed, as_json)
    )

    def run() -> "RunReport":
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.flows import clean_dataset

        report: RunReport = terminal.watched(clean_dataset, run_key)(
            dataset=ReadWriteUnderfolder(folder=dataset),
            transform=operations,
            keys=keys,
            max_failed=max_failed or 0.0,
            select=select,
            run_key=run_key,
        )
        return report

    prefect_terminal.call_and_report(terminal, run, dataset)


def build(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SOURCE", help="The dataset to read. A demonstration if none."),
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="The dataset to make.")
    ] = None,
    transform: Transform = None,
    zfill: Annotated[
        int, typer.Option(min=0, help="The digits of an index in the names of files.")
    ] = 6,
    keys: Keys = None,
    max_failed: MaxFailed = None,
    select: Select = "all",
    run_key: RunKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a new dataset of the samples of another one."""
    from prefect_pipestream.cli import demo, prefect_terminal

    operations: Operations = demo.TRANSFORM if transform is None else parse_operations(transform)
    if source is None:
        source, target = demo.new_demo_folder("source"), demo.new_demo_folder("built")
        prefect_terminal.say(f"Making a demonstration dataset in {source}: {demo.STORY}.", as_json)
        demo.make_demo_dataset(source)
        max_failed = demo.MAX_FAILED if max_failed is None else max_failed
    elif target is None:
        raise typer.BadParameter("it is needed: name the dataset to make.", param_hint="TARGET")
    elif transform is None:
        raise typer.BadParameter("it is needed: say what to do with the samples.", **_TRANSFORM)

    assert target is not None
    again = _again("build", [source, target], operations, keys, select, max_failed, as_json)
    again += ["--zfill", str(zfill)]
    terminal = prefect_terminal.Terminal(as_json, again)

    def run() -> "RunReport":
        from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
        from prefect_pipestream.flows import build_dataset

        report: RunReport = terminal.watched(build_dataset, run_key)(
            source=ReadWriteUnderfolder(folder=source),
            target=CreateNewUnderfolder(folder=target, zfill=zfill),
            transform=operations,
            keys=keys,
            max_failed=max_failed or 0.0,
            select=select,
            run_key=run_key,
        )
        return report

    prefect_terminal.call_and_report(terminal, run, target)


def reprocess(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="The dataset that the run read.")
    ],
    transform: Annotated[
        str, typer.Option(metavar="OPERATIONS", help="As a rule, the same as in that run.")
    ],
    target: Annotated[
        Path | None, typer.Option(help="The dataset that the run wrote, if another.")
    ] = None,
    keys: Keys = None,
    failed_run: Annotated[
        str | None, typer.Option(metavar="KEY", help="The run; the last one if none is given.")
    ] = None,
    max_failed: MaxFailed = None,
    as_json: AsJson = False,
) -> None:
    """Process the samples again that failed in an earlier run."""
    from prefect_pipestream.cli import prefect_terminal

    operations = parse_operations(transform)

    def run() -> "RunReport":
        from prefect_pipestream.blocks import OutputUnderfolder, ReadWriteUnderfolder
        from prefect_pipestream.flows import reprocess_failed

        return reprocess_failed(
            dataset=ReadWriteUnderfolder(folder=dataset),
            transform=operations,
            failed_run=failed_run,
            target=None if target is None else OutputUnderfolder(folder=target),
            keys=keys,
            max_failed=max_failed or 0.0,
        )

    terminal = prefect_terminal.Terminal(as_json)
    prefect_terminal.call_and_report(terminal, run, target or dataset)


def review(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset.")],
    transform: Annotated[
        str, typer.Option(metavar="OPERATIONS", help="What to do with each sample.")
    ],
    indices: Annotated[
        str | None, typer.Option(metavar="INDICES", help="The samples, such as `3,7-9`.")
    ] = None,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Show changes in Prefect's UI before and after, and write those that a person approves."""
    from prefect_pipestream.cli import prefect_terminal

    operations = parse_operations(transform)
    chosen = None if indices is None else _parse_indices(indices)
    prefect_terminal.require_ui()

    def run() -> bool:
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.flows import review_changes

        block = ReadWriteUnderfolder(folder=dataset)
        flow = prefect_terminal.tell_where_to_decide(review_changes, as_json)
        report = flow(block, operations, chosen, keys=keys)
        write_json(report)
        return not report.conflicts

    prefect_terminal.Terminal(as_json).call(run)


def validate(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset.")],
    report_file: Annotated[
        Path | None, typer.Option(help="A CSV file for the list of problems.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decode every item of every sample; nothing is changed."""
    from prefect_pipestream.cli import prefect_terminal

    def run() -> bool:
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.flows import validate_dataset
        from prefect_pipestream.validation import InvalidDatasetError

        try:
            block = ReadWriteUnderfolder(folder=dataset)
            report = validate_dataset(block, report_file=report_file)
        except InvalidDatasetError as error:
            report = error.report
        if as_json:
            write_json(report)
        else:
            prefect_terminal.print_validation(report)
        return not report.invalid

    prefect_terminal.Terminal(as_json).call(run)


def _again(
    command: str,
    datasets: Sequence[Path],
    operations: Operations,
    keys: Sequence[str] | None,
    select: str,
    max_failed: float | None,
    as_json: bool,
) -> list[str]:
    """The command that does the same once more, but for its run key."""
    words = [command, *map(str, datasets), "--transform", json.dumps(operations)]
    words += [word for key in keys or () for word in ("--keys", key)]
    words += [] if select == "all" else ["--select", select]
    words += [] if max_failed is None else ["--max-failed", str(max_failed)]
    return words + (["--json"] if as_json else [])


_TRANSFORM: dict[str, Any] = {"param_hint": "--transform"}


def parse_operations(text: str) -> Operations:
    """Reads operations from the command line: a name, or YAML (which JSON is part of).

    Raises:
        typer.BadParameter: If it is neither a name, a mapping nor a list.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"it is not YAML: {error}", **_TRANSFORM) from error
    operations = value if isinstance(value, list) else [value]
    if not operations or not all(isinstance(one, str | dict) for one in operations):
        raise typer.BadParameter(
            f"{text!r} is no list of operations. Write a name, or YAML such as "
            '\'["invert", {"resize-images": {"size": [64, 64]}}]\'.',
            **_TRANSFORM,
        )
    return operations


def _parse_indices(text: str) -> list[int]:
    from prefect_pipestream.review import parse_indices

    try:
        return sorted(parse_indices(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--indices") from error
