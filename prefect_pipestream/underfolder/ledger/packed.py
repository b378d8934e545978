"""The packed form of a run's ledger: three files instead of one a commit.

``samples.npz`` has a row a sample record and is all that resuming needs: a million rows load in
some tenths of a second. ``failures.jsonl.gz`` says why samples failed, and ``files.jsonl.gz``
which files each commit placed and removed, which only an undo needs to know.
"""

import gzip
import json
import os
import re
import zipfile
import zlib
from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import is_of_disk
from prefect_pipestream.storage.untrusted import open_regular, read_regular
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import (
    CHANGING,
    OUTCOMES,
    CommitRecord,
    SampleRecord,
    is_marks,
    is_person,
    is_time,
    refuse_paths,
)
from prefect_pipestream.underfolder.ledger.rows import Columns, Moves, Rows, checked_column
from prefect_pipestream.underfolder.ledger.taken_back import TakenBack

_SAMPLES = "samples.npz"
_FAILURES = "failures.jsonl.gz"
_FILES = "files.jsonl.gz"
_GZIP_LEVEL = 5
_REMEDY = "`pipestream check --fix` puts it aside."
_MOST_BYTES = 1 << 32  # of a ledger's columns, unpacked: 100 million samples
_FEW_BYTES = 1 << 24  # unpacked as they come: what is larger and shrinks to nothing is a bomb
_MOST_TIMES = 200  # as large as it is packed; a ledger, whose indices count up, is at most 20
_BEGIN = re.compile(rb"\[(\d{1,18}),")
_LONGEST_LINE = 1 << 28  # bytes: the files of the largest commit
_COMMIT_COLUMNS = {"commit_end": np.int64, "commit_at": np.float64, "commit_tag": np.int64}


def read_arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an ``.npz`` file, by name. Nothing is unpickled, and no more read than fits.

    Raises:
        OSError: If the file is not there (any more), or cannot be read: `zipfile` would take that
            for damaged content, so that all of it is read first.
        DatasetError: If it is damaged.
    """
    try:
        return arrays_in(read_regular(path))
    except Exception as error:
        if is_of_disk(error):
            raise
        raise DatasetError(
            f"{path}: this ledger cannot be read ({type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def arrays_in(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in the content of an ``.npz`` file, by name; see `read_arrays`.

    Raises:
        Exception: If it is damaged, of any kind: so its decoders do.
    """
    file = BytesIO(content)
    _refuse_bomb(file)
    with np.load(file) as arrays:
        return {name: np.asarray(arrays[name]) for name in arrays.files}


def _refuse_bomb(file: BytesIO) -> None:
    with zipfile.ZipFile(file) as members:
        size = sum(member.file_size for member in members.infolist())
    most = min(_MOST_BYTES, max(_FEW_BYTES, _MOST_TIMES * file.getbuffer().nbytes))
    if size > most:
        raise ValueError(f"it would unpack to {size} bytes; at most {most} are read")
    file.seek(0)


# -- writing -------------------------------------------------------------------------------


def write_packed(folder: str, commits: Iterable[CommitRecord]) -> None:
    """Packs commit records, in their order, into the files of an empty folder."""
    columns = Columns()
    ids: list[str] = []
    tags: dict[str, int] = {}
    tag_of = array("q")
    people: dict[tuple[str, str], int] = {}
    by = array("q")
    with _writing(folder, _FAILURES) as failures, _writing(folder, _FILES) as files:
        for number, commit in enumerate(commits):
            for row, sample in enumerate(commit.samples, len(columns.idx)):
                if (why := sample.failure) is not None:
                    _put(failures, [row, why.error_type, why.message, why.traceback])
            changes = list(_changes_of(commit))
            if changes or commit.shared or _has_changed(commit):
                _put(files, [number, dict(commit.shared), changes])
            columns.add(commit)
            ids.append(commit.id)
            tag_of.append(tags.setdefault(commit.tag, len(tags)))
            by.append(-1 if commit.by is None else people.setdefault(commit.by, len(people)))
    rare: dict[str, Any] = {"before": np.asarray(columns.before)} if any(columns.before) else {}
    if people:
        rare |= {"commit_by": np.asarray(by), "people": np.array(list(people), dtype=np.str_)}
    np.savez_compressed(
        os.path.join(folder, _SAMPLES),
        idx=np.asarray(columns.idx),
        target=np.asarray(columns.target),
        outcome=np.asarray(columns.outcome),
        attempts=np.asarray(columns.attempts),
        signature=np.asarray(columns.signature),
        **rare,
        commit_id=np.array(ids, dtype=np.bytes_),
        commit_end=np.asarray(columns.ends),
        commit_at=np.asarray(columns.at),
        commit_tag=np.asarray(tag_of),
        tags=np.array(list(tags), dtype=np.str_),
    )
    for name in (_FAILURES, _FILES, _SAMPLES):
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())


def _writing(folder: str, name: str) -> gzip.GzipFile:
    return gzip.GzipFile(os.path.join(folder, name), "wb", compresslevel=_GZIP_LEVEL)


def _put(file: gzip.GzipFile, line: list[Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _has_changed(commit: CommitRecord) -> bool:
    """Whether a commit must have a line of files: where it is missing, the ledger is damaged."""
    return any(sample.outcome in CHANGING for sample in commit.samples)


def _changes_of(commit: CommitRecord) -> Iterator[list[Any]]:
    """Of each sample with files: its place in the commit, and its files' names.

    All or none of the files placed were there before, as a rule: then 1 or 0 says so.
    """
    for place, sample in enumerate(commit.samples):
        writes = dict(sample.writes or {})
        if writes or sample.removes:
            replaces: Any = list(sample.replaces)
            if set(replaces) in (set(), set(writes)):
                replaces = int(bool(replaces))
            yield [place, writes, replaces, list(sample.removes)]


# -- reading -------------------------------------------------------------------------------


def _texts(array: npt.NDArray[np.str_]) -> list[str]:
    """The texts of an array, which numpy takes as they are in the file.

    Raises:
        ValueError: If one has a character that there is none of.
    """
    try:
        return [str(text) for text in array.ravel().tolist()]
    except SystemError as error:
        raise ValueError("it has texts of no characters") from error


class PackedLedger:
    """A packed ledger, opened.

    Args:
        folder: The folder with its files.
        run_key: The run that it is of.

    Raises:
        FileNotFoundError: If it is not there (any more).
        DatasetError: If it cannot be read.
    """

    def __init__(self, folder: str, run_key: str) -> None:
        self._folder = folder
        self._run_key = run_key
        path = os.path.join(folder, _SAMPLES)
        self._arrays = read_arrays(path)
        try:
            self._check_arrays()
        except (KeyError, ValueError, TypeError) as error:
            raise DatasetError(f"{path}: this ledger cannot be right ({error}).") from error

    def _check_arrays(self) -> None:
        """Raises `ValueError` or `KeyError` where the columns do not fit together."""
        arrays = self._arrays
        for name in ("commit_id", "tags"):
            if arrays[name].ndim != 1:
                raise ValueError(f"{name!r} has the shape {arrays[name].shape}")
        for name, dtype in _COMMIT_COLUMNS.items():
            arrays[name] = checked_column(name, arrays[name], np.dtype(dtype))
        arrays["target"] = checked_column("target", arrays["target"], np.dtype(np.int64))
        nothing = np.zeros(len(arrays["target"]), np.uint64)  # but for a run that moved samples
        before = arrays.setdefault("before", nothing)
        arrays["before"] = checked_column("before", before, np.dtype(np.uint64))
        self._check_people()
        ends, tags = arrays["commit_end"], arrays["commit_tag"]
        if len({len(arrays[name]) for name in ("commit_id", *_COMMIT_COLUMNS)}) != 1:
            raise ValueError("its commits' columns have different lengths")
        if len(ends) and (int(ends[0]) < 0 or (np.diff(ends) < 0).any()):
            raise ValueError("its commits are out of order")
        if len(ends) and not 0 <= int(tags.min()) <= int(tags.max()) < len(arrays["tags"]):
            raise ValueError("it has commits of no tag")
        if arrays["commit_id"].dtype.kind != "S" or arrays["tags"].dtype.kind != "U":
            raise ValueError("its commits' names are no text")
        if not all(map(is_time, arrays["commit_at"].tolist())):
            raise ValueError("its commits have no times")
        refuse_paths([*self.ids(), *_texts(arrays["tags"])])
        known = int(ends[-1]) if len(ends) else 0
        columns = (arrays[name] for name in ("idx", "target", "before"))
        if {len(column) for column in columns} != {known}:
            raise ValueError(f"it has {len(arrays['idx'])} samples, and commits of {known}")
        rows = self.rows()
        if len(rows.idx) and not 0 <= int(rows.idx.min()) <= int(rows.idx.max()) < MAX_INDEX:
            raise ValueError("it has samples of no index")

    def _check_people(self) -> None:
        """Raises `ValueError` where it is not told who made commits as it is told here."""
        arrays, count = self._arrays, len(self._arrays["commit_id"])
        by = arrays.setdefault("commit_by", np.full(count, -1))  # as of most runs
        people = arrays.setdefault("people", np.empty((0, 2), dtype=np.str_))
        arrays["commit_by"] = by = checked_column("commit_by", by, np.dtype(np.int64))
        if people.dtype.kind != "U" or people.ndim != 2 or people.shape[1] != 2:
            raise ValueError(f"'people' has the shape {people.shape}")
        if not all(map(is_person, _texts(people))):
            raise ValueError("'people' has what is no name")
        if len(by) != count or (count and not -1 <= int(by.min()) <= int(by.max()) < len(people)):
            raise ValueError("it has commits of nobody that it knows")

    def _by(self) -> list[tuple[str, str] | None]:
        """Who made each commit, where that is noted of it."""
        texts = iter(_texts(self._arrays["people"]))
        people = list(zip(texts, texts, strict=True))
        return [None if one < 0 else people[one] for one in self._arrays["commit_by"].tolist()]

    def ids(self) -> list[str]:
        """The ids of its commits."""
        return [commit_id.decode() for commit_id in self._arrays["commit_id"].tolist()]

    def rows(self, gone: TakenBack | None = None, tag: str | None = None) -> Rows:
        """The rows of all commits.

        Args:
            gone: Without these.
            tag: Only those of one part of the run; None is all.
        """
        arrays = self._arrays
        lengths = np.diff(arrays["commit_end"], prepend=0)
        rows = Rows.checked(
            arrays["idx"],
            arrays["outcome"],
            arrays["attempts"],
            arrays["signature"],
            np.repeat(arrays["commit_at"], lengths),
        )
        if not gone and tag is None:
            return rows
        kept = np.ones(len(rows.idx), dtype=bool)
        if tag is not None:
            kept &= np.repeat(np.array([of == tag for of in self._tags()], dtype=bool), lengths)
        if gone:
            kept &= gone.stands(self.ids(), arrays["commit_end"], self._written_at())
        return rows.where(kept)

    def _written_at(self) -> npt.NDArray[np.int64]:
        """The index at which each sample was written."""
        idx, target = self._arrays["idx"], self._arrays["target"]
        written_at: npt.NDArray[np.int64] = np.where(target >= 0, target, idx)
        return written_at

    def moves(self, keep: Callable[[str], bool]) -> Moves:
        """The moves of the commits for which ``keep(id)`` is true."""
        arrays = self._arrays
        lengths = np.diff(arrays["commit_end"], prepend=0)
        kept = np.repeat(np.fromiter(map(keep, self.ids()), bool, len(lengths)), lengths)
        rows = self.rows()
        columns = (rows.idx, arrays["target"], arrays["before"], rows.signature, rows.at)
        return Moves.of(*(column[kept] for column in columns))

    def _tags(self) -> list[str]:
        tags: list[str] = self._arrays["tags"].tolist()
        return [tags[number] for number in self._arrays["commit_tag"].tolist()]

    def failures(self) -> Iterator[SampleRecord]:
        """The records of failed samples."""
        arrays = self._arrays
        try:
            for row, *failure in self._lines(_FAILURES):
                yield SampleRecord(
                    int(arrays["idx"][row]),
                    "failed",
                    attempts=int(arrays["attempts"][row]),
                    failure=SampleFailure.of_texts(failure),
                )
        except (ValueError, TypeError, IndexError) as error:
            raise DatasetError(f"{self._folder}: this ledger cannot be right: {error}.") from error

    def commits(self, indices: Collection[int] | None = None) -> Iterator[CommitRecord]:
        """The commits, as they were recorded.

        Args:
            indices: Only those with a sample that was read, or written, under one of these, for
                which the lines of others are not decoded; None is all.

        Raises:
            DatasetError: If the files do not fit together.
        """
        try:
            yield from self._commits(*self._chosen(indices))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DatasetError(f"{self._folder}: this ledger cannot be right: {error}.") from error

    def _chosen(
        self, indices: Collection[int] | None
    ) -> tuple[Collection[int], Container[int] | None]:
        """The numbers of the commits with some samples, and of their rows; None for all rows."""
        ends = self._arrays["commit_end"]
        if indices is None:
            return range(len(ends)), None
        some = np.fromiter(indices, np.int64, len(indices))
        is_one = np.isin(self._arrays["idx"], some) | np.isin(self._written_at(), some)
        numbers = np.unique(ends.searchsorted(np.flatnonzero(is_one), "right"))
        starts = np.concatenate([[0], ends])[numbers]
        rows = {
            row for at in zip(starts, ends[numbers], strict=True) for row in range(*map(int, at))
        }
        return numbers.tolist(), rows

    def _commits(
        self, numbers: Collection[int], rows: Container[int] | None
    ) -> Iterator[CommitRecord]:
        files = self._lines(_FILES, None if rows is None else numbers)
        failures = self._lines(_FAILURES, rows)
        next_files, next_failure = next(files, None), next(failures, None)
        ends, at = [0, *self._arrays["commit_end"].tolist()], self._arrays["commit_at"].tolist()
        ids, tags, by = self.ids(), self._tags(), self._by()
        for number in numbers:
            start, end = ends[number], ends[number + 1]
            samples = self._samples(start, end)
            while next_failure is not None and next_failure[0] < end:
                row, *failure = next_failure
                samples[row - start]["failure"] = failure
                next_failure = next(failures, None)
            shared: dict[str, str] = {}
            if next_files is not None and next_files[0] == number:
                _, shared, changes = next_files
                if not is_marks(shared):
                    raise ValueError(f"it shares {shared!r:.100}")
                refuse_paths(str.removeprefix(name, "/") for name in shared)
                for place, writes, replaces, removes in changes:
                    if replaces in (0, 1):
                        replaces = list(writes) if replaces else []
                    samples[place].update(writes=writes, replaces=replaces, removes=removes)
                next_files = next(files, None)
            elif any(sample["outcome"] in CHANGING for sample in samples):
                raise ValueError(f"{_FILES} does not say which files commit {ids[number]} changed")
            yield CommitRecord(
                id=ids[number],
                run_key=self._run_key,
                tag=tags[number],
                staged="",
                at=at[number],
                samples=tuple(map(SampleRecord.checked, samples)),
                shared=shared,
                by=by[number],
            )

    def _samples(self, start: int, end: int) -> list[dict[str, Any]]:
        names = ("idx", "target", "outcome", "attempts", "signature", "before")
        columns = [self._arrays[name][start:end].tolist() for name in names]
        return [
            {
                "idx": idx,
                "target": None if target < 0 else target,
                "outcome": OUTCOMES[outcome],
                "attempts": attempts,
                "signature": f"{signature:016x}" if signature else None,
                "before": f"{before:016x}" if before else None,
            }
            for idx, target, outcome, attempts, signature, before in zip(*columns, strict=True)
        ]

    def _lines(self, name: str, wanted: Container[int] | None = None) -> Iterator[list[Any]]:
        """The entries of a file, or those of the numbers that are wanted."""
        path = os.path.join(self._folder, name)
        try:
            with open_regular(path) as packed, gzip.GzipFile(fileobj=packed) as file:
                last = -1
                while line := file.readline(_LONGEST_LINE):
                    last = _number_after(last, line)
                    if wanted is None or last in wanted:
                        yield json.loads(line)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError, zlib.error, RecursionError) as error:
            if is_of_disk(error):
                raise
            raise DatasetError(
                f"{path}: this ledger cannot be read ({error}). {_REMEDY}"
            ) from error


def _number_after(last: int, line: bytes) -> int:
    """The number that a line begins with: of the row, or the commit, that it is about.

    Raises:
        ValueError: If it is not above the last one. So there are no more lines than rows.
    """
    found = _BEGIN.match(line)
    number = -1 if found is None else int(found[1])
    if not last < number < MAX_INDEX:
        raise ValueError(f"after what is of {last} there is {line!r:.100}")
    return number
