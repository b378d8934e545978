"""The flow that takes a run back."""

from prefect import flow, get_run_logger

from prefect_pipestream.flows.dataset import Dataset, absolute, block_of, listing_runs
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact
from prefect_pipestream.reporting.artifacts import publish_undo
from prefect_pipestream.sequences.where import samples_to_undo
from prefect_pipestream.underfolder import undo_run as undo
from prefect_pipestream.underfolder.opening import ledgers_of
from prefect_pipestream.underfolder.runs.listing import needed_last_run
from prefect_pipestream.validation import ItemRule, SampleRules


@flow(name="undo-run")
def undo_run(
    dataset: Dataset,
    run_key: str | list[str] | None = None,
    force: bool = False,
    indices: list[int] | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    where: str | None = None,
) -> str:
    """Restores a dataset to what it was before a run, or several, byte by byte.

    Args:
        dataset: The dataset that the run wrote, or its folder.
        run_key: Empty for the last run; or the key of one, as its report names it, or the name
            that it was given; or those of several that took turns on some samples.
        force: Restore also samples that someone changed since the run, whatever the rules say.
        indices: Restore these samples alone: the rest of the run stands. Empty for all.
        rules: What is expected of items, as in validate-dataset. Where a sample would not be so
            after the undo, nothing is undone. Empty for none.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        where: A query, as for clean-dataset: restore just those of which it is true now, and the
            rest of the run stands. Empty for none.

    Returns:
        The key of the run that the undo is: undo that one to have the changes back.

    Raises:
        RunNotFoundError: If there is no such run, or none at all; it lists the last ones.
        PipeBuildingError: If a rule or the query is wrong.
        UndoRefusedError: If someone changed samples of the run since; or it has none of those
            that are given; or the query is true of none; or samples would not be as the rules
            say. Nothing was changed.
    """
    gate = SampleRules.gate(rules, allow_other_items)
    check = None if gate is None else gate.problems
    folder = block_of(dataset).folder
    with listing_runs(folder):
        key = run_key or needed_last_run(ledgers_of(folder))
        some = samples_to_undo(folder, indices or None, where or None)
        facts = provenance_fact(code_in_force(None, [folder]))
        report = undo(folder, key, force=force, indices=some, check=check, facts=facts)
    log = get_run_logger()
    log.info(
        "Run %s undone: %d samples restored, %d files; by run %s.",
        report.run_key,
        report.samples,
        report.files,
        report.undo_run_key,
    )
    publish_undo(report, absolute(folder), log)
    return report.undo_run_key
