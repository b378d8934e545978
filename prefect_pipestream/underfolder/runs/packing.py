"""Pack the ledger of a run that has ended, and forget commits that were taken back."""

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.lock import Liveness, exclusive
from prefect_pipestream.storage.making import sync_folder
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.packed import PackedLedger, write_packed
from prefect_pipestream.underfolder.ledger.run import Run


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
def end_run(run: Run) -> None:
    """Ends a run: packs its ledger, and notes that it has finished. Does nothing for no such run.

    A million samples take some seconds, and up to 50 MB on disk. A process that is killed in
    here loses nothing: the ledger is read from the old and the new files together.

    Raises:
        DatasetWriteError: If the packed files cannot be written; the ledger is as it was.
    """
    if run.exists():
        with ledger_lock(run.layout):
            run.update(finished=time.time())
            pack(run)


def pack(run: Run) -> None:
    """Packs a run's records, and forgets its commits that were taken back.

    The caller holds the ledger lock. Writers of the run may go on meanwhile.
    """
    loose, old = run.loose_records(), run.packed_folders()
    dropped = names_in(run.dropped)
    if not loose and not dropped and len(old) < 2:
        return
    _write_anew(run, old)
    for _, path in loose:
        os.unlink(path)
    for path in old:
        remove(path)
    _forget(run, dropped)
    with exclusive(run.layout.lock):  # a commit that is being applied may need the folder just now
        for tag in names_in(run.done):
            with suppress(OSError):  # not empty
                os.rmdir(run.at("done", tag))


def _write_anew(run: Run, old: list[str]) -> None:
    """Packs all records of a run into one more folder, after the old ones."""
    number = int(old[-1].rpartition("-")[2]) + 1 if old else 1
    with _place_to_pack(run.layout) as fresh:
        write_packed(fresh, run.commits(with_taken_back=True))
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


def forget_dropped(run: Run) -> None:
    """Removes the records and undo files of commits that were taken back.

    The caller holds the ledger lock.
    """
    dropped = set(names_in(run.dropped))
    newest = run.packed_folders()[-1:]
    if newest and not dropped.isdisjoint(PackedLedger(newest[0], "").ids()):
        pack(run)
        return
    for commit_id, path in run.loose_records():
        if commit_id in dropped:
            os.unlink(path)
    _forget(run, dropped)


def _forget(run: Run, dropped: Iterable[str]) -> None:
    for commit_id in dropped:
        remove(run.undo_of(commit_id))
        remove(run.at("dropped", commit_id))
