"""The contents that the log of a bucket names are looked for, and those that nothing needs."""

import re
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from prefect_pipestream.storage.file_source import new_digest
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.store import Stat, at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Ref
from prefect_pipestream.underfolder.bucket.keys import object_of, view_of
from prefect_pipestream.underfolder.bucket.ledgers import entries_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.mending import mending, to_do
from prefect_pipestream.underfolder.bucket.pruning import needed_contents
from prefect_pipestream.underfolder.bucket.sending import LEFT_AFTER_S
from prefect_pipestream.underfolder.checks.check import relative
from prefect_pipestream.underfolder.checks.problems import Problem
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER, index_in, is_shared
from prefect_pipestream.underfolder.ledger.run import Run, runs_of

_OBJECTS = f"{PRIVATE_FOLDER}/objects"
_SENT = re.compile(rf"{re.escape(_OBJECTS)}/([0-9a-f]{{16}})-[0-9A-Za-z]+/.+")
_LOT = 1000


class _Hashes:
    """Many keys of objects, held in eight bytes each."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._all = array("Q")
        self._sorted: npt.NDArray[np.uint64] | None = None
        self.add(keys)

    def add(self, keys: Iterable[str]) -> None:
        self._all.extend(_hash(key) for key in keys)
        self._sorted = None

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those that are not among them."""
        if self._sorted is None:
            self._sorted = np.sort(np.array(self._all, np.uint64))
        if not len(self._sorted):
            return list(keys)
        given = np.array([_hash(key) for key in keys], np.uint64)
        at = np.minimum(np.searchsorted(self._sorted, given), len(self._sorted) - 1)
        return [keys[one] for one in np.flatnonzero(self._sorted[at] != given).tolist()]


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(errors="replace"), digest_size=8).digest())


def check_contents(dataset: Bucket, fix: bool) -> Iterator[Problem]:
    """Finds contents that the log needs and are not there, and those that nothing needs."""
    log = dataset.log
    there = _Hashes()
    sent: list[Stat] = []
    before = _now(log, fix) - LEFT_AFTER_S
    known = _Hashes(object_of(ref) for ref in log.state.refs.values() if ref is not None)
    runs = runs_of(log.ledgers())
    for _, entry in entries_of(runs):
        known.add(map(object_of, entry.refs))
    for some in lots(log.store.objects_in(_OBJECTS), _LOT):
        there.add(f"{stat.size}:{stat.key}" for stat in some)
        unknown = set(known.missing([stat.key for stat in some if _is_left(stat, before)]))
        sent += [stat for stat in some if stat.key in unknown]
    yield from _check_needed(dataset, there, runs, fix)
    if sent:
        yield from _check_left(log, sent, fix)


def _now(log: BucketLog, fix: bool) -> float:
    """The time; by the clock of the store, where something is to be removed by it."""
    if not fix:
        return time.time()
    with mending(log), log.store.trying(PRIVATE_FOLDER) as key:
        log.store.put(key, b"")
        probe = log.store.stat(key)
    return 0.0 if probe is None else min(probe.at, time.time())


def _is_left(stat: Stat, before: float) -> bool:
    """Whether an object is old enough, and is in the folder of a commit."""
    match = _SENT.fullmatch(stat.key)
    return match is not None and stat.at < before and int(match[1], 16) / 1e9 < before


def _check_needed(
    dataset: Bucket, there: _Hashes, runs: Iterable[Run], fix: bool
) -> Iterator[Problem]:
    """Finds contents that files have by the log, or the undo of a run needs, and that are gone."""
    log = dataset.log
    current = [(name, ref) for name, ref in log.state.refs.items() if ref is not None]
    restored: set[Ref] = set()
    for some in lots(current, _LOT):
        lost = set(_lost(log, there, [ref for _, ref in some]))
        for name, ref in some:
            if ref in lost:
                problem = _lost_of(dataset, name, ref, fix)
                restored.update([ref] if problem.mended else [])
                yield problem
    for run in runs:
        if run.is_undone() or run.is_pruned():
            continue
        lost = set[Ref]()
        for _, entry in entries_of([run]):
            lost.update(_lost(log, there, list(entry.before.values())))
        lost -= restored
        if lost:
            first = min(object_of(ref) for ref in lost)
            yield Problem(
                "lost-content",
                first,
                None,
                f"Run {run.key!r} cannot be undone: {len(lost)} contents that its undo needs are "
                "gone, or are not what they were.",
                False,
                "Restore the objects, if somebody has them.",
            )


def _lost(log: BucketLog, there: _Hashes, refs: Sequence[Ref]) -> list[Ref]:
    """The contents that were not listed, and are not there."""
    by_key = {f"{ref.size}:{object_of(ref)}": ref for ref in refs}
    suspects = [by_key[key] for key in there.missing(list(by_key))]
    found = zip(suspects, at_once(log.store.stat, map(object_of, suspects)), strict=True)
    return [ref for ref, stat in found if stat is None or stat.size != ref.size]


def _lost_of(dataset: Bucket, name: str, ref: Ref, fix: bool) -> Problem:
    """A content that a file has by the log, and that is gone: mostly the file still has it."""
    store, key = dataset.log.store, object_of(ref)
    mended, remedy = False, "Restore the object, or undo the run that wrote it."
    try:
        data = store.read(view_of(name)).data
    except FileNotFoundError:
        data = b""
    if len(data) == ref.size and new_digest(data).hexdigest() == ref.digest:
        remedy = to_do("restores it from the file")
        if fix:
            with mending(dataset.log):
                store.put(key, data)
            mended, remedy = True, "Restored from the file."
    message = f"{relative(name)} has this content by the log, and it is gone, or of another size."
    idx = None if is_shared(name) else index_in(name)
    return Problem("lost-content", key, idx, message, mended, remedy)


def _check_left(log: BucketLog, sent: Sequence[Stat], fix: bool) -> Iterator[Problem]:
    """Finds contents that nothing needs, and removes them."""
    keys = {stat.key for stat in sent} - needed_contents(log)
    named: set[str] = set()
    for entry in log.all_entries() if keys else ():
        named.update(keys.intersection(map(object_of, entry.refs)))
    by_commit: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_commit.setdefault(key.rpartition("/")[0], []).append(key)
    for folder, own in by_commit.items():
        if fix:
            with mending(log):
                at_once(log.store.delete, own)
        message = (
            f"{len(own)} contents are left that nothing needs: their runs were pruned."
            if named.issuperset(own)
            else f"A writer that died sent {len(own)} contents for a commit that it did not make."
        )
        remedy = "Removed." if fix else to_do("removes them")
        yield Problem("dead-staging", folder, None, message, fix, remedy)
