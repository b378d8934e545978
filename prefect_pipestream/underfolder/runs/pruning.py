"""Old runs are removed for good, with the files by which they could be undone."""

import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.underfolder.format.layout import Folder, Layout, folder_of
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.ledger.signatures import keep_signatures
from prefect_pipestream.underfolder.ledger.taken_back import PARTS
from prefect_pipestream.underfolder.runs.imported import forget_imports
from prefect_pipestream.underfolder.runs.keeping import needed_by_kept, taken_back_by
from prefect_pipestream.underfolder.runs.listing import RunInfo, runs_and_space, started_s
from prefect_pipestream.underfolder.runs.packing import ledger_lock
from prefect_pipestream.underfolder.runs.part_undo import settle_parts
from prefect_pipestream.underfolder.runs.retiring import Intent
from prefect_pipestream.underfolder.runs.undo_space import UndoSpace


@dataclass(frozen=True, slots=True)
class Retention:
    """How long runs stay; see `prune_runs`.

    Raises:
        ValueError: If it says nothing, or what cannot be meant.
    """

    older_than: timedelta | None
    larger_than: int | None
    keep_last: int

    def __post_init__(self) -> None:
        if self.older_than is None and self.larger_than is None:
            raise ValueError(
                "Nothing says which runs are to be removed: expected an age (`older_than`), or how "
                "many bytes undo may hold (`larger_than`), or both."
            )
        for name, number in (("larger_than", self.larger_than), ("keep_last", self.keep_last)):
            if number is not None and number < 0:
                raise ValueError(f"{name}={number}: expected 0 or more.")


@DatasetError.explaining_questions()
def prune_runs(
    folder: Folder,
    older_than: timedelta | None = None,
    *,
    larger_than: int | None = None,
    keep_last: int = 0,
    plan: bool = False,
) -> list[RunInfo]:
    """Removes old runs with their undo files: for good.

    They can be neither undone nor resumed any more. What their transforms saw of the samples is
    kept, so that an incremental run does not take all samples for new. Runs that are running, or
    half undone, stay; and those whose review waits for a decision; and those that are kept, with
    what their undo needs (see `keep_run`).

    Killed at any instruction, it leaves each run whole or removed; call it again.

    Args:
        folder: The dataset's root.
        older_than: Runs go that did nothing for so long; None: none goes by its age.
        larger_than: How many bytes undo may hold: of the runs that are left, those that did
            nothing for the longest time go, one by one, until it holds no more. Those whose
            removal would not help stay. What kept runs hold counts, so that where they hold more
            than that, all others go (but for `keep_last`). None: as many as there are.
        keep_last: So many runs stay in any case, of those that were not undone: the last ones to
            do something, with what they took back.
        plan: Whether only to say which would be removed, and to remove none.

    Returns:
        The runs that were removed, or would be, in that order; the `undo_bytes` of each are those
        that its removal freed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ValueError: If neither an age nor a size is given, or a number is below zero.
        DatasetError: If a ledger cannot be read. Nothing was removed.
        DatasetWriteError: If the dataset cannot be written.
    """
    retention = Retention(older_than, larger_than, keep_last)
    layout = Layout.of(folder)
    layout.refuse_missing()
    if not runs_of(layout):
        return []
    with ledger_lock(layout):
        if not plan:
            _finish_pruning(layout)
        needed, reviews = partial(needed_by_kept, layout), names_in(layout.reviews)
        known = Known(layout, *runs_and_space(layout), needed, reviews)
        doomed = list(doomed_runs(known, retention))
        if not plan:
            for info in doomed:
                prune(Run(layout, info.folder))
    return doomed


def prune(run: Run, forget: Callable[[Run], None] = forget_imports) -> None:
    """Removes a run from the ledgers, but for what later runs have to know of it.

    Args:
        run: The run.
        forget: Forgets what it assigned to names, where it was undone.

    Raises:
        OSError: If it cannot be removed.
    """
    layout, facts, is_undone = run.layout, run.facts(), run.is_undone()
    if "fingerprint" in facts and not is_undone:
        keep_signatures(run, facts["fingerprint"])
    if PARTS in facts:  # from now on it cannot be undone, whenever this process dies
        run.update(pruned=time.time())
    settle_parts(run)
    if is_undone:
        forget(run)
    if run.is_compaction:  # it says which sample an index meant before
        _remove(layout, run.undo)
        run.update(pruned=time.time())
    else:
        _remove(layout, run.folder)


def _finish_pruning(layout: Layout) -> None:
    """Removes the runs of which a process that died had settled what they took back in part."""
    for run in runs_of(layout):
        if run.is_pruned() and not run.is_compaction:
            settle_parts(run)
            _remove(layout, run.folder)


def _remove(layout: Layout, folder: str) -> None:
    """Removes a folder: what is left of it if this process dies is swept like a dead staging."""
    doomed = layout.at("staged", f"pruned-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):  # there is nothing to undo
        os.rename(folder, doomed)
        with suppress(OSError):
            remove(doomed)


# -- which runs go -------------------------------------------------------------------------


class Known(NamedTuple):
    """What is known of the runs of a dataset, before some are removed.

    Attributes:
        layout: Where their ledgers are.
        runs: Those that are not pruned.
        space: What undo holds.
        needed_by_kept: Tells the names of the folders of runs that are kept, and needed by those.
        reviews: The names of the folders of reviews that are there: those of their runs.
    """

    layout: Layout
    runs: Sequence[RunInfo]
    space: UndoSpace
    needed_by_kept: Callable[[], set[str]]
    reviews: Collection[str]


def doomed_runs(known: Known, retention: Retention) -> Iterator[RunInfo]:
    """The runs that are to go, each with what its removal frees."""
    layout, space = known.layout, known.space
    runs = sorted(known.runs, key=lambda info: last_active(layout, info))
    candidates = _removable(known, runs, retention.keep_last)
    if retention.older_than is not None:
        before = datetime.now(UTC) - retention.older_than
        old = [info for info in candidates if last_active(layout, info) < before]
        candidates = candidates[len(old) :]
        for info in old:
            yield replace(info, undo_bytes=space.remove(info.folder))
    if retention.larger_than is None:
        return
    for info in candidates:
        if space.total <= retention.larger_than:
            return
        if space.is_part_of(info.folder):
            yield replace(info, undo_bytes=space.remove(info.folder))


def _removable(known: Known, runs: Sequence[RunInfo], keep_last: int) -> list[RunInfo]:
    """Those of the runs that nothing protects."""
    layout = known.layout
    standing = [info for info in runs if info.undone is None]
    last = [Run(layout, info.folder) for info in standing[max(0, len(standing) - keep_last) :]]
    staying = {run.name for run in last} | taken_back_by(layout, last)
    staying.update(info.folder for info in runs if folder_of(info.run_key) in known.reviews)
    staying |= _undos_under_way(layout, runs)
    busy = ("running", "undoing")
    found = [one for one in runs if one.folder not in staying and one.state not in busy]
    if not found:
        return []
    needed = known.needed_by_kept()
    return [info for info in found if info.folder not in needed]


def _undos_under_way(layout: Layout, runs: Sequence[RunInfo]) -> set[str]:
    """The names of the folders of undos that were interrupted: they are to be gone on with."""
    half = (Run(layout, info.folder) for info in runs if info.state == "undoing")
    intents = filter(None, map(Intent.noted_by, half))
    return {folder_of(intent.undo_key) for intent in intents}


def last_active(layout: Layout, info: RunInfo) -> datetime:
    """When a run did something last."""
    times = [time for time in (info.started, info.last_commit, info.undone) if time is not None]
    if not times:  # it could not be noted, as on a full disk
        times = [datetime.fromtimestamp(started_s(Run(layout, info.folder)), UTC)]
    return max(times)
