"""The plan of a run, as an artifact of its flow run."""

from collections.abc import Sequence

from prefect.runtime import flow_run

from prefect_pipestream.reporting.artifacts import (
    add_markdown,
    artifact_key,
    failure_lines,
)
from prefect_pipestream.reporting.forms import link_to_form
from prefect_pipestream.reporting.markdown import (
    cell,
    failures_section,
    pictures_section,
    ranges,
    table,
    warnings_section,
)
from prefect_pipestream.reporting.plans import LEFT_OUT, REASONS, RunPlan, rows_of
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.views.differences import ShownChange


def publish_plan(plan: RunPlan, changes: Sequence[ShownChange], folder: Place, log: Log) -> None:
    """Adds a plan to the flow run's artifacts; what goes wrong is logged, whatever it is.

    Args:
        plan: The plan.
        changes: Those tried that would change, as they are shown.
        folder: The dataset that would be written.
        log: The flow run's logger.
    """
    try:
        text = plan_markdown(plan, changes, folder, _link_to_run(plan))
        add_markdown(text, artifact_key("plan", folder), f"What a run on {folder.name} would do")
    except Exception as error:  # noqa: BLE001 # a value that cannot be shown is no reason to fail
        log.warning("The plan could not be added to the flow run's artifacts: %r", error)


def plan_markdown(
    plan: RunPlan, changes: Sequence[ShownChange], folder: Place, link: str = ""
) -> str:
    """The plan as Markdown, of bounded size whatever the number of samples."""
    sections = [
        f"# Plan of a run on {folder.name}",
        _what(plan),
        link,
        warnings_section(plan.warnings),
        _processed(plan),
        _left_out(plan),
        _costs(plan),
        failures_section(
            failure_lines(plan.failures, (folder,)),
            plan.outcomes.get("failed", 0),
            None,
            title="Failed of those tried",
        ),
        pictures_section(changes, title=f"Before and after, {plan.trial()}"),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _what(plan: RunPlan) -> str:
    lines = [f"Dataset `{plan.folder}`", f"Transform {cell(plan.transform)}"]
    if plan.run_key is not None:
        lines.append(f"Run key `{plan.run_key}`")
    if plan.can_be_followed:
        lines.append(f"Plan `{plan.key}`: a run that is given it as `follow` does just this")
    lines.append("Nothing was written.")
    return "  \n".join(lines)


def _processed(plan: RunPlan) -> str:
    rows = [
        [f"{len(found):,}", REASONS[reason], ranges(found)]
        for reason, found in plan.samples.items()
    ]
    chosen = [f"{number:,} chosen by `{by}`" for by, number in plan.chosen_by.items()]
    if plan.where is not None:
        chosen.append(f"where {cell(plan.where)}")
    parts = [f"**{plan.total:,} samples would be processed**", "; ".join(chosen)]
    parts += [table(["samples", "why", "which"], rows)] if rows else []
    return "\n\n".join(part for part in parts if part)


def _left_out(plan: RunPlan) -> str:
    rows = [[f"{number:,}", text] for number, text in rows_of(plan.left_out, LEFT_OUT)]
    return "**Left out**\n\n" + table(["samples", "why"], rows) if rows else ""


def _costs(plan: RunPlan) -> str:
    lines = [f"Undo would hold some **{size_of(plan.undo_bytes)}**"]
    if plan.time():
        lines.insert(0, f"It would take some **{plan.time()}**")
    return "  \n".join(lines) if plan.total else ""


def _link_to_run(plan: RunPlan) -> str:
    """A link to the form of a run that goes by the plan, filled in, where that is deployed."""
    if not plan.can_be_followed or not flow_run.flow_name:
        return ""
    same = {name: value for name, value in flow_run.parameters.items() if value is not None}
    this = {**same, "plan": False, "follow": plan.key}
    return link_to_form("Run just this", flow_run.flow_name, this)
