"""Private documents of a dataset, in a folder or in a bucket: each whole, or not there.

They are below ``.pipestream/``, and named by the parts of their path from there. In a folder they
are files, as `Layout` has them. In a bucket they are objects; one that several people change at a
time is a folder of numbered ones there, the last of which counts, as no object is replaced only if
it is still the same.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.asking import is_folder, names_in, status_of
from prefect_pipestream.storage.lock import exclusive
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.store import ObjectExistsError, Store, at_once, open_store
from prefect_pipestream.storage.untrusted import (
    MOST_BYTES,
    MOST_JSON,
    is_name,
    read_regular,
    write_anew,
)
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER

Change = Callable[[bytes | None], bytes]
"""Makes the new content of a document, given what it has; None: it is not there."""

_NUMBERED = re.compile(r"0\d{11}\.json")


class Documents(ABC):
    """The private documents of one dataset.

    Args:
        root: The dataset's root, or its address.

    Attributes:
        root: The same.
        has_locks: Whether somebody can be `alone` with a document.
    """

    has_locks: bool

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def is_dataset(self) -> bool:
        """Whether the dataset is there."""

    @abstractmethod
    def at(self, *parts: str) -> str:
        """Where a document is: a path, or an address.

        Raises:
            DatasetError: If a part is no name, or a link is on the way.
        """

    @abstractmethod
    def is_there(self, *parts: str) -> bool:
        """Whether there is such a document."""

    @abstractmethod
    def mark(self, *parts: str) -> object:
        """What is another one when a document was written anew; None where there is none."""

    @abstractmethod
    def read(self, *parts: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of a document; None where there is none.

        Args:
            *parts: The document.
            most: How many bytes it may have.

        Raises:
            ValueError: If it is too large, or no file.
            OSError, StoreError: If it cannot be read.
        """

    def read_json(self, *parts: str) -> dict[str, Any]:
        """The mapping in a document; an empty one where there is none, or it holds another thing.

        Raises:
            OSError, StoreError: If it cannot be read.
        """
        try:
            found = json.loads(self.read(*parts, most=MOST_JSON) or b"null")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @abstractmethod
    def write(self, content: bytes, *parts: str) -> None:
        """Writes a document, in place of what is there.

        Raises:
            OSError, StoreError: If it cannot be written.
        """

    @abstractmethod
    def names_in(self, *parts: str) -> list[str]:
        """The names of all that is directly in a folder of documents."""

    @abstractmethod
    def times_in(self, *parts: str) -> dict[str, float]:
        """When each document in a folder was written, by its name: seconds since the epoch."""

    @abstractmethod
    def remove(self, *parts: str) -> None:
        """Removes a document, if it is there."""

    # -- documents that several people change ----------------------------------------------

    @abstractmethod
    def alone(self, *parts: str) -> AbstractContextManager[None]:
        """Keeps others from changing a document, where there are locks.

        Raises:
            FileNotFoundError: If its folder is not there.
        """

    @abstractmethod
    def last(self, *parts: str) -> bytes | None:
        """The content of a document that is changed by `change`; see `read`."""

    @abstractmethod
    def change(self, change: Change, *parts: str) -> None:
        """Changes a document, whatever others do to it at the same time. One is `alone` with it.

        Args:
            change: Makes the new content; it is asked anew where somebody else was faster.
            *parts: The document.

        Raises:
            DatasetError: If it cannot be read.
            OSError, StoreError: If it cannot be written.
        """

    def _read_to_change(self, *parts: str) -> bytes | None:
        try:
            return self.read(*parts)
        except ValueError as error:
            raise DatasetError(
                f"{self.at(*parts)}: cannot be read ({error}). Remove it, and repeat what was "
                "asked for."
            ) from error


class FolderDocuments(Documents):
    """The private documents of a dataset in a folder.

    Args:
        layout: The dataset's paths.
    """

    has_locks = True

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.root)
        self._layout = layout

    def is_dataset(self) -> bool:
        """Whether the dataset is there."""
        return is_folder(self.root)

    def at(self, *parts: str) -> str:
        """The path of a document."""
        return self._layout.at(*parts)

    def is_there(self, *parts: str) -> bool:
        """Whether there is such a document."""
        return status_of(self.at(*parts)) is not None

    def mark(self, *parts: str) -> object:
        """What is another one when a document was written anew; None where there is none."""
        found = status_of(self.at(*parts))
        return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)

    def read(self, *parts: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of a document; None where there is none."""
        try:
            return read_regular(self.at(*parts), most)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, content: bytes, *parts: str) -> None:
        """Writes a document, in place of what is there."""
        staged = self._layout.staged
        os.makedirs(staged, exist_ok=True)
        if len(parts) == 2:  # the folder of a whole, as of a review, is its maker's
            os.makedirs(self.at(parts[0]), exist_ok=True)
        write_anew(self.at(*parts), content, staged)

    def names_in(self, *parts: str) -> list[str]:
        """The names of all that is directly in a folder of documents."""
        return names_in(self.at(*parts))

    def times_in(self, *parts: str) -> dict[str, float]:
        """When each document in a folder was written, by its name."""
        folder = self.at(*parts)
        found = {name: status_of(f"{folder}/{name}") for name in names_in(folder)}
        return {name: status.st_mtime for name, status in found.items() if status is not None}

    def remove(self, *parts: str) -> None:
        """Removes a document, or a link in its place, if it is there."""
        *folder, name = parts
        remove(f"{self.at(*folder)}/{name}")

    def alone(self, *parts: str) -> AbstractContextManager[None]:
        """Holds a lock beside a document, of the same name."""
        *folder, name = parts
        return exclusive(self.at(*folder, name.removesuffix(".json") + ".lock"))

    def last(self, *parts: str) -> bytes | None:
        """The content of a document."""
        return self.read(*parts)

    def change(self, change: Change, *parts: str) -> None:
        """Changes a document, with which one is alone."""
        self.write(change(self._read_to_change(*parts)), *parts)


class BucketDocuments(Documents):
    """The private documents of a dataset in a bucket.

    Args:
        root: The dataset's address.
    """

    has_locks = False

    def __init__(self, root: Address) -> None:
        super().__init__(str(root))
        self._store: Store = open_store(root)

    def is_dataset(self) -> bool:
        """Whether anything is at the dataset's address."""
        return next(self._store.objects_in(""), None) is not None

    def at(self, *parts: str) -> str:
        """The address of a document."""
        return str(self._store.root / self._key(parts))

    def _key(self, parts: tuple[str, ...]) -> str:
        for part in parts:
            if not is_name(part):
                raise DatasetError(f"{self.root}: {part!r} is not the name of a file.")
        return "/".join((PRIVATE_FOLDER, *parts))

    def is_there(self, *parts: str) -> bool:
        """Whether there is such a document."""
        return self._store.stat(self._key(parts)) is not None

    def mark(self, *parts: str) -> object:
        """What is another one when a document was written anew; None where there is none."""
        found = self._store.stat(self._key(parts))
        return None if found is None else (found.etag, found.size)

    def read(self, *parts: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of a document; None where there is none."""
        try:
            return self._store.read(self._key(parts), most).data
        except FileNotFoundError:
            return None

    def write(self, content: bytes, *parts: str) -> None:
        """Writes a document, in place of what is there."""
        self._store.put(self._key(parts), content)

    def create(self, content: bytes, *parts: str) -> bool:
        """Writes a document where there is none; tells whether it has this content then."""
        try:
            self._store.create(self._key(parts), content)
        except ObjectExistsError:  # it may be this one, asked for twice
            return self.read(*parts) == content
        return True

    def names_in(self, *parts: str) -> list[str]:
        """The names of all that is directly in a folder of documents."""
        return self._store.names_in(self._key(parts))

    def times_in(self, *parts: str) -> dict[str, float]:
        """When each document in a folder was written, by its name."""
        return {stat.name: stat.at for stat in self._store.files_in(self._key(parts))}

    def remove(self, *parts: str) -> None:
        """Removes a document, if it is there."""
        self._store.delete(self._key(parts))

    def remove_all(self, *parts: str) -> None:
        """Removes all documents below a folder."""
        at_once(self._store.delete, [s.key for s in self._store.objects_in(self._key(parts))])

    def alone(self, *parts: str) -> AbstractContextManager[None]:
        """Keeps nobody from anything: a lock of who is killed would never be let go of."""
        return nullcontext()

    def last(self, *parts: str) -> bytes | None:
        """The content that a document has by the last of its numbered objects."""
        folder, number = self._numbered(parts)
        return self.read(*folder, _numbered(number)) if number else None

    def change(self, change: Change, *parts: str) -> None:
        """Changes a document: creates the next of its numbered objects, which one writer can."""
        before = -1
        while True:
            folder, number = self._numbered(parts)
            if number == before:
                raise DatasetError(
                    f"{self.at(*folder)}: the objects there are not numbered as they are to be. "
                    "Remove those that do not belong."
                )
            now = self._read_to_change(*folder, _numbered(number)) if number else None
            if self.create(change(now), *folder, _numbered(number + 1)):
                return
            before = number

    def _numbered(self, parts: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """The folder of a document's numbered objects, and the last number; 0 for none."""
        folder = (*parts[:-1], parts[-1].removesuffix(".json"))
        names = filter(
            _NUMBERED.fullmatch, (s.name for s in self._store.files_in(self._key(folder)))
        )
        return folder, max((int(name.removesuffix(".json")) for name in names), default=0)


def _numbered(number: int) -> str:
    return f"{number:012d}.json"


def documents_of(place: Folder | Place) -> Documents:
    """The private documents of a dataset, which may not be there yet."""
    if is_address(place):
        return BucketDocuments(Address.of(place))
    return FolderDocuments(Layout.of(place))
