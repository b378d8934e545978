"""Check the package's own files in a dataset, and what interrupted processes left."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.asking import NO_RIGHT, is_folder, is_there, names_in, status_of
from prefect_pipestream.storage.lock import exclusive
from prefect_pipestream.storage.new_dataset import left_by_creators
from prefect_pipestream.storage.untrusted import TEMPORARY, starts_with
from prefect_pipestream.underfolder.checks.problems import Aside, Problem, ProblemKind
from prefect_pipestream.underfolder.commits.apply import UNDO, is_dead, recover
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.packed import PackedLedger, read_arrays
from prefect_pipestream.underfolder.ledger.records import CommitRecord
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.kept_plan import damaged_plans
from prefect_pipestream.underfolder.runs.retiring import Intent, forget_undoing
from prefect_pipestream.underfolder.runs.undo import undo_run

_DEEPEST = 4  # as ``runs/<run>/undo/<commit>``
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
DAMAGED_PLAN = "This plan of a run is damaged; plan the run again."
"""What is said of a plan that cannot be read."""
_TAKING_HOLD_S = 0.2
_DAMAGED = "This record of a commit is damaged."
_DEAD = "A process that died staged it for a commit that it did not make."


def check_private(layout: Layout, aside: Aside, fix: bool) -> Iterator[Problem]:
    """Finds, and mends where `fix` is true, what interrupted processes left.

    Raises:
        DatasetWriteError: If it is to be mended and cannot be.
    """
    yield from _check_siblings(layout, aside)
    foreign = list(_check_kinds(layout, aside))
    yield from foreign
    if not all(problem.mended for problem in foreign):
        return
    if is_folder(layout.log):
        yield from _check_commits(layout, aside, fix)
    yield from _check_catalog(layout, aside)
    yield from _check_plans(layout, aside)
    yield from _check_thumbnails(layout, aside)
    for run in runs_of(layout):
        yield from _check_ledger(run, aside)
        yield from _check_undoing(run, fix)


def _check_commits(layout: Layout, aside: Aside, fix: bool) -> Iterator[Problem]:
    """Finds, and ends, commits that were prepared or logged, and not applied."""
    with between_commits(layout):
        pending = _pending(layout)
        logged = [record for record in pending.values() if record is not None]
        dead = _dead_stagings(layout, {record.staged.partition("/")[2] for record in logged})
        for path, record in pending.items():
            if record is None:
                yield _put_aside(layout, aside, "unreadable-record", path, _DAMAGED)
        if len(logged) < len(pending):  # the damaged record's files are in one of these
            for path in dead:
                yield _put_aside(layout, aside, "dead-staging", path, _DEAD)
            dead = []
    if fix:
        recover(layout.root)
    yield from _report_recovered(layout, logged, dead, fix)


@contextmanager
def between_commits(layout: Layout) -> Iterator[None]:
    """Keeps others from committing; who has no right to lock the dataset may look all the same."""
    with ExitStack() as stack:
        if is_folder(layout.log):
            _lock_if_permitted(stack, layout.lock)
        yield


def _lock_if_permitted(stack: ExitStack, path: str) -> None:
    try:
        stack.enter_context(exclusive(path))
    except OSError as error:
        if error.errno not in NO_RIGHT:
            raise


def _put_aside(layout: Layout, aside: Aside, kind: ProblemKind, path: str, message: str) -> Problem:
    mended, remedy = aside.put(path)
    return Problem(kind, os.path.relpath(path, layout.root), None, message, mended, remedy)


def _check_siblings(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds what creators of a dataset of this name left beside it as they were killed."""
    for path in left_by_creators(layout.root):
        message = "The creation of a dataset was interrupted."
        yield _put_aside(layout, aside, "leftover", path, message)


def _names_in(folder: str) -> list[str]:
    """The names in a folder; none where there is none, or a writer removed it meanwhile."""
    try:
        return sorted(os.listdir(folder)) if is_folder(folder) else []
    except FileNotFoundError:
        return []


def _check_kinds(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds links, pipes and devices among our own files, where none of a sample are."""
    where: list[list[str]] = [[]]
    while where:
        parts = where.pop()
        folder = layout.at(*parts)
        for name in _names_in(folder):
            path, below = f"{folder}/{name}", [*parts, name]
            found = status_of(path)
            if found is None or _is_samples(below) or stat.S_ISREG(found.st_mode):
                continue
            if stat.S_ISDIR(found.st_mode) and len(below) <= _DEEPEST:
                where.append(below)
                continue
            message = "It is a link or another thing that this package never makes there."
            yield _put_aside(layout, aside, "not-ours", path, message)


def _is_samples(parts: list[str]) -> bool:
    """Whether a private file, given by the parts of its path, is a sample's: it may be a link."""
    match parts:
        case ["staged", _, _, name]:
            return name != UNDO
        case ["staged", _, _, _, *_] | ["runs", _, "undo", _, _, *_]:
            return True
        case ["review", _, "staged", _, *_] | ["aside", _, *_]:
            return True
    return False


def _pending(layout: Layout) -> dict[str, CommitRecord | None]:
    """The pending records by path; None for one that cannot be read."""
    log = layout.log
    paths = [f"{log}/{name}" for name in sorted(names_in(log))]
    return {path: _record_at(path) for path in paths if path.endswith(".json")}


def _record_at(path: str) -> CommitRecord | None:
    try:
        return CommitRecord.read(path)
    except ValueError:
        return None


def _dead_stagings(layout: Layout, needed: Collection[str]) -> list[str]:
    """The stagings of dead writers, but for those that a pending commit needs."""
    staged = layout.staged
    writers = {name for name in names_in(staged) if not name.endswith(".alive")}
    writers -= {name.partition("/")[0] for name in needed}
    paths = [f"{staged}/{writer}" for writer in sorted(writers)]
    return [path for path in paths if is_dead(path) and _stays(path)]


def _stays(path: str) -> bool:
    """Whether what nobody holds is there still: its maker may be about to hold, or to rename it."""
    if path.endswith(TEMPORARY):
        time.sleep(_TAKING_HOLD_S)
    return is_there(path) and is_dead(path)


def _report_recovered(
    layout: Layout, pending: list[CommitRecord], dead: list[str], fix: bool
) -> Iterator[Problem]:
    """Tells what `recover` ended, or would."""
    for record in pending:
        path = layout.pending(record.id)
        mended = fix and not is_there(path)
        yield Problem(
            "pending",
            os.path.relpath(path, layout.root),
            None,
            f"A commit of {len(record.samples)} samples, of run {record.run_key!r}, was logged "
            "and not applied.",
            mended,
            "Applied."
            if mended
            else "`pipestream check --fix` applies it, as does the next write.",
        )
    for path in dead:
        mended = fix and not is_there(path)
        yield Problem(
            "dead-staging",
            os.path.relpath(path, layout.root),
            None,
            _DEAD,
            mended,
            "Removed."
            if mended
            else "`pipestream check --fix` removes it, as does the next write.",
        )


def _check_ledger(run: Run, aside: Aside) -> Iterator[Problem]:
    """Finds records of a run that cannot be read."""
    for _, path in run.loose_records():
        with suppress(FileNotFoundError):  # packed meanwhile
            if _record_at(path) is None:
                yield _put_aside(run.layout, aside, "unreadable-record", path, _DAMAGED)
    for folder in run.packed_folders():
        try:
            for _ in PackedLedger(folder, "").commits():
                pass
        except FileNotFoundError as error:
            if is_folder(folder):  # else it was packed again meanwhile
                message = f"This packed ledger lacks {os.path.basename(error.filename)}."
                yield _put_aside(run.layout, aside, "unreadable-record", folder, message)
        except (DatasetError, ValueError, KeyError, IndexError, TypeError) as error:
            message = f"This packed ledger is damaged: {error}"
            yield _put_aside(run.layout, aside, "unreadable-record", folder, message)


def _check_catalog(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds files of the catalog that cannot be read. The next query makes them anew."""
    for folder in names_in(layout.at("catalog")):
        for name in sorted(names_in(layout.at("catalog", folder))):
            path = layout.at("catalog", folder, name)
            try:
                read_arrays(path)
            except DatasetError:
                message = "This file of the catalog is damaged; the next query makes it anew."
                yield _put_aside(layout, aside, "unreadable-record", path, message)
            except FileNotFoundError:
                continue  # another query made the catalog anew


def _check_plans(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds plans that cannot be read. A run that is to go by one says so, and does not begin."""
    for name in damaged_plans(layout.root):
        path = layout.at("plans", name)
        yield _put_aside(layout, aside, "unreadable-record", path, DAMAGED_PLAN)


def _check_thumbnails(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds what is no small picture among them. It was never shown."""
    for folder in sorted(names_in(layout.thumbnails)):
        for name in sorted(names_in(layout.at("thumbnails", folder))):
            path = layout.at("thumbnails", folder, name)
            with suppress(FileNotFoundError):  # it made room for another one meanwhile
                if not (name.endswith(TEMPORARY) or starts_with(path, *_PICTURES)):
                    message = "This is no thumbnail; it is never shown."
                    yield _put_aside(layout, aside, "unreadable-record", path, message)


def _check_undoing(run: Run, fix: bool) -> Iterator[Problem]:
    """Finds an undo that was interrupted, and finishes it."""
    if run.is_undone():
        if fix:
            forget_undoing(run)
        return
    with ExitStack() as stack:
        _lock_if_permitted(stack, run.layout.ledger_lock)  # no undo is under way, then
        if not run.is_half_undone():
            return
    file = os.path.relpath(run.undoing, run.layout.root)
    message = f"The undo of run {run.key!r} was interrupted."
    mended, remedy = False, "`pipestream check --fix` finishes it, as does `pipestream undo`."
    if fix:
        try:
            begun = Intent.noted_by(run)
            indices = None if begun is None else begun.indices
            undo_run(run.layout.root, run.key, indices=indices)
            mended, remedy = True, "Finished."
        except DatasetWriteError:
            raise
        except DatasetError as error:
            remedy = str(error)
    yield Problem("half-undone", file, None, message, mended, remedy)
