"""Advisory locks that the kernel lets go of when their holder dies."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.removing import remove

# Links could lead out of the dataset, and a pipe keep us waiting.
_NO_LOCK = {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR}
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Holds the lock file at `path`, waiting for it as long as it takes.

    Every use opens the file anew, so that threads of one process exclude each other too.
    `flock` works on local file systems and, as a byte-range lock, on NFS v4.

    Raises:
        DatasetError: If there is no regular file.
        OSError: If the file cannot be opened or the file system has no locks.
    """
    handle = os.open(path, _OPEN | os.O_CREAT, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DatasetError(f"{path}: is no regular file, a lock file was expected. Remove it.")
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Liveness:
    """A lock held as long as its owner lives, by which others see that it does.

    Args:
        path: The lock file.
        note: What it says of its owner.
    """

    def __init__(self, path: str, note: str = "") -> None:
        self._handle = -1
        self._handle = os.open(path, _OPEN | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._handle, note.encode())
        except OSError:
            self.close()  # now, not when the error is forgotten: its owner may try again
            raise

    def close(self) -> None:
        """Lets go of the lock."""
        handle, self._handle = self._handle, -1  # first: a signal comes at any time
        if handle >= 0:
            os.close(handle)

    __del__ = close


def is_held(path: str) -> bool:
    """Whether someone alive holds the lock file at `path`; False where there is none.

    Raises:
        OSError: If that could not be asked.
    """
    with _tried(path) as is_free:
        return is_free is False


def remove_unheld(path: str) -> None:
    """Removes a file that is its maker's lock at the same time, unless its maker is alive.

    Raises:
        OSError: If it could not be asked for, or not be removed.
    """
    with _tried(path) as is_free:
        if is_free is not False:
            remove(path)


@contextmanager
def _tried(path: str) -> Iterator[bool | None]:
    """Tries a lock: True if it is taken now, False if others hold it, None if there is no file."""
    try:
        handle = os.open(path, _OPEN)
    except OSError as error:
        if error.errno not in _NO_LOCK:
            raise
        yield None
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
