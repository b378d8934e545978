"""Run keys: the names by which a dataset's ledger knows its runs."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from prefect_pipestream.errors import RunKeyError

_in_force: ContextVar[str | None] = ContextVar("_in_force", default=None)


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
            "it out for a new run; `python -m prefect_pipestream runs` lists them."
        )
    return key


def inherited_run_key() -> str | None:
    """The run that writers made now belong to; None where each has one of its own."""
    return _in_force.get()


@contextmanager
def writing_as(run_key: str) -> Iterator[None]:
    """Writers made inside belong to this run, unless they are given another one."""
    token = _in_force.set(run_key)
    try:
        yield
    finally:
        _in_force.reset(token)


def new_run_key(what: str) -> str:
    """Returns a run key that nobody else has, which begins with `what` and the time."""
    now = datetime.now(UTC)
    return f"{what}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
