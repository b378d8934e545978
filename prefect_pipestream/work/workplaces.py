"""Where the chunks of a run are worked on: by threads of this process, or also by others.

Where codecs do the work, which let go of Python's lock, a thread a core is best. Where Python does
it (thumbnails, metadata), threads take turns at the lock and together use about one core; other
processes do better, each of which costs a third of a second of a core to start. Which of both it
is shows in how much of the time of the first chunks a processor worked for them.

Only chunks that are all data go to other processes (see `is_all_data`): a function of the user's
own may hold or count something in this one, and stays where it is.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect_pipestream.errors import DatasetError, PipestreamError, WorkerDiedError
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.stages.noted import is_data_only, is_own
from prefect_pipestream.work.chunk import ChunkRun, ChunkStopped, Indices
from prefect_pipestream.work.guard import run_guarded
from prefect_pipestream.work.limits import Limits

if TYPE_CHECKING:  # it would import Prefect
    from prefect_pipestream.reporting.progress import Log

MOST_PROCESSES = 16
"""The most processes that are started: each has some 60 MB."""
BRIEF_S = 0.15
"""The work of a chunk in seconds, as long as it is not known where it is worked on best."""

_MEASURED_S = 0.1
_WORTH_S = 0.8
_BUSY = 0.75  # of the time of all threads
_WAITING = 0.6  # of the time of one core


class Workplaces:
    """The places of one run, each of which has one chunk at a time.

    At first all of them are threads. If it is seen that these hold each other up, all but one give
    their places to processes, which take them as soon as they are there.

    Args:
        number: How many there are.
        samples: How many samples the run is about.
        log: Where it is told that there are processes.

    Attributes:
        are_settled: Whether it is known what they are to be.
    """

    def __init__(self, number: int, samples: int, log: "Log") -> None:
        self.are_settled = number == 1
        self._number = number
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
                return self._run_apart(chunk, indices)
            began, worked = time.perf_counter(), time.thread_time()
            report = chunk.run(indices)
            seconds, processor_s = time.perf_counter() - began, time.thread_time() - worked
        if self._is_time(report.total, seconds, processor_s):
            share = self._processor_s / self._seconds
            if hold_each_other_up(share, self._number) and is_all_data(chunk):
                self.become_processes(chunk)
        return report

    def _run_apart(self, chunk: ChunkRun, indices: Indices) -> ChunkReport:
        """Lets a process work; where there can be none any more, this thread does the rest."""
        try:
            return run_guarded(chunk, indices, Limits())
        except DatasetError:
            raise
        except (WorkerDiedError, OSError) as error:
            self._log.warning("A thread works on in place of a process: %s", error)
            return chunk.run(indices)

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
            self._add(*((0, 1) if is_apart else (1, 0)))

    def _add(self, threads: int, processes: int) -> None:
        with self._changed:
            self._threads += threads
            self._processes += processes
            self._changed.notify_all()

    def _is_time(self, samples: int, seconds: float, processor_s: float) -> bool:
        """Says once, when enough was seen, whether there is enough left for processes to pay."""
        with self._changed:
            self._left -= samples
            self._seconds += seconds
            self._processor_s += processor_s
            if self.are_settled or self._seconds < _MEASURED_S:
                return False
            self.are_settled = True
        return self._left * seconds / max(1, samples) / self._number > _WORTH_S

    def become_processes(self, chunk: ChunkRun) -> None:
        """Lets one thread work on chunks from here on, and processes in place of the others.

        Args:
            chunk: A chunk like those that are to come.
        """
        number = min(self._number - 1, MOST_PROCESSES)
        self._log.info(
            "Threads hold each other up, at Python's lock: from here on a thread and %d other "
            "process%s work on the chunks.",
            number,
            "es" if number > 1 else "",
        )
        self._add(1 - self._number, 0)
        for _ in range(number):
            threading.Thread(target=self._add_process, args=(chunk,), daemon=True).start()

    def _add_process(self, chunk: ChunkRun) -> None:
        """Has a process made ready, by a chunk of no samples; where there can be none, a thread."""
        is_there = False
        try:
            run_guarded(chunk, range(0), Limits())
            is_there = True
        except ChunkStopped:
            pass  # the run is over
        except (PipestreamError, OSError) as error:
            self._log.warning("A thread works on in place of a process: %s", error)
        finally:
            self._add(*((0, 1) if is_there else (1, 0)))


def hold_each_other_up(share: float, threads: int) -> bool:
    """Whether threads wait for each other, and not for the disk or the network.

    Args:
        share: For how much of their time a processor worked for them, from 0 to 1.
        threads: How many they are.
    """
    return share < _BUSY and share * threads > _WAITING


def is_all_data(chunk: ChunkRun) -> bool:
    """Whether another process does with a chunk just what this one would."""
    return (
        chunk.source.is_all_data
        and chunk.target.is_all_data
        and is_data_only(chunk.transform.stage)
        and all(map(is_own, CLASS_BY_EXTENSION.values()))
    )
