"""One file of a dataset in a bucket, read as a sample has it that was taken at one time."""

from typing import TYPE_CHECKING, Any

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.store import Stat, Store
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.bucket.entry import Ref, version_by

if TYPE_CHECKING:  # it makes these
    from prefect_pipestream.underfolder.bucket.contents import Contents


class BucketSource(FileSource):
    """One file, as it was when its sample was taken; what is written later it does not show.

    Args:
        contents: The files of the dataset.
        name: The file's name; a shared one's begins with a slash.
        ref: Its content by the log; None: the log has never changed it.
        etag: What the store called its content then, where the log does not know it.
        size: Its bytes then.
    """

    __slots__ = ("_contents", "_size", "_version", "etag", "name", "ref")
    is_whole = False  # no link leads into a bucket

    def __init__(
        self, contents: "Contents", name: str, ref: Ref | None, etag: str = "", size: int = 0
    ) -> None:
        self._version: Version | None = None
        super().__init__(contents.address_of(name))
        self._contents = contents
        self.name = name
        self.ref = ref
        self.etag = etag
        self._size = size

    @property
    def is_plain(self) -> bool:
        """Whether the log had never changed the file."""
        return self.ref is None

    @property
    def version(self) -> Version | None:  # a slot of a file's source
        """The version that the file had when the sample was taken, or when it was last read.

        Where a store calls each copy otherwise, it is read for it.

        Raises:
            StoreError: If it cannot be.
        """
        if self._version is None:
            ref = self.ref
            if ref is None:
                self._version = version_by(self.etag, self._size)
            elif self.etag in ("", ref.etag):
                self._version = ref.version()
            else:
                there = Stat(self.name, self._size, self.etag)
                self._version = self._contents.version_of(self.name, there, ref)
        return self._version

    @version.setter
    def version(self, version: Version | None) -> None:
        self._version = version

    @property
    def known_as(self) -> Version:
        """What tells the content that the sample had from others: no request is made for it."""
        ref = self.ref
        if ref is None:
            return version_by(self.etag, self._size)
        is_plain = self.etag in ("", ref.etag)
        return ref.version() if is_plain else version_by(f"{ref.digest}:{self.etag}", ref.size)

    @property
    def store(self) -> Store:
        """The store that the file is in."""
        return self._contents.log.store

    @property
    def kept(self) -> Ref | None:
        """What is kept of the log, if that is known to be the content; no request is made."""
        ref = self.ref
        if ref is None or (self._version is None and self.etag not in ("", ref.etag)):
            return None
        is_so = self._version is None or self._version.may_be(ref.version(is_read=True))
        return ref if is_so else None

    def anew(self) -> "BucketSource":
        """Returns a source of the same file, as it is now.

        Raises:
            StoreError: If that cannot be asked.
        """
        return self._contents.source_of(self.name) or self

    def is_there(self) -> bool:
        """Tells whether there is such a file now.

        Raises:
            StoreError: If that cannot be asked.
        """
        return self._contents.version_now(self.name) is not None

    def mark(self) -> str | None:
        """The mark of what is there now; None where nothing is.

        Raises:
            StoreError: If that cannot be asked.
        """
        return self._contents.mark_now(self.name)

    def size(self) -> int:
        """Returns how many bytes it has."""
        return self._size

    @property
    def digest(self) -> bytes | None:
        """The digest of the content last read or written; None: it was neither."""
        return None if self._version is None else self._version.digest

    def look(self) -> None:
        """Does nothing: what the file is like is known, or found out when it is asked for."""

    def __copy__(self) -> "BucketSource":
        return _remade(
            self._contents,
            self.name,
            self.ref,
            self.etag,
            self._size,
            self._version,
            self.is_newer,
        )

    def become(self, other: FileSource) -> None:
        """Knows from now on what `other` knows of its file."""
        self.path, self.is_newer = other.path, other.is_newer
        self.version = other._version if isinstance(other, BucketSource) else other.version
        if isinstance(other, BucketSource):
            self.name, self.ref = other.name, other.ref
            self.etag, self._size = other.etag, other._size

    def read(self) -> bytes:
        """Reads the content that the sample had, and remembers its version.

        Raises:
            FileNotFoundError: If somebody removed it, past the log.
            DecodeError: If it does not fit into memory.
            StoreError: If it cannot be read.
        """
        try:
            data, version, is_newer = self._contents.read(self.name, self.ref, self.etag)
        except MemoryError as error:
            raise DecodeError(f"{self.path}: does not fit into memory.") from error
        self.is_newer = self.is_newer or is_newer
        self.version = version
        self._contents.last = version, data
        return data

    def content(self) -> bytes:
        """Returns the content that the sample had; what is known of the file stays as it is.

        Raises:
            FileNotFoundError, DecodeError, StoreError: As for `read`.
        """
        version, data = self._contents.last
        if version is not None and version is self._version:
            return data  # as where what a picture has beside its pixels is kept
        return self._contents.read(self.name, self.ref, self.etag)[0]

    def is_current(self) -> bool:
        """Tells whether the file is there and has the content that the sample had."""
        return not self.is_changed()

    def is_changed(self) -> bool:
        """Tells whether the file's content is not what it was."""
        if self.digest is None and self._contents.is_still(self.name, self.ref, self.etag):
            return False
        now = self._contents.version_now(self.name)
        if now is None or self.version is None:
            return True
        return not (self.version.may_be(now) or self._contents.has_plain(self.name, self.digest))

    def __reduce__(self) -> tuple[Any, ...]:
        contents = self._contents.of_file(self.name)
        made = (contents, self.name, self.ref, self.etag, self._size, self._version, self.is_newer)
        return _remade, made


def _remade(
    contents: "Contents",
    name: str,
    ref: Ref | None,
    etag: str,
    size: int,
    version: Version | None,
    is_newer: bool,
) -> BucketSource:
    source = BucketSource(contents, name, ref, etag, size)
    source.version, source.is_newer = version, is_newer
    return source
