"""A dataset in a bucket, read by sample."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefect_pipestream.errors import DatasetNotFoundError, DuplicateItemError
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import Stat, StoreError, open_store
from prefect_pipestream.storage.version import ABSENT, Version, version_of
from prefect_pipestream.underfolder.bucket.contents import Contents
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.bucket.log import BucketLog, whole_log
from prefect_pipestream.underfolder.bucket.reading_ahead import MOST
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import (
    DATA_FOLDER,
    Kind,
    index_in,
    is_shared,
    key_of,
    parse_root_name,
)
from prefect_pipestream.underfolder.format.origin import SampleOrigin

_log = logging.getLogger(__name__)

_LIST_AFTER_S = 2.0
_LIST_SHARE = 50
_AHEAD = 16
_RECOVER_AFTER_S = 10.0


class Bucket(Underfolder):
    """A dataset in a bucket, opened for reading.

    What this package writes is seen by the next read, whoever wrote it; files that others put there
    are seen when the bucket is listed again, which a watched dataset does in every while. A sample
    is as it was when it was taken, all of its files together.

    Args:
        address: The dataset's address.
        merge_root_items: Whether the shared items are part of every sample.
        must_exist: Whether it is an error if there is nothing.
        watch: Whether what comes and goes is seen: one request a read.
        allow_pickle: Whether pickled items may be decoded. Unpickling runs code.
        log: The dataset's log, where it is known.

    Raises:
        DatasetNotFoundError: If there is nothing at the address, and must be.
        StoreError: If the store cannot be asked.
    """

    def __init__(
        self,
        address: str,
        *,
        merge_root_items: bool = True,
        must_exist: bool = True,
        watch: bool = False,
        allow_pickle: bool = False,
        log: BucketLog | None = None,
    ) -> None:
        self._address = Address.of(address)
        self._root = str(self._address)
        self._data = self._root + "/" + DATA_FOLDER
        self._merge_root_items = merge_root_items
        self._allow_pickle = allow_pickle
        self._watch = watch
        self._part = None
        self._chosen: frozenset[int] = frozenset()  # the samples of a part
        self.log = log or whole_log(open_store(self._address))
        self._reset()
        if must_exist and not self._is_anything_there():
            raise DatasetNotFoundError(
                f"Dataset {self._root}: there are no objects below {self._data}/. Give the address "
                f"of what holds `{DATA_FOLDER}/`, or create the dataset first."
            )

    def _reset(self) -> None:
        self._guard = threading.RLock()
        self.contents = Contents(self.log)
        self._listed: dict[str, Stat] = {}
        self._root_files: dict[str, Stat] | None = None
        self._names: UnderfolderIndex | None = None
        self._listed_at = self._listing_took = 0.0
        self._recovered_at = -math.inf
        self._warned_of: set[str] = set()
        self._ahead_to = 0  # of a part, which samples are expected already
        self.log.when_added(self._hear)

    def _is_anything_there(self) -> bool:
        self.log.refresh()
        if self.log.state.position:
            return True
        return next(self.log.store.objects_in(DATA_FOLDER), None) is not None

    @property
    def folder(self) -> Address:
        """The dataset's address."""
        return self._address

    @property
    def address(self) -> Address:
        """The dataset's address."""
        return self._address

    @property
    def ledgers(self) -> Layout:
        """Where the ledgers of its runs are, as of now, to be read."""
        return self.log.ledgers()

    # -- the index ---------------------------------------------------------------------

    def index(self) -> UnderfolderIndex:
        """The index of the samples' files; of a watched dataset, as of now."""
        if self._part is not None:
            return self._part
        with self._guard:
            if self._names is not None and not self._watch:
                return self._names
            return self._current()

    def refreshed_index(self) -> UnderfolderIndex:
        """The index as of now: one request, but where the bucket is listed again."""
        return self._current() if self._part is None else self._part

    def _current(self) -> UnderfolderIndex:
        with self._guard:
            self.log.refresh()
            due = max(_LIST_AFTER_S, _LIST_SHARE * self._listing_took)
            if self._names is None or time.monotonic() >= self._listed_at + due:
                return self._list()
            return self._names

    def _list(self) -> UnderfolderIndex:
        """Lists the bucket: one request for a thousand objects."""
        with self._guard:
            began = time.monotonic()
            self._root_files = None
            listed = {stat.name: stat for stat in self._directly_in(DATA_FOLDER)}
            with self.log.guard:
                self._listed = listed
                names = UnderfolderIndex.of(listed.values(), self._data, self._warned_of)
                for name, ref in self.log.state.refs.items():
                    self._take(names, name, is_there=ref is not None or self._is_of_others(name))
                self._names = names
            self._listed_at = time.monotonic()
            self._listing_took = self._listed_at - began
            return names

    def _is_of_others(self, name: str) -> bool:
        """Whether others put a file where the log has removed one."""
        there = self._listed.get(name)
        if there is None or is_shared(name):
            return False
        return self.contents.version_of(name, there) is not None

    def _directly_in(self, folder: str) -> Iterator[Stat]:
        depth = folder.count("/") + 1
        return (stat for stat in self.log.store.objects_in(folder) if stat.key.count("/") == depth)

    def _hear(self, entry: Entry) -> None:
        """Takes over what an entry of the log says of names."""
        for name in entry.names:
            self._listed.pop(name, None)  # it was listed before
            self.contents.foreign.pop(name, None)
        for index in (self._names, self._part):
            if index is not None:
                for name in entry.placed:
                    self._take(index, name, is_there=True)
                for name in entry.removed:
                    self._take(index, name, is_there=False)
        if any(map(is_shared, entry.names)):
            self._root_files = None

    def _take(self, index: UnderfolderIndex, name: str, *, is_there: bool) -> None:
        idx = None if is_shared(name) else index_in(name)
        if idx is None or (index is self._part and idx not in index):
            return
        index.update(idx, **{"added" if is_there else "removed": [name]})

    def kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of the files that sample `idx` has now, as far as is known.

        A part that is asked for another sample becomes the whole dataset, which is listed.
        """
        if self._part is not None and idx not in self._chosen:
            self._become_whole()
        return self.refreshed_index().kinds_of(idx)

    def _become_whole(self) -> None:
        with self._guard:
            self.log = self.log.whole()
            self.contents = Contents(self.log)
            self._part = self._names = None
            self.log.when_added(self._hear)

    def all_kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of the files that sample `idx` has now, as far as is known."""
        return self.kinds_of(idx)

    def learn_kinds(self) -> None:
        """Does nothing: the log says which names came."""

    def recover(self) -> None:
        """Puts files in their places that dead writers left; who may not write leaves them.

        What reads by the log does not need it. Done just before, it is not done again: who is at it
        still is not dead.
        """
        if self.log.is_part:
            return  # whose whole did it
        if time.monotonic() < self._recovered_at + _RECOVER_AFTER_S:
            return
        try:
            self.log.placing.recover()
            self._recovered_at = time.monotonic()
        except StoreError as error:
            _log.info("%s: files are left for the next writer to put in place: %s", self, error)

    def settle(self) -> None:
        """Lists the bucket anew."""
        if self._part is None:
            self._list()

    # -- reading -----------------------------------------------------------------------

    def source_of(self, name: str) -> BucketSource | None:
        """A source of a file as it is known to be now; None where there is none."""
        ref = self.log.state.refs.get(name)
        stat = self.listed(name)
        if ref is not None:
            return self.contents.source_by(name, ref, stat)
        if stat is None:
            return self.contents.source_of(name)
        stat = self.contents.foreign.get(name, stat)  # as it was read last
        return BucketSource(self.contents, name, None, stat.etag, stat.size)

    def listed(self, name: str) -> Stat | None:
        """What the store told of a file as it was listed last; None where there was none."""
        files = self._files_in_root() if is_shared(name) else self._listed
        return files.get(name.removeprefix("/"))

    def sources_elsewhere(self, names: Iterable[str]) -> list[FileSource | None]:
        """Sources of files: no request, but for those that came since the listing."""
        return list(map(self.source_of, names))

    def source_as_it_was(self, name: str, version: Version | None, is_newer: bool) -> BucketSource:
        """A source of a file that had this version: it may have another one by now."""
        size = 0 if version is None else version.size
        source = BucketSource(self.contents, name, None, size=size)
        source.version, source.is_newer = version, is_newer
        return source

    def _files_in_root(self) -> dict[str, Stat]:
        with self._guard:
            if self._root_files is None:
                self._root_files = {stat.name: stat for stat in self.log.store.files_in()}
            return self._root_files

    def shared_files(self) -> Mapping[str, str]:
        """The names of the root's item files, by key."""
        found: dict[str, str] = {}
        for name in self.shared_names():
            key = key_of("/" + name)
            if key in found:
                raise DuplicateItemError(
                    f"{self._root} has two files for the shared item {key!r}: {found[key]} and "
                    f"{name}. Remove one."
                )
            found[key] = name
        return found

    def shared_names(self) -> list[str]:
        """The names of the root's item files, of several of one key, too; ascending."""
        state = self.log.state
        refs = state.refs
        there = {
            name
            for name, stat in self._files_in_root().items()
            if refs.get("/" + name, ...) is not None
            or self.contents.version_of("/" + name, stat) is not None
        }
        there.update(name[1:] for name in tuple(state.shared) if refs[name] is not None)
        return sorted(name for name in there if parse_root_name(name) is not None)

    def _shared_sources(self) -> dict[str, BucketSource]:  # type: ignore[override]
        return self._all_shared() if self._merge_root_items else {}

    def _all_shared(self) -> dict[str, BucketSource]:
        found = {key: self.source_of("/" + name) for key, name in self.shared_files().items()}
        return {key: source for key, source in found.items() if source is not None}

    def _shared_items(self) -> dict[str, Item[Any]]:
        sources = self._shared_sources().items()
        return {key: self.item_of(source, shared=True) for key, source in sources}

    def _own_sources(self, idx: int) -> dict[str, BucketSource]:
        index = self.index()
        if not 0 <= idx < len(index):
            raise IndexError(f"Sample {idx} of {self._root}: the dataset has {len(index)} samples.")
        sources: dict[str, BucketSource] = {}
        for kind in index.kinds_of(idx):
            source = self.source_of(kind.name_of(idx))
            if kind.key in sources:
                raise DuplicateItemError(
                    f"Sample {idx} of {self._root} has two files for item {kind.key!r}: "
                    f"{sources[kind.key].name} and {kind.name_of(idx)}. Remove one of them."
                )
            if source is not None:
                sources[kind.key] = source
        return sources

    def _all_own_sources(self, idx: int) -> Iterator[BucketSource]:
        """The sources of all own files of a sample, of several of one key, too."""
        found = map(self.source_of, self.index().names_of(idx))
        return (source for source in found if source is not None)

    def read_shared(self) -> dict[str, Item[Any]]:
        """Returns the shared items by key, also where they are not part of every sample."""
        self.log.refresh()  # of a dataset that need not exist, nothing was asked for yet
        sources = self._all_shared().items()
        return {key: self.item_of(source, shared=True) for key, source in sources}

    def read(self, idx: int) -> dict[str, Item[Any]]:
        """Returns the items of sample `idx` by key, the shared ones among them."""
        return self.take(idx)[0]

    def take(self, idx: int) -> tuple[dict[str, Item[Any]], SampleOrigin]:
        """Like `read`, and notes what each file is like: no request, but for what is new.

        The items are as they are now, whenever they are decoded.
        """
        with self._guard, self.log.guard:
            sources = self._own_sources(idx)
            shared = self._shared_sources()
            if self._part is not None:
                self._expect_after(idx)
        items = {key: self.item_of(source, shared=True) for key, source in shared.items()}
        items.update((key, self.item_of(source)) for key, source in sources.items())
        named = {source.name: source for source in (*sources.values(), *shared.values())}
        return items, SampleOrigin(self._root, idx, dict(named))

    def _expect_after(self, idx: int) -> None:
        """Begins to fetch what is read of the next samples of a part: they come in their order."""
        assert self._part is not None
        indices = self._part.indices()
        at = int(np.searchsorted(indices, idx, "right"))
        room = MOST // max(1, self.contents.keys_read) - 1  # this sample's are not read yet
        end = at + max(0, min(_AHEAD, room))
        begin = self._ahead_to if at <= self._ahead_to <= end else at
        for following in indices[begin:end].tolist():
            self.contents.expect(self._all_own_sources(following))
        if self.contents.keys_read:
            self._ahead_to = end

    def stored_bytes(self, indices: Iterable[int]) -> dict[str, int]:
        """The size of all own files of some samples, by the items' keys."""
        found: dict[str, int] = {}
        for idx in indices:
            if idx in self.index():
                for source in self._all_own_sources(idx):
                    key = key_of(source.name)
                    found[key] = found.get(key, 0) + source.size()
        return found

    def versions(self, indices: Iterable[int]) -> dict[int, str]:
        """One value for each of some samples, another one if anything of it changed.

        It is that of a sample that is read now: one request, but where the bucket is listed again.
        """
        return self._versions(indices, self._version_of)

    def _version_of(self, name: str) -> Version | None:
        source = self.source_of(name)
        return None if source is None else source.version

    def versions_now(self, indices: Iterable[int]) -> dict[int, str]:
        """The same, for which the store is asked of each file that is known."""
        return self._versions(indices, self.contents.version_now)

    def names_of(self, indices: Iterable[int]) -> set[str]:
        """The names of the files that are part of some samples, as far as is known."""
        chosen = list(map(int, indices))
        index = self._index_with(chosen)
        own = {name for idx in chosen for name in index.names_of(idx)}
        return own.union(source.name for source in self._shared_sources().values())

    def _versions(
        self, indices: Iterable[int], of: Callable[[str], Version | None]
    ) -> dict[int, str]:
        chosen = list(map(int, indices))
        index = self._index_with(chosen)
        common = {one.name: of(one.name) for one in self._shared_sources().values()}
        found = {}
        for idx in chosen:
            own = {name: of(name) for name in index.names_of(idx)}
            is_there = any(version is not None for version in own.values())
            found[idx] = version_of({**own, **common}) if is_there else ABSENT
        return found

    def _index_with(self, chosen: Sequence[int]) -> UnderfolderIndex:
        """The index as of now, in which these samples are."""
        if self._part is None:
            return self._current()
        if not self._chosen.issuperset(chosen):
            self._become_whole()
            return self._current()
        self.log.refresh()
        return self._part

    def file_versions(self, indices: Iterable[int]) -> list[Mapping[str, Version] | None]:
        """What the files of some samples are like now, by name.

        None for a sample that only `take` can tell of: it has no own files, or two of one key.
        """
        index = self.index()
        common = self._versions_of(self._shared_sources().values())
        found = (self._own_versions(index, idx) for idx in map(int, indices))
        return [{**own, **common} if own else None for own in found]

    def _own_versions(self, index: UnderfolderIndex, idx: int) -> Mapping[str, Version] | None:
        try:
            return self._versions_of(self._own_sources(idx).values()) if idx in index else None
        except DuplicateItemError:
            return None

    def _versions_of(self, sources: Iterable[BucketSource]) -> dict[str, Version]:
        return {source.name: source.version for source in sources if source.version is not None}

    # -- parts, and pickling -------------------------------------------------------------

    def as_of_now(self) -> "Bucket":
        """This dataset, that does not look for what is new: to take several samples, and be left.

        Raises:
            StoreError: If the store cannot be asked.
        """
        self.refreshed_index()
        other = Bucket.__new__(Bucket)  # no copy as by pickling, which knows nothing of the log
        other.__dict__.update(self.__dict__, _watch=False)
        return other

    def restricted_to(self, indices: Iterable[int]) -> "Bucket":
        """Returns this dataset with just these samples in its index: small to pickle.

        It needs no listing where it is opened.
        """
        chosen = list(indices)
        index = self.index()
        part = Bucket(
            self._root,
            merge_root_items=self._merge_root_items,
            must_exist=False,
            allow_pickle=self._allow_pickle,
            log=self.log,
        )
        part.contents = self.contents
        part._part = index.restricted_to(chosen)
        part._chosen = frozenset(chosen)
        names = [name for idx in chosen for name in index.names_of(idx)]
        part._listed = {name: self._listed[name] for name in names if name in self._listed}
        part._root_files = dict(self._files_in_root())
        return part

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_address", "_root", "_data", "_merge_root_items", "_allow_pickle", "_watch")
        state = {name: getattr(self, name) for name in (*kept, "_part", "_chosen")}
        if self._part is None:
            return {**state, "log": self.log, "files": ({}, None)}
        log = self.log.restricted_to(self._part.indices().tolist())
        return {**state, "log": log, "files": (self._listed, self._root_files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("files")
        self.__dict__.update(state)
        self._reset()
        self._listed, self._root_files = files

    def __repr__(self) -> str:
        return f"Bucket({self._root!r})"
