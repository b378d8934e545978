"""Puts kept files back, as an undo and the restoring of a sample do."""

import logging
import time
from collections.abc import Iterator, Sequence
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


def restoring_writer(dataset: Underfolder, run_key: str, force: bool) -> UnderfolderWriter:
    """A writer that puts kept files back; with `force`, over what others changed."""
    return UnderfolderWriter(
        dataset.folder,
        exists_ok=True,
        run_key=run_key,
        dataset=dataset,
        on_conflict="overwrite" if force else "raise",
    )


def publish_restored(
    writer: UnderfolderWriter, staging: Staging, tag: str = "main", drops: tuple[str, ...] = ()
) -> None:
    """Puts staged files in place.

    Raises:
        UndoRefusedError: If someone changed the samples since they were looked at.
    """
    try:
        writer.publish(staging, tag, drops=drops)
    except ConflictError as error:
        raise UndoRefusedError(
            f"The undo stopped, for {error} Those samples were changed while it was under way.",
            error.indices,
        ) from error


def end_restoring(undo: Run) -> None:
    """Notes that such a run is done, and packs it: which may wait, where the disk is full."""
    try:
        undo.update(finished=time.time())
        pack(undo)
    except OSError as error:
        _log.warning("%s stays unpacked: %s", undo, error)
