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
from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.underfolder.commits.apply import NO_RIGHT, commit_lock
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.facts import read_json, write_json


def begin_attempt(layout: Layout, run_key: str) -> str:
    """Gives a new attempt's name; from here on earlier attempts at the run write nothing more.

    A run that does not exist yet is not made: its first attempt has it when it calls `hold`.

    Raises:
        DatasetWriteError: If that cannot be noted.
    """
    attempt = secrets.token_hex(8)
    if is_folder(layout.run(run_key).folder):
        try:
            with _explaining(layout, run_key), commit_lock(layout):
                _note(layout, run_key, attempt)
        except DatasetWriteError as error:
            if error.errno not in NO_RIGHT:
                raise
            # Nobody may write there, then; that there is nothing to do may be asked all the same.
    return attempt


def hold(layout: Layout, run_key: str, attempt: str) -> None:
    """Notes the first attempt at a run, which exists by now.

    Raises:
        RunTakenOverError: If another attempt was noted meanwhile.
        DatasetWriteError: If that cannot be noted.
    """
    with _explaining(layout, run_key), commit_lock(layout):
        refuse_if_taken_over(layout, run_key, attempt)
        if not is_there(layout.run(run_key).attempt):
            _note(layout, run_key, attempt)


def refuse_if_taken_over(layout: Layout, run_key: str, attempt: str) -> None:
    """The caller holds the commit lock. Costs the reading of one small file.

    Raises:
        RunTakenOverError: If a later attempt at the run has it.
    """
    noted = read_json(layout.run(run_key).attempt)
    if noted.get("attempt", attempt) != attempt:
        raise RunTakenOverError(
            f"{layout.root}: another attempt at run {run_key!r}, by process {noted.get('pid')} on "
            f"{noted.get('host')}, goes on with it. This one stops; what it has committed stays. "
            "To do the same work once more, give another run key."
        )


def _note(layout: Layout, run_key: str, attempt: str) -> None:
    note = {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname()}
    write_json(layout, layout.run(run_key).attempt, {**note, "at": time.time()})


def _explaining(layout: Layout, run_key: str) -> AbstractContextManager[None]:
    return DatasetWriteError.explaining(f"{layout.root}: run {run_key!r} cannot be begun")
