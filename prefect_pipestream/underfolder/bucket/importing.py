"""Which sample of a dataset in a bucket came from what: the entries of its log say it."""

import os
from collections.abc import Sequence

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.runs.imported import Asked, Assigned


@DatasetError.explaining_questions()
def assign_in_bucket(
    folder: Folder,
    run_key: str,
    origin: str,
    names: Sequence[str],
    *,
    metadata_key: str = "metadata",
    take_back: bool = False,
) -> Assigned:
    """Says which index each sample of a source has in a dataset in a bucket; see `assign`.

    It is decided as the entry of the log is added that says so: who imports at the same time finds
    the names that are taken.

    Raises:
        DatasetError: If the log cannot be read.
        DatasetWriteError: If it cannot be added to.
    """
    dataset = _opened(folder)
    asked = Asked(dataset, run_key, origin, names, metadata_key, take_back)
    found: list[Assigned] = []

    def make(state: State) -> Entry | None:
        assigned, added = asked.assigned(dataset.log.ledgers())
        found.append(assigned)
        return Entry(new_commit_id(), run_key, imported=tuple(added)) if added else None

    what = f"{dataset.address}: which sample came from what cannot be noted"
    with StoreError.explaining_writes(what):
        dataset.log.append(make)
    return found[-1]


@DatasetError.explaining_questions()
def would_assign_in_bucket(
    folder: Folder,
    run_key: str,
    origin: str,
    names: Sequence[str],
    *,
    metadata_key: str = "metadata",
    take_back: bool = False,
) -> Assigned:
    """What `assign_in_bucket` would say now, with these arguments; nothing is written.

    Raises:
        DatasetError: If the log cannot be read.
    """
    dataset = _opened(folder)
    asked = Asked(dataset, run_key, origin, names, metadata_key, take_back)
    return asked.assigned(dataset.log.ledgers())[0]


def _opened(folder: Folder) -> Bucket:
    return Bucket(os.fspath(folder), must_exist=False, merge_root_items=False, watch=True)
