"""All that a run of `process_samples` shows, from its beginning to its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect_pipestream.reporting.events import emit_run_events, record_asset
from prefect_pipestream.reporting.progress import progress_artifact
from prefect_pipestream.running.progress import Advance, Log, progress_bar
from prefect_pipestream.running.report import RunReport
from prefect_pipestream.sequences import DataStream


@contextmanager
def shown_progress(total: int, done: int, log: Log, artifacts: bool) -> Iterator[Advance]:
    """Shows how far the run is: in a terminal, and among the flow run's artifacts.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.
        log: The flow run's logger.
        artifacts: Whether there is to be an artifact.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    with progress_bar(total, done, "Samples") as move_bar:
        if not artifacts:
            yield move_bar
            return
        with progress_artifact(total, done, "Samples", log) as move_artifact:

            def advance(samples: int, failed: int) -> None:
                move_bar(samples, failed)
                move_artifact(samples, failed)

            yield advance


def tell_of_run(report: RunReport, source: DataStream, target: DataStream, is_ok: bool) -> None:
    """Emits the events of a run that went through all its samples, and records the dataset.

    Args:
        report: The run's report.
        source: Where the run read samples.
        target: Where it wrote them.
        is_ok: Whether no more samples failed than the run allows.
    """
    folder = target.output_folder
    emit_run_events(folder, report.run_key, report.counts, is_ok)
    if is_ok and report.counts["written"]:
        record_asset(
            folder, source.input_folder, {"run_key": report.run_key, "counts": report.counts}
        )
