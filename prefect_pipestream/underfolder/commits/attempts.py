"""Attempts at a run: of those that have it to themselves, only the last may write.

A flow run's process may be dead and its workers alive, or it may only seem dead. What such an
attempt still commits after another one looked up what is left to do would be done twice.
"""

import os
import secrets
import socket
import time
from contextlib import AbstractContextManager

from prefect_pipestream.errors import DatasetWriteError, RunTakenOverError
from prefect_pipestream.storage.asking import NO_RIGHT, is_there
from prefect_pipestream.storage.untrusted import read_json
from prefect_pipestream.underfolder.commits.apply import commit_lock
from prefect_pipestream.underfolder.ledger.compactions import compactions
from prefect_pipestream.underfolder.ledger.run import Run, runs_of


def new_attempt() -> str:
    """The name of a new attempt: later ones are greater."""
    return f"{time.time_ns():016x}-{secrets.token_hex(4)}"


def begin_attempt(run: Run) -> str:
    """Gives a new attempt's name; from here on earlier attempts at the run write nothing more.

    Of a run that does not exist yet nothing is noted: `note_first_attempt` does that.

    Raises:
        DatasetWriteError: If that cannot be noted.
    """
    attempt = new_attempt()
    if run.exists():
        try:
            with _explaining(run), commit_lock(run.layout):
                _note(run, attempt)
        except DatasetWriteError as error:
            if error.errno not in NO_RIGHT:
                raise
            # Nobody may write there, then; that there is nothing to do may be asked all the same.
    return attempt


def note_first_attempt(run: Run, attempt: str) -> None:
    """Notes the first attempt at a run, which exists by now.

    Raises:
        RunTakenOverError: If another attempt was noted meanwhile, or samples were moved.
        DatasetWriteError: If that cannot be noted.
    """
    with _explaining(run), commit_lock(run.layout):
        if is_there(run.attempt):
            refuse_if_taken_over(run, attempt)
            return
        began = int(attempt.partition("-")[0], 16) / 1e9
        for compaction in compactions(run.layout):
            at = compaction.rows().at
            if compaction.name != run.name and len(at) and float(at.max()) > began:
                raise moved_since(run.layout.root, run.key, compaction.key)
        _note(run, attempt)


def end_other_attempts(run: Run) -> None:
    """Lets attempts at other runs write nothing more: the indices that they know are other ones.

    The caller holds the commit lock, and is about to move samples as part of a run.
    """
    for other in runs_of(run.layout):
        noted = read_json(other.attempt) if other.name != run.name else {}
        if noted and noted.get("moved_by") != run.key:
            run.layout.write_json(other.attempt, {"attempt": "", "moved_by": run.key})


def moved_since(root: str, run_key: str, by: str) -> RunTakenOverError:
    """The error of an attempt at a run whose samples another run moved."""
    return RunTakenOverError(
        f"{root}: run {run_key!r} stops, for run {by!r} moved samples to other indices "
        "since it chose its own. What it has committed stays; start a new run for the rest, which "
        'may be over what changed (`select="changed"`).'
    )


def undone_while_on(place: str, run_key: str) -> RunTakenOverError:
    """The error of an attempt at a run that somebody undid."""
    return RunTakenOverError(
        f"{place}: run {run_key!r} was undone while it was on. This attempt stops; nothing of it "
        "is left in the dataset. To do the work again, start the run anew."
    )


def refuse_if_taken_over(run: Run, attempt: str) -> None:
    """The caller holds the commit lock. Costs the reading of one small file.

    Raises:
        RunTakenOverError: If a later attempt at the run has it.
    """
    noted = read_json(run.attempt)
    if noted.get("attempt") == attempt:
        return
    if not noted:
        raise undone_while_on(run.layout.root, run.key)
    if "moved_by" in noted:
        raise moved_since(run.layout.root, run.key, str(noted["moved_by"]))
    raise RunTakenOverError(
        f"{run.layout.root}: another attempt at run {run.key!r}, by process {noted.get('pid')} on "
        f"{noted.get('host')}, goes on with it. This one stops; what it has committed stays. To do "
        "the same work once more, give another run key."
    )


def refuse_if_undoing(run: Run) -> None:
    """The caller holds the commit lock: what is committed now, the undo would not know of.

    Raises:
        RunTakenOverError: If the run is being undone, or its undo was interrupted.
    """
    undone = run.key if run.is_half_undone() else run.half_given_back_by()
    if undone is not None:
        raise RunTakenOverError(
            f"{run.layout.root}: run {undone!r} is being undone, or its undo was interrupted: "
            f"nothing more is written as part of run {run.key!r}. Let the undo end (`pipestream "
            "undo` finishes one that was interrupted), then start the run anew."
        )


def _note(run: Run, attempt: str) -> None:
    note = {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname()}
    run.layout.write_json(run.attempt, {**note, "at": time.time()})


def _explaining(run: Run) -> AbstractContextManager[None]:
    return DatasetWriteError.explaining(f"{run.layout.root}: run {run.key!r} cannot be begun")
