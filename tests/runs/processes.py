"""Processes that run flows, and how they are killed."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL, PREFECT_HOME

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """The environment of a process that uses the API of the tests."""
    return {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(PREFECT_HOME.value()),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": str(ROOT),
    }


class FlowProcess:
    """A process that runs `tests.runs.drive`, with its workers a process group of its own.

    Args:
        slowly_s: The time that the slow transforms take for each sample, in seconds.
        **arguments: Those of `drive.main`.
    """

    def __init__(self, slowly_s: float = 0.002, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runs.drive", json.dumps(arguments)],
            cwd=ROOT,
            env={**environment(), "TESTS_SLOWLY_S": str(slowly_s)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for_begin(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.strip() != "begun":
            raise AssertionError(f"{line}{self._process.communicate()[1]}")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self, workers: bool = True) -> bool:
        """Kills the process, with all of its workers or without; returns whether it was alive."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if workers else os.kill)(self._process.pid, signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def kill_a_worker(self, rng: random.Random) -> bool:
        """Kills one worker process, if there is one."""
        workers = list(_workers_of(self._process.pid))
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
            return True
        return False

    def result(self, timeout: float = 120) -> dict[str, Any]:
        """Waits for the report."""
        status, out, err = self.outcome(timeout)
        assert status == 0, err[-6000:]
        report: dict[str, Any] = json.loads(out.splitlines()[-1])
        return report

    def outcome(self, timeout: float = 120) -> tuple[int, str, str]:
        """Waits for the end: the exit status, and what was printed."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._process.returncode, out, err

    def __enter__(self) -> "FlowProcess":
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _workers_of(pid: int) -> Iterator[int]:
    """The processes of a process pool: not the one that tracks its resources."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                yield int(child)


def wait_until(condition: Callable[[], bool], timeout: float = 60, every: float = 0.01) -> bool:
    """Waits for a condition; returns whether it came true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every)
    return False


def readable(stream: Any, timeout: float) -> bool:
    """Whether a line can be read."""
    return bool(select.select([stream], [], [], timeout)[0])
