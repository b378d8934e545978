"""Check a dataset in a bucket: decode every item, find what does not belong, mend what can be."""

import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.store import AT_ONCE, StoreError, at_once, open_store
from prefect_pipestream.underfolder.bucket.checking_contents import check_contents
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import APPLIED, entry_key, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.mending import Aside, mending, to_do
from prefect_pipestream.underfolder.bucket.sending import LEFT_AFTER_S
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
from prefect_pipestream.underfolder.checks.own_files import DAMAGED_PLAN
from prefect_pipestream.underfolder.checks.problems import CheckReport, Problem
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import (
    DATA_FOLDER,
    PRIVATE_FOLDER,
    index_in,
    is_shared,
    parse_item_name,
)
from prefect_pipestream.underfolder.runs.kept_plan import damaged_plans

_PROBE = re.compile(r"probe-[0-9a-f]+")
_LOT = 1000
_WAITS_S = (0.2, 0.4, 0.8, 0.0)


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
    aside = Aside(log, fix)
    problems = list(_check_log(log, aside))
    if not all(problem.mended for problem in problems):
        return CheckReport(str(address), 0, 0, {}, tuple(problems))
    dataset = Bucket(address, log=log)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stray names, which are among the problems
        index = dataset.index()
    problems += _check_applied(log, fix)
    suspects = _out_of_place(dataset)  # to be looked at once more: a writer may be at it
    problems += check_contents(dataset, fix)
    problems += _check_probes(log, fix)
    problems += _check_plans(log, aside)
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


# -- the log -------------------------------------------------------------------------------


def _check_log(log: BucketLog, aside: Aside) -> Iterator[Problem]:
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
    remedy = to_do("looks at all files anew")
    if fix:
        with mending(log):
            log.placing.apply_anew()
        remedy = "All files were looked at anew."
    yield Problem("unreadable-record", APPLIED, None, message, fix, remedy)


# -- files in their places -----------------------------------------------------------------


def _out_of_place(dataset: Bucket) -> list[str]:
    """The names of files that have not what the log gave them last, but an older content or none.

    Those are read that the store calls otherwise than what the log gave them.
    """
    refs = dict(dataset.log.state.refs)
    suspects = [name for name, ref in refs.items() if _may_be_older(dataset, name, ref)]
    found: list[str] = []
    for some in lots(suspects, _LOT):
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
        with mending(log):
            log.placing.put_again(names)
    for number, entry in unapplied.items():
        own = [name for name in entry.names if name in names]
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
        remedy = to_do("puts it right")
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
        fresh = {name for one in unapplied.values() for name in one.names}
        if fresh.isdisjoint(left):
            break
        time.sleep(wait_s)
    return left, unapplied


def _pending(log: BucketLog, number: int, entry: Entry, names: Sequence[str], fix: bool) -> Problem:
    mended = fix and not any(at_once(log.placing.is_out_of_place, names))
    samples = {index_in(name) for name in names}
    return Problem(
        "pending",
        entry_key(number),
        None,
        f"A commit of run {entry.run_key!r} was logged, and not all of its files are in place: "
        f"those of {len(samples)} samples.",
        mended,
        "Applied." if mended else "`pipestream check --fix` applies it, as does the next write.",
    )


# -- what is left ---------------------------------------------------------------------------


def _check_probes(log: BucketLog, fix: bool) -> Iterator[Problem]:
    """Finds what is left of a try whether the store keeps to its word."""
    before = time.time() - LEFT_AFTER_S
    for stat in log.store.files_in(PRIVATE_FOLDER):
        if _PROBE.fullmatch(stat.name) and stat.at < before:
            if fix:
                with mending(log):
                    log.store.delete(stat.key)
            remedy = "Removed." if fix else to_do("removes it")
            message = "A writer that died tried the store by it."
            yield Problem("leftover", stat.key, None, message, fix, remedy)


def _check_plans(log: BucketLog, aside: Aside) -> Iterator[Problem]:
    """Finds plans that cannot be read. A run that is to go by one says so, and does not begin."""
    for name in damaged_plans(log.root):
        key = f"{PRIVATE_FOLDER}/plans/{name}"
        yield Problem("unreadable-record", key, None, DAMAGED_PLAN, *aside.put(key))


# -- names, and items ----------------------------------------------------------------------


def _check_names(log: BucketLog, aside: Aside) -> Iterator[Problem]:
    """Finds objects below the data folder that are no item's."""
    for stat in log.store.objects_in(DATA_FOLDER):
        name = stat.key.removeprefix(DATA_FOLDER).lstrip("/")
        if name and not name.startswith(".") and ("/" in name or parse_item_name(name) is None):
            yield stray(stat.key, *aside.put(stat.key))


def _check_duplicates(dataset: Bucket, aside: Aside) -> Iterator[Problem]:
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
