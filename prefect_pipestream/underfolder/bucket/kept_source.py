"""A content that the log of a bucket keeps: a file as some commit found or left it."""

from collections.abc import Iterable

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.file_source import new_digest, no_such_file
from prefect_pipestream.storage.store import Store, at_once
from prefect_pipestream.underfolder.bucket.entry import Ref
from prefect_pipestream.underfolder.bucket.keys import object_of


class KeptSource(FileSource):
    """A content that the log keeps. It never changes, but may be gone.

    Args:
        store: The store, below the dataset's address.
        ref: What the log says of it.
    """

    __slots__ = ("_is_there", "_key", "_store", "ref")
    is_whole = False  # no link leads into a bucket

    def __init__(self, store: Store, ref: Ref) -> None:
        self._key = object_of(ref)
        super().__init__(store.root / self._key, ref.version())
        self._store = store
        self._is_there: bool | None = None
        self.ref = ref

    def anew(self) -> "KeptSource":
        """Returns a source of the same content, which is not known to be there yet."""
        return KeptSource(self._store, self.ref)

    def is_there(self) -> bool:
        """Tells whether the content is there: once it was asked, what was told then.

        Raises:
            StoreError: If that cannot be asked.
        """
        if self._is_there is None:
            self._is_there = self._store.stat(self._key) is not None
        return self._is_there

    def size(self) -> int:
        """Returns how many bytes it has."""
        return self.ref.size

    def look(self) -> None:
        """Asks whether the content is there, if that is not known.

        Raises:
            FileNotFoundError: If it is not.
            StoreError: If that cannot be asked.
        """
        if not self.is_there():
            raise no_such_file(self.path)

    def mark(self) -> str | None:
        """The mark of the content; None where it is gone.

        Raises:
            StoreError: If that cannot be asked.
        """
        return self.ref.version().mark if self.is_there() else None

    def read(self) -> bytes:
        """Reads the content, and remembers its version.

        Raises:
            FileNotFoundError: If it is gone.
            DecodeError: If it does not fit into memory, or is another one than it is to be.
            StoreError: If it cannot be read.
        """
        data = self.content()
        self.version = self.ref.version(is_read=True)
        return data

    def content(self) -> bytes:
        """Returns the content, of which nothing is remembered.

        Raises:
            FileNotFoundError, DecodeError, StoreError: As for `read`.
        """
        try:
            data = self._store.read(self._key).data
        except MemoryError as error:
            raise DecodeError(f"{self.path}: does not fit into memory.") from error
        if new_digest(data).hexdigest() != self.ref.digest:
            raise DecodeError(
                f"{self.path}: this is not what was kept there: somebody wrote over it. Restore "
                "the object."
            )
        return data

    def is_current(self) -> bool:
        """Tells whether the content is there."""
        return self.is_there()

    def is_changed(self) -> bool:
        """Tells whether the content is gone."""
        return not self.is_there()


def look_at_all(sources: Iterable[KeptSource]) -> None:
    """Asks for many contents at once, each of which then knows whether it is there.

    Raises:
        StoreError: If one cannot be asked for.
    """
    same: dict[str, list[KeptSource]] = {}
    for source in sources:
        same.setdefault(source.path, []).append(source)
    found = at_once(lambda some: some[0].is_there(), same.values())
    for some, is_there in zip(same.values(), found, strict=True):
        for source in some:
            source._is_there = is_there
