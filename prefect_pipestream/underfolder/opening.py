"""What is done with a dataset in a folder, or in an object store, by where it is."""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder.checks import check as checks
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.ledger import compactions as ledger_compactions
from prefect_pipestream.underfolder.ledger import signatures as ledger_signatures
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs import (
    compacting,
    history,
    imported,
    keeping,
    listing,
    packing,
    pruning,
    restore,
    staged_review,
    undo,
    undo_space,
)
from prefect_pipestream.underfolder.runs import (
    run_differences as run_differences_,
)
from prefect_pipestream.underfolder.runs import undo_commits as undo_commits_
from prefect_pipestream.underfolder.runs.undo import UndoReport

if TYPE_CHECKING:
    from prefect_pipestream.underfolder.bucket.copying import CopyReport

P = ParamSpec("P")
R = TypeVar("R")


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

    return Bucket(os.fspath(place)).ledgers


# -- what is asked of ledgers, or done in two ways -------------------------------------------


def _reading_ledgers(ask: Callable[P, R]) -> Callable[P, R]:
    """A question about the ledgers of a dataset, its first argument: of one in a bucket, too."""

    @wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        place, rest = _place_in(args, kwargs)
        layout: Any = ledgers_of(place) if is_address(place) else place
        return ask(layout, *rest, **kwargs)

    return asked


def _by_place(in_folder: Callable[P, R], module: str) -> Callable[P, R]:
    """What is done with a dataset, the first argument, in another way where it is in a bucket.

    In place of the dataset it may be something that has one, as its ``folder``.

    Args:
        in_folder: What does it in a folder.
        module: The module of `bucket/` that does it in a bucket, by a function of the same
            arguments, ``<name>_in_bucket``.
    """

    def in_bucket() -> Callable[..., Any]:
        found = import_module(f"prefect_pipestream.underfolder.bucket.{module}")
        do: Callable[..., Any] = getattr(found, f"{in_folder.__name__}_in_bucket")
        return do

    @wraps(in_folder)
    def done(*args: P.args, **kwargs: P.kwargs) -> R:
        place, rest = _place_in(args, kwargs)
        is_bucket = is_address(getattr(place, "folder", place))
        do = in_bucket() if is_bucket else in_folder
        result: R = do(place, *rest, **kwargs)
        return result

    done.in_bucket = in_bucket  # type: ignore[attr-defined]
    return done


def _place_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    if args:
        return args[0], args[1:]
    named = next((name for name in ("folder", "dataset", "review") if name in kwargs), "folder")
    return kwargs.pop(named, None), ()


list_runs = _by_place(listing.list_runs, "pruning")
runs_and_space = _by_place(listing.runs_and_space, "pruning")
undo_bytes = _by_place(undo_space.undo_bytes, "pruning")
undo_bytes_of = _by_place(undo_space.undo_bytes_of, "pruning")
keep_run = _by_place(keeping.keep_run, "pruning")
release_run = _by_place(keeping.release_run, "pruning")
prune_runs = _by_place(pruning.prune_runs, "pruning")
check = _by_place(checks.check, "checking")
compactions = _reading_ledgers(ledger_compactions.compactions)
compact = _by_place(compacting.compact, "compacting")
failed_indices = _reading_ledgers(listing.failed_indices)
last_run = _reading_ledgers(listing.last_run)
signatures = _reading_ledgers(ledger_signatures.signatures)
sample_history = _reading_ledgers(history.sample_history)
run_differences = _reading_ledgers(run_differences_.run_differences)
restore_sample = _by_place(restore.restore_sample, "restore")
undo_run = _by_place(undo.undo_run, "undo")
plan_undo = _by_place(undo.plan_undo, "undo")
assign = _by_place(imported.assign, "importing")
would_assign = _by_place(imported.would_assign, "importing")
undo_commit = _by_place(undo_commits_.undo_commit, "undo_commits")
staging_of_review = _by_place(staged_review.staging_of_review, "reviews")
keep_review = _by_place(staged_review.keep_review, "reviews")
staged_source = _by_place(staged_review.staged_source, "reviews")
apply_review = _by_place(staged_review.apply_review, "reviews")
discard_review = _by_place(staged_review.discard_review, "reviews")


def copy_dataset(source: Folder, target: Folder) -> "CopyReport":
    """Copies a dataset in a bucket, with all its runs, to another address.

    What is there already is not copied again, so that a copy is brought up to date by another one.
    In one bucket, the store does the copying. A copy is no place to write: once it has an entry of
    its own, it is refused.

    Args:
        source: The address of the dataset.
        target: The address of the copy: where nothing is, or what an earlier copy left.

    Raises:
        DatasetNotFoundError: If there is no such dataset.
        DatasetExistsError: If there is something else at the target, or it was written to.
        DatasetError: If a folder is given, one address is inside of the other, or what the dataset
            needs is gone.
        StoreError: If a store does not do what it is to. To go on, repeat it.
    """
    from prefect_pipestream.underfolder.bucket.copying import copy_dataset as copied

    return copied(source, target)


# -- what a writer does at its end -------------------------------------------------------------


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
    from prefect_pipestream.underfolder.bucket.undo_commits import undo_commits_in_bucket

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


def undo_own_run(run: Run, attempt: str | None, facts: Mapping[str, Any]) -> UndoReport:
    """Undoes a run for the attempt that has it to itself, and has stopped; see `undo_own_run`.

    Args:
        run: The run.
        attempt: The attempt.
        facts: What the ledger is to say of the undo.

    Raises:
        UndoRefusedError, DatasetError, DatasetWriteError: As for `undo_run`.
    """
    if not is_address(run.layout.root):
        return undo.undo_own_run(run, attempt, facts)
    return undo_run(run.layout.root, run.key, facts=facts)
