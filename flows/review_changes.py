"""Show changes to a person first: `python flows/review_changes.py FOLDER --transform …`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.running.review import ReviewReport, run_review


@flow(name="review-changes")
def review_changes(
    dataset: ReadWriteUnderfolder,
    transform: list[str | dict[str, Any]],
    indices: list[int] | None = None,
    most: Annotated[int, Field(gt=0, le=1000)] = 24,
    keys: list[str] | None = None,
    wait_hours: Annotated[float, Field(gt=0)] = 72.0,
) -> ReviewReport:
    """Computes changes, shows them before and after, and applies what a person approves.

    The flow run is suspended until somebody resumes it and decides: approve all, approve or
    reject some, reject all. Until then nothing of the dataset changes.

    Args:
        dataset: The dataset.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"resize-images": {"size":
            [256, 256]}}].
        indices: The samples to review; empty for all.
        most: After how many changed samples to stop and ask.
        keys: The items to write; empty for all.
        wait_hours: How long to wait for the decision, in hours.

    Returns:
        Who decided what, and what became of the samples.
    """
    return run_review(dataset, transform, indices or None, most, keys or None, wait_hours * 3600)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reviews changes to the user's folder; the decision is made in Prefect's UI."""
    from _terminal import console, parse_operations, run_quietly

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the dataset")
    parser.add_argument(
        "--transform",
        type=parse_operations,
        required=True,
        metavar="OPERATIONS",
        help="what to do with each sample, as YAML or JSON",
    )
    parser.add_argument(
        "--indices", type=int, nargs="+", metavar="IDX", help="the samples to review (default: all)"
    )
    given = parser.parse_args(arguments)
    if PREFECT_API_URL.value() is None:  # Prefect's embedded server has no UI to decide in
        parser.error(
            "a review needs a Prefect server with a UI: start one with `prefect server start`, "
            "and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    is_applied = True

    def run() -> None:
        nonlocal is_applied
        dataset = ReadWriteUnderfolder(folder=given.folder)
        report = review_changes(dataset, given.transform, given.indices)
        is_applied = not report.conflicts
        console.print_json(report.model_dump_json())

    console.print("Decide in Prefect's UI: open the flow run and resume it.")
    return run_quietly(run) or (0 if is_applied else 1)


if __name__ == "__main__":
    sys.exit(main())
