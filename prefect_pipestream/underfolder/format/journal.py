"""Which names came and went with each commit, so that nobody has to scan the folder again.

A line of ``.pipestream/journal`` is one commit: the modification time of the data folder before
and after it, and the names that it added and removed. An index that is right as of the first time
is right as of the second once the line is applied. The file is a short cut, not a record: where a
line is missing or torn, readers scan the folder.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.untrusted import open_regular, write_anew
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.names import Kind, check_index, parse_item_name

# A link could lead out of the dataset, and a pipe keep us waiting.
_OURS = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MOST_BYTES = 1 << 26
_ROTATE_AT = 1 << 20  # bytes
_TAIL = 64  # bytes, in which the last line's times stand
_LAST_TIME = re.compile(rb",(\d+)\]\n$")


class NameChange(NamedTuple):
    """The names of one sample that a commit added and removed."""

    idx: int
    added: Sequence[str]
    removed: Sequence[str]


class Journal:
    """The journal of one dataset, read from where this reader stopped."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0

    def skip_to_end(self) -> int | None:
        """Takes what is written by now as known.

        Returns:
            The folder's modification time after the last commit; None where there is none.
        """
        try:
            with open_regular(self._path) as file:
                status = os.fstat(file.fileno())
                file.seek(max(0, status.st_size - _TAIL))
                tail = file.read(_TAIL)
        except (OSError, ValueError):  # mostly it is not there
            self._offset = self._inode = 0
            return None
        self._offset = status.st_size - len(tail) + tail.rfind(b"\n") + 1
        self._inode = status.st_ino
        match = _LAST_TIME.search(tail)
        return int(match[1]) if match else None

    def fold_into(self, index: UnderfolderIndex, mtime_ns: int) -> int | None:
        """Applies the new lines to `index`, which is right as of the folder's `mtime_ns`.

        Returns:
            The folder's modification time as of which `index` is right now; None where the
            lines do not lead on from `mtime_ns`, or are no lines of this journal.
        """
        try:
            return self._fold_into(index, mtime_ns)
        except (ValueError, TypeError, AttributeError, RecursionError, DatasetError):
            return None

    def _fold_into(self, index: UnderfolderIndex, mtime_ns: int) -> int | None:
        lines = self._new_lines()
        if lines is None:
            return None
        known = [n for n, (_, _, after) in enumerate(lines) if after == mtime_ns]
        for changes, before, after in lines[known[-1] + 1 if known else 0 :]:
            if before != mtime_ns:
                return None
            for idx, added, removed in changes:
                index.update(check_index(idx), added=added, removed=removed)
            mtime_ns = after
        return mtime_ns

    def _new_lines(self) -> list[tuple[list[NameChange], int, int]] | None:
        try:
            with open_regular(self._path) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode:
                    if self._inode:
                        return None
                    self._inode = status.st_ino
                file.seek(self._offset)
                text = file.read(max(0, min(status.st_size - self._offset, _MOST_BYTES)))
        except (OSError, ValueError):
            return None
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            return None  # torn by a killed writer and then continued: scan instead

    def kinds(self) -> set[Kind]:
        """The kinds of all names that the file says were added; none if it cannot be read."""
        try:
            lines = Journal(self._path)._new_lines() or []
            names = {name for changes, _, _ in lines for _, added, _ in changes for name in added}
            parsed = map(parse_item_name, names)
            return {found[1] for found in parsed if found is not None}
        except (ValueError, TypeError, AttributeError, RecursionError):
            return set()

    def append(self, before: int, after: int, changes: Sequence[NameChange], staged: str) -> None:
        """Adds the line of a commit; the caller holds the commit lock.

        A journal that has grown long is begun anew, with a file that is made in `staged`.
        """
        line = json.dumps([changes, before, after], separators=(",", ":")).encode() + b"\n"
        handle = os.open(self._path, os.O_RDWR | os.O_APPEND | _OURS, 0o666)
        try:
            status = os.fstat(handle)
            if _is_ours_alone(status) and status.st_size < _ROTATE_AT:
                if status.st_size and os.pread(handle, 1, status.st_size - 1) != b"\n":
                    line = b"\n" + line  # ends what a killed writer left; readers will scan
                os.write(handle, line)
                return
        finally:
            os.close(handle)
        write_anew(self._path, line, staged)


def _is_ours_alone(status: os.stat_result) -> bool:
    """Whether what is written into a file changes nothing but this dataset.

    Of a copy of hard links, it is the journal of the original, too; a stranger's dataset may have
    a link to any file, or a device.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
