"""Worker processes that go through a sequence for its owner.

The owner sends each worker short runs of indices over a pipe of its own, and gets back samples
or failures. The sequence travels pickled (with `cloudpickle`, so that lambdas do, too): each
worker has a copy without the owner's locks and open files. Workers are forked, so that they
share the settings of the item classes, and scripts need no `if __name__ == "__main__"`.
"""

import gc
import math
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle  # type: ignore[import-untyped] # it ships no types

from prefect_pipestream.errors import SampleError, WorkerDiedError
from prefect_pipestream.sequences.sample import Sample

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

Result = tuple[int, Sample | None]

_LONGEST_RUN = 16
_RUNS_PER_WORKER = 8
_GRACE_S = 5.0
_PARENT_CHECK_S = 2.0


def note_sample(error: BaseException, idx: int) -> None:
    """Adds to an exception which sample it is about."""
    error.add_note(f"This was sample {idx}.")


class _Failure(NamedTuple):
    """What a worker tells of an exception; the exception itself if it can be pickled."""

    idx: int | None
    error: bytes | None
    summary: str
    trace: str

    def to_exception(self) -> BaseException:
        error = None
        if self.error is not None:
            with suppress(Exception):  # its class may not be importable, or its __init__ odd
                error = pickle.loads(self.error)
        if not isinstance(error, BaseException):
            error = SampleError(self.summary)
        if self.idx is not None:
            note_sample(error, self.idx)
        error.add_note("It happened in a worker process:\n" + self.trace.rstrip())
        return error


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

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.runs: deque[range] = deque()  # sent, and not all of it back

    def send(self, run: range) -> None:
        self.runs.append(run)
        with suppress(BrokenPipeError):  # it died: its pipe's end says so to `receive`
            self.pipe.send(run)

    def receive(self) -> Any:
        """Returns the next message.

        Raises:
            WorkerDiedError: If there will be none.
        """
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def _death(self) -> WorkerDiedError:
        self.process.join(_GRACE_S)
        code = self.process.exitcode or 0
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        doing = ""
        if self.runs:
            doing = f" while at samples {self.runs[0].start} to {self.runs[0].stop - 1}"
        return WorkerDiedError(
            f"worker process {self.process.pid} {how}{doing}. If the machine ran out of memory, "
            "use fewer workers. What was committed before is whole: run again for the rest."
        )


class Workers:
    """The worker processes of one run, as a context: none of them is left after it.

    Leaving it without an exception waits for what the workers have collected to be written.

    Raises:
        Exception: What that raised in a worker.
        WorkerDiedError: If a worker was killed.
    """

    def __init__(self, sequence: "SamplesSequence", count: int, with_samples: bool) -> None:
        self._with_samples = with_samples
        self._workers: list[_Worker] = []
        payload = cloudpickle.dumps(sequence)
        try:
            for _ in range(count):
                self._start(payload)
        except BaseException:
            self._stop()
            raise

    def _start(self, payload: bytes) -> None:
        context = get_context("fork")
        mine, theirs = context.Pipe()
        owners = [*(worker.pipe for worker in self._workers), mine]
        process = context.Process(
            target=_work,
            args=(theirs, owners, payload, self._with_samples, os.getpid()),
            daemon=True,
        )
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, mine))

    def __enter__(self) -> "Workers":
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
                        worker.send(runs.popleft())

        hand_out()
        while out:
            busy = {worker.pipe: worker for worker in self._workers if worker.runs}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index] # wait returns what it is given
                message = worker.receive()
                if isinstance(message, _Failure):
                    raise message.to_exception()
                run = worker.runs.popleft()
                out.remove(run.start)
                hand_out()
                for idx, sample in zip(run, message, strict=True):
                    yield idx, None if sample is None else pickle.loads(sample)

    def _finish(self) -> None:
        for worker in self._workers:
            with suppress(BrokenPipeError):  # it died: `receive` says so
                worker.pipe.send(None)
        for worker in self._workers:
            message = worker.receive()
            while isinstance(message, list):  # results that nobody asked for
                message = worker.receive()
            if isinstance(message, _Failure):
                raise message.to_exception()

    def _stop(self) -> None:
        """Ends the workers; those in the middle of a sample get some seconds."""
        for worker in self._workers:
            with suppress(OSError):  # it has ended
                worker.pipe.send(None)
            worker.pipe.close()
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.kill()  # commits are atomic: no sample is left half written
            worker.process.join()
            worker.process.close()


# -- the worker's side -----------------------------------------------------------------------


def _work(
    pipe: Connection, owners: list[Connection], payload: bytes, with_samples: bool, owner: int
) -> None:
    """Works off runs of indices until the pipe is closed or says None."""
    # What was forked along is the owner's to finalize, and only the owner keeps pipes open.
    gc.freeze()
    for other in owners:
        other.close()
    # Ctrl-C reaches the whole group: the owner hears it too, and closes the pipes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    at: list[int] = []
    try:
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the owner is gone
            _work_off(pipe, pickle.loads(payload), with_samples, owner, at)
            pipe.send(None)
    except SystemExit as leaving:
        # At once: exit handlers that were forked along could change the code.
        os._exit(leaving.code if isinstance(leaving.code, int) else 1)
    except Exception as error:  # noqa: BLE001 # the owner raises it
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(_failure(error, at[0] if at else None))


def _work_off(
    pipe: Connection, sequence: "SamplesSequence", with_samples: bool, owner: int, at: list[int]
) -> None:
    with ExitStack() as batches:
        sequence = sequence.in_batches(batches)
        while True:
            while not pipe.poll(_PARENT_CHECK_S):
                # Workers of other runs may hold this pipe's other end open, too.
                if os.getppid() != owner:
                    raise EOFError
            run = pipe.recv()
            if run is None:
                return
            done: list[bytes | None] = []
            for idx in run:
                at[:] = [idx]
                sample = sequence.get_sample(idx)
                done.append(_pickled(sample) if with_samples else None)
            at.clear()
            pipe.send(done)


def _pickled(sample: Sample) -> bytes:
    try:
        return pickle.dumps(sample, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        # Several times slower, but takes values whose class is defined in a function.
        return bytes(cloudpickle.dumps(sample))


def _failure(error: Exception, idx: int | None) -> _Failure:
    summary = f"{'' if idx is None else f'sample {idx}: '}{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    try:
        pickled = cloudpickle.dumps(error.with_traceback(None))
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001 # an exception may hold what cannot be pickled
        pickled = None
    return _Failure(idx, pickled, summary, trace)
