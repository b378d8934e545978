"""What is done with a dataset in a folder, or in an object store, by where it is."""

import os
from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Any

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs import listing, packing, undo
from prefect_pipestream.underfolder.runs import undo_commits as undo_commits_
from prefect_pipestream.underfolder.runs.listing import RunInfo
from prefect_pipestream.underfolder.runs.undo import UndoReport


def open_dataset(place: Place, **options: Any) -> Underfolder:
    """Opens a dataset for reading.

    Args:
        place: Where it is.
        **options: As for `Underfolder`.

    Raises:
        DatasetNotFoundError: If there is none, and must be.
        StoreError: If a store cannot be asked.
    """
    if not is_address(place):
        return Underfolder(place, **options)
    from prefect_pipestream.underfolder.bucket.dataset import Bucket

    return Bucket(str(place), **options)


def open_writer(place: Place, **options: Any) -> UnderfolderWriter:
    """Opens a dataset for writing.

    Args:
        place: Where it is.
        **options: As for `UnderfolderWriter`.

    Raises:
        DatasetExistsError: If it exists, may not, and was not created by this run.
    """
    if not is_address(place):
        return UnderfolderWriter(place, **options)
    from prefect_pipestream.underfolder.bucket.writer import BucketWriter

    return BucketWriter(str(place), **options)


def ledgers_of(place: Folder | Layout) -> Layout:
    """Where the ledgers of a dataset are, to be read: in its folder, or as a log says by now.

    Raises:
        StoreError: If a store cannot be asked.
    """
    if isinstance(place, Layout) or not is_address(place):
        return Layout.of(place)
    from prefect_pipestream.underfolder.bucket.dataset import Bucket

    return Bucket(os.fspath(place)).log.ledgers()


@wraps(listing.list_runs)
def list_runs(folder: Folder, *, with_undo_bytes: bool = True) -> list[RunInfo]:  # noqa: D103
    if not is_address(folder):
        return listing.list_runs(folder, with_undo_bytes=with_undo_bytes)
    return listing.list_runs(ledgers_of(folder), with_undo_bytes=False)


@wraps(undo.undo_run)
def undo_run(  # noqa: D103
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> UndoReport:
    if not is_address(folder):
        return undo.undo_run(folder, run_key, force, facts=facts, **options)
    from prefect_pipestream.underfolder.bucket.undo import undo_run_in_bucket

    given = {name: one for name, one in options.items() if one is not None}
    if given:
        raise DatasetError(
            f"{folder}: of a dataset in a bucket whole runs are undone; {', '.join(given)} cannot "
            "be given."
        )
    keys = undo.checked_keys(run_key)
    return undo_run_in_bucket(os.fspath(folder), keys, force, facts)


@wraps(undo_commits_.undo_commit)
def undo_commit(  # noqa: D103
    folder: Folder, run_key: str, commit_id: str, *, force: bool = False, **options: Any
) -> UndoReport:
    if not is_address(folder):
        return undo_commits_.undo_commit(folder, run_key, commit_id, force=force, **options)
    from prefect_pipestream.underfolder.bucket.undo import undo_commit_in_bucket

    return undo_commit_in_bucket(os.fspath(folder), run_key, commit_id, force=force)


def take_back(place: Place, run_key: str, tag: str) -> None:
    """Takes a part of a run back, as a rollback needs it; see `undo_commits`.

    Args:
        place: The dataset.
        run_key: The run.
        tag: The part of it.

    Raises:
        UndoRefusedError: If someone changed the samples since.
    """
    if not is_address(place):
        undo_commits_.undo_commits(Run.of(place, run_key), tag=tag)
        return
    from prefect_pipestream.underfolder.bucket.undo import undo_commits_in_bucket

    undo_commits_in_bucket(str(place), run_key, tag=tag)


def end_run(writer: UnderfolderWriter) -> None:
    """Ends a writer's run: notes that it has finished, and packs its ledger.

    Raises:
        DatasetWriteError: If that cannot be written; the ledger is as it was.
    """
    if not is_address(writer.folder):
        packing.end_run(writer.run)
        return
    from prefect_pipestream.underfolder.bucket.writer import BucketWriter

    assert isinstance(writer, BucketWriter)
    writer.end_run()


def undo_own_run(
    place: Place, run: Run, attempt: str | None, facts: Mapping[str, Any]
) -> UndoReport:
    """Undoes a run for the attempt that has it to itself, and has stopped; see `undo_own_run`.

    Args:
        place: The dataset.
        run: The run.
        attempt: The attempt.
        facts: What the ledger is to say of the undo.

    Raises:
        UndoRefusedError, DatasetError, DatasetWriteError: As for `undo_run`.
    """
    if not is_address(place):
        return undo.undo_own_run(run, attempt, facts)
    return undo_run(str(place), run.key, facts=facts)
