"""Conflicts: whether somebody else changed what a sample was made from, or is to replace."""

import time
from collections.abc import Container, Iterable

from prefect_pipestream.errors import ItemError
from prefect_pipestream.items import FileSource, FileStamp
from prefect_pipestream.storage.asking import is_link, is_there, status_through_links
from prefect_pipestream.storage.clock import tick_ns
from prefect_pipestream.underfolder.commits.staging import StagedSample
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.ledger.records import mark_at

_LONGEST_WAIT_NS = 3_000_000_000


def wait_out_the_tick(samples: Iterable[StagedSample]) -> None:
    """Lets the clock's tick pass in which a source was changed just before it was read.

    After it, size and time tell whether the file was changed again.
    """
    now = time.time_ns()
    left = max(
        (
            source.stamp.mtime_ns + tick_ns(source.stamp.mtime_ns) - now
            for staged in samples
            if staged.origin is not None
            for source in staged.origin.sources.values()
            if source.stamp is not None
        ),
        default=0,
    )
    if 0 < left < _LONGEST_WAIT_NS:  # a time in the future is no fresh change
        time.sleep(left / 1e9)


def is_stale(staged: StagedSample, layout: Layout) -> bool:
    """Whether a file that the sample was made from, or replaces, is another one now.

    The source may be another dataset: then a sample is not to mix old items with new ones.
    """
    if staged.found is not None:
        return _has_others(staged, staged.found) or any(
            mark_at(layout.final(name)) != mark for name, mark in staged.found.items()
        )
    origin = staged.origin
    if origin is None:
        return False
    in_place = staged.is_in_place(layout)
    if in_place and _has_others(staged, origin.sources):
        return True
    replaced: set[str | None] = {file.key for file in staged.files} if in_place else set()
    for name, source in origin.sources.items():
        key = None if name[0] == "/" else key_of(name)
        if key in replaced and source.is_newer:
            return True  # somebody replaced it since the sample was taken, whatever was read later
        if (source.digest is not None or key in replaced) and _is_changed(source):
            return True
        replaced -= {key}
    # What is left of the keys had no file when the sample was read: nor may it have now.
    return any(is_there(layout.final(file.name)) for file in staged.files if file.key in replaced)


def _has_others(staged: StagedSample, known: Container[str]) -> bool:
    """Whether a file would be replaced or superseded that nobody knew of, whatever its format."""
    names = staged.names_there({file.key for file in staged.files})
    return any(name not in known for name in names)


def _is_changed(source: FileSource) -> bool:
    """Whether a file's content is not what it was: by its stamp, else by its digest."""
    found = status_through_links(source.path)
    if found is None:  # else it is a link that led nowhere when it was taken, too
        return not (source.stamp is None and is_link(source.path))
    stamp = FileStamp.of(found)
    was = source.stamp
    if stamp == was and (
        source.digest is None or source.read_at_ns - was.mtime_ns > tick_ns(was.mtime_ns)
    ):
        return False
    if source.digest is None or source.stamp is None or stamp.size != source.stamp.size:
        return True
    return digest_at(source.path) != source.digest


def digest_at(path: str) -> bytes | None:
    """The digest of a file's content; None where there is no regular file (any more).

    Raises:
        OSError: If it cannot be read: that is no change of another writer.
    """
    source = FileSource(path)
    try:
        source.read()
    except FileNotFoundError:
        return None
    except ItemError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        return None
    return source.digest
