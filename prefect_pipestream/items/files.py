"""What an item knows of a file on disk, and how a new file is made: written, copied or linked.

Nothing here ever writes through an existing file: other hard links to it stay as they are.
"""

import contextlib
import os
import stat
import time
from hashlib import blake2b
from typing import NamedTuple, NoReturn

from prefect_pipestream.errors import DatasetWriteError, DecodeError
from prefect_pipestream.storage.asking import is_link, status_through_links

_DIGEST_SIZE = 16
_COPY_CHUNK = 1 << 20
# O_NONBLOCK: opening a FIFO that nobody writes to must not hang; regular files ignore it.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class FileStamp(NamedTuple):
    """What the file system says of a file's content, without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, st: os.stat_result) -> "FileStamp":
        """Take the stamp from a `stat` result."""
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
        """Read the whole file and remember its stamp and digest.

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
            _cannot_read(path, error)
        except MemoryError as error:
            raise DecodeError(
                f"{path}: its content does not fit into memory. Remove it, or make it smaller."
            ) from error
        stamp, digest = FileStamp.of(st), blake2b(data, digest_size=_DIGEST_SIZE).digest()
        known = digest if self.digest is None else self.digest
        if known != digest or (self.digest is None and self.stamp not in (None, stamp)):
            self.is_newer = True
        self.stamp, self.digest, self.read_at_ns = stamp, digest, read_at_ns
        return data

    def is_current(self) -> bool:
        """Tell whether the file is there and still has this stamp (one `stat`)."""
        return self.stamp is not None and self.stamp == stamp_of(self.path)

    def __repr__(self) -> str:
        return f"FileSource({self.path!r})"


def stamp_of(path: str) -> FileStamp | None:
    """Return the stamp of the file at `path` (links followed), or None if there is none.

    Raises:
        OSError: If that could not be asked.
    """
    found = status_through_links(path)
    return None if found is None else FileStamp.of(found)


def _read_regular_file(path: str) -> tuple[bytes, os.stat_result]:
    fd = os.open(path, _READ_FLAGS)
    try:
        st = os.fstat(fd)
        _require_regular(st, path)
        data = os.read(fd, st.st_size + 1)
        if len(data) < st.st_size:  # read(2) hands out at most 2 GiB at a time
            data = b"".join(_rest_of(fd, data))
        return data, st
    finally:
        os.close(fd)


def _require_regular(st: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(st.st_mode):
        kind = "a directory" if stat.S_ISDIR(st.st_mode) else "no regular file"
        raise DecodeError(f"{path}: is {kind}, a file was expected. Remove or rename it.")


def _rest_of(fd: int, data: bytes) -> list[bytes]:
    parts = [data]
    while parts[-1]:
        parts.append(os.read(fd, 1 << 30))
    return parts


def write_new(path: str, data: bytes) -> FileSource:
    """Create the file `path` with this content.

    Raises:
        DatasetWriteError: If it exists, or cannot be written; nothing is left of it.
    """
    try:
        fd = os.open(path, _CREATE_FLAGS, 0o666)
    except OSError as error:
        cannot_write(path, error)
    try:
        try:
            _write_all(fd, data)
            stamp, now = _stamp_uniquely(fd)
        finally:
            os.close(fd)  # may report a full disk on a network file system
    except OSError as error:
        _discard(path)
        cannot_write(path, error)
    return FileSource(path, stamp, blake2b(data, digest_size=_DIGEST_SIZE).digest(), now)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(data):
            written += os.write(fd, rest[written:])


def _stamp_uniquely(fd: int) -> tuple[FileStamp, int]:
    # The kernel stamps files with a clock that ticks every few ms: without this, two versions
    # of a file written within a tick could have one stamp.
    now = time.time_ns()
    os.utime(fd, ns=(now, now))
    return FileStamp.of(os.fstat(fd)), now


def copy_new(source: FileSource, path: str) -> FileSource:
    """Create the file `path` with the content of `source`.

    Raises:
        FileNotFoundError: If the source is not there.
        DecodeError: If the source cannot be read.
        DatasetWriteError: If `path` exists or cannot be written; nothing is left of it.
    """
    try:
        source_fd = os.open(source.path, _READ_FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        _cannot_read(source.path, error)
    try:
        _require_regular(os.fstat(source_fd), source.path)
        return _copy_from(source_fd, source.path, path)
    finally:
        os.close(source_fd)


def _copy_from(source_fd: int, source_path: str, path: str) -> FileSource:
    digest = blake2b(digest_size=_DIGEST_SIZE)
    chunk = _read_chunk(source_fd, source_path)
    try:
        fd = os.open(path, _CREATE_FLAGS, 0o666)
        try:
            while chunk:
                digest.update(chunk)
                _write_all(fd, chunk)
                chunk = _read_chunk(source_fd, source_path)
            stamp, now = _stamp_uniquely(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            _discard(path)
        cannot_write(path, error)
    except DecodeError:
        _discard(path)
        raise
    return FileSource(path, stamp, digest.digest(), now)


def _read_chunk(fd: int, path: str) -> bytes:
    try:
        return os.read(fd, _COPY_CHUNK)
    except OSError as error:
        _cannot_read(path, error)


def link_new(source: FileSource, path: str, *, symbolic: bool) -> FileSource | None:
    """Make `path` a link to the file of `source`; None if the file system makes no such link.

    Raises:
        DecodeError: If the source is no regular file; nothing is left at `path`.
        DatasetWriteError: If `path` exists or its folder cannot be written.
    """
    # A link to a symbolic link would break with it, or at once where its target is relative.
    target = os.path.realpath(source.path) if is_link(source.path) else source.path
    try:
        if symbolic:
            os.symlink(target, path)
        else:
            os.link(target, path)
    except (FileExistsError, FileNotFoundError) as error:
        cannot_write(path, error)
    except OSError:
        # EXDEV, EMLINK, EPERM, ENOTSUP, ...: the caller copies; where the folder itself is at
        # fault, the copy fails on it and says so.
        return None
    now = time.time_ns()
    stamp = _stamp_of_link(path, source.path)
    digest = source.digest if stamp is not None and stamp == source.stamp else None
    return FileSource(path, stamp, digest, now)


def _stamp_of_link(path: str, source_path: str) -> FileStamp | None:
    st = status_through_links(path)
    if st is None:
        return None
    try:
        _require_regular(st, source_path)
    except DecodeError:
        _discard(path)
        raise
    return FileStamp.of(st)


def keep_access(path: str, old_path: str) -> None:
    """Give a new file, of which there is no other link, the mode and the group of an old one.

    Where a link is at `old_path`, they are those of the file that it leads to: who may not read
    that one is not to read the new one. A group that its owner may not give it stays as it is.

    Raises:
        OSError: If the mode cannot be set, or the old file cannot be asked for it.
    """
    old = status_through_links(old_path)
    if old is None or not stat.S_ISREG(old.st_mode):
        return
    new = os.lstat(path)
    if not stat.S_ISREG(new.st_mode) or new.st_nlink > 1:
        return
    if new.st_gid != old.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, old.st_gid)
    if new.st_mode != old.st_mode:
        os.chmod(path, stat.S_IMODE(old.st_mode))


def _discard(path: str) -> None:
    with contextlib.suppress(OSError):  # the error that led here is the one to report
        os.unlink(path)


def _cannot_read(path: str, error: OSError) -> NoReturn:
    raise DecodeError(
        f"{path}: cannot be read ({error.strerror}). Check the file and its permissions."
    ) from error


def cannot_write(path: str, error: OSError) -> NoReturn:
    """Raise `DatasetWriteError` for a file that the operating system does not let us write."""
    raise DatasetWriteError(
        error.errno,
        f"{path}: cannot be written ({error.strerror or error}). Nothing was changed; "
        "check the folder's permissions and the free space on the disk.",
    ) from error
