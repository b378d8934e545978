"""A plain model of the runs of a dataset: a list of what happened, and versions of files.

Nothing in here reads a dataset. Each file of a sample has a version, a number that no other content
has. All that may be asked of a run follows from the list of changes, from the first to the last.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

Name = tuple[int, str]
"""A file: its sample's index, and the key of the item."""

Versions = dict[Name, int]


@dataclass(eq=False)
class ModelRun:
    """A run that was not pruned.

    Attributes:
        key: Its key; one that was undone may share it with a later one.
        started: What tells it from all others, whatever its folder is called.
        stands: Whether it counts: it was not undone.
        undoes: The runs that it took back as a whole.
        is_undo: Whether it took a run, or a part of one, back.
        kept: Whether pruning leaves it.
        name: The name that it was given.
    """

    key: str
    started: datetime
    stands: bool = True
    undoes: list["ModelRun"] = field(default_factory=list)
    is_undo: bool = False
    kept: bool = False
    name: str | None = None


@dataclass(eq=False)
class Change:
    """What one commit of a run did to one sample.

    Attributes:
        run: The run.
        idx: The sample.
        before: The versions that it replaced, by key.
        after: Those that it placed.
        takers: The undos of a part that took it back; it counts where none of them stands.
        is_gone: Whether it was taken back for good, by an undo that is pruned.
    """

    run: ModelRun
    idx: int
    before: dict[str, int]
    after: dict[str, int]
    takers: set[ModelRun] = field(default_factory=set)
    is_gone: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether the sample was taken out of its run."""
        return self.is_gone or any(taker.stands for taker in self.takers)

    @property
    def counts(self) -> bool:
        """Whether it is neither undone nor taken out."""
        return self.run.stands and not self.is_taken


@dataclass
class Net:
    """What changes did to one file all in all; `is_steady`: with nobody's change in between."""

    first: int
    before: int
    after: int
    is_steady: bool = True


class Model:
    """The runs of a dataset, and its files."""

    def __init__(self) -> None:
        self.files: Versions = {}  # the version that is there
        self.runs: list[ModelRun] = []  # in the order of their start
        self.changes: list[Change] = []

    # -- runs ------------------------------------------------------------------------------

    def standing(self) -> list[ModelRun]:
        """The runs that count."""
        return [run for run in self.runs if run.stands]

    def run(self, key: str) -> ModelRun | None:
        """The run of this key that counts."""
        return next((run for run in self.standing() if run.key == key), None)

    def of(self, run: ModelRun) -> list[Change]:
        """What a run did and was not taken out of it."""
        return [one for one in self.changes if one.run is run and not one.is_taken]

    def done_by(self, key: str) -> set[int]:
        """The samples that a run of this key need not do again."""
        run = self.run(key)
        return set() if run is None else {one.idx for one in self.of(run)}

    def commit(self, run: ModelRun, placed: Mapping[Name, int]) -> None:
        """Notes that a run placed versions of files."""
        for idx in sorted({idx for idx, _ in placed}):
            after = {key: version for (i, key), version in placed.items() if i == idx}
            before = {key: self.files[idx, key] for key in after}
            self.changes.append(Change(run, idx, before, after))
        self.files.update(placed)

    # -- undo ------------------------------------------------------------------------------

    def net(self, runs: Collection[ModelRun], indices: Collection[int] | None) -> dict[Name, Net]:
        """What runs did to each file all in all; to those of some samples, or of all."""
        found: dict[Name, Net] = {}
        for number, change in enumerate(self.changes):
            is_of = change.run in runs and not change.is_taken
            if not is_of or (indices is not None and change.idx not in indices):
                continue
            for key, after in change.after.items():
                before = change.before[key]
                net = found.setdefault((change.idx, key), Net(number, before, before))
                net.is_steady = net.is_steady and net.after == before
                net.after = after
        return found

    def changed_since(self, nets: Mapping[Name, Net]) -> list[Name]:
        """The files that are neither as changes left them nor as they were before these."""
        return [
            name
            for name, net in nets.items()
            if not self.is_back(name, net) and (self.files[name] != net.after or not net.is_steady)
        ]

    def is_back(self, name: Name, net: Net) -> bool:
        """Whether a file is as it was before changes, and not as they left it."""
        return self.files[name] == net.before != net.after

    def to_put_back(self, run: ModelRun, indices: Collection[int] | None) -> Versions | None:
        """What an undo of a run, or of some samples of it, places; None: it is refused."""
        nets = self.net([run], indices)
        is_refused = indices is not None and (run.is_undo or not nets)
        if is_refused or self.changed_since(nets) or self.is_out_of_turn(run):
            return None
        return {name: net.before for name, net in nets.items() if not self.is_back(name, net)}

    def is_out_of_turn(self, undo: ModelRun) -> bool:
        """Whether it took back samples of a run which was undone as a whole since."""
        wholes = {one.run for one in self.changes if undo in one.takers}
        undone = {run for other in self.standing() for run in other.undoes}
        return any(not run.stands and run in undone for run in wholes)

    def undone(self, run: ModelRun, indices: Collection[int] | None, undo: ModelRun | None) -> None:
        """Notes that a run was taken back, or some samples of it."""
        if undo is not None:
            undo.is_undo = True
        if indices is None:
            if undo is not None:
                undo.undoes.append(run)
            self._retire(run, set())
        elif undo is not None:
            for change in self.of(run):
                if change.idx in indices:
                    change.takers.add(undo)

    def _retire(self, run: ModelRun, seen: set[ModelRun]) -> None:
        """Lets a run count no more, and those that it took back again."""
        seen.add(run)
        run.stands = False
        for other in run.undoes:
            if other in self.runs and other not in seen and self.run(other.key) is None:
                self._give_back(other, seen)

    def _give_back(self, run: ModelRun, seen: set[ModelRun]) -> None:
        seen.add(run)
        run.stands = True
        for other in run.undoes:
            if other in self.runs and other not in seen and other.stands:
                self._retire(other, seen)

    # -- restoring -------------------------------------------------------------------------

    def since(self, idx: int, key: str, state: str) -> list[Change] | None:
        """What happened to a sample since before, or after, a run; None: the run did not touch it.

        Of several runs of a key the one that counts; else any of those that were undone.
        """
        every = [one for one in self.changes if one.idx == idx]
        ours = [number for number, one in enumerate(every) if one.run.key == key]
        if not ours:
            return None
        chosen = [number for number in ours if every[number].counts] or ours
        return every[chosen[0] :] if state == "before" else every[chosen[-1] + 1 :]

    # -- keeping and pruning ---------------------------------------------------------------

    def needed_by_kept(self) -> set[ModelRun]:
        """The kept runs, and what is needed to undo them, or to have them back."""
        kept = [run for run in self.runs if run.kept]
        needed = set(kept)
        for run in kept:
            undos = [one for one in self.standing() if run in one.undoes]
            together = self._undone_together([run] if run.stands else undos)
            needed |= together | self.taken_back_by(together)
        return needed

    def _undone_together(self, runs: Iterable[ModelRun]) -> set[ModelRun]:
        """The runs, and the later ones that changed their files again."""
        together = set(runs)
        while True:
            nets = self.net(together, None)
            later = {
                change.run
                for name in self.changed_since(nets)
                for change in self.changes[nets[name].first :]
                if change.counts and change.idx == name[0] and name[1] in change.after
            }
            if later <= together:
                return together
            together |= later

    def taken_back_by(self, runs: Collection[ModelRun]) -> set[ModelRun]:
        """The runs that these took back, whole or in part."""
        whole = {other for run in runs for other in run.undoes if other in self.runs}
        return whole | {one.run for one in self.changes if not one.takers.isdisjoint(runs)}

    def protected(self, last: Collection[ModelRun]) -> set[ModelRun]:
        """The runs that pruning leaves, where some are the last ones, which it is to leave."""
        return {*last, *self.taken_back_by(last), *self.needed_by_kept()}

    def pruned(self, gone: Collection[ModelRun]) -> None:
        """Forgets runs; what they took back in part stays so for good, if it was so."""
        for change in self.changes:
            change.is_gone = change.is_gone or any(
                run in change.takers and run.stands for run in gone
            )
            change.takers.difference_update(gone)
        self.runs = [run for run in self.runs if run not in gone]
        self.changes = [change for change in self.changes if change.run not in gone]


def pairs(changes: Iterable[Change]) -> Iterator[tuple[str, int, int]]:
    """By key: the version before all of some changes of a sample, and after them."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for change in changes:
        for key, after in change.after.items():
            first.setdefault(key, change.before[key])
            last[key] = after
    return ((key, before, last[key]) for key, before in first.items())
