"""The flow that closes the gaps of removed samples."""

from prefect import flow, get_run_logger

from prefect_pipestream.flows.dataset import Dataset, absolute, block_of
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact
from prefect_pipestream.reporting.artifacts import publish_compaction
from prefect_pipestream.underfolder import compact
from prefect_pipestream.work.streams import run_key_in_force


@flow(name="compact-dataset")
def compact_dataset(dataset: Dataset, run_key: str | None = None, durable: bool = False) -> str:
    """Closes the gaps that removed samples left: the others move to lower indices, in their order.

    Args:
        dataset: The dataset to compact, or where it is. Nobody else is to write it meanwhile.
        run_key: Empty for a new run; or the key of one that was interrupted, to go on with it.
        durable: Make sure that each commit survives a loss of power; it takes longer.

    Returns:
        The key of the run: undo it to have the old indices back.

    Raises:
        DatasetError: If another run is being written, or an item is a link to another sample's.
        ConflictError: If other writers got in the way again and again.
    """
    log = get_run_logger()
    folder = absolute(block_of(dataset).folder)
    key = run_key or run_key_in_force()
    facts = provenance_fact(code_in_force(None, [folder]))
    report = compact(folder, key, durable=durable, facts=facts)
    log.info(
        "Run %s: %d samples moved, of %d; there is no gap any more.",
        report.run_key,
        report.moved,
        report.samples,
    )
    publish_compaction(report, folder, log)
    return report.run_key
