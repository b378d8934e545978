"""Check a dataset in a bucket: decode every item, find what does not belong, mend what can be."""

import os
import re
import time
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, DatasetWriteError
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.file_source import new_digest
from prefect_pipestream.storage.store import AT_ONCE, Stat, StoreError, at_once, open_store
from prefect_pipestream.underfolder.bucket.commit import LEFT_AFTER_S, kept_aside
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import APPLIED, object_of, view_of
from prefect_pipestream.underfolder.bucket.ledgers import entries_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.checks.check import (
    Findings,
    Progress,
    decode_all,
    duplicates_in,
    gaps_in,
    part_duplicates,
    relative,
    stray,
)
from prefect_pipestream.underfolder.checks.problems import CheckReport, Problem
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import (
    DATA_FOLDER,
    PRIVATE_FOLDER,
    index_in,
    is_shared,
    parse_item_name,
)
from prefect_pipestream.underfolder.format.run_key import new_run_key
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.ledger.run import Run, runs_of

_OBJECTS = f"{PRIVATE_FOLDER}/objects"
_SENT = re.compile(rf"{re.escape(_OBJECTS)}/([0-9a-f]{{16}})-[0-9A-Za-z]+/.+")
_PROBE = re.compile(r"probe-[0-9a-f]+")
_LOT = 1000
_WAITS_S = (0.2, 0.4, 0.8, 0.0)
_CHANGED = "It was changed meanwhile: check it once more."


@DatasetError.explaining_questions()
def check_in_bucket(
    folder: Folder, fix: bool = False, on_progress: Progress | None = None
) -> CheckReport:
    """Finds what is wrong with a dataset in a bucket, down to undecodable items; see `check`.

    Args:
        folder: The dataset's address.
        fix: Whether to mend: files are put in their places that have an older content than the log
            says, or none; contents are removed that were sent for a commit that was not made, a
            day ago or earlier; lost ones are restored where the file has them; and what does not
            belong among the samples is moved to ``.pipestream/aside/<time>/``.
        on_progress: Called now and then with the number of samples checked, and of all.

    Raises:
        DatasetNotFoundError: If there is nothing at the address.
        DatasetWriteError: If the dataset is to be mended and cannot be written.
        StoreError: If the store cannot be asked.
    """
    address = Address.of(os.fspath(folder))
    log = BucketLog(open_store(address))  # what this process knows may not be so any more
    aside = _Aside(log, fix)
    problems = list(_check_log(log, aside))
    if not all(problem.mended for problem in problems):
        return CheckReport(str(address), 0, 0, {}, tuple(problems))
    dataset = Bucket(address, log=log)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stray names, which are among the problems
        index = dataset.index()
    problems += _check_applied(log, fix)
    suspects = _out_of_place(dataset)  # to be looked at once more: a writer may be at it
    problems += _check_contents(dataset, fix)
    problems += _check_probes(log, fix)
    problems += _check_names(log, aside)
    problems += _check_duplicates(dataset, aside)
    look = partial(_look_at, dataset)
    found = decode_all(index, dataset.shared_names(), look, AT_ONCE, on_progress)
    problems += _check_places(log, suspects, fix)
    indices = dataset.index().indices()
    return CheckReport(
        folder=str(address),
        samples=len(indices),
        items=found.decoded,
        unchecked=dict(found.unchecked),
        problems=(*problems, *found.problems),
        gaps=tuple(gaps_in(indices)),
    )


@contextmanager
def _mending(log: BucketLog) -> Iterator[None]:
    """Raises `DatasetWriteError` where a dataset cannot be mended."""
    try:
        yield
    except StoreError as error:
        raise DatasetWriteError(None, f"{log.root} could not be mended ({error})") from error


def _to_do(what: str) -> str:
    return f"`pipestream check --fix` {what}."


class _Aside:
    """Moves what is in the way to ``.pipestream/aside/<time>/``; nothing is lost by it.

    Args:
        log: The dataset's log.
        enabled: Whether to do so; otherwise it only says that it could.
    """

    def __init__(self, log: BucketLog, enabled: bool) -> None:
        self._log = log
        self._store = log.store
        self._enabled = enabled
        self._folder = f"{PRIVATE_FOLDER}/aside/{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        self._run_key = new_run_key("check")

    def put(self, key: str) -> tuple[bool, str]:
        """Moves an object aside.

        Returns:
            Whether that was done, and how to say so, or why it was not.
        """
        if not self._enabled:
            return False, _to_do("puts it aside")
        try:
            before = self._store.stat(key)
            target = self._copied(key)
            if before is None or target is None or self._store.stat(key) != before:
                return False, _CHANGED
            self._store.delete(key)
        except StoreError as error:
            return False, f"It cannot be put aside: {error}"
        return True, f"Put aside: {target}"

    def put_item(self, dataset: Bucket, name: str) -> tuple[bool, str]:
        """Moves the file of an item aside; one that the log has put in place, by the log."""
        was = self._log.state.refs.get(name)
        if was is None:
            return self.put(view_of(name))
        if not self._enabled:
            return False, _to_do("puts it aside")
        commit_id = new_commit_id()

        def make(state: State) -> Entry | None:
            if state.refs.get(name) != was:
                return None
            before = kept_aside(dataset, state, [name], commit_id)
            return Entry(commit_id, self._run_key, before=before) if before else None

        with _mending(self._log):
            target = self._copied(view_of(name)) or self._copied(object_of(was))
            self._store.require_create(PRIVATE_FOLDER)
            added = self._log.append(make)
            if added is None or target is None:
                return False, _CHANGED
            self._log.placing.put(added[1], added[0])
        return True, f"Put aside: {target}"

    def _copied(self, key: str) -> str | None:
        target = f"{self._folder}/{key.removeprefix(PRIVATE_FOLDER + '/')}"
        there = self._store.stat(key)
        if there is None:
            return None
        try:
            self._store.copy(key, target, there.size)
        except FileNotFoundError:
            return None
        return target


# -- the log -------------------------------------------------------------------------------


def _check_log(log: BucketLog, aside: _Aside) -> Iterator[Problem]:
    """Finds what makes the log unreadable: without it nothing is known of the rest."""
    try:
        log.refresh()
    except StoreError:
        raise
    except DatasetError:
        found = list(log.damaged())
        if not found:  # it is something else, or was restored meanwhile
            raise
        for key, message, is_entry in found:
            if is_entry:
                remedy = "Restore the object: until then nothing else of the dataset is checked."
                yield Problem("unreadable-record", key, None, message, False, remedy)
            else:
                yield Problem("not-ours", key, None, message, *aside.put(key))


def _check_applied(log: BucketLog, fix: bool) -> Iterator[Problem]:
    """Finds a note of how far all files are in place that cannot be right."""
    noted = log.placing.wrongly_applied()
    if noted is None:
        return
    message = f"It says {noted!r}, and the log has {log.state.position} entries."
    remedy = _to_do("looks at all files anew")
    if fix:
        with _mending(log):
            log.placing.apply_anew()
        remedy = "All files were looked at anew."
    yield Problem("unreadable-record", APPLIED, None, message, fix, remedy)


# -- files in their places -----------------------------------------------------------------


def _out_of_place(dataset: Bucket) -> list[str]:
    """The names of files that have not what the log gave them last, but an older content or none.

    Those are read that the store calls otherwise than what the log gave them.
    """
    refs = dict(dataset.log.state.refs)
    suspects = iter([name for name, ref in refs.items() if _may_be_older(dataset, name, ref)])
    found: list[str] = []
    while some := list(islice(suspects, _LOT)):
        are_so = at_once(dataset.log.placing.is_out_of_place, some)
        found += [name for name, is_so in zip(some, are_so, strict=True) if is_so]
    return found


def _may_be_older(dataset: Bucket, name: str, ref: Ref | None) -> bool:
    there = dataset.listed(name)
    if there is None or ref is None:
        return (there is None) != (ref is None)
    return (there.etag, there.size) != (ref.etag, ref.size)


def _check_places(log: BucketLog, suspects: Sequence[str], fix: bool) -> Iterator[Problem]:
    """Says which files are still out of their places, and puts them there."""
    names, unapplied = _still_out_of_place(log, suspects)
    if fix and names:
        with _mending(log):
            log.placing.put_again(names)
    for number, entry in unapplied.items():
        own = [name for name in (*entry.placed, *entry.removed) if name in names]
        if own:
            yield _pending(log, number, entry, own, fix)
        for name in own:
            del names[name]
    for name in names:
        is_there = log.state.refs.get(name) is not None
        message = (
            "It has an older content than the log says, or none" if is_there else "It is removed"
        )
        mended = fix and not log.placing.is_out_of_place(name)
        remedy = _to_do("puts it right")
        if fix:
            remedy = (
                "Put right." if mended else "What it is to hold is gone: see the other problems."
            )
        yield Problem(
            "out-of-place",
            relative(name),
            None if is_shared(name) else index_in(name),
            f"{message}: a writer was held up or killed, or somebody put it back or removed it.",
            mended,
            remedy,
        )


def _still_out_of_place(
    log: BucketLog, names: Iterable[str]
) -> tuple[dict[str, None], dict[int, Entry]]:
    """Those of files that are out of their places, and the entries that may be the reason.

    Files of a commit that was just made are looked at again: its writer may be at it.
    """
    left = dict.fromkeys(names)
    unapplied: dict[int, Entry] = {}
    for wait_s in _WAITS_S:
        still = zip(left, at_once(log.placing.is_out_of_place, left), strict=True)
        left = dict.fromkeys(name for name, is_so in still if is_so)
        unapplied = log.placing.unapplied() if left else {}
        fresh = {name for one in unapplied.values() for name in (*one.placed, *one.removed)}
        if fresh.isdisjoint(left):
            break
        time.sleep(wait_s)
    return left, unapplied


def _pending(log: BucketLog, number: int, entry: Entry, names: Sequence[str], fix: bool) -> Problem:
    mended = fix and not any(at_once(log.placing.is_out_of_place, names))
    samples = {index_in(name) for name in names}
    return Problem(
        "pending",
        f"{PRIVATE_FOLDER}/log/{number:012d}.json",
        None,
        f"A commit of run {entry.run_key!r} was logged, and not all of its files are in place: "
        f"those of {len(samples)} samples.",
        mended,
        "Applied." if mended else "`pipestream check --fix` applies it, as does the next write.",
    )


# -- contents ------------------------------------------------------------------------------


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


def _check_contents(dataset: Bucket, fix: bool) -> Iterator[Problem]:
    """Finds contents that the log needs and are not there, and those that nothing needs."""
    log = dataset.log
    there = _Hashes()
    sent: list[Stat] = []
    before = _now(log, fix) - LEFT_AFTER_S
    known = _Hashes(object_of(ref) for ref in log.state.refs.values() if ref is not None)
    runs = runs_of(log.ledgers())
    for _, entry in entries_of(runs):
        known.add(map(object_of, _refs_in(entry)))
    listed = log.store.objects_in(_OBJECTS)
    while some := list(islice(listed, _LOT)):
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
    with _mending(log), log.store.trying(PRIVATE_FOLDER) as key:
        log.store.put(key, b"")
        probe = log.store.stat(key)
    return 0.0 if probe is None else min(probe.at, time.time())


def _is_left(stat: Stat, before: float) -> bool:
    """Whether an object is old enough, and is in the folder of a commit."""
    match = _SENT.fullmatch(stat.key)
    return match is not None and stat.at < before and int(match[1], 16) / 1e9 < before


def _refs_in(entry: Entry) -> Iterator[Ref]:
    yield from entry.placed.values()
    yield from entry.before.values()


def _check_needed(
    dataset: Bucket, there: _Hashes, runs: Iterable[Run], fix: bool
) -> Iterator[Problem]:
    """Finds contents that files have by the log, or the undo of a run needs, and that are gone."""
    log = dataset.log
    current = iter([(name, ref) for name, ref in log.state.refs.items() if ref is not None])
    restored: set[Ref] = set()
    while some := list(islice(current, _LOT)):
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
        remedy = _to_do("restores it from the file")
        if fix:
            with _mending(dataset.log):
                store.put(key, data)
            mended, remedy = True, "Restored from the file."
    message = f"{relative(name)} has this content by the log, and it is gone, or of another size."
    idx = None if is_shared(name) else index_in(name)
    return Problem("lost-content", key, idx, message, mended, remedy)


def _check_left(log: BucketLog, sent: Sequence[Stat], fix: bool) -> Iterator[Problem]:
    """Finds contents that were sent for commits that were not made, and removes them."""
    keys = {stat.key for stat in sent}
    for entry in log.all_entries():
        keys.difference_update(map(object_of, _refs_in(entry)))
    by_commit: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_commit.setdefault(key.rpartition("/")[0], []).append(key)
    for folder, own in by_commit.items():
        if fix:
            with _mending(log):
                at_once(log.store.delete, own)
        message = f"A writer that died sent {len(own)} contents for a commit that it did not make."
        remedy = "Removed." if fix else _to_do("removes them")
        yield Problem("dead-staging", folder, None, message, fix, remedy)


def _check_probes(log: BucketLog, fix: bool) -> Iterator[Problem]:
    """Finds what is left of a try whether the store keeps to its word."""
    before = time.time() - LEFT_AFTER_S
    for stat in log.store.files_in(PRIVATE_FOLDER):
        if _PROBE.fullmatch(stat.name) and stat.at < before:
            if fix:
                with _mending(log):
                    log.store.delete(stat.key)
            remedy = "Removed." if fix else _to_do("removes it")
            message = "A writer that died tried the store by it."
            yield Problem("leftover", stat.key, None, message, fix, remedy)


# -- names, and items ----------------------------------------------------------------------


def _check_names(log: BucketLog, aside: _Aside) -> Iterator[Problem]:
    """Finds objects below the data folder that are no item's."""
    for stat in log.store.objects_in(DATA_FOLDER):
        name = stat.key.removeprefix(DATA_FOLDER).lstrip("/")
        if name and not name.startswith(".") and ("/" in name or parse_item_name(name) is None):
            yield stray(stat.key, *aside.put(stat.key))


def _check_duplicates(dataset: Bucket, aside: _Aside) -> Iterator[Problem]:
    """Finds files that claim one item key of one sample, or of all samples."""
    for idx, key, names in duplicates_in(dataset.index(), dataset.shared_names()):
        rank = {name: _rank(dataset, name) for name in names}
        yield from part_duplicates(idx, key, rank, partial(aside.put_item, dataset))


def _rank(dataset: Bucket, name: str) -> tuple[bool, float]:
    found = Findings()
    _look_at(dataset, found, name, None)
    there = dataset.log.store.stat(view_of(name))
    return not found.problems, 0.0 if there is None else there.at


def _look_at(dataset: Bucket, found: Findings, name: str, idx: int | None) -> None:
    source = dataset.source_of(name)
    if source is not None:
        found.decode(dataset.item_of(source), relative(name), idx, source.is_there)
