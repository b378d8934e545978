"""The log of a dataset in a bucket: numbered entries, each created by one writer or nobody.

::

    .pipestream/log/<number>.json      the entries: creating the next one is the commit point
    .pipestream/objects/<entry>/…      the contents that they place, and those of before
    .pipestream/applied                the entry up to which all files are in their places

What an entry says is so from the moment that it is there. Putting the files in their places, where
everybody sees them, comes after it, can be repeated, and is done by whoever writes next where a
writer died before.
"""

import logging
import math
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.file_source import new_digest
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.store import (
    ObjectExistsError,
    Store,
    StoreError,
    at_once,
    open_store,
)
from prefect_pipestream.storage.untrusted import inside
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.apply import drop_commits
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, PRIVATE_FOLDER, is_shared
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.pruning import prune
from prefect_pipestream.underfolder.runs.retiring import retire

_log = logging.getLogger(__name__)

_LOG = f"{PRIVATE_FOLDER}/log"
_APPLIED = f"{PRIVATE_FOLDER}/applied"
_DIGITS = 12
_ENTRIES = "entries"
_SOME = 64


class _Ledgers(Layout):
    """A folder of this process with the ledgers of runs, there as long as somebody knows it.

    Args:
        address: The dataset's address, as which it is named.
    """

    __slots__ = ("__weakref__", "_folder")

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._folder = tempfile.mkdtemp(prefix="pipestream-")
        self.private = os.path.join(self._folder, PRIVATE_FOLDER)
        weakref.finalize(self, _remove_own, self._folder, os.getpid())

    def at(self, *parts: str) -> str:
        """The path of a private file or folder."""
        return inside(self._folder, PRIVATE_FOLDER, *parts)

    def refuse_missing(self) -> None:
        """Does nothing: the dataset is there."""


def _remove_own(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked process ends, too, and is not to take it from this one
        shutil.rmtree(folder, ignore_errors=True)


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
        later = next(self.store.objects_in(_LOG, _key(number - 1)), None)
        if later is not None and self._read(number) is None:
            raise DatasetError(
                f"{self.root / _key(number)}: this entry of the log is missing, and later ones are "
                f"there ({later.name}). What was done is not known without it; restore the object."
            )

    def know_all(self) -> None:
        """Reads the log from its beginning, if only what is about some samples was known."""
        with self._guard:
            if self._is_part:
                self._is_part = False
                self.state = State()
                self._runs = _Ledgers(self.root) if self._keeps else None
                self.refresh()

    def _read_listed(self) -> None:
        """Reads the entries after the last one that are listed, many at a time."""
        listed = self.store.objects_in(_LOG, _key(self.state.position))
        while some := list(islice(listed, _SOME)):
            begin = self.state.position + 1
            for entry in at_once(self._read, range(begin, begin + len(some))):
                if entry is None:
                    return
                self._add(entry)

    def _read(self, number: int) -> Entry | None:
        try:
            return Entry.from_bytes(self.store.read(_key(number)).data)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DatasetError(
                f"{self.root / _key(number)}: this entry of the log cannot be read ({error}). "
                "What was done after it is not known; restore the object."
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

    def _keep_in(self, layout: Layout, entry: Entry, number: int) -> None:
        run = Run.of(layout, entry.run_key)
        for folder in (layout.staged, layout.log, layout.runs):
            os.makedirs(folder, exist_ok=True)
        if entry.facts:
            os.makedirs(run.folder, exist_ok=True)
            run.update(**entry.facts)
        for name, facts in entry.notes.items():
            if (noted := Run(layout, name)).exists():
                noted.update(**facts)
        commit = entry.commit
        if commit is not None:
            os.makedirs(run.at(_ENTRIES), exist_ok=True)
            with open(run.at(_ENTRIES, f"{number:0{_DIGITS}d}"), "wb") as file:
                file.write(entry.to_bytes())
            os.makedirs(run.at("done", commit.tag), exist_ok=True)
            with open(run.at("done", commit.tag, f"{commit.id}.json"), "wb") as file:
                file.write(commit.to_bytes())
            drop_commits(layout, commit.drops)
        for name, retired in entry.undone.items():
            when = None if commit is None else commit.at
            retire(Run(layout, name), Run(layout, retired), when)
        for name in entry.pruned:
            prune(doomed := Run(layout, name))
            remove(doomed.at(_ENTRIES))  # of one that stays for its moves

    def entries_of(self, runs: Iterable[Run], commit_id: str | None = None) -> Iterator[Entry]:
        """The commits of runs that were not taken back, in the order of the log; see `ledgers`.

        Args:
            runs: The runs.
            commit_id: The one to give; None is all.
        """
        found = [(name, run) for run in runs for name in names_in(run.at(_ENTRIES))]
        for name, run in sorted(found, key=lambda one: one[0]):
            content = _content_of(run.at(_ENTRIES, name))
            if commit_id is not None and commit_id.encode() not in content:
                continue
            entry = Entry.from_bytes(content)
            if commit_id in (None, entry.id) and entry.id not in run.taken_back().commits:
                yield entry

    def entries_in(self, run: Run) -> Iterator[tuple[int, Entry]]:
        """All commits of a run with their numbers, also those that were taken back."""
        for name in sorted(names_in(run.at(_ENTRIES))):
            yield int(name), Entry.from_bytes(_content_of(run.at(_ENTRIES, name)))

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
                if self._is_created(number, entry):
                    self._add_next(number, entry)
                    return number, entry

    def _is_created(self, number: int, entry: Entry) -> bool:
        try:
            self.store.create(_key(number), entry.to_bytes())
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
        wanted: dict[str, Ref | None] = {}
        for entry in at_once(self._read, missing):
            if entry is not None:
                names = (*entry.placed, *entry.removed)
                wanted.update((name, self.state.refs.get(name)) for name in names)
        kept = at_once(self._is_of_others, wanted)
        left = zip(wanted.items(), kept, strict=True)
        self._place({n: ref for (n, ref), is_kept in left if not is_kept}, is_lenient=True)
        self._applied = max(self._applied, number)
        self._note_applied(number)

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
            noted = int(self.store.read(_APPLIED).data)
        except (FileNotFoundError, ValueError):
            return 0
        if noted > self.state.position:
            self.refresh()
        return noted if 0 <= noted <= self.state.position else 0  # a log may come from anybody

    def _note_applied(self, number: int) -> None:
        self.store.put(_APPLIED, str(number).encode())
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


def _content_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _key(number: int) -> str:
    return f"{_LOG}/{number:0{_DIGITS}d}.json"


def view_of(name: str) -> str:
    """The key of a file in its place, by its name: ``/<name>`` is a shared one."""
    return name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"


def object_of(ref: Ref) -> str:
    """The key of a content that is kept."""
    return f"{PRIVATE_FOLDER}/{ref.object}"
