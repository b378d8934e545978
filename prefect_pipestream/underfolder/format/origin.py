"""What a sample was read from."""

import copy
import os
from collections.abc import Collection

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.version import ABSENT, version_of
from prefect_pipestream.underfolder.format.names import is_shared, key_of


class SampleOrigin:
    """The files that a sample was read from, as they were then or when last decoded.

    Attributes:
        folder: The dataset's root.
        idx: The index that it was read at.
        sources: The files by name; a shared one's name begins with a slash.
    """

    __slots__ = ("folder", "idx", "sources")

    def __init__(self, folder: str, idx: int, sources: dict[str, FileSource]) -> None:
        self.folder = folder
        self.idx = idx
        self.sources = sources

    def source_of(self, key: str) -> FileSource | None:
        """Returns the file of the item `key`, shared or not, if it had one."""
        for name, source in self.sources.items():
            if key_of(name) == key:
                return source
        return None

    def lead_to(self, key: str, source: FileSource) -> None:
        """Notes that item `key` is in this file now, as this sample's holder wrote it there."""
        names = [name for name in self.sources if not is_shared(name) and key_of(name) == key]
        taken = self.sources.pop(names[0]) if names else copy.copy(source)
        taken.become(source)
        self.sources[os.path.basename(source.path)] = taken

    def forget(self, keys: Collection[str]) -> None:
        """Notes that the sample has no such items of its own any more: its holder removed them."""
        for name in [one for one in self.sources if not is_shared(one) and key_of(one) in keys]:
            del self.sources[name]

    @property
    def version(self) -> str:
        """One value for what all of the files were like; see `version_of`."""
        if self.is_of_nothing:
            return ABSENT
        return version_of({name: source.version for name, source in self.sources.items()})

    @property
    def is_of_nothing(self) -> bool:
        """Whether the sample had no files of its own."""
        return all(map(is_shared, self.sources))

    def forget_own(self) -> None:
        """Notes that the sample has no files of its own any more, as its holder removed them."""
        self.sources = {name: one for name, one in self.sources.items() if is_shared(name)}

    def __repr__(self) -> str:
        return f"SampleOrigin({self.folder!r}, {self.idx}, {sorted(self.sources)})"


def stat_into(source: FileSource) -> None:
    """Notes what a file is like now, if that is not known.

    Raises:
        FileNotFoundError: If it is not there. A link that leads nowhere is: decoding it fails.
        DatasetError: If it cannot be looked at.
    """
    try:
        source.look()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(source.path, error) from error


def unreadable(path: str, error: OSError) -> DatasetError:
    """The error for a file or folder that the operating system does not let us read."""
    return DatasetError(
        f"{path}: cannot be read ({error.strerror}). Check the folder and its permissions."
    )
