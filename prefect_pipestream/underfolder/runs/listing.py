"""The runs of a dataset: which there are, and how each is."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from prefect_pipestream.errors import DatasetError, RunNotFoundError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.lock import is_held
from prefect_pipestream.storage.untrusted import read_json
from prefect_pipestream.underfolder.format.layout import Folder, Layout, folder_of
from prefect_pipestream.underfolder.format.run_key import TAKING_BACK
from prefect_pipestream.underfolder.ledger.provenance import Provenance
from prefect_pipestream.underfolder.ledger.records import Outcome
from prefect_pipestream.underfolder.ledger.run import Run, given_name_in, runs_of
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs.undo_space import UndoSpace

RunState = Literal["running", "finished", "stopped", "edited", "undoing", "undone"]
"""How a run is, as far as can be told.

``running``: a writer of it is alive. ``finished``: it ended and said so. ``stopped``: neither; it
was interrupted. ``edited``: a person or a script changed samples by a stream; such a run is never
finished, nor stopped. ``undoing``: its undo is under way, or was interrupted. ``undone``: it was
taken back.
"""

_HAVE_AN_END = {"fingerprint", "undoes", "restores", "decision", "compacts"}
"""What a run of a transform, an undo, a review and so on notes as it begins."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run.

    Attributes:
        run_key: Its key; a run that was undone shares it with a later one of the same key.
        state: How it is; see `RunState`.
        started: When it began to write; None where that was not noted.
        last_commit: When it committed last; None where it has no commit.
        finished: When it ended and said so.
        undone: When it was undone.
        counts: How many samples had each outcome.
        undo_bytes: The disk space that its undo files hold and nothing else does: what its removal
            alone would free. A file that several runs hold counts for none; see `undo_bytes`.
        fingerprint: Its transform's.
        user: Who ran it.
        host: Where it began.
        undoes: The run that this one took back, for an undo.
        folder: The name of its folder below ``.pipestream/runs``.
        provenance: Where it came from; None where that was not noted.
        kept: Whether `prune_runs` leaves it; see `keep_run`.
        name: The name that it was given, and can be asked for by as by its key.
    """

    run_key: str
    state: RunState
    started: datetime | None
    last_commit: datetime | None
    finished: datetime | None
    undone: datetime | None
    counts: Mapping[Outcome, int]
    undo_bytes: int
    fingerprint: str | None
    user: str | None
    host: str | None
    undoes: str | None
    folder: str
    provenance: Provenance | None
    kept: bool = False
    name: str | None = None


@DatasetError.explaining_questions()
def list_runs(folder: Folder | Layout, *, with_undo_bytes: bool = True) -> list[RunInfo]:
    """All runs of a dataset that are not pruned, in the order of their start.

    Costs some tenths of a second a million samples, and a `stat` of each undo file.

    Args:
        folder: The dataset's root.
        with_undo_bytes: Whether to look at the undo files; if not, `RunInfo.undo_bytes` is 0.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If a ledger cannot be read.
    """
    return runs_and_space(folder)[0] if with_undo_bytes else runs_of_ledgers(folder, _no_space)[0]


@DatasetError.explaining_questions()
def runs_and_space(folder: Folder | Layout) -> tuple[list[RunInfo], UndoSpace]:
    """What `list_runs` gives, and the space that the undo of all these runs holds."""
    return runs_of_ledgers(folder, UndoSpace)


def _no_space(runs: Sequence[Run]) -> UndoSpace:
    return UndoSpace(())


def runs_of_ledgers(
    folder: Folder | Layout, space_of: Callable[[Sequence[Run]], UndoSpace]
) -> tuple[list[RunInfo], UndoSpace]:
    """What `runs_and_space` gives.

    Args:
        folder: The dataset's root, or where its ledgers are.
        space_of: Tells what the undo of runs holds.
    """
    layout, runs = _known(folder)
    space = space_of(runs)
    running = live_writers(layout)
    return [_info(run, space.freed_by(run.name), running) for run in runs], space


def _known(folder: Folder | Layout) -> tuple[Layout, list[Run]]:
    """The runs that are not pruned, in the order of their start."""
    layout = Layout.of(folder)
    layout.refuse_missing()
    known = ((started_s(run), run) for run in runs_of(layout) if not run.is_pruned())
    return layout, [run for _, run in sorted(known, key=lambda pair: pair[0])]


def started_s(run: Run) -> float:
    """When a run began, in seconds; without a note of it, when its folder changed last."""
    started = run.facts().get("started")
    if started is not None:
        return float(started)
    try:
        return os.stat(run.folder).st_mtime
    except FileNotFoundError:  # undone or pruned just now
        return 0.0


def _info(run: Run, undo_bytes: int, running: Mapping[str, Any]) -> RunInfo:
    facts = run.facts()
    rows = run.rows()
    last_commit = float(rows.at.max()) if len(rows.at) else None
    return RunInfo(
        run_key=facts["run_key"],
        state=_state(run, facts, last_commit, running),
        started=_time(facts.get("started")),
        last_commit=_time(last_commit),
        finished=_time(facts.get("finished")),
        undone=_time(facts.get("undone")) if run.is_undone() else None,
        counts=rows.counts(),
        undo_bytes=undo_bytes,
        fingerprint=facts.get("fingerprint"),
        user=facts.get("user"),
        host=facts.get("host"),
        undoes=facts.get("undoes"),
        folder=run.name,
        provenance=Provenance.of(facts),
        kept=bool(facts.get("kept")),
        name=given_name_in(facts),
    )


def _state(
    run: Run, facts: Mapping[str, Any], last_commit: float | None, running: Mapping[str, Any]
) -> RunState:
    if run.is_undone():
        return "undone"
    if run.is_half_undone():
        return "undoing"
    if facts["run_key"] in running:
        return "running"
    finished = facts.get("finished")
    if finished is not None and finished >= (last_commit or 0):
        return "finished"
    return "edited" if is_of_edits(facts) else "stopped"


def is_of_edits(facts: Mapping[str, Any]) -> bool:
    """Whether a run is of saves of a person or a script, by its facts: such a run has no end."""
    return "started" in facts and _HAVE_AN_END.isdisjoint(facts)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def live_writers(layout: Layout) -> dict[str, list[dict[str, Any]]]:
    """The writers that are alive, by run key: each with its ``host`` and ``pid``."""
    found: dict[str, list[dict[str, Any]]] = {}
    staged = layout.staged
    for name in names_in(staged):
        alive = f"{staged}/{name}.alive"
        # A writer makes its folder once it holds its lock: this never gets in its way.
        if name.endswith(".alive") or not _is_alive(alive):
            continue
        owner = read_json(alive)
        if "run_key" in owner:  # else it packs a ledger
            found.setdefault(str(owner["run_key"]), []).append(owner)
    return found


def _is_alive(path: str) -> bool:
    try:
        return is_held(path)
    except PermissionError:  # of another user, whose locks this one may not try
        return False


@DatasetError.explaining_questions()
def last_run(folder: Folder | Layout) -> str | None:
    """The key of the run of a transform that began last and was not undone; None for none.

    Where no run noted a transform's fingerprint, it is the last of any, but for undos.
    """
    every = sorted(runs_of(folder), key=started_s)
    runs = [run for run in every if not run.is_undone() and not run.is_pruned()]
    keys = [run.key for run in runs if "fingerprint" in run.facts()]
    others = [run.key for run in runs if not run.key.startswith(TAKING_BACK)]
    return (keys or others)[-1] if keys or others else None


def last_writer(folder: Folder | Layout) -> str | None:
    """The key of the run that began last of all that stand, undos too; None for none.

    With what it left began what comes after it. Costs some 0.1 ms a run.
    """
    found: tuple[float, str] | None = None
    for run in runs_of(folder):
        facts = run.facts()
        is_undone = run.name != folder_of(facts["run_key"])
        if "started" in facts and "pruned" not in facts and not is_undone:
            found = max(found or (0.0, ""), (float(facts["started"]), facts["run_key"]))
    return None if found is None else found[1]


def needed_last_run(folder: Folder | Layout) -> str:
    """The key of `last_run`, where there must be one.

    Raises:
        RunNotFoundError: If there is none.
    """
    key = last_run(folder)
    if key is None:
        no_run = "no run was made on this dataset yet."
        if runs_of(folder):
            no_run = "no run of a transform is left on this dataset: all were undone or pruned."
        raise RunNotFoundError(f"{Layout.of(folder).root}: {no_run}")
    return key


@DatasetError.explaining_questions()
def failed_indices(folder: Folder | Layout, run_key: str | None = None) -> list[int]:
    """The indices of samples that failed in a run and were not done since, ascending.

    Args:
        folder: The dataset's root.
        run_key: The run, by its key or the name that it was given; None is `last_run`.

    Raises:
        RunNotFoundError: If there is no such run.
    """
    key = needed_last_run(folder) if run_key is None else run_key
    return existing_run(folder, key).failed_indices()


def existing_run(dataset: Folder | Layout, run_key: str) -> Run:
    """The run of this key, or that was given this name, which exists and was not undone.

    Raises:
        RunNotFoundError: If there is none; the message names those that there are.
    """
    run_key = key_meant(dataset, run_key)
    run = Run.of(dataset, run_key)
    if run.exists() and not run.is_pruned():
        return run
    root, others = run.layout.root, [one for one in runs_of(run.layout) if not one.is_pruned()]
    undone = [other for other in others if other.key == run_key and other.is_undone()]
    if undone:
        when = max(other.facts().get("undone", 0) for other in undone)
        raise RunNotFoundError(
            f"{root}: run {run_key!r} was undone already, at "
            f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M:%S}. `pipestream runs` lists the "
            "runs that can be undone."
        )
    known = ", ".join(repr(other.key) for other in others if not other.is_undone())
    raise RunNotFoundError(f"{root}: no run {run_key!r}. Its runs: {known or 'none'}.")
