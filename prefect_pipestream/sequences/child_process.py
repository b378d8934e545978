"""A new Python process that works for this one, at the other end of a pipe."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

# It finds its modules where its owner does.
_PROGRAM = """
import sys
from importlib import import_module
from multiprocessing.connection import Connection
module, *numbers = sys.argv[1:]
owner, pipe, *fds = map(int, numbers)
pipe = Connection(pipe)
try:
    sys.path, sys.argv = pipe.recv()
except EOFError:
    sys.exit()  # the owner is gone
import_module(module).work(pipe, owner, *fds)
"""


class ChildProcess:
    """A process that was started for this one, as a new Python.

    It is no fork, which would have the locks of this process's threads without the threads; and it
    does not run the script again, which needs no `if __name__ == "__main__"` then. It is in a
    process group of its own: Ctrl-C is its owner's to hear.

    Args:
        module: The name of the module whose `work(pipe, owner, *fds)` it runs; the owner is this
            process, by its id: it may have ended when the other one could first ask for its parent.
        fds: Files of this process that it is given, too.

    Attributes:
        pipe: This process's end of the pipe. What others of its children are forked may hold open,
            too: that it is closed does not tell the child so at once.
    """

    def __init__(self, module: str, fds: Sequence[int] = ()) -> None:
        self.pipe: Connection
        self.pipe, theirs = Pipe()
        with theirs:
            passed = (theirs.fileno(), *fds)
            numbers = map(str, (os.getpid(), *passed))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, module, *numbers],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        with suppress(ConnectionError):  # it died: the pipe's end says so to who reads it
            self.pipe.send((sys.path, sys.argv))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Sends it a signal, if it is still running."""
        self._process.send_signal(number)

    def end(self, seconds: float) -> int:
        """Waits for its end, at most so long, then kills it.

        Returns:
            Its exit code, or minus the signal that ended it.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()  # commits are atomic: no sample is left half written
            return self._process.wait()


def how_it_ended(code: int) -> str:
    """What became of a process with this exit code: `was killed by signal 9 (SIGKILL)`."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {_signal(-code)}"


def _signal(number: int) -> str:
    """Its number, with its name where it has one: real-time signals have none."""
    names = [f" ({one.name})" for one in signal.Signals if one == number]
    return f"signal {number}{''.join(names)}"
