"""Pack the ledger of a run that has ended, and forget commits that were taken back."""

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.asking import is_folder
from prefect_pipestream.storage.lock import Liveness, exclusive
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.underfolder.commits.apply import sync_folder
from prefect_pipestream.underfolder.format.layout import Layout, RunLayout
from prefect_pipestream.underfolder.ledger.compaction import PackedLedger, write_packed
from prefect_pipestream.underfolder.ledger.facts import (
    Folder,
    info_of,
    layout_of,
    names_in,
    update_run,
)
from prefect_pipestream.underfolder.ledger.ledger import commits_of, loose_records, packed_folders


@contextmanager
def ledger_lock(layout: Layout) -> Iterator[None]:
    """Keeps others from undoing, packing and pruning runs.

    Raises:
        DatasetError: If the ledger leads out of the dataset.
        DatasetWriteError: If the dataset cannot be written, in here or at all.
    """
    what = f"{layout.root}: its ledger cannot be written"
    then = "Once that is mended, repeat what was asked for"
    with DatasetWriteError.explaining(what, then), exclusive(layout.ledger_lock):
        layout.refuse_linked_data()
        yield


@DatasetError.explaining_questions()
def compact(folder: Folder, run_key: str) -> None:
    """Ends a run: packs its ledger, and notes that it has finished. Does nothing for no such run.

    A million samples take some seconds, and up to 50 MB on disk. A process that is killed in
    here loses nothing: the ledger is read from the old and the new files together.

    Raises:
        DatasetWriteError: If the packed files cannot be written; the ledger is as it was.
    """
    layout = layout_of(folder)
    run = layout.run(run_key)
    if is_folder(run.folder):
        with ledger_lock(layout):
            update_run(run, finished=time.time())
            pack(layout, run)


@DatasetError.explaining_questions()
def has_ended(folder: Folder, run_key: str) -> bool:
    """Whether a run noted its end, and has packed all that it did; see `compact`."""
    run = layout_of(folder).run(run_key)
    return "finished" in info_of(run) and not loose_records(run)


def pack(layout: Layout, run: RunLayout) -> None:
    """Packs a run's records, and forgets its commits that were taken back.

    The caller holds the ledger lock. Writers of the run may go on meanwhile.
    """
    loose, old = loose_records(run), packed_folders(run)
    dropped = names_in(run.dropped)
    if not loose and not dropped and len(old) < 2:
        return
    _write_anew(layout, run, old)
    for _, path in loose:
        os.unlink(path)
    for path in old:
        remove(path)
    _forget(run, dropped)
    with exclusive(layout.lock):  # a commit that is being applied may need the folder just now
        for tag in names_in(run.done):
            with suppress(OSError):  # not empty
                os.rmdir(run.at("done", tag))


def _write_anew(layout: Layout, run: RunLayout, old: list[str]) -> None:
    """Packs all records of a run into one more folder, after the old ones."""
    number = int(old[-1].rpartition("-")[2]) + 1 if old else 1
    with _place_to_pack(layout) as fresh:
        write_packed(fresh, commits_of(run))
        os.rename(fresh, os.path.join(run.folder, f"compact-{number}"))
    sync_folder(run.folder)


@contextmanager
def _place_to_pack(layout: Layout) -> Iterator[str]:
    """A folder below ``staged`` that is swept once this process is dead."""
    folder = layout.at("staged", f"packing-{secrets.token_hex(4)}")
    with exclusive(layout.lock):  # whoever sweeps holds it
        alive = Liveness(folder + ".alive")
    try:
        os.mkdir(folder)
        yield folder
    finally:
        with suppress(OSError):  # the next sweep removes it
            remove(folder)
            os.unlink(folder + ".alive")
        alive.close()


def forget_dropped(layout: Layout, run: RunLayout) -> None:
    """Removes the records and undo files of commits that were taken back.

    The caller holds the ledger lock.
    """
    dropped = set(names_in(run.dropped))
    newest = packed_folders(run)[-1:]
    if newest and not dropped.isdisjoint(PackedLedger(newest[0], "").ids()):
        pack(layout, run)
        return
    for commit_id, path in loose_records(run):
        if commit_id in dropped:
            os.unlink(path)
    _forget(run, dropped)


def _forget(run: RunLayout, dropped: Iterable[str]) -> None:
    for commit_id in dropped:
        remove(run.undo_of(commit_id))
        remove(run.at("dropped", commit_id))
