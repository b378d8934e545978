"""Undo: put back what a run, or a part of its samples, replaced and removed.

An undo is a run of its own, ``undo:<run key>``, and can itself be undone. It puts files back by
the same commits as any write, so that a process killed on the way leaves no sample half undone,
and the next undo of the run goes on from there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect_pipestream.errors import (
    DatasetError,
    RunKeyError,
    UndoRefusedError,
)
from prefect_pipestream.underfolder.commits.apply import commit_lock
from prefect_pipestream.underfolder.commits.attempts import refuse_if_taken_over
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.run_key import check_run_key
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.taken_back import PARTS
from prefect_pipestream.underfolder.runs.interleaved import (
    describe_runs,
)
from prefect_pipestream.underfolder.runs.part_undo import (
    Taken,
    chosen_samples,
    described,
    samples_of,
    spelled,
    take_back,
)
from prefect_pipestream.underfolder.runs.restoring import (
    end_restoring,
    opened,
    publish_restored,
    restoring_writer,
    stage_restored,
)
from prefect_pipestream.underfolder.runs.retiring import Intent, forget_undoing, intent_for, retire
from prefect_pipestream.underfolder.runs.undo_checks import (
    checked_plan,
    plan_for,
    refuse_at_first,
    refuse_invalid,
)
from prefect_pipestream.underfolder.runs.undo_plan import (
    Change,
    Files,
    Plan,
    net_changes,
)

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did.

    Attributes:
        run_keys: The runs that were undone, the newest first.
        undo_run_key: The run that the undo is, to be undone in its turn.
        samples: How many samples were restored.
        files: How many files were put back or removed.
        overwritten: Files that someone changed since, and that were restored by force.
        left: Shared items that someone changed since, or that samples of other imports have too,
            and that were left as they are.
        indices: The samples that were taken back, where that was not all of the runs.
        folders: The names below ``.pipestream/runs`` by which the runs are kept, which count no
            more; none where they stand but for a part.
        commit_id: The commit that the undo of single commits is; None where it changed nothing.
    """

    run_keys: tuple[str, ...]
    undo_run_key: str
    samples: int
    files: int
    overwritten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None
    folders: tuple[str, ...] = ()
    commit_id: str | None = None

    @property
    def run_key(self) -> str:
        """The run that was undone; of several, their keys one after the other."""
        return ", ".join(self.run_keys)


@DatasetError.explaining_questions()
def undo_run(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    facts: Mapping[str, Any] | None = None,
    check: Check | None = None,
) -> UndoReport:
    """Restores a dataset to what it was before a run, or several runs, byte by byte.

    Afterwards the run counts for nothing: run again with its key, it starts afresh. The undo is
    the run ``undo:<run key>``; undone in its turn, it gives the run's changes back. If it is
    killed, call it again: until then the run can be neither resumed nor relied upon.

    Of a part of its samples, likewise: those count no more as done by the run, which goes on with
    them where it is run again with its key, and the rest of it stands. Shared items stay.

    Args:
        folder: The dataset's root.
        run_key: The run, by its key or the name that it was given; or several, which are undone
            together. That restores the samples also where their commits took turns, so that none
            of them can be undone alone.
        force: Whether to restore also what others changed since (kept in the undo's own undo
            files), and a run that is still running.
        indices: Take back these samples alone, by the indices at which the run wrote them; those
            that a run has nothing of are passed over. None is the whole run.
        facts: What the ledger is to say of the undo, beside what it took back.
        check: Says what is wrong with a sample, given its items, as `SampleRules.problems` does.
            Each sample is held against it as it would be after the undo, before anything is
            changed; with `force`, none is. None: nothing is checked.

    Returns:
        What was done.

    Raises:
        RunKeyError: If that cannot be a run's key.
        RunNotFoundError: If there is no such run, or it was undone already.
        UndoRefusedError: If someone changed samples of the run since, or the run is running in
            another process; the message names a later run that did so. If the run has none of
            the samples; or some are asked for of one that moved samples or took others back. If
            it took back samples of a run that was undone since. If the check finds something wrong
            with samples as they would be. Nothing was changed; but for
            samples that someone changes in this very moment, which are refused after others were
            restored.
        ItemNameError: If one of the indices cannot be a sample's.
        DatasetError: If files that are needed are not there any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written.
    """
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    with opened(folder, keys) as layout:
        return _undone(layout, intent_for(layout, keys, some), force, check, facts)


@DatasetError.explaining_questions()
def undo_own_run(
    run: Run, attempt: str | None, facts: Mapping[str, Any] | None = None
) -> UndoReport:
    """Undoes a run for the attempt that has it to itself, and has stopped; see `undo_run`.

    Its workers may be alive still: they write nothing more, as of the moment that this begins. An
    undo of the run that was interrupted is finished.

    Args:
        run: The run.
        attempt: The attempt; None where the run is not had by one alone.
        facts: What the ledger is to say of the undo, beside what it took back.

    Raises:
        RunNotFoundError: If there is no such run (any more).
        RunTakenOverError: If a later attempt at the run has it.
        UndoRefusedError, DatasetError, DatasetWriteError: As for `undo_run`.
    """
    with opened(run.layout, [run.key]) as layout:
        intent = intent_for(layout, [run.key])
        return _undone(layout, intent, force=False, check=None, facts=facts, own=(run, attempt))


def _undone(
    layout: Layout,
    intent: Intent,
    force: bool,
    check: Check | None,
    facts: Mapping[str, Any] | None,
    own: tuple[Run, str | None] | None = None,
) -> UndoReport:
    """Undoes runs; the ledger lock is held."""
    runs = intent.runs(layout)
    refuse_at_first(layout, intent, runs, force, is_own=own is not None)
    undo = Run.of(layout, intent.undo_key)
    files = Files(layout, Underfolder(layout.root, watch=True))
    with _shut(layout, intent, runs, own):
        taken, changes = to_take_back(files, intent, runs, force)
        plan = plan_held_to_rules(files, runs, changes, force, intent.indices, check)
    if plan.todo or intent.indices is not None:
        undo.note({**(facts or {}), **facts_of(intent, runs, changes)})
    writer = restoring_writer(files.dataset, intent.undo_key, force)
    for batch in _batches(plan.todo):
        with writer.staging() as staging:
            stage_restored(staging, batch, changes, force)
            publish_restored(writer, staging)
    with commit_lock(layout):
        _let_count_no_more(layout, intent, undo, taken)
    if undo.exists():
        end_restoring(undo)
    folders = () if intent.indices is not None else tuple(intent.retired.values())
    return report_of([run.key for run in runs], intent.undo_key, plan, intent.indices, folders)


def to_take_back(
    files: Files, intent: Intent, runs: Sequence[Run], force: bool
) -> tuple[Taken | None, Mapping[str, Change]]:
    """What an undo is of: the samples to be taken back of runs that stand, and what they changed.

    Raises:
        UndoRefusedError: If the runs have nothing of the samples.
        DatasetError: If a ledger cannot be read.
    """
    taken = _taken(files.layout, Run.of(files.layout, intent.undo_key), intent, runs)
    return taken, net_changes(files.commits(runs, force, intent.indices))


def plan_held_to_rules(
    files: Files,
    runs: Sequence[Run],
    changes: Mapping[str, Change],
    force: bool,
    indices: Sequence[int] | None,
    check: Check | None,
) -> Plan:
    """What is to be done to take changes back, if it may be done; see `undo_run`.

    Raises:
        UndoRefusedError, DatasetError: As for `undo_run`.
    """
    with files.asked_at_once(changes):
        plan = checked_plan(files, runs, changes, force, indices)
    if check is not None and not force:
        refuse_invalid(files, runs, changes, plan, check)
    return plan


def checked_keys(run_key: str | Sequence[str]) -> list[str]:
    """The keys of one run, or of several.

    Raises:
        RunKeyError: If one cannot be a run's key, or there is none.
    """
    several = isinstance(run_key, Sequence) and not isinstance(run_key, str | bytes)
    keys = [check_run_key(key) for key in (run_key if several else [run_key])]
    if not keys:
        raise RunKeyError(
            "No run key was given, expected at least one: `pipestream runs` lists them."
        )
    return keys


def facts_of(intent: Intent, runs: Sequence[Run], changes: Mapping[str, Change]) -> dict[str, Any]:
    """What the undo's run notes of itself."""
    facts: dict[str, Any] = {"undoes": ", ".join(run.key for run in runs)}
    if intent.indices is not None:
        return {**facts, "undoes_samples": spelled(intent.indices)}
    facts["undoes_folders"] = list(intent.retired.values())
    is_whole = all(change.is_whole for change in changes.values())
    return {**facts, "whole": True} if is_whole else facts


def _taken(layout: Layout, undo: Run, intent: Intent, runs: Sequence[Run]) -> Taken | None:
    """The samples to be taken back of runs that stand; None: they are so already, or go whole."""
    if intent.indices is None or intent.stamp in undo.facts().get(PARTS, ()):
        return None
    taken = samples_of(runs, frozenset(intent.indices))
    if not taken:
        raise UndoRefusedError(
            f"{layout.root}: {describe_runs([run.key for run in runs])} has nothing of "
            f"{described(intent.indices)}: there is nothing to take back. `pipestream diff` lists "
            "what a run changed.",
            list(intent.indices),
        )
    return taken


def _let_count_no_more(layout: Layout, intent: Intent, undo: Run, taken: Taken | None) -> None:
    """Takes what is restored out of the ledger. The caller holds the commit lock."""
    if intent.indices is None:
        for name, retired_name in intent.retired.items():
            retire(Run(layout, name), Run(layout, retired_name))
        return
    runs = [Run(layout, name) for name in intent.retired]
    if taken is not None:
        take_back(undo, runs, intent.stamp, taken)
    for run in runs:
        forget_undoing(run)


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would do.

    Attributes:
        run_keys: The runs that would be undone, the newest first.
        undo_run_key: The run that the undo would be.
        samples: The names of the files that would be put back or removed, by sample, ascending.
            A name with a leading slash is a shared item.
        changed: Of these samples, names of files that someone changed since.
        left: Shared items that someone changed since, or that samples of other imports have too,
            and that would be left as they are.
        lost: Paths of files that would be needed and are not there any more.
        refusal: Why the undo would be refused; None: it would not.
        indices: The samples that would be taken back, where that is not all of the runs.
    """

    run_keys: tuple[str, ...]
    undo_run_key: str
    samples: Mapping[int, tuple[str, ...]]
    changed: Mapping[int, tuple[str, ...]]
    left: tuple[str, ...]
    lost: tuple[str, ...]
    refusal: str | None
    indices: tuple[int, ...] | None = None

    @property
    def files(self) -> int:
        """How many files would be put back or removed."""
        return sum(map(len, self.samples.values()))


@DatasetError.explaining_questions()
def plan_undo(
    folder: Folder,
    run_key: str | Sequence[str],
    force: bool = False,
    *,
    indices: Iterable[int] | None = None,
    check: Check | None = None,
) -> UndoPlan:
    """Says what `undo_run` of these arguments would do now, and does nothing of it.

    Of writers that are dead, what they left is finished, as by each use of a dataset.

    Args:
        folder: The dataset's root.
        run_key: The run, or several.
        force: Whether it would restore also what others changed since.
        indices: The samples that would be taken back; None is the whole run.
        check: Says what is wrong with a sample as it would be, as for `undo_run`.

    Raises:
        RunKeyError: If that cannot be a run's key.
        RunNotFoundError: If there is no such run, or it was undone already.
        UndoRefusedError: If an undo of others with it was interrupted, and is to be finished
            first.
        ItemNameError: If one of the indices cannot be a sample's.
        DatasetError: If a ledger cannot be read.
    """
    keys = checked_keys(run_key)
    some = None if indices is None else chosen_samples(indices)
    with opened(folder, keys) as layout:
        files = Files(layout, Underfolder(layout.root, watch=True))
        return planned(files, intent_for(layout, keys, some), force, check)


def planned(files: Files, intent: Intent, force: bool, check: Check | None) -> UndoPlan:
    """Says what an undo would do now; see `plan_undo`."""
    runs = intent.runs(files.layout)
    refusal = plan = None
    changes: Mapping[str, Change] = {}
    try:
        refuse_at_first(files.layout, intent, runs, force)
        _, changes = to_take_back(files, intent, runs, force)
        plan = plan_held_to_rules(files, runs, changes, force, intent.indices, check)
    except DatasetError as error:
        refusal = str(error)
    if plan is None:
        with files.asked_at_once(changes):
            plan = plan_for(files, runs, changes, force)
    return UndoPlan(
        run_keys=tuple(run.key for run in runs),
        undo_run_key=intent.undo_key,
        samples={idx: tuple(plan.todo[idx]) for idx in sorted(plan.todo)},
        changed={idx: tuple(plan.changed[idx]) for idx in sorted(plan.changed)},
        left=tuple(plan.left),
        lost=tuple(plan.lost),
        refusal=refusal,
        indices=intent.indices,
    )


@contextmanager
def _shut(
    layout: Layout, intent: Intent, runs: Sequence[Run], own: tuple[Run, str | None] | None
) -> Iterator[None]:
    """Lets nobody commit to the runs any more; where their undo is refused inside, again.

    Raises:
        RunTakenOverError: If it is undone by an attempt at it, and a later one has it.
    """
    is_begun = any(run.is_half_undone() for run in runs)
    with commit_lock(layout):
        if own is not None and own[1] is not None:
            refuse_if_taken_over(own[0], own[1])
        intent.note(layout)
    try:
        yield
    except BaseException:  # nothing was changed yet, whoever interrupts the check
        if not is_begun:
            for run in runs:
                forget_undoing(run)
        raise


def report_of(
    keys: Iterable[str],
    undo_key: str,
    plan: Plan,
    indices: tuple[int, ...] | None = None,
    folders: tuple[str, ...] = (),
    commit_id: str | None = None,
) -> UndoReport:
    """Says what was done of a plan."""
    return UndoReport(
        run_keys=tuple(keys),
        undo_run_key=undo_key,
        samples=len(plan.todo),
        files=sum(map(len, plan.todo.values())),
        overwritten=tuple(name for names in plan.changed.values() for name in names),
        left=tuple(plan.left),
        indices=indices,
        folders=folders,
        commit_id=commit_id,
    )


# -- doing it ------------------------------------------------------------------------------


def _batches(todo: Mapping[int, list[str]]) -> Iterator[dict[int, list[str]]]:
    indices = sorted(todo)
    for start in range(0, len(indices), _BATCH):
        yield {idx: todo[idx] for idx in indices[start : start + _BATCH]}
