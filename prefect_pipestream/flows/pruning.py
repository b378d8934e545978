"""The flow that removes old runs, with what their undo needs."""

from datetime import timedelta
from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from prefect_pipestream.flows.dataset import Dataset, absolute, block_of
from prefect_pipestream.reporting.artifacts import publish_pruning
from prefect_pipestream.storage.space import size_of
from prefect_pipestream.underfolder import prune_runs as prune


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
    folder = absolute(block_of(dataset).folder)
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
