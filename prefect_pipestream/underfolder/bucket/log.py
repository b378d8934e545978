"""The log of a dataset in a bucket: numbered entries, each created by one writer or nobody.

::

    .pipestream/log/<number>.json      the entries: creating the next one is the commit point
    .pipestream/objects/<entry>/…      the contents that they place, and those of before
    .pipestream/applied                the entry up to which all files are in their places
    .pipestream/plans/…, review/…      documents of their own (see `documents`)
    .pipestream/copied-from            of a copy: the dataset of which it is one (see `copying`)

What an entry says is so from the moment that it is there. Putting the files in their places, where
everybody sees them, comes after it, can be repeated, and is done by whoever writes next where a
writer died before.
"""

import atexit
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.file_source import FileSource, new_digest
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.store import (
    ObjectExistsError,
    Stat,
    Store,
    StoreError,
    at_once,
    open_store,
)
from prefect_pipestream.storage.untrusted import inside
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.kept_source import KeptSource, look_at_all
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.apply import drop_commits
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, PRIVATE_FOLDER, is_shared
from prefect_pipestream.underfolder.ledger.records import CommitRecord, is_time
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.taken_back import PARTS, PartNote
from prefect_pipestream.underfolder.runs.imported import add_lines, drop_lines
from prefect_pipestream.underfolder.runs.pruning import prune
from prefect_pipestream.underfolder.runs.retiring import retire

_log = logging.getLogger(__name__)

LOG = f"{PRIVATE_FOLDER}/log"
"""The folder of the entries."""
APPLIED = f"{PRIVATE_FOLDER}/applied"
"""The key of the note of how far all files are in place."""
_DIGITS = 12
_NUMBERED = re.compile(rf"{re.escape(LOG)}/([0-9]{{{_DIGITS}}})\.json")
_SHOWN = 3
_ENTRIES = "entries"
_SOME = 64


class _Ledgers(Layout):
    """A folder of this process with the ledgers of runs, there as long as somebody knows it.

    Args:
        address: The dataset's address, as which it is named.
    """

    __slots__ = ("__weakref__", "_folder", "_last", "_numbers", "_store")

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._store = open_store(address)
        self._numbers: dict[str, int] = {}  # of the entries, by the ids of their commits
        self._last: tuple[str, Entry | None] = ("", None)  # the one read last, by its path
        _remove_left()
        self._folder = tempfile.mkdtemp(prefix="pipestream-")
        self.private = os.path.join(self._folder, PRIVATE_FOLDER)
        weakref.finalize(self, _left.put, (self._folder, os.getpid()))

    def at(self, *parts: str) -> str:
        """The path of a private file or folder."""
        return inside(self._folder, PRIVATE_FOLDER, *parts)

    def refuse_missing(self) -> None:
        """Does nothing: the dataset is there."""

    def add(self, run: str, entry: Entry, number: int) -> None:
        """Keeps an entry that is a commit.

        Args:
            run: The folder of the run.
            entry: The entry.
            number: Its number.

        Raises:
            OSError: If it cannot be written.
        """
        os.makedirs(inside(run, _ENTRIES), exist_ok=True)
        with open(_entry_at(run, number), "wb") as file:
            file.write(entry.to_bytes())
        self._numbers[entry.id] = number

    def kept_source(self, run: str, commit_id: str, name: str) -> KeptSource | None:
        """Where the content is that a file had before a commit; None: there was none."""
        entry = self._entry(run, commit_id)
        return None if entry is None else self._source_of(entry.before.get(name))

    def written_source(self, run: str, commit_id: str, name: str) -> KeptSource | None:
        """Where the content is that a commit gave a file; None: it gave it none."""
        entry = self._entry(run, commit_id)
        return None if entry is None else self._source_of(entry.placed.get(name))

    def _source_of(self, ref: Ref | None) -> KeptSource | None:
        return None if ref is None else KeptSource(self._store, object_of(ref), ref)

    def _entry(self, run: str, commit_id: str) -> Entry | None:
        """The entry that is a commit of a run; that of the last one is read once."""
        number = self._numbers.get(commit_id)
        if number is None:
            return None
        path = _entry_at(run, number)
        last, entry = self._last
        if last != path:
            try:
                entry = _read_entry(path)
            except FileNotFoundError:  # it is one of another run
                return None
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
        return f"{self._numbers.get(commit_id, 0):0{_DIGITS}d}"


def _entry_at(run: str, number: int) -> str:
    return inside(run, _ENTRIES, f"{number:0{_DIGITS}d}")


def _read_entry(path: str) -> Entry:
    with open(path, "rb") as file:
        return Entry.from_bytes(file.read())


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


class BucketLog:
    """The log of one dataset, as far as this process has read it. Safe in threads.

    Args:
        root: The dataset's address.
        state: What is known of some samples by then; None: the log is read from its beginning.
        keeps: Whether the ledgers of runs are kept, for `ledgers`.
        store: The store, where it is known.

    Attributes:
        store: The store, below the dataset's address.
        state: What the entries say that were read.
    """

    def __init__(
        self,
        root: Address,
        state: State | None = None,
        *,
        keeps: bool = True,
        store: Store | None = None,
    ) -> None:
        self.root = root
        self.store = store or open_store(root)
        self.state = state or State()
        self._guard = threading.RLock()  # of the state
        self._writing = threading.RLock()  # one writer of this process at a time
        self._keeps = keeps
        self._runs = _Ledgers(root) if keeps else None
        self._latest = self._moved_at = 0.0  # of the commits that are kept
        self._is_part = state is not None
        self._is_behind = False  # files of an entry could not be put in place
        self._applied = self._noted = 0
        self._recovered_at = -math.inf
        self._in_place: set[int] = set()  # of the entries after that
        self._heard: list[weakref.WeakMethod[Callable[[Entry], None]]] = []

    @property
    def guard(self) -> Any:
        """What is held while the state is changed."""
        return self._guard

    def when_added(self, hear: Callable[[Entry], None]) -> None:
        """Lets an object hear of each entry as the state goes on by it, as long as it lives."""
        with self._guard:
            self._heard = [one for one in self._heard if one() is not None]
            self._heard.append(weakref.WeakMethod(hear))

    @property
    def is_part(self) -> bool:
        """Whether only what is about some samples is known."""
        return self._is_part

    # -- reading -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the entries that came since: one request, where there are none.

        Raises:
            DatasetError: If one cannot be read.
        """
        with self._guard:
            is_first = self.state.position == 0
            while (entry := self._read(self.state.position + 1)) is not None:
                self._add(entry)
                self._read_listed()
            if is_first:
                self._refuse_gap()

    def _refuse_gap(self) -> None:
        """Checks that no later entry is there than the last one that was read.

        Raises:
            DatasetError: If there is one: what it was made after is not known.
        """
        number = self.state.position + 1
        later = next(self.store.objects_in(LOG, entry_key(number - 1)), None)
        if later is not None and self._read(number) is None:
            raise DatasetError(
                f"{self.root / entry_key(number)}: this entry of the log is missing, and later "
                f"ones are there ({later.name}). What was done is not known without it; restore "
                "the object."
            )

    def know_all(self) -> None:
        """Reads the log from its beginning, if only what is about some samples was known."""
        with self._guard:
            if self._is_part:
                self._is_part = False
                self.state = State()
                self._runs = _Ledgers(self.root) if self._keeps else None
                self._latest = self._moved_at = 0.0
                self.refresh()

    def _read_listed(self) -> None:
        """Reads the entries after the last one that are listed, many at a time."""
        listed = self.store.objects_in(LOG, entry_key(self.state.position))
        while some := list(islice(listed, _SOME)):
            begin = self.state.position + 1
            for entry in at_once(self._read, range(begin, begin + len(some))):
                if entry is None:
                    return
                self._add(entry)

    def _read(self, number: int) -> Entry | None:
        content = self.content_of(number)
        return None if content is None else self.parsed(number, content)

    def content_of(self, number: int) -> bytes | None:
        """An entry as it is kept; None where there is none.

        Raises:
            StoreError: If it cannot be read.
        """
        try:
            return self.store.read(entry_key(number)).data
        except FileNotFoundError:
            return None

    def parsed(self, number: int, content: bytes) -> Entry:
        """An entry, given its content.

        Raises:
            DatasetError: If it is none.
        """
        try:
            return Entry.from_bytes(content)
        except ValueError as error:
            raise DatasetError(
                f"{self.root / entry_key(number)}: this entry of the log cannot be read "
                f"({error}). What was done after it is not known; restore the object."
            ) from error

    def _add(self, entry: Entry) -> None:
        self._keep(entry, self.state.position + 1)  # may fail: then it is read again
        self.state.add(entry)
        if not (entry.placed or entry.before):
            self._in_place.add(self.state.position)
        for one in self._heard:
            if (hear := one()) is not None:
                hear(entry)

    def _add_next(self, number: int, entry: Entry) -> None:
        """Goes on by an entry that is there, unless that was read meanwhile."""
        with self._guard:
            if self.state.position == number - 1:
                self._add(entry)

    def _keep(self, entry: Entry, number: int) -> None:
        """Keeps what an entry says of runs in a folder of this process, as their ledgers.

        Raises:
            DatasetError: If it cannot be written there.
        """
        if self._runs is None:
            return
        try:
            self._keep_in(self._runs, entry, number)
        except OSError as error:
            raise DatasetError(
                f"{self.root}: what its log says cannot be kept in {error.filename} "
                f"({error.strerror}). Make room there, or let TMPDIR name another folder."
            ) from error

    def _keep_in(self, layout: _Ledgers, entry: Entry, number: int) -> None:
        run = Run.of(layout, entry.run_key)
        for folder in (layout.staged, layout.log, layout.runs):
            os.makedirs(folder, exist_ok=True)
        if entry.facts or entry.taken_back:
            os.makedirs(run.folder, exist_ok=True)
            parts = run.facts().get(PARTS, ())
            taken = {PARTS: list(dict.fromkeys([*parts, entry.id]))} if entry.taken_back else {}
            run.update(**entry.facts, **taken)
        for name, facts in entry.notes.items():
            if (noted := Run(layout, name)).exists():
                noted.update(**facts)
        commit = self._in_order(entry)
        if commit is not None:
            layout.add(run.folder, entry, number)
            os.makedirs(run.at("done", commit.tag), exist_ok=True)
            with open(run.at("done", commit.tag, f"{commit.id}.json"), "wb") as file:
                file.write(commit.to_bytes())
            drop_commits(layout, commit.drops)
        for name, commits in entry.taken_back.items():
            if Run(layout, name).exists():  # a log may come from anybody
                PartNote(layout, name, entry.id).write(run.name, commits)
        for name, retired in entry.undone.items():
            when = None if commit is None else commit.at
            retire(Run(layout, name), Run(layout, retired), when)
        if entry.imported:
            add_lines(layout, entry.imported, durable=False)
        for name in entry.pruned:
            prune(doomed := Run(layout, name), partial(drop_lines, durable=False))
            remove(doomed.at(_ENTRIES))  # of one that stays for its moves

    def _in_order(self, entry: Entry) -> CommitRecord | None:
        """The record of a commit; by its time it is known what was noted before samples were moved.

        The clocks of writers differ, and by time the ledgers are read.
        """
        commit: CommitRecord | None = entry.commit
        if commit is None:
            return None
        is_moving = entry.moves or bool(entry.undone)
        least = self._latest if is_moving else self._moved_at
        at = max(commit.at, math.nextafter(least, math.inf))
        self._latest = max(self._latest, at)
        self._moved_at = at if is_moving else self._moved_at
        return replace(commit, at=at) if is_time(at) else commit  # a log may come from anybody

    def entries_of(self, runs: Iterable[Run]) -> Iterator[tuple[Run, Entry]]:
        """The commits of runs that were not taken back, in the order of the log, each with its run.

        Args:
            runs: The runs; see `ledgers`.
        """
        dropped: dict[str, Container[str]] = {}
        numbered: list[tuple[str, Run]] = []
        for run in runs:
            dropped[run.name] = frozenset(names_in(run.dropped))
            numbered += [(name, run) for name in names_in(run.at(_ENTRIES))]
        for name, run in sorted(numbered, key=lambda one: one[0]):
            entry = _read_entry(run.at(_ENTRIES, name))
            if entry.id not in dropped[run.name]:
                yield run, entry

    def entries_in(self, run: Run) -> Iterator[Entry]:
        """All commits of a run, also those that were taken back."""
        for name in sorted(names_in(run.at(_ENTRIES))):
            yield _read_entry(run.at(_ENTRIES, name))

    def ledgers(self) -> Layout:
        """Where the ledgers of its runs are, as of now, to be read: a folder of this process.

        All of the log is read for it, also where only what is about some samples was known.
        """
        self.know_all()  # else a part would not know what was done before it was made
        self.refresh()
        assert self._runs is not None
        return self._runs

    # -- writing -----------------------------------------------------------------------

    def append(self, make: Callable[[State], Entry | None]) -> tuple[int, Entry] | None:
        """Adds an entry: from then on it is so.

        Args:
            make: Makes the entry, given what is so before it; it is asked anew where another
                writer was faster. None: nothing is to be added.

        Returns:
            The entry, with its number.

        Raises:
            DatasetWriteError: If it cannot be added.
            DatasetError: If nobody could read it.
        """
        with self._writing:
            if self._is_behind:
                self.recover()
            while True:
                self.refresh()
                self._refuse_gap()
                number = self.state.position + 1
                entry = make(self.state)
                if entry is None:
                    return None
                if self._is_created(number, entry, self._readable(entry)):
                    self._add_next(number, entry)
                    return number, entry

    def _readable(self, entry: Entry) -> bytes:
        """An entry as an object; one that nobody could read would be the end of the log.

        Raises:
            DatasetError: If it is such a one, as where it has a name with a control character.
        """
        content = entry.to_bytes()
        try:
            Entry.from_bytes(content)
        except ValueError as error:
            raise DatasetError(
                f"{self.root}: this cannot be noted in the log ({error}). Nothing was changed. "
                "Objects with such names are renamed or removed by the store's own tools."
            ) from error
        return content

    def _is_created(self, number: int, entry: Entry, content: bytes) -> bool:
        try:
            self.store.create(entry_key(number), content)
        except ObjectExistsError:
            try:
                there = self._read(number)
            except StoreError as error:
                raise self._unknown(error) from error
            return there is not None and there.id == entry.id  # it was made, and asked for again
        except StoreError as error:
            try:
                there = self._read(number)
            except DatasetError:
                there = None
            if there is not None and there.id == entry.id:
                return True
            raise self._unknown(error) from error
        return True

    def _unknown(self, error: StoreError) -> DatasetWriteError:
        """The error where it is not known whether an entry was created."""
        return DatasetWriteError(
            None,
            f"{self.root}: the commit could not be written, as far as is known ({error}). Should "
            "the store have done it, or do it yet, who reads the dataset next will see it",
        )

    # -- files in their places ---------------------------------------------------------

    def place(self, entry: Entry, number: int) -> None:
        """Puts the files of an entry in their places.

        Args:
            entry: The entry.
            number: Its number.

        Raises:
            StoreError: If one cannot be put there. The next writer does it.
        """
        try:
            self._place({**entry.placed, **dict.fromkeys(entry.removed)})
        except StoreError:
            self._is_behind = True
            raise
        with self._guard:
            self._in_place.add(number)
        try:
            self._note_in_place(number)
        except StoreError as error:  # the files are; the next commit notes it
            _log.info("%s: that all files are in place is not noted: %s", self.root, error)

    def _note_in_place(self, number: int) -> None:
        with self._guard:
            if self._is_known_from() < number:
                self._noted = self._read_applied()
            if (known := self._is_known_from()) > self._noted:
                self._note_applied(known)

    def _is_known_from(self) -> int:
        """The last entry up to which all files are known to be in place."""
        self._applied = max(self._applied, self._noted)
        while self._applied + 1 in self._in_place:
            self._applied += 1
            self._in_place.discard(self._applied)
        return self._applied

    def recover(self, after_s: float = 0.0) -> None:
        """Puts all files in their places that writers have left, if they died or are slow.

        Args:
            after_s: How long ago that is to be that it was done last, in seconds.

        A file that somebody changed without the log, of which the log has not the content that it
        has, stays as it is.

        Raises:
            StoreError: If one cannot be put there.
            DatasetError: If an entry cannot be read.
        """
        with self._writing:
            self.refresh()
            if time.monotonic() < self._recovered_at + after_s:
                return
            self._recovered_at = time.monotonic()
            self._is_behind = False
            try:
                self._place_missing()
            except BaseException:
                self._recovered_at, self._is_behind = -math.inf, True
                raise

    def _place_missing(self) -> None:
        """Does it; see `recover`."""
        number = self.state.position
        if self._is_known_from() < number:
            self._noted = self._read_applied()
        missing = range(self._is_known_from() + 1, number + 1)
        if not missing:
            return
        self.know_all()  # else what other samples have and had would not be known
        entries = (entry for entry in at_once(self._read, missing) if entry is not None)
        self._place_again(name for entry in entries for name in (*entry.placed, *entry.removed))
        self._applied = max(self._applied, number)
        self._note_applied(number)

    def _place_again(self, names: Iterable[str]) -> None:
        """Puts files in place, but for those that somebody changed without the log."""
        wanted = {name: self.state.refs.get(name) for name in names}
        kept = at_once(self._is_of_others, wanted)
        left = zip(wanted.items(), kept, strict=True)
        self._place({n: ref for (n, ref), is_kept in left if not is_kept}, is_lenient=True)

    # -- what is wrong -----------------------------------------------------------------

    def put_in_place(self, names: Iterable[str]) -> None:
        """Puts files in place that have an older content, or none, whatever is said to be done.

        Raises:
            StoreError: If one cannot be put there.
        """
        with self._writing:
            self.refresh()
            self._place_again(names)

    def is_out_of_place(self, name: str) -> bool:
        """Whether a file has not what the log gave it last, but an older content, or none."""
        ref = self.state.refs.get(name)
        try:
            there = self.store.read(view_of(name))
        except FileNotFoundError:
            return ref is not None
        digest = new_digest(there.data).hexdigest()
        is_so = ref is not None and digest == ref.digest
        return not is_so and self.state.was_before(name, digest)

    def wrongly_applied(self) -> str | None:
        """What is noted of how far all files are in place, where that cannot be so."""
        try:
            noted = self.store.read(APPLIED).data
        except FileNotFoundError:
            return None
        self.refresh()
        is_number = noted.isdigit() and len(noted) <= _DIGITS
        if is_number and int(noted) <= self.state.position:
            return None
        return noted[:_DIGITS].decode("ascii", "backslashreplace")

    def apply_anew(self) -> None:
        """Looks at all files that the log has put in place, and notes that they are there."""
        with self._writing:
            if self.state.position == 0:
                self.store.delete(APPLIED)
            else:
                self.recover()

    def unapplied(self) -> dict[int, Entry]:
        """The entries of which it is not noted that their files are in place, by number."""
        self.refresh()
        numbers = range(self._read_applied() + 1, self.state.position + 1)
        found = zip(numbers, at_once(self._read, numbers), strict=True)
        return {number: entry for number, entry in found if entry is not None}

    def all_entries(self) -> Iterator[Entry]:
        """All entries, read anew, some at a time."""
        self.refresh()
        numbers = iter(range(1, self.state.position + 1))
        while some := list(islice(numbers, _SOME)):
            yield from (entry for entry in at_once(self._read, some) if entry is not None)

    def damaged(self) -> Iterator[tuple[str, str, bool]]:
        """The objects that make the log unreadable.

        Yields:
            The key of one, why it is, and whether it is an entry: others only are in the way.
        """
        listed = self.store.objects_in(LOG)
        expected = 1
        while some := list(islice(listed, _SOME)):
            for stat, why in zip(some, at_once(self._why_unreadable, some), strict=True):
                match = _NUMBERED.fullmatch(stat.key)
                if match is None:
                    yield stat.key, "It is no entry of the log, and where those are.", False
                    continue
                for missing in range(expected, min(int(match[1]), expected + _SHOWN)):
                    yield entry_key(missing), "It is missing, and later ones are there.", True
                expected = int(match[1]) + 1
                if why is not None:
                    yield stat.key, f"It cannot be read: {why}.", True

    def _why_unreadable(self, stat: Stat) -> str | None:
        try:
            Entry.from_bytes(self.store.read(stat.key).data)
        except ValueError as error:
            return str(error)
        except FileNotFoundError:
            return "it is gone"
        return None

    def _place(self, wanted: dict[str, Ref | None], *, is_lenient: bool = False) -> None:
        """Puts files in place; again those that others changed in the log meanwhile.

        Args:
            wanted: The content of each, by name; None: it is removed.
            is_lenient: Whether one whose content is gone is left out, with a warning.
        """
        while wanted:
            at_once(partial(self._place_one, is_lenient), wanted.items())
            self.refresh()
            refs = self.state.refs
            wanted = {name: refs[name] for name, ref in wanted.items() if refs[name] != ref}

    def _is_of_others(self, name: str) -> bool:
        """Whether a file has a content that the log never gave it, nor met there."""
        try:
            there = self.store.read(view_of(name))
        except FileNotFoundError:
            return False
        ref, digest = self.state.refs.get(name), new_digest(there.data).hexdigest()
        return (ref is None or digest != ref.digest) and not self.state.was_before(name, digest)

    def _place_one(self, is_lenient: bool, one: tuple[str, Ref | None]) -> None:
        name, ref = one
        try:
            if ref is None:
                self.store.delete(view_of(name))
            else:
                self.store.copy(object_of(ref), view_of(name), ref.size)
        except FileNotFoundError as error:
            what = f"{self.root}: what {name} is to hold is gone ({error.filename})"
            if not is_lenient:
                raise StoreError(f"{what}. Restore the object.") from error
            _log.warning("%s: it is left as it is.", what)

    def _read_applied(self) -> int:
        try:
            noted = int(self.store.read(APPLIED).data)
        except (FileNotFoundError, ValueError):
            return 0
        if noted > self.state.position:
            self.refresh()
        return noted if 0 <= noted <= self.state.position else 0  # a log may come from anybody

    def _note_applied(self, number: int) -> None:
        self.store.put(APPLIED, str(number).encode())
        self._noted = number

    def __getstate__(self) -> dict[str, Any]:
        with self._guard:
            kept = {"keeps": self._keeps, "store": self.store}
            return {"root": self.root, "state": self.state, **kept}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__init__(**values)  # type: ignore[misc]

    def unread(self) -> "BucketLog":
        """The same log, of which nothing is known."""
        return BucketLog(self.root, store=self.store)

    def restricted_to(self, indices: Iterable[int]) -> "BucketLog":
        """The same log, of which only what is about some samples is known."""
        with self._guard:
            return BucketLog(self.root, self.state.restricted_to(indices), store=self.store)

    def of_file(self, name: str) -> "BucketLog":
        """The same log, of which only what is about one file is known, and no ledger."""
        with self._guard:
            state = self.state.of_names([name])
            return BucketLog(self.root, state, keeps=False, store=self.store)


def entry_key(number: int) -> str:
    """The key of an entry, by its number."""
    return f"{LOG}/{number:0{_DIGITS}d}.json"


def view_of(name: str) -> str:
    """The key of a file in its place, by its name: ``/<name>`` is a shared one."""
    return name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"


def object_of(ref: Ref) -> str:
    """The key of a content that is kept."""
    return f"{PRIVATE_FOLDER}/{ref.object}"
