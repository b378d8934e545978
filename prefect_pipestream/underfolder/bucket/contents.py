"""What is in the files of a dataset in a bucket, given its log and what lies there.

The log tells what a file has that it was put in place by it. The file in its place mostly has just
that; it may have

- what it had before, as long as a writer has not put the new content there, or where one that was
  held up put an older one there after that: then the log is right, and its content is kept;
- anything else: somebody changed it without the log, and that is what counts.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.file_source import new_digest, no_such_file
from prefect_pipestream.storage.store import Content, Stat, Store, at_once
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.bucket.entry import Ref, version_by
from prefect_pipestream.underfolder.bucket.keys import object_of, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.reading_ahead import ReadingAhead
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.format.names import key_of

Found = tuple[bytes, Version, bool]
"""A content, its version, and whether the file has another one by now."""


class Contents:
    """The files of one dataset. Safe in threads.

    Args:
        log: The dataset's log.
    """

    def __init__(self, log: BucketLog) -> None:
        self.log = log
        self._known: dict[tuple[str, str], str] = {}  # digests, by name and etag
        self.foreign: dict[str, Stat] = {}  # files that the log has put, and others changed since
        self._now = threading.local()
        self._ahead = ReadingAhead(self._read_view)
        self._keys: set[str] = set()  # of items that were read

    def of_file(self, name: str) -> "Contents":
        """The same files, of which only what is about one is known: small to pickle."""
        return Contents(self.log.of_file(name))

    def __reduce__(self) -> tuple[type["Contents"], tuple[BucketLog]]:
        return Contents, (self.log,)

    @property
    def _store(self) -> Store:
        return self.log.store

    def address_of(self, name: str) -> Address:
        """The address of a file in its place."""
        return self.log.root / view_of(name)

    @property
    def last(self) -> tuple[Version | None, bytes]:
        """The content that this thread read last, and the version that it is of."""
        found: tuple[Version | None, bytes] = getattr(self._now, "last", (None, b""))
        return found

    @last.setter
    def last(self, read: tuple[Version, bytes]) -> None:
        self._now.last = read

    # -- reading -----------------------------------------------------------------------

    def read(self, name: str, ref: Ref | None, etag: str) -> Found:
        """Reads a file as it was when a sample was taken.

        Args:
            name: Its name.
            ref: Its content then, by the log; None: the log had never changed it.
            etag: What the store called its content then; "" where that is not known.

        Raises:
            FileNotFoundError: If it is not there.
            StoreError: If it cannot be read.
        """
        there = self._view(name)
        if ref is None:
            if there is not None and there.etag == etag:
                return _read_as(there, is_newer=False)
        elif there is not None:
            digest = self._digest_in(name, ref, there)
            if digest == ref.digest:
                return there.data, ref.version(is_read=True), False
            if there.etag == etag and not self.log.state.was_before(name, digest):
                return _read_as(there, is_newer=False)
        return self._read_what_was(name, ref, etag, there)

    def _read_what_was(self, name: str, ref: Ref | None, etag: str, there: Content | None) -> Found:
        """Reads a file that has another content by now than it had, or is not there."""
        self.log.refresh()
        state = self.log.state
        aside = state.aside(name, etag)
        if aside is not None:
            data = self._store.read(object_of(aside)).data
            return data, version_by(etag, len(data), bytes.fromhex(aside.digest)), True
        if there is not None and state.refs.get(name) == ref:
            digest = new_digest(there.data).hexdigest()
            if ref is None or not state.was_before(name, digest):
                self.foreign[name] = Stat(view_of(name), len(there.data), there.etag)
                return _read_as(there, is_newer=True)
        if ref is None:
            raise no_such_file(self.address_of(name))
        data = self._store.read(object_of(ref)).data
        return data, ref.version(is_read=True), state.refs.get(name) != ref

    def _view(self, name: str) -> Content | None:
        self._keys.add(key_of(name))
        return self._ahead.get(view_of(name))

    def _read_view(self, key: str) -> Content | None:
        try:
            return self._store.read(key)
        except FileNotFoundError:
            return None

    @property
    def keys_read(self) -> int:
        """How many items of samples were read yet, by which it is known what will be."""
        return len(self._keys)

    def expect(self, sources: Iterable["BucketSource"]) -> None:
        """Begins to fetch files that are probably read next: items that were read of others."""
        chosen = (source for source in sources if key_of(source.name) in self._keys)
        self._ahead.expect((view_of(source.name), source.size()) for source in chosen)

    def _digest_in(self, name: str, ref: Ref, there: Content) -> str:
        if there.etag == ref.etag and len(there.data) == ref.size:
            return ref.digest
        digest = new_digest(there.data).hexdigest()
        self._known[name, there.etag] = digest
        return digest

    # -- what is there now -------------------------------------------------------------

    @contextmanager
    def asked_at_once(self, names: Iterable[str]) -> Iterator[None]:
        """Asks for many files at the same time; inside, `version_now` tells of them what was said.

        Raises:
            StoreError: If one cannot be asked for.
        """
        chosen = list(dict.fromkeys(names))
        found = at_once(lambda name: self._store.stat(view_of(name)), chosen)
        self._now.stats = dict(zip(chosen, found, strict=True))
        try:
            yield
        finally:
            self._now.stats = {}

    def _stat_now(self, name: str) -> Stat | None:
        known: dict[str, Stat | None] = getattr(self._now, "stats", {})
        if name in known:
            return known[name]
        self.log.refresh()
        return self._store.stat(view_of(name))

    def version_now(self, name: str) -> Version | None:
        """The version that a file has now: one request, mostly; None where there is none.

        Raises:
            StoreError: If that cannot be asked.
        """
        return self.version_of(name, self._stat_now(name))

    def mark_now(self, name: str) -> str | None:
        """The mark of a file as it is now; see `version_now`."""
        now = self.version_now(name)
        return None if now is None else now.mark

    def etag_now(self, name: str) -> str:
        """What the store calls a file now; "" where there is none."""
        there = self._stat_now(name)
        return "" if there is None else there.etag

    def is_still(self, name: str, ref: Ref | None, etag: str) -> bool:
        """Whether the store calls a file as it did, and the log says nothing new of it."""
        there = self._stat_now(name)
        is_so = there is not None and there.etag == etag
        return is_so and self.log.state.refs.get(name) == ref

    def has_plain(self, name: str, digest: bytes | None) -> bool:
        """Whether a file that the log has never changed has a content, however it is called now.

        Raises:
            StoreError: If it is to be read to know it, and cannot be.
        """
        there = self._stat_now(name)
        if digest is None or there is None or name in self.log.state.refs:
            return False
        return self._digest_of_view(name, there) == digest.hex()

    def version_of(self, name: str, there: Stat | None, ref: Ref | None = None) -> Version | None:
        """The version of a file, given what the store tells of it; None where there is none.

        Args:
            name: Its name.
            there: What the store tells of it; None: it is not there.
            ref: What the log says of it; None: as it says now.

        Raises:
            StoreError: If it is to be read to know it, and cannot be.
        """
        refs = self.log.state.refs
        if ref is None and name not in refs:
            return None if there is None else version_by(there.etag, there.size)
        ref = refs.get(name) if ref is None else ref
        by_log = None if ref is None else ref.version()
        if there is None or (ref is not None and there.etag == ref.etag):
            return by_log
        digest = self._digest_of_view(name, there)
        if digest is None or (ref is not None and digest == ref.digest):
            return by_log
        if self.log.state.was_before(name, digest):
            return by_log
        return version_by(there.etag, there.size)

    def _digest_of_view(self, name: str, there: Stat) -> str | None:
        """The digest of a file in its place, which is read where it is called otherwise."""
        known = self._known.get((name, there.etag))
        if known is None:
            found = self._read_view(view_of(name))
            if found is None:
                return None
            known = self._known[name, found.etag] = new_digest(found.data).hexdigest()
        return known

    def source_by(self, name: str, ref: Ref, listed: Stat | None = None) -> BucketSource:
        """A source of a file that the log has put in place, whatever it has there by now.

        Args:
            name: The file's name.
            ref: What the log put there.
            listed: What the store tells of it, where it was asked.
        """
        there = self.foreign.get(name, listed)
        etag, size = ("", ref.size) if there is None else (there.etag, there.size)
        return BucketSource(self, name, ref, etag, size)

    def source_of(self, name: str) -> BucketSource | None:
        """A source of a file as it is now; None where there is none.

        Raises:
            StoreError: If that cannot be asked.
        """
        self.log.refresh()
        refs = self.log.state.refs
        ref = refs.get(name)
        if ref is not None:
            return self.source_by(name, ref)
        there = self._store.stat(view_of(name))
        if there is None or self.version_of(name, there) is None:
            return None
        return BucketSource(self, name, None, there.etag, there.size)


def _read_as(there: Content, *, is_newer: bool) -> Found:
    """What is read of a file that the log knows nothing of."""
    digest = new_digest(there.data).digest()
    return there.data, version_by(there.etag, len(there.data), digest), is_newer
