"""What a text file of unknown origin names: paths, which must lead to below a folder."""

import os
from collections.abc import Iterable

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.asking import is_link
from prefect_pipestream.storage.file_source import FileSource


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
        if whole.startswith(above) and is_path(path):
            return whole.removeprefix(above)
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


def text_of(path: str) -> str:
    """Returns the text of a file.

    Raises:
        DecodeError: If it is not there, cannot be read, or is not UTF-8.
    """
    try:
        return FileSource(path).read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DecodeError(f"{path}: there is no such file. Restore it.") from error
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"{path}: is no text in UTF-8 (byte {error.start}). Save it as such."
        ) from error
