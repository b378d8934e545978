"""`export-dataset`: a dataset goes out in another layout."""

import inspect
import os
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.exporting import ExportReport, export
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact, state_of_folder
from prefect_pipestream.flows.selection import chosen_indices
from prefect_pipestream.layouts import LayoutKind
from prefect_pipestream.reporting.artifacts import publish_export
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.storage.address import place_of
from prefect_pipestream.underfolder import Provenance
from prefect_pipestream.underfolder.ledger.provenance import who
from prefect_pipestream.underfolder.opening import open_dataset

_NO_OPTIONS = inspect.signature(export).parameters.keys() | {"folder"}


@flow(name="export-dataset")
def export_dataset(
    dataset: ReadWriteUnderfolder | Path,
    kind: LayoutKind,
    target: Path,
    options: dict[str, Any] | None = None,
    indices: list[int] | None = None,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    where: str | None = None,
) -> ExportReport:
    """Writes a dataset in another layout: the whole of it, or nothing.

    Args:
        dataset: The dataset to export, or its folder or address; it is not changed.
        kind: The layout to write.
        target: The folder to make; it must not be there. A relative one begins at the folder in
            which the flow runs (a worker's).
        options: Options of the layout, such as {"link": true}. Empty for none.
        indices: The samples to export; empty for all.
        max_failed: The share of samples that may be left out, as they cannot be written so.
        where: A query that is to be true of the samples to export, such as: metadata.label == 3.
            Empty for none.

    Returns:
        How many samples were written, and why others were not.

    Raises:
        DatasetExistsError: If there is something at the target.
        ExportError: If more than the share `max_failed` cannot be written.
        PipeBuildingError: If an option or the query is wrong.
    """
    if wrong := sorted((options or {}).keys() & _NO_OPTIONS):
        raise PipeBuildingError(f"{kind}: {wrong[0]!r} is no option of the layout.")
    folder = place_of(dataset) if isinstance(dataset, Path) else dataset.folder
    samples = SamplesSequence.from_underfolder(folder)
    log = get_run_logger()
    chosen = chosen_indices(open_dataset(folder), indices, where, log).tolist()
    report = export(samples, kind, target, indices=chosen, max_failed=max_failed, **(options or {}))
    for idx, failure in report.failures.items():
        log.warning("Sample %d is left out: %s: %s", idx, failure.error_type, failure.message)
    if report.labels_left_out:
        log.warning(
            "%d samples have a label of the whole image, and no objects: %s has no place for it.",
            report.labels_left_out,
            kind,
        )
    noted = provenance_fact(
        code_in_force(None, [folder]),
        {"export": {"kind": kind, "options": options or {}}},
        source=state_of_folder(folder),
    )
    publish_export(report, folder, Provenance.of({**noted, **who()}), log)
    log.info("%d samples of %s exported to %s.", report.samples, os.fspath(folder), report.folder)
    return report
