"""A review as a flow run: what is shown, the question, and what follows from the answer."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from prefect import flow, get_run_logger
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel, ConfigDict, Field

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.dataset_flows import Dataset, block_of
from prefect_pipestream.flows.provenance import code_in_force, provenance_fact, state_of_folder
from prefect_pipestream.reporting.artifacts import add_markdown, artifact_key
from prefect_pipestream.reporting.events import emit_dataset_event, emit_run_events
from prefect_pipestream.reporting.markdown import (
    Failure,
    cell,
    failures_section,
    pictures_section,
    provenance_section,
    ranges,
)
from prefect_pipestream.reporting.progress import API_ERRORS, Log
from prefect_pipestream.review import (
    Review,
    apply_review,
    changes_of_review,
    compute_review,
    discard_review,
    parse_indices,
)
from prefect_pipestream.sequences import resolve_stage
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.packing import end_run

Decision = Literal["approve all", "approve only these", "reject these", "reject all"]

_KEEP_AFTER_S = 86_400.0


class ReviewDecision(RunInput):
    """What a person decides about the changes that are shown."""

    decision: Decision = Field(description="What is to be done with the changes.")
    samples: str = Field(
        default="",
        description="The indices that “these” means, such as `3, 7-9`.",
    )
    comment: str = Field(default="", description="Why. It is kept in the dataset's ledger.")
    reviewer: str = Field(
        min_length=1, description="Your name. It is kept in the dataset's ledger."
    )

    def approved(self, review: Review) -> set[int]:
        """The samples that are to be written.

        Raises:
            ValueError: If the decision does not say which.
        """
        everything = {sample.idx for sample in review.changed}
        if not self.reviewer.strip():
            raise ValueError("Your name is missing.")
        if self.decision in ("approve all", "reject all"):
            return everything if self.decision == "approve all" else set()
        these = parse_indices(self.samples)
        if not these:
            raise ValueError(f"“{self.decision}” needs the indices of samples, such as `3, 7-9`.")
        if unknown := sorted(these - everything):
            raise ValueError(f"These are not among the changes: {ranges(unknown)}.")
        return these if self.decision == "approve only these" else everything - these


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

    The flow run is suspended until somebody resumes it and decides: approve all, approve or
    reject some, reject all. Until then nothing of the dataset changes.

    Args:
        dataset: The dataset, or its folder.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"resize-images": {"size":
            [256, 256]}}].
        indices: The samples to review; empty for all.
        most: After how many changed samples to stop and ask.
        keys: The items to write; empty for all.
        wait_hours: How long to wait for the decision, in hours.
        where: A query that is to be true of the samples to review, such as: metadata.label == 3.
            Empty for none.

    Returns:
        Who decided what, and what became of the samples.

    Raises:
        PipeBuildingError: If the transform or the query is wrong; nothing has run.
        DatasetError: If the dataset cannot be read or written.
    """
    # Resumed, the flow is called again, finds its staged changes and goes on with the answer.
    log, wait_s = get_run_logger(), wait_hours * 3600
    block = block_of(dataset)
    review = compute_review(
        block.folder,
        transform,
        str(flow_run.id),
        indices=indices or None,
        most=most,
        keys=keys or None,
        zfill=block.zfill,
        keep_s=wait_s + _KEEP_AFTER_S,
        where=where or None,
    )
    if not review.changed:
        log.info("Nothing to decide: none of %d samples would change.", len(review.samples))
        answer = ReviewDecision(decision="reject all", reviewer="nobody was asked")
    else:
        _show_once(review, log)
        answer = _ask(review, wait_s)
    chosen = {"where": where} if where else {}
    report = _carry_out(review, answer, {**chosen, **_provenance(review, transform, keys)})
    _tell(review, report, log)
    discard_review(review.folder, review.id)
    return report


def _provenance(review: Review, transform: Any, keys: list[str] | None) -> dict[str, Any]:
    if Run.of(review.folder, review.id).provenance() is not None:  # it was applied in part
        return {}
    stage, source = resolve_stage(transform), state_of_folder(review.folder)
    code = code_in_force(stage, [review.folder])
    return provenance_fact(code, stage, keys or None, source=source)


def _carry_out(review: Review, answer: ReviewDecision, noted: Mapping[str, Any]) -> ReviewReport:
    facts = {
        **noted,
        "reviewed_by": answer.reviewer,
        "decision": answer.decision,
        "comment": answer.comment,
    }
    outcome = apply_review(review, answer.approved(review), facts)
    end_run(Run.of(review.folder, review.id))
    return ReviewReport(
        run_key=review.id,
        reviewer=answer.reviewer,
        decision=answer.decision,
        comment=answer.comment,
        applied=list(outcome.applied),
        discarded=list(outcome.discarded),
        conflicts=list(outcome.conflicts),
    )


# -- the question --------------------------------------------------------------------------


def _ask(review: Review, wait_s: float) -> ReviewDecision:
    """Waits for a decision that can be carried out; one that cannot is asked for again."""
    problem = ""
    for attempt in itertools.count(1):
        question = ReviewDecision.with_initial_data(description=_question(review, problem))
        options: dict[str, Any] = {
            "wait_for_input": question,
            "timeout": round(wait_s),
            "key": f"decision-{attempt}",
        }
        # Only what a deployment started can be started again; a script waits.
        wait = suspend_flow_run if deployment.id else pause_flow_run
        answer = cast(ReviewDecision, wait(**options))
        try:
            answer.approved(review)
        except ValueError as error:
            problem = str(error)
        else:
            return answer
    raise AssertionError("unreachable")


def _question(review: Review, problem: str) -> str:
    indices = [sample.idx for sample in review.changed]
    key = artifact_key("review", review.folder)
    again = f"**{problem}** Please decide again.\n\n" if problem else ""
    return (
        f"{again}**{len(indices):,}** sample{'s' if len(indices) > 1 else ''} of "
        f"`{review.folder}` would change: {ranges(indices)}.\n\n"
        f"The artifact `{key}` of this flow run shows them before and after. "
        "Nothing is written before you decide."
    )


# -- what is shown -------------------------------------------------------------------------


def _show_once(review: Review, log: Log) -> None:
    """Adds the sheet to the flow run's artifacts, unless an earlier attempt did."""
    if review.was_shown():
        return
    try:
        text = review_markdown(review)
        add_markdown(text, artifact_key("review", review.folder), "Changes to decide about")
        review.note_shown()
    except Exception as error:  # noqa: BLE001 - such as a value that cannot be shown
        log.warning("The changes could not be shown: %r", error)


def review_markdown(review: Review) -> str:
    """The changes to decide about as Markdown, of bounded size."""
    by_outcome: dict[str, list[int]] = {}
    for sample in review.samples:
        by_outcome.setdefault(sample.outcome, []).append(sample.idx)
    words = {"written": "would change", "unchanged": "stay as they are", "skipped": "are left out"}
    words["removed"] = "would be removed"
    lines = [
        f"- **{len(found):,}** {words.get(outcome, outcome)}: {ranges(found)}"
        for outcome, found in by_outcome.items()
    ]
    failed = [
        Failure(sample.idx, ": ".join(sample.failure[:2]), 1)
        for sample in review.samples
        if sample.failure is not None
    ]
    parts = [
        f"# Changes to {review.folder.name}",
        f"Dataset `{review.folder}`. Nothing is written yet: resume this flow run to decide.",
        "\n".join(lines),
        pictures_section(changes_of_review(review), total=len(review.changed)),
        failures_section(failed, len(failed), None),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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
        f"Run key `{report.run_key}` (by which it can be undone)",
    ]
    try:
        lines.append(provenance_section(Run.of(review.folder, review.id).provenance()))
        key = artifact_key("review-result", review.folder)
        add_markdown("\n\n".join(lines) + "\n", key, f"Decided by {report.reviewer}")
    except (*API_ERRORS, DatasetError) as error:
        log.warning("The result could not be added to the flow run's artifacts: %s", error)
    emit_dataset_event("review.decided", review.folder, **report.model_dump())
    found = Run.of(review.folder, review.id).counts()
    emit_run_events(review.folder, review.id, found, is_ok=not found["failed"])
