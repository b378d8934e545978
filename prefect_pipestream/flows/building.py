"""The flow that makes a new dataset of a source."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.flows.gating import OnInvalid
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.flows.selection import Select
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.validation import ItemRule


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
