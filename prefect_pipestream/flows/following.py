"""Going by a plan: which plan a run goes by, and what changed since it was made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, PlanError, QueryError
from prefect_pipestream.flows.looking import look_at
from prefect_pipestream.reporting.markdown import ranges
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.signatures import IMPORT
from prefect_pipestream.underfolder.runs.kept_plan import (
    KEPT_DAYS,
    KeptPlan,
    is_plan_key,
    kept_plan,
)

Indices = npt.NDArray[np.int64]

_NAMED = 20


class Identity(NamedTuple):
    """What a transform is known by.

    Attributes:
        fingerprint: Its fingerprint, with the items to write.
        text: What it is, for people.
    """

    fingerprint: str
    text: str

    def __str__(self) -> str:
        """Both, in short."""
        digest, _, keys = self.fingerprint.removeprefix(IMPORT).partition(":")
        written = f", keys {keys}" if keys else ""
        return f"{self.text} (fingerprint {digest[:12]}{written})"


@dataclass(frozen=True)
class Followed:
    """What a run that goes by a plan is to process, and what it is not.

    Attributes:
        todo: The planned samples that are as they were, but for those that the run has done: int64.
        changed: Planned samples that somebody changed since.
        gone: Planned samples that are not there any more.
        came: Samples that would be chosen now, and were not planned.
        shared_changed: Whether the shared items are not what they were.
    """

    plan: KeptPlan
    todo: Indices
    changed: Indices
    gone: Indices
    came: Indices
    shared_changed: bool

    def warnings(self) -> Iterator[str]:
        """What is not as it was planned, in sentences."""
        because = ", as the shared items were," if self.shared_changed else ""
        for found, one, several in (
            (self.changed, f"was changed since{because}", f"were changed since{because}"),
            (self.gone, "is gone since", "are gone since"),
            (self.came, "is chosen now and was not planned", "are chosen now and were not planned"),
        ):
            if len(found):
                what = f"1 sample {one}" if len(found) == 1 else f"{len(found):,} samples {several}"
                left = "" if found is self.gone else " and left as it is"
                if len(found) > 1:
                    left = left.replace("as it is", "as they are")
                yield f"Plan {self.plan.key}: {what}{left}: {ranges(found.tolist(), _NAMED)}."


@DatasetError.explaining_questions()
def homes_of(source: DataStream, target: DataStream) -> list[Place]:
    """The datasets with which a plan of a run may be kept: what it reads, or what it writes.

    Raises:
        DatasetError: If it could not be asked whether they are there.
    """
    places = dict.fromkeys((source.input_folder, target.output_folder))
    return [place for place in places if place is not None and documents_of(place).is_dataset()]


def plan_by_name_of(run: Run) -> str | None:
    """The plan that a run goes by which is begun under the key of that plan."""
    return run.key if is_plan_key(run.key) and "fingerprint" not in run.facts() else None


def plan_to_follow(source: DataStream, target: DataStream, key: str) -> KeptPlan:
    """The plan of a key.

    Args:
        source: Where the run reads samples.
        target: Where it writes them.
        key: The plan's key.

    Raises:
        PlanError: If there is no such plan (any more), or it is of another dataset.
    """
    homes = homes_of(source, target)
    plans = (kept_plan(home, key) for home in homes)
    plan = next((plan for plan in plans if plan is not None), None)
    if plan is None:
        where = " or ".join(map(str, homes)) or str(target.output_folder)
        raise PlanError(
            f"{where}: there is no plan {key!r}. A plan is kept for {KEPT_DAYS} days. Plan the run "
            "again, and follow that plan; or begin a run without one."
        )
    if plan.target != documents_of(target.output_folder).root:
        raise PlanError(
            f"plan {key!r} is of a run that writes {plan.target}, and this one writes "
            f"{target.output_folder}. Plan this one."
        )
    return plan


def refuse_another_transform(plan: KeptPlan, transform: Identity) -> None:
    """Checks that a run does what was planned.

    Raises:
        PlanError: If its transform, or the items that it writes, are others; it says both.
    """
    if plan.fingerprint != transform.fingerprint:
        planned = Identity(plan.fingerprint, plan.transform)
        raise PlanError(
            f"plan {plan.key!r} is of another transform: planned was {planned}, and this run has "
            f"{transform}. Run what was planned, or plan this one."
        )


def refuse_another_choice(plan: KeptPlan, indices: Sequence[int] | None, where: str | None) -> None:
    """Checks that a run that is given a plan is not given other samples besides.

    Raises:
        PlanError: If it is.
        QueryError: If its query is another one.
    """
    if where not in (None, plan.where):
        planned = "without a query" if plan.where is None else f"with where={plan.where!r}"
        raise QueryError(
            f"plan {plan.key!r} was made {planned}, and cannot be followed with where={where!r}. "
            "Leave the query out, or plan again."
        )
    if indices is not None and not (
        plan.named is not None
        and np.array_equal(np.unique(np.asarray(indices, np.int64)), plan.named)
    ):
        raise PlanError(
            f"plan {plan.key!r} was made with other indices than are given. Leave them out, or "
            "plan again."
        )


def follow_plan(
    plan: KeptPlan, source: DataStream, run: Run, done: Indices, chosen: Indices
) -> Followed:
    """Compares the planned samples with what they are like now.

    Args:
        plan: The plan.
        source: Where samples are read.
        run: The run.
        done: What the run has done.
        chosen: The samples that would be chosen now.
    """
    is_left = ~np.isin(plan.idx, done)
    left, planned = plan.idx[is_left], plan.own[is_left]
    now = look_at(source, left, apart=True)
    is_there = np.isin(left, source.indices())
    # What the run wrote itself may be a shared item, by the time that it is gone on with.
    is_begun = run.facts().get("plan") == plan.key
    shared_changed = not is_begun and bool(is_there.any()) and now.shared != plan.shared
    is_as_it_was = now.own == planned
    is_gone = ~is_there & (~is_as_it_was | (planned == 0))
    is_as_it_was &= not shared_changed
    return Followed(
        plan,
        todo=left[is_as_it_was & ~is_gone],
        changed=left[~is_as_it_was & ~is_gone],
        gone=left[is_gone],
        came=np.setdiff1d(chosen, plan.idx),
        shared_changed=shared_changed,
    )


def only_chosen(followed: Followed, chosen: Indices) -> Followed:
    """Of a run that goes on with its plan, those samples that are asked for this time."""
    todo = np.intersect1d(followed.todo, chosen)
    return replace(followed, todo=todo, came=followed.came[:0])
