"""Worker processes that go through a sequence for its owner.

The owner sends each worker short runs of indices over a pipe of its own, and gets back samples
or a failure. A worker is a new Python, not a fork, which would have the locks of the owner's
threads without the threads. What it needs travels pickled with `cloudpickle`, which takes lambdas
and what a script defines, too: scripts need no `if __name__ == "__main__"`.
"""

import math
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped] # it ships no types

from prefect_pipestream.errors import WorkerDiedError
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.items.settings import Settings
from prefect_pipestream.sequences.child_process import ChildProcess, how_it_ended
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.worker import Failure, Job

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

Result = tuple[int, Sample | None]

_LONGEST_RUN = 16
_RUNS_PER_WORKER = 8
_GRACE_S = 5.0


class WorkerProcesses:
    """The worker processes of one run, as a context: none of them is left after it.

    Leaving it without an exception waits for what the workers have collected to be written.

    Args:
        sequence: What they go through.
        count: How many there are.
        with_samples: Whether they hand over the samples.

    Raises:
        Exception: What that raised in a worker.
        WorkerDiedError: If a worker was killed.
    """

    def __init__(self, sequence: "SamplesSequence", count: int, with_samples: bool) -> None:
        self._with_samples = with_samples
        self._workers: list[_Worker] = []
        try:
            for _ in range(count):
                self._workers.append(_Worker())
            job = Job(dict(CLASS_BY_EXTENSION), Settings.now(), sequence, with_samples)
            payload = cloudpickle.dumps(job)
            for worker in self._workers:
                worker.tell(payload)
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> "WorkerProcesses":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._stop()

    def results(self, size: int, prefetch: int, keep_order: bool) -> Iterator[Result]:
        """Lets the workers go through all samples.

        Yields:
            Index and sample (None unless `with_samples`), in order or as they come.

        Raises:
            Exception: What a sample raised in a worker, with a note of its index.
            WorkerDiedError: If a worker was killed.
        """
        count = len(self._workers)
        # One sample at a time where they are handed over: prefetch counts samples then.
        longest = 1 if self._with_samples else _LONGEST_RUN
        length = max(1, min(longest, math.ceil(size / (count * _RUNS_PER_WORKER))))
        runs = deque(range(at, min(at + length, size)) for at in range(0, size, length))
        if keep_order:
            return _in_order(self._results(runs, prefetch, window=count * prefetch * length))
        return self._results(runs, prefetch, window=size)

    def _results(self, runs: deque[range], prefetch: int, window: int) -> Iterator[Result]:
        """Hands out the runs and yields what comes back.

        Args:
            runs: The runs of indices.
            prefetch: How many runs each worker has at a time.
            window: How far the indices handed out may be ahead of the lowest that is not back.
        """
        out: set[int] = set()  # where the runs begin that are handed out

        def hand_out() -> None:
            for _ in range(prefetch):
                for worker in self._workers:
                    is_free = len(worker.runs) < prefetch
                    if runs and is_free and (not out or runs[0].start < min(out) + window):
                        out.add(runs[0].start)
                        worker.hand(runs.popleft())

        hand_out()
        while out:
            busy = {worker.pipe: worker for worker in self._workers if worker.runs}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index] # wait returns what it is given
                samples = worker.receive()
                run = worker.runs.popleft()
                out.remove(run.start)
                hand_out()
                for idx, sample in zip(run, samples, strict=True):
                    yield idx, None if sample is None else pickle.loads(sample)

    def _finish(self) -> None:
        for worker in self._workers:
            worker.tell(None)
        for worker in self._workers:
            while worker.receive() is not None:  # results that nobody asked for
                pass

    def _stop(self) -> None:
        """Ends the workers; those in the middle of a sample get some seconds."""
        for worker in self._workers:
            worker.pipe.close()
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))


def _in_order(results: Iterator[Result]) -> Iterator[Result]:
    early: dict[int, Result] = {}
    due = 0
    for result in results:
        early[result[0]] = result
        while due in early:
            yield early.pop(due)
            due += 1


class _Worker:
    """The owner's side of one worker process."""

    def __init__(self) -> None:
        self._child = ChildProcess("prefect_pipestream.sequences.worker")
        self.pipe = self._child.pipe
        self.runs: deque[range] = deque()  # handed to it, and not back

    def tell(self, message: Any) -> None:
        with suppress(ConnectionError):  # it died: its pipe's end says so to `receive`
            self.pipe.send(message)

    def hand(self, run: range) -> None:
        self.runs.append(run)
        self.tell(run)

    def receive(self) -> Any:
        """Returns the samples of a run, or None once what was collected is written.

        Raises:
            Exception: What the worker failed with.
            WorkerDiedError: If it died.
        """
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._death() from None
        if isinstance(message, Failure):
            raise message.to_exception()
        return message

    def _death(self) -> WorkerDiedError:
        code = self.end(_GRACE_S)
        doing = cause = ""
        if self.runs:
            doing = f" while at samples {self.runs[0].start} to {self.runs[0].stop - 1}"
        if code == -signal.SIGKILL:
            cause = " If the machine ran out of memory, use fewer workers."
        return WorkerDiedError(
            f"worker process {self._child.pid} {how_it_ended(code)}{doing}.{cause} What was "
            "committed before is whole. In place, do not simply run again: samples written already "
            "would be changed twice. Use `process_samples` with a run key."
        )

    def end(self, seconds: float) -> int:
        """Waits for its end, at most so long, and returns its exit code."""
        return self._child.end(seconds)
