"""Removing what is there, whatever it is; a link itself and never what it leads to."""

import errno
import os
import shutil
import stat
from contextlib import suppress

from prefect_pipestream.storage.asking import status_of


def remove(path: str) -> None:
    """Removes a file, a link, or a folder with all that is in it. It may be gone already.

    Raises:
        OSError: If something of it stays.
    """
    found = status_of(path)
    if found is None:
        return
    try:
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except RecursionError as error:  # nobody's files are a thousand folders deep
        message = "has too many folders, one in the other"
        raise OSError(errno.ENAMETOOLONG, message, path) from error
    except FileNotFoundError:  # in the same moment another process removes it, too
        if status_of(path) is not None:
            remove(path)


def empty_folder(folder: str) -> None:
    """Removes what is in a folder, if it is there; its own removal is slow on some disks."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            remove(entry.path)
