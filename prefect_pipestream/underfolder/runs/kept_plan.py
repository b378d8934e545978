"""Plans of runs, kept until they are followed: which samples, and what their files were like.

``.pipestream/plans/<key>.npz``, a file or an object, has the samples as columns, and what else is
to be known as JSON. A plan only ever takes samples away from a run, each of which the run names:
one that a stranger wrote can do no more.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, PlanError
from prefect_pipestream.storage.asking import is_of_disk
from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.format.documents import Documents, documents_of
from prefect_pipestream.underfolder.format.layout import Folder, folder_of
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.format.run_key import is_run_key, new_run_key
from prefect_pipestream.underfolder.ledger.packed import arrays_in

KEPT_DAYS = 14
"""How long a plan is kept."""
_MOST_KEPT = 50
_KEY = re.compile(r"plan-\d{8}T\d{6}-[0-9a-f]{6}")
_SELECTS = ("all", "changed", "failed")
_IN_PLACE = ""
_PLANS = "plans"


def new_plan_key() -> str:
    """A key for a plan that nobody else has."""
    return new_run_key("plan")


def is_plan_key(key: str) -> bool:
    """Whether a run's key is that of a plan: then the run goes by it."""
    return _KEY.fullmatch(key) is not None


@dataclass(frozen=True)
class KeptPlan:
    """What a run is to keep to that follows a plan.

    Attributes:
        key: The plan's key.
        fingerprint: The transform's, with the items to write.
        transform: The transform in words, for messages.
        target: The root of the dataset that is to be written.
        select: Which samples were asked for.
        where: The query that was true of them; None for none.
        failed_in: The run whose failed samples they are, if they are.
        idx: The samples to process: int64, ascending.
        own: The signature of each one's own files: uint64, 0 where it could not be told.
        shared: That of the shared items; 0 for none.
        named: The samples that were chosen from, by index: int64; None was all.
    """

    key: str
    fingerprint: str
    transform: str
    target: str
    select: str
    where: str | None
    failed_in: str | None
    idx: npt.NDArray[np.int64]
    own: npt.NDArray[np.uint64]
    shared: int
    named: npt.NDArray[np.int64] | None


def keep_plan(folder: Folder, plan: KeptPlan) -> None:
    """Keeps a plan with a dataset, and removes old ones.

    Args:
        folder: The dataset's root, which exists, or its address.
        plan: The plan.

    Raises:
        DatasetError: If a link is in the way, or a store does not take it.
        OSError: If it cannot be written, as where the dataset is read-only.
    """
    documents = documents_of(folder)
    is_in_place = plan.target == documents.root
    facts: dict[str, Any] = {
        "key": plan.key,
        "fingerprint": plan.fingerprint,
        "transform": plan.transform,
        "target": _IN_PLACE if is_in_place else plan.target,
        "select": plan.select,
        "where": plan.where,
        "failed_in": plan.failed_in,
    }
    shared = np.array([plan.shared], np.uint64)
    columns: dict[str, Any] = {"idx": plan.idx, "own": plan.own, "shared": shared}
    if plan.named is not None:
        columns["named"] = plan.named
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    content = BytesIO()
    np.savez_compressed(content, facts=text, **columns)
    _sweep(documents)
    documents.write(content.getvalue(), *_name_of(plan.key))


@DatasetError.explaining_questions()
def kept_plan(folder: Folder, key: str) -> KeptPlan | None:
    """The plan of a key that is kept with a dataset; None if there is none.

    Raises:
        PlanError: If it cannot be read.
        DatasetError: If a link is in the way, or a store cannot be asked.
    """
    documents = documents_of(folder)
    path = documents.at(*_name_of(key))
    try:
        content = documents.read(*_name_of(key))
        if content is None:
            return None
        plan = _plan_of(arrays_in(content))
    except Exception as error:  # damaged content makes its decoders raise anything
        if is_of_disk(error) or isinstance(error, DatasetError):
            raise
        raise PlanError(
            f"{path}: this plan cannot be read ({error}). Plan the run again, and follow that plan."
        ) from error
    if plan.key != key:
        raise PlanError(f"{path}: this is the plan {plan.key!r}, and not {key!r}. Plan again.")
    return plan if plan.target != _IN_PLACE else replace(plan, target=documents.root)


def damaged_plans(folder: Folder) -> Iterator[str]:
    """The names of the documents among the plans of a dataset that cannot be read as one.

    Args:
        folder: The dataset's root, or its address.

    Raises:
        OSError: If a file cannot be read.
        StoreError: If a store cannot be asked.
    """
    documents = documents_of(folder)
    for name in sorted(documents.names_in(_PLANS)):
        try:
            content = documents.read(_PLANS, name)
            if content is not None:  # else it was swept meanwhile
                _plan_of(arrays_in(content))
        except Exception as error:  # damaged content makes its decoders raise anything
            if is_of_disk(error) or isinstance(error, StoreError):
                raise
            yield name


def _plan_of(found: Mapping[str, npt.NDArray[Any]]) -> KeptPlan:
    """Makes a plan of what a file says.

    Raises:
        KeyError, TypeError, ValueError, RecursionError: If it says something else.
    """
    facts = json.loads(bytes(found["facts"]))
    texts = {name: _text(facts[name]) for name in ("fingerprint", "transform", "target")}
    if not is_run_key(facts["key"]) or facts["select"] not in _SELECTS:
        raise ValueError("its key or its selection is none")
    failed_in = _text_or_none(facts["failed_in"])
    if failed_in is not None and not is_run_key(failed_in):
        raise ValueError("what it calls a run is none")
    idx, own = _column(found["idx"], np.int64), _column(found["own"], np.uint64)
    shared = _column(found["shared"], np.uint64)
    named = _column(found["named"], np.int64) if "named" in found else None
    if len(idx) != len(own) or len(shared) != 1:
        raise ValueError("its columns have different lengths")
    for indices in (idx, named):
        if indices is not None and not _are_indices(indices):
            raise ValueError("its samples are not ascending, or no samples")
    return KeptPlan(
        key=facts["key"],
        **texts,
        select=facts["select"],
        where=_text_or_none(facts["where"]),
        failed_in=failed_in,
        idx=idx,
        own=own,
        shared=int(shared[0]),
        named=named,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is none")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _column(column: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    if column.ndim != 1 or column.dtype != dtype:
        raise ValueError("a column is none")
    return column


def _are_indices(indices: npt.NDArray[np.int64]) -> bool:
    if not len(indices):
        return True
    is_ascending = bool((indices[1:] > indices[:-1]).all())
    return is_ascending and int(indices[0]) >= 0 and int(indices[-1]) < MAX_INDEX


def _name_of(key: str) -> tuple[str, str]:
    return _PLANS, folder_of(key) + ".npz"


def _sweep(documents: Documents) -> None:
    """Removes plans that are old, or more than are kept."""
    found = documents.times_in(_PLANS)
    by_age = sorted(((made, name) for name, made in found.items()), reverse=True)
    oldest = time.time() - KEPT_DAYS * 86_400
    for number, (made, name) in enumerate(by_age, 1):
        if made < oldest or number >= _MOST_KEPT:
            documents.remove(_PLANS, name)
