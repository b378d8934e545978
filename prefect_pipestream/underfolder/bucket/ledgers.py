"""What the log of a bucket says of runs, as ledgers in a folder of this process.

They are read by all that reads those of a dataset in a folder, and are never written but by what
the log says.
"""

import atexit
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.store import Store
from prefect_pipestream.storage.untrusted import inside
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.kept_source import KeptSource, look_at_all
from prefect_pipestream.underfolder.bucket.keys import DIGITS
from prefect_pipestream.underfolder.commits.apply import drop_commits
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER
from prefect_pipestream.underfolder.ledger.records import CommitRecord, is_time
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.taken_back import PARTS, PartNote
from prefect_pipestream.underfolder.runs.imported import ImportLine, add_lines, drop_lines
from prefect_pipestream.underfolder.runs.pruning import prune
from prefect_pipestream.underfolder.runs.retiring import retire

_ENTRIES = "entries"


class Ledgers(Layout):
    """The ledgers of a dataset in a bucket: there as long as somebody knows them.

    Args:
        store: The dataset's store, by whose address it is named.
    """

    __slots__ = (
        "__weakref__",
        "_folder",
        "_last",
        "_latest",
        "_latest_of",
        "_moved_at",
        "_numbers",
        "_store",
    )

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self._store = store
        self._numbers: dict[str, int] = {}  # of the entries, by the ids of their commits
        self._last: tuple[str, Entry | None] = ("", None)  # the one read last, by its path
        self._latest = self._moved_at = 0.0  # of all that is kept, and of what moved samples
        self._latest_of: dict[str, float] = {}  # of each run, by its key
        _remove_left()
        self._folder = tempfile.mkdtemp(prefix="pipestream-")
        self.private = os.path.join(self._folder, PRIVATE_FOLDER)
        weakref.finalize(self, _left.put, (self._folder, os.getpid()))

    def at(self, *parts: str) -> str:
        """The path of a private file or folder."""
        return inside(self._folder, PRIVATE_FOLDER, *parts)

    def refuse_missing(self) -> None:
        """Does nothing: the dataset is there."""

    # -- keeping -----------------------------------------------------------------------

    def keep(self, number: int, entry: Entry, content: bytes) -> None:
        """Goes on by one entry.

        Args:
            number: Its number.
            entry: The entry.
            content: The same, as the log has it.

        Raises:
            DatasetError: If it cannot be written here.
        """
        try:
            self._keep(number, entry, content)
        except OSError as error:
            raise DatasetError(
                f"{self.root}: what its log says cannot be kept in {error.filename} "
                f"({error.strerror}). Make room there, or let TMPDIR name another folder."
            ) from error

    def _keep(self, number: int, entry: Entry, content: bytes) -> None:
        for folder in (self.staged, self.log, self.runs):
            os.makedirs(folder, exist_ok=True)
        entry = self._in_order(entry)
        self._keep_facts(entry)
        if entry.commit is not None:
            self._keep_commit(number, entry.commit, content)
        for name, commits in entry.taken_back.items():
            if Run(self, name).exists():  # a log may come from anybody
                PartNote(self, name, entry.id).write(Run.of(self, entry.run_key).name, commits)
        for name, retired in entry.undone.items():
            retire(Run(self, name), Run(self, retired), self._latest)
        if entry.imported:
            add_lines(self, entry.imported, durable=False)
        for name in entry.pruned:
            prune(doomed := Run(self, name), partial(drop_lines, durable=False))
            remove(doomed.at(_ENTRIES))  # of one that stays for its moves

    def _keep_facts(self, entry: Entry) -> None:
        if entry.facts or entry.taken_back:
            run = Run.of(self, entry.run_key)
            os.makedirs(run.folder, exist_ok=True)
            parts = run.facts().get(PARTS, ())
            taken = {PARTS: list(dict.fromkeys([*parts, entry.id]))} if entry.taken_back else {}
            run.update(**entry.facts, **taken)
        for name, facts in entry.notes.items():
            if (noted := Run(self, name)).exists():
                noted.update(**facts)

    def _keep_commit(self, number: int, commit: CommitRecord, content: bytes) -> None:
        run = Run.of(self, commit.run_key)
        os.makedirs(run.at(_ENTRIES), exist_ok=True)
        self._write(_entry_at(run.folder, number), content)
        self._numbers[commit.id] = number
        os.makedirs(run.at("done", commit.tag), exist_ok=True)
        self._write(run.at("done", commit.tag, f"{commit.id}.json"), commit.to_bytes())
        drop_commits(self, commit.drops)

    def _write(self, path: str, content: bytes) -> None:
        """Writes a file whole, as other threads read meanwhile; one thread at a time writes."""
        fresh = self.at("fresh")
        with open(fresh, "wb") as file:
            file.write(content)
        os.replace(fresh, path)

    def _in_order(self, entry: Entry) -> Entry:
        """The same with the times of this log: the clocks of writers differ.

        By their times the ledgers tell what was there before samples were moved, or a run undone,
        and what a run did after it had ended. Else a time is left as its writer noted it.
        """
        is_moving = entry.moves or bool(entry.undone)
        least = max(
            self._latest if is_moving else self._moved_at, self._latest_of.get(entry.run_key, 0.0)
        )
        commit = entry.commit and _not_before(entry.commit, least)
        imported = [_not_before(line, least) for line in entry.imported]
        at = max([least, *(line.at for line in imported)])
        if commit is not None:
            at = max(at, commit.at)
        facts, finished = entry.facts, entry.facts.get("finished")
        if is_time(finished):  # a log may come from anybody
            at = max(at, finished)
            facts = {**facts, "finished": at}
        self._latest, self._latest_of[entry.run_key] = max(self._latest, at), at
        self._moved_at = at if is_moving else self._moved_at
        return replace(entry, commit=commit, imported=imported, facts=facts)

    # -- what commits found and left -----------------------------------------------------

    def kept_source(self, run: str, commit_id: str, name: str) -> KeptSource | None:
        """Where the content is that a file had before a commit; None: there was none."""
        entry = self._entry(run, commit_id)
        return None if entry is None else self._source_of(entry.before.get(name))

    def written_source(self, run: str, commit_id: str, name: str) -> KeptSource | None:
        """Where the content is that a commit gave a file; None: it gave it none."""
        entry = self._entry(run, commit_id)
        return None if entry is None else self._source_of(entry.placed.get(name))

    def _source_of(self, ref: Ref | None) -> KeptSource | None:
        return None if ref is None else KeptSource(self._store, ref)

    def _entry(self, run: str, commit_id: str) -> Entry | None:
        """The entry that is a commit of a run; that of the last one is read once."""
        number = self._numbers.get(commit_id)
        if number is None:
            return None
        path = _entry_at(run, number)
        last, entry = self._last
        if last != path:
            entry = _read_entry(path)
            if entry is not None:  # else it is one of another run
                self._last = path, entry
        return entry

    def look_at(self, sources: Iterable[FileSource]) -> None:
        """Asks for many contents at once, each of which then knows whether it is there.

        Raises:
            StoreError: If one cannot be asked for.
        """
        look_at_all(source for source in sources if isinstance(source, KeptSource))

    def order_of(self, commit_id: str) -> str:
        """What a commit is sorted by among others: by its entry's number, whatever its id says."""
        return f"{self._numbers.get(commit_id, 0):0{DIGITS}d}"


_Timed = TypeVar("_Timed", CommitRecord, ImportLine)


def _not_before(timed: _Timed, least: float) -> _Timed:
    """The same with a later time than another one, where there is one."""
    at = max(timed.at, math.nextafter(least, math.inf))
    return replace(timed, at=at) if is_time(at) else timed


def entries_of(runs: Iterable[Run]) -> Iterator[tuple[Run, Entry]]:
    """The commits of runs that were not taken back, in the order of the log, each with its run.

    Args:
        runs: The runs, of such ledgers.
    """
    dropped: dict[str, Container[str]] = {}
    numbered: list[tuple[str, Run]] = []
    for run in runs:
        dropped[run.name] = frozenset(names_in(run.dropped))
        numbered += [(name, run) for name in names_in(run.at(_ENTRIES))]
    for name, run in sorted(numbered, key=lambda one: one[0]):
        entry = _read_entry(run.at(_ENTRIES, name))
        if entry is not None and entry.id not in dropped[run.name]:
            yield run, entry


def all_entries_of(run: Run) -> Iterator[Entry]:
    """All commits of a run, also those that were taken back."""
    read = (_read_entry(run.at(_ENTRIES, name)) for name in sorted(names_in(run.at(_ENTRIES))))
    yield from (entry for entry in read if entry is not None)


def _entry_at(run: str, number: int) -> str:
    return inside(run, _ENTRIES, f"{number:0{DIGITS}d}")


def _read_entry(path: str) -> Entry | None:
    """An entry of a run; None where it has it no more, undone or pruned as another thread reads."""
    try:
        with open(path, "rb") as file:
            return Entry.from_bytes(file.read())
    except FileNotFoundError:
        return None


# The folders that nobody knows any more, and whose they are. They are not removed by what is called
# as an object goes: a task's timeout or Ctrl-C that comes meanwhile would be lost there.
_left: SimpleQueue[tuple[str, int]] = SimpleQueue()


@atexit.register
def _remove_left() -> None:
    while True:
        try:
            folder, pid = _left.get_nowait()
        except Empty:
            return
        if os.getpid() != pid:  # a forked process is not to take it from this one
            continue
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            _left.put((folder, pid))
            raise
