"""Which samples a run is to process, and what its ledger has of the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import QueryError
from prefect_pipestream.flows.following import (
    Identity,
    follow_plan,
    only_chosen,
    plan_by_name_of,
    plan_to_follow,
    refuse_another_choice,
    refuse_another_transform,
)
from prefect_pipestream.flows.looking import Looks, look_at
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.reporting.reports import ChunkReport, failed_sample
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.sequences.where import Found, find
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.format.index import checked_indices
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.compactions import refuse_if_compacted_since
from prefect_pipestream.underfolder.ledger.rows import FAILED, Rows
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.signatures import signatures
from prefect_pipestream.underfolder.opening import ledgers_of
from prefect_pipestream.underfolder.runs.kept_plan import KeptPlan
from prefect_pipestream.underfolder.runs.listing import failed_indices, last_run

Select = Literal["all", "changed", "failed"]
LeftOut = Literal["done", "unnamed", "unmatched", "sound", "unchanged", "unplanned"]
"""Why a sample is not processed: the run has done it; its index is not among those given; the query
is not true of it; it did not fail; it is as the transform saw it; it was not planned, or is not as
it was then."""


@dataclass(frozen=True)
class Selection:
    """What a run is about.

    Attributes:
        todo: The samples to process: int64, ascending.
        before: What earlier attempts at the run did of other samples.
        failed_in: The run whose failed samples these are, if they are; a retry goes by it.
        where: The query that is true of them, if there is one; a retry goes by it.
        plan: The plan that they are of, if there is one; a retry goes by it.
        warnings: What is not as it was planned.
        left_out: How many samples are not processed, by reason.
        let_through: How many were left after those of each reason were left out.
        looks: What their files are like, where it was asked for.
    """

    todo: npt.NDArray[np.int64]
    before: ChunkReport
    failed_in: str | None = None
    where: str | None = None
    plan: str | None = None
    warnings: Sequence[str] = ()
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    let_through: Mapping[LeftOut, int] = field(default_factory=dict)
    looks: Looks | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What a run is to note on its selection."""
        noted = {"failed_in": self.failed_in, "where": self.where, "plan": self.plan}
        return {name: fact for name, fact in noted.items() if fact is not None}

    @property
    def total(self) -> int:
        """The number of samples that the run is about."""
        return self.before.total + len(self.todo)


@dataclass(frozen=True)
class Choice:
    """Which samples a run is to be about.

    Attributes:
        select: "all"; "changed": new or changed since a run of the same transform saw them;
            "failed": failed in this run, if it was begun before, else in the last one.
        indices: The samples to choose from; None is all.
        is_named: Whether the run's key was given: then failed samples are those of that run.
        where: A query that is to be true of them; None: that of the run, if it was begun with one.
        failed_in: The run whose failed samples are asked for, where that is known already.
        follow: The key of a plan to go by; None: that of the run, if it was begun with one.
        is_plan: Whether it is for a plan, which is to know what the samples' files are like.
    """

    select: Select = "all"
    indices: Sequence[int] | None = None
    is_named: bool = False
    where: str | None = None
    failed_in: str | None = None
    follow: str | None = None
    is_plan: bool = False


class _Narrowing:
    """Samples of which fewer and fewer are left, and why the others are not.

    Attributes:
        done: The samples that the run has done: int64, ascending.
        left: The samples that are left: int64, ascending.
        left_out: How many are not, by reason.
        let_through: How many were left after those of each reason were left out.
    """

    def __init__(self, samples: npt.NDArray[np.int64], done: npt.NDArray[np.int64]) -> None:
        self.done = done
        self.left = samples[~np.isin(samples, done)] if len(done) else samples
        self.left_out: dict[LeftOut, int] = {"done": len(done)}
        self.let_through: dict[LeftOut, int] = {"done": len(self.left)}

    def to(self, chosen: npt.NDArray[np.int64], others_are: LeftOut) -> None:
        """Leaves just these samples, some of which may not have been there."""
        self.left_out[others_are] = len(np.setdiff1d(self.left, chosen))
        self.let_through[others_are] = len(chosen)
        self.left = chosen

    def to_those_of(self, chosen: npt.ArrayLike, others_are: LeftOut) -> None:
        """Leaves those that are among these."""
        self.to(np.intersect1d(self.left, np.asarray(chosen, np.int64)), others_are)


def select_samples(
    source: DataStream,
    target: DataStream,
    choice: Choice,
    transform: Identity,
    log: Log | None = None,
) -> Selection:
    """Says which samples are to be processed; what the run has done already is not.

    Args:
        source: Where samples are read.
        target: Where they are written, as part of the run.
        choice: Which samples are asked for.
        transform: What the transform is known by.
        log: Is told of samples that a query could not look into.

    Raises:
        QueryError: If the query cannot be answered, or the run was begun with another one.
        IndexError: If the source has no sample of one of the indices.
        RunNotFoundError: If failed samples are asked for, and there is no such run.
        PlanError: If the plan cannot be followed.
        DatasetError: If the dataset was compacted since such a run, or since this one began: its
            ledger has the indices of before.
    """
    run = target.run
    _refuse_if_compacted(run, source, target)
    follow = choice.follow or plan_by_name_of(run)
    noted = run.facts().get("plan")
    # Those that failed are planned ones, and were perhaps mended since.
    key = follow or (None if choice.select == "failed" else noted)
    plan = None if key is None else plan_to_follow(source, target, key)
    if plan is not None and follow is not None:
        refuse_another_transform(plan, transform)
        refuse_another_choice(plan, choice.indices, choice.where)
        choice = _choice_of(plan, choice, len(source))
    rows = run.outcome_rows()  # once: of a killed run it takes its time
    samples = _Narrowing(source.indices(), rows.done())
    where = _narrow_by_what_they_are(samples, source, target, choice, log)
    failed_in, looks = _narrow_by_what_became(samples, source, target, choice, transform)
    warnings: list[str] = []
    if plan is not None:
        followed = follow_plan(plan, source, run, samples.done, samples.left)
        if follow is None:
            followed = only_chosen(followed, samples.left)
        warnings += followed.warnings()
        samples.to(followed.todo, "unplanned")
        looks = None
    if choice.is_plan and looks is None:
        looks = _looks(samples.left, source, target, choice, transform)
    return Selection(
        todo=samples.left,
        before=_before(run, rows, samples.left),
        failed_in=failed_in,
        where=where,
        plan=key,
        warnings=warnings,
        left_out=samples.left_out,
        let_through=samples.let_through,
        looks=looks,
    )


def _narrow_by_what_they_are(
    samples: _Narrowing, source: DataStream, target: DataStream, choice: Choice, log: Log | None
) -> str | None:
    """Leaves the samples of the given indices of which the query is true; returns the query."""
    if choice.indices is not None:  # of what the run itself removed there is none any more
        done = set(samples.done.tolist())
        left = [idx for idx in choice.indices if idx not in done]
        samples.to(checked_indices(left, len(source)), "unnamed")
    where = _query_of(target.run, choice)
    if where is not None:
        matching = source.found(where, target.output_folder)
        tell_of_problems(matching, log)
        samples.to_those_of(matching.indices, "unmatched")
    return where


def _narrow_by_what_became(
    samples: _Narrowing,
    source: DataStream,
    target: DataStream,
    choice: Choice,
    transform: Identity,
) -> tuple[str | None, Looks | None]:
    """Leaves the samples that failed, or that changed.

    Returns:
        The run in which they failed; and what they are like, where they were looked at.
    """
    run, folder = target.run, target.ledgers
    if choice.select == "failed":
        failed_in = choice.failed_in
        if failed_in is None:
            failed_in = str(run.facts().get("failed_in", run.key))
            if not (choice.is_named or run.exists()):
                failed_in = last_run(folder)
        for key in _chain(folder, failed_in):
            _refuse_if_compacted(Run.of(folder, key), source, target)
        samples.to_those_of(_failed(folder, failed_in), "sound")
        return failed_in, None
    if choice.select == "changed":
        looks = _looks(samples.left, source, target, choice, transform)
        samples.to(samples.left[looks.is_changed], "unchanged")
        return None, looks.where(looks.is_changed)
    return None, None


def _looks(
    samples: npt.NDArray[np.int64],
    source: DataStream,
    target: DataStream,
    choice: Choice,
    transform: Identity,
) -> Looks:
    """What samples are like now, and were when the transform saw them."""
    seen = signatures(target.ledgers, transform.fingerprint)
    looks = look_at(source, samples, apart=choice.is_plan)
    return looks._replace(seen=seen.of(samples), knows_any=len(seen) > 0)


def _choice_of(plan: KeptPlan, choice: Choice, length: int) -> Choice:
    """What was chosen by a plan, as far as it is there still."""
    return replace(
        choice,
        select=cast("Select", plan.select),
        indices=None if plan.named is None else plan.named[plan.named < length].tolist(),
        where=plan.where,
        failed_in=plan.failed_in,
    )


def _query_of(run: Run, choice: Choice) -> str | None:
    """The query of a run: the one that it was begun with, whatever its samples are like by now.

    Raises:
        QueryError: If another one is given.
    """
    facts = run.facts()
    if "fingerprint" not in facts:  # it begins now
        return choice.where
    noted = facts.get("where")
    if choice.where not in (None, noted):
        began = "without a query" if noted is None else f"with where={noted!r}"
        raise QueryError(
            f"run {run.key!r} was begun {began}, and cannot go on with where={choice.where!r}. "
            "Give it no query, or another run key."
        )
    return None if noted is None else str(noted)


def tell_of_problems(found: Found, log: Log | None) -> None:
    """Says which samples a query could not look into."""
    warning = found.warning()
    if warning is not None and log is not None:
        log.warning("where: %s", warning)


def chosen_indices(
    dataset: Underfolder, indices: Sequence[int] | None, where: str | None, log: Log
) -> npt.NDArray[np.int64]:
    """The samples of a dataset that are asked for, by index and by a query.

    Args:
        dataset: The dataset.
        indices: The samples to choose from; None or none at all is all.
        where: A query that is to be true of them; None for none.
        log: Is told of samples that the query could not look into.

    Raises:
        IndexError: If the dataset has no sample of one of the indices.
        QueryError: If the query cannot be understood, or asks what cannot be answered.
    """
    if indices:
        wanted = np.array(checked_indices(indices, len(dataset)), dtype=np.int64)
    else:
        wanted = dataset.indices()
    if where:
        found = find(dataset, where)
        tell_of_problems(found, log)
        wanted = wanted[np.isin(wanted, found.indices)]
    return wanted


def _failed(folder: Layout, run_key: str | None) -> list[int]:
    """The samples that failed in a run; None is the last one.

    If that run itself took failed samples again and was stopped, those that it did not reach count
    as failed.
    """
    failed, done = set(failed_indices(folder, run_key)), set[int]()
    for key in _chain(folder, run_key):
        run = Run.of(folder, key)
        failed |= set(run.failed_indices()) - done
        done |= run.done_indices()
    return sorted(failed)


def _chain(folder: Layout, run_key: str | None) -> Iterator[str]:
    """The key of a run, of the one whose failed samples it took again, and so on."""
    known = set[str]()
    while run_key is not None and run_key not in known:
        known.add(run_key)
        yield run_key
        run_key = Run.of(folder, run_key).facts().get("failed_in")


def _refuse_if_compacted(run: Run, source: DataStream, target: DataStream) -> None:
    ledgers = [target.ledgers]
    folder = source.input_folder
    if folder is not None and folder != target.output_folder:
        ledgers.append(ledgers_of(folder))
    refuse_if_compacted_since(run, *ledgers)


def warning_of_another_transform(target: DataStream, fingerprint: str) -> str | None:
    """What to say where the run was begun with another transform; None where it was not."""
    began_with = target.run.facts().get("fingerprint")
    if began_with in (None, fingerprint):
        return None
    return (
        f"run {target.run_key!r} was begun with another transform: what it had done before stays "
        "as that left it. To apply this one to all samples, give another run key."
    )


def _before(run: Run, rows: Rows, todo: npt.NDArray[np.int64]) -> ChunkReport:
    """What the run's ledger has of samples that are not to be processed now."""
    left_out = rows.where(~np.isin(rows.idx, todo)) if len(rows.idx) else rows
    report = ChunkReport(counts=left_out.counts())
    failed = set(left_out.idx[left_out.outcome == FAILED].tolist())
    for record in run.failures() if failed else ():
        if record.idx in failed:
            report.failures.append(failed_sample(record))
    return report
