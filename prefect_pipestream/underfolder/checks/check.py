"""Check a dataset: decode every item, find what does not belong, mend what can be mended."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import (
    DatasetError,
    DecodeError,
    MissingExtraError,
    UnpicklingNotAllowedError,
)
from prefect_pipestream.items import Item, PickleItem, UnknownItem
from prefect_pipestream.storage.asking import (
    is_folder,
    is_link,
    is_of_disk,
    is_there,
    status_through_links,
)
from prefect_pipestream.storage.cores import usable_cores
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.new_dataset import is_old
from prefect_pipestream.underfolder.checks.other_layouts import described, layouts_at
from prefect_pipestream.underfolder.checks.own_files import (
    between_commits,
    check_private,
)
from prefect_pipestream.underfolder.checks.problems import Aside, CheckReport, Problem
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import (
    DATA_FOLDER,
    is_shared,
    parse_item_name,
    parse_root_name,
)

Progress = Callable[[int, int], None]
"""Called with the number of samples that were checked, and of all."""

_AT_ONCE = 32  # samples decoded by one call of a thread
_TEMPORARY = re.compile(r"\.\d+-\d+-\d+_.+")  # see `items.storing.serialize`


@DatasetError.explaining_questions()
def check(folder: Folder, fix: bool = False, on_progress: Progress | None = None) -> CheckReport:
    """Finds what is wrong with a dataset, down to the items that do not decode.

    Every item is decoded, on as many threads as there are cores; pickles are not unpickled, and
    formats that no item class reads are not decoded.

    Args:
        folder: The dataset's root.
        fix: Whether to mend: commits of dead writers are finished, and interrupted undos; what
            they staged and did not commit is removed; unreadable records, stray files and, of
            duplicate items, all but the newest that decodes are moved to
            ``.pipestream/aside/<time>/``. Items that do not decode stay where they are.
        on_progress: Called now and then with the number of samples checked, and of all.

    Returns:
        What was found, and what was mended.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetWriteError: If the dataset is to be mended and cannot be written.
    """
    layout = Layout.of(folder)
    layout.refuse_missing()
    aside = Aside(layout, fix)
    problems = list(check_private(layout, aside, fix))
    problems += _check_names(layout, aside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stray names, which are among the problems
        index = UnderfolderIndex.scan(layout.data)
    problems += _check_duplicates(layout, index, aside)
    found = _decode_files(layout, index, on_progress)
    indices = index.indices()
    return CheckReport(
        folder=layout.root,
        samples=len(indices),
        items=found.decoded,
        unchecked=dict(found.unchecked),
        problems=(*problems, *found.problems),
        gaps=tuple(gaps_in(indices)),
    )


def gaps_in(indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The first and the last of each range of indices that are not there, below the last one."""
    before = np.concatenate([[-1], indices])
    for at in np.flatnonzero(np.diff(before) > 1).tolist():
        yield int(before[at]) + 1, int(before[at + 1]) - 1


# -- names ---------------------------------------------------------------------------------


def _check_names(layout: Layout, aside: Aside) -> Iterator[Problem]:
    """Finds names in the data folder that are no item's."""
    try:
        with os.scandir(layout.data) as entries:
            names = [entry.name for entry in entries if parse_item_name(entry.name) is None]
    except FileNotFoundError:
        message = "There is no data folder: this is no dataset, or one without samples."
        remedy = "Give the folder that `data` is in."
        if layouts_at(layout.root):
            remedy = described(layout.root)
        yield Problem("no-data", DATA_FOLDER, None, message, False, remedy)
        return
    for name in sorted(names):
        path, file = os.path.join(layout.data, name), f"{DATA_FOLDER}/{name}"
        if _TEMPORARY.fullmatch(name):
            if is_old(path):  # else it may just be being written
                mended, remedy = aside.put(path)
                message = "An interrupted write left it."
                yield Problem("leftover", file, None, message, mended, remedy)
        elif not name.startswith("."):
            yield stray(file, *aside.put(path))


def stray(file: str, mended: bool, remedy: str) -> Problem:
    """The problem of a name in the data folder that is no item's."""
    message = "Its name is not of the form <index>_<key>.<ext>; it is not read."
    return Problem("stray", file, None, message, mended, remedy)


def _check_duplicates(layout: Layout, index: UnderfolderIndex, aside: Aside) -> list[Problem]:
    """Finds files that claim one item key of one sample, or of all samples."""
    found = duplicates_in(index, _shared_names(layout))
    problems: list[Problem] = []
    if found:
        # A commit that was just being applied leaves old and new names there for a moment.
        with between_commits(layout):
            for idx, key, names in found:
                names = [name for name in names if is_there(layout.final(name))]
                try:
                    rank = {name: _rank(layout.final(name)) for name in names}
                except OSError as error:
                    problems.append(_unranked(idx, key, names, error))
                    continue
                put = partial(_put_aside, layout, aside)
                problems += part_duplicates(idx, key, rank, put)
    return problems


def _put_aside(layout: Layout, aside: Aside, name: str) -> tuple[bool, str]:
    return aside.put(layout.final(name))


def duplicates_in(
    index: UnderfolderIndex, shared: Iterable[str]
) -> list[tuple[int | None, str, list[str]]]:
    """Files that claim one item: the sample, None for a shared one; the key, and their names.

    Args:
        index: The samples' files.
        shared: The names of the files of shared items.
    """
    found: list[tuple[int | None, str, list[str]]] = []
    by_key: dict[str, list[str]] = {}
    for name in shared:
        by_key.setdefault(name.partition(".")[0], []).append("/" + name)
    found += [(None, key, names) for key, names in by_key.items() if len(names) > 1]
    for idx in index.indices().tolist():
        kinds = index.kinds_of(idx)
        if len({kind.key for kind in kinds}) < len(kinds):
            by_key = {}
            for kind in kinds:
                by_key.setdefault(kind.key, []).append(kind.name_of(idx))
            found += [(idx, key, names) for key, names in by_key.items() if len(names) > 1]
    return found


def _shared_names(layout: Layout) -> list[str]:
    with os.scandir(layout.root) as entries:
        return sorted(e.name for e in entries if parse_root_name(e.name) and not is_folder(e.path))


def _unranked(idx: int | None, key: str, names: list[str], error: OSError) -> Problem:
    message = f"{', '.join(map(relative, names))} are all item {key!r}."
    remedy = f"Not all of them can be read ({error.strerror}): mend that first."
    return Problem("duplicate", relative(names[0]), idx, message, False, remedy)


def part_duplicates(
    idx: int | None,
    key: str,
    rank: Mapping[str, tuple[bool, float]],
    put_aside: Callable[[str], tuple[bool, str]],
) -> Iterator[Problem]:
    """Keeps, of files that claim one item, the newest that decodes.

    Args:
        idx: The sample; None of a shared item.
        key: The item's key.
        rank: Whether each file decodes, and its time, by its name.
        put_aside: Puts one aside, by its name; see `Aside.put`.
    """
    if len(rank) < 2:
        return
    kept = max(rank, key=rank.__getitem__)
    what = "the newest that decodes" if rank[kept][0] else "the newest"
    for name in rank:
        if name != kept:
            mended, remedy = put_aside(name)
            message = f"{relative(kept)} is item {key!r}, too, and {what}."
            yield Problem("duplicate", relative(name), idx, message, mended, remedy)


def _rank(path: str) -> tuple[bool, int]:
    return _decodes(path), os.lstat(path).st_mtime_ns


def _decodes(path: str) -> bool:
    """Whether the item in a file decodes.

    Raises:
        OSError: If the file cannot be read, so that nobody knows.
    """
    found = Findings()
    _look_at(found, path, "", None)
    if found.unread:
        raise found.unread[0]
    return not found.problems


def relative(name: str) -> str:
    """The path of an item's file in its dataset."""
    return name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"


# -- content -------------------------------------------------------------------------------


class Findings:
    """What came of decoding some files."""

    def __init__(self) -> None:
        self.decoded = 0
        self.unchecked: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.unread: list[OSError] = []

    def add(self, other: "Findings") -> None:
        """Adds what others found."""
        self.decoded += other.decoded
        self.unchecked += other.unchecked
        self.problems += other.problems

    def decode(
        self, item: Item[Any], file: str, idx: int | None, is_still_there: Callable[[], bool]
    ) -> None:
        """Decodes an item.

        Args:
            item: The item.
            file: The path of its file in the dataset.
            idx: The sample; None of a shared item.
            is_still_there: Whether its file is there: another process may replace it meanwhile.
        """
        if isinstance(item, UnknownItem | PickleItem):
            self.unchecked["pickle" if isinstance(item, PickleItem) else "unknown format"] += 1
            return
        try:
            item()
        except UnpicklingNotAllowedError:  # in an array of objects
            self.unchecked["pickle"] += 1
        except MissingExtraError as error:
            self.unchecked[str(error)] += 1
        except DecodeError as error:
            if isinstance(error.__cause__, OSError) and is_of_disk(error.__cause__):
                self.unread.append(error.__cause__)
            if is_still_there():
                message = str(error).removeprefix(f"{item.file_sources[0].path}: ")
                remedy = "The undo of a run may have it whole."
                self.problems.append(Problem("undecodable", file, idx, message, False, remedy))
        else:
            self.decoded += 1


def _look_at(found: Findings, path: str, file: str, idx: int | None) -> None:
    """Decodes the item in a file."""
    if is_link(path) and status_through_links(path) is None:
        target = os.readlink(path)
        message = f"It is a symbolic link to {target}, which is not there."
        remedy = "Restore what it links to, or remove it."
        found.problems.append(Problem("broken-link", file, idx, message, False, remedy))
        return
    found.decode(Item.get_instance(path), file, idx, lambda: is_there(path))


def _decode_files(
    layout: Layout, index: UnderfolderIndex, on_progress: Progress | None
) -> Findings:
    def look(found: Findings, name: str, idx: int | None) -> None:
        _look_at(found, layout.final(name), relative(name), idx)

    return decode_all(index, _shared_names(layout), look, usable_cores(), on_progress)


def decode_all(
    index: UnderfolderIndex,
    shared: Iterable[str],
    look: Callable[[Findings, str, int | None], None],
    workers: int,
    on_progress: Progress | None,
) -> Findings:
    """Looks at all files of a dataset.

    Args:
        index: The samples' files.
        shared: The names of the files of shared items.
        look: Looks at one file, of a name and a sample.
        workers: On how many threads.
        on_progress: See `check`.
    """
    from concurrent.futures import ThreadPoolExecutor

    found = Findings()
    for name in shared:
        look(found, "/" + name, None)
    indices = index.indices().tolist()
    done = 0

    def look_at_some(some: list[int]) -> Findings:
        part = Findings()
        for idx in some:
            for name in index.names_of(idx):
                look(part, name, idx)
        return part

    with ThreadPoolExecutor(workers) as pool:
        # Some at a time: a million samples are not submitted at once.
        for lot in lots(indices, workers * 8 * _AT_ONCE):
            for part in pool.map(look_at_some, lots(lot, _AT_ONCE)):
                found.add(part)
            done += len(lot)
            if on_progress is not None:
                on_progress(done, len(indices))
    return found
