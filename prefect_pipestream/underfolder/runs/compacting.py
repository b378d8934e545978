"""Close the gaps in a dataset: samples move to lower indices, in their order.

A compaction is a run: its commits link each sample's files to the names of its new index and remove
the old ones, some samples at a time, in ascending order. What is left to do is seen from what is
there: the samples that have moved are 0, 1, 2, … by then.
"""

import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetWriteError
from prefect_pipestream.storage.asking import status_of, status_through_links
from prefect_pipestream.storage.version import Version, signature_of
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.commits.attempts import note_first_attempt
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import Kind
from prefect_pipestream.underfolder.format.run_key import new_run_key
from prefect_pipestream.underfolder.ledger.records import SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs.listing import live_writers
from prefect_pipestream.underfolder.runs.packing import end_run

BATCH = 1000
"""How many samples are moved by one commit, at most."""
_MOST_TRIES = 100
_NOT_COMPLETE = "other programs changed its samples every time: compact it while nobody writes."

Moves = npt.NDArray[np.int64]
"""Samples that are to be moved: n×2, each index and the lower one, ascending."""

Progress = Callable[[int, int], None]
"""Called with the number of samples that were moved, and of all that are to be."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did.

    Attributes:
        run_key: The run that it is, to be undone by.
        samples: How many samples the dataset has.
        moved: How many of them the run moved, in all of its attempts.
    """

    run_key: str
    samples: int
    moved: int


@DatasetError.explaining_questions()
def compact(
    folder: Folder,
    run_key: str | None = None,
    *,
    durable: bool = False,
    on_progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> CompactReport:
    """Moves samples to lower indices, so that there are no gaps; their order stays.

    Nothing is decoded, and files are linked, not copied, where the file system can. A name keeps
    its extension and its padding. What transforms noted of samples moves with them: a later run
    over what changed (`select="changed"`) does not take them for new. Costs some 0.1 ms of
    processor time a file. Who goes on appending meanwhile may leave a gap behind it.

    Args:
        folder: The dataset's root.
        run_key: A name for the run, or the key of one that was interrupted, to go on with it.
        durable: Whether each commit survives a loss of power.
        on_progress: Called after each commit.
        facts: What the ledger is to say of the run, beside what it is.

    Returns:
        What was done. Where there is no gap, no run is made.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If another run is being written by another process, as what it is still to do
            would be other samples; if the run key is that of another kind of run; or if an item is
            a symbolic link to another one of the dataset.
        ConflictError: If other writers got in the way again and again. What was moved until then
            stays, and the run can be gone on with.
        RunTakenOverError: If another attempt at the run began meanwhile.
        DatasetWriteError: If the dataset cannot be written; every sample is whole.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    key = new_run_key("compact") if run_key is None else key_meant(layout, run_key)
    recover(layout.root)
    run = Run.of(layout, key)
    dataset = Underfolder(layout.root, watch=True)
    _refuse_other_runs(layout, run)
    if not (run.exists() and run.has_ended()) and (
        len(moves_left(dataset.indices())) or run.exists()
    ):
        writer = UnderfolderWriter(
            layout.root, exists_ok=True, run_key=key, dataset=dataset, durable=durable
        ).for_attempt()
        _refuse_links_within(layout)
        _begin(run, writer, facts or {})
        move_all(dataset, lambda: _move(writer, dataset), on_progress)
        end_run(run)
    return CompactReport(key, len(dataset.indices()), len(run.moves().at))


def _refuse_other_runs(layout: Layout, run: Run) -> None:
    refuse_other_kind(run)
    here = (socket.gethostname(), os.getpid())
    for key, writers in live_writers(layout).items():
        for writer in writers:
            if key != run.key and (writer.get("host"), writer.get("pid")) != here:
                raise DatasetError(
                    f"{layout.root}: run {key!r} is being written, by process {writer.get('pid')} "
                    f"on {writer.get('host')}: the samples that it is still to do would be others. "
                    "Wait for its end, or stop it, and compact the dataset then."
                )


def refuse_other_kind(run: Run) -> None:
    """Checks that a run is no other one than a compaction.

    Raises:
        DatasetError: If it is.
    """
    if "started" in run.facts() and not run.is_compaction:
        raise DatasetError(
            f"{run.layout.root}: run {run.key!r} is there and is no compaction. Give another run "
            "key, or none for a new one."
        )


def _refuse_links_within(layout: Layout) -> None:
    """A link to a sample's file of the same dataset would lead to another sample's afterwards."""
    data = os.path.realpath(layout.data)
    for folder in (layout.root, layout.data):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and os.path.dirname(os.path.realpath(entry.path)) == data:
                    raise DatasetError(
                        f"{entry.path}: this is a symbolic link to {os.readlink(entry.path)}, a "
                        "sample's file in the same dataset, which would get another name. Replace "
                        "the link by a copy of the file, and compact the dataset then."
                    )


def _begin(run: Run, writer: UnderfolderWriter, facts: Mapping[str, Any]) -> None:
    writer.claim()
    with DatasetWriteError.explaining(f"{run.layout.root}: run {run.key!r} cannot be noted"):
        run.note({**facts, "compacts": True})
    if writer.attempt is not None:
        note_first_attempt(run, writer.attempt)


def moves_left(indices: npt.NDArray[np.int64]) -> Moves:
    """The samples that are to be moved of those of a dataset, which are given ascending."""
    ranks = np.arange(len(indices), dtype=np.int64)
    moves: Moves = np.stack([indices, ranks], axis=1)[indices != ranks]
    return moves


def move_all(dataset: Underfolder, move: Callable[[], Moves], on_progress: Progress | None) -> None:
    """Moves what is to be moved; where others change samples meanwhile, looks anew.

    Who appends all the time makes a gap after each move: they are closed while tries are left.

    Args:
        dataset: The dataset.
        move: Moves the first samples that are to be, and says which.
        on_progress: Called after each move.

    Raises:
        ConflictError: If programs that do not know of the commit lock got in the way every time.
    """
    total, done = len(moves_left(dataset.indices())), 0
    conflicts = chases = 0
    while chases < _MOST_TRIES:
        try:
            moved = move()
        except ConflictError as error:
            conflicts += 1
            if conflicts == _MOST_TRIES:
                what = f"{dataset.folder} could not be compacted: {_NOT_COMPLETE}"
                raise ConflictError(what) from error
            time.sleep(random.uniform(0, 0.05))
            dataset.settle()
            continue
        if not len(moved):
            return
        done += len(moved)
        chases += done > total  # what was there as it began has moved
        if on_progress is not None:
            on_progress(done, max(done, total))


def _move(writer: UnderfolderWriter, dataset: Underfolder) -> Moves:
    """Moves the first samples that are to be, in one commit: all of them, or none.

    What is to be moved is looked up while no other writer can commit.
    """
    moves: Moves = np.empty((0, 2), dtype=np.int64)
    with writer.staging() as staging:

        def stage() -> None:
            nonlocal moves
            moves = moves_left(dataset.indices())[:BATCH]
            widths = widths_of(dataset.index().kinds())
            names = (f"/{name}" for name in dataset.shared_files().values())
            shared = dict(_versions(staging.layout, names))
            try:
                for idx, target in moves.tolist():
                    _stage(staging, dataset, idx, target, widths, shared)
            except FileNotFoundError as error:
                raise ConflictError(f"{error.filename}: removed by another program.") from error

        writer.publish(staging, moves=True, stage=stage)
    return moves


def _stage(
    staging: Staging,
    dataset: Underfolder,
    idx: int,
    target: int,
    widths: Mapping[str, list[int]],
    shared: Mapping[str, Version],
) -> None:
    names = new_names(dataset.kinds_of(idx), idx, target, widths)
    found: dict[str, str | None] = {}
    versions = {}
    for name in names:
        path = staging.layout.final(name)
        through = status_through_links(path)
        status = through or status_of(path)
        found[name] = None if status is None else Version.of(status).mark
        if through is not None:
            versions[name] = Version.of(through)
    moved = {names[name]: version for name, version in versions.items()}
    record = SampleRecord(
        idx,
        "written",
        signature=signature_of([*moved.items(), *shared.items()]),
        target=target,
        before=signature_of([*versions.items(), *shared.items()]),
    )
    staging.move(record, names, found)


def _versions(layout: Layout, names: Iterator[str]) -> Iterator[tuple[str, Version]]:
    for name in names:
        status = status_through_links(layout.final(name))
        if status is not None:
            yield name, Version.of(status)


# -- names ---------------------------------------------------------------------------------


def widths_of(kinds: list[Kind]) -> dict[str, list[int]]:
    """The digits to which names are padded, ascending, by what follows the index in them.

    Of those of which no name is padded, they are those of all.
    """
    found: defaultdict[str, set[int]] = defaultdict(set)
    for kind in kinds:
        if kind.width:
            found[kind.tail].add(kind.width)
    every = set().union(*found.values())
    return {kind.tail: sorted(found.get(kind.tail, every)) for kind in kinds}


def new_names(
    kinds: Iterable[Kind], idx: int, target: int, widths: Mapping[str, list[int]]
) -> dict[str, str]:
    """The names that files of a sample get which is moved, by those that they have.

    Args:
        kinds: The kinds of its files.
        idx: Its index.
        target: The lower one that it gets.
        widths: See `widths_of`.
    """
    return {kind.name_of(idx): _padded(kind, idx, widths).name_of(target) for kind in kinds}


def _padded(kind: Kind, idx: int, widths: Mapping[str, list[int]]) -> Kind:
    """The kind of a file's name at a lower index: ``100_image.png`` is padded as ``099_…`` is."""
    digits = len(str(idx))
    if kind.width:
        return kind
    fitting = [width for width in widths.get(kind.tail, ()) if width <= digits]
    return Kind(kind.tail, fitting[-1] if fitting else 0)
