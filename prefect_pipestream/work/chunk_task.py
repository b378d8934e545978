"""The work of one task run: a chunk of samples, here or in a process of its own."""

from collections.abc import Collection
from threading import Event
from typing import Any

from prefect import get_run_logger

from prefect_pipestream.reporting.reports import ChunkReport, describe_indices
from prefect_pipestream.work.chunk import ChunkRun, Indices, as_transform
from prefect_pipestream.work.guard import run_guarded
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.rollback import tag_of_writes, taken_back_on_error
from prefect_pipestream.work.streams import StreamLike, opened
from prefect_pipestream.work.workplaces import Workplaces


class Stop(Event):
    """An event that lets chunks end early. It works within one process only.

    Args:
        places: Where the chunks are worked on; None: each where its task run is.
    """

    def __init__(self, places: Workplaces | None = None) -> None:
        super().__init__()
        self.places = places

    def __reduce__(self) -> tuple[type["Stop"], tuple[()]]:
        return Stop, ()


def process(
    source: StreamLike,
    transform: Any,
    indices: Indices,
    target: StreamLike | None,
    keys: Collection[str] | None,
    retries: int,
    stop: Event | None,
    limits: Limits | None,
) -> ChunkReport:
    """Processes a chunk inside of a task run; see `tasks.process_chunk`."""
    log = get_run_logger()
    if not len(indices):
        return ChunkReport()
    reader = opened(source)
    writer = reader if target is None else opened(target)
    name = describe_indices(indices)
    tag = tag_of_writes(writer, name)
    chunk = ChunkRun(reader, writer, as_transform(transform), keys, retries, tag, log, stop)
    with taken_back_on_error():
        report = _worked_on(chunk, indices, limits)
    log.info("Samples %s: %s", name, report.summary())
    return report


def _worked_on(chunk: ChunkRun, indices: Indices, limits: Limits | None) -> ChunkReport:
    if limits is not None:
        return run_guarded(chunk, indices, limits)
    if isinstance(chunk.stop, Stop) and chunk.stop.places is not None:
        return chunk.stop.places.work_on(chunk, indices)
    return chunk.run(indices)


def name_of_run(parameters: dict[str, Any]) -> str:
    """The name of a chunk's task run: the samples that it is about."""
    indices = parameters["indices"]
    return f"samples {describe_indices(indices)}" if len(indices) else "no samples"
