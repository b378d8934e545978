"""What a process does that works on samples with limits: chunks, for its owner (see `guard`).

It imports no Prefect, so that it is there soon. A transform whose module does finds the context of
the owner's flow run, as it would in the owner.
"""

import faulthandler
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_pipestream.items import Item
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.items.settings import Settings
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.sequences.worker import pickled_failure
from prefect_pipestream.underfolder import Batch, SampleFailure
from prefect_pipestream.work.chunk import ChunkRun, Indices, Transform
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.sample_clock import SampleClock

if TYPE_CHECKING:
    from prefect_pipestream.work.trial import Tried

SHOWS_STACK = signal.SIGUSR1
"""On this signal the process writes where it stands, also where it holds Python's lock."""

_IDLE_S = 10.0
_OWNER_CHECK_S = 1.0
_BEYOND_LIMIT_S = 10.0


@dataclass(frozen=True)
class Job:
    """A chunk to be processed; the fields are those of `ChunkRun`, and

    Attributes:
        classes: The item class of each extension.
        settings: How the owner decodes and encodes.
        limits: What one sample may take.
        umask: What new files of the owner lack of access; None: it is not known.
    """

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Collection[str] | None
    tag: str
    classes: dict[str, type[Item[Any]]]
    settings: Settings
    limits: Limits
    umask: int | None


class Order(NamedTuple):
    """Samples of a job to be processed.

    Attributes:
        job: The pickled job.
        context: The pickled context of the owner's flow run.
        indices: The samples.
        retries: How often one that fails is tried again.
        tried: How often they were tried before.
        is_trial: Whether the one sample is only to be tried, for a plan.
    """

    job: bytes
    context: bytes | None
    indices: Indices
    retries: int
    tried: int
    is_trial: bool = False


class LogLine(NamedTuple):
    """Something that the owner is to log."""

    level: int
    text: str


class Struck(NamedTuple):
    """A sample that ends the process, and why.

    Attributes:
        idx: The sample.
        failure: Why.
    """

    idx: int
    failure: SampleFailure


def work(pipe: Connection, owner: int, clock_fd: int, stack_fd: int) -> None:
    """Works off orders until the pipe is closed, nothing comes for a while, or a sample ends it."""
    for fd in (pipe.fileno(), clock_fd, stack_fd):
        os.set_inheritable(fd, False)
    faulthandler.enable(stack_fd, all_threads=False)
    faulthandler.register(SHOWS_STACK, stack_fd, all_threads=False)
    _be_the_one_to_be_killed()
    worker = _Worker(pipe, owner, SampleClock(clock_fd))
    threading.Thread(target=worker.end_with_owner, daemon=True).start()
    with suppress(ConnectionError):  # the owner is gone
        while (order := worker.next_order()) is not None:
            result = worker.outcome_of(order)
            pipe.send(result)
            if isinstance(result, Struck):
                return


class _Worker:
    def __init__(self, pipe: Connection, owner: int, clock: SampleClock) -> None:
        self._pipe = pipe
        self._clock = clock
        self._owner = owner
        self._limit_s: float | None = None
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self._log = logging.Logger("chunk")
        self._log.addHandler(_ToOwner(pipe))

    def next_order(self) -> Order | None:
        with suppress(EOFError):
            if self._pipe.poll(_IDLE_S):
                order: Order = self._pipe.recv()
                return order
        return None

    def outcome_of(self, order: Order) -> Any:
        """A `ChunkReport` or a `Tried`, what struck a sample, or another failure."""
        try:
            return self._processed(order)
        except BaseException as error:  # noqa: BLE001 # the owner raises it, or notes the sample
            current = self._clock.current()
            if current is not None:  # MemoryError, SystemExit and the like
                return Struck(current.idx, SampleFailure.of_error(error.__cause__ or error))
            return pickled_failure(error)

    def _processed(self, order: Order) -> "ChunkReport | Tried":
        job: Job = pickle.loads(order.job)
        CLASS_BY_EXTENSION.update(job.classes)
        job.settings.set()
        if job.umask is not None:
            os.umask(job.umask)
        self._limit_s = job.limits.seconds
        faulthandler.cancel_dump_traceback_later()  # an earlier order may have had another limit
        self._end_unless_called_again()
        _limit_memory(job.limits.mebibytes)
        if order.is_trial:
            return self._tried(job, order)
        chunk = GuardedRun(
            job.source,
            job.target,
            job.transform,
            job.keys,
            order.retries,
            job.tag,
            self._log,
            _Stop(self._clock),
            order.tried,
        )
        chunk.clock = self._clock
        with _in_context(order.context):
            return chunk.run(order.indices)

    def _tried(self, job: Job, order: Order) -> "Tried":
        from prefect_pipestream.work.trial import try_one  # what makes pictures is not needed else

        (idx,) = order.indices
        with _in_context(order.context), self._clock.at(idx):
            showing = self._clock.paused
            return try_one(job.source, job.target, job.transform, job.keys, idx, showing)

    def end_with_owner(self) -> None:
        """Ends the process once its owner has ended, even where Python's lock is never let go."""
        while os.getppid() == self._owner:
            self._end_unless_called_again()
            time.sleep(_OWNER_CHECK_S)
        os._exit(1)

    def _end_unless_called_again(self) -> None:
        """Lets C end the process if this is not called for far longer than a sample may take."""
        if self._limit_s is not None:
            beyond = self._limit_s + _BEYOND_LIMIT_S
            faulthandler.dump_traceback_later(beyond, exit=True, file=self._nowhere)


class GuardedRun(ChunkRun):
    """A chunk of which the owner sees the sample that it is at."""

    clock: SampleClock

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Opens a batch; the time of a commit is not that of a sample."""
        with super().batch() as batch:
            batch.while_committing = self.clock.paused
            yield batch

    def process(self, idx: int, attempt: int, batch: Batch) -> None:
        """Processes one sample."""
        with self.clock.at(idx):
            try:
                super().process(idx, attempt, batch)
            except MemoryError as error:  # another process has the memory that this one lacks
                raise _NoMemoryLeft from error


class _NoMemoryLeft(BaseException):
    """Goes past what handles a failed sample: the process is to end."""


class _Stop(Event):
    """Is set by the owner, by way of the clock."""

    def __init__(self, clock: SampleClock) -> None:
        super().__init__()
        self._clock = clock

    def is_set(self) -> bool:
        return self._clock.is_to_stop()

    def wait(self, timeout: float | None = None) -> bool:
        end = time.monotonic() + (timeout or 0.0)
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self.is_set()


class _ToOwner(logging.Handler):
    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send(LogLine(record.levelno, record.getMessage()))


def _in_context(context: bytes | None) -> AbstractContextManager[None]:
    """The context of the owner's flow run, for a transform whose module knows of Prefect."""
    if context is None or "prefect" not in sys.modules:
        return nullcontext()
    from prefect.context import hydrated_context

    return hydrated_context(pickle.loads(context))


def _limit_memory(mebibytes: float | None) -> None:
    """Lets the process have so much memory beyond what it has; then Python raises MemoryError.

    None is any, also where an earlier order had a limit.
    """
    import resource

    if mebibytes is None:
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        return
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = held * 2**10 + int(mebibytes * 2**20)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _be_the_one_to_be_killed() -> None:
    """Where the system's memory runs out, Linux is to end this process, and not its owner."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")
