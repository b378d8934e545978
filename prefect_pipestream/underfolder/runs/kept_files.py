"""Files as a run found and left them: what they were named, and where they can be read still."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.version import mark_at
from prefect_pipestream.underfolder.format.names import is_shared, key_of
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One item's file as it was at some time.

    Attributes:
        name: Its name then.
        path: Where it is now, with the content of then; None: it is kept nowhere any more.
        mark: What tells it from others, of one that a run placed: its size and time.
    """

    name: str
    path: str | None
    mark: str | None = None

    def item(self) -> Item[Any] | None:
        """The item, to be called for its value; None where the file is kept nowhere."""
        if self.path is None:
            return None
        return Item.from_source(FileSource(self.path), shared=is_shared(self.name))


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What became of one item of a sample.

    Attributes:
        key: The item's key.
        before: Its file before; None: there was none.
        after: Its file after; None: there is none.
    """

    key: str
    before: KeptFile | None
    after: KeptFile | None

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What that is, in a word."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit did to one item.

    Attributes:
        key: The item's key.
        old: The name of the file that was replaced or removed; None: there was none.
        kept: Where that file was put.
        new: The name of the file that was placed; None: there is none.
        mark: The mark of that.
    """

    key: str
    old: str | None
    kept: str | None
    new: str | None
    mark: str | None

    def change(self, after: KeptFile | None) -> ItemChange:
        """The change, given where the new file is."""
        before = None if self.old is None else KeptFile(self.old, existing(self.kept))
        return ItemChange(self.key, before, after)


def steps_of(run: Run, commit: CommitRecord, record: SampleRecord) -> Iterator[Step]:
    """What a commit did to the own items of a sample, by key; one file of each is looked at."""
    writes = {key_of(n): (n, mark) for n, mark in (record.writes or {}).items() if not is_shared(n)}
    gone = {key_of(n): n for n in (*record.removes, *record.replaces) if not is_shared(n)}
    for key in dict.fromkeys([*writes, *gone]):
        old = gone.get(key)
        kept = None if old is None else run.kept(commit.id, old)
        new, mark = writes.get(key, (None, None))
        yield Step(key, old, kept, new, mark)


def existing(path: str | None) -> str | None:
    """The path, if there is a file."""
    return path if path is not None and is_there(path) else None


def found_at(mark: str | None, paths: Iterable[str]) -> str | None:
    """The first of some paths at which there is a file of this mark."""
    return next((path for path in paths if mark is not None and mark_at(path) == mark), None)


Finder = Callable[[Step], Iterable[str]]
"""Says where the file that a step placed may be."""


def file_after(step: Step, where: Finder) -> KeptFile | None:
    """The file that a step placed."""
    if step.new is None:
        return None
    return KeptFile(step.new, found_at(step.mark, where(step)), step.mark)
