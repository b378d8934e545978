"""Process failed samples again: `python flows/reprocess_failed.py FOLDER --transform …`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.process import RunReport, process_samples


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Processes the failed samples of the user's folder."""
    from _terminal import parse_operations, run_and_report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the dataset that the run read")
    parser.add_argument("--target", type=Path, help="the dataset that it wrote, if another")
    parser.add_argument(
        "--transform",
        type=parse_operations,
        metavar="OPERATIONS",
        required=True,
        help="what to do with each sample, as YAML or JSON",
    )
    parser.add_argument(
        "--keys", nargs="+", metavar="KEY", help="write only these items (default: all)"
    )
    parser.add_argument("--failed-run", metavar="KEY", help="the run (default: the last one)")
    given = parser.parse_args(arguments)
    return run_and_report(
        lambda: reprocess_failed(
            dataset=ReadWriteUnderfolder(folder=given.folder),
            transform=given.transform,
            failed_run=given.failed_run,
            keys=given.keys,
            target=None if given.target is None else OutputUnderfolder(folder=given.target),
        ),
        given.target or given.folder,
    )


if __name__ == "__main__":
    sys.exit(main())
