"""New files, made by writing, copying or linking; and what of an old one they keep.

Nothing here ever writes through an existing file: other hard links to it stay as they are.
"""

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable
from typing import NoReturn

from prefect_pipestream.errors import DatasetWriteError, DecodeError
from prefect_pipestream.storage.asking import is_link, status_through_links
from prefect_pipestream.storage.file_source import FileSource, new_digest, require_regular
from prefect_pipestream.storage.version import Version

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.ENOTSUP}
"""The errors by which a file system says that it makes no (more) hard links."""


def write_new(path: str, data: bytes) -> FileSource:
    """Creates the file `path` with this content.

    Raises:
        DatasetWriteError: If it exists, or cannot be written; nothing is left of it.
    """
    return _create(path, (data,))


def copy_new(source: FileSource, path: str) -> FileSource:
    """Creates the file `path` with the content of `source`.

    Raises:
        FileNotFoundError: If the source is not there.
        DecodeError: If the source cannot be read.
        DatasetWriteError: If `path` exists or cannot be written; nothing is left of it.
    """
    with source.opened() as chunks:
        return _create(path, chunks)


def _create(path: str, chunks: Iterable[bytes]) -> FileSource:
    """Creates a file; nothing is left of it where a chunk cannot be had or written."""
    try:
        fd = os.open(path, _CREATE_FLAGS, 0o666)
    except OSError as error:
        cannot_write(path, error)
    digest = new_digest()
    try:
        try:
            for chunk in chunks:
                digest.update(chunk)
                _write_all(fd, chunk)
            status, now = _timed_uniquely(fd)
        finally:
            os.close(fd)  # may report a full disk on a network file system
    except OSError as error:
        _discard(path)
        cannot_write(path, error)
    except DecodeError:
        _discard(path)
        raise
    return FileSource(path, Version.of(status, digest.digest(), now))


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(data):
            written += os.write(fd, rest[written:])


def _timed_uniquely(fd: int) -> tuple[os.stat_result, int]:
    # The kernel's clock for files ticks every few ms: without this, two versions of a file
    # written within a tick could have one time.
    now = time.time_ns()
    os.utime(fd, ns=(now, now))
    return os.fstat(fd), now


def link_new(source: FileSource, path: str, *, symbolic: bool) -> FileSource | None:
    """Makes `path` a link to the file of `source`; None if there is no such link.

    That is so if the file system makes none, and where the source is a part of a file.

    Raises:
        DecodeError: If the source is no regular file; nothing is left at `path`.
        DatasetWriteError: If `path` exists or its folder cannot be written.
    """
    if not source.is_whole:
        return None
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
    return FileSource(path, _version_of_link(path, source))


def _version_of_link(path: str, source: FileSource) -> Version | None:
    now = time.time_ns()
    status = status_through_links(path)
    if status is None:
        return None
    try:
        require_regular(status, source.path)
    except DecodeError:
        _discard(path)
        raise
    is_same = source.version is not None and source.version.is_of(status)
    return Version.of(status, source.digest if is_same else None, now)


def link_or_copy(source: str, target: str) -> None:
    """Makes `target` the same file as `source`, or a copy where there are no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copy2(source, target + ".part", follow_symlinks=False)
        os.replace(target + ".part", target)


def sync_folder(folder: str) -> None:
    """Makes the names in a folder survive a loss of power."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def umask_in_force() -> int | None:
    """What new files of this process lack of access; None where the system does not tell.

    It is not asked for by `os.umask`, which would change it for the files of other threads.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            told = next(line for line in status if line.startswith(b"Umask:"))
    except (OSError, StopIteration):
        return None
    return int(told.split()[1], 8)


def keep_access(path: str, old_path: str) -> None:
    """Gives a new file, of which there is no other link, the mode and the group of an old one.

    Where a link is at `old_path`, they are those of the file that it leads to: who may not read
    that one is not to read the new one. A group that its owner may not give it stays as it is.

    Raises:
        OSError: If the mode cannot be set, or the old file cannot be asked for it.
    """
    old = status_through_links(old_path)
    if old is not None:
        give_access(path, old)


def give_access(path: str, old: os.stat_result) -> None:
    """Gives a new file, of which there is no other link, an old file's mode and group; see above.

    Raises:
        OSError: If the mode cannot be set.
    """
    if not stat.S_ISREG(old.st_mode):
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


def cannot_write(path: str, error: OSError) -> NoReturn:
    """Raises `DatasetWriteError` for a file that the operating system does not let us write."""
    raise DatasetWriteError(
        error.errno,
        f"{path}: cannot be written ({error.strerror or error}); check the folder's permissions "
        "and the free space on the disk",
    ) from error
