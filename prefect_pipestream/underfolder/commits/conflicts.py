"""Conflicts: whether somebody else changed what a sample was made from, or is to replace."""

import time
from collections.abc import Container, Iterable

from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.clock import tick_ns
from prefect_pipestream.storage.version import mark_at
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import StagedSample
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import is_shared, key_of
from prefect_pipestream.underfolder.format.origin import SampleOrigin

_LONGEST_WAIT_NS = 3_000_000_000


def wait_out_the_tick(samples: Iterable[StagedSample]) -> None:
    """Lets the clock's tick pass in which a source was changed just before it was read.

    After it, size and time tell whether the file was changed again.
    """
    now = time.time_ns()
    left = max(
        (
            source.version.mtime_ns + tick_ns(source.version.mtime_ns) - now
            for staged in samples
            if staged.origin is not None
            for source in staged.origin.sources.values()
            if source.version is not None
        ),
        default=0,
    )
    if 0 < left < _LONGEST_WAIT_NS:  # a time in the future is no fresh change
        time.sleep(left / 1e9)


def is_another_now(staged: StagedSample, dataset: Underfolder) -> bool:
    """Whether the sample at the target has not the version that its writer said it has."""
    wanted, target = staged.if_version, staged.target
    return wanted is not None and dataset.versions([target])[target] != wanted


def is_stale(staged: StagedSample, layout: Layout, leaving: Container[str] = ()) -> bool:
    """Whether a file that the sample was made from, or replaces, is another one now.

    The source may be another dataset: then a sample is not to mix old items with new ones.

    Args:
        staged: The sample.
        layout: The dataset that is written.
        leaving: The names of files that the commit moves elsewhere.
    """
    if staged.is_move and _is_moved_wrongly(staged, leaving):
        return True
    if any(source.is_changed() for source in staged.beside):
        return True
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
    replaced: set[str | None] = set()
    if in_place and staged.is_removal:
        replaced = {key_of(name) for name in origin.sources if not is_shared(name)}
    elif in_place:
        replaced = staged.replaced_keys
    if in_place and staged.changes_files and _is_another(origin, replaced):
        return True
    for name, source in origin.sources.items():
        key = None if is_shared(name) else key_of(name)
        if key in replaced and source.is_newer:
            return True  # somebody replaced it since the sample was taken, whatever was read later
        if (source.digest is not None or key in replaced) and source.is_changed():
            return True
        replaced -= {key}
    # What is left of the keys had no file when the sample was read: nor may it have now.
    return any(is_there(layout.final(file.name)) for file in staged.files if file.key in replaced)


def _is_moved_wrongly(staged: StagedSample, leaving: Container[str]) -> bool:
    """Whether not all files of a sample would be moved, or onto files that stay."""
    names = {kind.name_of(staged.record.idx) for kind in staged.left_behind}
    there = (kind.name_of(staged.target) for kind in staged.there)
    return names != set(staged.removes) or any(name not in leaving for name in there)


def _is_another(origin: SampleOrigin, replaced: Container[str | None]) -> bool:
    """Whether the sample was removed, or another moved to its index, and nothing else tells.

    That is so where all files that it had are other ones now. Only asked where what is written was
    made from none of them, nor replaces one.
    """
    own = {name: source for name, source in origin.sources.items() if not is_shared(name)}
    if any(one.digest is not None or key_of(name) in replaced for name, one in own.items()):
        return False
    # Of a link that led nowhere there is no version: whether it is another one is not known.
    return bool(own) and not any(one.version is None or one.is_current() for one in own.values())


def _has_others(staged: StagedSample, known: Container[str]) -> bool:
    """Whether a file would be replaced or superseded that nobody knew of, whatever its format."""
    return any(name not in known for name in staged.superseded)
