"""What a page asks of one sample: to show it, edits of it too, to save them, to take them back."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.edits import Edit, Edits, edited, removed_keys
from prefect_pipestream.browser.person import Person
from prefect_pipestream.browser.pictures import SHOWN_SIDE, picture_answer
from prefect_pipestream.browser.shown import ShownSample, shown_sample
from prefect_pipestream.errors import ConflictError
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.version import ABSENT
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.views import Thumbnail
from prefect_pipestream.views.item_thumbnails import whole_picture

SaveId = Annotated[str, Field(pattern="^[0-9A-Za-z]{16,64}$")]


class Edited(BaseModel):
    """Edits of a sample.

    Attributes:
        version: The version of the sample that they were made of.
        edits: The edits, in their order.
    """

    version: str
    edits: Edits


class Save(Edited):
    """Edits of a sample that are to be saved.

    Attributes:
        save_id: What the page calls this save, by chance: sent once more, it is not made twice.
    """

    save_id: SaveId | None = None


class Saved(BaseModel):
    """What a save did.

    Attributes:
        commit_id: The commit, to be undone; None where all was as it is.
        run_key: The run that it is part of.
        keys: The items that were written, or removed.
        sample: The sample as it is now.
    """

    commit_id: str | None
    run_key: str
    keys: list[str]
    sample: ShownSample


class Undo(BaseModel):
    """A commit that is to be taken back."""

    run_key: str
    commit_id: str


def sample_routes(dataset: ShownDataset) -> APIRouter:
    """The routes for one sample of a dataset."""
    routes = APIRouter()

    @routes.get("/picture/{idx}/{key}")
    def picture(idx: int, key: str, version: str = "", whole: bool = False) -> Response:
        if whole:
            return _picture(dataset, idx, whole_picture(dataset.item(idx, key)), version)
        return _picture(dataset, idx, dataset.thumbnail(idx, key, SHOWN_SIDE), version)

    @routes.get("/api/samples/{idx}")
    def show(idx: int) -> ShownSample:
        sample = dataset.sample(idx)
        return shown_sample(idx, sample, sample)

    @routes.post("/api/samples/{idx}/preview")
    def preview(idx: int, asked: Edited) -> ShownSample:
        saved = _as_shown(dataset, idx, asked.version)
        with _edited(saved, asked.edits, idx) as sample:
            return shown_sample(idx, sample, saved, removed_keys(sample, asked.edits))

    @routes.post("/api/samples/{idx}/save")
    def save(idx: int, asked: Save, person: Person) -> Saved:
        try:
            return _saved(dataset, idx, asked, person)
        except ConflictError:  # maybe with itself, as its answer was lost
            done = _saved_before(dataset, idx, asked.save_id)
            if done is None:
                raise
            return done

    @routes.get("/api/samples/{idx}/saves/{save_id}")
    def saved(idx: int, save_id: SaveId) -> Saved | None:
        return _saved_before(dataset, idx, save_id)

    @routes.post("/api/undo")
    def undo(asked: Undo, person: Person) -> dict[str, Any]:
        report = dataset.undo(asked.run_key, asked.commit_id, person)
        return {"commit_id": report.commit_id, "run_key": report.run_key}

    return routes


def _saved(dataset: ShownDataset, idx: int, asked: Save, person: str) -> Saved:
    """Saves edits, in one commit.

    Raises:
        ConflictError: If the sample is another one by now.
    """
    saved = _as_shown(dataset, idx, asked.version)
    with _edited(saved, asked.edits, idx) as sample:
        stream = dataset.stream_of(person)
        staged = stream.set_output(
            idx,
            sample,
            if_version=asked.version,
            write_id=asked.save_id,
            removes=removed_keys(sample, asked.edits),
        )
    changed = (n for one in staged for n in (*(one.record.writes or ()), *one.record.removes))
    now = dataset.sample(idx)
    return Saved(
        commit_id=staged[0].commit_id if staged else None,
        run_key=stream.run_key,
        keys=sorted(set(map(key_of, changed))),
        sample=shown_sample(idx, now, now),
    )


def _saved_before(dataset: ShownDataset, idx: int, save_id: str | None) -> Saved | None:
    """What a save did, if it was made and not taken back since."""
    if save_id is None:
        return None
    dataset.stream.recover()  # waits for a commit of which files are seen before the ledger has it
    for event in dataset.kept.history(idx):
        if event.write_id == save_id and event.counts:
            now = dataset.sample(idx)
            return Saved(
                commit_id=event.commit_id,
                run_key=event.run_key,
                keys=[change.key for change in event.items],
                sample=shown_sample(idx, now, now),
            )
    return None


def _as_shown(dataset: ShownDataset, idx: int, version: str) -> Sample:
    """The sample that a page shows.

    Raises:
        ConflictError: If it is another one by now.
    """
    sample = dataset.sample(idx)
    if sample.version != version:
        raise ConflictError(f"sample {idx} was changed by somebody else since it was shown.")
    if version == ABSENT:  # an edit would make a new one, of what it sets alone
        raise IndexError(f"sample {idx}: there is none.")
    return sample


@contextmanager
def _edited(saved: Sample, edits: list[Edit], idx: int) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory(prefix="pipestream-upload-") as folder:
        yield edited(saved, edits, idx, Path(folder))


def _picture(dataset: ShownDataset, idx: int, found: Thumbnail | None, version: str) -> Response:
    """A picture for the page, which keeps it for the version of the sample that it is of."""
    is_of_version = version != "" and dataset.versions([idx])[idx] == version
    return picture_answer(found, is_lasting=is_of_version)
