"""Puts one sample of a bucket back to what it was before, or after, a run, by one entry."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.kept_source import KeptSource
from prefect_pipestream.underfolder.bucket.restoring import Restoring, put_back, restoring_entry
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.run_key import RESTORE_KEY, check_run_key
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs import restore
from prefect_pipestream.underfolder.runs.interleaved import free_key
from prefect_pipestream.underfolder.runs.restore import Pair, RestoreReport, Todo, items_since


@DatasetError.explaining_questions()
def restore_sample_in_bucket(
    folder: Folder,
    idx: int,
    run_key: str,
    keys: Collection[str] | None = None,
    *,
    state: restore.State = "before",
    commit_id: str | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> RestoreReport:
    """Puts a sample, or some items of it, back to what it was before or after a run.

    It is one entry, which points to contents that are kept: none is sent, nor fetched.

    Args, Returns, Raises: As for a folder; see `restore_sample`.
    """
    check_run_key(run_key)
    dataset = Bucket(os.fspath(folder), watch=True)
    new_id = new_commit_id()
    report = RestoreReport(idx, None)

    def make(known: State) -> Entry | None:
        nonlocal report
        layout = dataset.log.ledgers()
        key = key_meant(layout, run_key)
        todo = _todo(dataset, idx, items_since(layout, idx, key, keys, state, commit_id))
        if not force:
            todo.refuse_changed()
        if todo.is_empty:
            report = RestoreReport(idx, None)
            return None
        noted = {**(facts or {}), "restores": key}
        run = Restoring(key=free_key(layout, RESTORE_KEY + key), facts=noted, has_ended=True)
        report = todo.report(run.key)
        return restoring_entry(dataset, known, run, {idx: _contents_of(todo)}, new_id)

    put_back(dataset, make, f"the restoring of sample {idx}")
    return report


def _todo(dataset: Bucket, idx: int, chosen: Mapping[str, Pair]) -> Todo:
    """What is to be done, given what is there: of all files it is asked at once."""
    contents = dataset.contents
    names = [kind.name_of(idx) for kind in dataset.kinds_of(idx) if kind.key in chosen]
    with contents.asked_at_once(names):
        return Todo.of(dataset, idx, chosen, contents.mark_now)


def _contents_of(todo: Todo) -> dict[str, Ref | None]:
    """The content that each file gets, by name; None: it is removed."""
    contents: dict[str, Ref | None] = dict.fromkeys(todo.found)
    contents.update(
        (name, source.ref) for name, source in todo.files.items() if isinstance(source, KeptSource)
    )
    return contents
