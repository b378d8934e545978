"""The gate of a run: the rules of its samples, and its end where too many of them failed."""

from typing import Any, Literal

from prefect_pipestream.errors import DatasetError, PipeBuildingError, RunTakenOverError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact
from prefect_pipestream.reporting.artifacts import TakenBack, shown_changes, write_failures
from prefect_pipestream.reporting.events import emit_dataset_event
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.opening import undo_own_run
from prefect_pipestream.validation import SampleRules

OnInvalid = Literal["fail", "undo"]
"""What becomes of a run of which too many samples failed."""


def rules_of(run: Run, given: SampleRules | None) -> SampleRules | None:
    """The rules of a run: those that it was begun with.

    Args:
        run: The run.
        given: The rules that are asked for now; None: those of the run, if it was begun with some.

    Raises:
        PipeBuildingError: If others are given, or what the run noted are no rules.
    """
    facts = run.facts()
    if "fingerprint" not in facts:  # it begins now
        return given
    noted = facts.get("rules")
    if given is not None and given.text != noted:
        began = "without rules" if noted is None else f"with the rules {noted}"
        raise PipeBuildingError(
            f"run {run.key!r} was begun {began}, and cannot go on with the rules {given.text}. "
            "Give it no rules, or another run key; a new run may be over the samples that failed "
            'in this one (`select="failed"`).'
        )
    return None if noted is None else SampleRules.noted(noted)


def gate(run: ProcessRun, given: SampleRules | None) -> dict[str, Any]:
    """Lets a run write only what its rules allow.

    Args:
        run: The run.
        given: The rules that are asked for, if there are some.

    Returns:
        What the run is to note of its rules.

    Raises:
        PipeBuildingError: As for `rules_of`.
    """
    rules = rules_of(run.target.run, given)
    if rules is None:
        return {}
    checked = run.target.checking(rules.problems)
    if run.source is run.target:  # in place, it is one stream
        run.source = checked
    run.target = checked
    return {"rules": rules.text}


def finish_undo(run: ProcessRun) -> None:
    """Finishes the undo of a run that took itself back and was killed as it did: it begins anew.

    Raises:
        UndoRefusedError: If it was begun by others, and of more, or less, than the run.
        DatasetError, DatasetWriteError: As for `undo_run`.
    """
    writer = run.target
    if writer.run.is_half_undone():
        run.warn(
            f"An attempt at run {run.key!r} was stopped while it took the run back. That is "
            "finished now, and the run begins anew."
        )
        undo_own_run(writer.run, writer.attempt, _facts(run))


def take_back(
    run: ProcessRun, report: RunReport, with_artifacts: bool
) -> tuple[RunReport, TakenBack | None]:
    """Takes a run back of which too many samples failed; it has stopped.

    Args:
        run: The run.
        report: What became of its samples.
        with_artifacts: Whether the report is shown, with pictures of what it had changed.

    Returns:
        The report, which says so, and what the run left to show; None in place of that where its
        undo was refused, and it stands.

    Raises:
        RunTakenOverError: If a later attempt at the run has it.
    """
    writer = run.target
    changes = shown_changes(run.source, writer, run.log) if with_artifacts else []
    try:
        write_failures(writer.run, report)  # moves with the run's folder
        pack_ledger(writer, run.log)
        undone = undo_own_run(writer.run, writer.attempt, _facts(run))
    except RunTakenOverError:
        raise
    except (DatasetError, OSError) as error:
        run.warn(f"The run was to be taken back, as too many samples failed, and was not: {error}")
        return report.model_copy(update={"warnings": [*report.warnings, run.warnings[-1]]}), None
    by = undone.undo_run_key if undone.files else None
    run.log.info(
        "Run %s took itself back: %d samples restored, %d files%s.",
        run.key,
        undone.samples,
        undone.files,
        f"; by run {by}" if by else "",
    )
    about = {"run_key": run.key, "samples": undone.samples, "undone_by": by}
    emit_dataset_event("run.undone", writer.output_folder, **about)
    kept = Run(writer.run.layout, undone.folders[0])
    report = report.model_copy(update={"taken_back": True, "undone_by": by})
    return report, TakenBack(kept, changes)


def _facts(run: ProcessRun) -> dict[str, Any]:
    """What the ledger is to say of an undo by the run itself."""
    return provenance_fact(code_in_force(None, [run.target.output_folder]))


def pack_ledger(writer: DataStream, log: Log) -> None:
    """Packs a run's ledger, which may wait: a full disk is no reason to call the run failed."""
    try:
        writer.end_run()
    except DatasetError as error:
        log.warning("The ledger of run %s stays unpacked: %s", writer.run_key, error)
