"""Old runs are removed for good, with the files by which they could be undone."""

import os
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.signatures import keep_signatures
from prefect_pipestream.underfolder.runs.imported import forget_imports
from prefect_pipestream.underfolder.runs.listing import RunInfo, list_runs, started_s
from prefect_pipestream.underfolder.runs.packing import ledger_lock


@DatasetError.explaining_questions()
def prune_runs(folder: Folder, older_than: timedelta) -> list[RunInfo]:
    """Removes runs whose last activity is longer ago, with their undo files: for good.

    They can be neither undone nor resumed any more. What their transforms saw of the samples is
    kept, so that an incremental run does not take all samples for new. Runs that are running, or
    half undone, stay.

    Args:
        folder: The dataset's root.
        older_than: How long ago a run must have committed last.

    Returns:
        The runs that were removed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetWriteError: If the dataset cannot be written.
    """
    layout = Layout.of(folder)
    before = datetime.now(UTC) - older_than
    if not list_runs(folder):
        return []
    with ledger_lock(layout):
        old = [info for info in list_runs(folder) if _is_prunable(layout, info, before)]
        for info in old:
            run = Run(layout, info.folder)
            if info.fingerprint is not None and info.undone is None:
                keep_signatures(run, info.fingerprint)
            if info.undone is not None:
                forget_imports(run)
            if run.is_compaction:  # it says which sample an index meant before
                _remove(layout, run.undo)
                run.update(pruned=time.time())
            else:
                _remove(layout, run.folder)
    return old


def _remove(layout: Layout, folder: str) -> None:
    """Removes a folder: what is left of it if this process dies is swept like a dead staging."""
    doomed = layout.at("staged", f"pruned-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):  # there is nothing to undo
        os.rename(folder, doomed)
        with suppress(OSError):
            remove(doomed)


def _is_prunable(layout: Layout, info: RunInfo, before: datetime) -> bool:
    if info.state in ("running", "undoing"):
        return False
    times = [time for time in (info.started, info.last_commit, info.undone) if time is not None]
    if not times:  # it could not be noted, as on a full disk
        times = [datetime.fromtimestamp(started_s(Run(layout, info.folder)), UTC)]
    return max(times) < before
