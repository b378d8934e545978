"""Finds, or installs once, the environment that holds the reference: `pipelime-python` 3.0.0."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFERENCE = "pipelime-python==3.0.0"
INSTALL_TIMEOUT_S = 900


class ReferenceUnavailableError(Exception):
    """pip could not install the reference."""


def reference_python() -> Path:
    """Give the interpreter of the environment that holds the reference.

    That is `PIPESTREAM_REFERENCE_PYTHON` where it is set, else an environment in the user's
    cache folder, which the first call makes.

    Raises:
        ReferenceUnavailableError: When pip cannot install the reference; says why.
    """
    given = os.environ.get("PIPESTREAM_REFERENCE_PYTHON")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefect-pipestream"
    cache.mkdir(parents=True, exist_ok=True)
    version = "{}.{}".format(*sys.version_info)
    environment = cache / f"{REFERENCE.replace('==', '-')}-py{version}"
    complete = environment / "complete"
    with _locked(Path(f"{environment}.lock")):
        if not complete.exists():
            _install(environment)
            complete.touch()
    return environment / "bin" / "python"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", REFERENCE]
    try:
        done = subprocess.run(
            pip, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ReferenceUnavailableError(
            f"pip did not install {REFERENCE} within {INSTALL_TIMEOUT_S} s."
        ) from error
    if done.returncode != 0:
        raise ReferenceUnavailableError(
            f"pip cannot install {REFERENCE}: {done.stderr.strip()[-400:]}"
        )
