"""Check a dataset: decode every item, find what does not belong, mend what can be mended."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

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

_AT_ONCE = 32  # samples decoded by one call of a thread
_TEMPORARY = re.compile(r"\.\d+-\d+-\d+_.+")  # see `items.storing.serialize`


@DatasetError.explaining_questions()
def check(
    folder: Folder, fix: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> CheckReport:
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
    found = _decode_all(layout, index, on_progress)
    indices = index.indices()
    return CheckReport(
        folder=layout.root,
        samples=len(indices),
        items=found.decoded,
        unchecked=dict(found.unchecked),
        problems=(*problems, *found.problems),
        gaps=tuple(_gaps_in(indices)),
    )


def _gaps_in(indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
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
            mended, remedy = aside.put(path)
            message = "Its name is not of the form <index>_<key>.<ext>; it is not read."
            yield Problem("stray", file, None, message, mended, remedy)


def _check_duplicates(layout: Layout, index: UnderfolderIndex, aside: Aside) -> list[Problem]:
    """Finds files that claim one item key of one sample, or of all samples."""
    found: list[tuple[int | None, str, list[str]]] = []
    by_key: dict[str, list[str]] = {}
    for name in _shared_names(layout):
        by_key.setdefault(name.partition(".")[0], []).append("/" + name)
    found += [(None, key, names) for key, names in by_key.items() if len(names) > 1]
    for idx in index.indices().tolist():
        kinds = index.kinds_of(idx)
        if len({kind.key for kind in kinds}) < len(kinds):
            by_key = {}
            for kind in kinds:
                by_key.setdefault(kind.key, []).append(kind.name_of(idx))
            found += [(idx, key, names) for key, names in by_key.items() if len(names) > 1]
    problems: list[Problem] = []
    if found:
        # A commit that was just being applied leaves old and new names there for a moment.
        with between_commits(layout):
            for idx, key, names in found:
                names = [name for name in names if is_there(layout.final(name))]
                problems += _part_duplicates(layout, idx, key, names, aside)
    return problems


def _shared_names(layout: Layout) -> list[str]:
    with os.scandir(layout.root) as entries:
        return sorted(e.name for e in entries if parse_root_name(e.name) and not is_folder(e.path))


def _part_duplicates(
    layout: Layout, idx: int | None, key: str, names: list[str], aside: Aside
) -> Iterator[Problem]:
    """Keeps, of files that claim one item, the newest that decodes."""
    if len(names) < 2:
        return
    try:
        rank = {name: _rank(layout.final(name)) for name in names}
    except OSError as error:
        message = f"{', '.join(map(_relative, names))} are all item {key!r}."
        remedy = f"Not all of them can be read ({error.strerror}): mend that first."
        yield Problem("duplicate", _relative(names[0]), idx, message, False, remedy)
        return
    kept = max(names, key=rank.__getitem__)
    what = "the newest that decodes" if rank[kept][0] else "the newest"
    for name in names:
        if name != kept:
            mended, remedy = aside.put(layout.final(name))
            message = f"{_relative(kept)} is item {key!r}, too, and {what}."
            yield Problem("duplicate", _relative(name), idx, message, mended, remedy)


def _rank(path: str) -> tuple[bool, int]:
    return _decodes(path), os.lstat(path).st_mtime_ns


def _decodes(path: str) -> bool:
    """Whether the item in a file decodes.

    Raises:
        OSError: If the file cannot be read, so that nobody knows.
    """
    found = _Findings()
    found.look_at(path, "", None)
    if found.unread:
        raise found.unread[0]
    return not found.problems


def _relative(name: str) -> str:
    return name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"


# -- content -------------------------------------------------------------------------------


class _Findings:
    """What came of decoding some files."""

    def __init__(self) -> None:
        self.decoded = 0
        self.unchecked: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.unread: list[OSError] = []

    def add(self, other: "_Findings") -> None:
        """Adds what others found."""
        self.decoded += other.decoded
        self.unchecked += other.unchecked
        self.problems += other.problems

    def look_at(self, path: str, file: str, idx: int | None) -> None:
        """Decodes the item in a file."""
        if is_link(path) and status_through_links(path) is None:
            target = os.readlink(path)
            message = f"It is a symbolic link to {target}, which is not there."
            remedy = "Restore what it links to, or remove it."
            self.problems.append(Problem("broken-link", file, idx, message, False, remedy))
            return
        item = Item.get_instance(path)
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
            if is_there(path):  # else another process replaced it meanwhile
                message = str(error).removeprefix(f"{path}: ")
                remedy = "The undo of a run may have it whole."
                self.problems.append(Problem("undecodable", file, idx, message, False, remedy))
        else:
            self.decoded += 1


def _decode_all(
    layout: Layout, index: UnderfolderIndex, on_progress: Callable[[int, int], None] | None
) -> _Findings:
    from concurrent.futures import ThreadPoolExecutor

    found = _Findings()
    for name in _shared_names(layout):
        found.look_at(layout.final("/" + name), name, None)
    indices = index.indices().tolist()
    workers = usable_cores()
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        # Some at a time: a million samples are not submitted at once.
        for lot in _lots(indices, workers * 8 * _AT_ONCE):
            for part in pool.map(lambda few: _decode(layout, index, few), _lots(lot, _AT_ONCE)):
                found.add(part)
            done += len(lot)
            if on_progress is not None:
                on_progress(done, len(indices))
    return found


def _lots(values: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(values)
    while lot := list(islice(iterator, size)):
        yield lot


def _decode(layout: Layout, index: UnderfolderIndex, indices: list[int]) -> _Findings:
    found = _Findings()
    for idx in indices:
        for name in index.names_of(idx):
            found.look_at(layout.final(name), _relative(name), idx)
    return found
