"""Take runs back."""

from pathlib import Path

from prefect import flow, get_run_logger

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import RunNotFoundError
from prefect_pipestream.reporting.artifacts import publish_undo
from prefect_pipestream.underfolder import undo_run as undo
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.runs.listing import last_run


@flow(name="undo-run")
def undo_run(
    dataset: ReadWriteUnderfolder, run_key: str | list[str] | None = None, force: bool = False
) -> str:
    """Restores a dataset to what it was before a run, or several, byte by byte.

    Args:
        dataset: The dataset that the run wrote.
        run_key: The run, as its report names it; or several that took turns on some samples;
            empty for the last one.
        force: Restore also samples that someone changed since the run.

    Returns:
        The key of the run that the undo is: undo that one to have the changes back.

    Raises:
        RunNotFoundError: If there is no such run, or none at all.
        UndoRefusedError: If someone changed samples of the run since. Nothing was changed.
    """
    report = undo(dataset.folder, run_key or _last_run(dataset), force=force)
    log = get_run_logger()
    log.info(
        "Run %s undone: %d samples restored, %d files; by run %s.",
        report.run_key,
        report.samples,
        report.files,
        report.undo_run_key,
    )
    publish_undo(report, Path(Layout.of(dataset.folder).root), log)
    return report.undo_run_key


def _last_run(dataset: ReadWriteUnderfolder) -> str:
    key = last_run(dataset.folder)
    if key is None:
        raise RunNotFoundError(f"{dataset.folder}: no run was made on this dataset yet.")
    return key
