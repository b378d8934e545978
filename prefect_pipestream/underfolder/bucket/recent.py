"""The entries of logs that this process has read last, for the parts that read them after it.

A part of a dataset goes with each task, and knows the log as it was when the task was made: by the
time that it runs, many entries came, the same ones as for the tasks beside it.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

from prefect_pipestream.storage.address import Address
from prefect_pipestream.underfolder.bucket.entry import Entry

_MOST_BYTES = 16 << 20


class Read(NamedTuple):
    """An entry, as it was read, or made, and as it is kept."""

    entry: Entry
    content: bytes


class RecentEntries:
    """Entries by what is before them: what comes after one of a log never changes."""

    def __init__(self) -> None:
        self._bytes = 0
        self._found: OrderedDict[tuple[Address, bytes], Read] = OrderedDict()
        self._guard = threading.Lock()

    def after(self, root: Address, digest: bytes) -> Read | None:
        """The entry behind another one, where it is known.

        Args:
            root: The dataset's address.
            digest: The digest of the other entry, which has an id of its own.
        """
        with self._guard:
            return self._found.get((root, digest))

    def add(self, root: Address, digest: bytes, read: Read) -> None:
        """Notes an entry behind another one; the ones that were noted first make room."""
        with self._guard:
            if (root, digest) in self._found:
                return
            self._found[root, digest] = read
            self._bytes += len(read.content)
            while self._bytes > _MOST_BYTES:
                self._bytes -= len(self._found.popitem(last=False)[1].content)


RECENT = RecentEntries()
"""Those of this process."""
