"""Plans of runs, as they are kept in a dataset."""

import os
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import PlanError
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import check
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.runs.kept_plan import (
    KeptPlan,
    is_plan_key,
    keep_plan,
    kept_plan,
    new_plan_key,
)


@pytest.fixture
def plan(dataset: Place) -> KeptPlan:
    return KeptPlan(
        key="a plan / of mine",
        fingerprint="f:image",
        transform="invert",
        target=documents_of(dataset).root,
        select="failed",
        where="metadata.label == 3",
        failed_in="r",
        idx=np.array([1, 4], np.int64),
        own=np.array([2**64 - 1, 0], np.uint64),
        shared=7,
        named=None,
    )


def plain(plan: KeptPlan) -> dict[str, object]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(plan).items()}


def test_a_plan_is_kept_as_it_is(dataset: Place, plan: KeptPlan) -> None:
    for one in (plan, replace(plan, key="b", named=plan.idx, target="/elsewhere", where=None)):
        keep_plan(dataset, one)
        found = kept_plan(dataset, one.key)
        assert found is not None
        assert plain(found) == plain(one)
    assert kept_plan(dataset, "c") is None
    assert check(dataset).ok


@pytest.mark.about_files
def test_a_plan_goes_with_the_dataset_that_it_is_of(dataset: Path, plan: KeptPlan) -> None:
    keep_plan(dataset, plan)
    moved = dataset.rename(dataset.parent / "moved")
    found = kept_plan(moved, plan.key)
    assert found is not None
    assert found.target == str(moved)


@pytest.mark.about_files
def test_old_plans_are_removed_when_another_is_kept(dataset: Path, plan: KeptPlan) -> None:
    for number in range(52):
        keep_plan(dataset, replace(plan, key=f"p{number:02}"))
        path = dataset / f".pipestream/plans/p{number:02}.npz"
        days = 15 if number == 51 else 1
        os.utime(path, (time.time() - days * 86_400 + number,) * 2)
    keep_plan(dataset, plan)
    names = {path.name for path in (dataset / ".pipestream/plans").iterdir()}
    assert "p51.npz" not in names
    assert "p50.npz" in names
    assert len(names) == 50


def test_as_many_plans_are_kept_as_are_wanted(dataset: Place, plan: KeptPlan) -> None:
    for number in range(52):
        keep_plan(dataset, replace(plan, key=f"p{number:02}"))
    assert len(documents_of(dataset).names_in("plans")) == 50
    assert kept_plan(dataset, "p51") is not None


def bomb() -> bytes:
    content = BytesIO()
    np.savez_compressed(content, facts=np.zeros(1 << 28, np.uint8))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["cut", "text", "bomb", "other"])
def test_a_damaged_plan_is_refused_and_found_by_check(
    dataset: Place, plan: KeptPlan, kind: str
) -> None:
    keep_plan(dataset, plan)
    documents = documents_of(dataset)
    (name,) = documents.names_in("plans")
    content = documents.read("plans", name)
    assert content is not None
    forged = {"cut": content[:-30], "text": b"[" * 9999, "bomb": bomb, "other": content}[kind]
    documents.write(forged() if callable(forged) else forged, "plans", "c.npz")
    told = "this is the plan .*, and not 'c'" if kind == "other" else "this plan cannot be read"
    with pytest.raises(PlanError, match=told):
        kept_plan(dataset, "c")
    if kind != "other":
        problems = check(dataset, fix=True).problems
        assert [(one.kind, one.mended) for one in problems] == [("unreadable-record", True)]
        assert kept_plan(dataset, "c") is None
    assert check(dataset).ok
    assert kept_plan(dataset, plan.key) is not None


def test_keys_of_plans_are_known_as_such() -> None:
    assert is_plan_key(new_plan_key())
    assert not is_plan_key("plan-of-mine")
