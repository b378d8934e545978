"""Paths that files of unknown origin name, and that must stay below a folder."""

import posixpath

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
