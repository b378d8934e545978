"""The plan of a run, in a terminal."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from prefect_pipestream.cli.output import printable, reader_may_leave
from prefect_pipestream.cli.prefect_terminal import ReportConsole
from prefect_pipestream.reporting.markdown import ranges
from prefect_pipestream.reporting.plans import LEFT_OUT, REASONS, RunPlan, rows_of
from prefect_pipestream.storage.space import size_of

_RANGES = 12


@reader_may_leave()
def print_plan(plan: RunPlan, folder: Path, follow: Sequence[str] | None) -> None:
    """Prints which samples a run would process and why, what it would cost, and some changes.

    Args:
        plan: The plan.
        folder: The dataset that would be written.
        follow: The words of the command that does the plan; None where there is none.
    """
    console = ReportConsole()
    are = "sample would" if plan.total == 1 else "samples would"
    console.print(f"\n[bold]{plan.total:,} {are} be processed[/]; nothing was written.")
    console.print(_reasons(plan))
    if plan.total:
        console.print(_costs(plan))
    for warning in plan.warnings:
        console.print(Text(printable(warning), style="yellow"))
    if plan.changes or plan.failures:
        console.print(_tried(plan, folder))
    lines = [f"\nDataset  {plan.folder}", f"Plan     {plan.key}"]
    if follow is not None and plan.can_be_followed and plan.total:
        lines.append(f"Do it    {shlex.join(['pipestream', *follow])}")
    for line in lines:  # unwrapped: what is broken into lines cannot be pasted into a shell
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _reasons(plan: RunPlan) -> Table:
    table = Table.grid(padding=(0, 2))
    for reason, found in plan.samples.items():
        table.add_row(_number(len(found), "green"), REASONS[reason], ranges(found, _RANGES))
    for number, text in rows_of(plan.left_out, LEFT_OUT):
        table.add_row(_number(number, "dim"), Text(f"left out: {text}", style="dim"), "")
    for by, number in plan.chosen_by.items():
        what = f"chosen by {by}"
        query = plan.where if by == "where" and plan.where is not None else ""
        table.add_row(_number(number, "dim"), Text(what, style="dim"), Text(printable(query)))
    return table


def _number(number: int, style: str) -> Text:
    return Text(f"{number:,}", style=style, justify="right")


def _costs(plan: RunPlan) -> Text:
    parts = [f"undo would hold some {size_of(plan.undo_bytes)}", plan.trial()]
    if plan.time():
        parts.insert(0, f"some {plan.time()}")
    return Text("; ".join(parts))


def _tried(plan: RunPlan, folder: Path) -> Table:
    table = Table(title="Of those tried", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("sample", justify="right")
    table.add_column("before and after, or why it failed", overflow="fold")
    inside = f"{folder.resolve()}{os.sep}"
    rows = []
    for change in plan.changes:
        idx = str(change.idx) if change.idx == change.target else f"{change.idx} → {change.target}"
        rows.append((change.idx, idx, Text(printable("; ".join(change.differences) or "written"))))
    for failure in plan.failures:
        reason = f"{failure.error_type}: {failure.message}".replace(inside, "")
        rows.append((failure.idx, str(failure.idx), Text(printable(reason), style="red")))
    for _, idx, text in sorted(rows, key=lambda row: row[0]):
        table.add_row(idx, text)
    return table
