"""Runs that are kept: they have a name, if they were given one, and pruning leaves them.

That is two facts of a run, ``kept`` and ``name``. They stay with it whatever becomes of it: a kept
run that is undone has them still, and has them when its undo is undone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prefect_pipestream.errors import DatasetError, RunKeyError
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.run_key import check_run_key, check_run_name
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.ledger.run_names import named_run
from prefect_pipestream.underfolder.ledger.taken_back import PARTS
from prefect_pipestream.underfolder.runs.interleaved import undone_together
from prefect_pipestream.underfolder.runs.listing import existing_run, live_writers
from prefect_pipestream.underfolder.runs.packing import ledger_lock
from prefect_pipestream.underfolder.runs.part_undo import runs_with
from prefect_pipestream.underfolder.runs.undo_plan import Files

RELEASED: Mapping[str, Any] = {"kept": None, "name": None}
"""What is noted of a run that is kept no more."""


@DatasetError.explaining_questions()
def keep_run(folder: Folder, run_key: str, name: str | None = None) -> Run:
    """Protects a run from pruning, and gives it a name.

    `prune_runs` leaves it, and all that its undo needs: later runs that changed its samples again.
    It is undone like any other run, and is kept then, with the undo by which it can come back. By
    its name it is asked for wherever a run key is taken. A run that is kept already keeps its name
    where none is given, and else gets the new one.

    Args:
        folder: The dataset's root.
        run_key: The run's key, or the name that it has. Of several of this key, the one that
            stands; else the one that was undone last.
        name: A name that no run of the dataset has as its name or key; None for none.

    Returns:
        The run.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        RunKeyError: If that cannot be a run's key, or the name be a name, or it is taken.
        RunNotFoundError: If there is no such run.
        DatasetWriteError: If the dataset cannot be written.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    any_run(layout, run_key)  # before anything is made in a folder that has no runs
    with ledger_lock(layout):
        run, facts = to_be_kept(layout, run_key, name)
        run.update(**facts)
    return run


def to_be_kept(layout: Layout, run_key: str, name: str | None) -> tuple[Run, dict[str, Any]]:
    """The run that is to be kept, and what is to be noted of it; see `keep_run`.

    Raises:
        RunKeyError: If that cannot be a run's key, or the name be a name, or it is taken.
        RunNotFoundError: If there is no such run.
    """
    run = any_run(layout, run_key)
    if name is not None:
        _refuse_taken(layout, run, name)
    return run, {"kept": True, "name": run.given_name() if name is None else name}


@DatasetError.explaining_questions()
def release_run(folder: Folder, run_key: str) -> Run:
    """Lets pruning remove a run that was kept, and takes its name away. See `keep_run`.

    A run that is not kept is left as it is.

    Args:
        folder: The dataset's root.
        run_key: The run's key, or its name.

    Returns:
        The run.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        RunKeyError: If that cannot be a run's key.
        RunNotFoundError: If there is no such run.
        DatasetWriteError: If the dataset cannot be written.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    any_run(layout, run_key)
    with ledger_lock(layout):
        run = any_run(layout, run_key)
        if run.is_kept():
            run.update(**RELEASED)
    return run


def any_run(layout: Layout, key_or_name: str) -> Run:
    """The run of this key or name; one that was undone, too, where none of the key stands.

    Raises:
        RunKeyError: If it can be neither.
        RunNotFoundError: If there is none.
    """
    run = Run.of(layout, check_run_key(key_or_name))
    if not run.exists():
        named = named_run(layout, key_or_name)
        if named is not None:
            return named
        runs = [one for one in runs_of(layout) if one.key == key_or_name and one.is_undone()]
        undone = [one for one in runs if not one.is_pruned()]
        if undone:
            return max(undone, key=lambda one: float(one.facts().get("undone", 0)))
    return existing_run(layout, key_or_name)


def _refuse_taken(layout: Layout, run: Run, name: str) -> None:
    """Checks that a run can have a name.

    Raises:
        RunKeyError: If it can be no name, or a run has it as its key or name.
    """
    check_run_name(name)
    others = [one for one in runs_of(layout) if one.name != run.name]
    named = [one for one in others if one.given_name() == name]
    if named:
        raise RunKeyError(
            f"{layout.root}: run {named[0].key!r} has the name {name!r} already. Take another "
            f"name, or release that run first: `pipestream keep {layout.root} {name} --release`."
        )
    is_key = name in live_writers(layout) or any(one.key == name for one in (run, *others))
    if is_key:
        raise RunKeyError(
            f"{layout.root}: {name!r} is the key of a run, which the name would hide. Take another "
            "name; `pipestream runs --all` lists the keys."
        )


# -- what a kept run needs -----------------------------------------------------------------


def needed_by_kept(layout: Layout) -> set[str]:
    """The names of the folders of kept runs, and of those that their undo needs.

    The caller holds the ledger lock. Costs what a plan of the undo of each kept run costs.

    Raises:
        DatasetError: If a ledger cannot be read.
    """

    def files() -> Files:
        recover(layout.root)  # what a dead writer logged is in a ledger only then
        return Files(layout, Underfolder(layout.root, watch=True))

    return needed_with(layout, files)


def needed_with(layout: Layout, files: Callable[[], Files]) -> set[str]:
    """The names of the folders of kept runs, and of those that their undo needs.

    Args:
        layout: The dataset's ledgers.
        files: Opens the dataset's files, if they are looked at.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    runs = [run for run in runs_of(layout) if not run.is_pruned()]
    kept = [run for run in runs if run.is_kept()]
    if not kept:
        return set()
    opened, undos = files(), _undos_by_folder(runs)
    needed = {run.name for run in kept}
    for run in kept:
        first = undos.get(run.name, []) if run.is_undone() else [run]
        together = undone_together(opened, first) if first else []
        needed.update(one.name for one in together)
        needed |= taken_back_by(layout, together)
    return needed


def _undos_by_folder(runs: Iterable[Run]) -> Mapping[str, Sequence[Run]]:
    """The undos that stand, by the names of the folders of the runs that they took back."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if not run.is_undone():
            for name in run.facts().get("undoes_folders", ()):
                found.setdefault(name, []).append(run)
    return found


def taken_back_by(layout: Layout, runs: Iterable[Run]) -> set[str]:
    """The names of the folders of runs that these took back, whole or in part."""
    found: set[str] = set()
    stamps: set[str] = set()
    for run in runs:
        facts = run.facts()
        found.update(facts.get("undoes_folders", ()))
        stamps.update(facts.get(PARTS, ()))
    return found.union(run.name for run in runs_with(layout, stamps)) if stamps else found
