"""Commands that show what runs did to samples. They do not import Prefect."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import typer

from prefect_pipestream import underfolder
from prefect_pipestream.cli.dataset_commands import Dataset
from prefect_pipestream.cli.indices import Indices, chosen_indices
from prefect_pipestream.cli.output import (
    AsJson,
    Column,
    counted,
    told_errors,
    write_json,
    write_line,
    write_table,
)
from prefect_pipestream.underfolder import ItemChange, KeptFile, SampleDifference, SampleEvent
from prefect_pipestream.views.differences import item_differences


def diff(
    dataset: Dataset,
    run_key: Annotated[
        str, typer.Argument(metavar="RUN", help="The key or name of a run, as `runs` lists them.")
    ],
    indices: Indices = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run changed, sample by sample: from before it to after it."""
    some = chosen_indices(indices)
    with told_errors(as_json):
        found = list(underfolder.run_differences(dataset, run_key, some))
        if as_json:
            write_json([_difference_as_json(one) for one in found])
            return
        pairs = [(one, change) for one in found for change in one.items]
        if pairs:
            write_table(pairs, _DIFFERENCE_COLUMNS)
    write_line(f"{counted(len(found), 'sample')} changed by run {run_key!r}.")


def history(
    dataset: Dataset,
    idx: Annotated[int, typer.Argument(metavar="IDX", help="The sample's index.")],
    as_json: AsJson = False,
) -> None:
    """Show which runs touched a sample, when, and what they changed."""
    with told_errors(as_json):
        events = underfolder.sample_history(dataset, idx)
        if as_json:
            write_json([_event_as_json(event) for event in events])
            return
        if events:
            write_table(events, _EVENT_COLUMNS)
    write_line(f"{counted(len(events), 'change')} known of sample {idx}.")


def restore(
    dataset: Dataset,
    idx: Annotated[int, typer.Argument(metavar="IDX", help="The sample's index.")],
    run_key: Annotated[
        str, typer.Option("--run", metavar="KEY", help="A run that `history` lists.")
    ],
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="ITEM", help="An item to restore; again for more. Else all."),
    ] = None,
    after: Annotated[
        bool, typer.Option("--after", help="To what it was right after the run, not before it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where somebody changed the sample by hand since.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a sample, or some items of it, back to what it was before a run."""
    state: Literal["before", "after"] = "after" if after else "before"
    with told_errors(as_json):
        report = underfolder.restore_sample(
            dataset, idx, run_key, keys or None, state=state, force=force
        )
    if as_json:
        write_json(report)
        return
    if report.run_key is None:
        write_line(f"Sample {idx} is as it was {state} run {run_key!r}: nothing was to be done.")
        return
    files = counted(len(report.written), "file")
    write_line(f"Sample {idx} is restored: {files} put back, {len(report.removed)} removed.")
    write_line(f"To have it back as it was just now, undo {report.run_key!r}.")


# -- what is shown -------------------------------------------------------------------------


def _fields_of(what: SampleDifference | SampleEvent) -> dict[str, Any]:
    return asdict(replace(what, items=()))


def _difference_as_json(difference: SampleDifference) -> dict[str, Any]:
    return {**_fields_of(difference), "items": list(map(_change_as_json, difference.items))}


def _event_as_json(event: SampleEvent) -> dict[str, Any]:
    return {**_fields_of(event), "items": list(map(_change_as_json, event.items))}


def _change_as_json(change: ItemChange) -> dict[str, Any]:
    return {
        "key": change.key,
        "before": _file_as_json(change.before),
        "after": _file_as_json(change.after),
        "kind": change.kind,
        "differences": _in_words(change),
    }


def _file_as_json(file: KeptFile | None) -> dict[str, Any] | None:
    return None if file is None else {"name": file.name, "path": file.path, "mark": file.mark}


def _in_words(change: ItemChange) -> list[str]:
    before, after = (
        None if file is None else file.item() for file in (change.before, change.after)
    )
    return item_differences(change.key, before, after)


def _told(change: ItemChange) -> str:
    """What became of an item, in a line."""
    lost = [_lost(when, f) for when, f in (("before", change.before), ("after", change.after)) if f]
    told = [*_in_words(change), *filter(None, lost)]
    return "; ".join(told)


def _lost(when: str, file: KeptFile) -> str:
    return f"what it was {when} is not kept" if file.path is None else ""


def _what_became(event: SampleEvent) -> str:
    if event.moved_from is not None:
        return f"moved from {event.moved_from} to {event.idx}"
    if event.failure is not None:
        return f"failed: {event.failure.error_type}: {event.failure.message}"
    return event.outcome


def _items(changes: Iterable[ItemChange]) -> str:
    return "\n".join(
        f"{change.key} {change.kind}{f' ({told})' if (told := _told(change)) else ''}"
        for change in changes
    )


_DIFFERENCE_COLUMNS: tuple[Column, ...] = (
    ("sample", lambda pair: str(pair[0].idx)),
    ("item", lambda pair: pair[1].key),
    ("was", lambda pair: pair[1].kind),
    ("difference", lambda pair: _told(pair[1])),
)
_EVENT_COLUMNS: tuple[Column, ...] = (
    ("when", lambda event: f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}"),
    ("run", lambda event: event.run_key),
    ("what became of it", _what_became),
    ("counts", lambda event: "yes" if event.counts else "taken back"),
    ("items", lambda event: _items(event.items)),
)
