"""Work that is killed at a call of the operating system, in a fork of this process."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

CALLS = {"open", "write", "close", "mkdir", "rename", "replace", "link", "unlink", "rmdir"}
CALLS |= {"utime", "flock", "listdir"}


def killed_in(work: Callable[[], object], at: int) -> bool:
    """Runs `work` in a process that kills itself at a call of the operating system.

    Args:
        work: What to do.
        at: The number of the call, of those in `CALLS`.

    Returns:
        Whether it came so far.
    """
    pid = os.fork()
    if pid == 0:
        _run_until(work, at)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _run_until(work: Callable[[], object], at: int) -> NoReturn:
    left = at

    def kill_in_time(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        if event == "c_call" and argument.__name__ in CALLS:
            left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.setprofile(kill_in_time)
        work()
        status = 0
    finally:
        os._exit(status)
