"""A dataset folder, read by sample."""

import operator
import os
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DuplicateItemError
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.asking import (
    is_folder,
    is_there,
    names_in,
    status_of,
    status_through_links,
)
from prefect_pipestream.storage.clock import is_racy
from prefect_pipestream.storage.version import ABSENT, Version, version_of
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, Kind, is_shared
from prefect_pipestream.underfolder.format.origin import SampleOrigin, stat_into, unreadable
from prefect_pipestream.underfolder.format.shared_items import SharedItems
from prefect_pipestream.underfolder.format.watched_index import WatchedIndex


class Underfolder:
    """A dataset folder, opened for reading.

    Args:
        folder: The dataset's root.
        merge_root_items: Whether the shared items are part of every sample.
        must_exist: Whether a missing folder is an error; otherwise it is an empty dataset.
        watch: Whether what comes and goes on disk is seen by the next read. It costs two
            `stat` calls a read; the folder is scanned again only after someone else than this
            package changed which files it holds.
        allow_pickle: Whether pickled items may be decoded. Unpickling runs code: allow it for
            folders you trust.

    Raises:
        DatasetNotFoundError: If the folder or its `data` is missing and must exist, or is no
            folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        merge_root_items: bool = True,
        must_exist: bool = True,
        watch: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        self._root = Layout.of(folder).root
        self._data = os.path.join(self._root, DATA_FOLDER)
        self._check_folders(must_exist)
        self._merge_root_items = merge_root_items
        self._allow_pickle = allow_pickle
        self._watch = watch
        self._part: UnderfolderIndex | None = None
        self._reset()

    @DatasetError.explaining_questions()
    def _check_folders(self, must_exist: bool) -> None:
        missing = self._root if not is_folder(self._root) else self._data
        # In this order: another process may just be creating it.
        if (must_exist or is_there(missing)) and not is_folder(missing):
            raise DatasetNotFoundError(
                f"Dataset {self._root}: there is no folder {missing}. Give the folder that holds "
                f"`{DATA_FOLDER}/`, or create it first. What is in another layout can be imported: "
                f"`pipestream import {shlex.quote(self._root)}` says how."
            )

    def _reset(self) -> None:
        self._guard = threading.RLock()
        self._index = WatchedIndex(Layout(self._root))
        self._shared = SharedItems(self._root, self._allow_pickle)

    @property
    def folder(self) -> Place:
        """The dataset's root, absolute."""
        return Path(self._root)

    @property
    def data_prefix(self) -> str:
        """What stands before a sample's file name in its path."""
        return self._data + os.sep

    @property
    def merges_shared(self) -> bool:
        """Whether the shared items are part of every sample."""
        return self._merge_root_items

    # -- reading -----------------------------------------------------------------------

    def __len__(self) -> int:
        """The last index plus one: gaps count."""
        return len(self.index())

    def indices(self) -> npt.NDArray[np.int64]:
        """The indices that have files of their own: int64, ascending."""
        return self.index().indices()

    def best_zfill(self, length: int | None = None) -> int:
        """The digits to pad an index to: those of the last index, or wider ones on disk.

        Args:
            length: How many samples there will be; None is as many as there are.
        """
        index = self.index()
        last = max((len(index) if length is None else length) - 1, 0)
        return max(len(str(last)), index.widest())

    def read(self, idx: int) -> dict[str, Item[Any]]:
        """Returns the items of sample `idx` by key, the shared ones among them.

        Raises:
            IndexError: If `idx` is not between 0 and the last index.
            DuplicateItemError: If two files claim one key.
        """
        items = self._shared_items()
        items.update((key, self.item_of(source)) for key, source in self._sources(idx).items())
        return items

    def read_shared(self) -> dict[str, Item[Any]]:
        """Returns the shared items by key, also where they are not part of every sample."""
        files = self.shared_files().items()
        return {
            key: self.item_of(FileSource(f"{self._root}/{name}"), shared=True)
            for key, name in files
        }

    def take(self, idx: int) -> tuple[dict[str, Item[Any]], SampleOrigin]:
        """Like `read`, and notes what each file is like now (one `stat` an item).

        The items are this sample's own, the shared ones too, and decode anew at each call.
        A file that is about to be replaced or was just deleted by another process makes it
        look again, once the commit that does it is through.
        """
        for settle in (False, True):
            if settle:
                self.settle()
            try:
                sources = self._sources(idx)
                shared = self._shared_sources()
                for source in (*shared.values(), *sources.values()):
                    stat_into(source)
            except FileNotFoundError:
                if settle:
                    raise
                continue
            except DuplicateItemError:
                if settle or self._are_all_there(idx):
                    raise
                continue
            break
        named = {source.path[len(self.data_prefix) :]: source for source in sources.values()}
        named.update(("/" + os.path.basename(source.path), source) for source in shared.values())
        items = {key: self.item_of(source, shared=True) for key, source in shared.items()}
        items.update((key, self.item_of(source)) for key, source in sources.items())
        for item in items.values():
            item.cache_data = False  # another process may write the file at any time
        origin = SampleOrigin(self._root, idx, named)
        return items, origin

    def _are_all_there(self, idx: int) -> bool:
        """Whether all files that a sample is known to have are there, and no commit under way."""
        try:
            mtime = os.stat(self._data).st_mtime_ns
            names = [kind.name_of(idx) for kind in self.kinds_of(idx)]
            return (
                not is_racy(mtime)
                and not names_in(Layout(self._root).log)
                and all(is_there(self.data_prefix + name) for name in names)
                and mtime == os.stat(self._data).st_mtime_ns
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable(self._data, error) from error

    def _sources(self, idx: int) -> dict[str, FileSource]:
        index = self.index()
        if not 0 <= idx < len(index):
            raise IndexError(f"Sample {idx} of {self._root}: the dataset has {len(index)} samples.")
        sources: dict[str, FileSource] = {}
        for kind in index.kinds_of(idx):
            key, name = kind.key, kind.name_of(idx)
            if key in sources:
                raise DuplicateItemError(
                    f"Sample {idx} of {self._root} has two files for item {key!r}: "
                    f"{os.path.basename(sources[key].path)} and {name}. Remove one of them; "
                    f"`pipestream check` lists all such files."
                )
            sources[key] = FileSource(self.data_prefix + name)
        return sources

    @property
    def ledgers(self) -> Layout:
        """Where the ledgers of its runs are, as of now, to be read.

        Raises:
            StoreError: If a store cannot be asked.
        """
        return Layout(self._root)

    def sources_elsewhere(self, names: Iterable[str]) -> list[FileSource | None] | None:
        """Sources of files that are on no disk; None: they are, and found by their paths.

        Args:
            names: Their names, a shared one's with a leading slash.

        Returns:
            A source for each; None for one that is not there.
        """
        return None

    def source_of(self, name: str) -> FileSource | None:
        """A source of a file, with what it is like now; None where there is none.

        Args:
            name: The file's name; a shared one's begins with a slash.
        """
        source = FileSource(self._root + name if is_shared(name) else self.data_prefix + name)
        try:
            source.look()
        except FileNotFoundError:
            return None
        return source

    def source_as_it_was(self, name: str, version: Version | None, is_newer: bool) -> FileSource:
        """A source of a file that had this version: it may have another one by now.

        Args:
            name: The file's name.
            version: The version; None: it was not known.
            is_newer: See `FileSource`.
        """
        return FileSource(Layout(self._root).final(name), version, is_newer=is_newer)

    def item_of(self, source: FileSource, *, shared: bool = False) -> Item[Any]:
        """The item in a file, as this dataset is opened: pickled ones decode only if they may."""
        return Item.from_source(source, shared=shared, allow_pickle=self._allow_pickle)

    def shared_files(self) -> Mapping[str, str]:
        """The names of the root's item files, by key."""
        with self._guard:
            items = self._shared.current()
        return {key: item.local_sources[0].name for key, item in items.items()}

    def _shared_items(self) -> dict[str, Item[Any]]:
        if not self._merge_root_items:
            return {}
        with self._guard:
            return dict(self._shared.current(as_read=not self._watch))

    def _shared_sources(self) -> dict[str, FileSource]:
        """The shared items' files by key, each source a new one."""
        items = self._shared_items()
        return {key: FileSource(item.file_sources[0].path) for key, item in items.items()}

    # -- the index ---------------------------------------------------------------------

    def index(self) -> UnderfolderIndex:
        """The index of the data folder, brought up to date where the folder is watched."""
        if self._part is not None:
            return self._part
        return self._index.current() if self._watch else self._index.as_read()

    def refreshed_index(self) -> UnderfolderIndex:
        """The index as of now. Costs one `stat`, unless others than us changed the folder."""
        return self._index.current() if self._part is None else self._part

    def kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of the files that sample `idx` has now; see `refreshed_index`.

        A part of a dataset knows its own samples; of others, it looks for names of known kinds.
        """
        index = self.refreshed_index()
        known = index.kinds_of(idx)
        if known or self._part is None:
            return known
        return [kind for kind in index.kinds() if is_there(self._data + os.sep + kind.name_of(idx))]

    def all_kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of all files that sample `idx` has now, whoever wrote them.

        A part of a dataset does not see files come and go: it looks for names of every kind that
        it knows, which is one `stat` each, and takes over what it finds of its own samples.
        """
        index = self.refreshed_index()
        if self._part is None:
            return index.kinds_of(idx)
        found = [
            kind for kind in index.kinds() if is_there(self._data + os.sep + kind.name_of(idx))
        ]
        if idx in index:
            there = {kind.name_of(idx) for kind in found}
            known = set(index.names_of(idx))
            index.update(idx, added=there - known, removed=known - there)
        return found

    def learn_kinds(self) -> None:
        """Lets a part of a dataset know the kinds of names that commits added since; see above."""
        if self._part is not None:
            self._part.learn(self._index.journaled_kinds())

    def recover(self) -> None:
        """Ends what dead writers left: their logged commits are applied. Costs some 20 µs.

        Raises:
            DatasetWriteError: If a logged commit cannot be applied, as on a full disk.
            DatasetError: If one cannot be read.
        """
        recover(self._root)

    def settle(self) -> None:
        """Waits for a commit under way, ends one that died, and scans the folder anew."""
        recover(self._root)
        index = self._index.scan()
        if self._part is not None:
            self._part = index.restricted_to(self._part.indices().tolist())

    @DatasetError.explaining_questions()
    def stored_bytes(self, indices: Iterable[int]) -> dict[str, int]:
        """The disk space of all own files of some samples, by the items' keys: a `stat` a file.

        Raises:
            DatasetError: If a file could not be asked for.
        """
        found: dict[str, int] = {}
        index = self.refreshed_index()
        for idx in indices:
            for kind in index.kinds_of(idx):
                status = status_of(self.data_prefix + kind.name_of(idx))
                if status is not None:  # else it was removed meanwhile
                    found[kind.key] = found.get(kind.key, 0) + status.st_blocks * 512
        return found

    @DatasetError.explaining_questions()
    def versions(self, indices: Iterable[int]) -> dict[int, str]:
        """One value for each of some samples, another one if anything of it changed on disk.

        It is that of a sample that is read now (`Sample.version`), whoever changed it; ``absent``
        for one without own files. Costs a `stat` a file, at any size of the dataset; the folder is
        scanned again only after someone else than this package changed which files it holds.

        Args:
            indices: The samples.

        Raises:
            DatasetError: If a file or the folder cannot be looked at.
        """
        index = self._index.known() if self._part is None else self._part
        shared = self.shared_files().values() if self._merge_root_items else ()
        common = _versions_in(self._root + os.sep, shared, "/")
        found = {}
        for idx in map(operator.index, indices):
            names = [kind.name_of(idx) for kind in self._kinds_in(index, idx)]
            own = _versions_in(self.data_prefix, names)
            found[idx] = version_of({**own, **common}) if own else ABSENT
        return found

    def file_versions(self, indices: Iterable[int]) -> list[Mapping[str, Version] | None]:
        """What the files of some samples are like now, by name as `take` has them in an origin.

        Of many samples it costs a third of what `take` does: no items are made, and shared files
        are looked at once. None for a sample that only `take` can tell of: as where it has no files
        of its own, two of them claim one key, or one cannot be looked at.

        Args:
            indices: The samples.

        Raises:
            DatasetError: If the folder cannot be looked at.
        """
        index = self.index()
        names = [item.file_sources[0].path for item in self._shared_items().values()]
        shared = _all_versions_in("", names)
        if shared is None:
            return [None for _ in indices]
        common = {"/" + os.path.basename(path): one for path, one in shared.items()}
        found = (self._own_versions(index, idx) for idx in indices)
        return [{**own, **common} if own else None for own in found]

    def _own_versions(self, index: UnderfolderIndex, idx: int) -> Mapping[str, Version] | None:
        kinds = index.kinds_of(idx)
        if len({kind.key for kind in kinds}) < len(kinds):
            return None
        return _all_versions_in(self.data_prefix, [kind.name_of(idx) for kind in kinds])

    def _kinds_in(self, index: UnderfolderIndex, idx: int) -> Iterable[Kind]:
        """The kinds that a sample may have files of: a part does not see them come and go."""
        return index.kinds_of(idx) if self._part is None else index.kinds()

    def as_of_now(self) -> "Underfolder":
        """This dataset, to take several samples at about one time: in a bucket by one request."""
        return self

    def restricted_to(self, indices: Iterable[int]) -> "Underfolder":
        """Returns this dataset with just these samples in its index: small to pickle.

        It needs no scan where it is opened, and does not see samples come and go.
        """
        part = Underfolder(
            self._root,
            merge_root_items=self._merge_root_items,
            must_exist=False,
            allow_pickle=self._allow_pickle,
        )
        part._index.warned_of = self._index.warned_of
        part._part = self.index().restricted_to(indices)
        return part

    # -- pickling: a small copy that looks at the folder itself --------------------------

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_root", "_data", "_merge_root_items", "_allow_pickle", "_watch", "_part")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        return f"Underfolder({self._root!r})"


def _versions_in(prefix: str, names: Iterable[str], mark: str = "") -> dict[str, Version | None]:
    """What files are like now, by name; None for a link that leads nowhere.

    Raises:
        OSError: If that could not be asked.
    """
    found: dict[str, Version | None] = {}
    for name in names:
        status = status_through_links(prefix + name)
        if status is not None:
            found[mark + name] = Version.of(status)
        elif is_there(prefix + name):
            found[mark + name] = None
    return found


def _all_versions_in(prefix: str, names: Sequence[str]) -> dict[str, Version] | None:
    """What files are like now, by name; None where that is not known of each of them."""
    try:
        found = _versions_in(prefix, names)
    except OSError:
        return None
    known = {name: version for name, version in found.items() if version is not None}
    return known if len(known) == len(names) else None
