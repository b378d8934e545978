"""A dataset in a bucket with its log, copied to another address, and brought up to date there.

The order makes it a dataset at every moment, whoever dies when: files that the log does not know,
and what was there before it; then, of some entries at a time, the contents and the entries
themselves, in their order; then the files in their places, as any writer puts them there.
"""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from prefect_pipestream.errors import DatasetError, DatasetExistsError
from prefect_pipestream.storage.address import Address, is_address, place_of
from prefect_pipestream.storage.file_source import digest_at
from prefect_pipestream.storage.lots import lots
from prefect_pipestream.storage.store import (
    ObjectExistsError,
    Stat,
    Store,
    at_once,
    open_store,
)
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import LOG, entry_key, object_of, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog, whole_log
from prefect_pipestream.underfolder.bucket.pruning import needed_contents
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, PRIVATE_FOLDER

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_OF_CONTENT = re.compile("[0-9a-f]{32}(-[0-9]+)?")  # etags that two contents do not share
_MARKER = f"{PRIVATE_FOLDER}/copied-from"
_ENTRIES = 64
_FILES = 1024


@dataclass(frozen=True)
class CopyReport:
    """What a copy of a dataset brought that was not there.

    Attributes:
        source: Where it is from.
        target: Where it is now.
        entries: How many entries of the log.
        contents: How many contents that entries name.
        files: How many files that the log does not know, or that others changed since.
        gone: How many contents are kept no more, which the state of now does not need.
    """

    source: str
    target: str
    entries: int
    contents: int
    files: int
    gone: int


def copy_dataset(source: Folder, target: Folder) -> CopyReport:
    """Copies a dataset in a bucket with all its runs; see `opening.copy_dataset`."""
    one, other = _address(source), _address(target)
    if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
        raise DatasetError(
            f"{other}: a dataset cannot be copied into itself ({one}). Give an address elsewhere."
        )
    return _Copying(one, other).done()


def _address(place: Folder) -> Address:
    found = place_of(os.fspath(place))
    if not is_address(found):
        raise DatasetError(
            f"{place}: this is a folder, and datasets are copied with all their runs from one "
            "address (s3://…) to another. Samples are copied from and to folders by "
            "`pipestream build`, or `process_samples` with an output; and a folder with all that "
            "is in it by `cp -a` or `rsync`."
        )
    return Address.of(found)


class _Copying:
    """One copy of a dataset.

    Args:
        source: The dataset's address.
        target: The copy's.
    """

    def __init__(self, source: Address, target: Address) -> None:
        self._from, self._to = source, target
        self._source, self._target = open_store(source), open_store(target)
        self._there = list(self._target.objects_in(LOG))  # before the source's is read
        self._log = BucketLog(open_store(source))  # all of its entries are heard of, here alone
        self._originals: dict[str, Ref] = {}
        self._mentioned: set[str] = set()
        self._heard = 0
        self._has_pruned = False
        self._log.when_added(self._hear)
        self._dataset = Bucket(source, watch=True, log=self._log)
        self._entries = self._contents = self._files = self._gone = 0

    def _hear(self, entry: Entry) -> None:
        """Notes what files were before the log changed them, of entries that are to be copied."""
        self._heard += 1
        is_new = self._heard > len(self._there)
        self._has_pruned |= is_new and bool(entry.pruned)
        for name, ref in entry.before.items():
            if is_new and name not in self._mentioned:
                self._originals[name] = ref
        self._mentioned.update(entry.names)

    def done(self) -> CopyReport:
        """Does it."""
        self._refuse_other_log()
        self._target.require_create(PRIVATE_FOLDER)
        is_resumed = self._is_marked()
        plain, changed = self._files_beside_log()
        self._copy_files(plain)
        self._log.refresh()  # what came since may have changed these files: then it is copied, too
        last = self._log.state.position
        _in_chunks(self._copy_original, self._originals.items())
        for begin in range(len(self._there) + 1, last + 1, _ENTRIES):
            self._copy_entries(range(begin, min(begin + _ENTRIES, last + 1)), is_resumed)
            is_resumed = False
        copy = whole_log(open_store(self._to))
        copy.placing.recover()
        self._copy_files(changed)
        if self._has_pruned:
            self._remove_unneeded(copy)
        return CopyReport(
            self._from, self._to, self._entries, self._contents, self._files, self._gone
        )

    # -- what is there -----------------------------------------------------------------

    def _refuse_other_log(self) -> None:
        """Checks that the target's log is the beginning of the source's.

        Raises:
            DatasetExistsError: If it is not.
        """
        ours = list(islice(self._source.objects_in(LOG), len(self._there)))
        for number, its in enumerate(self._there, start=1):
            mine = ours[number - 1] if number <= len(ours) else None
            if mine is None or its.key != entry_key(number) or not self._is_same(mine, its):
                raise self._was_written_to(number)

    def _is_same(self, mine: Stat, its: Stat) -> bool:
        """Whether objects of the source and the target have one content; mostly without a look."""
        if mine.size != its.size:
            return False
        if mine.etag == its.etag and _OF_CONTENT.fullmatch(mine.etag):
            return True
        return self._source.read(mine.key).data == self._target.read(its.key).data

    def _was_written_to(self, number: int) -> DatasetExistsError:
        return DatasetExistsError(
            f"{self._to}: entry {number} of its log is not that of {self._from}: it was written "
            "to, or is another dataset. Nothing of it was changed. Give another address for the "
            "copy, or remove what is there."
        )

    def _is_marked(self) -> bool:
        """Marks the target as a copy; tells whether it was one.

        Raises:
            DatasetExistsError: If there is something that is no copy of this source.
        """
        known = self._marked_as()
        if self._there or known == self._from:
            return True
        if known is not None or self._is_anything_there():
            what = "there is something already" if known is None else f"it is a copy of {known}"
            raise DatasetExistsError(
                f"{self._to}: {what}, and {self._from} is not to be mixed with it. Give another "
                "address for the copy, or remove what is there."
            )
        try:
            self._target.create(_MARKER, self._from.encode())
        except ObjectExistsError:
            return self._is_marked()  # by somebody else just now
        return False

    def _marked_as(self) -> str | None:
        try:
            return self._target.read(_MARKER).data.decode(errors="replace")
        except FileNotFoundError:
            return None

    def _is_anything_there(self) -> bool:
        is_sample = next(self._target.objects_in(DATA_FOLDER), None) is not None
        return is_sample or bool(self._target.files_in())

    # -- files that the log does not know ----------------------------------------------

    def _files_beside_log(self) -> tuple[list[Stat], list[Stat]]:
        """The files that the log does not know, and those that others changed since it put them."""
        files = list(_files_of(self._source))
        known = self._log.state.refs
        plain = [stat for name, stat in files if name not in known]
        put = [one for one in files if one[0] in known]
        return plain, _in_chunks(self._if_changed, put)

    def _if_changed(self, file: tuple[str, Stat]) -> Stat | None:
        """A file that the log has put, or removed, if others have put something else there."""
        name, stat = file
        ref, now = self._log.state.refs[name], self._dataset.contents.version_of(name, stat)
        is_as_by_log = now is None or (ref is not None and ref.version().may_be(now))
        return None if is_as_by_log else stat

    def _copy_files(self, files: Sequence[Stat]) -> None:
        if files:
            there = {stat.key: stat for _, stat in _files_of(self._target)}
            _in_chunks(partial(self._copy_file, there), files)

    def _copy_file(self, there: dict[str, Stat], file: Stat) -> None:
        its = there.get(file.key)
        if its is not None and self._is_same(file, its):
            return
        try:
            self._copy(file.key, file.key, file.size)
        except FileNotFoundError:
            return  # removed just now
        self._files += 1

    # -- the log -----------------------------------------------------------------------

    def _copy_original(self, one: tuple[str, Ref]) -> None:
        """Puts in place what a file was before the log changed it: it is so until then."""
        name, ref = one
        try:
            self._copy(object_of(ref), view_of(name), ref.size, ref)
        except FileNotFoundError:
            _log.info("%s: what %s was first is kept no more.", self._from, name)

    def _copy_entries(self, numbers: range, is_resumed: bool) -> None:
        """Copies some entries: all contents that they name, then one after the other.

        Args:
            numbers: Their numbers.
            is_resumed: Whether some contents may be there, as an earlier copy was interrupted.
        """
        read = at_once(self._log.content_of, numbers)
        contents = [self._found(number, one) for number, one in zip(numbers, read, strict=True)]
        entries = [self._log.parsed(n, one) for n, one in zip(numbers, contents, strict=True)]
        there = self._contents_there(entries) if is_resumed else {}
        wanted = {ref.object: (entry, ref) for entry in entries for ref in entry.refs}
        self._refuse_lost(_in_chunks(partial(self._copy_content, there), wanted.values()))
        for number, content in zip(numbers, contents, strict=True):
            self._create(number, content)

    def _found(self, number: int, content: bytes | None) -> bytes:
        if content is None:
            raise DatasetError(f"{self._from / entry_key(number)}: it was removed just now.")
        return content

    def _contents_there(self, entries: Iterable[Entry]) -> dict[str, Stat]:
        folders = [f"{PRIVATE_FOLDER}/objects/{entry.id}" for entry in entries]
        found = at_once(lambda folder: list(self._target.objects_in(folder)), folders)
        return {stat.key: stat for some in found for stat in some}

    def _copy_content(self, there: dict[str, Stat], one: tuple[Entry, Ref]) -> Ref | None:
        """Copies what an entry names, if that is not there; returns it if it is kept no more."""
        entry, ref = one
        key = object_of(ref)
        its = there.get(key)
        if not ref.object.startswith(f"objects/{entry.id}/"):
            its = self._target.stat(key)  # it came with an earlier entry, as that of an undo
            if its is not None and its.size == ref.size:
                return None
        elif its is not None and (its.size, its.etag) == (ref.size, ref.etag):
            return None
        try:
            self._copy(key, key, ref.size, ref)
        except FileNotFoundError:
            return ref
        self._contents += 1
        return None

    def _refuse_lost(self, gone: Sequence[Ref]) -> None:
        """Checks that nothing is gone that files are to hold.

        Raises:
            DatasetError: If something is.
        """
        self._gone += len(gone)
        lost = self._in_place(gone)
        if not lost:
            return
        self._log.refresh()
        if not self._in_place(gone):
            raise DatasetError(
                f"{self._from}: files were changed, and runs pruned, while it was copied. Repeat "
                "the copy: it goes on."
            )
        raise DatasetError(
            f"{self._from}: {len(lost)} objects that its files are to hold are gone, such as "
            f"{lost[0]}. Restore them, and repeat the copy."
        )

    def _in_place(self, refs: Iterable[Ref]) -> list[str]:
        """The keys of those contents that files are to hold, as far as the log was read."""
        held = {ref.object for ref in self._log.state.refs.values() if ref is not None}
        return [object_of(ref) for ref in refs if ref.object in held]

    def _remove_unneeded(self, copy: BucketLog) -> None:
        """Removes contents of the copy that pruned runs alone needed."""
        named = {object_of(ref) for entry in copy.all_entries() for ref in entry.refs}
        unneeded = named - needed_contents(copy)
        kept = self._target.objects_in(f"{PRIVATE_FOLDER}/objects")
        _in_chunks(self._target.delete, (stat.key for stat in kept if stat.key in unneeded))

    def _create(self, number: int, content: bytes) -> None:
        key = entry_key(number)
        try:
            self._target.create(key, content)
        except ObjectExistsError as error:  # of another copy just now, or the answer was lost
            if self._target.read(key).data != content:
                raise self._was_written_to(number) from error
        self._entries += 1

    # -- copying -----------------------------------------------------------------------

    def _copy(self, key: str, target_key: str, size: int, ref: Ref | None = None) -> None:
        """Copies an object, by the store where it can, else through a file here.

        Raises:
            FileNotFoundError: If it is not there.
            DatasetError: If it has not the content that it is to have, as far as it was read.
            StoreError: If it cannot be copied.
        """
        if self._target.copies_from(self._source):
            self._target.copy_from(self._source, key, target_key, size)
            return
        with tempfile.NamedTemporaryFile(prefix="pipestream-") as file:
            self._source.fetch(key, file)
            if ref is not None and digest_at(file.name).hex() != ref.digest:
                raise DatasetError(
                    f"{self._from / key}: this object has not the content that it was written "
                    "with. Restore it, and repeat the copy."
                )
            self._target.put_file(target_key, file.name)


def _in_chunks(work: Callable[[T], R | None], things: Iterable[T]) -> list[R]:
    """Does some work on many things, of which a part waits at a time; what it gave for some."""
    found: list[R] = []
    for some in lots(things, _FILES):
        found += [one for one in at_once(work, some) if one is not None]
    return found


def _files_of(store: Store) -> Iterator[tuple[str, Stat]]:
    """The files of a dataset, by their names: samples' own ones, and those in its root."""
    for stat in store.objects_in(DATA_FOLDER):
        if stat.key.count("/") == 1:
            yield stat.name, stat
    for stat in store.files_in():
        yield "/" + stat.name, stat
