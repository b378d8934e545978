"""Puts kept files back, as an undo and the restoring of a sample do."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prefect_pipestream.errors import ConflictError, UndoRefusedError
from prefect_pipestream.storage.asking import is_folder
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.packing import ledger_lock, pack
from prefect_pipestream.underfolder.runs.undo_plan import Change, kept_path

_log = logging.getLogger(__name__)


@contextmanager
def opened(dataset: Folder | Layout, keys: Sequence[str]) -> Iterator[Layout]:
    """The dataset, with the ledger to ourselves and nobody's commit half applied."""
    layout = Layout.of(dataset)
    layout.refuse_missing()
    if not is_folder(layout.runs):
        existing_run(layout, keys[0])  # raises: nothing was ever committed here
    with ledger_lock(layout):
        recover(layout.root)
        yield layout


def restoring_writer(
    dataset: Underfolder, run_key: str, force: bool, by: tuple[str, str] | None = None
) -> UnderfolderWriter:
    """A writer that puts kept files back; with `force`, over what others changed."""
    return UnderfolderWriter(
        dataset.folder,
        exists_ok=True,
        run_key=run_key,
        dataset=dataset,
        on_conflict="overwrite" if force else "raise",
        by=by,
    )


def stage_restored(
    staging: Staging,
    todo: Mapping[int, list[str]],
    changes: Mapping[str, Change],
    force: bool,
) -> None:
    """Stages the names of samples as they were before changes; see `plan_of`."""
    for idx, names in todo.items():
        kept = {name: kept_path(name, changes[name]) for name in names}
        staging.restore(
            idx,
            {name: path for name, path in kept.items() if path is not None},
            removes=[name for name, path in kept.items() if path is None],
            found=None if force else {name: changes[name].mark for name in names},
        )


def publish_restored(
    writer: UnderfolderWriter, staging: Staging, tag: str = "main", drops: tuple[str, ...] = ()
) -> str | None:
    """Puts staged files in place.

    Returns:
        The id of the commit.

    Raises:
        UndoRefusedError: If someone changed the samples since they were looked at.
    """
    try:
        done = writer.publish(staging, tag, drops=drops)
    except ConflictError as error:
        raise UndoRefusedError(
            f"The undo stopped, for {error} Those samples were changed while it was under way.",
            error.indices,
        ) from error
    return done[0].commit_id if done else None


def end_restoring(undo: Run) -> None:
    """Notes that such a run is done, and packs it: which may wait, where the disk is full."""
    try:
        undo.update(finished=time.time())
        pack(undo)
    except OSError as error:
        _log.warning("%s stays unpacked: %s", undo, error)
