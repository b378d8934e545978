"""Undo of runs in a bucket: all that they changed is put back at once, or nothing of it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.bucket.undo_entry import Undo, make_undo
from prefect_pipestream.underfolder.bucket.undo_files import BucketFiles
from prefect_pipestream.underfolder.commits.prospect import Check, Items
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.runs.part_undo import chosen_samples
from prefect_pipestream.underfolder.runs.retiring import intent_for
from prefect_pipestream.underfolder.runs.undo import (
    UndoPlan,
    UndoReport,
    checked_keys,
    facts_of,
    plan_held_to_rules,
    planned,
    report_of,
    to_take_back,
)
from prefect_pipestream.underfolder.runs.undo_checks import refuse_at_first


@DatasetError.explaining_questions()
def undo_run_in_bucket(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    facts: Mapping[str, Any] | None = None,
    check: Check | None = None,
) -> UndoReport:
    """Restores a dataset in a bucket to what it was before runs; see `undo_run`.

    It is one commit, whatever the number of samples. A run that is still running stops with its
    next commit; if just some samples are taken back, it goes on. What others change while `check`
    is asked is looked at anew.

    Args, Returns, Raises: As for a folder; see `undo_run`.
    """
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    remembering = None if check is None else _Remembering(check)

    def begin(files: BucketFiles) -> Undo:
        intent = intent_for(files.layout, keys, some)
        runs = intent.runs(files.layout)
        refuse_at_first(files.layout, intent, runs, force)
        taken, changes = to_take_back(files, intent, runs, force)
        plan = plan_held_to_rules(files, runs, changes, force, some, remembering)
        noted = {**(facts or {}), **facts_of(intent, runs, changes)}
        return Undo(
            key=intent.undo_key,
            facts=noted,
            has_ended=True,
            retired=intent.retired if some is None else {},
            taken={} if some is None else taken or {},
            moves=any(run.is_compaction for run in runs),
            files=files,
            runs=runs,
            changes=changes,
            plan=plan,
        )

    undo, _ = make_undo(Bucket(os.fspath(folder), watch=True), begin)
    keys = [run.key for run in undo.runs]
    return report_of(keys, undo.key, undo.plan, some, tuple(undo.retired.values()))


@DatasetError.explaining_questions()
def plan_undo_in_bucket(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    check: Check | None = None,
) -> UndoPlan:
    """Says what `undo_run` would do now in a bucket, and writes nothing; see `plan_undo`."""
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    files = BucketFiles(Bucket(os.fspath(folder), watch=True))
    return planned(files, intent_for(files.layout, keys, some), force, check)


class _Remembering:
    """A check that is not asked again of what it was asked before, where others are faster.

    Args:
        check: The check.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._known: dict[Any, Sequence[str]] = {}

    def __call__(self, items: Items) -> Sequence[str]:
        """Says what is wrong with a sample, given its items."""
        files = ((key, file) for key, item in items.items() for file in item.file_sources)
        made_of = frozenset(
            (key, file.name, file.ref, file.etag)
            for key, file in files
            if isinstance(file, BucketSource)
        )
        if made_of not in self._known:
            self._known[made_of] = self._check(items)
        return self._known[made_of]
