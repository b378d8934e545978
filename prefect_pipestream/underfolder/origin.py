"""What a sample was read from, and who still holds samples that were."""

import os
import time
import weakref

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource, FileStamp
from prefect_pipestream.underfolder.names import key_of


class SampleOrigin:
    """The files that a sample was read from, as they were then or when last decoded.

    Attributes:
        folder: The dataset's root.
        idx: The index that it was read at.
        sources: The files by name; a shared one's name begins with a slash.
    """

    __slots__ = ("__weakref__", "folder", "idx", "sources")

    def __init__(self, folder: str, idx: int, sources: dict[str, FileSource]) -> None:
        self.folder = folder
        self.idx = idx
        self.sources = sources

    def __repr__(self) -> str:
        return f"SampleOrigin({self.folder!r}, {self.idx}, {sorted(self.sources)})"


class Readers:
    """The origins of the samples that somebody still holds."""

    def __init__(self) -> None:
        self._origins: dict[int, list[weakref.ref[SampleOrigin]]] = {}

    def add(self, origin: SampleOrigin) -> None:
        """Remembers an origin as long as a sample has it."""
        idx = origin.idx
        readers = self._origins.setdefault(idx, [])

        def forget(dead: "weakref.ref[SampleOrigin]") -> None:
            readers.remove(dead)
            if not readers and self._origins.get(idx) is readers:
                del self._origins[idx]

        readers.append(weakref.ref(origin, forget))

    def note_written(self, idx: int, key: str, source: FileSource) -> None:
        """Lets samples taken earlier show a new file of item `key` of sample `idx`.

        To them it is no other writer's change.
        """
        for reader in list(self._origins.get(idx, ())):
            origin = reader()
            if origin is not None:
                _lead_to(origin, key, source)


def _lead_to(origin: SampleOrigin, key: str, source: FileSource) -> None:
    names = [name for name in origin.sources if name[0] != "/" and key_of(name) == key]
    taken = origin.sources.pop(names[0]) if names else FileSource(source.path)
    taken.path, taken.stamp = source.path, source.stamp
    taken.digest, taken.read_at_ns = source.digest, source.read_at_ns
    origin.sources[os.path.basename(source.path)] = taken


def stat_into(source: FileSource) -> None:
    """Notes what a file is like now.

    Raises:
        FileNotFoundError: If it is not there. A link that leads nowhere is: decoding it fails.
        DatasetError: If it cannot be looked at.
    """
    now = time.time_ns()
    try:
        status = os.stat(source.path)
    except OSError as error:
        if os.path.islink(source.path):
            return  # broken, or leading in a circle or where it may not
        if isinstance(error, FileNotFoundError):
            raise
        raise unreadable(source.path, error) from error
    source.stamp = FileStamp.of(status)
    source.read_at_ns = now


def unreadable(path: str, error: OSError) -> DatasetError:
    """The error for a file or folder that the operating system does not let us read."""
    return DatasetError(
        f"{path}: cannot be read ({error.strerror}). Check the folder and its permissions."
    )
