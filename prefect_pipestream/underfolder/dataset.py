"""A dataset folder, read by sample: its index kept right without scanning on each access."""

import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DuplicateItemError
from prefect_pipestream.items import FileSource, FileStamp, Item
from prefect_pipestream.underfolder.index import UnderfolderIndex
from prefect_pipestream.underfolder.journal import Journal
from prefect_pipestream.underfolder.names import (
    DATA_FOLDER,
    PRIVATE_FOLDER,
    Kind,
    key_of,
    parse_root_name,
)

_TICK_NS = 20_000_000  # above the kernel's clock tick, in which two changes get one mtime
_COARSE_TICK_NS = 2_100_000_000  # on file systems that keep whole seconds
_CHECK_AFTER_S = 2.0
_CHECK_SHARE = 50


class SampleOrigin:
    """The files that a sample was read from, as they were then or when last decoded."""

    __slots__ = ("__weakref__", "folder", "idx", "sources")

    def __init__(self, folder: str, idx: int, sources: dict[str, FileSource]) -> None:
        self.folder = folder
        self.idx = idx
        self.sources = sources

    def __repr__(self) -> str:
        return f"SampleOrigin({self.folder!r}, {self.idx}, {sorted(self.sources)})"


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
        self._root = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        self._data = os.path.join(self._root, DATA_FOLDER)
        missing = self._root if not os.path.isdir(self._root) else self._data
        if not os.path.isdir(missing) and (must_exist or os.path.lexists(missing)):
            raise DatasetNotFoundError(
                f"Dataset {self._root}: there is no folder {missing}. Give the folder that holds "
                f"`{DATA_FOLDER}/`, or create it first."
            )
        self._merge_root_items = merge_root_items
        self._allow_pickle = allow_pickle
        self._watch = watch
        self._part: UnderfolderIndex | None = None
        self._reset()

    def _reset(self) -> None:
        self._guard = threading.RLock()
        self._index = self._part
        self._journal = Journal(os.path.join(self._root, PRIVATE_FOLDER, "journal"))
        self._mtime: int | None = None  # of the data folder, as of which the index is right
        self._scanned_at = self._scan_took = 0.0
        self._shared: dict[str, Item[Any]] = {}
        self._root_mtime: int | None = None
        self._readers: dict[int, list[weakref.ref[SampleOrigin]]] = {}
        self._strays: set[str] = set()  # names in the data folder that were warned of

    @property
    def folder(self) -> Path:
        """The dataset's root, absolute."""
        return Path(self._root)

    @property
    def data_prefix(self) -> str:
        """What stands before a sample's file name in its path."""
        return self._data + os.sep

    # -- reading -----------------------------------------------------------------------

    def __len__(self) -> int:
        """The last index plus one: gaps count."""
        return len(self.index())

    def indices(self) -> npt.NDArray[np.int64]:
        """The indices that have files of their own: int64, ascending."""
        return self.index().indices()

    def best_zfill(self) -> int:
        """The digits to pad an index to: those of the last index, or wider ones on disk."""
        index = self.index()
        return max(len(str(max(len(index) - 1, 0))), index.widest())

    def read(self, idx: int) -> dict[str, Item[Any]]:
        """Returns the items of sample `idx` by key, the shared ones among them.

        Raises:
            IndexError: If `idx` is not between 0 and the last index.
            DuplicateItemError: If two files claim one key.
        """
        items = self._shared_items()
        items.update((key, self._item(source)) for key, source in self._sources(idx).items())
        return items

    def take(self, idx: int) -> tuple[dict[str, Item[Any]], SampleOrigin]:
        """Like `read`, and notes what each file is like now (one `stat` an item).

        A file that is about to be replaced or was just deleted by another process makes it
        look again, once the commit that does it is through.
        """
        for settle in (False, True):
            if settle:
                self.settle()
            try:
                sources = self._sources(idx)
                for source in sources.values():
                    _stat_into(source)
            except (FileNotFoundError, DuplicateItemError):
                if settle:
                    raise
                continue
            break
        items = self._shared_items()
        named = {os.path.basename(source.path): source for source in sources.values()}
        named.update(
            ("/" + os.path.basename(item.file_sources[0].path), item.file_sources[0])
            for item in items.values()
        )
        items.update((key, self._item(source)) for key, source in sources.items())
        origin = SampleOrigin(self._root, idx, named)
        self._note_read(origin)
        return items, origin

    def _note_read(self, origin: SampleOrigin) -> None:
        """Remembers the origin as long as a sample has it."""
        readers = self._readers.setdefault(origin.idx, [])

        def forget(dead: "weakref.ref[SampleOrigin]") -> None:
            readers.remove(dead)
            if not readers and self._readers.get(origin_idx) is readers:
                del self._readers[origin_idx]

        origin_idx = origin.idx
        readers.append(weakref.ref(origin, forget))

    def note_written(self, idx: int, key: str, source: FileSource) -> None:
        """Lets samples taken earlier show what was written through this dataset.

        To them this is no other writer's change, and their item is in the new file.
        """
        for reader in list(self._readers.get(idx, ())):
            origin = reader()
            if origin is None:
                continue
            name = os.path.basename(source.path)
            for old_name, old in list(origin.sources.items()):
                if old_name[0] != "/" and key_of(old_name) == key:
                    old.path, old.stamp = source.path, source.stamp
                    old.digest, old.read_at_ns = source.digest, source.read_at_ns
                    origin.sources[name] = origin.sources.pop(old_name)
                    break
            else:
                origin.sources[name] = FileSource(
                    source.path, source.stamp, source.digest, source.read_at_ns
                )

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
                    f"`python -m prefect_pipestream check` lists all such files."
                )
            sources[key] = FileSource(self.data_prefix + name)
        return sources

    def _item(self, source: FileSource) -> Item[Any]:
        return Item.from_source(source, shared=False, allow_pickle=self._allow_pickle)

    def shared_files(self) -> Mapping[str, str]:
        """The names of the root's item files, by key."""
        with self._guard:
            self._scan_root()
            return {key: item.local_sources[0].name for key, item in self._shared.items()}

    def _shared_items(self) -> dict[str, Item[Any]]:
        if not self._merge_root_items:
            return {}
        if self._watch or self._root_mtime is None:
            with self._guard:
                self._scan_root()
        return dict(self._shared)

    def _scan_root(self) -> None:
        try:
            mtime = os.stat(self._root).st_mtime_ns
        except FileNotFoundError:
            self._shared, self._root_mtime = {}, None
            return
        except OSError as error:
            raise _unreadable(self._root, error) from error
        if mtime == self._root_mtime:
            return
        try:
            names = sorted(os.listdir(self._root))
        except OSError as error:
            raise _unreadable(self._root, error) from error
        self._take_shared(names)
        self._root_mtime = None if _is_racy(mtime) else mtime

    def _take_shared(self, names: Iterable[str]) -> None:
        found: dict[str, Item[Any]] = {}
        for name in names:
            parsed = parse_root_name(name)
            path = os.path.join(self._root, name)
            if parsed is None or os.path.isdir(path):
                continue
            source = FileSource(path)
            if parsed[0] in found:
                raise DuplicateItemError(
                    f"{self._root} has two files for the shared item {parsed[0]!r}: "
                    f"{found[parsed[0]].local_sources[0].name} and {name}. Remove one."
                )
            _stat_into(source)
            found[parsed[0]] = Item.from_source(
                source, shared=True, allow_pickle=self._allow_pickle
            )
        self._shared = found

    # -- the index ---------------------------------------------------------------------

    def index(self) -> UnderfolderIndex:
        """The index of the data folder, brought up to date where the folder is watched."""
        index = self._index
        if index is not None and not self._watch:
            return index
        with self._guard:
            return self.refreshed_index()

    def refreshed_index(self) -> UnderfolderIndex:
        """The index as of now. Costs one `stat`, unless others than us changed the folder."""
        with self._guard:
            if self._part is not None:
                return self._part
            try:
                mtime = os.stat(self._data).st_mtime_ns
            except FileNotFoundError:
                mtime = 0
            except OSError as error:
                raise _unreadable(self._data, error) from error
            if self._index is None or not self._is_right_as_of(mtime):
                return self._scan()
            return self._index

    def _is_right_as_of(self, mtime: int) -> bool:
        if self._index is None or self._mtime is None:
            return False
        if mtime != self._mtime:
            self._mtime = self._journal.fold_into(self._index, self._mtime)
        # A file that others added while one of our commits was being applied shares its
        # modification time, so that only another scan can find it: one in every while.
        due = max(_CHECK_AFTER_S, _CHECK_SHARE * self._scan_took)
        return mtime == self._mtime and time.monotonic() < self._scanned_at + due

    def _scan(self) -> UnderfolderIndex:
        began = time.monotonic()
        own_mtime = self._journal.skip_to_end()
        try:
            mtime = os.stat(self._data).st_mtime_ns
        except FileNotFoundError:
            mtime = 0
        self._index = self._scanned()
        self._scanned_at = time.monotonic()
        self._scan_took = self._scanned_at - began
        # Changed within the clock's tick, it may be changed again under the same time; the
        # time that a commit gave it is nobody else's.
        self._mtime = None if _is_racy(mtime) and mtime != own_mtime else mtime
        return self._index

    def _scanned(self) -> UnderfolderIndex:
        try:
            return UnderfolderIndex.scan(self._data, self._strays)
        except OSError as error:
            raise _unreadable(self._data, error) from error

    def kinds_of(self, idx: int) -> list[Kind]:
        """The kinds of the files that sample `idx` has now; see `refreshed_index`.

        A part of a dataset knows its own samples; of others, it looks for names of known kinds.
        """
        index = self.refreshed_index()
        if self._part is None or idx in index:
            return index.kinds_of(idx)
        return [
            kind
            for kind in index.kinds()
            if os.path.lexists(self._data + os.sep + kind.name_of(idx))
        ]

    def settle(self) -> None:
        """Waits for a commit under way, ends one that died, and scans the folder anew."""
        from prefect_pipestream.underfolder.apply import recover

        recover(self._root)
        with self._guard:
            if self._part is not None:
                whole = self._scanned()
                self._part = self._index = whole.restricted_to(self._part.indices().tolist())
            else:
                self._scan()

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
        part._part = part._index = self.index().restricted_to(indices)
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


def _stat_into(source: FileSource) -> None:
    now = time.time_ns()
    try:
        status = os.stat(source.path)
    except FileNotFoundError:
        if os.path.islink(source.path):
            return  # a broken link: decoding it says so
        raise
    except OSError as error:
        if os.path.islink(source.path):
            return  # one that leads in a circle, or where it may not: the same
        raise _unreadable(source.path, error) from error
    source.stamp = FileStamp.of(status)
    source.read_at_ns = now


def _unreadable(path: str, error: OSError) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read ({error.strerror}). Check the folder and its permissions."
    )


def tick_ns(mtime_ns: int) -> int:
    """How long after `mtime_ns` another change may still get that same modification time."""
    return _TICK_NS if mtime_ns % 1_000_000_000 else _COARSE_TICK_NS


def _is_racy(mtime_ns: int) -> bool:
    return mtime_ns != 0 and abs(time.time_ns() - mtime_ns) < tick_ns(mtime_ns)
