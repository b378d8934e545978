"""Run keys, by which a dataset's ledger knows its runs, and names that people give to runs."""

import secrets
from datetime import UTC, datetime

from prefect_pipestream.errors import RunKeyError

UNDO_KEY = "undo:"
ROLLBACK_KEY = "rollback:"
RESTORE_KEY = "restore:"
TAKING_BACK = (UNDO_KEY, ROLLBACK_KEY, RESTORE_KEY)
"""What the keys of runs begin with that take others back, or samples."""


def is_run_key(key: object) -> bool:
    """Whether `key` can be a run key: text that is not empty and can be written as UTF-8."""
    if not isinstance(key, str) or not key:
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_run_key(key: object) -> str:
    """Returns `key` if it can be a run key.

    Raises:
        RunKeyError: If it is empty, no text, or cannot be written as UTF-8.
    """
    if not isinstance(key, str) or not is_run_key(key):
        raise RunKeyError(
            f"run key {key!r}: expected text that is not empty and can be written as UTF-8. Leave "
            "it out for a new run; `pipestream runs` lists them."
        )
    return key


def is_run_name(name: object) -> bool:
    """Whether a run can be given this name: what can be a key, but for the keys of undos."""
    return is_run_key(name) and not str(name).startswith(TAKING_BACK)


def check_run_name(name: object) -> str:
    """Returns `name` if a run can be given it.

    Raises:
        RunKeyError: If it cannot be a run key, or begins as the keys of undos do.
    """
    if not isinstance(name, str) or not is_run_name(name):
        raise RunKeyError(
            f"name {name!r}: expected text for a run that is not empty, can be written as UTF-8, "
            f"and does not begin with {', '.join(TAKING_BACK)}, as the keys of undos do."
        )
    return name


def new_run_key(what: str) -> str:
    """Returns a run key that nobody else has, which begins with `what` and the time."""
    now = datetime.now(UTC)
    return f"{what}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
