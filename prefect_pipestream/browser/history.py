"""What a page asks of a sample's past: what was done to it, and to put it back."""

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from prefect_pipestream.browser.dataset import ShownDataset, name_of
from prefect_pipestream.browser.kept import Change, ShownChange, State
from prefect_pipestream.browser.person import Person
from prefect_pipestream.browser.pictures import Side, picture_answer
from prefect_pipestream.browser.shown import ShownSample, shown_sample
from prefect_pipestream.errors import ConflictError
from prefect_pipestream.storage.version import ABSENT
from prefect_pipestream.underfolder import SampleEvent, restore_sample
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.views.item_thumbnails import whole_picture

MOST_EVENTS = 50
"""How many events a page may ask for at once: their items are decoded."""

Index = Annotated[int, Query(ge=0, lt=MAX_INDEX)]
First = Annotated[int, Query(ge=0, lt=1 << 62)]


class ShownEvent(BaseModel):
    """What one commit of a run did to a sample.

    Attributes:
        run_key: The run.
        folder: What tells it from others of the same key; see `ShownRun`.
        commit_id: The commit.
        at: When.
        who: Who ran it; empty where that is not known.
        told: What became of the sample, in words.
        counts: Whether it counts, and was not taken back since.
        failure: Why it failed.
        undo: What takes it back: the undo of the commit, or of its run; None: neither does alone.
        samples: How many samples that takes back.
        items: What became of its items.
    """

    run_key: str
    folder: str
    commit_id: str
    at: datetime
    who: str
    told: str
    counts: bool
    failure: str | None
    undo: Literal["commit", "run"] | None
    samples: int
    items: list[ShownChange]


class History(BaseModel):
    """Events of a sample, the newest first.

    Attributes:
        events: Some of them.
        count: How many there are.
    """

    events: list[ShownEvent]
    count: int


class Restore(BaseModel):
    """A sample is to be put back to what it was before or after a commit.

    Attributes:
        run_key: The run.
        commit_id: The commit.
        state: Before or after it.
        version: The sample's version as it was shown; ``absent`` where there was none.
        force: Also where files were changed by no run.
    """

    run_key: str
    commit_id: str
    state: State = "before"
    version: str
    force: bool = False


class Restored(BaseModel):
    """What a restore did.

    Attributes:
        run_key: The run that it is, to be undone; None where nothing was to be done.
        files: How many files were put back or removed.
        sample: The sample as it is now; None where there is none.
    """

    run_key: str | None
    files: int
    sample: ShownSample | None


def history_routes(dataset: ShownDataset) -> APIRouter:
    """The routes for the past of samples."""
    routes = APIRouter()

    @routes.get("/api/samples/{idx}/history")
    def history(
        idx: int, first: First = 0, most: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 10
    ) -> History:
        events = dataset.kept.history(idx)[::-1]
        shown = dataset.of_each(partial(_shown, dataset, idx), events[first : first + most])
        return History(events=shown, count=len(events))

    @routes.get("/kept")
    def kept(
        run: str,
        idx: Index,
        item: str,
        state: State,
        commit: str | None = None,
        side: Side = 160,
        whole: bool = False,
    ) -> Response:
        found = dataset.kept.made_of(
            Change(run, commit, idx),
            item,
            state,
            whole_picture if whole else lambda one: dataset.thumbnails.of(one, side),
        )
        # A commit is done once; a run may go on.
        return picture_answer(found, is_lasting=commit is not None)

    @routes.post("/api/samples/{idx}/restore")
    def restore(idx: int, asked: Restore, person: Person) -> Restored:
        if dataset.versions([idx])[idx] != asked.version:
            raise ConflictError(
                f"sample {idx} was changed by somebody else since its history was shown: nothing "
                "was restored."
            )
        report = restore_sample(
            dataset.folder,
            idx,
            asked.run_key,
            state=asked.state,
            commit_id=asked.commit_id,
            force=asked.force,
            facts={"user": name_of(person)},
        )
        return Restored(
            run_key=report.run_key,
            files=len(report.written) + len(report.removed),
            sample=_now(dataset, idx),
        )

    return routes


def _now(dataset: ShownDataset, idx: int) -> ShownSample | None:
    try:
        sample = dataset.sample(idx)
    except IndexError:  # it was the last one, and is not there now
        return None
    if sample.version == ABSENT:  # of a gap there are the shared items
        return None
    return shown_sample(idx, sample, sample)


def _shown(dataset: ShownDataset, idx: int, event: SampleEvent) -> ShownEvent:
    change = Change(event.run_key, event.commit_id, idx)
    failure = event.failure
    return ShownEvent(
        run_key=event.run_key,
        folder=event.folder,
        commit_id=event.commit_id,
        at=event.at,
        who="@".join(filter(None, (event.user, event.host))),
        told=_told(event),
        counts=event.counts,
        failure=None if failure is None else f"{failure.error_type}: {failure.message}",
        undo=_undo_of(event),
        samples=event.samples,
        items=dataset.kept.shown(change, event.items),
    )


def _undo_of(event: SampleEvent) -> Literal["commit", "run"] | None:
    if not (event.counts and event.items):
        return None
    if event.restores is not None and event.samples == 1:
        return "run"
    return "commit" if event.is_edit else None


def _told(event: SampleEvent) -> str:
    if event.moved_from is not None:
        return f"moved from {event.moved_from} to {event.idx}"
    if event.restores is not None:
        return f"put back to what run {event.restores!r} found or left"
    if event.undoes is not None:
        return f"run {event.undoes!r} taken back"
    return event.outcome
