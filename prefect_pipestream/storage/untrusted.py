"""Files below a folder whose maker is not trusted: no link is followed, no pipe is waited for."""

import errno
import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from typing import Any, BinaryIO

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import status_of

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV}
TEMPORARY = ".new"
"""How the name of a file ends that is being written, or was as its writer was killed."""
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
MOST_BYTES = 1 << 30
"""How much of one file is ever read into memory."""
MOST_JSON = 1 << 28
"""How much of one file of JSON is: a review of a million samples."""


def inside(folder: str, *parts: str) -> str:
    """Returns the path of `parts` below `folder`, if no link is on the way, nor at its end.

    Whoever has a path from here may list, make, rename and remove there: it does not lead out.

    Raises:
        DatasetError: If a part is a symbolic link, or is no name.
        OSError: If it could not be asked.
    """
    path = folder
    for number, part in enumerate(parts, 1):
        if not is_name(part):
            raise DatasetError(f"{folder}: {part!r} is not the name of a file.")
        path = f"{path}/{part}"
        found = status_of(path)
        if found is None:
            return "/".join((path, *parts[number:]))
        if stat.S_ISLNK(found.st_mode):
            raise leads_away(path)
    return path


def is_name(text: str) -> bool:
    """Whether a file can have this name, in the folder that it is given for."""
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        return False
    try:
        return text.isascii() or bool(os.fsencode(text))
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False


def leads_away(path: str) -> DatasetError:
    """The error for a symbolic link where none may be."""
    return DatasetError(
        f"{path} is a symbolic link to {os.readlink(path)}: what is written would leave the "
        "dataset. Open the dataset there, or put a folder in its place."
    )


def write_anew(path: str, content: bytes, staged: str, *, durable: bool = False) -> None:
    """Writes a file whole or not at all, in place of whatever has its name now.

    Args:
        path: The file, of a folder that is known to be inside.
        content: Its content.
        staged: A folder of the same file system, where it is made. Its maker holds a lock on it,
            so that `remove_unheld` removes what a killed one left, and nothing else.
        durable: Whether it is on the disk, and not only on its way, when it gets its name.

    Raises:
        OSError: If it cannot be written; then nothing is changed.
    """
    fresh = f"{staged}/{os.getpid()}-{time.monotonic_ns()}{TEMPORARY}"
    handle = os.open(fresh, _MAKE, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink == 0:  # swept before it was locked
            return write_anew(path, content, staged, durable=durable)
        with open(os.dup(handle), "wb") as file:  # a network disk may be full only on closing
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with suppress(OSError):  # the error that led here is the one to report
            os.unlink(fresh)
        raise
    finally:
        os.close(handle)


def open_regular(path: str) -> BinaryIO:
    """Opens a file to read it; only its last part is looked at for a link.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no regular file.
        OSError: If it cannot be opened.
    """
    try:
        file = open(path, "rb", opener=_open_to_read)  # noqa: SIM115 # the caller closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            raise ValueError("it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("it is no regular file")
    return file


def _open_to_read(path: str, _flags: int) -> int:
    return os.open(path, _READ)


def read_regular(path: str, most: int = MOST_BYTES) -> bytes:
    """The content of a file; see `open_regular`.

    Raises:
        ValueError: If it has more than `most` bytes, too.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size} bytes; at most {most} are read")
        return file.read(size)  # `most` would be allocated at once


def starts_with(path: str, *beginnings: bytes) -> bool:
    """Whether a regular file begins in one of these ways; see `open_regular`.

    Raises:
        FileNotFoundError: If it is not there.
        OSError: If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read(max(map(len, beginnings))).startswith(beginnings)
    except ValueError:
        return False


def read_json(path: str) -> dict[str, Any]:
    """The mapping in a file; an empty one where there is none, or the file holds another thing.

    Raises:
        OSError: If the file is there and cannot be read.
    """
    try:
        found = json.loads(read_regular(path, MOST_JSON))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
