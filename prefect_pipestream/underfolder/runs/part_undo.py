"""A part of a run: some of its samples are taken back, and the rest of it stands."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from prefect_pipestream.errors import UndoRefusedError
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import check_index, is_shared
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.ledger.taken_back import PARTS, PartNote

Taken = Mapping[str, Mapping[str, Sequence[int]]]
"""By the name of a run's folder, and the id of its commit: where samples were written."""

_SHOWN = 10


def chosen_samples(indices: Iterable[int]) -> tuple[int, ...]:
    """The indices, each once, ascending.

    Raises:
        ItemNameError: If one cannot be a sample's index.
        UndoRefusedError: If there is none.
    """
    chosen = tuple(sorted(set(map(check_index, indices))))
    if not chosen:
        raise UndoRefusedError("No sample was given to be taken back, expected at least one index.")
    return chosen


def spelled(indices: Iterable[int]) -> str:
    """Ascending indices as a command line has them: ``3,7-9``."""
    runs = groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
    spans = [[idx for _, idx in pairs] for _, pairs in runs]
    return ",".join(f"{s[0]}" if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)


def described(indices: Sequence[int]) -> str:
    """Ascending indices in a sentence, if need be not all of them."""
    more = len(indices) - _SHOWN
    shown = spelled(indices[:_SHOWN]).replace(",", ", ")
    return f"sample{'s' if len(indices) > 1 else ''} {shown}{f' and {more} more' * (more > 0)}"


def only(commit: CommitRecord, indices: Collection[int]) -> CommitRecord:
    """A commit as if it were of some samples alone, given by where they were written.

    Shared items are left out: they are the whole run's.
    """
    chosen = (s for s in commit.samples if s.written_at in indices)
    samples = tuple(with_names(sample, lambda name: not is_shared(name)) for sample in chosen)
    return replace(commit, samples=samples, shared={})


def with_names(sample: SampleRecord, is_wanted: Callable[[str], bool]) -> SampleRecord:
    """A sample's record as if it were of some files alone, given by their names."""
    if all(map(is_wanted, (*(sample.writes or ()), *sample.removes))):
        return sample
    return replace(
        sample,
        writes={name: mark for name, mark in (sample.writes or {}).items() if is_wanted(name)},
        replaces=tuple(filter(is_wanted, sample.replaces)),
        removes=tuple(filter(is_wanted, sample.removes)),
    )


def samples_of(runs: Iterable[Run], indices: Collection[int]) -> Taken:
    """What runs did to some samples, as `take_back` notes it.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for run in runs:
        for commit in run.commits(idx=indices):
            written = [s.written_at for s in commit.samples if s.written_at in indices]
            if written:
                found.setdefault(run.name, {})[commit.id] = written
    return found


def take_back(undo: Run, runs: Iterable[Run], stamp: str, taken: Taken) -> None:
    """Lets samples of runs count no more: of all the runs at once, as the undo says that it is so.

    The caller holds the commit lock. A process killed in here is followed by one that does it
    again, from the start.

    Args:
        undo: The undo's run, which exists.
        runs: The runs.
        stamp: What tells this undo from all others.
        taken: The samples.
    """
    for run in runs:
        PartNote(undo.layout, run.name, stamp).write(undo.name, taken.get(run.name, {}))
    undo.update(**{PARTS: [stamp]})


def refuse_part_of(layout: Layout, runs: Iterable[Run]) -> None:
    """Checks that a part of each run can be taken back.

    Raises:
        UndoRefusedError: If one moved samples, or took others back: such a run is a whole.
    """
    for run in runs:
        facts = run.facts()
        if not {"compacts", "undoes", "rolls_back"}.isdisjoint(facts):
            what = "moved samples" if "compacts" in facts else "took back another run"
            raise UndoRefusedError(
                f"{layout.root}: run {run.key!r} {what}: it is undone as a whole or not at all, "
                "so leave out the indices (`--indices`)."
            )


def refuse_out_of_turn(layout: Layout, runs: Sequence[Run]) -> None:
    """Checks that what took back parts of runs is undone in turn with the runs.

    Raises:
        UndoRefusedError: If a run has samples back in part, by an undo that was interrupted in its
            turn; or one took back samples of a run that is undone with it, or was undone since.
    """
    for run in runs:
        undoing = run.half_given_back_by()
        if undoing is not None:
            raise UndoRefusedError(
                f"{layout.root}: run {run.key!r} cannot be undone now, for the undo of run "
                f"{undoing!r}, which took back samples of it, was interrupted. Finish that first."
            )
        stamps = set(run.facts().get(PARTS, ()))
        for whole in runs_with(layout, stamps) if stamps else ():
            first = _to_undo_before(layout, whole, runs)
            if first is not None:
                raise UndoRefusedError(
                    f"{layout.root}: run {run.key!r} took back samples of run {whole.key!r}, whose "
                    f"changes cannot come back in part. Undo run {first!r} first, alone."
                )


def runs_with(layout: Layout, stamps: Collection[str]) -> list[Run]:
    """The runs of which something was taken back by undos of these stamps."""
    return [
        run for run in runs_of(layout) if any(note.stamp in stamps for note in run.part_notes())
    ]


def _to_undo_before(layout: Layout, whole: Run, runs: Sequence[Run]) -> str | None:
    """The run to be undone before a part of `whole` may come back; None: it may."""
    names = {run.name for run in runs}
    if whole.name in names:
        return whole.key
    if not whole.is_undone():
        return None
    undos = [run for run in runs_of(layout) if not run.is_undone() and run.name not in names]
    by = [undo for undo in undos if whole.name in undo.facts().get("undoes_folders", ())]
    return by[0].key if by else None


def settle_parts(undo: Run) -> None:
    """Lets the samples that an undo took back be so for good; or, if it was undone, forgets it.

    That is for an undo that is about to be removed. The caller holds the ledger lock.
    """
    stamps = set(undo.facts().get(PARTS, ()))
    for run in runs_with(undo.layout, stamps) if stamps else ():
        for note in run.part_notes():
            if note.stamp in stamps:
                if note.holds():
                    note.settle()
                else:
                    note.forget()
