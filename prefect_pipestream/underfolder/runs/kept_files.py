"""Files as a run found and left them: what they were named, and where they can be read still."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.underfolder.format.names import is_shared, key_of
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One item's file as it was at some time.

    Attributes:
        name: Its name then.
        source: The file that has the content of then, where it is now; None: it is kept nowhere
            any more.
        mark: What tells its content from others, where that is known: its size and time.
    """

    name: str
    source: FileSource | None = field(compare=False)
    mark: str | None = None

    @property
    def path(self) -> str | None:
        """Where that file is: its path, or its address in a bucket; None where there is none."""
        return None if self.source is None else self.source.path

    def item(self) -> Item[Any] | None:
        """The item, to be called for its value; None where the file is kept nowhere."""
        if self.source is None:
            return None
        return Item.from_source(self.source.anew(), shared=is_shared(self.name))

    def is_as_then(self) -> bool:
        """Whether the file is still what it was found to be: in its place, others write it.

        Raises:
            OSError: If that could not be asked.
        """
        now = None if self.source is None else self.source.anew().mark()
        return now is not None and now == self.mark


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
        placed: Where it was placed.
        mark: Its mark.
    """

    key: str
    old: str | None
    kept: FileSource | None
    new: str | None
    placed: FileSource | None
    mark: str | None

    @property
    def sources(self) -> Iterator[FileSource]:
        """Where its files may be."""
        yield from (one for one in (self.kept, self.placed) if one is not None)

    def change(self, where: "Finder") -> ItemChange:
        """The change, given where the new file may be."""
        return ItemChange(self.key, self._before(), self._after(where))

    def _before(self) -> KeptFile | None:
        if self.old is None:
            return None
        mark = None if self.kept is None else self.kept.mark()
        return KeptFile(self.old, None if mark is None else self.kept, mark)

    def _after(self, where: "Finder") -> KeptFile | None:
        if self.new is None:
            return None
        return KeptFile(self.new, _found_in(where(self), self.mark), self.mark)


Finder = Callable[[Step], Iterable[FileSource]]
"""Says where the file that a step placed may be."""


def steps_of(run: Run, commit: CommitRecord, record: SampleRecord) -> Iterator[Step]:
    """What a commit did to the own items of a sample, by key; one file of each is looked at."""
    writes = {key_of(n): (n, mark) for n, mark in (record.writes or {}).items() if not is_shared(n)}
    gone = {key_of(n): n for n in (*record.removes, *record.replaces) if not is_shared(n)}
    for key in dict.fromkeys([*writes, *gone]):
        old = gone.get(key)
        kept = None if old is None else run.kept_source(commit.id, old)
        new, mark = writes.get(key, (None, None))
        placed = None if new is None else run.written_source(commit.id, new)
        yield Step(key, old, kept, new, placed, mark)


def existing(run: Run, files: Iterable[tuple[str, FileSource | None]]) -> dict[str, FileSource]:
    """Of files that a run found or left, by name, those that are there."""
    known = {name: source for name, source in files if source is not None}
    run.layout.look_at(known.values())
    return {name: source for name, source in known.items() if source.mark() is not None}


def _found_in(sources: Iterable[FileSource], mark: str | None) -> FileSource | None:
    """The first of some files that has this mark."""
    return next((one for one in sources if mark is not None and one.mark() == mark), None)
