"""Processes that run flows, and how they are killed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.exceptions import ObjectNotFound
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


class Host:
    """A process with everything imported, which forks one for each flow run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runs.host"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


class FlowProcess:
    """A process that runs `drive.main`, with its workers a process group of its own.

    Args:
        host: Forks it.
        slowly_s: The time that the slow transforms take for each sample, in seconds.
        **arguments: Those of `drive.main`.
    """

    def __init__(self, host: Host, slowly_s: float = 0.002, **arguments: Any) -> None:
        self._host = host
        self._logs = tempfile.TemporaryDirectory()
        self._out = Path(self._logs.name, "out")
        self._err = Path(self._logs.name, "err")
        logs = {"out": str(self._out), "err": str(self._err)}
        self.pid: int = host.ask(run=arguments, slowly_s=slowly_s, **logs)
        self._status: int | None = None

    def is_alive(self) -> bool:
        if self._status is None:
            self._status = self._host.ask(poll=self.pid)
        return self._status is None

    def wait_for_begin(self) -> None:
        """Waits until the flow's own code runs."""
        wait_until(lambda: self._lines()[:1] == ["begun"] or not self.is_alive())
        assert self._lines()[:1] == ["begun"], self._err.read_text()

    def _lines(self) -> list[str]:
        return self._out.read_text().splitlines() if self._out.exists() else []

    def kill(self, workers: bool = True) -> bool:
        """Kills the process, with all of its workers or without; returns whether it was alive."""
        if self.is_alive():
            (os.killpg if workers else os.kill)(self.pid, signal.SIGKILL)
        return self._wait(10) == -signal.SIGKILL

    def kill_a_worker(self, rng: random.Random) -> bool:
        """Kills one worker process, if there is one."""
        workers = list(_workers_of(self.pid))
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                return True
        return False

    def result(self, timeout: float = 120) -> dict[str, Any]:
        """Waits for the report."""
        status, err = self.outcome(timeout)
        assert status == 0, err[-6000:]
        report: dict[str, Any] = json.loads(self._lines()[-1])
        return report

    def outcome(self, timeout: float = 120) -> tuple[int, str]:
        """Waits for the end: the exit status, and what was printed of errors."""
        return self._wait(timeout), self._err.read_text()

    def _wait(self, timeout: float) -> int:
        assert wait_until(lambda: not self.is_alive(), timeout), f"{self.pid} does not end"
        assert self._status is not None
        return self._status

    def __enter__(self) -> "FlowProcess":
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._wait(10)
        self._logs.cleanup()


class Server:
    """A process that serves `drive.run_subflow_of_tests`.

    Args:
        log: The file for what it and its flow runs print.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        settings = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "TESTS_SLOWLY_S": "0.005"}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.runs.drive"],
                cwd=ROOT,
                env={**environment(), **settings},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log.read_text()[-6000:]

    def deployment(self, client: Any, name: str) -> UUID:
        """Waits until the flow is deployed; returns the deployment's id."""

        def is_deployed() -> bool:
            with contextlib.suppress(ObjectNotFound):
                client.read_deployment_by_name(name)
                return True
            return False

        assert wait_until(is_deployed, every=0.2), self.log()
        id_: UUID = client.read_deployment_by_name(name).id
        return id_

    def kill_its_flow_runs(self) -> int:
        """Kills the processes that run flows; returns how many."""
        pids = list(_workers_of(self._process.pid))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill_its_flow_runs()
        self._process.kill()
        self._process.wait()


def _children_of(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, (thread / "children").read_text().split())


def _workers_of(pid: int) -> Iterator[int]:
    """The worker processes of a process: not the one that tracks its resources."""
    for child in _children_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                yield child


def wait_until(condition: Callable[[], bool], timeout: float = 60, every: float = 0.02) -> bool:
    """Waits for a condition; returns whether it came true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every)
    return False
