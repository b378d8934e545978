"""Samples that a run has done are taken back, to be processed again as part of it."""

from dataclasses import replace

from prefect_pipestream.flows.provenance import code_in_force, provenance_fact
from prefect_pipestream.flows.selection import Choice, tell_of_problems
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import undo_run
from prefect_pipestream.underfolder.runs.listing import existing_run


def check_redo(redo: bool, run_key: str | None, plan: bool, follow: str | None) -> None:
    """Raises `ValueError` where samples are to be redone of no run, or of one that is planned."""
    if redo and not run_key:
        raise ValueError("redo: of which run? Give its `run_key`.")
    if redo and (plan or follow):
        raise ValueError("redo: it goes neither with `plan` nor with `follow`. Leave these out.")


def take_back_chosen(source: DataStream, target: DataStream, choice: Choice, log: Log) -> Choice:
    """Takes back what a run did of samples, which is an undo of a part of it.

    Args:
        source: Where samples are read.
        target: Where they were written, as part of the run.
        choice: Which samples: by index and by query, as they are now.
        log: Is told of the undo.

    Returns:
        The same choice by index alone: the run goes on with the query that it was begun with.

    Raises:
        RunNotFoundError: If there is no such run.
        UndoRefusedError: If somebody changed one of the samples since. Nothing was undone.
        QueryError: If the query cannot be answered.
    """
    folder = target.output_folder
    run = existing_run(target.run.layout, target.run_key)
    done = run.done_indices()
    chosen = choice.indices
    if choice.where is not None:
        found = source.found(choice.where, folder)
        tell_of_problems(found, log)
        matching = found.indices.tolist()
        chosen = matching if chosen is None else sorted(set(matching).intersection(chosen))
    again = sorted(done if chosen is None else done.intersection(chosen))
    if again:
        facts = provenance_fact(code_in_force(None, [folder]))
        report = undo_run(folder, run.key, indices=again, facts=facts)
        log.info(
            "%d samples of run %s are taken back, by run %s, and processed again.",
            len(again),
            run.key,
            report.undo_run_key,
        )
    return replace(choice, indices=chosen, where=None)
