"""The flow that tries the failed samples of a run again."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import (
    OutputUnderfolder,
)
from prefect_pipestream.flows.dataset import Dataset, block_of, listing_runs
from prefect_pipestream.flows.gating import OnInvalid
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.validation import ItemRule


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
    with listing_runs(block.folder if output is None else output.folder):
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
