"""Undo of single commits: they are taken back, and out of their run's ledger.

What takes back commits of a run is the run ``rollback:<run key>``. If one of its commits is taken
back in turn, that is a commit of the run itself again: so the two take turns, however often a
person changes her mind, and each has just what stands.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from prefect_pipestream.errors import DatasetError, UndoRefusedError
from prefect_pipestream.underfolder.commits.apply import commit_lock, drop_commits
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.run_key import ROLLBACK_KEY, is_run_key
from prefect_pipestream.underfolder.ledger.provenance import who
from prefect_pipestream.underfolder.ledger.records import CommitRecord, person_of
from prefect_pipestream.underfolder.ledger.run import Run, reread_if_moved
from prefect_pipestream.underfolder.runs.interleaved import refuse_if_moved
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.packing import forget_dropped
from prefect_pipestream.underfolder.runs.restoring import (
    opened,
    publish_restored,
    restoring_writer,
    stage_restored,
)
from prefect_pipestream.underfolder.runs.undo import UndoReport, report_of
from prefect_pipestream.underfolder.runs.undo_checks import checked_plan
from prefect_pipestream.underfolder.runs.undo_plan import Files, net_changes


@DatasetError.explaining_questions()
def undo_commit(
    folder: Folder,
    run_key: str,
    commit_id: str,
    *,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> UndoReport:
    """Takes one commit of a run back, such as one save of a person, and nothing else of the run.

    Its samples are as they were before it, byte by byte, and the run's ledger knows it no more.
    The undo is a commit, too: given its id (`UndoReport.commit_id`), this takes back the undo.

    Args:
        folder: The dataset's root.
        run_key: The run, by its key or the name that it was given.
        commit_id: The commit, as ``DataStream.set_output(...)[0].commit_id`` told it; or one that
            took back a commit of the run.
        force: Whether to restore also samples that someone changed since; what they are now is
            kept for the undo of this.
        facts: What is noted of the run that takes back commits of this one, where it begins by
            this. Its ``user`` is noted of this undo, too; by default that of this process.

    Returns:
        What was done.

    Raises:
        RunNotFoundError: If there is no such run, or it was undone.
        UndoRefusedError: If someone, or a later commit, changed the samples since. If the run has
            no such commit (any more); or it moved samples, or took back other runs: such a run is
            undone as a whole. Nothing was changed.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written; it is as it was.
    """
    with opened(folder, [run_key]) as layout:
        run = existing_run(layout, run_key)
        for one in (run, Run.of(layout, key_of_undo(run.key))):
            commit = reread_if_moved(partial(one.commit, commit_id))
            if commit is not None:
                refuse_whole(one)
                refuse_if_moved(layout, [one], [sample.written_at for sample in commit.samples])
                facts = facts or {}
                return _taken_back(
                    layout, one, [commit], commit.tag, force, facts, person_in(facts)
                )
    raise UndoRefusedError(
        f"{layout.root}: run {run.key!r} has no commit {commit_id!r} that could be taken back. It "
        "was taken back before, or is one of another run: `pipestream history DATASET IDX` lists "
        "what was done to a sample."
    )


def person_in(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Who takes a commit back, and on which host, as a record has it."""
    known = {**who(), **facts}
    return person_of(str(known["user"])), person_of(str(known["host"]))


def refuse_whole(run: Run) -> None:
    """Raises `UndoRefusedError` where single commits of a run are not to be taken back."""
    facts = run.facts()
    if not {"compacts", "undoes"}.isdisjoint(facts):
        what = "moved samples" if "compacts" in facts else "took back another run"
        raise UndoRefusedError(
            f"{run.layout.root}: run {run.key!r} {what}: it is undone as a whole or not at all, by "
            "`undo_run` (`pipestream undo`)."
        )


def key_of_undo(key: str) -> str:
    """The run that takes back commits of a run."""
    taken_back = key.removeprefix(ROLLBACK_KEY)
    return taken_back if taken_back != key and is_run_key(taken_back) else ROLLBACK_KEY + key


@DatasetError.explaining_questions()
def undo_commits(
    run: Run,
    commit_ids: Collection[str] | None = None,
    *,
    tag: str | None = None,
    force: bool = False,
) -> UndoReport:
    """Takes some commits of a run back, all or none of them, and out of its ledger.

    That is what a rollback needs: the run goes on, or is resumed, as if they had not been made.
    Commits, or a run, that there are not (any more) are no error: then nothing is to be done.

    Args:
        run: The run.
        commit_ids: The ids of the commits; None is all of the tag's.
        tag: The part of the run (a chunk); None is all of the run.
        force: Whether to restore also what was changed since.

    Returns:
        What was done; `undo_run_key` is ``rollback:<run key>``.

    Raises:
        UndoRefusedError: If someone, or another commit of the run, changed the samples since.
            Nothing was changed.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written; it is as it was.
    """
    key = run.key
    nothing = UndoReport((key,), key_of_undo(key), 0, 0)
    if not run.exists():
        return nothing
    with opened(run.layout, [key]) as layout:
        ids = None if commit_ids is None else set(commit_ids)
        commits = [c for c in run.commits(tag) if ids is None or c.id in ids]
        if not commits:
            forget_dropped(run)  # of one that was killed, or failed, as it did so
            return nothing
        return _taken_back(layout, run, commits, tag or "main", force, {})


def _taken_back(
    layout: Layout,
    run: Run,
    commits: Sequence[CommitRecord],
    tag: str,
    force: bool,
    facts: Mapping[str, Any],
    by: tuple[str, str] | None = None,
) -> UndoReport:
    """Takes commits back; the ledger lock is held."""
    key = run.key
    undo = Run.of(layout, key_of_undo(key))
    files = Files(layout, Underfolder(layout.root, watch=True))
    changes = net_changes((run, commit) for commit in commits)
    plan = checked_plan(files, [run], changes, force)
    drops = tuple(f"{run.name}/{commit.id}" for commit in commits)
    commit_id = None
    if plan.todo:
        rolls_back = {"rolls_back": key} if undo.key.startswith(ROLLBACK_KEY) else {}
        undo.note({**facts, **rolls_back})
        writer = restoring_writer(files.dataset, undo.key, force, by)
        with writer.staging() as staging:
            stage_restored(staging, plan.todo, changes, force)
            commit_id = publish_restored(writer, staging, tag, drops)
    else:
        with commit_lock(layout):
            drop_commits(layout, drops)
    forget_dropped(run)
    return report_of([key], undo.key, plan, commit_id=commit_id)
