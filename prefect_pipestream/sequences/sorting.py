"""Samples in the order of a value in their metadata."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import QueryError
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.catalog.catalog import ItemCatalog

Ints = npt.NDArray[np.int64]


class Sorted(NamedTuple):
    """Samples in an order.

    Attributes:
        indices: Their indices: int64.
        unread: How many there are whose value is not known yet; they are the last.
    """

    indices: Ints
    unread: int


def sort_by_value(
    dataset: Underfolder,
    indices: Ints,
    path: str,
    *,
    descending: bool = False,
    most_reads: int | None = None,
) -> Sorted:
    """Sorts samples by a value in their metadata.

    Numbers come before text, and text before all else; samples without the value are the last,
    whether ascending or descending. Equal ones stay in the order of their indices.

    Args:
        dataset: The dataset.
        indices: Samples of it, as they were listed: int64, ascending.
        path: The item's key and the way to the value, such as ``metadata.label``.
        descending: Whether the greatest comes first.
        most_reads: How many metadata files may be read for it; see `find`.

    Raises:
        QueryError: If the path leads into an item that is no metadata.
        DatasetError: If the dataset cannot be read.
    """
    there = dataset.indices()
    catalog = ItemCatalog(dataset, path.partition(".")[0], most_reads, there)
    foreign = catalog.foreign_name()
    if foreign is not None:
        raise QueryError(f"{path!r}: {foreign} is no metadata, by which samples could be sorted.")
    column = catalog.columns([path])[path]
    ranks = _ranks(column.values, descending)
    indices = indices[np.isin(indices, there, assume_unique=True)]  # others were removed meanwhile
    at = np.searchsorted(there, indices)
    unread = np.isin(indices, catalog.unread, assume_unique=True)
    order = np.lexsort((indices, ranks[column.codes[at]], unread))
    return Sorted(indices[order], int(unread.sum()))


def _ranks(values: list[list[Any]], descending: bool) -> Ints:
    """The place of each value among all of them; that of no value is the last."""
    keys = [_key(found[0]) if found else None for found in values]
    known = sorted({key for key in keys if key is not None}, reverse=descending)
    place = {key: rank for rank, key in enumerate(known)}
    return np.array([len(known) if key is None else place[key] for key in keys], dtype=np.int64)


def _key(value: Any) -> tuple[int, int | float, str] | None:
    if value is None or value != value:  # not a number
        return None
    if isinstance(value, bool | int | float):
        return (0, value, "")
    return (1, 0.0, value) if isinstance(value, str) else (2, 0.0, repr(value))
