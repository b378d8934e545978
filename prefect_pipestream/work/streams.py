"""From the blocks and streams that tasks are given to open streams, and one sample's write."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run, task_run

from prefect_pipestream.blocks import DataStreamBlock
from prefect_pipestream.errors import ConflictError
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.stage import Removal, StageResult
from prefect_pipestream.work.rollback import tag_of_writes

StreamLike = DataStreamBlock | DataStream

_MOST_OPEN = 32


def run_key_in_force() -> str | None:
    """The key of the run that Prefect is executing: the flow run's id, which its retries keep.

    A flow that another flow calls is a new flow run each time that one is retried. Its key is
    made of the calling flow's and of Prefect's name for the call, which stay.

    Returns:
        The key; outside of a flow the task run's id, which a retry keeps too; outside of
        Prefect None.
    """
    return _key_of(flow_run.id) if flow_run.id else task_run.id or None


@lru_cache(maxsize=256)
def _key_of(flow_run_id: str) -> str:
    parent = _parent_task_run_of(flow_run_id)
    if parent is None:
        return flow_run_id
    with get_client(sync_client=True) as client:
        call = client.read_task_run(parent)
    if call.flow_run_id is None:  # a task run outside of any flow called it
        return flow_run_id
    return f"{_key_of(str(call.flow_run_id))}.{call.task_key}.{call.dynamic_key}"


def _parent_task_run_of(flow_run_id: str) -> UUID | None:
    """The task run by which a flow run stands in the flow run that called it."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run and str(context.flow_run.id) == flow_run_id:
        return context.flow_run.parent_task_run_id
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id)).parent_task_run_id


def opened(stream: StreamLike, run_key: str | None = None) -> DataStream:
    """Opens a block; an open stream is given back.

    A block is opened once in each process and run, so that tasks mapped over a dataset do not
    scan it again and again, and write a dataset that one of them created.

    Args:
        stream: The stream or the block.
        run_key: The run that its writes belong to; by default the one that Prefect executes.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(stream, DataStream):
        return stream if run_key is None else stream.with_run(run_key)
    _refuse_no_block(stream)
    return _open(_BlockInRun(stream, run_key_in_force() if run_key is None else run_key))


def opened_to_plan(stream: StreamLike, run_key: str) -> DataStream:
    """Opens a block for a run that is planned only; an open stream is given back.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(stream, DataStream):
        return stream.with_run(run_key)
    _refuse_no_block(stream)
    return stream.open_to_plan(run_key)


def _refuse_no_block(stream: object) -> None:
    if not isinstance(stream, DataStreamBlock):
        raise TypeError(
            f"{stream!r:.200} is no stream: expected a DataStream or a block of one, such as "
            "ReadWriteUnderfolder(folder=…)."
        )


@dataclass(frozen=True, eq=False)
class _BlockInRun:
    """A block and a run, as a key: blocks are equal if their fields are."""

    block: DataStreamBlock
    run_key: str | None

    def __hash__(self) -> int:
        return hash((type(self.block), self.block.model_dump_json(), self.run_key))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _BlockInRun)
            and self.run_key == other.run_key
            and type(self.block) is type(other.block)
            and dict(self.block) == dict(other.block)  # a dump does not show secrets
        )


@lru_cache(maxsize=_MOST_OPEN)
def _open(wanted: _BlockInRun) -> DataStream:
    return wanted.block.open(wanted.run_key)


def write_one(
    stream: DataStream,
    idx: int,
    result: StageResult,
    keys: Sequence[str] | None,
    read: Sample | None = None,
) -> int | None:
    """Writes what a transform returned, as a commit of its own.

    Args:
        stream: Where it is written.
        idx: The index of the sample.
        result: What the transform returned.
        keys: The items to write; None is all.
        read: The sample as it was read, for the conflict check where it is to be removed.

    Returns:
        The index under which it was written; None if nothing was to be written.

    Raises:
        ConflictError: If another writer changed the sample since it was read.
    """
    own = f"task-{task_run.id}" if task_run.id else "main"
    tag = tag_of_writes(stream, own)
    if result is None:
        with stream.commit_group(tag=tag, signed=True) as batch:
            batch.record(idx, "skipped")
        return None
    target: int | None = None
    try:
        with stream.commit_group(tag=tag, signed=True) as batch:
            if isinstance(result, Removal):
                batch.remove(idx, origin=None if read is None else read.origin)
            else:
                sample, target = result if isinstance(result, tuple) else (result, idx)
                batch.set_output(idx, sample, keys, target=target)
    except ConflictError:
        # An attempt at this same task run whose worker was thought dead may have done it.
        if tag == "main" or idx not in stream.run.done_indices(tag):
            raise
    return target
