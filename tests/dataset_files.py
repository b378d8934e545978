"""The files of a dataset that belong to its samples."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_outside_private(folder: Path) -> Iterator[Path]:
    """Each file below a folder, ordered, but the private ones of datasets.

    Private folders are not looked into: a writer that is let go of takes its own away, some time.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - {".pipestream"})
        yield from (Path(where, name) for name in sorted(names))
