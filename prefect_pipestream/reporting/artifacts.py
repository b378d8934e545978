"""The report of a run, as an artifact of its flow run."""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.exporting import ExportReport
from prefect_pipestream.reporting.browser_links import run_link, sample_link
from prefect_pipestream.reporting.events import emit_dataset_event
from prefect_pipestream.reporting.forms import link_to_form
from prefect_pipestream.reporting.markdown import (
    SHOWN_FAILURES,
    Failure,
    cell,
    chunks_section,
    failures_section,
    outcomes_section,
    pictures_section,
    provenance_section,
    table,
    warnings_section,
)
from prefect_pipestream.reporting.progress import API_ERRORS, Log
from prefect_pipestream.reporting.reports import ChunkTime, FailedSample, RunReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.storage.untrusted import write_anew
from prefect_pipestream.underfolder.ledger.provenance import Provenance
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.opening import ledgers_of
from prefect_pipestream.underfolder.runs.compacting import CompactReport
from prefect_pipestream.underfolder.runs.listing import RunInfo
from prefect_pipestream.underfolder.runs.undo import UndoReport
from prefect_pipestream.views.changes import changes_of_run
from prefect_pipestream.views.differences import ShownChange

_SAME = ("transform", "keys", "encoder_options")
"""The parameters that a run over the failed samples of another has of that one."""


def publish_report(
    report: RunReport,
    source: DataStream,
    target: DataStream,
    chunks: Sequence[ChunkTime],
    log: Log,
    taken_back: "TakenBack | None" = None,
) -> None:
    """Adds the report to the flow run's artifacts.

    It is to be called before the run's ledger is packed. What goes wrong is logged, whatever it
    is: what the run wrote is not to look lost for a value that cannot be shown.

    Args:
        report: The run's report.
        source: Where the run read samples.
        target: Where it wrote them.
        chunks: The times of its chunks.
        log: The flow run's logger.
        taken_back: What the run left, if it took itself back.
    """
    folder = target.output_folder
    try:
        links = _links_to_forms(report, target)
        ledger = target.run if taken_back is None else taken_back.ledger
        full_list = write_failures(ledger, report)
        text = report_markdown(report, source, target, chunks, full_list, links, taken_back)
        add_markdown(text, artifact_key("report", folder), f"What became of {folder.name}")
        resumed = _other_flow_run(report.run_key)
        if resumed is not None:
            add_note(resumed, f"This run was gone on with in {link_to_flow_run(flow_run.id)}.", log)
    except Exception as error:  # noqa: BLE001
        log.warning("The report could not be added to the flow run's artifacts: %r", error)


def report_markdown(
    report: RunReport,
    source: DataStream,
    target: DataStream,
    chunks: Sequence[ChunkTime],
    full_list: Path | None,
    links: Sequence[str] = (),
    taken_back: "TakenBack | None" = None,
) -> str:
    """The report as Markdown: at most some 450 KB, whatever the size of the run."""
    if taken_back is None:
        changes, ledger = changes_of_run(source, target), target.run
    else:
        changes, ledger = iter(taken_back.changes), taken_back.ledger
    # Elsewhere an index is the source's, and the browser shows the dataset that was written.
    named = sample_link if target.is_in_place else str
    sections = [
        f"# {target.output_folder.name}",
        _where(report, source, target),
        " · ".join(links),
        _taken_back(report),
        warnings_section(report.warnings),
        outcomes_section(report.counts, report.pace()),
        failures_section(
            failure_lines(report.failures, (source.input_folder, target.output_folder)),
            report.counts["failed"],
            None if full_list is None else str(full_list),
            named=named,
        ),
        pictures_section(changes, named=named),
        chunks_section(chunks),
        provenance_section(ledger.provenance()),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _links_to_forms(report: RunReport, target: DataStream) -> list[str]:
    """Links to the forms of what may follow upon a run, filled in, where they are deployed."""
    folder = str(target.output_folder)
    links = []
    if report.taken_back:
        redo = {"dataset": folder, "run_key": report.undone_by}
        is_to_redo = report.undone_by is not None
        link = link_to_form("Have its changes back", "undo-run", redo) if is_to_redo else ""
        return [link] if link else []
    if report.changed:
        undo = {"dataset": folder, "run_key": report.run_key}
        links.append(link_to_form("Take this run back", "undo-run", undo))
    same = {name: value for name, value in flow_run.parameters.items() if name in _SAME and value}
    # Elsewhere the source may be any stream, which is no folder that a form can name.
    if report.counts["failed"] and target.is_in_place and "transform" in same:
        again = {"dataset": folder, "failed_run": report.run_key, **same}
        links.append(link_to_form("Process the failed samples again", "reprocess-failed", again))
    return [link for link in links if link]


def _taken_back(report: RunReport) -> str:
    """That a run took itself back, if it did, and by which run."""
    if not report.taken_back:
        return ""
    if report.undone_by is None:
        return "**The run took itself back**, as too many samples failed: it had changed nothing."
    return (
        "**The run took itself back**, as too many samples failed: the dataset is as it was "
        f"before. Undo run `{report.undone_by}` to have the changes back."
    )


def _where(report: RunReport, source: DataStream, target: DataStream) -> str:
    lines = []
    if source.input_folder not in (None, target.output_folder):
        lines.append(f"From `{source.input_folder}`")
    lines.append(f"Dataset `{target.output_folder}`")
    lines.append(f"Run key {run_link(report.run_key)}")
    if report.undo_bytes:
        held = size_of(report.undo_bytes)
        lines.append(f"Its undo holds {held} of the disk, until the run is pruned")
    resumed = _other_flow_run(report.run_key)
    if resumed is not None:
        lines.append(f"Goes on with the run {link_to_flow_run(resumed)}")
    return "  \n".join(lines)


def failure_lines(
    failures: Iterable[FailedSample], folders: Iterable[Place | None] = ()
) -> list[Failure]:
    """The first failed samples as lines of a table, with paths relative to the datasets."""
    inside = [f"{folder}{os.sep}" for folder in folders if folder is not None]
    lines = []
    for _, failure in zip(range(SHOWN_FAILURES), failures, strict=False):
        reason = f"{failure.error_type}: {failure.message}"
        for prefix in inside:
            reason = reason.replace(prefix, "")
        lines.append(Failure(failure.idx, reason, failure.attempts))
    return lines


def write_failures(run: Run, report: RunReport) -> Path | None:
    """Writes the full list of failed samples beside the run's ledger, for a spreadsheet.

    Args:
        run: The run, where its ledger is now.
        report: The run's report.

    Returns:
        The file; None if no sample failed, or the ledger is one of a bucket.
    """
    if is_address(run.layout.root):  # it is no place to write
        return None
    path = Path(run.failures_table)
    if not report.failures:
        path.unlink(missing_ok=True)
        return None
    text = StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(["sample", "error", "message", "tries"])
    lines.writerows((one.idx, one.error_type, one.message, one.attempts) for one in report.failures)
    write_anew(str(path), text.getvalue().encode(errors="backslashreplace"), run.layout.staged)
    return path


@dataclass(frozen=True)
class TakenBack:
    """What a run left that took itself back.

    Attributes:
        ledger: The run, as it is kept.
        changes: Some of the samples that it had changed.
    """

    ledger: Run
    changes: Sequence[ShownChange]


def shown_changes(source: DataStream, target: DataStream, log: Log) -> list[ShownChange]:
    """Some of the samples that a run changed, to be shown when they are as they were before.

    What goes wrong is logged, whatever it is: it is no reason to let the run stand.
    """
    try:
        return list(changes_of_run(source, target))
    except Exception as error:  # noqa: BLE001
        log.warning("The changes of the run cannot be shown in its report: %r", error)
        return []


def publish_undo(report: UndoReport, folder: Place, log: Log) -> None:
    """Tells of an undo: an artifact here, and a note at the flow run that was taken back."""
    try:
        part = "" if report.indices is None else "A part of a"
        lines = [
            f"# {part or 'A'} run of {folder.name} was taken back",
            f"Dataset `{folder}`",
            f"Run key {', '.join(map(run_link, report.run_keys))}, now undone "
            f"{'in part ' if part else ''}by run {run_link(report.undo_run_key)}",
            f"**{report.samples:,}** samples restored, {report.files:,} files.",
        ]
        for undone in filter(None, map(flow_run_of, report.run_keys)):
            lines.append(f"The flow run that was taken back: {link_to_flow_run(undone)}")
            what = "A part of this run" if part else "This run"
            add_note(undone, f"{what} was taken back by {link_to_flow_run(flow_run.id)}.", log)
        undo = Run.of(ledgers_of(folder), report.undo_run_key)
        lines.append(provenance_section(undo.provenance()))
        add_markdown("\n\n".join(lines) + "\n", artifact_key("undo", folder), "What was undone")
    except (*API_ERRORS, DatasetError) as error:
        log.warning("The undo could not be added to the flow run's artifacts: %s", error)
    for key in report.run_keys:
        emit_dataset_event("run.undone", folder, run_key=key, samples=report.samples)


def publish_compaction(report: CompactReport, folder: Place, log: Log) -> None:
    """Tells of a compaction: an artifact, and an event of the dataset."""
    lines = [
        f"# The gaps of {folder.name} are closed",
        f"Dataset `{folder}`",
        f"Run key {run_link(report.run_key)} (by which it can be undone)",
        f"**{report.moved:,}** of {report.samples:,} samples moved to lower indices.",
    ]
    try:
        lines.append(provenance_section(Run.of(ledgers_of(folder), report.run_key).provenance()))
        add_markdown("\n\n".join(lines) + "\n", artifact_key("compact", folder), "What was moved")
    except (*API_ERRORS, DatasetError) as error:
        log.warning("The compaction could not be added to the flow run's artifacts: %s", error)
    emit_dataset_event("run.compacted", folder, run_key=report.run_key, moved=report.moved)


def publish_export(
    report: ExportReport, folder: Place, provenance: Provenance | None, log: Log
) -> None:
    """Tells of an export, which no ledger does: how much was written, and where it came from.

    Args:
        report: What became of it.
        folder: The dataset that was exported.
        provenance: Where the export came from.
        log: The flow run's logger.
    """
    failures = [
        Failure(idx, f"{why.error_type}: {why.message}", 1)
        for idx, why in list(report.failures.items())[:SHOWN_FAILURES]
    ]
    sections = [
        f"# {folder.name} as {report.kind}",
        f"Dataset `{folder}`  \nWritten to `{report.folder}`",
        f"**{report.samples:,}** samples.",
        failures_section(failures, len(report.failures), None, "Samples that are left out"),
        provenance_section(provenance),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    try:
        add_markdown(text, artifact_key("export", folder), f"What was written to {report.folder}")
    except API_ERRORS as error:
        log.warning("The export could not be added to the flow run's artifacts: %s", error)


def publish_pruning(runs: Sequence[RunInfo], folder: Place, is_plan: bool, log: Log) -> None:
    """Tells of runs that were removed, or would be: an artifact; and an event, if they were."""
    freed = sum(run.undo_bytes for run in runs)
    what = "would be removed" if is_plan else "removed for good"
    rows = [
        [cell(run.run_key), run.state, f"{_last_time(run):%Y-%m-%d %H:%M}", size_of(run.undo_bytes)]
        for run in runs[:SHOWN_FAILURES]
    ]
    lines = [
        f"# Old runs of {folder.name}",
        f"Dataset `{folder}`",
        f"**{len(runs):,}** runs {what}, with {size_of(freed)} of files for their undo.",
        table(["run", "state", "last commit", "undo"], rows) if rows else "",
        f"… and **{len(runs) - len(rows):,} more**." if len(runs) > len(rows) else "",
    ]
    try:
        text = "\n\n".join(line for line in lines if line) + "\n"
        add_markdown(text, artifact_key("prune", folder), "Which runs were removed")
    except API_ERRORS as error:
        log.warning("The pruning could not be added to the flow run's artifacts: %s", error)
    if runs and not is_plan:
        keys = [run.run_key for run in runs]
        emit_dataset_event("runs.pruned", folder, run_keys=keys, freed_bytes=freed)


def _last_time(run: RunInfo) -> datetime:
    """When a run did something last; of one of which that was not noted, long ago."""
    return run.last_commit or run.started or datetime.fromtimestamp(0, UTC)


# -- artifacts and links -------------------------------------------------------------------


def add_markdown(text: str, key: str | None, description: str) -> None:
    """Adds Markdown to the artifacts of the flow run that is executed."""
    create_markdown_artifact(markdown=text, key=key, description=description)


def add_note(of: str, text: str, log: Log) -> None:
    """Adds a line of Markdown to another flow run's artifacts, if there is such a flow run."""
    note = ArtifactCreate(
        type="markdown", data=text, description="Note", flow_run_id=UUID(of), key=None
    )
    try:
        with get_client(sync_client=True) as client:
            client.create_artifact(note)
    except API_ERRORS as error:
        log.debug("No note was added to flow run %s: %s", of, error)


def artifact_key(what: str, folder: Place) -> str:
    """The key under which Prefect lists the versions of an artifact about a dataset."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    return f"{what}-{name}".strip("-")


def link_to_flow_run(flow_run_id: str | None) -> str:
    """A Markdown link to a flow run in the UI."""
    if not flow_run_id:
        return "another run"
    address = url_for("flow-run", obj_id=flow_run_id)
    return f"[{flow_run_id}]({address})" if address else f"`{flow_run_id}`"


def flow_run_of(run_key: str) -> str | None:
    """The flow run that a run key was made from; None where it has another name."""
    try:
        return str(UUID(run_key))
    except ValueError:
        return None


def _other_flow_run(run_key: str) -> str | None:
    first = flow_run_of(run_key)
    return None if first == str(flow_run.id) else first
