"""The files of a dataset in a bucket, put in their places as its log says."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prefect_pipestream.errors import DatasetWriteError
from prefect_pipestream.storage.file_source import new_digest
from prefect_pipestream.storage.store import Store, StoreError, at_once
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import APPLIED, DIGITS, object_of, view_of
from prefect_pipestream.underfolder.bucket.state import State

if TYPE_CHECKING:  # it has one of these
    from prefect_pipestream.underfolder.bucket.log import BucketLog

_log = logging.getLogger(__name__)


class Placing:
    """What puts files in their places. Safe in threads.

    Args:
        log: The dataset's log.
    """

    def __init__(self, log: "BucketLog") -> None:
        self._log = log
        self._is_behind = False  # files of an entry could not be put in place
        self._applied = self._noted = 0
        self._in_place: set[int] = set()  # of the entries after that

    @property
    def _store(self) -> Store:
        return self._log.store

    @property
    def _state(self) -> State:
        return self._log.state

    def note_empty(self, number: int) -> None:
        """Takes an entry for done that has no files."""
        self._in_place.add(number)

    def put(self, number: int, entry: Entry, what: str | None = None) -> None:
        """Puts the files of an entry in their places.

        Args:
            number: Its number.
            entry: The entry.
            what: What it is called in errors; None: a commit.

        Raises:
            DatasetWriteError: If one cannot be put there. The next writer does it.
        """
        try:
            self._place({**entry.placed, **dict.fromkeys(entry.removed)})
        except StoreError as error:
            self._is_behind = True
            raise DatasetWriteError(
                None,
                f"{self._log.root}: {what or f'commit {entry.id}'} is made, and some of its files "
                f"could not be put in place ({error}). The next writer does it",
            ) from error
        with self._log.guard:
            self._in_place.add(number)
        try:
            self._note_in_place(number)
        except StoreError as error:  # the files are; the next commit notes it
            _log.info("%s: that all files are in place is not noted: %s", self._log.root, error)

    def _note_in_place(self, number: int) -> None:
        with self._log.guard:
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

    # -- what others left --------------------------------------------------------------

    def catch_up(self) -> None:
        """Does what this process could not do of its own entries; see `recover`."""
        if self._is_behind:
            self.recover()

    def recover(self) -> None:
        """Puts all files in their places that writers have left, if they died or are slow.

        A file that somebody changed without the log, of which the log has not the content that it
        has, stays as it is.

        Raises:
            StoreError: If one cannot be put there.
            DatasetError: If an entry cannot be read.
        """
        if self._log.is_part:  # what other samples have and had is not known
            self._log.whole().placing.recover()
            self._is_behind = False
            return
        with self._log.writing:
            self._log.refresh()
            self._is_behind = True  # as long as it is not done
            self._place_missing()
            self._is_behind = False

    def _place_missing(self) -> None:
        """Does it; see `recover`."""
        number = self._state.position
        if self._is_known_from() < number:
            self._noted = self._read_applied()
        missing = range(self._is_known_from() + 1, number + 1)
        if not missing:
            return
        entries = self._log.entries_at(missing)
        self._place_again(name for entry in entries for name in entry.names)
        self._applied = max(self._applied, number)
        self._note_applied(number)

    def _place_again(self, names: Iterable[str]) -> None:
        """Puts files in place, but for those that somebody changed without the log."""
        wanted = {name: self._state.refs.get(name) for name in names}
        kept = at_once(self._is_of_others, wanted)
        left = zip(wanted.items(), kept, strict=True)
        self._place({n: ref for (n, ref), is_kept in left if not is_kept}, is_lenient=True)

    def _is_of_others(self, name: str) -> bool:
        """Whether a file has a content that the log never gave it, nor met there."""
        digest = self._digest_in_place(name)
        ref = self._state.refs.get(name)
        if digest is None or (ref is not None and digest == ref.digest):
            return False
        return not self._state.was_before(name, digest)

    def _digest_in_place(self, name: str) -> str | None:
        try:
            there = self._store.read(view_of(name))
        except FileNotFoundError:
            return None
        return new_digest(there.data).hexdigest()

    def _place(self, wanted: dict[str, Ref | None], *, is_lenient: bool = False) -> None:
        """Puts files in place; again those that others changed in the log meanwhile.

        Args:
            wanted: The content of each, by name; None: it is removed.
            is_lenient: Whether one whose content is gone is left out, with a warning.
        """
        while wanted:
            missing = at_once(self._place_one, wanted.items())
            self._log.refresh()
            refs = self._state.refs
            for (name, ref), key in zip(wanted.items(), missing, strict=True):
                if key is not None and refs[name] == ref:
                    self._miss(name, key, is_lenient)
            wanted = {name: refs[name] for name, ref in wanted.items() if refs[name] != ref}

    def _place_one(self, one: tuple[str, Ref | None]) -> str | None:
        """Puts a file in place; gives the content's key where that is gone."""
        name, ref = one
        if ref is None:
            self._store.delete(view_of(name))
            return None
        try:
            self._store.copy(object_of(ref), view_of(name), ref.size)
        except FileNotFoundError:
            return object_of(ref)
        return None

    def _miss(self, name: str, key: str, is_lenient: bool) -> None:
        what = f"{self._log.root}: what {name} is to hold is gone ({key})"
        if not is_lenient:
            raise StoreError(f"{what}. Restore the object.")
        _log.warning("%s: it is left as it is.", what)

    # -- what is wrong -----------------------------------------------------------------

    def put_again(self, names: Iterable[str]) -> None:
        """Puts files in place that have an older content, or none, whatever is said to be done.

        Raises:
            StoreError: If one cannot be put there.
        """
        with self._log.writing:
            self._log.refresh()
            self._place_again(names)

    def is_out_of_place(self, name: str) -> bool:
        """Whether a file has not what the log gave it last, but an older content, or none."""
        ref, digest = self._state.refs.get(name), self._digest_in_place(name)
        if digest is None:
            return ref is not None
        is_so = ref is not None and digest == ref.digest
        return not is_so and self._state.was_before(name, digest)

    def wrongly_applied(self) -> str | None:
        """What is noted of how far all files are in place, where that cannot be so."""
        try:
            noted = self._store.read(APPLIED).data
        except FileNotFoundError:
            return None
        self._log.refresh()
        is_number = noted.isdigit() and len(noted) <= DIGITS
        if is_number and int(noted) <= self._state.position:
            return None
        return noted[:DIGITS].decode("ascii", "backslashreplace")

    def apply_anew(self) -> None:
        """Looks at all files that the log has put in place, and notes that they are there."""
        with self._log.writing:
            self._applied = self._noted = 0
            if self._state.position == 0:
                self._store.delete(APPLIED)
            else:
                self.recover()

    def unapplied(self) -> dict[int, Entry]:
        """The entries of which it is not noted that their files are in place, by number."""
        self._log.refresh()
        numbers = range(self._read_applied() + 1, self._state.position + 1)
        return dict(zip(numbers, self._log.entries_at(numbers), strict=True))

    def _read_applied(self) -> int:
        try:
            noted = int(self._store.read(APPLIED).data)
        except (FileNotFoundError, ValueError):
            return 0
        if noted > self._state.position:
            self._log.refresh()
        return noted if 0 <= noted <= self._state.position else 0  # a log may come from anybody

    def _note_applied(self, number: int) -> None:
        self._store.put(APPLIED, str(number).encode())
        self._noted = number
