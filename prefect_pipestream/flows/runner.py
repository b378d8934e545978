"""The flow's task runner: how much it does at once, in chunks of which size, and its end."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from prefect_pipestream.errors import WorkerDiedError
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.storage.cores import usable_cores

CHUNK_S = 3.0
"""The work of a chunk that is aimed at, in seconds: beside it a task run costs nothing."""
WAITING_CHUNK_S = 12.0
"""The same where tasks wait for a store: a commit to it takes some of its answers."""
MOST_CHUNKS = 300
"""The task runs that a run is kept to, so that its page in the UI can be read."""

_PROBE = 8
_GROWTH = 10
_SHARES = 2
_SHORTEST_S = 0.15
_UNKNOWN_WORKERS = 16
_WAITING_WORKERS = 8
_WAITING_SAMPLES = 100


class Workers:
    """What a task runner can do at once.

    Args:
        runner: The task runner.
        waits: Whether tasks wait for a store most of the time.

    Attributes:
        number: How many tasks it works on at a time.
        in_flight: How many should be submitted and not finished, so that none of them waits
            for work, and the sizes of later chunks can follow what earlier ones took.
        least: The samples that a chunk should have at least: of what waits for a store many are
            read and written at the same time, and one commit may have so many.
        chunk_s: The work of a chunk that is aimed at, in seconds.
        are_ours: Whether it is ours to say where they work: nobody chose how many threads.
    """

    def __init__(self, runner: "TaskRunner[Any] | None", *, waits: bool = False) -> None:
        # Prefect has no public name for it; a runner that lacks it counts as of unknown size.
        most: int | None = getattr(runner, "_max_workers", None)
        cores = usable_cores()
        self.least = _WAITING_SAMPLES if waits else 1
        self.chunk_s = WAITING_CHUNK_S if waits else CHUNK_S
        self.are_ours = isinstance(runner, ThreadPoolTaskRunner) and most in (None, sys.maxsize)
        if self.are_ours:
            # More threads than cores hinder each other, unless they wait for a store.
            self.number = self.in_flight = max(cores, _WAITING_WORKERS) if waits else cores
        elif isinstance(runner, ThreadPoolTaskRunner):
            self.number = self.in_flight = most or cores
        elif isinstance(runner, ProcessPoolTaskRunner):
            self.number = most or cores
            self.in_flight = 2 * self.number
        else:
            self.number = _UNKNOWN_WORKERS
            self.in_flight = MOST_CHUNKS


class ChunkSizer:
    """Sizes chunks by how long the ones before them took.

    The first are small, to measure. Those after them are of a few seconds of work, as few as
    keep the run within `MOST_CHUNKS`, and get smaller towards the end, so that all workers
    finish together.

    Args:
        total: How many samples there are.
        workers: How many chunks are worked on at a time.
        fixed: The size of every chunk, where the user gave one.
        least: The samples that a chunk has at least, where so many are left, and they are not more
            work than is wished; a quarter of them as long as that is not known.
    """

    def __init__(self, total: int, workers: int, fixed: int | None = None, least: int = 1) -> None:
        self._least = least
        self._left = total
        self._workers = workers
        self._fixed = fixed
        self._given = 0
        self._largest = _PROBE
        self._sample_s: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether it is known how long a sample takes, or need not be."""
        return self._fixed is not None or self._sample_s is not None

    def next_size(self, longest_s: float = CHUNK_S) -> int:
        """The size of the next chunk, of at most so much work as is wished; 0 after the last."""
        size = min(self._left, self._fixed or self._size(longest_s))
        self._left -= size
        self._given += 1
        return size

    def _size(self, longest_s: float) -> int:
        share = -(-self._left // (_SHARES * self._workers))
        if self._sample_s is None:
            return max(self._least // 4, min(_PROBE, share))
        of_time = longest_s / self._sample_s
        wanted = min(of_time, _GROWTH * self._largest, max(share, self._least))
        least = self._left / max(1, MOST_CHUNKS - self._given)
        shortest = min(longest_s, _SHORTEST_S) / self._sample_s
        return max(1, int(max(wanted, shortest, least)))

    def measured(self, samples: int, seconds: float) -> None:
        """Takes note of what a chunk took."""
        if samples:
            took = max(seconds / samples, 1e-6)
            # The newest counts half: a dataset's samples are seldom alike from end to end.
            self._sample_s = took if self._sample_s is None else (self._sample_s + took) / 2
            self._largest = max(self._largest, samples)


def in_flight(
    submissions: Iterator[PrefectFuture[Any]], limit: Callable[[], int]
) -> Iterator[PrefectFuture[Any]]:
    """Takes futures from an iterator that submits them, and yields each when it is finished.

    Args:
        submissions: Submits a task with each step.
        limit: How many may be unfinished at the moment.
    """
    finished: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    running, exhausted = 0, False
    while True:
        while not exhausted and running < limit():
            future = next(submissions, None)
            if future is None:
                exhausted = True
            else:
                future.add_done_callback(finished.put)
                running += 1
        if not running:
            return
        yield _next_finished(finished)
        running -= 1


def _next_finished(finished: "SimpleQueue[PrefectFuture[Any]]") -> PrefectFuture[Any]:
    while True:
        try:
            # Not without end: a flow's timeout and cancellation interrupt between two calls.
            return finished.get(timeout=0.5)
        except Empty:
            continue


def task_runner() -> TaskRunner[Any] | None:
    """The task runner of the flow run; None outside of one."""
    context = FlowRunContext.get()
    return None if context is None else context.task_runner


def workers_on(*places: Place | None) -> Workers:
    """What the flow's task runner can do at once with datasets, by where these are."""
    return Workers(task_runner(), waits=any(map(is_address, places)))


@contextmanager
def explained_death(run_key: str) -> Iterator[None]:
    """Says of a task runner whose worker died what that means for the run.

    Raises:
        WorkerDiedError: If one did.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerDiedError(
            "A worker process died, as one that the system kills for lack of memory, or that "
            "starts a script which calls the flow without `if __name__ == '__main__':`. What was "
            f"committed is kept: a retry of the flow run, or a run with run_key={run_key!r}, goes "
            "on from there. Fewer workers need less memory."
        ) from error


@contextmanager
def reachable_api(to_processes: bool = False) -> Iterator[None]:
    """Tells worker processes where the embedded API is, lest each starts one of its own.

    Args:
        to_processes: Whether there are some, whatever the task runner.
    """
    context = FlowRunContext.get()
    if (
        context is None
        or PREFECT_API_URL.value() is not None
        or not (to_processes or isinstance(context.task_runner, ProcessPoolTaskRunner))
    ):
        yield
        return
    url = str(context.client.api_url).rstrip("/")
    with temporary_settings({PREFECT_API_URL: url}):
        yield
