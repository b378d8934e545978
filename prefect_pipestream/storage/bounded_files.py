"""Small files by keys, in a folder of bounded size: each may be gone at any time."""

import hashlib
import os
import stat
from contextlib import suppress

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.untrusted import inside, read_regular, write_anew

_FOLDERS = 256
_BLOCK = 4096  # bytes: what the smallest file takes on a disk


class BoundedFiles:
    """What can be made anew, kept in files that together take no more than some bytes.

    Who makes room removes the oldest files. Several processes may do so at once; a file that one
    of them removes while another makes it is not kept, and nothing else comes of it.

    Args:
        root: A folder whose content is not trusted.
        parts: The folder of the files, below it; it is made when it is needed.
        most_bytes: How much the files may take, in whole blocks of 4 KiB. A single one may take a
            256th of it.
    """

    def __init__(self, root: str, *parts: str, most_bytes: int) -> None:
        self._root = root
        self._parts = parts
        self._most = most_bytes // _FOLDERS

    def get(self, key: str) -> bytes | None:
        """The content that is kept under a key; None where there is none, or it cannot be read."""
        try:
            return read_regular(self._path(key), self._most)
        except (OSError, ValueError, DatasetError):  # mostly it is not there; no link is followed
            return None

    def put(self, key: str, content: bytes) -> None:
        """Keeps a content under a key, if there may be room for it.

        Raises:
            DatasetError: If a symbolic link is on the way.
            OSError: If it cannot be written.
        """
        if _taken(len(content)) > self._most:
            return
        path = self._path(key)
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        write_anew(path, content, folder)
        self._make_room(folder)

    def _path(self, key: str) -> str:
        name = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return inside(self._root, *self._parts, name[:2], name)

    def _make_room(self, folder: str) -> None:
        """Removes the oldest files of a folder that takes more than its share."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process makes room, too
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((status.st_mtime_ns, entry.path, _taken(status.st_size)))
        left = sum(taken for _, _, taken in found)
        for _, path, taken in sorted(found):
            if left <= self._most:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            left -= taken


def _taken(size: int) -> int:
    return max(1, -(-size // _BLOCK)) * _BLOCK
