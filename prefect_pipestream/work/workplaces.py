"""Where the chunks of a run are worked on: by threads of this process, or also by others.

How many threads are good, and whether they are, shows in how much of the time of the first chunks
a processor worked for them:

- About all of it: codecs do the work, which let go of Python's lock. A thread a core is best.
- Together about as much as one core has: Python does the work (thumbnails, metadata), and threads
  take turns at its lock. Other processes do better, each of which costs a third of a second of a
  core to start.
- Less: they wait for the disk, or the network. More of them wait at the same time.

Only where all is data is anything else than a thread a core chosen (see `is_all_data`): a function
of the user's own may hold or count something in this process, or ask a service that is not to be
asked by many at once.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.stages.noted import is_data_only
from prefect_pipestream.work.chunk import ChunkRun, Indices
from prefect_pipestream.work.guard import run_guarded
from prefect_pipestream.work.limits import Limits

if TYPE_CHECKING:  # it would import Prefect
    from prefect_pipestream.reporting.progress import Log

MOST_PROCESSES = 16
"""The most processes that are started: each has some 60 MB."""
BRIEF_S = 0.15
"""The work of a chunk in seconds, as long as it is not known where it is worked on best."""

_OWN_PACKAGE = __name__.partition(".")[0]
MOST_THREADS = 32
"""The most threads that wait for a disk, or the network, at the same time."""

_MEASURED_S = 0.1
_WORTH_S = 0.8
_BUSY = 0.75  # of the time of all threads
_IDLE = 0.6  # of the time of one core


class Change(NamedTuple):
    """What places there are to be.

    Attributes:
        threads: How many threads of this process.
        processes: How many other processes.
    """

    threads: int
    processes: int


def change_for(share: float, threads: int) -> Change | None:
    """What is better than a thread a core; None: nothing.

    Args:
        share: For how much of their time a processor worked for the threads, from 0 to 1.
        threads: How many they are.
    """
    if share * threads < _IDLE:
        return Change(min(MOST_THREADS, round(1 / max(share, 1 / MOST_THREADS))), 0)
    if share < _BUSY and threads > 1:
        return Change(1, min(threads - 1, MOST_PROCESSES))
    return None


class Workplaces:
    """The places of one run, each of which has one chunk at a time.

    At first all of them are threads. Once it is seen how these get on, there are more, or all but
    one become processes: each as soon as it is there.

    Args:
        number: How many there are at first: a thread a core.
        samples: How many samples the run is about.
        log: Where it is told that the places change.

    Attributes:
        number: How many there are.
        are_settled: Whether it is known what they are to be.
    """

    def __init__(self, number: int, samples: int, log: "Log") -> None:
        self.number = number
        self.are_settled = False
        self._left = samples
        self._log = log
        self._changed = threading.Condition()
        self._threads, self._processes = number, 0  # free ones; below 0 while there are too many
        self._seconds = self._processor_s = 0.0

    def work_on(self, chunk: ChunkRun, indices: Indices) -> ChunkReport:
        """Processes a chunk where a place is free; until then it waits.

        Raises:
            DatasetError, ChunkStopped: As `ChunkRun.run`.
        """
        with self._turn(chunk) as is_apart:
            if is_apart:
                return run_guarded(chunk, indices, Limits())
            began, worked = time.perf_counter(), time.thread_time()
            report = chunk.run(indices)
            seconds, processor_s = time.perf_counter() - began, time.thread_time() - worked
        if self._is_time(report.total, seconds, processor_s):
            self._settle(chunk)
        return report

    @contextmanager
    def _turn(self, chunk: ChunkRun) -> Iterator[bool]:
        """Has a place; yields whether it is a process."""
        with self._changed:
            while not self._changed.wait_for(lambda: max(self._threads, self._processes) > 0, 0.5):
                chunk.raise_if_stopped()
            is_apart = self._processes > 0
            self._add(*((0, -1) if is_apart else (-1, 0)))
        try:
            yield is_apart
        finally:
            with self._changed:
                self._add(*((0, 1) if is_apart else (1, 0)))

    def _add(self, threads: int, processes: int) -> None:
        self._threads += threads
        self._processes += processes
        self._changed.notify_all()

    def _is_time(self, samples: int, seconds: float, processor_s: float) -> bool:
        """Says once, when enough was seen, whether there is enough left for a change to pay."""
        with self._changed:
            self._left -= samples
            self._seconds += seconds
            self._processor_s += processor_s
            if self.are_settled or self._seconds < _MEASURED_S:
                return False
            self.are_settled = True
        return self._left * seconds / max(1, samples) / self.number > _WORTH_S

    def _settle(self, chunk: ChunkRun) -> None:
        share = self._processor_s / self._seconds
        self._log.debug("Threads had a processor for %.0f %% of their time.", 100 * share)
        change = change_for(share, self.number)
        if change is not None and is_all_data(chunk):
            self.change(change, chunk)

    def change(self, change: Change, chunk: ChunkRun) -> None:
        """Has other places from here on.

        Args:
            change: Which.
            chunk: A chunk like those that are to come.
        """
        why = "wait for the disk or the network" if change.threads > 1 else "hold each other up"
        self._log.info(
            "Threads %s: from here on %d of them and %d other process(es) work on the chunks.",
            why,
            *change,
        )
        with self._changed:
            self._add(change.threads - self.number, 0)
            self.number = sum(change)
        for _ in range(change.processes):
            threading.Thread(target=self._add_process, args=(chunk,), daemon=True).start()

    def _add_process(self, chunk: ChunkRun) -> None:
        """Has a process made ready, by a chunk of no samples; where there can be none, a thread."""
        try:
            run_guarded(chunk, range(0), Limits())
        except (PipestreamError, OSError) as error:
            self._log.warning("A thread works on in place of a process: %s", error)
            is_there = False
        else:
            is_there = True
        with self._changed:
            self._add(*((0, 1) if is_there else (1, 0)))


def is_all_data(chunk: ChunkRun) -> bool:
    """Whether another process does with a chunk just what this one would."""
    return (
        chunk.source.is_all_data
        and chunk.target.is_all_data
        and is_data_only(chunk.transform.stage)
        and all(cls.__module__.startswith(_OWN_PACKAGE) for cls in CLASS_BY_EXTENSION.values())
    )
