"""What a page asks of many samples: which there are, which a query finds, what changed since."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query
from pydantic import BaseModel

from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.pictures import Side, inline
from prefect_pipestream.browser.shown import kind_of
from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.sequences import SamplesSequence

MOST_ASKED = 500
"""Of how many samples a page may ask at once what they are like."""
MOST_PICTURED = 120
"""Of how many samples a page may ask at once for pictures."""
_LOOKED_AT = 20  # samples whose items tell the keys of the dataset


class Ranges(BaseModel):
    """Samples in their order, as the ranges of indices that they are.

    Attributes:
        ranges: The first index of each range, and how many indices it has.
        count: How many samples these are.
        known: Of how many samples it is known whether, and where, they are among them.
        of: How many samples there are.
        warning: What is wrong with samples that were asked.
    """

    ranges: list[tuple[int, int]]
    count: int
    known: int
    of: int
    warning: str | None = None


class Pictures(BaseModel):
    """What a sample looks like.

    Attributes:
        version: What it was like on disk before the pictures were made, or ``absent``: no picture
            is older.
        pictures: A small picture of each item that was asked for, as an address that holds it.
        problems: Why there is none, for each that is missing.
    """

    version: str
    pictures: list[str | None]
    problems: list[str | None]


class Key(BaseModel):
    """A key that samples have, and what its items are shown as."""

    key: str
    kind: str


def grid_routes(dataset: ShownDataset) -> APIRouter:
    """The routes for many samples of a dataset."""
    routes = APIRouter()

    @routes.get("/api/keys")
    def keys() -> list[Key]:
        return _keys(dataset)

    @routes.get("/api/found")
    def found(where: str = "", sort: str = "", descending: bool = False) -> Ranges:
        answer = dataset.found(where)
        indices, unread = answer.indices, 0
        if sort.strip():
            indices, unread = dataset.sorted(answer, sort.strip(), descending)
        return Ranges(
            ranges=ranges_of(indices),
            count=len(indices),
            known=min(answer.known, answer.of - unread),
            of=answer.of,
            warning=answer.warning(),
        )

    @routes.get("/api/versions")
    def versions(
        indices: Annotated[list[int], Query(max_length=MOST_ASKED)],
    ) -> dict[int, str]:
        return dataset.versions(indices)

    @routes.get("/api/pictures")
    def pictures(
        indices: Annotated[list[int], Query(max_length=MOST_PICTURED)],
        keys: Annotated[list[str], Query(max_length=2)],
        side: Side = 160,
    ) -> dict[int, Pictures]:
        versions = dataset.versions(indices)  # before, so that no picture is older than it says
        now = dataset.now()

        def picture(idx: int) -> Pictures:
            return _pictures(dataset, now, idx, keys, side, versions[idx])

        return dict(zip(versions, dataset.of_each(picture, versions), strict=True))

    return routes


def _pictures(
    dataset: ShownDataset,
    now: SamplesSequence,
    idx: int,
    keys: list[str],
    side: int,
    version: str,
) -> Pictures:
    pictures: list[str | None] = []
    problems: list[str | None] = []
    for key in keys:
        try:
            item, problem = dataset.item(idx, key, now), "it has no picture."
            found = dataset.thumbnails.of(item, side, is_fresh=True)
        except (PipestreamError, OSError, IndexError) as error:
            found, problem = None, str(error)
        pictures.append(None if found is None else inline(found))
        problems.append(None if found is not None else problem)
    return Pictures(version=version, pictures=pictures, problems=problems)


def ranges_of(indices: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """The ranges that indices consist of, in their order: the first of each, and its length."""
    starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(indices))
    return list(zip(indices[starts].tolist(), lengths.tolist(), strict=True))


def _keys(dataset: ShownDataset) -> list[Key]:
    """The keys of samples from all over the dataset, in the order of a sample's page."""
    indices = dataset.indices()
    step = max(1, len(indices) // _LOOKED_AT)
    found: dict[str, Any] = {}
    now = dataset.now()
    for idx in indices[::step].tolist():
        for key, item in _items_of(now, idx):
            found.setdefault(key, kind_of(item))
    return [Key(key=key, kind=kind) for key, kind in found.items()]


def _items_of(now: SamplesSequence, idx: int) -> Iterable[tuple[str, Any]]:
    try:
        return now[idx].in_order().items()
    except IndexError:  # removed just now
        return ()
