"""The files of a dataset in a bucket: as they are now, and as runs found and left them."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.store import at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import object_of
from prefect_pipestream.underfolder.bucket.ledgers import entries_of
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.ledger.records import CommitRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.part_undo import only, with_names
from prefect_pipestream.underfolder.runs.undo_plan import Change, Commits, Files


class BucketFiles(Files):
    """The files of a dataset in a bucket: what they are like now, and as runs found and left them.

    Args:
        dataset: The dataset.
    """

    dataset: Bucket

    def __init__(self, dataset: Bucket) -> None:
        super().__init__(dataset.log.ledgers(), dataset)
        self._before: dict[str, Mapping[str, Ref]] = {}

    def in_turn(self, runs: Iterable[Run], indices: Collection[int] | None = None) -> Commits:
        """The commits of several runs in the order of the log, each with its run; see `Files`."""
        runs = list(runs)
        gone = {run.name: run.taken_back() for run in runs}
        for run, entry in entries_of(runs):
            self._before[run.undo_of(entry.id)] = entry.before
            commit = gone[run.name].rest_of(_as_placed(entry))
            yield run, commit if indices is None else only(commit, indices)

    def asked_at_once(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Asks for many files at the same time."""
        return self.dataset.contents.asked_at_once(names)

    def mark(self, name: str) -> str | None:
        """The mark of a file as it is now; None where there is none."""
        return self.dataset.contents.mark_now(name)

    def kept_mark(self, name: str, kept_in: str) -> str | None:
        """The mark of a file that a commit kept; None where it kept none."""
        ref = self._before[kept_in].get(name)
        return None if ref is None else ref.version().mark

    def is_as_before(self, name: str, change: Change) -> bool:
        """Whether a file has the content that was kept (or, as then, there is none)."""
        kept_in = change.kept_in
        return self.mark(name) == (None if kept_in is None else self.kept_mark(name, kept_in))

    def lost(self, names: Iterable[str], changes: Mapping[str, Change]) -> list[str]:
        """Where contents were kept that are not there any more."""
        refs = (self.ref(name, changes[name]) for name in names)
        keys = [object_of(ref) for ref in refs if ref is not None]
        found = zip(keys, at_once(self.dataset.log.store.stat, keys), strict=True)
        return [self.dataset.address / key for key, there in found if there is None]

    def before(self, name: str, change: Change) -> FileSource | None:
        """A file as it was before; None: there was none."""
        ref = self.ref(name, change)
        return None if ref is None else BucketSource(self.dataset.contents, name, ref)

    def ref(self, name: str, change: Change) -> Ref | None:
        """The content of a file as it was before; None: there was none."""
        return None if change.kept_in is None else self._before[change.kept_in].get(name)


def _as_placed(entry: Entry) -> CommitRecord:
    """The commit of an entry, without names of which that has no content."""
    commit: CommitRecord = entry.commit
    known = entry.placed.keys() | entry.before.keys()
    samples = tuple(with_names(sample, known.__contains__) for sample in commit.samples)
    shared = {name: mark for name, mark in commit.shared.items() if name in known}
    return replace(commit, samples=samples, shared=shared)
