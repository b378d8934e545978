"""Questions to a file system. "It is not there" is an answer; "it could not be asked" is an error.

`os.path.exists` and its like answer False to every error. Where a file is kept, removed or
replaced by the answer, an error for one moment (EIO of a disk, ESTALE of an NFS server) would
lose it.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_LEADS_NOWHERE = {*_NOT_THERE, errno.ELOOP}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
"""The errors by which an operating system refuses to write at all."""


def status_of(path: str) -> os.stat_result | None:
    """What is at `path`, a link itself and not what it leads to; None where there is nothing.

    Raises:
        OSError: If it could not be asked.
    """
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise


def status_through_links(path: str) -> os.stat_result | None:
    """What is at `path`, links followed; None where there is nothing, or a link leads nowhere.

    A link to where we may not look leads nowhere, too.

    Raises:
        OSError: If it could not be asked.
    """
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE or (error.errno == errno.EACCES and is_link(path)):
            return None
        raise


def is_of_disk(error: BaseException | None) -> bool:
    """Whether an error is the operating system's, and so says nothing of a file's content."""
    return isinstance(error, OSError) and error.errno is not None


def is_there(path: str) -> bool:
    """Whether there is anything at `path`, be it a broken link; see `status_of`."""
    return status_of(path) is not None


def is_folder(path: str) -> bool:
    """Whether a folder is at `path`, or a link leads to one; see `status_through_links`."""
    found = status_through_links(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: str) -> bool:
    """Whether a regular file is at `path`, or a link leads to one; see `status_through_links`."""
    found = status_through_links(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_link(path: str) -> bool:
    """Whether a symbolic link is at `path`; see `status_of`."""
    found = status_of(path)
    return found is not None and stat.S_ISLNK(found.st_mode)


def names_in(folder: str) -> list[str]:
    """The names in a folder that do not begin with a dot; none where there is no folder.

    Raises:
        OSError: If there is one, and it cannot be listed.
    """
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the path of each file below a folder, relative, with slashes; hidden ones are not.

    Those of a folder come before those of the folders in it, by their names. Links to folders are
    left out; others are not looked at.

    Raises:
        OSError: If a folder cannot be listed.
    """
    todo = deque([("", os.fspath(folder))])
    while todo:
        prefix, path = todo.popleft()
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append((f"{prefix}{entry.name}/", entry.path))
            elif not _leads_to_folder(entry):
                yield prefix + entry.name


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:  # as a link to itself
            return False
        raise
