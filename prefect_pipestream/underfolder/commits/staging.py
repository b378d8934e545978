"""Staging: the new files of some samples, made before anything of a dataset is changed."""

import copy
import os
import stat
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    DatasetWriteError,
    DecodeError,
    InvalidSampleError,
    ItemError,
    ItemNameError,
)
from prefect_pipestream.items import FileSource, Item, SerializationMode
from prefect_pipestream.items.registry import extension_of
from prefect_pipestream.storage.asking import is_link, status_of, status_through_links
from prefect_pipestream.storage.making import give_access, link_or_copy
from prefect_pipestream.storage.removing import empty_folder
from prefect_pipestream.storage.version import Version, mark_at
from prefect_pipestream.underfolder.commits.prospect import Check, Judge
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Layout, staged_name
from prefect_pipestream.underfolder.format.names import (
    Kind,
    check_index,
    check_key,
    is_shared,
    key_of,
)
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.ledger.records import SampleRecord


@dataclass
class StagedFile:
    """One staged file.

    Attributes:
        key: The item's key.
        name: The name that the file gets.
        source: The file, where it is now.
        made_of: The item that it holds, which is not kept in memory for this.
        found: The mark of the shared item that it was made of; None where there was none.
    """

    key: str
    name: str
    source: FileSource
    made_of: "weakref.ref[Item[Any]] | None" = None
    found: str | None = None

    def lead_to(self, source: FileSource) -> None:
        """Lets the item, if somebody still has it, know of the file in its place."""
        item = None if self.made_of is None else self.made_of()
        if item is not None:
            item.add_source(source)


@dataclass
class StagedSample:
    """One sample of a commit that is being prepared.

    Attributes:
        record: Its entry in the ledger, as far as it is known.
        origin: The files it was read from.
        files: The files to place.
        removes: Names to remove, besides those that the files supersede.
        removed_keys: The keys of own items that are removed, with the files that they have then.
        found: The marks of files, by name: a file of another mark is another writer's change.
        is_removal: Whether all of the sample's own files are removed, whichever there are then.
        is_move: Whether the sample is moved, with all files that it had when that was staged.
        there: What files are there under the index that it is written at, as of the commit.
        left_behind: Of a move, what files are there under the index that it is moved from.
        beside: Files that stay, and without which the sample might not be valid.
        if_version: The version that the sample at its target is to have; None: any.
        commit_id: The commit that it is in, once that is made.
    """

    record: SampleRecord
    origin: SampleOrigin | None
    files: list[StagedFile] = field(default_factory=list)
    removes: tuple[str, ...] = ()
    removed_keys: frozenset[str] = frozenset()
    found: Mapping[str, str | None] | None = None
    is_removal: bool = False
    is_move: bool = False
    there: Sequence[Kind] = ()
    left_behind: Sequence[Kind] = ()
    beside: Sequence[FileSource] = ()
    if_version: str | None = None
    commit_id: str | None = None

    @property
    def changes_files(self) -> bool:
        """Whether it has a file to place, or to remove."""
        return bool(self.files or self.removes or self.removed_keys or self.is_removal)

    @property
    def target(self) -> int:
        """The index under which it is written."""
        return self.record.written_at

    def is_in_place(self, layout: Layout) -> bool:
        """Whether it is written to where it was read from."""
        origin = self.origin
        return origin is not None and (origin.folder, origin.idx) == (layout.root, self.target)

    def names_there(self, keys: Collection[str | None]) -> list[str]:
        """The names of the files that are there for some items."""
        return [kind.name_of(self.target) for kind in self.there if kind.key in keys]

    @property
    def replaced_keys(self) -> set[str | None]:
        """The keys of items of which no file stays that is there."""
        return {*self.removed_keys, *(file.key for file in self.files)}

    @property
    def superseded(self) -> list[str]:
        """The names of the files that are there and make way: for its own, or for nothing."""
        if self.is_removal:
            return [kind.name_of(self.target) for kind in self.there]
        if self.is_move:  # what is there is moved on by the same commit
            return []
        return self.names_there(self.replaced_keys)


class Staging:
    """Where the new files of some samples wait: a folder on the dataset's file system.

    Args:
        dataset: The dataset that is written, for its index.
        folder: The folder for the staged files: empty, and no other commit's.
        zfill: The digits to which new names are padded; None keeps names that exist.
        default_zfill: Tells the digits for new names where `zfill` is None.
        modes: The serialization mode of items, by key.
        replace_shared: The keys of shared items that are replaced where they differ.
        check: Says what is wrong with a sample as it would be on disk; None: it is not asked.

    Attributes:
        layout: The paths of the dataset.
        samples: What is staged, by the index under which it was read.
        shared: The shared items that are staged, by name with a leading slash.
    """

    def __init__(
        self,
        dataset: Underfolder,
        folder: str,
        *,
        zfill: int | None = None,
        default_zfill: Callable[[], int] = lambda: 0,
        modes: Mapping[str, SerializationMode] | None = None,
        replace_shared: Collection[str] = (),
        check: Check | None = None,
    ) -> None:
        self.dataset = dataset
        self._judge = None if check is None else Judge(dataset, check)
        self.layout = Layout(str(dataset.folder))
        self.folder = folder
        self._zfill = zfill
        self._default_zfill = default_zfill
        self._modes = modes or {}
        self._replace_shared = replace_shared
        self.samples: dict[int, StagedSample] = {}
        self._targets: set[int] = set()
        self.shared: dict[str, StagedFile] = {}
        self._shared_there: Mapping[str, str] | None = None
        self._is_held = False

    def __len__(self) -> int:
        return len(self.samples)

    def __contains__(self, idx: int) -> bool:
        """Whether a sample is to be written under `idx`, or was read under it."""
        return idx in self.samples or idx in self._targets

    @property
    def is_checking(self) -> bool:
        """Whether samples are looked at as they would be on disk."""
        return self._judge is not None

    def is_empty(self) -> bool:
        """Whether there is no file to put in place."""
        return not self.shared and not any(s.changes_files for s in self.samples.values())

    def in_order(self) -> list[StagedSample]:
        """The staged samples, by index."""
        return [self.samples[idx] for idx in sorted(self.samples)]

    def add(
        self,
        idx: int,
        items: Mapping[str, Item[Any]],
        *,
        keys: Collection[str] | None = None,
        origin: SampleOrigin | None = None,
        target: int | None = None,
        attempts: int = 1,
        if_version: str | None = None,
        removes: Collection[str] = (),
    ) -> bool:
        """Stages the files of one sample that are not in place already.

        Args:
            idx: The index under which the sample was read.
            items: Its items.
            keys: The items to write; None is all. A key that the sample lacks is left alone.
            origin: The files it was read from.
            target: The index under which it is written; None is `idx`.
            attempts: How often it was tried.
            if_version: The version that the sample at its target is to have as it is committed;
                another one is a conflict. None: any.
            removes: The keys of own items that are removed, and not written.

        Returns:
            Whether the sample has a file that is to be written, or removed.

        Raises:
            ItemNameError: If a key or an index cannot be part of a file name, or a folder has the
                name that a file is to get.
            EncodeError, DecodeError: If an item cannot be written; the message names it.
            InvalidSampleError: If the check finds something wrong with it.
            ConflictError: If a file that it was read from is not there any more, and needed.
            DatasetWriteError: If the disk is full, read-only or not permitted.
            TypeError: If `keys` or `removes` is a single string, in which any part of it would be
                found.
        """
        for given in (keys, removes):
            if isinstance(given, str):
                raise TypeError(
                    f"keys {given!r}: expected a collection of keys, such as [{given!r}]."
                )
        idx = check_index(idx)
        target = idx if target is None else check_index(target)
        moved_to = None if target == idx else target
        record = SampleRecord(idx, "unchanged", target=moved_to, attempts=attempts)
        staged = StagedSample(record, origin, if_version=if_version)
        shared_before = set(self.shared)
        try:
            kinds = self.dataset.kinds_of(target)
            there = {kind.key: kind for kind in kinds}
            staged.removed_keys = frozenset(there.keys() & set(removes))
            chosen = [
                (k, self._in_mode(k, i))
                for k, i in items.items()
                if k not in removes and (keys is None or k in keys)
            ]
            for key, item in chosen:
                if not item.is_shared:
                    self._stage(staged, key, item, there.get(key))
            self._fit_to_old(staged, kinds)
            for key, item in chosen:  # last: they stay staged if the sample is not written
                if item.is_shared:
                    self._stage_shared(key, item, staged)
            if self._judge is not None:
                self._refuse_invalid(self._judge, staged, shared_before)
        except BaseException as error:
            with suppress(OSError):  # the error that led here is the one to report
                self.drop_files(staged)
            if isinstance(error, OSError) and not isinstance(error, ItemError):
                what = f"Sample {target} could not be written to {self.layout.root}"
                raise DatasetWriteError.of(error, what) from error
            raise
        self.samples[idx] = staged
        self._targets.add(target)
        return staged.changes_files

    def remove(
        self,
        idx: int,
        *,
        origin: SampleOrigin | None = None,
        target: int | None = None,
        attempts: int = 1,
        if_version: str | None = None,
    ) -> None:
        """Stages the removal of a sample: of all own files that it has as it is committed.

        Args:
            idx: The index under which the sample was read.
            origin: The files it was read from, for the conflict check.
            target: The index under which it is removed; None is `idx`.
            attempts: How often it was tried.
            if_version: The version that it is to have as it is committed; None: any.

        Raises:
            ItemNameError: If that can be no index.
        """
        idx = check_index(idx)
        target = idx if target is None else check_index(target)
        moved_to = None if target == idx else target
        record = SampleRecord(idx, "removed", target=moved_to, attempts=attempts)
        staged = StagedSample(record, origin, is_removal=True, if_version=if_version)
        self.samples[idx] = staged
        self._targets.add(target)

    def move(
        self,
        record: SampleRecord,
        names: Mapping[str, str],
        found: Mapping[str, str | None],
    ) -> None:
        """Stages a sample with all of its files to be found under another index.

        Args:
            record: Its entry in the ledger, with its old index and its target.
            names: The name that each of its files gets, by the name that it has.
            found: The marks of its files, by name: other files, or more, are a conflict.

        Raises:
            FileNotFoundError: If a file is not there any more.
            OSError: If one cannot be linked or copied.
        """
        staged = StagedSample(record, None, removes=tuple(names), found=found, is_move=True)
        self.samples[record.idx] = staged
        self._targets.add(record.written_at)
        data = self.layout.data
        staged.files.extend(self._kept(new, f"{data}/{old}") for old, new in names.items())

    @property
    def leaving(self) -> set[str]:
        """The names of the files of all samples that are moved elsewhere."""
        return {name for one in self.samples.values() if one.is_move for name in one.removes}

    def record(self, record: SampleRecord, origin: SampleOrigin | None = None) -> None:
        """Notes the outcome of a sample of which nothing is written."""
        self.samples[record.idx] = StagedSample(record, origin)

    def restore(
        self,
        idx: int,
        files: Mapping[str, str | FileSource],
        removes: Iterable[str] = (),
        *,
        found: Mapping[str, str | None] | None = None,
        origin: SampleOrigin | None = None,
    ) -> None:
        """Stages files that were kept, as they are, to be put in place under their names.

        Other files of their keys are superseded by them.

        Args:
            idx: The sample.
            files: The path of each kept file, or a source of it, by the name that it gets.
            removes: Names to remove.
            found: The marks of files, by name. A file of another mark is a conflict.
            origin: The files that it was made from, where they are to be as they were then.

        Raises:
            OSError: If a file cannot be linked or copied there.
        """
        record = SampleRecord(idx, "written")
        staged = StagedSample(record, origin, removes=tuple(removes), found=found)
        self.samples[idx] = staged
        staged.files.extend(self._kept(name, path) for name, path in files.items())

    def restore_shared(self, files: Mapping[str, str | FileSource]) -> None:
        """Stages shared items that were kept, as they are, to be placed where there are none.

        Args:
            files: The path of each kept file, or a source of it, by the name that it gets, with a
                leading slash.

        Raises:
            OSError: If a file cannot be linked or copied there.
        """
        self.shared.update((name, self._kept(name, path)) for name, path in files.items())

    def _kept(self, name: str, kept: str | FileSource) -> StagedFile:
        path = f"{self.folder}/{staged_name(name)}"
        link_or_copy(kept if isinstance(kept, str) else kept.path, path)
        source = FileSource(path, _version_of_kept(path, self.layout.final(name)))
        return kept_as(name, source)

    def _refuse_invalid(
        self, judge: Judge, staged: StagedSample, shared_before: Collection[str]
    ) -> None:
        """Refuses a sample with which something is wrong, and what it alone brought to share."""
        shared = list(self.shared.values())
        for one in self.samples.values() if self._replace_shared else ():
            shared += [file for file in one.files if is_shared(file.name)]
        placed = {file.name: file.source.anew() for file in (*shared, *staged.files)}
        try:
            kinds = self.dataset.kinds_of(staged.target)
            gone = {k.name_of(staged.target) for k in kinds if k.key in staged.removed_keys}
            staged.beside = judge.judged(staged.target, placed, gone)
        except (InvalidSampleError, ConflictError):
            judge.forget_shared()
            for name in self.shared.keys() - shared_before:
                os.unlink(self.shared.pop(name).source.path)
            raise

    def _in_mode(self, key: str, item: Item[Any]) -> Item[Any]:
        if key in self._modes:
            item = copy.copy(item)
            item.serialization_mode = self._modes[key]
        return item

    def is_in_place(self, idx: int, key: str, item: Item[Any]) -> bool:
        """Whether an item of a sample's own is in its place already, and would not be staged.

        Raises:
            ItemNameError: If it cannot have a file.
        """
        there = {kind.key: kind for kind in self.dataset.kinds_of(idx)}.get(key)
        return item.is_stored_at(self.layout.final(self._name_for(idx, key, item, there)))

    def _name_for(self, idx: int, key: str, item: Item[Any], there: Kind | None) -> str:
        if there is None:  # what has a file can have another
            check_key(key)
        return self._kind_for(key, item, there).name_of(idx)

    def _stage(self, staged: StagedSample, key: str, item: Item[Any], there: Kind | None) -> None:
        name = self._name_for(staged.target, key, item, there)
        origin = staged.origin
        # What its holder removed is not there any more, whatever the item says.
        was_removed = (
            origin is not None and staged.is_in_place(self.layout) and origin.source_of(key) is None
        )
        if was_removed or not item.is_stored_at(self.layout.final(name)):
            what = f"Sample {staged.target}, item {key!r}"
            replaced = None if origin is None else origin.source_of(key)
            try:
                source = self._store(what, name, item, replaced)
            except ItemError as error:
                if replaced is None or replaced.version is None or replaced.is_there():
                    raise
                raise ConflictError(
                    f"{what}: another writer removed {replaced.path} after it was read: read and "
                    "transform the sample anew.",
                    [staged.record.idx],
                ) from error
            staged.files.append(StagedFile(key, name, source, weakref.ref(item)))

    def _fit_to_old(self, staged: StagedSample, kinds: Iterable[Kind]) -> None:
        """Gives new files the mode and group of those that they replace or supersede.

        Raises:
            ItemNameError: If a folder is in the way: no file can take its place.
        """
        files = {file.key: file for file in staged.files}
        names = {file.name: file for file in staged.files}
        for kind in kinds:
            if kind.key in files:
                names.setdefault(kind.name_of(staged.target), files[kind.key])
        for name, file in reversed(names.items()):  # last, and so in force, that of its own name
            old = self._status_of_old(f"Sample {staged.target}, item {file.key!r}", name)
            if old is not None:
                give_access(file.source.path, old)

    def _status_of_old(self, what: str, name: str) -> os.stat_result | None:
        """What a file is like that is to make way, links followed; None where there is none."""
        path = self.layout.final(name)
        found = status_of(path)
        if found is None:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise ItemNameError(f"{what}: {path} is a folder. Remove or rename it.")
        return status_through_links(path) if stat.S_ISLNK(found.st_mode) else found

    def _stage_shared(self, key: str, item: Item[Any], staged: StagedSample) -> None:
        if self._shared_there is None:
            self._shared_there = self.dataset.shared_files()
        there = self._shared_there.get(key)
        if any(file.key == key for file in self.shared.values()):
            return  # staged with another sample
        if there is not None:
            self._keep_or_replace(key, "/" + there, item, staged)
            return
        name = "/" + check_key(key) + _extension_for(key, item)
        self._status_of_old(f"Shared item {key!r}", name)
        source = self._store(f"Shared item {key!r}", name, item)
        self.shared[name] = StagedFile(key, name, source, weakref.ref(item))

    def _keep_or_replace(self, key: str, name: str, item: Item[Any], staged: StagedSample) -> None:
        """Leaves a shared item that is there as it is, unless it is among those to replace."""
        final = self.layout.final(name)
        if not item.has_value or item.is_stored_at(final):
            return
        if any(file.name == name for sample in self.samples.values() for file in sample.files):
            return  # staged with another sample
        source = self._store(f"Shared item {key!r}", name, item)
        there = self._shared_content(name)
        is_equal = there is not None and there.digest == source.digest
        if is_equal or key not in self._replace_shared:
            os.unlink(source.path)
            if there is not None and is_equal:
                item.add_source(there)  # the next sample that has it need not be compared
            else:
                warnings.warn(
                    f"{self.layout.root}: the shared item {name[1:]} is there already and stays as "
                    "it is. To change it for one sample, give that sample an item of its own "
                    "(`set_value_as(..., shared_item=False)`).",
                    stacklevel=2,
                )
            return
        was = item.made_from
        is_of_it = was is not None and was.path == final
        found = was.version.mark if is_of_it and was and was.version else None
        staged.files.append(StagedFile(key, name, source, weakref.ref(item), found))

    def _store(
        self, what: str, name: str, item: Item[Any], replaced: FileSource | None = None
    ) -> FileSource:
        path = f"{self.folder}/{staged_name(name)}"
        try:
            return item.store(path, replaced)
        except ItemError as error:
            raise type(error)(f"{what}: {error}") from error

    def _kind_for(self, key: str, item: Item[Any], there: Kind | None) -> Kind:
        """The name's form: as the file that is there, if it may be, else as for a new one."""
        extension = None
        if there is not None:
            readable = item.file_extensions() or (_extension_for(key, item).lower(),)
            if extension_of(there.tail) in readable:
                if self._zfill is None:
                    return there
                extension = there.extension
        if extension is None:
            extension = _extension_for(key, item)
        return Kind(key + extension, self._default_zfill() if self._zfill is None else self._zfill)

    def refuse_changed_shared(self) -> None:
        """Checks that what replaces a shared item was made of what is there. The lock is held.

        Raises:
            DatasetError: If another writer changed it since, or made it.
        """
        staged = [file for sample in self.samples.values() for file in sample.files]
        for file in (*self.shared.values(), *staged):
            if not is_shared(file.name) or file.key not in self._replace_shared:
                continue
            final = self.layout.final(file.name)
            if self._shared_mark(file.name) == file.found:
                continue
            there = self._shared_content(file.name)
            if there is None or there.digest != file.source.digest:
                raise DatasetError(
                    f"{final}: another writer changed this shared item, which was to be replaced "
                    "by one made of what it was before. What was written is kept; run it again."
                )

    def _shared_mark(self, name: str) -> str | None:
        """The mark of a shared item's file as it is now; None where there is none."""
        return mark_at(self.layout.final(name))

    def _shared_content(self, name: str) -> FileSource | None:
        """A shared item's file as it is now, read; None where there is none, or it cannot be."""
        there = self._shared_source(name)
        try:
            if there is not None:
                there.read()
        except (FileNotFoundError, DecodeError):
            return None
        return there

    def _shared_source(self, name: str) -> FileSource | None:
        return FileSource(self.layout.final(name))

    def drop_files(self, staged: StagedSample) -> None:
        """Removes the staged files of a sample that is not to be written."""
        for file in staged.files:
            with suppress(FileNotFoundError):
                os.unlink(file.source.path)

    def look(self) -> None:
        """Looks up which files the samples have. The caller holds the commit lock."""
        if any(one.is_removal or one.if_version is not None for one in self.samples.values()):
            self.dataset.learn_kinds()
        for staged in self.samples.values():
            if staged.is_removal:
                staged.there = self.dataset.all_kinds_of(staged.target)
            elif staged.changes_files:
                staged.there = self.dataset.kinds_of(staged.target)
            if staged.is_move:
                staged.left_behind = self.dataset.kinds_of(staged.record.idx)

    def hold(self) -> None:
        """Keeps the folder: a commit of what is in it is logged, and still to be applied."""
        self._is_held = True

    def release(self) -> None:
        """Does not need the folder any more."""
        self._is_held = False

    def clear(self) -> None:
        """Forgets what was staged; its files are in their places."""
        self.samples.clear()
        self._targets.clear()
        self.shared.clear()

    def discard(self) -> bool:
        """Removes what was staged and not published.

        Returns:
            Whether the folder is empty now: not if the commit is logged and still to be applied,
            nor if it cannot be emptied, which is left to the next sweep.
        """
        if self.samples or self.shared:
            self.clear()
            if not self._is_held:
                try:
                    empty_folder(self.folder)
                except OSError:  # as without a file handle left
                    self._is_held = True
        return not self._is_held


def _extension_for(key: str, item: Item[Any]) -> str:
    """The extension that a new file of an item gets."""
    extension = item.extension_in_use()
    if not extension:
        raise ItemNameError(
            f"Item {key!r}, {item!r}: a file without an extension would not be found again. Give "
            "it one, or use another item class."
        )
    return extension


def kept_as(name: str, source: FileSource) -> StagedFile:
    """A file that was kept, as one that is staged.

    Args:
        name: The name that it gets.
        source: The file.
    """
    return StagedFile(key_of(name) if not is_shared(name) else name, name, source)


def _version_of_kept(path: str, final: str) -> Version:
    """The version that a kept file will have in its place: a link leads on from there."""
    if is_link(path):
        target = os.path.join(os.path.dirname(final), os.readlink(path))
        if (found := status_through_links(target)) is not None:
            return Version.of(found)
    return Version.of(os.lstat(path))
