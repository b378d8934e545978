"""Undo of single commits in a bucket; see `runs.undo_commits`."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from prefect_pipestream.errors import DatasetError, UndoRefusedError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.undo_entry import Undo, make_undo
from prefect_pipestream.underfolder.bucket.undo_files import BucketFiles
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.run_key import ROLLBACK_KEY
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.interleaved import refuse_if_moved
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.undo import UndoReport, plan_held_to_rules, report_of
from prefect_pipestream.underfolder.runs.undo_commits import key_of_undo, person_in, refuse_whole
from prefect_pipestream.underfolder.runs.undo_plan import net_changes


def undo_commits_in_bucket(
    address: str,
    run_key: str,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
    by: tuple[str, str] | None = None,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them; see `undo_commits`.

    Args:
        address: The dataset's address.
        run_key: The run.
        commit_ids: The commits; None is all.
        tag: The part of the run; None is any.
        force: Whether to restore also what others changed since.
        facts: What is noted of the run that takes commits back, where it begins by this.
        by: Who does it, and on which host, where that is noted of this undo alone.

    Raises:
        UndoRefusedError: If someone changed the samples since.
        DatasetWriteError: If the dataset cannot be written.
    """
    key = key_of_undo(run_key)
    noted = dict(facts or {})
    if key.startswith(ROLLBACK_KEY):
        noted["rolls_back"] = run_key

    def begin(files: BucketFiles) -> Undo:
        run = Run.of(files.layout, run_key)
        commits = [
            (run, commit)
            for run, commit in files.in_turn([run])
            if (commit_ids is None or commit.id in commit_ids) and tag in (None, commit.tag)
        ]
        changes = net_changes(commits)
        plan = plan_held_to_rules(files, [run], changes, force, None, None)
        return Undo(
            key=key,
            facts=noted,
            drops=tuple(f"{run.name}/{commit.id}" for run, commit in commits),
            tag=tag or "main",
            by=by,
            files=files,
            runs=[run],
            changes=changes,
            plan=plan,
        )

    undo, commit_id = make_undo(Bucket(address, watch=True), begin)
    return report_of([run_key], key, undo.plan, commit_id=commit_id if undo.plan.todo else None)


@DatasetError.explaining_questions()
def undo_commit_in_bucket(
    folder: Folder,
    run_key: str,
    commit_id: str,
    *,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> UndoReport:
    """Takes one commit of a run back; see `undo_commit`."""
    address = os.fspath(folder)
    log = Bucket(address).log
    run_key = existing_run(log.ledgers(), run_key).key
    for key in (run_key, key_of_undo(run_key)):
        run = Run.of(log.ledgers(), key)
        commit = run.commit(commit_id)
        if commit is not None:
            refuse_whole(run)
            refuse_if_moved(run.layout, [run], [sample.written_at for sample in commit.samples])
            by = person_in(facts or {})
            return undo_commits_in_bucket(
                address, key, [commit_id], force=force, facts=facts, by=by
            )
    raise UndoRefusedError(
        f"{address}: run {run_key!r} has no commit {commit_id!r} that could be taken back. It was "
        "taken back before, or is one of another run."
    )
