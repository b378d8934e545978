"""What a page asks of runs: which there are, what one changed, what failed in it, its undo."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from prefect_pipestream.browser.dataset import ShownDataset, name_of
from prefect_pipestream.browser.history import First
from prefect_pipestream.browser.jobs import Jobs
from prefect_pipestream.browser.kept import Change, ShownChange
from prefect_pipestream.browser.person import Person
from prefect_pipestream.errors import DatasetError, RunNotFoundError
from prefect_pipestream.sequences.query_meaning import RUN
from prefect_pipestream.underfolder import (
    Outcome,
    Run,
    RunInfo,
    RunState,
    SampleDifference,
    UndoPlan,
    list_runs,
    plan_undo,
    undo_run,
)
from prefect_pipestream.underfolder.ledger.compactions import refuse_if_compacted_since
from prefect_pipestream.underfolder.opening import runs_and_space
from prefect_pipestream.underfolder.runs.listing import existing_run

MOST_CHANGES = 50
"""Of how many samples a page may ask at once what a run changed: their items are decoded."""
MOST_FAILURES = 500
"""Of how many samples a page may ask at once why they failed."""

_SHOWN = 20  # samples, of those that stand in the way of an undo


class ShownRun(BaseModel):
    """A run in a list.

    Attributes:
        run_key: Its key; one that was undone shares it with a later one of the same key.
        folder: What tells those apart: the name of its folder.
        name: The name that it was given.
        state: How it is.
        who: Who ran it; empty where that is not known.
        started: When it began.
        last_commit: When it committed last.
        counts: How many samples had each outcome.
        undo_bytes: The disk space that its removal would free; None where that was not asked.
    """

    run_key: str
    folder: str
    name: str | None
    state: RunState
    who: str
    started: datetime | None
    last_commit: datetime | None
    counts: dict[Outcome, int]
    undo_bytes: int | None


class Runs(BaseModel):
    """All runs, the newest first, and the disk space that their undo holds in all."""

    runs: list[ShownRun]
    undo_bytes: int | None


class Reference(BaseModel):
    """A run that another one is about."""

    run_key: str
    folder: str


class RunPage(BaseModel):
    """A run on its page.

    Attributes:
        run: The run.
        facts: What else is known of it: a title, and what there is to say.
        where: The beginning of a query for its samples, ``run:KEY`` in backticks; None where none
            can ask for them.
        changed: How many samples it wrote or removed.
        moved: Whether it moved samples, and left their items as they were.
        took_back: The runs that it took back.
        taken_back_by: The runs that took it back.
        note: What is to be known of its indices.
    """

    run: ShownRun
    facts: list[tuple[str, str]]
    where: str | None
    changed: int
    moved: bool
    took_back: list[Reference]
    taken_back_by: list[Reference]
    note: str | None


class ChangedSample(BaseModel):
    """What a run did to one sample."""

    idx: int
    outcome: Outcome
    items: list[ShownChange]


class Changes(BaseModel):
    """What a run did to some of the samples that it changed, and how many there are."""

    samples: list[ChangedSample]
    count: int


class Failed(BaseModel):
    """A sample that failed in a run, and was not done since."""

    idx: int
    attempts: int
    error: str
    traceback: str


class Failures(BaseModel):
    """Some of the samples that failed in a run, and how many there are."""

    samples: list[Failed]
    count: int


class Undo(BaseModel):
    """A run that is to be taken back.

    Attributes:
        run_key: Its key.
        force: Also where others changed its samples since, or it is still running.
    """

    run_key: str
    force: bool = False


class ShownPlan(BaseModel):
    """What an undo would do.

    Attributes:
        undo_run_key: The run that it would be.
        samples: How many samples would be restored.
        files: How many files would be put back or removed.
        changed: Of samples that were changed since, some, with the names of the files.
        changed_count: How many of those there are.
        left: Shared items that would be left as they are.
        lost: How many files would be needed and are not there any more.
        refusal: Why it would be refused; None: it would not.
    """

    undo_run_key: str
    samples: int
    files: int
    changed: dict[int, list[str]]
    changed_count: int
    left: list[str]
    lost: int
    refusal: str | None


class Undone(BaseModel):
    """What an undo did.

    Attributes:
        undo_run_key: The run that it is, to be undone in its turn.
        folder: The name of the folder of the run that was undone.
        samples: How many samples were restored.
        files: How many files were put back or removed.
        overwritten: How many files were restored by force.
        left: Shared items that were left as they are.
    """

    undo_run_key: str
    folder: str | None
    samples: int
    files: int
    overwritten: int
    left: list[str]


def runs_routes(dataset: ShownDataset, jobs: Jobs) -> APIRouter:
    """The routes for the runs of a dataset."""
    routes = APIRouter()

    @routes.get("/api/runs")
    def runs(sizes: bool = False) -> Runs:
        if not sizes:
            found = list_runs(dataset.folder, with_undo_bytes=False)
            return Runs(runs=[_shown(one) for one in reversed(found)], undo_bytes=None)
        found, space = runs_and_space(dataset.folder)
        shown = [_shown(one, one.undo_bytes) for one in reversed(found)]
        return Runs(runs=shown, undo_bytes=space.total)

    @routes.get("/api/runs/one")
    def one(key: str, folder: str | None = None) -> RunPage:
        return _page(dataset, key, folder)

    @routes.get("/api/runs/changes")
    def changes(
        key: str, first: First = 0, most: Annotated[int, Query(ge=1, le=MOST_CHANGES)] = 12
    ) -> Changes:
        run = existing_run(dataset.stream.ledgers, key)
        indices = [] if run.is_compaction else run.changed_indices().tolist()
        found = dataset.kept.differences(run.key, indices[first : first + most])
        samples = dataset.of_each(partial(_changed, dataset, run.key), found)
        return Changes(samples=samples, count=len(indices))

    @routes.get("/api/runs/failures")
    def failures(
        key: str, first: First = 0, most: Annotated[int, Query(ge=1, le=MOST_FAILURES)] = 100
    ) -> Failures:
        return _failures(existing_run(dataset.stream.ledgers, key), first, most)

    @routes.post("/api/runs/plan-undo")
    def plan(asked: Undo) -> ShownPlan:
        return _shown_plan(plan_undo(dataset.folder, asked.run_key, asked.force))

    @routes.post("/api/runs/undo")
    def undo(asked: Undo, person: Person) -> Undone:
        facts = {"user": name_of(person)}
        jobs.end_run(asked.run_key)
        report = undo_run(dataset.folder, asked.run_key, asked.force, facts=facts)
        for run_key in report.run_keys:
            dataset.let_go(run_key)
        return Undone(
            undo_run_key=report.undo_run_key,
            folder=next(iter(report.folders), None),
            samples=report.samples,
            files=report.files,
            overwritten=len(report.overwritten),
            left=_shared(report.left),
        )

    return routes


def _shown(info: RunInfo, undo_bytes: int | None = None) -> ShownRun:
    return ShownRun(
        run_key=info.run_key,
        folder=info.folder,
        name=info.name,
        state=info.state,
        who="@".join(filter(None, (info.user, info.host))),
        started=info.started,
        last_commit=info.last_commit,
        counts=dict(info.counts),
        undo_bytes=undo_bytes,
    )


def _changed(dataset: ShownDataset, run_key: str, one: SampleDifference) -> ChangedSample:
    items = dataset.kept.shown(Change(run_key, None, one.idx), one.items)
    return ChangedSample(idx=one.idx, outcome=one.outcome, items=items)


def _page(dataset: ShownDataset, key: str, folder: str | None) -> RunPage:
    """The page of a run: of several of a key the one of this folder; else the one that stands.

    Raises:
        RunNotFoundError: If there is no such run.
    """
    every = list_runs(dataset.folder, with_undo_bytes=False)
    found = [one for one in every if key in (one.run_key, one.name)]
    exact = [one for one in found if one.folder == folder]
    standing = [one for one in found if one.state != "undone"]
    chosen = exact or standing or found[-1:]
    if not chosen:
        existing_run(dataset.stream.ledgers, key)  # raises, and says which there are
        raise RunNotFoundError(
            f"run {key!r} is not in the list: it was pruned, or begins just now."
        )
    info = chosen[0]
    run = Run(dataset.stream.ledgers, info.folder)
    is_standing = info.state != "undone"
    taken_back_by = [] if is_standing else _taken_back_by(run, every)
    return RunPage(
        run=_shown(info),
        facts=list(_facts(info)),
        where=f"`{RUN}{info.run_key}`" if is_standing and "`" not in info.run_key else None,
        changed=sum(info.counts[outcome] for outcome in ("written", "removed")),
        moved=run.is_compaction,
        took_back=_references(_taken_back(run), every),
        taken_back_by=_references(taken_back_by, every),
        note=_note(run),
    )


def _facts(info: RunInfo) -> Iterator[tuple[str, str]]:
    if info.kept:
        yield "kept", "pruning leaves it"
    if info.fingerprint is not None:
        yield "fingerprint", info.fingerprint
    if info.provenance is not None:
        yield from (pair for pair in info.provenance.lines() if pair[0] != "by")


def _taken_back(run: Run) -> list[str]:
    """The names of the folders of the runs that a run took back."""
    folders: list[str] = run.facts().get("undoes_folders", [])
    return folders


def _taken_back_by(run: Run, every: Sequence[RunInfo]) -> list[str]:
    """The names of the folders of the runs that took a run back."""
    undos = [one for one in every if one.undoes is not None and one.state != "undone"]
    return [one.folder for one in undos if run.name in _taken_back(Run(run.layout, one.folder))]


def _references(folders: Iterable[str], every: Sequence[RunInfo]) -> list[Reference]:
    keys = {one.folder: one.run_key for one in every}
    return [Reference(run_key=keys[one], folder=one) for one in folders if one in keys]


def _note(run: Run) -> str | None:
    try:
        refuse_if_compacted_since(run, run.layout)
    except DatasetError as error:
        return str(error)
    return None


def _failures(run: Run, first: int, most: int) -> Failures:
    records = run.failures()
    shown = []
    for record in records[first : first + most]:
        why = record.failure
        shown.append(
            Failed(
                idx=record.idx,
                attempts=record.attempts,
                error="not known" if why is None else f"{why.error_type}: {why.message}",
                traceback="" if why is None else why.traceback,
            )
        )
    return Failures(samples=shown, count=len(records))


def _shown_plan(plan: UndoPlan) -> ShownPlan:
    return ShownPlan(
        undo_run_key=plan.undo_run_key,
        samples=len(plan.samples),
        files=plan.files,
        changed={idx: list(names) for idx, names in islice(plan.changed.items(), _SHOWN)},
        changed_count=len(plan.changed),
        left=_shared(plan.left),
        lost=len(plan.lost),
        refusal=plan.refusal,
    )


def _shared(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("/") for name in names]
