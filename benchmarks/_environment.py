"""Environments of their own for what a benchmark compares with, made when they are first needed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

INSTALL_TIMEOUT_S = 900


class UnavailableError(Exception):
    """pip could not install what was asked for."""


def environment_with(name: str, packages: list[str]) -> Path:
    """Give the interpreter of an environment that has some packages.

    It is in the user's cache folder. The first call makes it, and later ones, which take what is
    there, are of the same versions.

    Args:
        name: What the environment is called.
        packages: What pip is to install.

    Raises:
        UnavailableError: When pip cannot install them; says why.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefect-pipestream"
    cache.mkdir(parents=True, exist_ok=True)
    environment = cache / f"{name}-py{'{}.{}'.format(*sys.version_info)}"
    with Path(f"{environment}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (environment / "complete").exists():
            _install(environment, packages)
            (environment / "complete").touch()
    return environment / "bin" / "python"


def _install(environment: Path, packages: list[str]) -> None:
    print(f"  installing {', '.join(packages)}, once", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    try:
        done = subprocess.run(
            pip, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"pip took over {INSTALL_TIMEOUT_S} s.") from error
    if done.returncode != 0:
        raise UnavailableError(f"pip: {done.stderr.strip()[-300:]}")
