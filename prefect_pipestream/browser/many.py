"""One change to many samples: some are shown first, then it is one run, to be undone as a whole."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from threading import Event, Thread
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from prefect_pipestream.browser.dataset import ShownDataset, name_of, run_key_of
from prefect_pipestream.browser.edits import EditOfMany, as_stage, told
from prefect_pipestream.browser.flow_runs import (
    Deployment,
    FlowRun,
    cleaning_deployments,
    start_cleaning,
)
from prefect_pipestream.browser.person import Person
from prefect_pipestream.browser.shown import ShownSample, shown_sample
from prefect_pipestream.errors import (
    ConflictError,
    DatasetWriteError,
    RunNotFoundError,
    SampleError,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.stage import (
    REMOVE,
    Removal,
    SampleStage,
    StageResult,
    resolve_stage,
)
from prefect_pipestream.stages import fingerprint
from prefect_pipestream.stages.noted import noted_transform
from prefect_pipestream.underfolder import Batch, Outcome, SampleFailure, end_run
from prefect_pipestream.underfolder.ledger.provenance import PROVENANCE, software
from prefect_pipestream.views.differences import item_differences

MOST_SHOWN = 6
"""Of how many samples a preview shows what would become."""
MOST_FAILURES = 100
"""Of how many failed samples a page is told the reason; the run's page has all."""
MOST_NAMED = 20_000
"""How many samples can be named one by one to a flow run: Prefect takes 512 kB of parameters."""

_MOST_TRIES = 3  # of a sample that others write at the same time

State = Literal["running", "finished", "stopped", "failed"]


class Change(BaseModel):
    """A change to many samples.

    Attributes:
        ranges: The samples: the first index of each range, and how many indices it has.
        edits: What to do with each, in this order.
        removes: Whether they are removed from the dataset; then there are no edits.
    """

    ranges: list[tuple[NonNegativeInt, PositiveInt]]
    edits: Annotated[list[EditOfMany], Field(max_length=100)] = []
    removes: bool = False

    def stage(self) -> SampleStage | None:
        """What is applied to each sample; None where they are removed.

        Raises:
            PipeBuildingError: If it is none that can be applied here.
            SampleError: If there is nothing to be done.
        """
        if self.removes == bool(self.edits):
            raise SampleError("expected edits, or that the samples are removed; not both.")
        return None if self.removes else resolve_stage([as_stage(edit) for edit in self.edits])

    def indices(self, dataset: ShownDataset) -> list[int]:
        """Those of the samples that there are, ascending."""
        there = dataset.indices()
        if not self.ranges:
            return []
        first, length = np.array(self.ranges, dtype=np.float64).T  # of any size, as they came
        begin, end = np.searchsorted(there, [first, first + length])
        parts = [there[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        chosen: list[int] = np.unique(np.concatenate(parts)).tolist()
        return chosen


class FlowRunAsked(Change):
    """A change that a flow run is to make.

    Attributes:
        deployment: The deployment.
        where: The query by which the samples were found; None: they are those of the ranges.
    """

    deployment: UUID
    where: str | None = None

    def parameters(self, dataset: ShownDataset) -> dict[str, Any]:
        """The parameters of the flow.

        Raises:
            PipestreamError: If it is none that a flow run can make.
        """
        if self.stage() is None:
            raise SampleError("a flow run removes no samples: do that here.")
        found: dict[str, Any] = {
            "dataset": str(dataset.folder),
            "transform": [as_stage(edit) for edit in self.edits],
        }
        if self.where is not None:
            return {**found, "where": self.where.strip() or None}
        indices = self.indices(dataset)
        if len(indices) > MOST_NAMED:
            raise SampleError(
                f"{len(indices):,} samples are too many to be named to a flow run, which takes "
                f"{MOST_NAMED:,}: find them by a query, with none selected."
            )
        return {**found, "indices": indices}


class Failed(BaseModel):
    """A sample that could not be changed, and why."""

    idx: int
    reason: str


class Before(BaseModel):
    """A sample before and after a change.

    Attributes:
        before: As it is.
        after: As it would be; None where it would be removed, or failed.
        differences: What would be another one, in words, by the items' keys.
        failure: Why it would fail.
    """

    before: ShownSample
    after: ShownSample | None
    differences: dict[str, list[str]] = {}
    failure: str | None = None


class Progress(BaseModel):
    """How far a change is.

    Attributes:
        job: By what it is asked for.
        run_key: The run that it is, to be undone by.
        state: How it is; ``failed``: the dataset could not be written.
        done: How many samples are done.
        of: How many there are to do.
        counts: How many samples had each outcome.
        failed: The first that failed.
        problem: Why it could not go on.
    """

    job: str
    run_key: str
    state: State = "running"
    done: int = 0
    of: int
    counts: dict[Outcome, int] = {}
    failed: list[Failed] = []
    problem: str | None = None


class Job:
    """A change that a thread makes, sample by sample.

    Args:
        dataset: The dataset.
        run_key: The run that it is to be, its own.
        indices: The samples.
        stage: What is applied to each; None removes them.
        person: Who asked for it.
    """

    def __init__(
        self,
        dataset: ShownDataset,
        run_key: str,
        indices: Sequence[int],
        stage: SampleStage | None,
        person: str,
    ) -> None:
        self.progress = Progress(job=secrets.token_urlsafe(8), run_key=run_key, of=len(indices))
        self._open = partial(dataset.stream.with_run, run_key)
        self._indices = indices
        self._stage = stage
        self._stop = Event()
        noted = "remove" if stage is None else noted_transform(stage)
        self._open().begin_run(
            fingerprint="remove" if stage is None else fingerprint(stage),
            user=person,
            **{PROVENANCE: {**software(), "transform": noted}},
        )
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it after the sample that it is at; what is done stays, and can be undone."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        state: State = "failed"
        try:
            state = self._work()
        except Exception as error:  # noqa: BLE001 - the page says it
            self.progress.problem = f"{type(error).__name__}: {error}"
        # Only now: the stream is gone, and the run is no longer one that is being written.
        self.progress.state = state

    def _work(self) -> State:
        stream = self._open()
        with stream.commit_group(signed=True) as batch:
            todo = self._indices
            for _ in range(_MOST_TRIES):
                todo = self._round(todo, stream, batch)
            for idx in () if self._stop.is_set() else todo:
                self._fail(idx, ConflictError("others wrote it at the same time."), batch)
                self.progress.done += 1
        end_run(stream.run)
        self.progress.counts = dict(stream.run.counts())
        return "stopped" if self._stop.is_set() else "finished"

    def _round(self, todo: Sequence[int], stream: DataStream, batch: Batch) -> list[int]:
        """Changes samples; those that others changed meanwhile are to be done again."""
        conflicts: list[int] = []
        for idx in todo:
            if self._stop.is_set():  # what conflicted, or was not reached, stays as it is
                break
            with _noting(conflicts):
                try:
                    self._change(idx, stream, batch)
                except (ConflictError, DatasetWriteError):
                    raise
                except Exception as error:  # noqa: BLE001 - it is the sample's, and noted
                    self._fail(idx, error, batch)
            self.progress.done += 1
        with _noting(conflicts):
            batch.flush()
        self.progress.done -= len(conflicts)
        return conflicts

    def _change(self, idx: int, stream: DataStream, batch: Batch) -> None:
        try:
            sample = stream[idx]
        except IndexError:  # removed by somebody else meanwhile
            batch.record(idx, "skipped")
            return
        result = REMOVE if self._stage is None else self._stage(sample)
        if isinstance(result, Removal):
            batch.remove(idx, origin=sample.origin)
        elif result is None:
            batch.record(idx, "skipped", origin=sample.origin)
        else:
            batch.set_output(idx, _written(result, sample))

    def _fail(self, idx: int, error: Exception, batch: Batch) -> None:
        batch.record(idx, "failed", failure=SampleFailure.of_error(error))
        if len(self.progress.failed) < MOST_FAILURES:
            self.progress.failed.append(Failed(idx=idx, reason=f"{type(error).__name__}: {error}"))


@contextmanager
def _noting(conflicts: list[int]) -> Iterator[None]:
    try:
        yield
    except ConflictError as error:
        conflicts += error.indices


class Jobs:
    """The changes that were asked for since the server started, by their names."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def start(self, job: Job) -> Progress:
        """Begins a job."""
        job.start()
        self._jobs[job.progress.job] = job
        return job.progress

    def get(self, name: str) -> Job:
        """A job.

        Raises:
            RunNotFoundError: If there is none of that name.
        """
        if name not in self._jobs:
            raise RunNotFoundError("The server was started anew since: see the dataset's runs.")
        return self._jobs[name]

    def end_run(self, run_key: str) -> None:
        """Stops what writes a run, so that it can be undone."""
        for job in list(self._jobs.values()):
            if job.progress.run_key == run_key:
                job.stop()

    def end(self) -> None:
        """Stops all of them, as the server ends."""
        for job in list(self._jobs.values()):
            job.stop()


def many_routes(dataset: ShownDataset, jobs: Jobs) -> APIRouter:
    """The routes for changes to many samples."""
    routes = APIRouter()

    @routes.post("/api/many/preview")
    def preview(asked: Change) -> list[Before]:
        stage = asked.stage()
        return [_before(dataset, idx, stage) for idx in asked.indices(dataset)[:MOST_SHOWN]]

    @routes.post("/api/many")
    def start(asked: Change, person: Person) -> Progress:
        stage, indices, name = asked.stage(), asked.indices(dataset), name_of(person)
        what = "remove" if asked.removes else ", ".join(told(edit) for edit in asked.edits)
        key = f"{run_key_of(name, datetime.now())}: {what} {secrets.token_hex(2)}"
        return jobs.start(Job(dataset, key, indices, stage, name))

    @routes.get("/api/many/deployments")
    def deployments() -> list[Deployment]:
        return cleaning_deployments()

    @routes.post("/api/many/flow-run")
    def flow_run(asked: FlowRunAsked, person: Person) -> FlowRun:
        name, parameters = name_of(person), asked.parameters(dataset)
        what = ", ".join(told(edit) for edit in asked.edits)
        return start_cleaning(asked.deployment, f"{name} in the browser: {what}", parameters)

    @routes.get("/api/many/{job}")
    def progress(job: str) -> Progress:
        return jobs.get(job).progress

    @routes.post("/api/many/{job}/stop")
    def stop(job: str) -> Progress:
        found = jobs.get(job)
        found.stop()
        return found.progress

    return routes


def _written(result: StageResult, sample: Sample) -> Sample:
    """What is written of a sample, given what a stage made of it.

    Raises:
        SampleError: If it is to be written elsewhere.
    """
    if isinstance(result, tuple):
        raise SampleError(f"the stage moves the sample to {result[1]}: that is not done here.")
    return result.made_from(sample) if isinstance(result, Sample) else sample


def _before(dataset: ShownDataset, idx: int, stage: SampleStage | None) -> Before:
    sample = dataset.sample(idx)
    before = shown_sample(idx, sample, sample)
    if stage is None:
        return Before(before=before, after=None)
    try:
        result = stage(sample)
        if isinstance(result, Removal):
            return Before(before=before, after=None)
        after = _written(result, sample)
        changed = [key for key, item in after.items() if sample.get(key) is not item]
        return Before(
            before=before,
            after=shown_sample(idx, after, sample),
            differences={k: item_differences(k, sample.get(k), after[k]) for k in changed},
        )
    except Exception as error:  # noqa: BLE001 - the page says it
        return Before(before=before, after=None, failure=f"{type(error).__name__}: {error}")
