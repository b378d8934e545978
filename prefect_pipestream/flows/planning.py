"""`plan=True`: what a run would do, seen before, with nothing written."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ParamSpec, cast

import numpy as np
import numpy.typing as npt
from prefect import Flow

from prefect_pipestream.errors import DatasetError, DatasetWriteError, PlanError
from prefect_pipestream.flows.following import Identity, homes_of
from prefect_pipestream.flows.looking import Looks
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.flows.runner import workers_on
from prefect_pipestream.flows.selection import (
    Choice,
    Selection,
    select_samples,
    warning_of_another_transform,
)
from prefect_pipestream.reporting.plan_artifact import publish_plan
from prefect_pipestream.reporting.plans import PlannedChange, Reason, RunPlan, chosen_by
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.run_key import check_run_key
from prefect_pipestream.underfolder.ledger.signatures import failed_last
from prefect_pipestream.underfolder.runs.kept_plan import KeptPlan, keep_plan, new_plan_key
from prefect_pipestream.work.chunk import ChunkRun
from prefect_pipestream.work.guard import tried_guarded
from prefect_pipestream.work.trial import Trial, Tried, try_one

P = ParamSpec("P")

_TRIED = 48
_GOLDEN = (5**0.5 - 1) / 2


def plan_of(flow: Flow[P, RunReport], /, *args: P.args, **kwargs: P.kwargs) -> RunPlan:
    """The plan of a run: what a flow would do with these arguments; nothing is written.

    It is the flow called with ``plan=True``, for those who check types.

    Args:
        flow: `process_samples`, or another flow that has the parameter ``plan``.
        *args: Its arguments.
        **kwargs: Its arguments by name.

    Example:
        ```python
        plan = plan_of(process_samples, "datasets/photos", ["autocontrast"], select="changed")
        print(plan.summary())
        process_samples("datasets/photos", ["autocontrast"], follow=plan.key)
        ```
    """
    kwargs["plan"] = True
    return cast(RunPlan, flow(*args, **kwargs))


def check_planning(plan: bool, follow: str | None) -> None:
    """Checks that a run is not to be planned and to go by a plan at once.

    Raises:
        PlanError: If it is.
        RunKeyError: If the plan to go by can be none: an empty one would let the run do all.
    """
    if follow is not None:
        check_run_key(follow)
    if plan and follow is not None:
        raise PlanError(f"plan and follow={follow!r}: give one of them, to plan a run or to do it.")


def plan_run(
    run: ProcessRun, choice: Choice, identity: Identity, artifacts: bool = True
) -> RunPlan:
    """Says what a run would do; see `process_samples`.

    Args:
        run: The run, which does not begin.
        choice: Which samples it would be about.
        identity: What its transform is known by.
        artifacts: Whether the plan is added to the flow run's artifacts.

    Raises:
        QueryError, IndexError, RunNotFoundError, DatasetError: As the run would.
    """
    choice = replace(choice, is_plan=True)
    selection = select_samples(run.source, run.target, choice, identity, run.log)
    another = warning_of_another_transform(run.target, identity.fingerprint)
    for warning in (*selection.warnings, another if selection.before.total else None):
        if warning is not None:
            run.warn(warning)
    trial = _tried(run, selection.todo)
    key = new_plan_key()
    is_kept = _is_kept(run, choice, identity, selection, key)
    plan = RunPlan(
        key=key,
        can_be_followed=is_kept,
        run_key=run.key if choice.is_named else None,
        folder=str(run.target.output_folder),
        transform=str(identity),
        select=choice.select,
        where=selection.where,
        samples=_by_reason(selection, choice, run.target.ledgers, identity),
        chosen_by=chosen_by(selection.let_through),
        left_out=dict(selection.left_out),
        tried=trial.tried,
        outcomes=trial.counts,
        failures=trial.failures,
        changes=[
            PlannedChange(idx=one.idx, target=one.target, differences=list(one.metadata))
            for one in trial.changes
        ],
        seconds_per_sample=float(np.mean(trial.seconds)) if trial.seconds else None,
        workers=workers_on(run.source.input_folder, run.target.output_folder).number,
        undo_bytes=_undo_bytes(run.target, selection.todo, trial),
        warnings=run.warnings,
    )
    run.log.info("Plan %s: %s", plan.key, plan.summary())
    if artifacts:
        publish_plan(plan, trial.changes, run.target.output_folder, run.log)
    return plan


def _tried(run: ProcessRun, todo: npt.NDArray[np.int64]) -> Trial:
    """Transforms some samples, evenly spread: all of them, and the first ones alone, too."""
    number = min(_TRIED, len(todo))
    at = np.linspace(0, len(todo) - 1, number).astype(np.int64) if number else todo[:0]
    spread = np.arange(number) * _GOLDEN % 1
    chosen = todo[at[spread.argsort().argsort()]].tolist()
    try:
        return Trial.of(_tries(run, chosen))
    except DatasetWriteError as error:
        run.warn(f"No sample could be tried, so that neither time nor space is told: {error}")
        return Trial()


def _tries(run: ProcessRun, indices: Sequence[int]) -> Iterator[Tried]:
    """Tries samples one after the other, within their limits if there are some."""
    source, target = run.source, run.target
    if run.limits is not None and len(indices):
        chunk = ChunkRun(source, target, run.transform, run.keys, 0, "plan", run.log)
        return tried_guarded(chunk, indices, run.limits)
    return (try_one(source, target, run.transform, run.keys, idx) for idx in indices)


def _by_reason(
    selection: Selection, choice: Choice, folder: Layout, identity: Identity
) -> dict[Reason, list[int]]:
    """The samples that would be processed, each with one reason."""
    todo, looks = selection.todo, cast(Looks, selection.looks)
    if choice.select == "failed":
        return {"failed": todo.tolist()} if len(todo) else {}
    has_failed = np.isin(todo, failed_last(folder, identity.fingerprint))
    is_seen = looks.seen != 0
    has_run = looks.knows_any or bool(has_failed.any())
    new: Reason = "new" if has_run else "never_seen"
    found: dict[Reason, npt.NDArray[np.bool_]] = {
        new: ~is_seen & ~has_failed,
        "changed": is_seen & looks.is_changed & ~has_failed,
        "failed": has_failed,
        "again": is_seen & ~looks.is_changed & ~has_failed,
    }
    return {reason: todo[which].tolist() for reason, which in found.items() if which.any()}


def _undo_bytes(target: DataStream, todo: npt.NDArray[np.int64], trial: Trial) -> int:
    """What undo would hold: the bytes of each item, by the share of those tried that lose it."""
    stored, replaced = trial.stored.total(), trial.replaced.total()
    usual = replaced / stored if stored else 0.0
    return round(
        sum(
            size * (trial.replaced[key] / trial.stored[key] if trial.stored[key] else usual)
            for key, size in target.stored_bytes(todo.tolist()).items()
        )
    )


def _is_kept(
    run: ProcessRun, choice: Choice, identity: Identity, selection: Selection, key: str
) -> bool:
    """Keeps a plan, so that a run can go by it; says so where it cannot."""
    looks = cast(Looks, selection.looks)
    plan = KeptPlan(
        key=key,
        fingerprint=identity.fingerprint,
        transform=identity.text,
        target=documents_of(run.target.output_folder).root,
        select=choice.select,
        where=selection.where,
        failed_in=selection.failed_in,
        idx=selection.todo,
        own=looks.own,
        shared=looks.shared,
        named=None if choice.indices is None else np.unique(np.asarray(choice.indices, np.int64)),
    )
    problems: list[str] = []
    for home in homes_of(run.source, run.target):
        try:
            keep_plan(home, plan)
        except (OSError, DatasetError) as error:
            problems.append(str(error).rstrip("."))
            continue
        if len(looks.own) and not looks.own.any():
            run.warn("Whether samples of this source change later on cannot be told.")
        return True
    why = "; ".join(problems) or "there is no dataset yet that could keep it"
    run.warn(f"This plan cannot be followed, as it is not kept: {why}.")
    return False


def as_report(plan: RunPlan) -> RunReport:
    """The plan as what a flow returns whose runs end with a report; see `plan_of`."""
    return cast(RunReport, plan)
