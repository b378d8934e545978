"""A review as a flow run: changes that are computed, asked about, and applied."""

from collections.abc import Mapping
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.dataset import Dataset, block_of
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact, state_of_folder
from prefect_pipestream.flows.review_question import (
    KEEP_AFTER_S,
    ReviewDecision,
    decide_some,
    is_asking,
    review_markdown,
)
from prefect_pipestream.reporting.artifacts import add_markdown, artifact_key
from prefect_pipestream.reporting.browser_links import run_link
from prefect_pipestream.reporting.events import emit_dataset_event, emit_run_events
from prefect_pipestream.reporting.markdown import cell, provenance_section, ranges
from prefect_pipestream.reporting.progress import API_ERRORS, Log
from prefect_pipestream.review import (
    DecidedReview,
    Decisions,
    Review,
    apply_review,
    compute_review,
    decided_review,
    decisions_of,
    discard_review,
    facts_of,
    load_review,
)
from prefect_pipestream.sequences import resolve_stage
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.opening import ledgers_of
from prefect_pipestream.underfolder.runs.review_decisions import settling

__all__ = ["ReviewDecision", "ReviewReport", "review_changes", "review_markdown"]


class ReviewReport(BaseModel):
    """What became of a review."""

    model_config = ConfigDict(frozen=True)

    run_key: str = Field(description="The run's name in the dataset's ledger.")
    reviewer: str = Field(description="Who decided; empty if there was nothing to decide.")
    decision: str = Field(description="What was decided.")
    comment: str = Field(description="Why.")
    applied: list[int] = Field(description="The samples that were written, or removed.")
    discarded: list[int] = Field(description="The samples whose changes were discarded.")
    conflicts: list[int] = Field(
        description="Approved samples that another writer changed meanwhile: they are as that "
        "writer left them."
    )


@flow(name="review-changes")
def review_changes(
    dataset: Dataset,
    transform: list[str | dict[str, Any]],
    indices: list[int] | None = None,
    most: Annotated[int, Field(gt=0, le=1000)] = 24,
    keys: list[str] | None = None,
    wait_hours: Annotated[float, Field(gt=0)] = 72.0,
    where: str | None = None,
) -> ReviewReport:
    """Computes changes, shows them before and after, and applies what a person approves.

    The flow run is suspended until somebody resumes it and decides: approve all that are shown,
    approve or reject some, reject all. Of many, some are shown at a time, until all are decided, or
    the rest is approved or rejected as a whole. Until then nothing of the dataset changes.

    Args:
        dataset: The dataset, or its folder.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"resize-images": {"size":
            [256, 256]}}].
        indices: The samples to review; empty for all.
        most: How many changed samples are shown at a time.
        keys: The items to write; empty for all.
        wait_hours: How long to wait for each decision, in hours.
        where: A query that is to be true of the samples to review, such as: metadata.label == 3.
            Empty for none.

    Returns:
        Who decided what, and what became of the samples.

    Raises:
        PipeBuildingError: If the transform or the query is wrong; nothing has run.
        DatasetError: If the dataset cannot be read or written.
    """
    # Resumed, the flow is called again, finds its staged changes and goes on with the answer.
    log, wait_s, run_id = get_run_logger(), wait_hours * 3600, str(flow_run.id)
    block = block_of(dataset)
    if (before := _done_before(block.folder, run_id)) is not None:
        log.info("The review was applied before this flow run could end.")
        return before
    review = compute_review(
        block.folder,
        transform,
        run_id,
        indices=indices or None,
        keys=keys or None,
        zfill=block.zfill,
        keep_s=wait_s + KEEP_AFTER_S,
        where=where or None,
        flow_run=run_id,
    )
    if not review.changed:
        log.info("Nothing to decide: none of %d samples would change.", len(review.samples))
    while (left := decisions_of(review).left(review)) or is_asking(review):
        decide_some(review, left, most, wait_s, log)
    chosen = {"where": where} if where else {}
    with settling(review) as decisions:
        noted = {**chosen, **_provenance(review, transform, keys)}
        report = _carry_out(review, decisions, noted)
        _tell(review, report, log)
        discard_review(review.folder, review.id)
    return report


def _done_before(folder: Place, run_id: str) -> ReviewReport | None:
    """What an attempt at this flow run did which was killed after all was applied."""
    if load_review(folder, run_id) is not None:
        return None
    done = decided_review(folder, run_id)
    return None if done is None else _report_of(done)


def _report_of(done: DecidedReview) -> ReviewReport:
    return ReviewReport(
        run_key=done.run_key,
        reviewer=done.reviewed_by,
        decision=done.decision,
        comment=done.comment,
        applied=list(done.outcome.applied),
        discarded=list(done.outcome.discarded),
        conflicts=list(done.outcome.conflicts),
    )


def _provenance(review: Review, transform: Any, keys: list[str] | None) -> dict[str, Any]:
    if _run_of(review).provenance() is not None:  # it was applied in part
        return {}
    stage, source = resolve_stage(transform), state_of_folder(review.folder)
    code = code_in_force(stage, [review.folder])
    return provenance_fact(code, stage, keys or None, source=source)


def _run_of(review: Review) -> Run:
    return Run.of(ledgers_of(review.folder), review.id)


def _carry_out(review: Review, decisions: Decisions, noted: Mapping[str, Any]) -> ReviewReport:
    answers = [answer.decision for answer in decisions.answers]
    unasked = "as decided in the browser" if decisions.by_sample else "reject all"
    decision = "; ".join(dict.fromkeys(answers)) or unasked
    facts = facts_of(decisions, decision, "nobody was asked")
    outcome = apply_review(review, decisions.approved, {**noted, **facts})
    return _report_of(DecidedReview(review.id, **facts, outcome=outcome))


def _tell(review: Review, report: ReviewReport, log: Log) -> None:
    log.info(
        "%s decided “%s”: %d samples applied, %d discarded, %d changed by others meanwhile.",
        report.reviewer,
        report.decision,
        len(report.applied),
        len(report.discarded),
        len(report.conflicts),
    )
    lines = [
        f"# Review of {review.folder.name}",
        f"**{cell(report.reviewer)}** decided “{report.decision}”."
        + (f" {cell(report.comment)}" if report.comment else ""),
        f"- **{len(report.applied):,}** applied: {ranges(report.applied) or 'none'}\n"
        f"- **{len(report.discarded):,}** discarded: {ranges(report.discarded) or 'none'}\n"
        f"- **{len(report.conflicts):,}** changed by others meanwhile, and left as they are: "
        f"{ranges(report.conflicts) or 'none'}",
        f"Run key {run_link(report.run_key)} (by which it can be undone)",
    ]
    try:
        lines.append(provenance_section(_run_of(review).provenance()))
        key = artifact_key("review-result", review.folder)
        add_markdown("\n\n".join(lines) + "\n", key, f"Decided by {report.reviewer}")
    except (*API_ERRORS, DatasetError) as error:
        log.warning("The result could not be added to the flow run's artifacts: %s", error)
    emit_dataset_event("review.decided", review.folder, **report.model_dump())
    found = _run_of(review).counts()
    emit_run_events(review.folder, review.id, found, is_ok=not found["failed"])
