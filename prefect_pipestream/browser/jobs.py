"""Changes to many samples that the server makes, each by a thread and as one run."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.errors import (
    ConflictError,
    DatasetWriteError,
    RunNotFoundError,
    SampleError,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.stage import REMOVE, Removal, SampleStage, StageResult
from prefect_pipestream.stages import fingerprint
from prefect_pipestream.stages.noted import noted_transform
from prefect_pipestream.underfolder import Batch, Outcome, SampleFailure
from prefect_pipestream.underfolder.ledger.provenance import PROVENANCE, software

MOST_FAILURES = 100
"""Of how many failed samples a page is told the reason; the run's page has all."""

_MOST_TRIES = 3  # of a sample that others write at the same time

State = Literal["running", "finished", "stopped", "failed"]


class Failed(BaseModel):
    """A sample that could not be changed, and why."""

    idx: int
    reason: str


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
        is_stopped = self._stop.is_set()
        if not is_stopped:  # else it shows as stopped in the list of runs, too
            stream.end_run()
        self.progress.counts = dict(stream.run.counts())
        return "stopped" if is_stopped else "finished"

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
            batch.set_output(idx, written(result, sample))

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

    def running(self) -> list[Progress]:
        """Those that go on, the first that was asked for first."""
        every = [job.progress for job in list(self._jobs.values())]
        return [one for one in every if one.state == "running"]

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


def job_routes(jobs: Jobs) -> APIRouter:
    """The routes for changes that are being made: whoever asked for them, all pages see them."""
    routes = APIRouter()

    @routes.get("/api/jobs")
    def running() -> list[Progress]:
        return jobs.running()

    @routes.get("/api/jobs/{job}")
    def progress(job: str) -> Progress:
        return jobs.get(job).progress

    @routes.post("/api/jobs/{job}/stop")
    def stop(job: str) -> Progress:
        found = jobs.get(job)
        found.stop()
        return found.progress

    return routes


def written(result: StageResult, sample: Sample) -> Sample:
    """What is written of a sample, given what a stage made of it.

    Raises:
        SampleError: If it is to be written elsewhere.
    """
    if isinstance(result, tuple):
        raise SampleError(f"the stage moves the sample to {result[1]}: that is not done here.")
    return result.made_from(sample) if isinstance(result, Sample) else sample
