"""What a worker process does: it goes through runs of indices for its owner (see `workers`)."""

import os
import pickle
import traceback
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle  # type: ignore[import-untyped] # it ships no types

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.items.settings import Settings
from prefect_pipestream.sequences.sample import Sample

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

_OWNER_CHECK_S = 2.0


class Job(NamedTuple):
    """What a worker is told first."""

    classes: dict[str, type[Item[Any]]]
    settings: Settings
    sequence: "SamplesSequence"
    with_samples: bool


class Failure(NamedTuple):
    """An exception of a worker, pickled, and its notes, which not all exceptions carry along."""

    error: bytes
    notes: list[str]

    def to_exception(self) -> BaseException:
        """Returns the exception with its notes."""
        error: BaseException = pickle.loads(self.error)
        error.__notes__ = self.notes
        return error


def noted_sample(sequence: "SamplesSequence", idx: int) -> Sample:
    """Returns a sample; an exception that it raises gets a note of its index."""
    try:
        return sequence.get_sample(idx)
    except Exception as error:
        error.add_note(f"This was sample {idx}.")
        raise


def work(pipe: Connection, owner: int) -> None:
    """Works off runs of indices until the pipe is closed or says None."""
    os.set_inheritable(pipe.fileno(), False)
    with suppress(ConnectionError):  # the owner is gone
        try:
            _work_off(pipe, owner)
            pipe.send(None)
        except Exception as error:  # noqa: BLE001 # the owner raises it
            pipe.send(pickled_failure(error))


def _work_off(pipe: Connection, owner: int) -> None:
    job: Job = pickle.loads(pipe.recv())
    CLASS_BY_EXTENSION.update(job.classes)
    job.settings.set()
    with ExitStack() as batches:
        sequence = job.sequence.in_batches(batches)
        while (run := _next_run(pipe, owner)) is not None:
            samples = (noted_sample(sequence, idx) for idx in run)
            pipe.send([_pickled(one) if job.with_samples else None for one in samples])


def _next_run(pipe: Connection, owner: int) -> range | None:
    while not pipe.poll(_OWNER_CHECK_S):
        # What others forked from the owner holds the pipe's other end open, too.
        if os.getppid() != owner:
            return None
    run: range | None = pipe.recv()
    return run


def _pickled(sample: Sample) -> bytes:
    try:
        return pickle.dumps(sample, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        # Several times slower, but takes values whose class is defined in a function.
        return bytes(cloudpickle.dumps(sample))


def pickled_failure(error: BaseException) -> Failure:
    """The exception, for the owner to raise."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    notes = [*getattr(error, "__notes__", ()), f"It happened in a worker process:\n{trace}"]
    try:
        pickled = cloudpickle.dumps(error.with_traceback(None))
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001 # an exception may hold what cannot be pickled
        pickled = pickle.dumps(SampleError(f"{type(error).__name__}: {error}"))
    return Failure(pickled, notes)
