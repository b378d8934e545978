"""What paths into metadata lead to, in all samples of a dataset.

A metadata file is read once, and what it says kept by the file's version. Each query looks at the
version of each file (one `stat`; of a bucket, what a listing said), and reads those that changed.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.asking import NO_RIGHT, is_there
from prefect_pipestream.underfolder.catalog.documents import (
    PROBLEM,
    as_text,
    from_text,
    problem_as_text,
    values_at,
)
from prefect_pipestream.underfolder.catalog.kept import Ints, Kept, Rows, Shelf, Values
from prefect_pipestream.underfolder.catalog.reading import (
    MOST_INODE,
    Document,
    is_metadata,
    read_document,
    read_documents,
    read_elsewhere,
)
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.caches import place_for_caches
from prefect_pipestream.underfolder.format.index import each_once
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import Kind

_THREADS = 2  # more of them only wait for each other
_SCALARS = (str, int, float, bool, type(None))
_NONE = -1  # the code of a sample without a document


@dataclass(frozen=True)
class Column:
    """What a path leads to.

    Attributes:
        codes: For each sample a position in `values`: int64.
        values: All that the path leads to; nothing where it leads nowhere.
    """

    codes: Ints
    values: Values


class _Files(NamedTuple):
    """The own files of one item: by ascending index, one a sample."""

    idx: Ints
    kind: Ints
    kinds: list[Kind]

    def name(self, at: int) -> str:
        kind: Kind = self.kinds[self.kind[at]]
        return kind.name_of(int(self.idx[at]))

    def names(self) -> list[str]:
        """The names of all, made many at a time."""
        if not len(self.kind) or (self.kind != self.kind[0]).any():
            return [self.name(at) for at in range(len(self.idx))]
        kind: Kind = self.kinds[self.kind[0]]
        pattern = f"%0{kind.width}d_" + kind.tail.replace("%", "%%")
        return [pattern % idx for idx in self.idx.tolist()]

    def where(self, chosen: npt.NDArray[Any]) -> "_Files":
        return _Files(self.idx[chosen], self.kind[chosen], self.kinds)


@dataclass
class _Documents:
    """The documents that samples have.

    Attributes:
        codes: For each file the number of its document; -1 where it has none.
        texts: The documents; None: they are those that are kept.
        kept: What is kept of just these documents; None where nothing is.
    """

    codes: Ints
    texts: list[str] | None
    kept: Kept | None


@dataclass
class ItemCatalog:
    """What is known of one item in all samples of a dataset, as they are now.

    Args:
        dataset: The dataset.
        key: The item's key.
        most_reads: How many files may be read for it; None is as many as it takes. Where nothing
            can be kept, it is all or none of them.
        samples: The samples, as they were when they were listed: int64, ascending; None: now.

    Attributes:
        problems: By index, why a sample's item has no value; filled when values are asked for.
        unread: The samples whose values are not known, as no more files were to be read: int64.
        reads: How many files were read.
    """

    dataset: Underfolder
    key: str
    most_reads: int | None = None
    samples: Ints | None = None
    problems: dict[int, str] = field(default_factory=dict)
    unread: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    reads: int = 0

    def __post_init__(self) -> None:
        index = self.dataset.index()
        kinds = [kind for kind in index.kinds() if kind.key == self.key]
        columns = [index.indices_of(kind) for kind in kinds]
        idx = np.concatenate([np.empty(0, np.int64), *columns])
        kind = np.repeat(np.arange(len(kinds)), [len(column) for column in columns])
        self._samples = index.indices() if self.samples is None else self.samples
        order = np.argsort(idx, kind="stable")
        order = order[np.isin(idx[order], self._samples)]  # others came meanwhile
        files = _Files(idx[order], kind[order], kinds)
        self._owners = each_once(files.idx)
        is_double = np.zeros(len(files.idx), dtype=bool)
        is_double[1:] = files.idx[1:] == files.idx[:-1]
        is_double[:-1] |= is_double[1:]
        for at in np.flatnonzero(is_double).tolist():
            name = files.name(at)
            self.problems[int(files.idx[at])] = f"there are two files of item {self.key!r}: {name}."
        self._files = files.where(~is_double)
        shared = self.dataset.shared_files() if self.dataset.merges_shared else {}
        self._shared = shared.get(self.key)
        self._is_data = np.array([is_metadata(kind.tail) for kind in kinds], dtype=bool)
        with DatasetError.explaining_questions():
            folder = self.dataset.folder
            is_local = isinstance(folder, Path)
            place = place_for_caches(Layout(str(folder)) if is_local else Address.of(folder))
        self._shelf = Shelf(place, self.key)
        self._is_kept = True

    def foreign_name(self) -> str | None:
        """The name of a file of the item that is no metadata; None where there is none."""
        kinds = self._files.kinds
        foreign = [kind for kind, is_data in zip(kinds, self._is_data, strict=True) if not is_data]
        for kind in foreign:
            idx = self.dataset.index().indices_of(kind)
            if len(idx):
                return kind.name_of(int(idx[0]))
        is_foreign = self._shared is not None and not is_metadata(self._shared)
        return self._shared if is_foreign else None

    def presence(self) -> npt.NDArray[np.bool_]:
        """Which samples have the item, of their own or shared."""
        if self._shared is not None:
            return np.ones(len(self._samples), dtype=bool)
        return np.isin(self._samples, self._owners, assume_unique=True)

    def columns(self, paths: Iterable[str]) -> dict[str, Column]:
        """What paths into the item lead to in each sample, own values before shared ones.

        An item that is no metadata has the value True.

        Raises:
            DatasetError: If a file cannot be looked at.
            WorkerDiedError: If a process that read metadata was killed.
        """
        is_data = self._is_data[self._files.kind]
        data, foreign = self._files.where(is_data), self._files.where(~is_data)
        shared = None if self._shared is None else self._shared_document()
        found = {}
        for path, (codes, values) in self._values_of_all(data, paths).items():
            names = _names_in(path)
            common = [] if shared is None else _shared_values(shared, names)
            nothing, opaque = len(values), len(values) + 1
            column = np.full(len(self._samples), opaque + 1)
            column[np.searchsorted(self._samples, self._owners)] = nothing
            column[np.searchsorted(self._samples, foreign.idx)] = opaque
            column[np.searchsorted(self._samples, data.idx)] = codes
            found[path] = Column(column, [*values, [], [] if names else [True], common])
        return found

    def _values_of_all(self, files: _Files, paths: Iterable[str]) -> dict[str, tuple[Ints, Values]]:
        """For each path, for each file the code of what it leads to, and for each code what."""
        wanted = list(paths)
        for is_last in (False, True):
            documents = self._documents(files, anew=is_last)
            try:
                return {path: self._values_of(documents, path) for path in wanted}
            except ValueError:  # others wrote the catalog in between, or what is kept is forged
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def _values_of(self, documents: _Documents, path: str) -> tuple[Ints, Values]:
        codes, values = self._values(documents, path)
        of_files = np.append(codes, len(values))[documents.codes]  # -1 is the last: nothing
        return of_files, values

    # -- documents -------------------------------------------------------------------------

    def _shared_document(self) -> Document | None:
        name = str(self._shared)
        if not is_metadata(name):
            return Document(-1, 0, 0, "true", "")
        found = read_document(self._shared_source(name))
        if found.problem:
            own = np.isin(self._samples, self._owners, assume_unique=True)
            self.problems.update(dict.fromkeys(self._samples[~own].tolist(), found.problem))
        return found

    def _shared_source(self, name: str) -> FileSource:
        return self.dataset.source_of("/" + name) or FileSource(f"{self.dataset.folder}/{name}")

    def _documents(self, files: _Files, *, anew: bool = False) -> _Documents:
        """The documents of files; what is kept of them is not believed where they are read anew."""
        kept = Kept.nothing() if anew else self._shelf.rows()
        versions = self._versions(files)
        codes = _codes_of(kept, files, versions)
        changed = np.flatnonzero(codes == _NONE)
        if not len(changed):
            found = _Documents(codes, None, kept) if len(codes) else _Documents(codes, [], None)
            self._tell_problems(files, found)
            return found
        texts: list[str] | None = []
        if len(changed) < len(codes):
            texts = self._shelf.documents(kept)
        if texts is None:
            texts, changed = [], np.arange(len(codes))
            codes[:] = _NONE
        chosen, left = changed[: self.most_reads], changed[len(changed[: self.most_reads]) :]
        found = self._read(files, codes, chosen, texts, kept)
        self.reads += len(chosen)
        if len(left) and not self._is_kept and self.most_reads:
            self.most_reads = None  # who reads piece by piece would never come to an end
            return self._documents(files, anew=anew)
        self.unread = files.idx[left]
        self._tell_problems(files, found)
        return found

    def _tell_problems(self, files: _Files, documents: _Documents) -> None:
        """Notes for which files it is known why they have no value."""
        texts, kept = documents.texts, documents.kept
        if texts is None and kept is not None and len(kept.problems):
            texts = documents.texts = self._shelf.documents(kept)
            if texts is None:
                raise ValueError("the documents are not those of the rows")
        if texts is None:
            return
        bad = [code for code, text in enumerate(texts) if text.startswith(PROBLEM)]
        for at in np.flatnonzero(np.isin(documents.codes, bad)).tolist():
            message = f"{self._path(files, at)}: {from_text(texts[documents.codes[at]])}"
            self.problems.setdefault(int(files.idx[at]), message)

    def _path(self, files: _Files, at: int) -> str:
        return self.dataset.data_prefix + files.name(at)

    def _read(
        self, files: _Files, codes: Ints, changed: Ints, texts: list[str], kept: Kept
    ) -> _Documents:
        """Reads the files at positions, and keeps what was found."""
        before = len(texts)
        code_of = {text: code for code, text in enumerate(texts)}
        read = self._read_files(list(map(files.name, changed)))
        versions = np.array([one[:3] for one in read], dtype=np.int64).reshape(-1, 3)
        codes[changed] = _NONE
        for at, one in zip(changed.tolist(), read, strict=True):
            text = one.text
            if one.problem:
                self.problems[int(files.idx[at])] = one.problem
                if one.size < 0:
                    continue
                text = problem_as_text(one.problem.removeprefix(self._path(files, at) + ": "))
            codes[at] = code_of.setdefault(text, len(code_of))
        texts = list(code_of)
        if (versions[:, 0] >= 0).any():
            return self._keep(files, codes, changed, versions, texts, kept)
        is_as_kept = before > 0 and len(texts) == before
        return _Documents(codes, texts, kept if is_as_kept else None)

    def _read_files(self, names: list[str]) -> list[Document]:
        elsewhere = self.dataset.sources_elsewhere(names)
        if elsewhere is None:
            return read_documents(self.dataset.data_prefix[:-1], names)
        there = [source for source in elsewhere if source is not None]
        read = iter(read_elsewhere(there))
        pairs = zip(names, elsewhere, strict=True)
        return [self._gone(name) if source is None else next(read) for name, source in pairs]

    def _gone(self, name: str) -> Document:
        return Document(-1, 0, 0, "", f"{self.dataset.data_prefix}{name}: removed meanwhile.")

    def _keep(
        self,
        files: _Files,
        codes: Ints,
        changed: Ints,
        read: Ints,
        texts: list[str],
        kept: Kept,
    ) -> _Documents:
        """Keeps the rows of files that were read, beside those that were kept before."""
        versions = np.full((len(codes), 3), -1)
        is_before = codes != _NONE
        is_before[changed] = False
        if is_before.any():
            before = np.flatnonzero(is_before)
            at = np.searchsorted(kept.rows.idx, files.idx[before])
            columns = (kept.rows.size, kept.rows.mtime_ns, kept.rows.inode)
            versions[before] = np.stack([column[at] for column in columns], axis=1)
        versions[changed] = read
        used, renumbered = np.unique(codes[codes != _NONE], return_inverse=True)
        codes[codes != _NONE] = renumbered
        texts = [texts[code] for code in used.tolist()]
        is_known = (versions[:, 0] >= 0) & (codes != _NONE)
        tails, tail = _tails_of(files)
        columns = (files.idx, tail, *versions.T, codes)
        rows = Rows(*(np.ascontiguousarray(column[is_known]) for column in columns))
        try:
            fresh = self._shelf.put_rows(rows, tails, texts)
            self._shelf.forget_paths()
        except (OSError, DatasetError) as error:
            self._say_not_kept(error)
            return _Documents(codes, texts, None)
        return _Documents(codes, texts, fresh)

    def _versions(self, files: _Files) -> Ints:
        """Size, time and inode of each file as they are now; int64, N×3; -2 where there is none."""
        elsewhere = self.dataset.sources_elsewhere(files.names())
        if elsewhere is not None:
            return _as_known(elsewhere)
        prefix = self.dataset.data_prefix
        names = [prefix + name for name in files.names()]
        step = -(-len(names) // _THREADS) or 1
        with ThreadPoolExecutor(_THREADS) as threads:
            parts = threads.map(
                _look_at, (names[at : at + step] for at in range(0, len(names), step))
            )
            return np.concatenate([np.empty((0, 3), np.int64), *parts])

    # -- values ----------------------------------------------------------------------------

    def _values(self, documents: _Documents, path: str) -> tuple[Ints, Values]:
        """For each document the code of what the path leads to, and for each code what it is."""
        kept = documents.kept
        found = None if kept is None else self._shelf.path(kept, path)
        if found is not None:
            return found
        texts = documents.texts
        if texts is None and kept is not None:
            texts = documents.texts = self._shelf.documents(kept)
        if texts is None:
            raise ValueError("the documents are not those of the rows")
        codes, values, text = _values_in(texts, _names_in(path))
        if kept is not None:
            try:
                self._shelf.put_path(kept, path, codes, text)
            except (OSError, DatasetError) as error:
                self._say_not_kept(error)
        return codes, values

    def _say_not_kept(self, error: Exception) -> None:
        """Says that the next query reads anew, unless that is as it has to be: by the rights."""
        self._is_kept = False
        if not (isinstance(error, OSError) and error.errno in NO_RIGHT):
            warnings.warn(
                f"{self.dataset.folder}: what was read of {self.key!r} cannot be kept ({error}). "
                "The next query reads it again.",
                stacklevel=2,
            )


def _names_in(path: str) -> list[str]:
    """The names of a path below its item's key."""
    return path.split(".")[1:]


def _shared_values(shared: Document, names: Sequence[str]) -> list[Any]:
    return [] if shared.problem else values_at(from_text(shared.text), names)


def _as_known(sources: Sequence[FileSource | None]) -> Ints:
    """Size, time and number of what files are known by; int64, N×3; -2 where there is none."""
    known = (None if source is None else source.known_as for source in sources)
    rows = [(-2, 0, 0) if one is None else one[:3] for one in known]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _look_at(paths: Sequence[str]) -> Ints:
    found = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            if is_there(path):  # a link that leads nowhere, which has no value
                found.append((-2, 0, 0))
                continue
            if not isinstance(error, FileNotFoundError):
                raise DatasetError(f"{path}: cannot be looked at ({error.strerror}).") from error
            found.append((-2, 0, 0))
        else:
            found.append((status.st_size, status.st_mtime_ns, status.st_ino & MOST_INODE))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _tails_of(files: _Files) -> tuple[list[str], Ints]:
    """The tails of files' names, and for each file the number of its own."""
    tails = sorted({kind.tail for kind in files.kinds})
    numbers = np.array([tails.index(kind.tail) for kind in files.kinds], dtype=np.int64)
    return tails, numbers[files.kind] if len(numbers) else files.kind


def _codes_of(kept: Kept, files: _Files, versions: Ints) -> Ints:
    """The number of each file's document; -1 where it is not kept, or the file is another now."""
    rows, codes = kept.rows, np.full(len(files.idx), _NONE)
    if not len(rows.idx) or not len(codes):
        return codes
    at = np.minimum(np.searchsorted(rows.idx, files.idx), len(rows.idx) - 1)
    tails = [kept.tails.index(k.tail) if k.tail in kept.tails else _NONE for k in files.kinds]
    is_same = (
        (rows.idx[at] == files.idx)
        & (rows.tail[at] == np.array(tails)[files.kind])
        & (rows.size[at] == versions[:, 0])
        & (rows.mtime_ns[at] == versions[:, 1])
        & (rows.inode[at] == versions[:, 2])
    )
    codes[is_same] = rows.code[at][is_same]
    return codes


def _values_in(texts: Sequence[str], names: Sequence[str]) -> tuple[Ints, Values, str]:
    """What a path leads to in documents; at last, the values as text."""
    code_of: dict[Any, int] = {}
    values: Values = []
    parts: list[str] = []
    codes = np.empty(len(texts), dtype=np.int64)
    documents = from_text(f"[{','.join(texts)}]")
    if len(documents) != len(texts):
        raise ValueError("a document is not one value")
    for number, document in enumerate(documents):
        found = values_at(document, names)
        is_plain = len(found) == 1 and type(found[0]) in _SCALARS
        text = None if is_plain else as_text(found)
        name: Any = (type(found[0]), found[0]) if text is None else text
        code = codes[number] = code_of.setdefault(name, len(values))
        if code == len(values):
            values.append(found)
            parts.append(as_text(found) if text is None else text)
    return codes, values, f"[{','.join(parts)}]"
