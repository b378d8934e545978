"""A part of a file that is read as if it were a file: a member of an archive, a cell of a table."""

import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.asking import status_through_links
from prefect_pipestream.storage.file_source import (
    FileSource,
    cannot_read,
    new_digest,
    opened_fd,
    require_regular,
)
from prefect_pipestream.storage.version import Version


class Container(NamedTuple):
    """A file that parts are taken of, as it was when it was looked at.

    Attributes:
        path: Absolute path.
        size: Bytes.
        mtime_ns: When it was changed last.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: str) -> "Container":
        """Looks at a file.

        Raises:
            OSError: If it is not there, or could not be asked.
            DecodeError: If it is no regular file.
        """
        status = os.stat(path)
        require_regular(status, path)
        return cls(path, status.st_size, status.st_mtime_ns)

    def is_as_it_was(self) -> bool:
        """Whether it is still what it was, as far as one `stat` tells."""
        return self._is_of(status_through_links(self.path))

    def _is_of(self, found: os.stat_result | None) -> bool:
        return found is not None and (found.st_size, found.st_mtime_ns) == self[1:]

    def read(self, offset: int, size: int, name: str) -> bytes:
        """Reads some of its bytes; `name` is what errors call them. Safe in threads.

        Raises:
            FileNotFoundError: If it is not there any more.
            DecodeError: If it was changed, cannot be read, or ends before.
        """
        with opened_fd(self.path) as fd:
            if not self._is_of(os.fstat(fd)):
                raise DecodeError(
                    f"{name}: {self.path} was changed since it was opened, and what is where in "
                    "it is not known any more. Open it anew."
                )
            try:
                return _bytes_at(fd, offset, size, name)
            except OSError as error:
                cannot_read(name, error)


def _bytes_at(fd: int, offset: int, size: int, name: str) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(fd, min(size, 1 << 30), offset)
        if not part:
            raise DecodeError(f"{name}: ends {size} bytes too early. Restore the file it is in.")
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class PartOfFile(FileSource):
    """A part of a file: a source with a path of its own that no file has.

    Its version is that of its content alone, whatever else is in the file, and is not known
    before it is asked for: then the content is read. It is copied into a dataset byte for byte.

    Args:
        path: What it is called, as `/data/shard.tar/0001.jpg`: its extension tells what it is.
        container: The file that it is in.
        read_part: Reads it; picklable, and safe in threads. It raises `FileNotFoundError` or
            `DecodeError` where it cannot.
        size: Bytes, if known.
    """

    __slots__ = ("_container", "_read_part", "_size", "_version")
    is_whole = False  # a link to the file is no copy of a part

    def __init__(
        self,
        path: str,
        container: Container,
        read_part: Callable[[], bytes],
        size: int | None = None,
    ) -> None:
        self._container = container
        self._read_part = read_part
        self._size = size
        super().__init__(path)

    @property
    def version(self) -> Version:  # a slot of a file's source
        """The version of the content when it was first read.

        Raises:
            DecodeError: If it cannot be read.
        """
        if self._version is None:
            try:
                self.read()
            except FileNotFoundError as error:
                raise DecodeError(f"{self.path}: there is no {self.file} (any more).") from error
        assert self._version is not None
        return self._version

    @version.setter
    def version(self, version: Version | None) -> None:
        self._version = version

    @property
    def digest(self) -> bytes | None:
        """The digest of the content last read; None: it was not read yet."""
        return None if self._version is None else self._version.digest

    @property
    def file(self) -> str:
        """The path of the file that it is a part of."""
        return self._container.path

    def anew(self) -> "PartOfFile":
        """Returns a source of the same part, of which nothing is known yet."""
        return PartOfFile(self.path, self._container, self._read_part, self._size)

    def is_there(self) -> bool:
        """Tells whether the file that it is in is there."""
        return status_through_links(self.file) is not None

    def size(self) -> int:
        """Returns how many bytes it has."""
        return len(self.read()) if self._size is None else self._size

    def look(self) -> None:
        """Looks whether the file that it is in is there; nothing is read yet.

        Raises:
            FileNotFoundError: If it is not.
            OSError: If that could not be asked.
        """
        if not self.is_there():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.file)

    def mark(self) -> str | None:
        """The mark of what it holds now, which is read for it; None where its file is not there."""
        return self.anew().version.mark if self.is_there() else None

    def read(self) -> bytes:
        """Reads the part and remembers its version.

        Raises:
            FileNotFoundError: If the file that it is in is not there.
            DecodeError: If it cannot be read, or does not fit into memory.
        """
        try:
            data = self._read_part()
        except MemoryError as error:
            raise DecodeError(f"{self.path}: does not fit into memory.") from error
        version = Version.of_part(data)._replace(digest=new_digest(data).digest())
        if self._version is not None and not self._version.may_be(version):
            self.is_newer = True
        self._version = version
        return data

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # The slot `version` of the base is not used: asking for it would read the content.
        names = ("path", "is_newer", *self.__slots__)
        return None, {name: getattr(self, name) for name in names}

    def is_current(self) -> bool:
        """Tells whether the file that it is in is still as it was when it was opened."""
        return self._version is not None and self._container.is_as_it_was()

    def is_changed(self) -> bool:
        """Tells whether the content is not what it was when it was read."""
        if self._container.is_as_it_was():
            return self.is_newer
        try:
            return self.anew().version != self.version
        except DecodeError:
            return True
