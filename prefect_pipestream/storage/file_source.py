"""One file that is read: what is known of it, and its content. Links to files are followed.

The files of samples are read so; those that are private to a dataset by `untrusted`.
"""

import errno
import hashlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import ClassVar, NoReturn

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.asking import is_link, is_there, status_through_links
from prefect_pipestream.storage.version import Version, mark_at

_WITHIN = "PIPESTREAM_LINKS_WITHIN"  # new processes, which read for this one, know it, too

# O_NONBLOCK: opening a FIFO that nobody writes to must not hang; regular files ignore it.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20
# What is changed is read to be decoded, and once more for what is to be kept of it: of a sample
# with some small pictures it is at hand.
_RECENT, _SHORT = 4, 1 << 16


class _Recent(threading.local):
    """The contents that this thread read last, each with the version that it is of."""

    def __init__(self) -> None:
        self.contents: deque[tuple[Version, bytes]] = deque(maxlen=_RECENT)

    def of(self, version: Version | None) -> bytes | None:
        """The content of a version, the very same object, if that was read lately."""
        return next((content for one, content in self.contents if one is version), None)


_recent = _Recent()


class FileSource:
    """One file that holds an item's value; shared by all items of one origin, and refreshed.

    Attributes:
        path: Absolute path of the file.
        version: What the file was like when it was taken, last decoded or written by us; None: not
            known, as of a link that leads nowhere.
        is_newer: Whether it changed between two looks at it.
        is_whole: Whether the content is all of a file, so that a link to it has the same content.
    """

    __slots__ = ("is_newer", "path", "version")
    is_whole: ClassVar[bool] = True

    def __init__(
        self, path: str, version: Version | None = None, *, is_newer: bool = False
    ) -> None:
        self.path = path
        self.version = version
        self.is_newer = is_newer

    @property
    def digest(self) -> bytes | None:
        """The digest of the content last decoded from it or written to it; None: not known."""
        return None if self.version is None else self.version.digest

    @property
    def known_as(self) -> Version | None:
        """What its content is known by before it is looked at; None: that is to be looked at."""
        return None

    def become(self, other: "FileSource") -> None:
        """Knows from now on what `other` knows of its file."""
        self.path, self.version, self.is_newer = other.path, other.version, other.is_newer

    def anew(self) -> "FileSource":
        """Returns a source of the same file, of which nothing is known yet."""
        return FileSource(self.path)

    @property
    def file(self) -> str:
        """The path of the file on disk that has the content, whole or as a part."""
        return self.path

    def is_there(self) -> bool:
        """Tells whether there is such a file, links followed.

        Raises:
            OSError: If that could not be asked.
        """
        return status_through_links(self.path) is not None

    def size(self) -> int:
        """Returns how many bytes it has now.

        Raises:
            OSError: If that could not be asked.
        """
        return os.stat(self.path).st_size

    def look(self) -> None:
        """Notes what the file is like now, if that is not known.

        Raises:
            FileNotFoundError: If it is not there. A link that leads nowhere is: decoding it fails.
            OSError: If that could not be asked.
        """
        if self.version is not None:
            return
        now = time.time_ns()
        status = status_through_links(self.path)
        if status is not None:
            self.version = Version.of(status, read_at_ns=now)
        elif not is_there(self.path):
            raise no_such_file(self.path)

    def mark(self) -> str | None:
        """The mark of what is there now, be it a link that leads nowhere; None where nothing is.

        Raises:
            OSError: If that could not be asked.
        """
        return mark_at(self.path)

    @contextmanager
    def opened(self) -> Iterator[Iterator[bytes]]:
        """Gives the content in pieces, for a copy; in one, where it is not all of a file.

        Raises:
            FileNotFoundError: If it is not there.
            DecodeError: If it is no regular file or cannot be read, also while pieces are taken.
        """
        if not self.is_whole:
            yield iter((self.read(),))
            return
        with opened_fd(self.path) as fd:
            require_regular(os.fstat(fd), self.path)
            yield _chunks_in(fd, self.path)

    def read(self) -> bytes:
        """Reads the whole content and remembers its version.

        Raises:
            FileNotFoundError: If the file, or what a symbolic link points to, is not there.
            DecodeError: If it is no regular file, cannot be read, or does not fit into memory.
        """
        path = self.path
        read_at_ns = time.time_ns()
        try:
            data, st = _read_regular_file(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            cannot_read(path, error)
        except MemoryError as error:
            raise DecodeError(
                f"{path}: its content does not fit into memory. Remove it, or make it smaller."
            ) from error
        version = Version.of(st, new_digest(data).digest(), read_at_ns)
        if self.version is not None and not self.version.may_be(version):
            self.is_newer = True
        self.version = version
        if len(data) <= _SHORT:
            _recent.contents.append((version, data))
        return data

    def content(self) -> bytes:
        """Returns the whole content, of which nothing is remembered.

        It is not read where it was lately, is short, and one `stat` tells no change since.

        Raises:
            FileNotFoundError, DecodeError: As for `read`.
        """
        recent = _recent.of(self.version) if self.is_whole else None
        return self.anew().read() if recent is None or not self.is_current() else recent

    def is_current(self) -> bool:
        """Tells whether the file is there and still this version, as far as one `stat` tells."""
        if self.version is None:
            return False
        found = status_through_links(self.path)
        return found is not None and self.version.is_of(found)

    def is_changed(self) -> bool:
        """Tells whether the file's content is not what it was: by size and time, else by digest.

        Raises:
            OSError: If that could not be asked: it is no change of another writer.
        """
        found, was = status_through_links(self.path), self.version
        if found is None:  # else it is a link that led nowhere when it was taken, too
            return not (was is None and is_link(self.path))
        if was is not None and was.is_of(found) and was.is_beyond_tick:
            return False
        if was is None or was.digest is None or was.size != found.st_size:
            return True
        return _digest_of(self.anew()) != was.digest

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"


def _digest_of(source: FileSource) -> bytes | None:
    """The digest of a file's content; None where there is no regular file (any more)."""
    try:
        source.read()
    except FileNotFoundError:
        return None
    except DecodeError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        return None
    return source.digest


def _chunks_in(fd: int, path: str) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, _CHUNK):
            yield chunk
    except OSError as error:
        cannot_read(path, error)


class _Within:
    """The folder out of which no link leads that is in it, and where it really is."""

    def __init__(self, folder: str) -> None:
        self._inside = folder + os.sep
        self._real = os.path.realpath(folder) + os.sep

    def is_left_by(self, path: str) -> bool:
        """Whether what is at a path inside of it is really elsewhere."""
        return path.startswith(self._inside) and not os.path.realpath(path).startswith(self._real)


def follow_links_within(folder: str) -> None:
    """Lets this process, and those that it starts, follow no link out of a folder from inside it.

    What is read by another path is read as before. Meant for a program that shows a dataset which
    may come from anybody.
    """
    global _within
    os.environ[_WITHIN] = folder
    _within = _Within(folder)


# Looking into the environment takes a tenth of the time in which a small file is read.
_within = _Within(os.environ[_WITHIN]) if _WITHIN in os.environ else None


def refuse_link_out(path: str) -> None:
    """Raises `DecodeError` if a file is a link, or below one, that is not to be followed."""
    if _within is not None and _within.is_left_by(path):
        raise DecodeError(
            f"{path}: this is a link out of the dataset, which is not followed here. Put the file "
            "in its place, or allow links: `pipestream browse --follow-links`."
        )


@contextmanager
def opened_fd(path: str) -> Iterator[int]:
    """Gives the descriptor of a file that is opened to be read.

    Raises:
        FileNotFoundError: If it is not there.
        DecodeError: If it cannot be opened.
    """
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: str) -> int:
    refuse_link_out(path)
    try:
        return os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        cannot_read(path, error)


def _read_regular_file(path: str) -> tuple[bytes, os.stat_result]:
    fd = _open(path)
    try:
        st = os.fstat(fd)
        require_regular(st, path)
        data = os.read(fd, st.st_size + 1)
        if len(data) < st.st_size:  # read(2) hands out at most 2 GiB at a time
            data = b"".join(_rest_of(fd, data))
        return data, st
    finally:
        os.close(fd)


def require_regular(st: os.stat_result, path: str) -> None:
    """Raises `DecodeError` unless what is at a path is a file."""
    if not stat.S_ISREG(st.st_mode):
        kind = "a directory" if stat.S_ISDIR(st.st_mode) else "no regular file"
        raise DecodeError(f"{path}: is {kind}, a file was expected. Remove or rename it.")


def _rest_of(fd: int, data: bytes) -> list[bytes]:
    parts = [data]
    while parts[-1]:
        parts.append(os.read(fd, 1 << 30))
    return parts


def digest_at(path: str) -> bytes:
    """The digest of a file's content, which is read a part after the other.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, new_digest).digest()


def no_such_file(path: str) -> FileNotFoundError:
    """The error for a file that is not there (any more)."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def new_digest(data: bytes = b"") -> blake2b:
    """Returns the digest by which contents are compared, of what it was given until now."""
    return blake2b(data, digest_size=16)


def cannot_read(path: str, error: OSError) -> NoReturn:
    """Raises `DecodeError` for a file that the operating system does not let us read."""
    raise DecodeError(
        f"{path}: cannot be read ({error.strerror}). Check the file and its permissions."
    ) from error
