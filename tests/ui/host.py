"""A Prefect server and a worker, as their users start them, with a home of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_STARTUP_S = 120.0


def free_port() -> int:
    """A port on loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PrefectHost:
    """A server on a free port of loopback, and workers: processes in groups of their own.

    Args:
        home: The folder for Prefect's home and the logs of the processes.
        settings: More environment variables for all of them.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{free_port()}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.env = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_API_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_API_SERVICES_SCHEDULER_MIN_RUNS": "2",
            "PREFECT_API_SERVICES_SCHEDULER_MAX_RUNS": "4",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "NO_COLOR": "1",
            "PWD": "/",  # not where they run: what starts them need not be a shell
            "PYTHONPATH": str(REPOSITORY),  # of this checkout, whatever is installed
            **(settings or {}),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._worker: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start_server(self) -> None:
        """Starts the server, and waits until it answers."""
        host, port = self.url.removeprefix("http://").split(":")
        self._server = self._spawn("server", "server", "start", "--host", host, "--port", port)
        deadline = time.monotonic() + _STARTUP_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline or self._processes[-1].poll() is not None:
                    log = (self.home / "server.log").read_text("utf-8", "replace")
                    raise TimeoutError(f"the server did not start:\n{log[-3000:]}") from None
                time.sleep(0.25)

    def start_worker(self, pool: str) -> subprocess.Popen[bytes]:
        """Starts a worker of a process work pool, which it creates where it is missing."""
        self._worker = self._spawn("worker", "worker", "start", "--pool", pool, "--type", "process")
        return self._worker

    def restart_worker(self, pool: str) -> None:
        """Kills the worker that was started last, with its flow runs, and starts another one."""
        if self._worker is not None:
            self.kill(self._worker)
        self.start_worker(pool)

    def kill_all(self) -> None:
        """Kills the worker with its flow runs, and the server: a machine that loses its power."""
        self._kill(*filter(None, (self._worker, self._server)))

    def flow_runs(self) -> list[int]:
        """The processes of the worker's flow runs."""
        return [] if self._worker is None else _descendants(self._worker.pid)

    def pipestream(self, *arguments: str) -> str:
        """Runs this package's command line and gives what it printed."""
        return self._ran("prefect_pipestream", *arguments)

    def prefect(self, *arguments: str, cwd: Path = REPOSITORY) -> str:
        """Runs Prefect's command line and gives what it printed."""
        return self._ran("prefect", *arguments, cwd=cwd)

    def _ran(self, module: str, *arguments: str, cwd: Path = REPOSITORY) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=_STARTUP_S,
            check=False,
        )
        assert done.returncode == 0, (
            f"{module} {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                env=self.env,
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kills a process and all that it started, at once."""
        self._kill(process)

    def _kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """Kills processes and all that they started; none is seen to die by another."""
        for pid in _stopped(*(process.pid for process in processes)):
            _send(pid, signal.SIGKILL)
        for process in processes:
            process.wait()
            if process in self._processes:
                self._processes.remove(process)

    def stop(self) -> None:
        """Ends all processes."""
        for process in reversed(self._processes.copy()):
            self.kill(process)


def _stopped(*pids: int) -> set[int]:
    """Processes and all that they started, which stand still: none starts another one meanwhile."""
    found: set[int] = set()
    while new := {one for pid in pids for one in (pid, *_descendants(pid))} - found:
        for pid in new:
            _send(pid, signal.SIGSTOP)
        found |= new
    return found


def _send(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def _descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found
