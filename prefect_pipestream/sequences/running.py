"""Going through a sequence: in this process, or in workers, with a progress bar."""

import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.worker import noted_sample
from prefect_pipestream.sequences.workers import Result, WorkerProcesses
from prefect_pipestream.storage.cores import usable_cores

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

SampleFn = Callable[[Sample], object] | Callable[[Sample, int], object]
TrackFn = bool | str | Callable[[Iterable[Any]], Iterable[Any]] | None


def run(
    sequence: "SamplesSequence",
    num_workers: int,
    prefetch: int,
    keep_order: bool,
    sample_fn: SampleFn | None,
    track_fn: TrackFn,
) -> None:
    """See `SamplesSequence.run`."""
    give = _giver(sample_fn)
    with results(sequence, num_workers, prefetch, keep_order, give is not None) as found:
        for idx, sample in _tracked(found, track_fn):
            if give is not None and sample is not None:
                give(sample, idx)


@contextmanager
def results(
    sequence: "SamplesSequence",
    num_workers: int,
    prefetch: int,
    keep_order: bool,
    with_samples: bool,
) -> Generator["_Sized", None, None]:
    """Gives the index of each sample, and the sample: without workers always, else if asked for."""
    if prefetch < 1:
        raise ValueError(f"prefetch is {prefetch}, expected at least 1.")
    workers = usable_cores() if num_workers < 0 else num_workers
    size = sequence.size()
    for writer in sequence.writers():
        # Once, here: afterwards each worker may write into the folder as part of this run.
        writer.claim()
    with ExitStack() as stack:
        found: Iterator[Result]
        if workers == 0 or size == 0:
            found = stack.enter_context(closing(_results_here(sequence, size)))
        else:
            processes = WorkerProcesses(sequence, min(workers, size), with_samples=with_samples)
            found = stack.enter_context(processes).results(size, prefetch, keep_order)
        yield _Sized(found, size)


def _results_here(sequence: "SamplesSequence", size: int) -> Generator[Result, None, None]:
    with ExitStack() as batches:
        sequence = sequence.in_batches(batches)
        for idx in range(size):
            yield idx, noted_sample(sequence, idx)


def _giver(sample_fn: SampleFn | None) -> Callable[[Sample, int], object] | None:
    """Calls `sample_fn` with the sample, or with sample and index if it takes both."""
    if sample_fn is None:
        return None
    try:
        inspect.signature(sample_fn).bind(None, None)
    except (TypeError, ValueError):  # ValueError: some built-in functions have no signature
        return lambda sample, _: sample_fn(sample)  # type: ignore[call-arg]
    return sample_fn  # type: ignore[return-value]


class _Sized(Iterable[Result], Sized):
    """An iterator whose length is known, as progress bars want it."""

    def __init__(self, found: Iterator[Result], size: int) -> None:
        self._results = found
        self._size = size

    def __iter__(self) -> Iterator[Result]:
        return self._results

    def __len__(self) -> int:
        return self._size


def _tracked(found: _Sized, track_fn: TrackFn) -> Iterable[Result]:
    if track_fn is None or track_fn is False:
        return found
    if callable(track_fn):
        return track_fn(found)
    return _with_bar(found, "Samples" if track_fn is True else track_fn)


def _with_bar(found: _Sized, text: str) -> Iterator[Result]:
    """Yields the results and shows how many of them there were, on a terminal's stderr."""
    if not sys.stderr.isatty():
        yield from found
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(found, total=len(found), description=text)
