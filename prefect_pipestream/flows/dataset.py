"""A dataset as the flows are given it, so that a form can show it, and its runs to choose from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_pipestream.blocks import (
    ReadWriteUnderfolder,
)
from prefect_pipestream.errors import RunNotFoundError
from prefect_pipestream.reporting.reports import describe_counts
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import RunInfo, list_runs
from prefect_pipestream.underfolder.format.layout import Layout

Dataset = ReadWriteUnderfolder | Path
"""A dataset as a form takes it: a saved block, which is chosen, or the folder, which is seen."""

_LISTED_RUNS = 5


def block_of(dataset: Dataset) -> ReadWriteUnderfolder:
    """The block of a dataset; one that is given is given back."""
    return ReadWriteUnderfolder(folder=dataset) if isinstance(dataset, Path) else dataset


def absolute(place: Place) -> Place:
    """Where a dataset is: its address, or the path of its folder, from the root on."""
    return place if is_address(place) else Path(Layout.of(place).root)


@contextmanager
def listing_runs(folder: Place) -> Iterator[None]:
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
