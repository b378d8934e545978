"""The index of a data folder, kept right without scanning the folder on each access."""

import os
import threading
import time

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.clock import is_racy
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.journal import Journal
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import Kind
from prefect_pipestream.underfolder.format.origin import unreadable

_CHECK_AFTER_S = 2.0
_CHECK_SHARE = 50
_TRIES = 20  # commits may end just after their folder was looked at


class WatchedIndex:
    """The index of a data folder, and as of when it is right.

    The folder's modification time tells whether names came or went. What this package's own
    commits did, in any process, is in the journal; after anything else the folder is scanned.
    """

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.data
        # Only to be read, and so also where a link is on the way.
        self._journal = Journal(os.path.join(layout.private, "journal"))
        self._log = os.path.join(layout.private, "log")
        self._guard = threading.RLock()
        self._index: UnderfolderIndex | None = None
        self._mtime: int | None = None  # of the folder, as of which the index is right
        self._scanned_at = self._scan_took = 0.0
        self.warned_of: set[str] = set()  # strays

    def as_read(self) -> UnderfolderIndex:
        """The index as it was read last."""
        return self._index or self.current()

    def current(self) -> UnderfolderIndex:
        """The index as of now. Costs one `stat`, unless others than us changed the folder.

        Raises:
            DatasetError: If the folder cannot be read.
        """
        with self._guard:
            mtime = self._folder_mtime()
            # A file that others added while one of our commits was being applied shares its
            # modification time, so that only another scan can find it: one in every while.
            due = max(_CHECK_AFTER_S, _CHECK_SHARE * self._scan_took)
            is_due = time.monotonic() >= self._scanned_at + due
            if self._index is None or not self._is_right_as_of(mtime) or is_due:
                return self.scan()
            return self._index

    def known(self) -> UnderfolderIndex:
        """Like `current`, for who asks again and again: it scans only if others changed the folder.

        Not every while; nor while a commit is applied, whose names come by the journal right after
        it and are seen by who asks then.

        Raises:
            DatasetError: If the folder cannot be read.
        """
        with self._guard:
            for _ in range(_TRIES):
                if self._is_right_as_of(self._folder_mtime()) and self._index is not None:
                    return self._index
                if self._index is None or self._mtime is None:
                    break
                if self._is_committing():
                    return self._index
            return self.scan()

    @DatasetError.explaining_questions()
    def _is_committing(self) -> bool:
        return bool(names_in(self._log))

    def _folder_mtime(self) -> int:
        try:
            return os.stat(self._folder).st_mtime_ns
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def _is_right_as_of(self, mtime: int) -> bool:
        if self._index is None or self._mtime is None:
            return False
        if mtime != self._mtime:
            self._mtime = self._journal.fold_into(self._index, self._mtime)
        return mtime == self._mtime

    def journaled_kinds(self) -> set[Kind]:
        """The kinds of the names that the journal says were added lately."""
        return self._journal.kinds()

    def scan(self) -> UnderfolderIndex:
        """Scans the folder, whether or not it seems to have changed.

        Raises:
            DatasetError: If the folder cannot be read.
        """
        with self._guard:
            began = time.monotonic()
            own_mtime = self._journal.skip_to_end()
            mtime = self._folder_mtime()
            try:
                self._index = UnderfolderIndex.scan(self._folder, self.warned_of)
            except OSError as error:
                raise unreadable(self._folder, error) from error
            self._scanned_at = time.monotonic()
            self._scan_took = self._scanned_at - began
            # Changed within the clock's tick, it may be changed again under the same time; the
            # time that a commit gave it is nobody else's.
            self._mtime = None if is_racy(mtime) and mtime != own_mtime else mtime
            return self._index
