"""What is done to a dataset, and killed on the way."""

import os
from pathlib import Path

import numpy as np

from prefect_pipestream.items import JpegImageItem, PngImageItem, TxtNumpyItem
from prefect_pipestream.underfolder import Run, Underfolder, UnderfolderWriter
from prefect_pipestream.underfolder.commits.apply import recover

RUN = "the-run"
PART = (1, 4)


def image(value: int) -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), value, dtype=np.uint8))


def _writer(folder: Path, **options: object) -> UnderfolderWriter:
    return UnderfolderWriter(folder, exists_ok=True, run_key=RUN, **options)  # type: ignore[arg-type]


def set_one(folder: Path) -> None:
    """Replaces an item, adds one, and supersedes one under another extension."""
    _writer(folder).write(
        2,
        {
            "image": JpegImageItem(np.full((4, 5, 3), 100, dtype=np.uint8)),
            "label": TxtNumpyItem(np.array([1002])),
            "extra": TxtNumpyItem(np.array([1002])),
        },
    )


def set_one_durably(folder: Path) -> None:
    """The same, with the calls that make it survive a loss of power."""
    writer = _writer(folder, durable=True)
    writer.write(2, {"image": image(100), "label": TxtNumpyItem(np.array([1002]))})


def add_to_labels(folder: Path) -> None:
    """Adds 1000 to each label, once: goes on where an earlier, killed run of it stopped."""
    from prefect_pipestream.underfolder import Run

    dataset = Underfolder(folder, watch=True)
    writer = _writer(folder, dataset=dataset)
    writer.claim()
    recover(os.fspath(folder))
    done = Run.of(folder, RUN).done_indices()
    with writer.batch(count=3) as group:
        for idx in dataset.indices().tolist():
            if idx not in done:
                items, origin = dataset.take(idx)
                value = int(items["label"]()[0]) + 1000
                items["label"] = items["label"].make_new(np.array([value]))
                items["image"] = image(100)
                group.set_output(idx, items, None, origin)


def recover_it(folder: Path) -> None:
    """Ends what a killed writer left."""
    recover(os.fspath(folder))


def undo(folder: Path) -> None:
    """Takes the run back."""
    from prefect_pipestream.underfolder import undo_run

    undo_run(folder, RUN)


def undo_part(folder: Path) -> None:
    """Takes the run back for two of its samples, which are of different commits."""
    from prefect_pipestream.underfolder import undo_run

    undo_run(folder, RUN, indices=PART)


def redo_part(folder: Path) -> None:
    """Takes that back."""
    from prefect_pipestream.underfolder import undo_run

    undo_run(folder, f"undo:{RUN}")


def create(folder: Path) -> None:
    """Creates a dataset beside the given one, or goes on with it."""
    source = Underfolder(folder)
    writer = UnderfolderWriter(folder / "new", zfill=6, run_key=RUN)
    with writer.batch(count=3) as group:
        for idx in source.indices().tolist():
            group.set_output(idx, source.read(idx))


def end_it(folder: Path) -> None:
    """Packs the run's ledger."""
    from prefect_pipestream.underfolder import end_run

    end_run(Run.of(folder, RUN))


def roll_back(folder: Path) -> None:
    """Takes the first of the run's commits back."""
    from prefect_pipestream.underfolder import undo_commits

    first = next(Run.of(folder, RUN).commits(), None)
    if first is not None:
        undo_commits(Run.of(folder, RUN), [first.id])


def redo(folder: Path) -> None:
    """Takes the undo of the run back."""
    from prefect_pipestream.underfolder import undo_run

    undo_run(folder, f"undo:{RUN}")


def prune(folder: Path) -> None:
    """Removes the run for good."""
    from datetime import timedelta

    from prefect_pipestream.underfolder import prune_runs

    prune_runs(folder, timedelta(0))


def prune_by_size(folder: Path) -> None:
    """Removes what holds space for an undo, but for kept runs and what they need."""
    from prefect_pipestream.underfolder import prune_runs

    prune_runs(folder, larger_than=0)


def keep(folder: Path) -> None:
    """Keeps the run, under a name."""
    from prefect_pipestream.underfolder import keep_run

    keep_run(folder, RUN, "golden")
