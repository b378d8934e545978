"""A content of a bucket that is kept under a key of its own, and never changed."""

import re
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Predicate
from pydantic import ConfigDict, Field

from prefect_pipestream.storage.untrusted import is_name
from prefect_pipestream.storage.version import Version

_OF_OTHERS = re.compile(r"/before(-\d+)?\.")  # what others had put there is kept by that name


def _is_object(key: str) -> bool:
    return key.startswith("objects/") and all(map(is_name, key.split("/")))


@dataclass(frozen=True, slots=True)
class Ref:
    """A content that is kept, and never changed, below ``.pipestream``.

    Attributes:
        object: Its key, from ``objects/`` on.
        size: Bytes.
        digest: BLAKE2b (16 bytes) of it, as hex.
        etag: What the store calls it: there, and many stores call a copy the same; of a file that
            was there before the log changed it, what it was called in its place.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    object: Annotated[str, Predicate(_is_object)]
    size: Annotated[int, Field(strict=True, ge=0)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    etag: str

    def version(self, *, is_read: bool = False) -> Version:
        """The version of a file with this content.

        What others had put there has the version again that it had then, so that who saw it then
        takes it for seen where an undo put it back.

        Args:
            is_read: Whether the content was read or written, and not only heard of.
        """
        name = self.etag if _OF_OTHERS.search(self.object) else self.digest
        return version_by(name, self.size, bytes.fromhex(self.digest) if is_read else None)


def version_by(name: str, size: int, digest: bytes | None = None) -> Version:
    """The version of a file whose content is known by a name: a digest, or a store's etag.

    Its time is a number made of that, long ago: stores have no times by which contents are told.
    """
    return Version.of_part(name.encode())._replace(size=size, digest=digest)
