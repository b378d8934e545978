"""Run keys: the names by which a dataset's ledger knows its runs."""

import secrets
from datetime import UTC, datetime

from prefect_pipestream.errors import RunKeyError


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


def new_run_key(what: str) -> str:
    """Returns a run key that nobody else has, which begins with `what` and the time."""
    now = datetime.now(UTC)
    return f"{what}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
