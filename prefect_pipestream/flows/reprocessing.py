"""Process samples again that failed in an earlier run."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.reporting.outcomes import RunReport


@flow(name="reprocess-failed")
def reprocess_failed(
    dataset: ReadWriteUnderfolder,
    transform: list[str | dict[str, Any]],
    failed_run: str | None = None,
    target: OutputUnderfolder | None = None,
    keys: list[str] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    encoder_options: dict[str, dict[str, Any]] | None = None,
) -> RunReport:
    """Processes just the samples that failed in an earlier run, after their cause was mended.

    Args:
        dataset: The dataset that the run read.
        transform: What to do with each sample; as a rule the same as in that run.
        failed_run: The run key of that run, which then goes on; empty for a new run over those
            that failed in the last one.
        target: The dataset that the run wrote; empty if it was in place.
        keys: The items to write; empty for all.
        sample_retries: How often a sample that fails again is tried.
        max_failed: The share of these samples that may fail before the run counts as failed.
        encoder_options: How items that change are encoded, by key; as a rule as in that run.

    Returns:
        What became of the samples.
    """
    return process_samples.fn(
        source=dataset,
        transform=transform,
        target=target,
        keys=keys or None,
        sample_retries=sample_retries,
        max_failed=max_failed,
        select="failed",
        run_key=failed_run or None,
        encoder_options=encoder_options or None,
    )
