"""Versions of files: what tells one content of a file from another."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prefect_pipestream.storage.asking import status_of, status_through_links
from prefect_pipestream.storage.clock import tick_ns


class Version(NamedTuple):
    """What is known of a file's content at one time.

    Equal size and time: one content, unless it was changed within a clock's tick. Different: it
    may be one content still, as of a copy; digests tell. Who compares:

    - `FileSource.is_changed`, for a commit: whether another writer changed what it was made from.
    - `mark`, for an undo: whether a file is still as a commit left it.
    - `signature_of`, for a run of what changed: whether a sample is as a transform last saw it.
    - `version_of`, for who shows samples and writes them: whether anything of one changed.

    Attributes:
        size: Bytes.
        mtime_ns: When it was changed last, in nanoseconds since the epoch.
        inode: The file's number; 0: not known, as of a file that may have been copied elsewhere.
        digest: BLAKE2b (16 bytes) of the content, where it was read or written; None: not known.
        read_at_ns: `time.time_ns()` just before it was looked at, or after it was written. Within
            a clock's tick of `mtime_ns` it may have been changed again under the same time.
    """

    size: int
    mtime_ns: int
    inode: int = 0
    digest: bytes | None = None
    read_at_ns: int = 0

    @classmethod
    def of(
        cls, status: os.stat_result, digest: bytes | None = None, read_at_ns: int = 0
    ) -> "Version":
        """The version that a file has by its `stat` result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest, read_at_ns)

    @classmethod
    def of_part(cls, content: bytes) -> "Version":
        """The version of a part of a file, such as one entry of many, by what it says alone.

        Its time is a number made of the content, long ago: other entries may come and go.
        """
        number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 5
        return cls(len(content), number)

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file system does not tell this version and a file of now apart."""
        return (
            self.size == status.st_size
            and self.mtime_ns == status.st_mtime_ns
            and self.inode in (0, status.st_ino)
        )

    def may_be(self, other: "Version") -> bool:
        """Whether nothing says that this version and a later one differ: digests, if known."""
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return self[:3] == other[:3]

    @property
    def is_beyond_tick(self) -> bool:
        """Whether a change of the file since it was read must have changed its size or time."""
        return self.digest is None or self.read_at_ns - self.mtime_ns > tick_ns(self.mtime_ns)

    @property
    def mark(self) -> str:
        """A short name for size and time, by which a ledger knows a later change of the file.

        It leaves out the inode, so that it survives a copy that keeps times.
        """
        text = f"{self.size}:{self.mtime_ns}".encode()
        return hashlib.blake2b(text, digest_size=6).hexdigest()


def mark_at(path: str) -> str | None:
    """The mark of the file at `path`, links followed; None where there is none.

    A broken link has a mark of its own.

    Raises:
        OSError: If that could not be asked.
    """
    found = status_through_links(path) or status_of(path)
    return None if found is None else Version.of(found).mark


def signature_of(files: Iterable[tuple[str, Version]]) -> str:
    """A short name for the versions of all files of a sample: of their names, sizes and times."""
    text = "\n".join(sorted(f"{name}:{file.size}:{file.mtime_ns}" for name, file in files))
    return _short(text, 8)


ABSENT = "absent"
"""The version of a sample that has no files of its own."""


def version_of(files: Mapping[str, Version | None]) -> str:
    """One value for the versions of all files of a sample: another one if one of them is another.

    A file is the same as long as it has its number, size and time: by these a commit tells it, too.
    Unlike a signature it is of this one folder, and no copy has the same.

    Args:
        files: By name, a shared one's with a leading slash; None for a link that leads nowhere.
    """
    text = "\n".join(f"{name}:{file and file[:3]}" for name, file in sorted(files.items()))
    return _short(text, 12)


def _short(text: str, size: int) -> str:
    # Names on disk may be any bytes.
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=size).hexdigest()
