"""Clean a dataset in place."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.flows.selection import Select
from prefect_pipestream.reporting.outcomes import RunReport


@flow(name="clean-dataset")
def clean_dataset(
    dataset: ReadWriteUnderfolder,
    transform: list[str | dict[str, Any]],
    keys: list[str] | None = None,
    indices: list[int] | None = None,
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    select: Select = "all",
    run_key: str | None = None,
    encoder_options: dict[str, dict[str, Any]] | None = None,
) -> RunReport:
    """Changes the samples of a dataset in place: each wholly or not at all, and each once.

    Args:
        dataset: The dataset to clean.
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
        run_key: Give the key of an earlier run to go on with it; empty for a new run.
        encoder_options: How items that change are encoded, by key: {"image": {"quality": 90}}, or
            {"image": {"metadata": "strip"}}. Empty for as they were, with their metadata.

    Returns:
        What became of the samples.
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
    )
