"""A process that works on samples with limits, as its owner has it (see `guarded`)."""

import os
import re
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from linecache import getline
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from prefect_pipestream.errors import SampleDiedError, SampleTimeoutError
from prefect_pipestream.sequences.child_process import ChildProcess, how_it_ended
from prefect_pipestream.underfolder import SampleFailure
from prefect_pipestream.work.guarded import SHOWS_STACK, LogLine, Order
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.sample_clock import SIZE, Current, SampleClock

_GRACE_S = 5.0
_STACK_S = 1.0
_MOST_FRAMES = 12
_FRAME = re.compile(rb'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Death(NamedTuple):
    """The end of a process in the middle of a sample.

    Attributes:
        idx: The sample.
        failure: What is said of it.
        by_itself: Whether its owner did not end it: the sample may have been a mere victim.
    """

    idx: int
    failure: SampleFailure
    by_itself: bool


class SampleProcess:
    """A process that works on samples, with what it shares with its owner: a clock, and a file.

    Into the file it writes where it stands: on a signal, or when it crashes.
    """

    def __init__(self) -> None:
        self._stack = tempfile.TemporaryFile()  # noqa: SIM115 # `close` closes it
        with tempfile.TemporaryFile() as cells:
            cells.truncate(SIZE)
            self.clock = SampleClock(cells)
            fds = (cells.fileno(), self._stack.fileno())
            self._process = ChildProcess("prefect_pipestream.work.guarded", fds)
        self._owner = os.getpid()
        self._is_busy = False

    def give(self, order: Order) -> None:
        """Gives it an order; if it has ended, `message_within` tells."""
        self._is_busy = True
        self.clock.reset()
        with suppress(ConnectionError):
            self._process.pipe.send(order)

    def message_within(self, seconds: float) -> Any:
        """Its next message; None if there was none; if it ended, a `Death` or how it ended."""
        if not wait([self._process.pipe], seconds):
            return None
        try:
            message = self._process.pipe.recv()
        except (EOFError, ConnectionError):
            return self._end()
        self._is_busy = isinstance(message, LogLine)
        return message

    def _end(self) -> Death | str:
        """What became of it: of the sample that it was at, if at one."""
        how = how_it_ended(self._process.end(_GRACE_S))
        current = self.clock.current()
        if current is None:
            return how
        error = SampleDiedError(f"the process that worked on it {how}.")
        return Death(current.idx, self._failure(error), by_itself=True)

    def late(self, limits: Limits) -> Current | None:
        """The sample that it is at, if that takes longer than it may."""
        current, limit = self.clock.current(), limits.seconds
        if current is None or limit is None:
            return None
        return current if current.seconds > limit else None

    def ended_at(self, current: Current, limits: Limits) -> Death:
        """Ends it, for its sample takes too long."""
        self.clock.doom()  # the signal may end a call of C, such as `sleep`
        self._process.signal(SHOWS_STACK)
        self._wait_for_stack()
        self._process.end(0)
        error = SampleTimeoutError(
            f"it took longer than sample_timeout={limits.seconds:g} s, and its process was ended."
        )
        return Death(current.idx, self._failure(error), by_itself=False)

    def _wait_for_stack(self) -> None:
        end = time.monotonic() + _STACK_S
        size = 0
        while time.monotonic() < end:
            time.sleep(0.02)
            was, size = size, os.fstat(self._stack.fileno()).st_size
            if size and size == was:
                return

    def _failure(self, error: Exception) -> SampleFailure:
        self._stack.seek(0)
        said = SampleFailure.of_error(error)
        return replace(said, traceback=_stack_in(self._stack.read()) + said.traceback)

    def is_free(self) -> bool:
        """Whether it can take an order of this process."""
        return self._owner == os.getpid() and self._process.is_running()

    def give_back(self) -> None:
        """Keeps it for the next chunk. One that is still at work may commit what it has."""
        if self._is_busy:
            self.clock.stop()
            self._process.end(_GRACE_S)
        if self._process.is_running():
            with _lock:
                _idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        """Ends it."""
        self._process.pipe.close()
        self._process.end(_GRACE_S)
        self._stack.close()


_idle: list[SampleProcess] = []
_lock = threading.Lock()


def borrowed() -> SampleProcess:
    """A process that has nothing to do, or a new one; to be given back, or closed."""
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.is_free():
                return process
    return SampleProcess()


def _stack_in(said: bytes) -> str:
    """The stack that faulthandler wrote, as Python's tracebacks are: the innermost call last."""
    frames = _FRAME.findall(said)[:_MOST_FRAMES][::-1]
    lines = []
    for file, line, name in frames:
        path = os.fsdecode(file)
        lines.append(f'  File "{path}", line {int(line)}, in {os.fsdecode(name)}')
        if text := getline(path, int(line)).strip():
            lines.append(f"    {text}")
    return "\n".join(["Where it stood (most recent call last):", *lines, ""]) if lines else ""
