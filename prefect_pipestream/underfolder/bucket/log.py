"""The log of a dataset in a bucket: numbered entries, each created by one writer or nobody.

What an entry says is so from the moment that it is there. Putting the files in their places, where
everybody sees them, comes after it (`placing`), can be repeated, and is done by whoever writes next
where a writer died before.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.file_source import new_digest
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.store import (
    ObjectExistsError,
    Stat,
    Store,
    StoreError,
    at_once,
    in_background,
)
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.bucket.keys import LOG, entry_key, number_in
from prefect_pipestream.underfolder.bucket.ledgers import Ledgers
from prefect_pipestream.underfolder.bucket.packs import LENGTH, make_pack, packed_entries
from prefect_pipestream.underfolder.bucket.placing import Placing
from prefect_pipestream.underfolder.bucket.recent import RECENT, Read
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER

_SHOWN = 3
_SOME = 64


class BucketLog:
    """The log of one dataset, as far as this process has read it. Safe in threads.

    One that is to be known whole is asked for by `whole_log`.

    Args:
        store: The store, below the dataset's address.
        part: What is known of some samples by then; None: the log is read from its beginning.
        last: The digest of the entry that this ends with.

    Attributes:
        store: The store.
        root: The dataset's address.
        state: What the entries say that were read.
        is_part: Whether only what is about some samples is known.
        guard: What is held while the state is changed.
        writing: What is held by the one writer of this process at a time.
        placing: What puts the dataset's files in their places.
    """

    def __init__(self, store: Store, part: State | None = None, last: bytes = b"") -> None:
        self.store = store
        self.root = store.root
        self.state = part or State()
        self.is_part = part is not None
        self.guard = threading.RLock()
        self.writing = threading.RLock()
        self.placing = Placing(self)
        self._ledgers = None if self.is_part else Ledgers(store)
        self._last = last
        self._seen = ("", "")  # the key and etag of an entry that is known to be that
        self._heard: list[weakref.WeakMethod[Callable[[Entry], None]]] = []

    def when_added(self, hear: Callable[[Entry], None]) -> None:
        """Lets an object hear of each entry as the state goes on by it, as long as it lives."""
        with self.guard:
            self._heard = [one for one in self._heard if one() is not None]
            self._heard.append(weakref.WeakMethod(hear))

    # -- reading -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the entries that came since: one request, where there are none.

        Raises:
            DatasetError: If one cannot be read, or they are those of another dataset.
        """
        with self.guard:
            is_first = self.state.position == 0
            self._follow_others()
            while (read := self._read(self.state.position + 1)) is not None:
                if self.state.position == 0 and self._read_packed():
                    continue
                if not (is_first or self.is_of_now()):
                    raise self._is_another()
                self._add(*read)
                self._read_listed()
            if is_first:
                self._refuse_gap()

    def _follow_others(self) -> None:
        """Goes on by the entries that other parts in this process have read or made."""
        while self.is_part and self._last:
            read = RECENT.after(self.root, self._last)
            if read is None:
                return
            self._add(*read)

    def _refuse_gap(self) -> None:
        """Checks that the entry that was read last is there, and no later one than the next.

        Raises:
            DatasetError: If there is a later one: what it was made after is not known. If it is not
                the one that was read. If there is something else where entries are.
        """
        with self.guard:
            number, last = self.state.position + 1, self._last
        listed = self.store.objects_in(LOG, entry_key(number - 2))
        if number > 1:
            there = next((stat for stat in listed if stat.key >= entry_key(number - 1)), None)
            self._refuse_other(number - 1, last, there)
        later = next(listed, None)
        if later is not None and self._read(number) is None:
            if number_in(later.key) is None:
                raise DatasetError(
                    f"{self.root / later.key}: this is no entry of the log, and where those are. "
                    "`pipestream check --fix` puts it aside."
                )
            raise DatasetError(
                f"{self.root / entry_key(number)}: this entry of the log is missing, and later "
                f"ones are there ({later.name}). What was done is not known without it; restore "
                "the object."
            )

    def _refuse_other(self, number: int, digest: bytes, there: Stat | None) -> None:
        """Checks that an entry has this content: mostly it is told by what was listed."""
        now = ("", "") if there is None else (there.key, there.etag)
        if there is not None and now == self._seen:
            return
        if not self._has_digest(number, digest):
            raise self._is_another()
        if now[0] == entry_key(number):
            self._seen = now

    def _is_another(self) -> DatasetError:
        return DatasetError(
            f"{self.root}: the last entry of the log is not the one that was read, or it is gone: "
            "the dataset was removed, or another one was made in its place. Nothing was written; "
            "open it anew."
        )

    def _read_packed(self) -> bool:
        """Reads the first entries that are packed; tells whether there were some."""
        for entries in packed_entries(self.store):
            for entry, content in entries:
                self._add(entry, content)
        return self.state.position > 0

    def _read_listed(self) -> None:
        """Reads the entries after the last one that are listed, many at a time."""
        for some in lots(self.store.objects_in(LOG, entry_key(self.state.position)), _SOME):
            begin = self.state.position + 1
            for read in at_once(self._read, range(begin, begin + len(some))):
                if read is None:
                    return
                self._add(*read)

    def _read(self, number: int) -> Read | None:
        content = self.content_of(number)
        return None if content is None else Read(self.parsed(number, content), content)

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

    def _add(self, entry: Entry, content: bytes) -> None:
        """Goes on by an entry."""
        number = self.state.position + 1
        if self._ledgers is not None:
            self._ledgers.keep(number, entry, content)  # may fail: then it is read again
        elif self._last:
            RECENT.add(self.root, self._last, Read(entry, content))
        self.state.add(entry)
        self._last = new_digest(content).digest()
        if not (entry.placed or entry.before):
            self.placing.note_empty(number)
        for one in self._heard:
            if (hear := one()) is not None:
                hear(entry)

    def ledgers(self) -> Layout:
        """Where the ledgers of its runs are, as of now, to be read: a folder of this process."""
        if self._ledgers is None:
            return self.whole().ledgers()
        self.refresh()
        return self._ledgers

    def entries_at(self, numbers: Iterable[int]) -> list[Entry]:
        """Entries that are there, by their numbers, read anew.

        Raises:
            DatasetError: If one cannot be read.
        """
        chosen = list(numbers)
        found = [read.entry for read in at_once(self._read, chosen) if read is not None]
        if len(found) < len(chosen):
            self._refuse_gap()
            raise DatasetError(f"{self.root}: entries of the log were removed meanwhile.")
        return found

    def all_entries(self) -> Iterator[Entry]:
        """All entries, read anew, some at a time."""
        self.refresh()
        for some in lots(range(1, self.state.position + 1), _SOME):
            yield from self.entries_at(some)

    def damaged(self) -> Iterator[tuple[str, str, bool]]:
        """The objects that make the log unreadable.

        Yields:
            The key of one, why it is, and whether it is an entry: others only are in the way.
        """
        expected = 1
        for some in lots(self.store.objects_in(LOG), _SOME):
            for stat, why in zip(some, at_once(self._why_unreadable, some), strict=True):
                number = number_in(stat.key)
                if number is None:
                    yield stat.key, "It is no entry of the log, and where those are.", False
                    continue
                for missing in range(expected, min(number, expected + _SHOWN)):
                    yield entry_key(missing), "It is missing, and later ones are there.", True
                expected = number + 1
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

    # -- writing -----------------------------------------------------------------------

    def append(self, make: Callable[[State], Entry | None]) -> tuple[int, Entry] | None:
        """Adds an entry: from then on it is so.

        Args:
            make: Makes the entry, given what is so before it; it is asked anew where another
                writer was faster. None: nothing is to be added.

        Returns:
            The entry, with its number.

        Raises:
            DatasetWriteError: If it cannot be added, as far as is known.
            StoreError: If the store cannot be asked, or is not to be written.
            DatasetError: If nobody could read it.
        """
        with self.writing:
            self.store.require_create(PRIVATE_FOLDER)
            self.placing.catch_up()
            while True:
                self.refresh()
                self._refuse_gap()
                number = self.state.position + 1
                try:
                    entry = make(self.state)
                except Exception:
                    if self._has_gone_on(number):
                        continue
                    raise
                if entry is None:
                    return None
                content = self._readable(entry)
                if self._is_created(number, entry, content):
                    self._add_next(number, entry, content)
                    return number, entry

    def _has_gone_on(self, number: int) -> bool:
        """Whether what is made as this entry was made while another thread read it."""
        with self.guard:
            return self.state.position >= number

    def _add_next(self, number: int, entry: Entry, content: bytes) -> None:
        """Goes on by an entry that was created, unless that was read meanwhile."""
        with self.guard:
            if self.state.position == number - 1:
                self._add(entry, content)
        if number % LENGTH == 0:
            in_background(partial(make_pack, self.store), number)

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
        key = entry_key(number)
        try:
            self._seen = key, self.store.create(key, content)
        except ObjectExistsError:  # it may be this one: it was made, and asked for again
            try:
                return self._is_there(number, entry)
            except StoreError as error:
                raise self._unknown(error) from error
        except StoreError as error:
            try:
                is_there = self._is_there(number, entry)
            except DatasetError:
                is_there = False
            if not is_there:
                raise self._unknown(error) from error
        return True

    def _is_there(self, number: int, entry: Entry) -> bool:
        there = self._read(number)
        return there is not None and there.entry.id == entry.id

    def _unknown(self, error: StoreError) -> DatasetWriteError:
        """The error where it is not known whether an entry was created."""
        return DatasetWriteError(
            None,
            f"{self.root}: the commit could not be written, as far as is known ({error}). Should "
            "the store have done it, or do it yet, who reads the dataset next will see it",
        )

    # -- parts, and pickling -----------------------------------------------------------

    def whole(self) -> "BucketLog":
        """The same log, of which all is known."""
        return whole_log(self.store) if self.is_part else self

    def restricted_to(self, indices: Iterable[int]) -> "BucketLog":
        """The same log, of which only what is about some samples is known."""
        with self.guard:
            return BucketLog(self.store, self.state.restricted_to(indices), self._last)

    def of_file(self, name: str) -> "BucketLog":
        """The same log, of which only what is about one file is known."""
        with self.guard:
            return BucketLog(self.store, self.state.of_names([name]), self._last)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_part:
            return whole_log, (self.store,)
        with self.guard:
            return BucketLog, (self.store, self.state.of_names(self.state.refs), self._last)

    def is_of_now(self) -> bool:
        """Whether the dataset is the one that was read: not another one made in its place."""
        with self.guard:
            number, last = self.state.position, self._last
        return number == 0 or self._has_digest(number, last)

    def _has_digest(self, number: int, digest: bytes) -> bool:
        content = self.content_of(number)
        return content is not None and new_digest(content).digest() == digest


# -- one log of each dataset in a process ------------------------------------------------------

_KEPT = 2
_logs: "weakref.WeakValueDictionary[tuple[int, Store], BucketLog]" = weakref.WeakValueDictionary()
_kept: "OrderedDict[tuple[int, Store], BucketLog]" = OrderedDict()  # the last ones, strongly
_opening = threading.Lock()


def whole_log(store: Store) -> BucketLog:
    """The log of a dataset: one for all in this process, so that it is read once.

    Args:
        store: The store, below the dataset's address.

    Raises:
        StoreError: If it cannot be asked whether the dataset is still the one that was read.
    """
    key = os.getpid(), store
    with _opening:
        log = _logs.get(key)
    if log is None or not log.is_of_now():
        log = BucketLog(store)
    with _opening:
        _logs[key] = _kept[key] = log
        _kept.move_to_end(key)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return log
