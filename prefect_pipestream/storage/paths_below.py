"""Paths that files of unknown origin name, and that must stay below a folder."""

import os
import posixpath
from collections.abc import Iterable

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.asking import is_link
from prefect_pipestream.storage.untrusted import is_name


def relative(said: object) -> str | None:
    """A path below a folder, with slashes, without `.` and `..`; None if it is none.

    It is none if it is no text, absolute, empty, the folder itself or outside of it, or no file can
    have it. Nothing is asked of the disk: `..` takes back the name before it.
    """
    if not isinstance(said, str) or not said or said.startswith("/"):
        return None
    path = posixpath.normpath(said)
    return path if all(is_name(part) for part in path.split("/")) else None


def first_below(folder: str, paths: Iterable[str]) -> str | None:
    """Returns the first of some paths that is below a folder, relative to it, with slashes.

    Nothing is asked of the disk: `..` takes back the name before it. None: there is none.

    Args:
        folder: An absolute path.
        paths: Absolute paths, or such as are relative to the folder.
    """
    above = folder.rstrip("/") + "/"
    for path in paths:
        whole = os.path.normpath(os.path.join(folder, path))
        found = relative(whole.removeprefix(above)) if whole.startswith(above) else None
        if found is not None:
            return found
    return None


def is_path(text: str) -> bool:
    """Whether a file can have this path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False


def refuse_leading_out(folder: str, relative: str, way: str | None = None) -> None:
    """Raises `DecodeError` if links lead the folder of a path out of the folder that it is below.

    A link in place of the file itself is the user's: data sets are made of such ones.

    Args:
        folder: An absolute path.
        relative: A path below it.
        way: What to do if that is meant; by default, to name another `root`.
    """
    path = folder
    for part in relative.split("/")[:-1]:
        path = os.path.join(path, part)
        if is_link(path):
            break
    else:
        return
    path = os.path.join(folder, os.path.dirname(relative))
    real, allowed = os.path.realpath(path), os.path.realpath(folder)
    if real != allowed and not real.startswith(allowed.rstrip("/") + "/"):
        raise DecodeError(
            f"{path}: leads out of {folder} by a link, to {real}. If that is meant, "
            f"{way or 'name a folder that has both by `root`'}."
        )
