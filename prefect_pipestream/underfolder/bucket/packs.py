"""Entries of a bucket's log, many in one object, so that a long log is read in few requests.

A pack holds what is in the log anyway, and is made by whoever creates its last entry. Where one is
missing or damaged, the entries are read one by one.
"""

import gzip
import logging
import zlib
from collections.abc import Iterator
from io import BytesIO

from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.store import Stat, Store, StoreError, at_once
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.bucket.keys import PACKS, entry_key, pack_key

_log = logging.getLogger(__name__)

LENGTH = 100
"""How many entries a pack has."""
_MOST_BYTES = 1 << 28  # of its content: what is larger comes from somebody else
_AT_ONCE = 4

Packed = list[tuple[Entry, bytes]]
"""Entries, each with its content."""


def make_pack(store: Store, number: int) -> None:
    """Packs the entries up to one, the number of which is a multiple of `LENGTH`.

    A log can do without: what goes wrong is told to the log of this process.
    """
    try:
        contents = [store.read(entry_key(n)).data for n in range(number - LENGTH + 1, number + 1)]
        store.put(pack_key(number), gzip.compress(b"\n".join(contents), 6, mtime=0))
    except (StoreError, FileNotFoundError) as error:
        _log.info("%s: entries up to %d are not packed: %s", store.root, number, error)


def packed_entries(store: Store) -> Iterator[Packed]:
    """The packs from the first one on, as long as there is one after the other.

    Raises:
        StoreError: If they cannot be read.
    """
    number = 0
    for some in lots(store.objects_in(PACKS), _AT_ONCE):
        for stat, entries in zip(some, at_once(lambda one: _read(store, one), some), strict=True):
            number += LENGTH
            if stat.key != pack_key(number) or entries is None:
                return
            yield entries


def _read(store: Store, stat: Stat) -> Packed | None:
    """What is in a pack; None where it is not of the log that is there, or damaged."""
    try:
        content = gzip.GzipFile(fileobj=BytesIO(store.read(stat.key).data)).read(_MOST_BYTES + 1)
        lines = content.split(b"\n") if len(content) <= _MOST_BYTES else []
        if len(lines) != LENGTH:
            return None
        last = entry_key(int(stat.name.removesuffix(".gz")))
        if store.read(last).data != lines[-1]:
            return None
        return [(Entry.from_bytes(line), line) for line in lines]
    except (FileNotFoundError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, StoreError):
            raise
        _log.info("%s: the pack %s cannot be read: %s", store.root, stat.key, error)
        return None
