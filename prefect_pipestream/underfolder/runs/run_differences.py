"""The differences of a run: what it changed, sample by sample."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import check_index
from prefect_pipestream.underfolder.ledger.records import CHANGING, Outcome
from prefect_pipestream.underfolder.ledger.run import Run, reread_if_moved, runs_of
from prefect_pipestream.underfolder.runs.kept_files import ItemChange, Step, steps_of
from prefect_pipestream.underfolder.runs.listing import existing_run


@dataclass(frozen=True, slots=True)
class SampleDifference:
    """What a run did to one sample, from before its first commit to after its last.

    Attributes:
        idx: The index at which it was written.
        outcome: What became of it at last.
        items: What became of its own items, by key; those that the run left alone are missing.
    """

    idx: int
    outcome: Outcome
    items: tuple[ItemChange, ...]


@DatasetError.explaining_questions()
def run_differences(
    folder: Folder | Layout, run_key: str, indices: Sequence[int] | None = None
) -> Iterator[SampleDifference]:
    """What a run changed, sample by sample, by ascending index.

    Samples that it left as they were are not among them, nor those that were taken back. The
    ledger is read at once, which costs 10 s for 100,000 samples with all their files, and a second
    or less for some; and those of the other runs, where a file was changed since. Files are looked
    up as the iterator comes to them, and no value is read: call the items for that.

    Args:
        folder: The dataset's root.
        run_key: The run, by its key or the name that it was given.
        indices: Of these samples alone, by the indices at which they were written.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        RunNotFoundError: If there is no such run, or it was undone.
        ItemNameError: If one of the indices cannot be a sample's.
        DatasetError: If a ledger cannot be read.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    some = None if indices is None else frozenset(map(check_index, indices))
    run = existing_run(layout, run_key)
    return _differences(_Keepers(run, some), reread_if_moved(lambda: _net(run, some)))


_SOME = 64  # samples whose files are looked up at once, where they are in a bucket
_Net = dict[int, tuple[Outcome, dict[str, Step]]]


def _net(run: Run, some: frozenset[int] | None) -> _Net:
    """The last outcome of each sample that was changed, and what became of each item."""
    found: _Net = {}
    for commit in run.commits(idx=some):
        for record in commit.samples:
            idx = record.written_at
            if record.outcome not in CHANGING or (some is not None and idx not in some):
                continue
            steps = found[idx][1] if idx in found else {}
            for step in steps_of(run, commit, record):
                first = steps.get(step.key, step)
                steps[step.key] = replace(step, old=first.old, kept=first.kept)
            found[idx] = record.outcome, steps
    return found


def _differences(keepers: "_Keepers", net: _Net) -> Iterator[SampleDifference]:
    for some in lots(sorted(net), _SOME):
        keepers.look_at(step for idx in some for step in net[idx][1].values())
        for idx in some:
            outcome, steps = net[idx]
            items = (
                step.change(keepers.sources)
                for step in steps.values()
                if (step.old, step.new) != (None, None)  # placed by the run, and removed again
            )
            yield SampleDifference(idx, outcome, tuple(items))


class _Keepers:
    """Where the files that a run placed may be: in their place, or kept by another run."""

    def __init__(self, run: Run, some: frozenset[int] | None) -> None:
        self._run = run
        self._some = some
        self._kept: dict[str, list[tuple[Run, str]]] | None = None

    def look_at(self, steps: Iterable[Step]) -> None:
        """Looks at the files of many steps, as far as that is done at once."""
        self._run.layout.look_at(source for step in steps for source in step.sources)

    def sources(self, step: Step) -> Iterator[FileSource]:
        """Where the file that a step placed may be."""
        if step.new is None:
            return
        if step.placed is not None:
            yield step.placed
        if self._kept is None:
            self._kept = reread_if_moved(self._kept_by_all)
        kept = (run.kept_source(commit, step.new) for run, commit in self._kept.get(step.new, ()))
        yield from filter(None, kept)

    def _kept_by_all(self) -> dict[str, list[tuple[Run, str]]]:
        """The commits before which a file of each name was kept, each with its run."""
        found: dict[str, list[tuple[Run, str]]] = {}
        for run in runs_of(self._run.layout):
            for commit in run.commits(idx=self._some, with_taken_back=True):
                names = (s.replaces + s.removes for s in commit.samples)
                for name in chain.from_iterable(names):
                    found.setdefault(name, []).append((run, commit.id))
        return found
