"""Commands that work on samples: each calls a flow, in the terminal or on a Prefect server."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from prefect_pipestream.cli import demo
from prefect_pipestream.cli.indices import Indices, Where, chosen_indices
from prefect_pipestream.cli.output import AsJson, told_errors, write_json, write_note
from prefect_pipestream.errors import RunKeyError
from prefect_pipestream.underfolder.format.run_key import check_run_key

Operations = list[str | dict[str, Any]]
Again = Callable[[str], list[str]]

_EXAMPLE = '\'["verify-items", {"resize-images": {"size": [64, 64]}}]\''

Dataset = Annotated[
    Path, typer.Argument(metavar="DATASET", help="The dataset's folder, or address (s3://…).")
]
Transform = Annotated[
    str | None,
    typer.Option(
        metavar="OPERATIONS",
        help=f"What to do with each sample, as a name, YAML or JSON: {_EXAMPLE}. "
        "`pipestream stages` lists the operations.",
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Write only this item; give it again for more. All if none."),
]
MaxFailed = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=1,
        help="The share of samples that may fail; none, if not given.",
    ),
]
Select = Annotated[
    Literal["all", "changed", "failed"],
    typer.Option(
        help="Which samples: all, those that changed since the same transform saw them, or those "
        "that failed in the last run."
    ),
]


def _check_limit(limit: float | None) -> float | None:
    """Refuses what is no limit."""
    if limit is not None and not (isfinite(limit) and limit > 0):
        raise typer.BadParameter(f"expected a number above 0, got {limit:g}.")
    return limit


Redo = Annotated[
    bool,
    typer.Option(
        "--redo",
        help="Process samples once more that the run of --run-key has done: all, or those of "
        "--indices and --where; they are taken back first.",
    ),
]


SampleTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        callback=_check_limit,
        help="A sample fails that takes longer, as where the transform hangs; the others go on.",
    ),
]
SampleMemory = Annotated[
    float | None,
    typer.Option(
        metavar="MIB",
        callback=_check_limit,
        help="A sample fails whose work takes more memory (Linux).",
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What is expected of items: a list of rules in YAML, or a mapping with such a list as "
        "`rules`, and `allow_other_items`. A sample that would not be so is not written.",
    ),
]
OnInvalid = Annotated[
    Literal["fail", "undo"],
    typer.Option(
        help="Where too many samples failed: leave the others written, or take the run back."
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
        help="The run to go on with, by its key or name, or a key for a new one.",
        callback=_check_run_key,
    ),
]


Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Only say what would be done: which samples and why, how long it would take, what "
        "undo would hold, and how some samples would change. Nothing is written.",
    ),
]
Follow = Annotated[
    str | None,
    typer.Option(
        metavar="PLAN",
        help="Do just what was planned, by the key that --plan printed. What was changed since is "
        "left as it is, and named.",
        callback=_check_run_key,
    ),
]


def clean(
    typed: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATASET",
            help="The dataset to clean; it needs --transform. A demonstration if none.",
        ),
    ] = None,
    transform: Transform = None,
    keys: Keys = None,
    max_failed: MaxFailed = None,
    select: Select = "all",
    indices: Indices = None,
    where: Where = None,
    rules: Rules = None,
    on_invalid: OnInvalid = "fail",
    run_key: RunKey = None,
    sample_timeout: SampleTimeout = None,
    sample_memory: SampleMemory = None,
    plan: Plan = False,
    follow: Follow = None,
    redo: Redo = False,
    as_json: AsJson = False,
) -> None:
    """Change the samples of a dataset in place, each wholly or not at all, and each once."""
    again = None if dataset is None else again_with(typed, "--run-key", run_key)
    gate = gate_in(rules, as_json)
    dataset, work = _given_or_demo("clean", dataset, transform, max_failed)
    _check(dataset, work["transform"], as_json, where)
    from prefect_pipestream.flows import clean_dataset

    work |= {"dataset": dataset, "keys": keys, "select": select, "run_key": run_key, "where": where}
    work |= {"sample_timeout": sample_timeout, "sample_memory": sample_memory}
    work |= {**gate, "on_invalid": on_invalid}
    work |= planning(plan, follow)
    work |= {"redo": redo, "indices": chosen_indices(indices)}
    process(clean_dataset, work, dataset, again, as_json, typed.obj)


def build(
    typed: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="The dataset to read; it needs TARGET and --transform. A demonstration if none.",
        ),
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
    indices: Indices = None,
    where: Where = None,
    rules: Rules = None,
    on_invalid: OnInvalid = "fail",
    run_key: RunKey = None,
    sample_timeout: SampleTimeout = None,
    sample_memory: SampleMemory = None,
    plan: Plan = False,
    follow: Follow = None,
    redo: Redo = False,
    as_json: AsJson = False,
) -> None:
    """Make a new dataset of the samples of another one."""
    again = None if source is None else again_with(typed, "--run-key", run_key)
    gate = gate_in(rules, as_json)
    if target is None:
        if source is not None:
            raise typer.BadParameter("it is needed: name the dataset to make.", param_hint="TARGET")
        target = demo.new_demo_folder("built")
    source, work = _given_or_demo("source", source, transform, max_failed)
    _check(source, work["transform"], as_json, where)
    from prefect_pipestream.blocks import CreateNewUnderfolder
    from prefect_pipestream.flows import build_dataset

    new = CreateNewUnderfolder(folder=target, zfill=zfill)
    work |= {
        "source": source,
        "target": new,
        "keys": keys,
        "select": select,
        "run_key": run_key,
        "where": where,
        "on_invalid": on_invalid,
        **gate,
        **planning(plan, follow),
    }
    work |= {"sample_timeout": sample_timeout, "sample_memory": sample_memory}
    work |= {"redo": redo, "indices": chosen_indices(indices)}
    process(build_dataset, work, target, again, as_json, typed.obj)


def reprocess(
    typed: typer.Context,
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="The dataset that the run read.")
    ],
    transform: Annotated[
        str, typer.Option(metavar="OPERATIONS", help="As a rule, the same as in that run.")
    ],
    target: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="The dataset that the run wrote, if another."),
    ] = None,
    keys: Keys = None,
    failed_run: Annotated[
        str | None, typer.Option(metavar="KEY", help="The run; the last one if none is given.")
    ] = None,
    where: Where = None,
    max_failed: MaxFailed = None,
    sample_timeout: SampleTimeout = None,
    sample_memory: SampleMemory = None,
    rules: Rules = None,
    on_invalid: OnInvalid = "fail",
    plan: Plan = False,
    follow: Follow = None,
    as_json: AsJson = False,
) -> None:
    """Process the samples again that failed in an earlier run."""
    again = again_with(typed, "--failed-run", failed_run)
    gate = gate_in(rules, as_json)
    _, work = _given_or_demo("", dataset, transform, max_failed)
    _check(dataset, work["transform"], as_json, where)
    from prefect_pipestream.flows import reprocess_failed

    work |= {"dataset": dataset, "target": target, "keys": keys, "failed_run": failed_run}
    work |= {"where": where}
    work |= {"sample_timeout": sample_timeout, "sample_memory": sample_memory}
    work |= {**gate, "on_invalid": on_invalid}
    work |= planning(plan, follow)
    process(reprocess_failed, work, target or dataset, again, as_json, typed.obj)


def review(
    dataset: Dataset,
    transform: Annotated[
        str, typer.Option(metavar="OPERATIONS", help="What to do with each sample.")
    ],
    indices: Annotated[
        str | None, typer.Option(metavar="INDICES", help="The samples, such as `3,7-9`.")
    ] = None,
    where: Where = None,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Show changes in Prefect's UI before and after, and write those that a person approves."""
    operations = parse_operations(transform)
    chosen = chosen_indices(indices)
    _check(dataset, operations, as_json, where)
    from prefect_pipestream.cli import prefect_terminal
    from prefect_pipestream.flows import review_changes

    prefect_terminal.require_server("a review needs a Prefect server with a UI")

    def run() -> bool:
        flow = prefect_terminal.telling_where_to_decide(review_changes)
        report = flow(dataset, operations, chosen, keys=keys, where=where)
        if as_json:
            write_json(report)
        else:
            prefect_terminal.print_review(report)
        return not report.conflicts

    prefect_terminal.Terminal(as_json).call(run)


def validate(
    dataset: Dataset,
    report_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file for the list of problems.")
    ] = None,
    where: Where = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What is expected of items: a list of rules in YAML, or a mapping with such a "
            "list as `rules`, and `allow_other_items`. Without it every item only has to decode.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decode every item of every sample, and hold it against rules; nothing is changed."""
    gate = gate_in(rules, as_json)
    _check(dataset, None, as_json, where)
    from prefect_pipestream.cli import prefect_terminal
    from prefect_pipestream.flows import validate_dataset
    from prefect_pipestream.validation import InvalidDatasetError

    def run() -> bool:
        try:
            report = validate_dataset(dataset, report_file=report_file, where=where, **gate)
        except InvalidDatasetError as error:
            report = error.report
        if as_json:
            write_json(report)
        else:
            prefect_terminal.print_validation(report)
        return not report.invalid

    prefect_terminal.Terminal(as_json).call(run)


# -- what they have in common ----------------------------------------------------------------


def gate_in(path: Path | None, as_json: bool) -> dict[str, Any]:
    """The parameters of a flow that say the rules in a file; none of them where there is none."""
    if path is None:
        return {}
    from prefect_pipestream.validation import SampleRules

    with told_errors(as_json):
        found = SampleRules.read(path)
    return {"rules": list(found.rules), "allow_other_items": found.allow_other_items}


def planning(plan: bool, follow: str | None) -> dict[str, Any]:
    """The parameters of a flow for a plan to make, or to follow."""
    if plan and follow is not None:
        raise typer.BadParameter(
            "with --plan nothing is done; leave one out.", param_hint="--follow"
        )
    return {"plan": plan, "follow": follow}


def process(
    flow: Any,
    work: Mapping[str, Any],
    written: Path,
    again: Again | None,
    as_json: bool,
    typed: Sequence[str],
) -> None:
    """Calls a flow that processes samples, and ends the command with its report, or its plan.

    Args:
        flow: The flow.
        work: Its parameters.
        written: The dataset that it writes.
        again: See `Terminal`.
        as_json: Whether the report is for a script.
        typed: The words of the command.
    """
    from prefect_pipestream.cli.plan_terminal import print_plan
    from prefect_pipestream.cli.prefect_terminal import Terminal, print_report
    from prefect_pipestream.reporting.plans import RunPlan
    from prefect_pipestream.reporting.reports import TooManyFailedError

    terminal = Terminal(as_json, again)

    def run() -> bool:
        try:
            report = terminal.watched(flow)(**work)
        except TooManyFailedError as error:
            report = error.report
        if isinstance(report, RunPlan):
            if as_json:
                write_json(report)
            else:
                print_plan(report, written, None if again is None else following(typed, report.key))
            return True
        is_ok: bool = report.is_within(work["max_failed"])
        if as_json:
            write_json(report)
        else:
            print_report(report, written, is_ok)
        return is_ok

    terminal.call(run)


def following(typed: Sequence[str], plan: str) -> list[str]:
    """The command that was typed for a plan, as the one that does it."""
    return [*(word for word in typed if word != "--plan"), "--follow", plan]


def _given_or_demo(
    name: str, dataset: Path | None, transform: str | None, max_failed: float | None
) -> tuple[Path, dict[str, Any]]:
    """The dataset, with a transform and a limit; where none is given, those of a demonstration.

    Args:
        name: The name of the demonstration's folder, which is made.
        dataset: The dataset, if one was given.
        transform: The operations, if they were given.
        max_failed: The share of samples that may fail, if it was given.
    """
    if transform is None and dataset is not None:
        raise typer.BadParameter("it is needed: say what to do with the samples.", **_TRANSFORM)
    operations = demo.TRANSFORM if transform is None else parse_operations(transform)
    if dataset is not None:
        return dataset, {"transform": operations, "max_failed": max_failed or 0.0}
    dataset = demo.new_demo_folder(name)
    write_note(f"Making a demonstration dataset in {dataset}: {demo.STORY}.")
    demo.make_demo_dataset(dataset)
    limit = demo.MAX_FAILED if max_failed is None else max_failed
    return dataset, {"transform": operations, "max_failed": limit}


def again_with(typed: typer.Context, key_option: str, key: str | None) -> Again:
    """Says the command that was typed once more, with the key of the run that it began."""
    return lambda began: [*typed.obj, *([] if key else [key_option, began])]


def _check(
    dataset: Path, operations: Operations | None, as_json: bool, where: str | None = None
) -> None:
    """Tells what is wrong with a dataset, operations or a query before Prefect is started."""
    from prefect_pipestream.sequences.query import parse_where
    from prefect_pipestream.stages import resolve_stage
    from prefect_pipestream.storage.address import place_of
    from prefect_pipestream.underfolder.opening import open_dataset

    with told_errors(as_json):
        if operations is not None:
            resolve_stage(operations)
        if where is not None:
            parse_where(where)
        open_dataset(place_of(dataset))


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
            f"{text!r} is no list of operations. Write a name, or YAML such as {_EXAMPLE}.",
            **_TRANSFORM,
        )
    return operations
