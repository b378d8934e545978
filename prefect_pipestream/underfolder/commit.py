"""One commit: stage the files of some samples, then put them all in place or none."""

import copy
import os
import secrets
import stat
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from prefect_pipestream.errors import (
    ConflictError,
    DatasetWriteError,
    ItemError,
    ItemNameError,
)
from prefect_pipestream.items import FileSource, FileStamp, Item, SerializationMode
from prefect_pipestream.underfolder.apply import (
    RECORD,
    UNDO,
    commit_lock,
    empty_folder,
    link_or_copy,
    place,
    revert,
    sync_folder,
)
from prefect_pipestream.underfolder.attempts import refuse_if_taken_over
from prefect_pipestream.underfolder.dataset import SampleOrigin, Underfolder, tick_ns
from prefect_pipestream.underfolder.layout import Layout, staged_name
from prefect_pipestream.underfolder.names import Kind, check_index, check_key, key_of
from prefect_pipestream.underfolder.records import (
    CommitRecord,
    SampleRecord,
    mark_at,
    mark_of,
    signature_of,
)

OnConflict = Literal["raise", "overwrite"]

_LONGEST_WAIT_NS = 3_000_000_000


@dataclass
class StagedFile:
    """One staged file: the item it holds and the name it gets."""

    key: str
    name: str
    source: FileSource
    item: Item[Any]


@dataclass
class StagedSample:
    """One sample of a commit that is being prepared.

    Attributes:
        record: Its entry in the ledger, as far as it is known.
        origin: The files it was read from.
        files: The files to place.
        removes: Names to remove, besides those that the files supersede.
        found: `mark_at` of files, by name: a file of another mark is another writer's change.
    """

    record: SampleRecord
    origin: SampleOrigin | None
    files: list[StagedFile] = field(default_factory=list)
    removes: tuple[str, ...] = ()
    found: Mapping[str, str | None] | None = None

    @property
    def target(self) -> int:
        """The index under which it is written."""
        return self.record.idx if self.record.target is None else self.record.target


class Commit:
    """Samples that are written together.

    Files are staged as they come, below ``.pipestream/staged``; `publish` puts them in place.

    Args:
        dataset: The dataset that is written, for its index.
        folder: The folder for the staged files: empty, and no other commit's.
        zfill: The digits to which new names are padded; None keeps names that exist.
        default_zfill: Tells the digits for new names where `zfill` is None.
        modes: The serialization mode of items, by key.
        durable: Whether the commit survives a loss of power once `publish` returns.
        on_conflict: Whether another writer's change to a sample since it was read is an error.
        signed: Whether the records say what the samples' files are like after the commit.
        attempt: The attempt at the run that this is part of, if it has the run to itself.
    """

    def __init__(
        self,
        dataset: Underfolder,
        folder: str,
        *,
        zfill: int | None = None,
        default_zfill: Callable[[], int] = lambda: 0,
        modes: Mapping[str, SerializationMode] | None = None,
        durable: bool = False,
        on_conflict: OnConflict = "raise",
        signed: bool = False,
        attempt: str | None = None,
    ) -> None:
        self._dataset = dataset
        self._layout = Layout(str(dataset.folder))
        self._folder = folder
        self._zfill = zfill
        self._default_zfill = default_zfill
        self._modes = modes or {}
        self._durable = durable
        self._on_conflict = on_conflict
        self._signed = signed
        self._attempt = attempt
        self._samples: dict[int, StagedSample] = {}
        self._shared: dict[str, StagedFile] = {}
        self._shared_there: Mapping[str, str] | None = None
        self._is_logged = False  # and not yet applied: the staged files are needed

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, idx: int) -> bool:
        """Whether a sample is to be written under `idx`, or was read under it."""
        return idx in self._samples or any(s.target == idx for s in self._samples.values())

    def is_empty(self) -> bool:
        """Whether there is no file to put in place."""
        return not self._shared and not any(s.files or s.removes for s in self._samples.values())

    @property
    def samples(self) -> list[StagedSample]:
        """What is to be committed, by index."""
        return [self._samples[idx] for idx in sorted(self._samples)]

    @property
    def shared(self) -> dict[str, StagedFile]:
        """The shared items that are to be written, by name with a leading slash."""
        return dict(self._shared)

    # -- staging -----------------------------------------------------------------------

    def add(
        self,
        idx: int,
        items: Mapping[str, Item[Any]],
        *,
        keys: Collection[str] | None = None,
        origin: SampleOrigin | None = None,
        target: int | None = None,
        attempts: int = 1,
    ) -> bool:
        """Stages the files of one sample that are not in place already.

        Args:
            idx: The index under which the sample was read.
            items: Its items.
            keys: The items to write; None is all. A key that the sample lacks is left alone.
            origin: The files it was read from.
            target: The index under which it is written; None is `idx`.
            attempts: How often it was tried.

        Returns:
            Whether the sample has a file that is to be written.

        Raises:
            ItemNameError: If a key or an index cannot be part of a file name, or a folder has the
                name that a file is to get.
            EncodeError, DecodeError: If an item cannot be written; the message names it.
            DatasetWriteError: If the disk is full, read-only or not permitted.
            TypeError: If `keys` is a single string, in which any part of it would be found.
        """
        if isinstance(keys, str):
            raise TypeError(f"keys {keys!r}: expected a collection of keys, such as [{keys!r}].")
        idx = check_index(idx)
        target = idx if target is None else check_index(target)
        staged = StagedSample(
            SampleRecord(idx, "unchanged", target=None if target == idx else target), origin
        )
        staged.record = replace(staged.record, attempts=attempts)
        try:
            kinds = self._dataset.kinds_of(target)
            there = {kind.key: kind for kind in kinds}
            chosen = [
                (k, self._in_mode(k, i)) for k, i in items.items() if keys is None or k in keys
            ]
            for key, item in chosen:
                if not item.is_shared:
                    self._stage(staged, key, item, there.get(key))
            self._refuse_folders(staged, kinds)
            for key, item in chosen:  # last: they stay staged if the sample is not written
                if item.is_shared:
                    self._stage_shared(key, item)
        except BaseException as error:
            self._drop_files(staged)
            if isinstance(error, OSError) and not isinstance(error, ItemError):
                raise DatasetWriteError(
                    error.errno,
                    f"Sample {target} could not be written to {self._layout.root}: "
                    f"{error.strerror or error}. The dataset is as it was",
                ) from error
            raise
        self._samples[idx] = staged
        return bool(staged.files)

    def record(self, record: SampleRecord, origin: SampleOrigin | None = None) -> None:
        """Notes the outcome of a sample of which nothing is written."""
        self._samples[record.idx] = StagedSample(record, origin)

    def restore(
        self,
        idx: int,
        files: Mapping[str, str],
        removes: Iterable[str] = (),
        found: Mapping[str, str | None] | None = None,
    ) -> None:
        """Stages files that were kept, as they are, to be put back under their old names.

        Other files of their keys are superseded by them.

        Args:
            idx: The sample.
            files: The path of each kept file, by the name that it gets.
            removes: Names to remove.
            found: `mark_at` of files, by name. A file of another mark is a conflict.

        Raises:
            OSError: If a file cannot be linked or copied to the stage.
        """
        staged = StagedSample(SampleRecord(idx, "written"), None)
        staged.removes, staged.found = tuple(removes), found
        self._samples[idx] = staged
        for name, kept in files.items():
            path = f"{self._folder}/{staged_name(name)}"
            link_or_copy(kept, path)
            source = FileSource(path, _stamp_of_kept(path, self._layout.final(name)))
            key = key_of(name) if name[0] != "/" else name
            staged.files.append(StagedFile(key, name, source, Item.from_source(source)))

    def _in_mode(self, key: str, item: Item[Any]) -> Item[Any]:
        if key in self._modes:
            item = copy.copy(item)
            item.serialization_mode = self._modes[key]
        return item

    def _stage(self, staged: StagedSample, key: str, item: Item[Any], there: Kind | None) -> None:
        if there is None:  # what has a file can have another
            check_key(key)
        name = self._kind_for(key, item, there).name_of(staged.target)
        if not item.is_stored_at(self._layout.final(name)):
            source = self._store(f"Sample {staged.target}, item {key!r}", name, item)
            staged.files.append(StagedFile(key, name, source, item))

    def _refuse_folders(self, staged: StagedSample, kinds: Iterable[Kind]) -> None:
        """Raises `ItemNameError` where a folder is in the way: no file can take its place."""
        keys = {file.key for file in staged.files}
        names = [kind.name_of(staged.target) for kind in kinds if kind.key in keys]
        for name in dict.fromkeys([*(file.name for file in staged.files), *names]):
            self._refuse_folder(f"Sample {staged.target}, item {key_of(name)!r}", name)

    def _refuse_folder(self, what: str, name: str) -> None:
        path = self._layout.final(name)
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                raise ItemNameError(f"{what}: {path} is a folder. Remove or rename it.")

    def _stage_shared(self, key: str, item: Item[Any]) -> None:
        if self._shared_there is None:
            self._shared_there = self._dataset.shared_files()
        there = self._shared_there.get(key)
        if (
            there is not None
            and item.has_value
            and not item.is_stored_at(self._layout.final("/" + there))
        ):
            warnings.warn(
                f"{self._layout.root}: the shared item {there} is there already and stays as it "
                "is. To change it for one sample, give that sample an item of its own "
                "(`set_value_as(..., shared_item=False)`).",
                stacklevel=2,
            )
        if there is not None or any(file.key == key for file in self._shared.values()):
            return  # written once, and never overwritten
        name = "/" + check_key(key) + _extension_for(key, item)
        self._refuse_folder(f"Shared item {key!r}", name)
        source = self._store(f"Shared item {key!r}", name, item)
        self._shared[name] = StagedFile(key, name, source, item)

    def _store(self, what: str, name: str, item: Item[Any]) -> FileSource:
        path = f"{self._folder}/{staged_name(name)}"
        try:
            return item.store(path)
        except ItemError as error:
            raise type(error)(f"{what}: {error}") from error

    def _kind_for(self, key: str, item: Item[Any], there: Kind | None) -> Kind:
        """The name's form: as the file that is there, if it may be, else as for a new one."""
        extension = _extension_for(key, item)
        readable = item.file_extensions() or (extension.lower(),)
        # As on reading, the last of several extensions counts.
        if there is not None and "." + there.extension.lower().rpartition(".")[2] in readable:
            if self._zfill is None:
                return there
            extension = there.extension
        return Kind(key + extension, self._default_zfill() if self._zfill is None else self._zfill)

    def _drop_files(self, staged: StagedSample) -> None:
        for file in staged.files:
            with suppress(FileNotFoundError):
                os.unlink(file.source.path)

    def discard(self) -> bool:
        """Removes what was staged and not published.

        Returns:
            Whether the folder is empty now: not if the commit is logged and still to be applied.
        """
        if self._samples or self._shared:
            self._samples.clear()
            self._shared.clear()
            if not self._is_logged:
                empty_folder(self._folder)
        return not self._is_logged

    # -- publishing --------------------------------------------------------------------

    def publish(self, run_key: str, tag: str, drops: Iterable[str] = ()) -> list[StagedSample]:
        """Puts all files in place and notes the outcomes in the run's ledger.

        Args:
            run_key: The run.
            tag: The part of the run.
            drops: Commits that this one takes back; see `CommitRecord`.

        Returns:
            The samples as committed, each file's source now in its place.

        Raises:
            ConflictError: If another writer changed samples since they were read; the others
                are committed, unless this commit takes others back. ``error.indices`` are to
                be read and transformed anew.
            RunTakenOverError: If a later attempt at the run has it; nothing is written.
            DatasetWriteError: If it could not be written; the dataset is as it was.
        """
        if not self._samples and not self._shared:
            return []
        if self._signed:
            self._wait_until_not_racy()
        try:
            with commit_lock(self._layout):
                if self._attempt is not None:
                    refuse_if_taken_over(self._layout, run_key, self._attempt)
                conflicts = self._drop_conflicting()
                if conflicts and drops:
                    self.discard()  # what takes a commit back takes all of it back
                if self._samples or self._shared:
                    self._place(self._log(run_key, tag, tuple(drops)))
        except OSError as error:
            if isinstance(error, DatasetWriteError):
                raise
            self.discard()
            raise DatasetWriteError(
                error.errno,
                f"{self._layout.root}: the commit could not be written: "
                f"{error.strerror or error} ({error.filename2 or error.filename}). The dataset is "
                "as it was",
            ) from error
        committed = list(self._samples.values())
        self._take_over(committed)
        self._samples.clear()
        self._shared.clear()
        if conflicts:
            raise ConflictError(
                f"{self._layout.root}: another writer changed sample"
                f"{'s' if len(conflicts) > 1 else ''} {_some(conflicts)} after they were read: "
                "read and transform them anew.",
                conflicts,
            )
        return committed

    def _wait_until_not_racy(self) -> None:
        """Lets the clock's tick pass in which a source was changed just before it was read.

        After it, size and time tell whether the file was changed again.
        """
        now = time.time_ns()
        left = max(
            (
                source.stamp.mtime_ns + tick_ns(source.stamp.mtime_ns) - now
                for staged in self._samples.values()
                if staged.origin is not None
                for source in staged.origin.sources.values()
                if source.stamp is not None
            ),
            default=0,
        )
        if 0 < left < _LONGEST_WAIT_NS:  # a time in the future is no fresh change
            time.sleep(left / 1e9)

    def _drop_conflicting(self) -> list[int]:
        if self._on_conflict == "overwrite":
            return []
        conflicts = [idx for idx, staged in self._samples.items() if self._is_stale(staged)]
        for idx in conflicts:
            self._drop_files(self._samples.pop(idx))
        return conflicts

    def _is_stale(self, staged: StagedSample) -> bool:
        """Whether a file that the sample was made from, or replaces, is another one now.

        The source may be another dataset: then a sample is not to mix old items with new ones.
        """
        if staged.found is not None:
            return any(mark_at(self._layout.final(n)) != mark for n, mark in staged.found.items())
        origin = staged.origin
        if origin is None:
            return False
        in_place = (origin.folder, origin.idx) == (self._layout.root, staged.target)
        replaced: set[str | None] = {file.key for file in staged.files} if in_place else set()
        for name, source in origin.sources.items():
            key = None if name[0] == "/" else key_of(name)
            if (source.digest is not None or key in replaced) and _is_changed(source):
                return True
            replaced -= {key}
        # What is left of the keys had no file when the sample was read: nor may it have now.
        return any(
            os.path.lexists(self._layout.final(file.name))
            for file in staged.files
            if file.key in replaced
        )

    def _log(self, run_key: str, tag: str, drops: tuple[str, ...]) -> CommitRecord:
        """Keeps the old files, then writes the record: from here on the commit happens."""
        samples = tuple(
            self._final_record(staged, self._dataset.kinds_of(staged.target))
            for staged in self.samples
        )
        record = CommitRecord(
            id=f"{time.time_ns():016x}-{secrets.token_hex(3)}",
            run_key=run_key,
            tag=tag,
            staged=os.path.relpath(self._folder, self._layout.private),
            at=time.time(),
            samples=samples,
            shared={name: mark_of(_stamp(file.source)) for name, file in self._shared.items()},
            drops=drops,
        )
        self._keep_old(samples)
        path = os.path.join(self._folder, RECORD)
        with open(path, "wb") as file:
            file.write(record.to_bytes())
            if self._durable:
                self._sync_staged()
                file.flush()
                os.fsync(file.fileno())
        os.rename(path, self._layout.pending(record.id))
        self._is_logged = True
        if self._durable:
            sync_folder(self._layout.log)
        return record

    def _final_record(self, staged: StagedSample, there: list[Kind]) -> SampleRecord:
        """Says what is to be done for a sample, given the files that are there."""
        record = staged.record
        if staged.files or staged.removes:
            keys = {file.key for file in staged.files}
            writes = {file.name: mark_of(_stamp(file.source)) for file in staged.files}
            names = [kind.name_of(staged.target) for kind in there if kind.key in keys]
            names = list(dict.fromkeys([*staged.removes, *names]))
            record = replace(
                record,
                outcome="written",
                writes=writes,
                replaces=tuple(name for name in writes if self._exists(name)),
                removes=tuple(n for n in names if n not in writes and self._exists(n)),
            )
        if self._signed:
            record = replace(record, signature=self._signature(staged, record))
        staged.record = record
        return record

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self._layout.final(name))

    def _signature(self, staged: StagedSample, record: SampleRecord) -> str | None:
        """The signature of the source's files, as they are after this commit."""
        origin = staged.origin
        if origin is None:
            return None
        files = {name: source.stamp for name, source in origin.sources.items()}
        if (origin.folder, origin.idx) == (self._layout.root, staged.target):
            files.update((file.name, file.source.stamp) for file in staged.files)
            for name in record.removes:
                files.pop(name, None)
        known = {name: stamp for name, stamp in files.items() if stamp is not None}
        return signature_of(known.items()) if len(known) == len(files) else None

    def _keep_old(self, samples: tuple[SampleRecord, ...]) -> None:
        undo = os.path.join(self._folder, UNDO)
        made = False
        for sample in samples:
            for name in (*sample.replaces, *sample.removes):
                if not made:
                    os.mkdir(undo)
                    made = True
                link_or_copy(self._layout.final(name), f"{undo}/{staged_name(name)}")

    def _sync_staged(self) -> None:
        for folder in (os.path.join(self._folder, UNDO), self._folder):
            if os.path.isdir(folder):
                for entry in os.scandir(folder):
                    if entry.is_file(follow_symlinks=False):
                        handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                        os.fsync(handle)
                        os.close(handle)
                sync_folder(folder)

    def _place(self, record: CommitRecord) -> None:
        try:
            place(self._layout, record, durable=self._durable)
            self._is_logged = False
        except OSError as error:
            try:
                if os.path.lexists(self._layout.pending(record.id)):
                    revert(self._layout, record)
                self._is_logged = False
            except OSError as second:
                raise DatasetWriteError(
                    error.errno,
                    f"{self._layout.root}: commit {record.id} is logged but could be neither "
                    f"applied ({error}) nor taken back ({second}). The next writer applies it",
                ) from error
            raise

    def _take_over(self, committed: list[StagedSample]) -> None:
        """Lets the items, and samples read earlier, know of the files that hold them now."""
        for staged in committed:
            for file in staged.files:
                file.source.path = self._layout.final(file.name)
                file.item.add_source(file.source)
                self._dataset.note_written(staged.target, file.key, file.source)
        for name, file in self._shared.items():
            source = FileSource(self._layout.final(name))
            file.item.add_source(source)


def _extension_for(key: str, item: Item[Any]) -> str:
    """The extension that a new file of an item gets."""
    extension = item.as_default_name(Path("name")).suffix
    if not extension:
        raise ItemNameError(
            f"Item {key!r}, {item!r}: a file without an extension would not be found again. Give "
            "it one, or use another item class."
        )
    return extension


def _stamp(source: FileSource) -> FileStamp:
    if source.stamp is None:
        source.stamp = FileStamp.of(os.stat(source.path))
    return source.stamp


def _stamp_of_kept(path: str, final: str) -> FileStamp:
    """The stamp that a kept file will have in its place: a link leads on from there."""
    if os.path.islink(path):
        with suppress(OSError):
            return FileStamp.of(os.stat(os.path.join(os.path.dirname(final), os.readlink(path))))
    return FileStamp.of(os.lstat(path))


def _is_changed(source: FileSource) -> bool:
    """Whether a file's content is not what it was: by its stamp, else by its digest."""
    try:
        stamp = FileStamp.of(os.stat(source.path))
    except OSError as error:
        if source.stamp is None and os.path.islink(source.path):
            return False  # a link that led nowhere when it was taken, too
        if not isinstance(error, FileNotFoundError):
            raise
        return True
    was = source.stamp
    if stamp == was and (
        source.digest is None or source.read_at_ns - was.mtime_ns > tick_ns(was.mtime_ns)
    ):
        return False
    if source.digest is None or source.stamp is None or stamp.size != source.stamp.size:
        return True
    now = FileSource(source.path)
    try:
        now.read()
    except ItemError:  # it is no regular file any more
        return True
    return now.digest != source.digest


def _some(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:5]))
    return f"{shown} and {len(indices) - 5} more" if len(indices) > 5 else shown
