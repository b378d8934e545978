"""Taking back what a task wrote, when a `transaction()` around it fails."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.runtime import task_run
from prefect.transactions import Transaction, get_transaction

from prefect_pipestream.errors import DatasetNotFoundError, RunNotFoundError
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import opening

_WRITTEN = "prefect_pipestream.written"


def tag_of_writes(stream: DataStream, tag: str) -> str:
    """The part of the run that a task's writes are noted as.

    Inside of a transaction it is one of the task run's own, that a rollback finds again.

    Args:
        stream: Where the task writes.
        tag: The part outside of a transaction.
    """
    own = get_transaction()
    if not isinstance(own, Transaction) or own.get_parent() is None:
        return tag
    tag = f"task-{task_run.id}"
    own.set(_WRITTEN, (stream.output_folder, stream.run_key, tag))
    return tag


def take_back(transaction: Transaction) -> None:
    """Restores what the task of this transaction wrote: its `on_rollback` hook.

    Raises:
        UndoRefusedError: If someone changed the samples since.
    """
    written = transaction.get(_WRITTEN, None)
    if written is not None:
        folder, run_key, tag = written
        opening.take_back(folder, run_key, tag)


@contextmanager
def taken_back_on_error() -> Iterator[None]:
    """Takes back what a task in a transaction wrote before it failed.

    Prefect runs the hooks of tasks that completed, not of the one that failed.
    """
    try:
        yield
    except Exception:
        own = get_transaction()
        if isinstance(own, Transaction):
            with suppress(RunNotFoundError, DatasetNotFoundError):  # it had not begun to write
                take_back(own)
        raise
