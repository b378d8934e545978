"""One change to many samples: some are shown first, then it is one run, to be undone as a whole."""

import secrets
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import numpy as np
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field

from prefect_pipestream.browser.dataset import ShownDataset, name_of, run_key_of
from prefect_pipestream.browser.edits import EditOfMany, as_stage, refuse_shared, told
from prefect_pipestream.browser.flow_runs import (
    Deployment,
    FlowRun,
    cleaning_deployments,
    start_cleaning,
)
from prefect_pipestream.browser.jobs import Job, Jobs, Progress, written
from prefect_pipestream.browser.person import Person
from prefect_pipestream.browser.shown import ShownSample, shown_sample
from prefect_pipestream.errors import SampleError
from prefect_pipestream.sequences.stage import Removal, SampleStage, resolve_stage
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.views.differences import item_differences

MOST_SHOWN = 6
"""Of how many samples a preview shows what would become."""
MOST_NAMED = 20_000
"""How many samples can be named one by one to a flow run: Prefect takes 512 kB of parameters."""


_within = AfterValidator(lambda number: min(number, MAX_INDEX))  # of any size, as they came
_Begin = Annotated[int, Field(ge=0), _within]
_Length = Annotated[int, Field(ge=1), _within]


class Change(BaseModel):
    """A change to many samples.

    Attributes:
        ranges: The samples: the first index of each range, and how many indices it has.
        edits: What to do with each, in this order.
        removes: Whether they are removed from the dataset; then there are no edits.
    """

    ranges: list[tuple[_Begin, _Length]]
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
        """Those of the samples that there are, ascending.

        Raises:
            SampleError: If an edit is of what they share, of which nothing would be written.
        """
        there = dataset.indices()
        if not self.ranges:
            return []
        first, length = np.array(self.ranges, dtype=np.int64).T
        begin, end = np.searchsorted(there, [first, first + length])
        parts = [there[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        chosen: list[int] = np.unique(np.concatenate(parts)).tolist()
        for edit in self.edits if chosen else ():
            refuse_shared(dataset.sample(chosen[0]), edit)
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
        indices = self.indices(dataset)
        if self.where is not None:
            return {**found, "where": self.where.strip() or None}
        if len(indices) > MOST_NAMED:
            raise SampleError(
                f"{len(indices):,} samples are too many to be named to a flow run, which takes "
                f"{MOST_NAMED:,}: find them by a query, with none selected."
            )
        return {**found, "indices": indices}


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

    return routes


def _before(dataset: ShownDataset, idx: int, stage: SampleStage | None) -> Before:
    sample = dataset.sample(idx)
    before = shown_sample(idx, sample, sample)
    if stage is None:
        return Before(before=before, after=None)
    try:
        result = stage(sample)
        if isinstance(result, Removal):
            return Before(before=before, after=None)
        after = written(result, sample)
        changed = [key for key, item in after.items() if sample.get(key) is not item]
        return Before(
            before=before,
            after=shown_sample(idx, after, sample),
            differences={k: item_differences(k, sample.get(k), after[k]) for k in changed},
        )
    except Exception as error:  # noqa: BLE001 - the page says it
        return Before(before=before, after=None, failure=f"{type(error).__name__}: {error}")
