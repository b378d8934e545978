"""Contents that are probably read next, fetched while others are worked on."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from prefect_pipestream.storage.store import Content, in_background

MOST = 160
"""How many contents are fetched ahead, at most."""
_LARGEST = 1 << 24  # bytes: larger files are read when they are asked for


class ReadingAhead:
    """Contents by key, each of which is given out once. Safe in threads.

    Args:
        read: Reads one; None where it is not there.
    """

    def __init__(self, read: Callable[[str], Content | None]) -> None:
        self._read = read
        self._fetched: OrderedDict[str, Future[Content | None]] = OrderedDict()
        self._guard = threading.Lock()

    def expect(self, keys: Iterable[tuple[str, int]]) -> None:
        """Begins to fetch contents, in the order in which they will be read.

        Args:
            keys: Their keys and sizes.
        """
        with self._guard:
            for key, size in keys:
                if len(self._fetched) >= MOST:
                    self._fetched.popitem(last=False)  # it was not read after all
                if key not in self._fetched and size <= _LARGEST:
                    self._fetched[key] = in_background(self._read, key)

    def get(self, key: str) -> Content | None:
        """The content of an object: what was fetched, else as it is now; None for none.

        Raises:
            StoreError: If it cannot be read.
        """
        with self._guard:
            fetched = self._fetched.pop(key, None)
        return self._read(key) if fetched is None else fetched.result()
