"""Flows whose parameters a form can show: on the samples of a dataset, and on its runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.errors import RunNotFoundError
from prefect_pipestream.flows.gating import OnInvalid
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact
from prefect_pipestream.flows.selection import Select
from prefect_pipestream.reporting.artifacts import publish_compaction, publish_pruning, publish_undo
from prefect_pipestream.reporting.reports import RunReport, describe_counts
from prefect_pipestream.sequences.where import samples_to_undo
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.underfolder import RunInfo, compact, list_runs
from prefect_pipestream.underfolder import prune_runs as prune
from prefect_pipestream.underfolder import undo_run as undo
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.runs.listing import needed_last_run
from prefect_pipestream.validation import ItemRule, SampleRules
from prefect_pipestream.work.streams import run_key_in_force

Dataset = ReadWriteUnderfolder | Path
"""A dataset as a form takes it: a saved block, which is chosen, or the folder, which is seen."""

_LISTED_RUNS = 5


def block_of(dataset: Dataset) -> ReadWriteUnderfolder:
    """The block of a dataset; one that is given is given back."""
    return ReadWriteUnderfolder(folder=dataset) if isinstance(dataset, Path) else dataset


@flow(name="clean-dataset")
def clean_dataset(
    dataset: Dataset,
    transform: list[str | dict[str, Any]],
    keys: list[str] | None = None,
    indices: list[int] | None = None,
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    select: Select = "all",
    run_key: str | None = None,
    encoder_options: dict[str, dict[str, Any]] | None = None,
    where: str | None = None,
    sample_timeout: Annotated[float, Field(gt=0)] | None = None,
    sample_memory: Annotated[float, Field(gt=0)] | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    on_invalid: OnInvalid = "fail",
    plan: bool = False,
    follow: str | None = None,
    redo: bool = False,
) -> RunReport:
    """Changes the samples of a dataset in place: each wholly or not at all, and each once.

    Args:
        dataset: The dataset to clean, or its folder.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"drop-blank-images": {}},
            {"resize-images": {"size": [256, 256]}}].
        keys: The items to write; empty for all.
        indices: The samples to process; empty for all.
        chunk_size: How many samples each task run processes; empty for a few seconds of work.
        sample_retries: How often a sample that fails is tried again.
        max_failed: The share of samples that may fail before the run counts as failed.
        select: Which samples: all; those that are new or changed since the same transform last
            saw them; or those that failed in the last run, or in that of the run key.
        run_key: Give the key or name of an earlier run to go on with it; empty for a new run.
        encoder_options: How items that change are encoded, by key: {"image": {"quality": 90}}, or
            {"image": {"metadata": "strip"}}. Empty for as they were, with their metadata.
        where: A query that is to be true of the samples, such as: metadata.label == 3 and not
            metadata.reviewed. Empty for none.
        sample_timeout: The time in seconds after which a sample fails that is still being worked
            on, as where the transform hangs; the others go on. Empty for none.
        sample_memory: The memory in MiB that the work on a sample may take. Empty for any.
        rules: What is expected of items: class, shape and type of images, fields of metadata; as in
            validate-dataset. A sample that would not be so fails, and is not written. Empty for
            none.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        on_invalid: Where too many samples failed: fail, and leave the others written; or undo, and
            take the whole run back.
        plan: Only say what the run would do: which samples and why, how long it would take, what
            undo would hold, and some samples before and after. Nothing is written.
        follow: The key of a plan, to do just that; what changed since is left as it is, and named.
            Empty for none.
        redo: Process samples once more that the run of the run key has done: those of the indices
            and the query are taken back first.

    Returns:
        What became of the samples; with `plan`, what would.
    """
    return process_samples.fn(
        source=dataset,
        transform=transform,
        keys=keys or None,
        indices=indices or None,
        chunk_size=chunk_size,
        sample_retries=sample_retries,
        max_failed=max_failed,
        select=select,
        run_key=run_key or None,
        encoder_options=encoder_options or None,
        where=where or None,
        sample_timeout=sample_timeout,
        sample_memory=sample_memory,
        rules=rules,
        allow_other_items=allow_other_items,
        on_invalid=on_invalid,
        plan=plan,
        follow=follow or None,
        redo=redo,
    )


@flow(name="build-dataset")
def build_dataset(
    source: ReadWriteUnderfolder | PipedDataStream | Path,
    target: CreateNewUnderfolder | OutputUnderfolder | Path,
    transform: list[str | dict[str, Any]],
    keys: list[str] | None = None,
    indices: list[int] | None = None,
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    select: Select = "all",
    run_key: str | None = None,
    encoder_options: dict[str, dict[str, Any]] | None = None,
    where: str | None = None,
    sample_timeout: Annotated[float, Field(gt=0)] | None = None,
    sample_memory: Annotated[float, Field(gt=0)] | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    on_invalid: OnInvalid = "fail",
    plan: bool = False,
    follow: str | None = None,
    redo: bool = False,
) -> RunReport:
    """Reads the samples of a dataset, changes them, and writes them to another one.

    Args:
        source: The dataset to read, or its folder; it is not changed.
        target: The dataset to write, or the folder of a new one.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"drop-blank-images": {}},
            {"resize-images": {"size": [256, 256]}}].
        keys: The items to write; empty for all.
        indices: The samples to process; empty for all.
        chunk_size: How many samples each task run processes; empty for a few seconds of work.
        sample_retries: How often a sample that fails is tried again.
        max_failed: The share of samples that may fail before the run counts as failed.
        select: Which samples: all; those that are new or changed since the same transform last
            saw them; or those that failed in the last run, or in that of the run key.
        run_key: Give the key or name of an earlier run to go on with it; empty for a new run.
        encoder_options: How items that change are encoded, by key: {"image": {"quality": 90}}, or
            {"image": {"metadata": "strip"}}. Empty for as they were, with their metadata.
        where: A query that is to be true of the samples, such as: metadata.label == 3 and not
            metadata.reviewed. Empty for none.
        sample_timeout: The time in seconds after which a sample fails that is still being worked
            on, as where the transform hangs; the others go on. Empty for none.
        sample_memory: The memory in MiB that the work on a sample may take. Empty for any.
        rules: What is expected of items: class, shape and type of images, fields of metadata; as in
            validate-dataset. A sample that would not be so fails, and is not written. Empty for
            none.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        on_invalid: Where too many samples failed: fail, and leave the others written; or undo, and
            take the whole run back.
        plan: Only say what the run would do: which samples and why, how long it would take, what
            undo would hold, and some samples before and after. Nothing is written.
        follow: The key of a plan, to do just that; what changed since is left as it is, and named.
            Empty for none.
        redo: Process samples once more that the run of the run key has done: those of the indices
            and the query are taken back first.

    Returns:
        What became of the samples; with `plan`, what would.
    """
    return process_samples.fn(
        source=source,
        target=target,
        transform=transform,
        keys=keys or None,
        indices=indices or None,
        chunk_size=chunk_size,
        sample_retries=sample_retries,
        max_failed=max_failed,
        select=select,
        run_key=run_key or None,
        encoder_options=encoder_options or None,
        where=where or None,
        sample_timeout=sample_timeout,
        sample_memory=sample_memory,
        rules=rules,
        allow_other_items=allow_other_items,
        on_invalid=on_invalid,
        plan=plan,
        follow=follow or None,
        redo=redo,
    )


@flow(name="reprocess-failed")
def reprocess_failed(
    dataset: Dataset,
    transform: list[str | dict[str, Any]],
    failed_run: str | None = None,
    target: OutputUnderfolder | Path | None = None,
    keys: list[str] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    encoder_options: dict[str, dict[str, Any]] | None = None,
    sample_timeout: Annotated[float, Field(gt=0)] | None = None,
    sample_memory: Annotated[float, Field(gt=0)] | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    on_invalid: OnInvalid = "fail",
    plan: bool = False,
    follow: str | None = None,
    where: str | None = None,
) -> RunReport:
    """Processes just the samples that failed in an earlier run, after their cause was mended.

    Args:
        dataset: The dataset that the run read, or its folder.
        transform: What to do with each sample; as a rule the same as in that run.
        failed_run: Empty for the last run, whose failed samples a new run then processes; or the
            run key of an earlier one, as its report names it, or its name; that then goes on.
        target: The dataset that the run wrote, or its folder; empty if it was in place.
        keys: The items to write; empty for all.
        sample_retries: How often a sample that fails again is tried.
        max_failed: The share of these samples that may fail before the run counts as failed.
        encoder_options: How items that change are encoded, by key; as a rule as in that run.
        sample_timeout: The time in seconds after which a sample fails that is still being worked
            on, as where the transform hangs; the others go on. Empty for none.
        sample_memory: The memory in MiB that the work on a sample may take. Empty for any.
        rules: What is expected of items, as in validate-dataset. A sample that would not be so
            fails, and is not written. Empty for none; a run that goes on keeps to its own.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        on_invalid: Where too many samples failed: fail, and leave the others written; or undo, and
            take the whole run back, with what it wrote before.
        plan: Only say what the run would do: which samples and why, how long it would take, what
            undo would hold, and some samples before and after. Nothing is written.
        follow: The key of a plan, to do just that; what changed since is left as it is, and named.
            Empty for none.
        where: A query that is to be true of the samples, such as: metadata.label == 3 and not
            metadata.reviewed. Empty for none.

    Returns:
        What became of the samples; with `plan`, what would.

    Raises:
        RunNotFoundError: If there is no such run, or none at all; it lists the last ones.
    """
    block = block_of(dataset)
    output = OutputUnderfolder(folder=target) if isinstance(target, Path) else target
    with _listing_runs(block.folder if output is None else output.folder):
        return process_samples.fn(
            source=block,
            transform=transform,
            target=output,
            keys=keys or None,
            sample_retries=sample_retries,
            max_failed=max_failed,
            select="failed",
            run_key=failed_run or None,
            encoder_options=encoder_options or None,
            sample_timeout=sample_timeout,
            sample_memory=sample_memory,
            rules=rules,
            allow_other_items=allow_other_items,
            on_invalid=on_invalid,
            plan=plan,
            follow=follow or None,
            where=where or None,
        )


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
    with _listing_runs(folder):
        key = run_key or needed_last_run(folder)
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
    publish_undo(report, Path(Layout.of(folder).root), log)
    return report.undo_run_key


@flow(name="compact-dataset")
def compact_dataset(dataset: Dataset, run_key: str | None = None, durable: bool = False) -> str:
    """Closes the gaps that removed samples left: the others move to lower indices, in their order.

    Args:
        dataset: The dataset to compact, or its folder. Nobody else is to write it meanwhile.
        run_key: Empty for a new run; or the key of one that was interrupted, to go on with it.
        durable: Make sure that each commit survives a loss of power; it takes longer.

    Returns:
        The key of the run: undo it to have the old indices back.

    Raises:
        DatasetError: If another run is being written, or an item is a link to another sample's.
        ConflictError: If other writers got in the way again and again.
    """
    log = get_run_logger()
    folder = Path(Layout.of(block_of(dataset).folder).root)
    key = run_key or run_key_in_force()
    facts = provenance_fact(code_in_force(None, [folder]))
    report = compact(folder, key, durable=durable, facts=facts)
    log.info(
        "Run %s: %d samples moved, of %d; there is no gap any more.",
        report.run_key,
        report.moved,
        report.samples,
    )
    publish_compaction(report, folder, log)
    return report.run_key


@flow(name="prune-runs")
def prune_runs(
    dataset: Dataset,
    older_than_days: Annotated[float, Field(ge=0, le=1e6)] | None = None,
    larger_than_gb: Annotated[float, Field(ge=0, le=1e9)] | None = None,
    keep_last: Annotated[int, Field(ge=0)] = 0,
    plan: bool = False,
) -> list[str]:
    """Removes old runs with the files that their undo needs, for good, and frees their space.

    Runs that are kept (`pipestream keep`) stay, with all that their undo needs; and those that are
    running, half undone, or wait for a decision on their review.

    Args:
        dataset: The dataset whose runs are removed, or its folder.
        older_than_days: Runs go that did nothing for so many days; empty: none goes by its age.
        larger_than_gb: How much disk space undo may hold, in gigabytes: the oldest runs go until
            it holds no more; empty for as much as there is.
        keep_last: So many of the last runs stay in any case.
        plan: Only show which runs would be removed, and remove none.

    Returns:
        The keys of the runs that were removed, or would be.

    Raises:
        ValueError: If neither an age nor a size is given.
        DatasetError: If the dataset is not there, or cannot be read or written.
    """
    log = get_run_logger()
    folder = Path(Layout.of(block_of(dataset).folder).root)
    runs = prune(
        folder,
        None if older_than_days is None else timedelta(days=older_than_days),
        larger_than=None if larger_than_gb is None else round(larger_than_gb * 1e9),
        keep_last=keep_last,
        plan=plan,
    )
    freed = size_of(sum(run.undo_bytes for run in runs))
    what = "would be removed, and free" if plan else "removed, which frees"
    log.info("%d runs %s %s: %s", len(runs), what, freed, [run.run_key for run in runs])
    publish_pruning(runs, folder, plan, log)
    return [run.run_key for run in runs]


@contextmanager
def _listing_runs(folder: Path) -> Iterator[None]:
    """Lists the last runs where there is no such run, to choose from.

    Raises:
        RunNotFoundError: If there is no such run.
    """
    try:
        yield
    except RunNotFoundError as error:
        runs = [run for run in list_runs(folder) if run.undone is None][-_LISTED_RUNS:]
        if not runs:
            raise
        lines = map(_described, reversed(runs))
        raise RunNotFoundError("\n".join([f"{error} The last runs that stand:", *lines])) from error


def _described(run: RunInfo) -> str:
    began = "" if run.started is None else f"{run.started.astimezone():%Y-%m-%d %H:%M:%S}: "
    named = "" if run.name is None else f", named {run.name}"
    return f"{run.run_key}{named} ({began}{describe_counts(run.counts)})"
