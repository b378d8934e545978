"""Going through a sequence with the same choices again and again."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.running import SampleFn, results, run
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence

InitFn = Callable[..., Any] | tuple[Callable[..., Any], Sequence[Any]] | None
"""What each worker calls before its first sample; with its arguments, if it has some."""


class ReturnType(Enum):
    """What a grabber gives of each sample."""

    NO_RETURN = 1
    SAMPLE = 2
    SAMPLE_AND_INDEX = 3


class Grabber(BaseModel):
    """How a sequence is gone through; see `SamplesSequence.run`."""

    num_workers: int = Field(0, description="Processes; 0: this one, negative: one a core.")
    prefetch: int = Field(2, gt=0, description="Samples that each worker prepares ahead.")
    keep_order: bool = Field(False, description="Whether workers' samples come in order.")
    allow_nested_mp: bool = Field(
        False, description="Has no effect: workers may always have workers of their own."
    )

    def __call__(
        self,
        sequence: SamplesSequence,
        return_type: ReturnType = ReturnType.SAMPLE,
        size: int | None = None,
        *,
        worker_init_fn: InitFn = None,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Returns a context whose value yields samples; on leaving it, workers end.

            with Grabber(num_workers=4)(sequence) as samples:
                for sample in samples: ...

        Args:
            sequence: The samples.
            return_type: Whether to yield (index, sample); without workers, a sample is yielded
                where nothing is asked for, too.
            size: How many samples to take, from the first on; None: all.
            worker_init_fn: What each worker calls before its first sample.
        """
        return self._grabbed(_prepared(sequence, size, worker_init_fn), return_type)

    @contextmanager
    def _grabbed(
        self, sequence: SamplesSequence, return_type: ReturnType
    ) -> Generator[Iterator[Any], None, None]:
        with_samples = return_type is not ReturnType.NO_RETURN
        how = (self.num_workers, self.prefetch, self.keep_order, with_samples)
        with results(sequence, *how) as found:
            if return_type is ReturnType.SAMPLE_AND_INDEX:
                yield iter(found)
            else:
                yield (sample for _, sample in found)


def grab_all(
    grabber: Grabber,
    sequence: SamplesSequence,
    *,
    track_fn: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    sample_fn: SampleFn | None = None,
    size: int | None = None,
    grab_context_manager: AbstractContextManager[Any] | None = None,
    worker_init_fn: InitFn = None,
) -> None:
    """Goes through a sequence once; see `SamplesSequence.run`.

    Args:
        grabber: How.
        sequence: The samples.
        track_fn: Gets an iterable and returns one, as `tqdm` does.
        sample_fn: Called in this process with each sample, or with each sample and its index if
            it takes two arguments.
        size: How many samples to take, from the first on; None: all.
        grab_context_manager: A context to go through the sequence in.
        worker_init_fn: What each worker calls before its first sample.
    """
    chosen = _prepared(sequence, size, worker_init_fn)
    how = (grabber.num_workers, grabber.prefetch, grabber.keep_order)
    with grab_context_manager or nullcontext():
        run(chosen, *how, sample_fn, track_fn)


def _prepared(sequence: SamplesSequence, size: int | None, init: InitFn) -> SamplesSequence:
    chosen = sequence if size is None else sequence[:size]
    if init is None:
        return chosen
    function, arguments = init if isinstance(init, tuple) else (init, ())
    return _Initialised(source=chosen, function=function, arguments=tuple(arguments))


class _Initialised(PipedSequence):
    """Calls a function before the first sample, in each process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    _is_done: bool = PrivateAttr(default=False)

    def get_sample(self, idx: int) -> Sample:
        if not self._is_done:
            self._is_done = True
            self.function(*self.arguments)
        return self.source.get_sample(idx)
