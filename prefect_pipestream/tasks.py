"""The three steps of a sample as Prefect tasks, and `process_chunk`, which fuses them.

They are ordinary tasks: `with_options`, retries, timeouts, caching, tags, `submit` and `map`
work on them as on your own. The bodies are thin on purpose: Prefect sends a task's function to
another process by value, with all that it refers to.
"""

from collections.abc import Sequence
from threading import Event
from typing import Any, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled
from prefect.transactions import Transaction

from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.stage import StageResult
from prefect_pipestream.work import chunk, chunk_task, rollback, streams
from prefect_pipestream.work.chunk import Indices
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.streams import StreamLike

__all__ = [
    "ChunkReport",
    "Limits",
    "process_chunk",
    "read_sample",
    "set_output",
    "transform_sample",
]


# Streams are not to be hashed, and samples not to be kept: caching is for `with_options` to ask.
@task(task_run_name="read_sample {idx}", cache_policy=NO_CACHE)
def read_sample(stream: StreamLike, idx: int) -> Sample:
    """Reads one sample. Its items are decoded when they are called.

    Args:
        stream: A stream, or the block of one. A block is opened once in each process and run.
        idx: The index of the sample.

    Returns:
        The sample.

    Raises:
        IndexError: If the stream has no sample of this index.

    Example:
        ```python
        from prefect import flow
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.tasks import read_sample

        @flow
        def mean_of_first(folder: str) -> float:
            dataset = ReadWriteUnderfolder(folder=folder)
            sample = read_sample(dataset, 0)
            return float(sample["image"]().mean())
        ```
    """
    return streams.opened(stream).get_input(idx)


@task(task_run_name="transform_sample {idx}", cache_policy=NO_CACHE)
def transform_sample(sample: Sample, transform: Any, idx: int) -> StageResult:
    """Applies a transform to one sample.

    Args:
        sample: The sample.
        transform: A stage, a list of operations such as `["invert", {"resize-images": {…}}]`,
            or a callable from a sample to a sample.
        idx: The index of the sample; it names the task run.

    Returns:
        What the transform returned: the sample to write, None if it is not to be written, a pair
        of the sample and the index under which it is written, or `REMOVE`.

    Raises:
        PipeBuildingError: If the transform's name or an argument is wrong.

    Example:
        ```python
        from prefect import flow, unmapped
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.tasks import read_sample, set_output, transform_sample

        @flow
        def invert(folder: str, indices: list[int]) -> None:
            dataset = unmapped(ReadWriteUnderfolder(folder=folder))
            samples = read_sample.map(dataset, indices)
            inverted = transform_sample.map(samples, unmapped(["invert"]), indices)
            set_output.map(dataset, indices, inverted).wait()
        ```
    """
    return chunk.as_transform(transform)(sample)


@task(task_run_name="set_output {idx}", cache_policy=NO_CACHE)
def set_output(
    stream: StreamLike,
    idx: int,
    sample: StageResult,
    keys: Sequence[str] | None = None,
    read: Sample | None = None,
) -> int | None:
    """Writes one sample, entirely or not at all; or removes it, if that is the result.

    Inside `with transaction():` a failure of what follows takes the write back. (Prefect tells
    threads of a transaction, not worker processes: what those wrote `undo_run` takes back.)

    Args:
        stream: A stream, or the block of one. A block is opened once in each process and run.
        idx: The index under which the sample is written.
        sample: The sample, or what `transform_sample` returned.
        keys: The items to write; None is all.
        read: The sample as `read_sample` gave it: where it is to be removed, and another writer
            changed it since, that is a conflict. None removes what is there.

    Returns:
        The index under which it was written; None if there was nothing to write.

    Raises:
        ConflictError: If another writer changed the sample since it was read.
        DatasetExistsError: If the stream is to create a dataset that exists.
        DatasetWriteError: If the disk cannot take it; the dataset is as it was.

    Example:
        ```python
        from prefect import flow
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.tasks import read_sample, set_output

        @flow
        def relabel(folder: str, idx: int, label: str) -> None:
            dataset = ReadWriteUnderfolder(folder=folder)
            sample = read_sample(dataset, idx)
            set_output(dataset, idx, sample.deep_set("metadata.label", label), ["metadata"])
        ```
    """
    return streams.write_one(streams.opened(stream), idx, sample, keys, read)


@set_output.on_rollback
def _take_back_sample(transaction: Transaction) -> None:
    rollback.take_back(transaction)


@task(
    # Prefect's type for such a function has a method more than a function has.
    task_run_name=chunk_task.name_of_run,  # type: ignore[arg-type]
    cache_policy=NO_CACHE,
)
def process_chunk(
    stream: StreamLike,
    transform: Any,
    indices: Indices,
    target: StreamLike | None = None,
    keys: Sequence[str] | None = None,
    sample_retries: int = 2,
    stop: Event | None = None,
    limits: Limits | None = None,
) -> ChunkReport:
    """Reads, transforms and writes many samples in one task run.

    A sample that fails is tried again after the others, then noted in the dataset's ledger as
    failed. Samples are committed in batches. A retry of the task run skips what is done. A
    transaction around it takes back what it wrote, as with `set_output`.

    Args:
        stream: Where samples are read: a stream, or the block of one.
        transform: A stage, a list of operations, or a callable from a sample to a sample.
        indices: The samples, ascending. A range or an int64 array costs less to pass than
            a list.
        target: Where samples are written; None is in place.
        keys: The items to write; None is all.
        sample_retries: How often a sample that fails is tried again, each time after a pause
            twice as long as the last.
        stop: Once it is set, the chunk ends with what it has done, as cancelled. Only a task
            runner that works on threads can tell a chunk of it.
        limits: What one sample may take. With it, also an empty one, a process of its own works
            on the chunk, which may end: the sample that it was at fails, and the others go on.

    Returns:
        How many samples had each outcome, which ones failed and why, and the time it took.

    Raises:
        PipeBuildingError: If the transform's name or an argument is wrong.
        DatasetError: If the dataset cannot be read or written at all.

    Example:
        ```python
        from prefect import flow
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.tasks import process_chunk

        @flow
        def invert(folder: str) -> None:
            dataset = ReadWriteUnderfolder(folder=folder)
            report = process_chunk(dataset, ["invert"], range(100))
            print(report.summary())
        ```
    """
    try:
        return chunk_task.process(
            stream, transform, indices, target, keys, sample_retries, stop, limits
        )
    except chunk.ChunkStopped as stopped:
        # Prefect takes a state in place of a result, and puts the task run into it.
        return cast(ChunkReport, Cancelled(message=str(stopped)))


@process_chunk.on_rollback
def _take_back_chunk(transaction: Transaction) -> None:
    rollback.take_back(transaction)
