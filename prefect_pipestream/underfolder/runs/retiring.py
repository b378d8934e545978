"""What becomes of the folders of runs that are undone: they are renamed, and count no more.

A run that was undone is kept beside a new one of its key, so that its undo can be undone.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect_pipestream.errors import UndoRefusedError
from prefect_pipestream.storage.untrusted import read_json
from prefect_pipestream.underfolder.format.layout import Layout, run_key_of
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs.interleaved import (
    describe_runs,
    newest_first,
    undo_command,
    undo_key_of,
)
from prefect_pipestream.underfolder.runs.listing import existing_run
from prefect_pipestream.underfolder.runs.part_undo import described

_UNDONE = "~undone-"


@dataclass(frozen=True)
class Intent:
    """The note, in each run, by which an interrupted undo is resumed.

    Attributes:
        undo_key: The key of the undo's run.
        retired: The name that the folder of each run gets, by its name now; the newest first. Of
            runs that are undone in part, which stand, it only tells the undo from others.
        indices: The samples that are taken back, ascending; None is all.
    """

    undo_key: str
    retired: Mapping[str, str]
    indices: tuple[int, ...] | None = None

    @property
    def stamp(self) -> str:
        """What tells it from other undos."""
        return next(iter(self.retired.values())).rpartition(_UNDONE)[2]

    def runs(self, layout: Layout) -> list[Run]:
        """The runs, where they are now: those that are retired already among them."""
        names = [
            retired if Run(layout, retired).exists() else name
            for name, retired in self.retired.items()
        ]
        return [Run(layout, name) for name in names]

    def note(self, layout: Layout) -> None:
        """Lets each run that is not retired yet say so."""
        for run in self.runs(layout):
            if run.name in self.retired:
                content = {"undo": self.undo_key, "runs": dict(self.retired)}
                some = {} if self.indices is None else {"indices": self.indices}
                layout.write_json(run.undoing, {**content, **some})

    @classmethod
    def noted_by(cls, run: Run) -> "Intent | None":
        """What a run notes; None where it is not being undone."""
        noted = read_json(run.undoing)
        key, runs, indices = (noted.get(name) for name in ("undo", "runs", "indices"))
        if not (is_run_key(key) and isinstance(runs, dict) and run.name in runs):
            return None
        is_right = all(
            isinstance(retired, str) and retired.startswith(name + _UNDONE)
            for name, retired in runs.items()
        )
        if indices is not None:
            is_list = isinstance(indices, list) and all(type(idx) is int for idx in indices)
            is_right, indices = is_right and is_list and bool(indices), tuple(indices)
        return cls(str(key), runs, indices) if is_right else None


def intent_for(
    layout: Layout, keys: Sequence[str], indices: tuple[int, ...] | None = None
) -> Intent:
    """The undo of these runs that was begun, or a new one.

    Args:
        layout: The dataset's paths.
        keys: The keys of the runs, or names that they were given.
        indices: The samples that are taken back, ascending; None is all.

    Raises:
        RunNotFoundError: If there is no such run.
        UndoRefusedError: If an undo of some of them and of others was interrupted, or of other
            samples.
    """
    keys = [key_meant(layout, key) for key in keys]
    wanted = {Run.of(layout, key).name for key in keys}
    for run in runs_of(layout):
        if _UNDONE in run.name:
            forget_undoing(run)  # of a process that was killed when it had just undone the run
            continue
        begun = Intent.noted_by(run)
        if begun is not None and not wanted.isdisjoint(begun.retired):
            if not wanted.issubset(begun.retired) or begun.indices != indices:
                others = [run_key_of(name) for name in begun.retired]
                part = f"{described(begun.indices)} of " if begun.indices else ""
                raise UndoRefusedError(
                    f"{layout.root}: an undo of {part}{describe_runs(others)} was interrupted. "
                    f"Finish it first: {undo_command(layout, others, begun.indices)}."
                )
            return begun
    runs = newest_first(existing_run(layout, key) for key in dict.fromkeys(keys))
    undo_key = undo_key_of(layout, [run.key for run in runs])
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    retired = {run.name: f"{run.name}{_UNDONE}{now}" for run in runs}
    return Intent(undo_key, retired, indices)


def _undone_by(run: Run) -> list[str]:
    """The names of the folders of the runs that a run took back."""
    folders = run.facts().get("undoes_folders", ())
    return [name for name in folders if _UNDONE in name]


def retire(run: Run, retired: Run, at: float | None = None) -> None:
    """Lets a run count no more; if it was an undo, the run that it took back counts again.

    The caller holds the commit lock. The run's own folder is renamed last, so that a process
    killed in here is followed by one that does all of it again.

    Args:
        run: The run.
        retired: The same, by the name that it gets.
        at: When it was undone; None: now.
    """
    for now, then, retires in reversed(_renames(run, retired)):
        if not now.exists() or then.exists():
            continue
        if retires:
            names = dict.fromkeys([*now.facts().get("undone_as", ()), then.name])
            now.update(undone=at or time.time(), undone_as=list(names))
        else:
            forget_undoing(now)
        os.rename(now.folder, then.folder)
        if retires:
            forget_undoing(then)


def forget_undoing(run: Run) -> None:
    """Removes the note that a run is being undone, which it is not any more."""
    with suppress(FileNotFoundError):
        os.unlink(run.undoing)


def _renames(run: Run, retired: Run) -> list[tuple[Run, Run, bool]]:
    """What becomes of the folders of runs as one is retired, that one first.

    A run that is retired lets those that it took back count again, unless they were pruned or a
    new run has their key by now; and one that counts again retires those that it took back. Each
    is there once: what a dataset says may go round in a circle. A new run that has the key of one
    that was pruned meanwhile is left alone.

    Returns:
        Each folder as it is named now, and then, and whether the run is retired.
    """
    layout = run.layout
    found: list[tuple[Run, Run, bool]] = []
    known: set[str] = set()
    todo = [(run, retired, True)]
    while todo:
        now, then, retires = todo.pop()
        if now.name in known or not now.exists() or then.exists():
            continue
        known.add(now.name)
        found.append((now, then, retires))
        for name in _undone_by(now):
            undone = Run(layout, name)
            again = Run(layout, name.rpartition(_UNDONE)[0])
            if retires and not _is_being_removed(undone):
                todo.append((undone, Run.of(layout, undone.key), False))
            elif not retires and _was_undone_as(again, name):
                todo.append((again, undone, True))
    return found


def _is_being_removed(run: Run) -> bool:
    return run.is_pruned() and not run.is_compaction


def _was_undone_as(run: Run, name: str) -> bool:
    """Whether it is the run that had this name while it was undone; not a new one of its key."""
    facts = run.facts()
    names = facts.get("undone_as")
    return "undone" in facts if names is None else name in names
