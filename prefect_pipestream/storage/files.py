"""One file that is read: what is known of it, and its content. Links to files are followed.

The files of samples are read so; those that are private to a dataset by `untrusted`.
"""

import os
import stat
import time
from hashlib import blake2b
from typing import NamedTuple, NoReturn

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.asking import status_through_links

# O_NONBLOCK: opening a FIFO that nobody writes to must not hang; regular files ignore it.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FileStamp(NamedTuple):
    """What the file system says of a file's content, without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, st: os.stat_result) -> "FileStamp":
        """Takes the stamp from a `stat` result."""
        return cls(st.st_size, st.st_mtime_ns, st.st_ino)


class FileSource:
    """One file that holds an item's value; shared by all items of one origin, and refreshed.

    Attributes:
        path: Absolute path of the file.
        stamp: The file's stamp when it was taken, last decoded or written by us; None: not known.
        digest: BLAKE2b (16 bytes) of the content last decoded from it or written to it.
        read_at_ns: `time.time_ns()` just before that content was read or after it was written. A
            stamp whose mtime is within a clock tick of it may hide a later change.
        is_newer: Whether the file was another one when it was read than when it was taken, or read
            before.
    """

    __slots__ = ("digest", "is_newer", "path", "read_at_ns", "stamp")

    def __init__(
        self,
        path: str,
        stamp: FileStamp | None = None,
        digest: bytes | None = None,
        read_at_ns: int = 0,
    ) -> None:
        self.path = path
        self.stamp = stamp
        self.digest = digest
        self.read_at_ns = read_at_ns
        self.is_newer = False

    def become(self, other: "FileSource") -> None:
        """Knows from now on what `other` knows of its file."""
        self.path, self.stamp, self.digest = other.path, other.stamp, other.digest
        self.read_at_ns, self.is_newer = other.read_at_ns, other.is_newer

    def read(self) -> bytes:
        """Reads the whole file and remembers its stamp and digest.

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
        stamp, digest = FileStamp.of(st), new_digest(data).digest()
        known = digest if self.digest is None else self.digest
        if known != digest or (self.digest is None and self.stamp not in (None, stamp)):
            self.is_newer = True
        self.stamp, self.digest, self.read_at_ns = stamp, digest, read_at_ns
        return data

    def is_current(self) -> bool:
        """Tells whether the file is there and still has this stamp (one `stat`)."""
        return self.stamp is not None and self.stamp == stamp_of(self.path)

    def __repr__(self) -> str:
        return f"FileSource({self.path!r})"


def stamp_of(path: str) -> FileStamp | None:
    """Returns the stamp of the file at `path` (links followed), or None if there is none.

    Raises:
        OSError: If that could not be asked.
    """
    found = status_through_links(path)
    return None if found is None else FileStamp.of(found)


def _read_regular_file(path: str) -> tuple[bytes, os.stat_result]:
    fd = os.open(path, READ_FLAGS)
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


def new_digest(data: bytes = b"") -> blake2b:
    """Returns the digest by which contents are compared, of what it was given until now."""
    return blake2b(data, digest_size=16)


def cannot_read(path: str, error: OSError) -> NoReturn:
    """Raises `DecodeError` for a file that the operating system does not let us read."""
    raise DecodeError(
        f"{path}: cannot be read ({error.strerror}). Check the file and its permissions."
    ) from error
