"""Space on a disk: how much is free, and how it is written for people."""

import os

from prefect_pipestream.storage.asking import is_there


def free_bytes(path: str) -> int | None:
    """The bytes that may still be written where `path` is, or is to be made.

    Returns:
        That many; None where the file system does not say.

    Raises:
        OSError: If it could not be asked.
    """
    disk = os.statvfs(_nearest(path))
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else None


def _nearest(path: str) -> str:
    """The path, or the nearest folder above it that is there."""
    while not is_there(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def size_of(number: float) -> str:
    """A number of bytes for people: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
