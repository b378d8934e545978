"""A validation as a flow run: chunks as task runs, a report, and a gate."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Failed
from pydantic import Field

from prefect_pipestream.errors import DatasetWriteError
from prefect_pipestream.flows.dataset import Dataset, block_of
from prefect_pipestream.flows.runner import Workers, in_flight, reachable_api, task_runner
from prefect_pipestream.flows.selection import chosen_indices
from prefect_pipestream.reporting.artifacts import add_markdown, artifact_key
from prefect_pipestream.reporting.browser_links import sample_link
from prefect_pipestream.reporting.events import emit_dataset_event
from prefect_pipestream.reporting.markdown import Failure, cell, failures_section
from prefect_pipestream.reporting.progress import API_ERRORS, Log, shown_progress
from prefect_pipestream.reporting.reports import describe_indices
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.validation import (
    InvalidDatasetError,
    InvalidSample,
    ItemRule,
    ValidationReport,
    check_rules,
    validate_samples,
)
from prefect_pipestream.work.chunk import Indices

_CHUNK = 500


@task(
    # Prefect's type for such a function has a method more than a function has.
    task_run_name=lambda parameters: f"check {describe_indices(parameters['indices'])}",  # type: ignore[arg-type]
    cache_policy=NO_CACHE,
)
def validate_chunk(
    dataset: Underfolder, indices: Indices, rules: Sequence[ItemRule], allow_other_items: bool
) -> list[InvalidSample]:
    """Decodes every item of many samples in one task run; nothing is written.

    Args:
        dataset: The dataset.
        indices: The samples, ascending.
        rules: What is expected of items.
        allow_other_items: Whether samples may have items that no rule is about.

    Returns:
        The samples with problems.
    """
    return validate_samples(dataset, map(int, indices), rules, allow_other_items)


@flow(name="validate-dataset")
def validate_dataset(
    dataset: Dataset,
    rules: list[ItemRule] = [],  # noqa: B006  # Prefect copies it, and shows it in the form
    allow_other_items: bool = True,
    indices: list[int] | None = None,
    max_invalid: Annotated[float, Field(ge=0, le=1)] = 0.0,
    report_file: Path | None = None,
    where: str | None = None,
) -> ValidationReport:
    """Decodes every item of every sample, and fails if samples are not as they should be.

    Nothing of the dataset is changed: use it as a gate before and after cleaning.

    Args:
        dataset: The dataset to check, or its folder.
        rules: What is expected of items: class, shape and type of images, fields of metadata.
            Without rules, every item only has to decode.
        allow_other_items: Whether samples may have items that no rule is about.
        indices: The samples to check; empty for all.
        max_invalid: The share of samples that may be invalid before the run fails.
        report_file: A CSV file for the full list of problems; empty for none.
        where: A query that is to be true of the samples to check, such as: metadata.label == 3.
            Empty for none.

    Returns:
        Which samples are invalid, and why.

    Raises:
        DatasetNotFoundError: If the dataset is missing.
        IndexError: If it has no sample of one of the indices.
        QueryError: If the query cannot be understood, or asks what cannot be answered.
        InvalidDatasetError: If too many samples are invalid; it has the report.
        DatasetWriteError: If the report file cannot be written.
    """
    log = get_run_logger()
    check_rules(rules)
    underfolder = open_dataset(block_of(dataset).folder)
    wanted = chosen_indices(underfolder, indices, where, log)
    chunks: dict[PrefectFuture[Any], Indices] = {}
    invalid: list[InvalidSample] = []

    def submissions() -> Iterator[PrefectFuture[Any]]:
        for at in range(0, len(wanted), _CHUNK):
            chunk = wanted[at : at + _CHUNK]
            part = underfolder.restricted_to(chunk)
            future = validate_chunk.submit(part, chunk, rules, allow_other_items)
            chunks[future] = chunk
            yield future

    workers = Workers(task_runner())
    key = artifact_key("progress", underfolder.folder)
    with shown_progress(len(wanted), 0, key, log) as advance, reachable_api():
        for future in in_flight(submissions(), lambda: workers.in_flight):
            found = future.result()
            invalid += found
            advance(len(chunks.pop(future)), len(found))
    invalid.sort(key=lambda one: one.idx)
    report = ValidationReport(folder=underfolder.folder, checked=len(wanted), invalid=invalid)
    log.info("%s: %s", report.folder, report.summary())
    if report_file is not None:
        with DatasetWriteError.explaining(
            f"The list of problems of {report.folder} cannot be written",
            f"{report.summary()}. Nothing of the dataset was changed",
        ):
            report.write_csv(report_file)
    is_ok = not len(wanted) or len(invalid) / len(wanted) <= max_invalid
    _tell(report, is_ok, report_file, log)
    if is_ok:
        return report
    error: Any = InvalidDatasetError(report)
    return cast(ValidationReport, Failed(message=str(error), data=error))


def _tell(report: ValidationReport, is_ok: bool, report_file: Path | None, log: Log) -> None:
    lines = [Failure(one.idx, "; ".join(one.problems), 1) for one in report.invalid]
    verdict = "passed" if is_ok else "**did not pass**"
    parts = [
        f"# {report.folder.name}: {report.summary()}",
        f"Dataset `{cell(str(report.folder))}` {verdict}. {report.checked:,} samples were decoded.",
        failures_section(
            lines,
            len(lines),
            None if report_file is None else str(report_file),
            "Invalid samples",
            named=sample_link,
        ),
    ]
    try:
        key = artifact_key("validation", report.folder)
        add_markdown("\n\n".join(filter(None, parts)) + "\n", key, "Validation")
    except API_ERRORS as error:
        log.warning("The report could not be added to the flow run's artifacts: %s", error)
    counts = {"checked": report.checked, "invalid": len(report.invalid)}
    emit_dataset_event("dataset.validated", report.folder, is_ok=is_ok, **counts)
