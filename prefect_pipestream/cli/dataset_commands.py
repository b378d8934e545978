"""Commands on a dataset's runs and files. They do not import Prefect."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from prefect_pipestream import underfolder
from prefect_pipestream.cli.indices import Indices, Where, chosen_indices
from prefect_pipestream.cli.output import (
    AsJson,
    Column,
    counted,
    terminal_bar,
    told_errors,
    write_json,
    write_line,
    write_note,
    write_table,
)
from prefect_pipestream.storage.address import place_of
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.underfolder import (
    Check,
    CheckReport,
    Problem,
    RunInfo,
    UndoPlan,
    UndoReport,
)
from prefect_pipestream.underfolder.opening import ledgers_of, open_dataset, runs_and_space
from prefect_pipestream.underfolder.runs.listing import existing_run

_SHOWN_GAPS = 10

Dataset = Annotated[
    Path, typer.Argument(metavar="DATASET", help="The dataset's folder, or address (s3://…).")
]


def runs(
    dataset: Dataset,
    with_undone: Annotated[
        bool, typer.Option("--all", help="Also those that were undone.")
    ] = False,
    run_key: Annotated[
        str | None,
        typer.Option("--run", metavar="KEY", help="This run alone, and where it came from."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a dataset, and the disk space that their undo holds."""
    with told_errors(as_json):
        found, space = runs_and_space(dataset)
        if not with_undone:
            found = [run for run in found if run.state != "undone"]
        if run_key is not None:
            found = [run for run in found if run_key in (run.run_key, run.name)]
            if not found:
                existing_run(ledgers_of(dataset), run_key)  # says which there are
    if as_json:
        write_json(found)
        return
    if run_key is not None:
        for run in found:
            write_table(_lines_of(run), (("what", itemgetter(0)), ("it is", itemgetter(1))))
        return
    if found:
        write_table(found, RUN_COLUMNS)
    write_line(f"{counted(len(found), 'run')}; undo holds {size_of(space.total)}.")


def where(
    dataset: Dataset,
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="What is to be true of samples: 'metadata.label == 3 and not HAS mask'.",
        ),
    ],
    only_count: Annotated[
        bool, typer.Option("--count", help="Print how many there are, not which.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the samples of which a query is true: their indices, one a line."""
    from prefect_pipestream.sequences.where import find

    with told_errors(as_json):
        found = find(open_dataset(place_of(dataset)), query)
    if as_json:
        listed = {} if only_count else {"indices": found.indices.tolist()}
        problems = {str(idx): text for idx, text in found.problems.items()}
        write_json({"count": len(found.indices), **listed, "problems": problems})
        return
    for line in [len(found.indices)] if only_count else found.indices.tolist():
        write_line(str(line))
    if (warning := found.warning()) is not None:
        write_note(warning)


def undo(
    dataset: Dataset,
    run_keys: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="The key or name of a run, as `runs` lists them, or of several that took turns on "
            "some samples.",
        ),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where samples were changed since, or the run is on."),
    ] = False,
    indices: Indices = None,
    where: Where = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, and do nothing of it.")
    ] = False,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Refuse the undo if a sample would not be as these rules say, as for `validate`.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a dataset, or some samples, to what it was before a run, byte by byte."""
    some = chosen_indices(indices)
    check = _check_of(rules, as_json)
    if where is not None:
        from prefect_pipestream.sequences.where import samples_to_undo

        with told_errors(as_json):
            some = list(samples_to_undo(dataset, some, where) or ())
    if plan:
        with told_errors(as_json):
            planned = underfolder.plan_undo(dataset, run_keys, force, indices=some, check=check)
        _write_plan(planned, as_json)
        raise typer.Exit(0 if planned.refusal is None else 1)
    with told_errors(as_json):
        report = underfolder.undo_run(dataset, run_keys, force, indices=some, check=check)
    if as_json:
        write_json({**asdict(report), "run_key": report.run_key})
    else:
        _write_undo(report)


def _check_of(rules: Path | None, as_json: bool) -> Check | None:
    """What holds samples against the rules in a file, if there is one."""
    if rules is None:
        return None
    from prefect_pipestream.validation import SampleRules

    with told_errors(as_json):
        return SampleRules.read(rules).problems


def _write_plan(plan: UndoPlan, as_json: bool) -> None:
    if as_json:
        write_json({**asdict(plan), "files": plan.files})
        return
    if plan.samples:
        write_table(
            plan.samples.items(),
            (
                ("sample", lambda pair: str(pair[0])),
                ("files to be put back or removed", lambda pair: ", ".join(pair[1])),
                ("changed since", lambda pair: ", ".join(plan.changed.get(pair[0], ()))),
            ),
        )
    for name in plan.left:
        write_line(f"Shared item {name[1:]} was changed since and would be left as it is.")
    write_line(
        f"{counted(len(plan.samples), 'sample')} would be restored, {counted(plan.files, 'file')} "
        "put back or removed. Nothing was done."
    )
    if plan.refusal is not None:
        write_line(f"It would be refused. {plan.refusal}")


def _write_undo(report: UndoReport) -> None:
    what = " and ".join(map(repr, report.run_keys))
    are_several = len(report.run_keys) > 1
    are_undone = f"Runs {what} are undone" if are_several else f"Run {what} is undone"
    if report.indices is not None:
        are_undone = f"A part of {what} is undone"
    write_line(
        f"{are_undone}: {counted(report.samples, 'sample')} restored, "
        f"{counted(report.files, 'file')} put back or removed."
    )
    if report.overwritten:
        changed = counted(len(report.overwritten), "file")
        write_line(f"Among them: {changed} that had been changed since.")
    for name in report.left:
        write_line(f"Shared item {name[1:]} was changed since and is left as it is.")
    if report.samples or report.indices:
        whose = "their" if are_several else "its"
        write_line(f"To have {whose} changes back, undo {report.undo_run_key!r}.")


def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The dataset's address (s3://…).")
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="The address of the copy: a new one, or a copy."),
    ],
    as_json: AsJson = False,
) -> None:
    """Copy a dataset in a bucket with all its runs, or bring a copy up to date."""
    with told_errors(as_json):
        report = underfolder.copy_dataset(source, target)
    if as_json:
        write_json(report)
        return
    write_line(
        f"{report.target} is as {report.source}: {counted(report.entries, 'change')} added, with "
        f"{counted(report.contents, 'content')}, and {counted(report.files, 'other file')} copied."
    )


def compact(
    dataset: Dataset,
    run_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="A name for the run, or an interrupted one to go on with."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Close the gaps that removed samples left: the others move down, in their order."""
    with told_errors(as_json):
        if as_json:
            write_json(underfolder.compact(dataset, run_key))
            return
        with terminal_bar("Moving samples") as advance:
            report = underfolder.compact(dataset, run_key, on_progress=advance)
    if not report.moved:
        write_line(f"{counted(report.samples, 'sample')}: there is no gap.")
        return
    write_line(f"{report.moved:,} of {counted(report.samples, 'sample')} moved: no gap is left.")
    write_line(f"To have the old indices back, undo {report.run_key!r}.")


def check(
    dataset: Dataset,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decode every item, and find what does not belong."""
    with told_errors(as_json):
        if as_json:
            report = underfolder.check(dataset, fix)
            write_json({**asdict(report), "ok": report.ok})
        else:
            with terminal_bar("Checking") as advance:
                report = underfolder.check(dataset, fix, advance)
            _write_check(report)
    raise typer.Exit(0 if report.ok else 1)


def _write_check(report: CheckReport) -> None:
    if report.problems:
        write_table(report.problems, _PROBLEM_COLUMNS)
    mended = sum(problem.mended for problem in report.problems)
    problems = counted(len(report.problems), "problem") if report.problems else "no problem"
    write_line(
        f"{counted(report.samples, 'sample')}, {counted(report.items, 'item')} decoded: {problems}"
        f"{f', {mended} of them mended' if mended else ''}."
    )
    if report.gaps:
        write_line(_described_gaps(report))
    for reason, number in report.unchecked.items():
        write_line(f"{counted(number, 'item')} not decoded: {reason}")


def _described_gaps(report: CheckReport) -> str:
    """Which indices have no sample: no defect, as samples may be removed."""
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in report.gaps[:_SHOWN_GAPS]]
    more = f" and {len(report.gaps) - _SHOWN_GAPS:,} more gaps" * (len(report.gaps) > _SHOWN_GAPS)
    return f"No samples {', '.join(shown)}{more}. `pipestream compact` closes gaps."


def stages(
    name: Annotated[
        str | None, typer.Argument(metavar="STAGE", help="One stage, with its arguments.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the stages that a transform is made of."""
    from prefect_pipestream.sequences.stage import known_stages, stage_class

    if name is None:
        _write_stages({name: _first_line(cls) for name, cls in known_stages().items()}, as_json)
        return
    with told_errors(as_json):
        cls = stage_class(name)
    if as_json:
        fields = {
            name: {
                "needed": field.is_required(),
                "default": _default_as_json(field),
                "values": _values(field),
                "description": field.description,
            }
            for name, field in cls.model_fields.items()
        }
        write_json({"description": inspect.getdoc(cls), "arguments": fields})
        return
    write_line(inspect.getdoc(cls) or "")
    if cls.model_fields:
        write_line("")
        write_table(cls.model_fields.items(), _FIELD_COLUMNS)


def _write_stages(found: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        write_json(found)
    else:
        write_table(found.items(), (("stage", itemgetter(0)), ("what it does", itemgetter(1))))


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


# -- columns -------------------------------------------------------------------------------


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _counts(run: RunInfo) -> str:
    return ", ".join(f"{n} {outcome}" for outcome, n in run.counts.items() if n)


def _sample(problem: Problem) -> str:
    return "" if problem.idx is None else str(problem.idx)


def _what_and_remedy(problem: Problem) -> str:
    """Both in one text, and the remedy once: some messages, met elsewhere, name it too."""
    is_named = problem.remedy in problem.message
    return problem.message if is_named else f"{problem.message} {problem.remedy}"


def _default(field: Any) -> str:
    return "(needed)" if field.is_required() else repr(field.get_default(call_default_factory=True))


def _default_as_json(field: Any) -> Any:
    """The default as JSON has it: null, too, where an argument is needed."""
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    return to_jsonable_python(default, fallback=repr)


def _values(field: Any) -> list[str]:
    """The values that an argument allows, where they can be listed."""
    found: list[str] = []
    _add_values(field.annotation, found)
    return found


def _add_values(annotation: Any, found: list[str]) -> None:
    from enum import Enum
    from typing import Literal, get_args, get_origin

    if get_origin(annotation) is Literal:
        found += map(str, get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        found += [str(member.value) for member in annotation]
    else:
        for part in get_args(annotation):
            _add_values(part, found)


RUN_COLUMNS: tuple[Column, ...] = (
    ("run", lambda run: run.run_key),
    ("state", lambda run: run.state),
    ("started", lambda run: _when(run.started)),
    ("last commit", lambda run: _when(run.last_commit)),
    ("samples", _counts),
    ("undo", lambda run: size_of(run.undo_bytes)),
    ("kept", lambda run: (run.name or "yes") if run.kept else ""),
    ("by", lambda run: "@".join(filter(None, (run.user, run.host)))),
)


def _lines_of(run: RunInfo) -> list[tuple[str, str]]:
    """All that is known of a run, and where it came from."""
    known = [(title, shown(run)) for title, shown in RUN_COLUMNS]
    noted = [] if run.provenance is None else list(run.provenance.lines())
    return [*known, *((title, told) for title, told in noted if title != "by")]


_PROBLEM_COLUMNS: tuple[Column, ...] = (
    ("problem", lambda problem: problem.kind),
    ("sample", _sample),
    ("file", lambda problem: problem.file),
    ("mended", lambda problem: "yes" if problem.mended else "no"),
    ("what", _what_and_remedy),
)
_FIELD_COLUMNS: tuple[Column, ...] = (
    ("argument", itemgetter(0)),
    ("default", lambda pair: _default(pair[1])),
    ("what it is", lambda pair: _described(pair[1])),
)


def _described(field: Any) -> str:
    values = _values(field)
    allowed = f" One of: {', '.join(values)}." if values else ""
    return f"{field.description or ''}{allowed}"
