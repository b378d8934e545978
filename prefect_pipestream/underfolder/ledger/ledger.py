"""The ledger of a run: what became of each of its samples, read from its done commits."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.untrusted import read_regular
from prefect_pipestream.underfolder.format.layout import RunLayout
from prefect_pipestream.underfolder.ledger.compaction import (
    PackedLedger,
    Rows,
    rows_of,
)
from prefect_pipestream.underfolder.ledger.facts import (
    Folder,
    info_of,
    layout_of,
    names_in,
)
from prefect_pipestream.underfolder.ledger.records import (
    OUTCOMES,
    CommitRecord,
    Outcome,
    SampleRecord,
)

T = TypeVar("T")

FAILED = OUTCOMES.index("failed")
_PACKED = re.compile(r"compact-\d+")
_TRIES = 5


# -- its commits ---------------------------------------------------------------------------


def commits_of(run: RunLayout, tag: str | None = None) -> Iterator[CommitRecord]:
    """The done commits of a run (or of one part of it), in the order of their making.

    Raises:
        DatasetError: If a record cannot be read.
        FileNotFoundError: If the ledger was packed meanwhile: read it again.
    """
    loose, dropped, packed = _open(run, tag)
    if packed is not None:
        for commit in packed.commits():
            if commit.id not in dropped and tag in (None, commit.tag):
                yield commit
    yield from map(_read_record, loose)


def some_commits(run: RunLayout, most: int) -> list[CommitRecord]:
    """Some of a run's done commits, spread over its course, at a cost that does not grow with it.

    Of commits that are packed already, the first ones.

    Raises:
        DatasetError: If a record cannot be read.
    """
    return _settled(lambda: _some_commits(run, most))


def _some_commits(run: RunLayout, most: int) -> list[CommitRecord]:
    loose, dropped, packed = _open(run, None)
    step = max(1, len(loose) / most)
    chosen = [loose[int(number * step)] for number in range(min(most, len(loose)))]
    found = [] if packed is None else islice(packed.commits(), most - len(chosen))
    return [commit for commit in found if commit.id not in dropped] + [
        _read_record(path) for path in chosen
    ]


def rows_in(run: RunLayout, tag: str | None = None) -> Rows:
    """What became of the samples of a run (or of one part of it), in the order of commits.

    Raises:
        DatasetError: If a record cannot be read.
    """
    return _settled(lambda: _rows_in(run, tag))


def _rows_in(run: RunLayout, tag: str | None) -> Rows:
    loose, dropped, packed = _open(run, tag)
    rows = rows_of(map(_read_record, loose))
    if packed is None:
        return rows
    if not dropped and tag is None:
        return Rows.joined([packed.rows(), rows])
    kept = packed.rows(lambda commit_id, of: commit_id not in dropped and tag in (None, of))
    return Rows.joined([kept, rows])


def _open(run: RunLayout, tag: str | None) -> tuple[list[str], set[str], PackedLedger | None]:
    """The records that are not packed, the ids of commits taken back, and what is packed.

    They are looked up in the order in which packing moves them, so that none is missed; what is
    found twice counts once.
    """
    found = loose_records(run, tag)
    dropped = set(names_in(run.dropped))
    newest = packed_folders(run)[-1:]
    packed = PackedLedger(newest[0], info_of(run)["run_key"]) if newest else None
    known = dropped.union(packed.ids()) if packed and found else dropped
    return [path for commit_id, path in found if commit_id not in known], dropped, packed


def loose_records(run: RunLayout, tag: str | None = None) -> list[tuple[str, str]]:
    """The id and path of each record that stands alone, in the order of their making."""
    parts = [run.at("done", part) for part in ([tag] if tag else names_in(run.done))]
    return sorted(
        (name.removesuffix(".json"), f"{part}/{name}")
        for part in parts
        for name in names_in(part)
        if name.endswith(".json")
    )


def packed_folders(run: RunLayout) -> list[str]:
    """The folders of packed records; there is more than one only while the run is packed."""
    found = filter(_PACKED.fullmatch, names_in(run.folder))
    names = sorted(found, key=lambda name: int(name.removeprefix("compact-")))
    return [run.at(name) for name in names]


def _read_record(path: str) -> CommitRecord:
    try:
        return CommitRecord.from_bytes(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path}: this record of a commit cannot be read ({error}). `pipestream check "
            "--fix` puts it aside."
        ) from error


def _settled(read: Callable[[], T]) -> T:
    """Reads a ledger again if it was packed, or its run undone, meanwhile."""
    for _ in range(_TRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    try:
        return read()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{error.filename}: this file of a ledger is missing. `pipestream check --fix` puts "
            "aside what is left of it."
        ) from error


# -- questions -----------------------------------------------------------------------------


@DatasetError.explaining_questions()
def outcomes(folder: Folder, run_key: str, tag: str | None = None) -> dict[int, SampleRecord]:
    """What became of each sample of a run: its last record, by index; empty for no such run.

    Args:
        folder: The dataset's root.
        run_key: The run.
        tag: The part of the run (a chunk) to look at; None is all.

    Raises:
        DatasetError: If a record cannot be read.
    """
    run = layout_of(folder).run(run_key)
    return _settled(
        lambda: {record.idx: record for commit in commits_of(run, tag) for record in commit.samples}
    )


@DatasetError.explaining_questions()
def done_indices(folder: Folder, run_key: str, tag: str | None = None) -> set[int]:
    """The indices that a run need not do again: all of its ledger but the failed ones.

    Raises:
        DatasetError: If a record cannot be read, or the run is half undone.
    """
    run = layout_of(folder).run(run_key)
    if is_there(run.undoing):
        raise DatasetError(
            f"{layout_of(folder).root}: run {run_key!r} is being undone, or its undo was "
            "interrupted. Finish it by calling `undo_run` again (`pipestream undo`), then run it "
            "anew."
        )
    rows = rows_in(run, tag).last_of_each()
    return set(rows.idx[rows.outcome != FAILED].tolist())


@DatasetError.explaining_questions()
def counts(folder: Folder, run_key: str, tag: str | None = None) -> dict[Outcome, int]:
    """How many samples of a run (or of one part of it) had each outcome."""
    return counts_of(rows_in(layout_of(folder).run(run_key), tag))


def counts_of(rows: Rows) -> dict[Outcome, int]:
    """How many samples had each outcome, by the last row of each."""
    found = np.bincount(rows.last_of_each().outcome, minlength=len(OUTCOMES)).tolist()
    return dict(zip(OUTCOMES, found, strict=True))


@DatasetError.explaining_questions()
def failures(folder: Folder, run_key: str, tag: str | None = None) -> list[SampleRecord]:
    """The records of the samples that failed in a run and were not done since, by index."""
    run = layout_of(folder).run(run_key)
    failed = set(failed_in(run, tag))
    found: dict[int, SampleRecord] = {}
    if failed:
        for record in _settled(lambda: list(_failure_records(run, tag))):
            if record.idx in failed:
                found[record.idx] = record
    return [found.get(idx) or SampleRecord(idx, "failed") for idx in sorted(failed)]


def failed_in(run: RunLayout, tag: str | None = None) -> list[int]:
    """The indices of the samples that failed in a run and were not done since, ascending."""
    rows = rows_in(run, tag).last_of_each()
    failed: list[int] = rows.idx[rows.outcome == FAILED].tolist()
    return failed


def _failure_records(run: RunLayout, tag: str | None) -> Iterator[SampleRecord]:
    loose, dropped, packed = _open(run, tag)
    if packed is not None:
        if tag is None and not dropped:
            yield from packed.failures()
        else:
            for commit in packed.commits():
                if commit.id not in dropped and tag in (None, commit.tag):
                    yield from (s for s in commit.samples if s.failure is not None)
    for path in loose:
        yield from (s for s in _read_record(path).samples if s.failure is not None)
