"""Kills a process at each of its file-changing system calls, one run a call.

An action is a function in `tests.faults.actions`. For each system call that changes files, and
for each time that the action makes it, the action runs on a fresh dataset in a process of its
own, under `strace`, which sends SIGKILL as that call is entered.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "utimensat", "ftruncate"),
    *("openat", "write", "pwrite64", "fsync", "flock"),
)


class Host:
    """A process with everything imported, which forks one that waits for each action."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def run(self, action: str, folder: Path, *inject: str, log: Path | None = None) -> int:
        """Runs an action under strace; returns its exit status (negative: the signal)."""
        pid = self._ask(f"fork {action} {folder}")
        command = ["strace", "-f", "-p", pid, "-e", "trace=" + ",".join(CALLS)]
        command += [part for text in inject for part in ("-e", "inject=" + text)]
        command += ["-o", str(log or "/dev/null")]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        assert "attached" in attached, attached
        status = int(self._ask("go"))
        strace.wait()
        strace.stderr.close()
        return status

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def calls_of(host: Host, action: str, folder: Path, log: Path) -> Counter[str]:
    """How often an action makes each of the calls, when nothing disturbs it."""
    assert host.run(action, folder, log=log) == 0, log.read_text()[-2000:]
    text = log.read_text()
    return Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", text, flags=re.MULTILINE))


def kill_everywhere(
    action: str,
    template: Path,
    scratch: Path,
    verify: Callable[[Path], None],
    step: int = 1,
) -> int:
    """Kills `action` at each `step`-th call on a copy of `template`, then calls `verify`.

    Returns:
        The number of kills.
    """
    host = Host()
    kills = 0
    try:
        folder = scratch / "dataset"
        fresh(template, folder)
        counts = calls_of(host, action, folder, scratch / "calls.log")
        number = 0
        for call in CALLS:
            for when in range(1, counts[call] + 1):
                number += 1
                if number % step:
                    continue
                fresh(template, folder)
                status = host.run(action, folder, f"{call}:signal=SIGKILL:when={when}")
                assert status in (-9, 0), f"{action}: {call} number {when}: {status}"
                kills += status == -9
                try:
                    verify(folder)
                except BaseException as error:
                    error.add_note(f"{action} was killed at {call} number {when}")
                    raise
    finally:
        host.close()
    return kills


def fresh(template: Path, folder: Path) -> None:
    """Makes `folder` a new copy of `template`, hard links among its files kept apart."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)
