"""The packed ledger of a large run: our three files against SQLite, in rows and with packed bodies.

Each question is asked by a process of its own, to a file that the system has in its cache; the
seconds are the processor's, so that a machine with other work gives the same figures. SQLite's
side is read as a file from a stranger has to be: by a handle that follows no link, immutable, with
no trust in its schema, and with each value held against the same rules as ours.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from _records import commit_records
from _report import figure, parser, temporary_folder, title

from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.packed import PackedLedger, write_packed
from prefect_pipestream.underfolder.ledger.records import (
    OUTCOMES,
    CommitRecord,
    SampleRecord,
    refuse_paths,
)
from prefect_pipestream.underfolder.ledger.rows import FAILED

RUN_KEY = "clean-20261126T060000-5a3f10"
_MOST_STEPS = 2_000_000_000  # of SQLite's machine, for one question
_STEPS_A_CALL = 1_000_000


class Ledger:
    """A packed form: how it is written, and how it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, commits: Iterator[CommitRecord]) -> None:
        raise NotImplementedError

    def done(self) -> int:
        """How many samples a resumed run leaves out."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        raise NotImplementedError

    def failures(self) -> int:
        raise NotImplementedError

    def history(self, idx: int) -> list[tuple[str, list[str]]]:
        """The commits that wrote a sample, and which files."""
        raise NotImplementedError

    def commits(self) -> Iterator[CommitRecord]:
        raise NotImplementedError

    def all_commits(self) -> int:
        return sum(len(commit.samples) for commit in self.commits())


class Ours(Ledger):
    def write(self, commits: Iterator[CommitRecord]) -> None:
        write_packed(str(self.folder), commits)

    def _open(self) -> PackedLedger:
        return PackedLedger(str(self.folder), RUN_KEY)

    def done(self) -> int:
        rows = self._open().rows().last_of_each()
        return len(set(rows.idx[rows.outcome != FAILED].tolist()))

    def counts(self) -> dict[str, int]:
        return dict(self._open().rows().counts())

    def failures(self) -> int:
        return sum(1 for _ in self._open().failures())

    def commits(self) -> Iterator[CommitRecord]:
        return self._open().commits()

    def history(self, idx: int) -> list[tuple[str, list[str]]]:
        return [
            (commit.id, list(sample.writes or ()))
            for commit in self._open().commits([idx])
            for sample in commit.samples
            if sample.idx == idx
        ]


class SQLite(Ledger):
    """What the two schemas share: how a file is made, and how a stranger's is opened."""

    SCHEMA = ""
    LOADED = False
    """Whether all of the file is read into memory, by our own reader, instead of by pages."""

    @property
    def path(self) -> Path:
        return self.folder / "ledger.sqlite"

    def write(self, commits: Iterator[CommitRecord]) -> None:
        fresh = self.folder / "ledger.new"
        made = sqlite3.connect(fresh, isolation_level=None)
        made.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
        made.executescript(f"BEGIN; {self.SCHEMA}")
        self._fill(made, commits)
        made.execute("COMMIT")
        made.close()
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        fresh.rename(self.path)

    def _fill(self, made: sqlite3.Connection, commits: Iterator[CommitRecord]) -> None:
        raise NotImplementedError

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if self.LOADED:
            opened = sqlite3.connect(":memory:")
            with open(handle, "rb") as file:
                opened.deserialize(file.read())
        else:
            opened = sqlite3.connect(f"file:/proc/self/fd/{handle}?mode=ro&immutable=1", uri=True)
        try:
            self._distrust(opened)
            yield opened
        finally:
            opened.close()
            if not self.LOADED:
                os.close(handle)

    def _distrust(self, opened: sqlite3.Connection) -> None:
        """Nothing of its schema is run, no value is huge, and no question goes on for ever."""
        opened.executescript("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")
        opened.execute("PRAGMA query_only=ON")
        opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 28)
        opened.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        steps = iter(range(_MOST_STEPS // _STEPS_A_CALL))
        opened.set_progress_handler(lambda: next(steps, None) is None, _STEPS_A_CALL)
        # A view, a trigger, a generated column or an index on an expression is a program: only
        # the very text that we write is taken for a schema.
        found = sorted(text for (text,) in opened.execute("SELECT sql FROM sqlite_schema") if text)
        if found != sorted(re.findall(r"CREATE [^;]+", self.SCHEMA)):
            raise ValueError("it is no ledger")

    def quick_check(self) -> str:
        with self._open() as opened:
            return opened.execute("PRAGMA quick_check(1)").fetchone()[0]

    def done(self) -> int:
        with self._open() as opened:
            last = "SELECT idx, outcome, max(number) FROM samples GROUP BY idx"
            return len(
                {_index(idx) for idx, outcome, _ in opened.execute(last) if outcome != FAILED}
            )

    def counts(self) -> dict[str, int]:
        with self._open() as opened:
            last = "SELECT outcome, max(number) FROM samples GROUP BY idx"
            asked = f"SELECT outcome, count(*) FROM ({last}) GROUP BY outcome"
            found = {OUTCOMES[outcome]: count for outcome, count in opened.execute(asked)}
        return {outcome: found.get(outcome, 0) for outcome in OUTCOMES}

    def failures(self) -> int:
        asked = "SELECT idx, error_type, message, traceback FROM failures ORDER BY number, idx"
        with self._open() as opened:
            return sum(
                1
                for idx, *texts in opened.execute(asked)
                if SampleRecord(_index(idx), "failed", failure=SampleFailure.of_texts(texts))
            )


def _index(idx: Any) -> int:
    if type(idx) is not int or idx < 0:
        raise ValueError("it has samples of no index")
    return idx


class Pages(SQLite):
    """A row a sample, and a row a file: every question is one of SQL."""

    SCHEMA = """
    CREATE TABLE tags (tag INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE commits (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL, tag INTEGER NOT NULL,
        shared TEXT);
    CREATE TABLE samples (
        idx INTEGER NOT NULL, number INTEGER NOT NULL, outcome INTEGER NOT NULL, target INTEGER,
        attempts INTEGER NOT NULL, signature INTEGER, PRIMARY KEY (idx, number)) WITHOUT ROWID;
    CREATE INDEX samples_of ON samples (number);
    CREATE TABLE files (
        number INTEGER NOT NULL, idx INTEGER NOT NULL, name TEXT NOT NULL, mark BLOB,
        replaces INTEGER NOT NULL, PRIMARY KEY (number, idx, name)) WITHOUT ROWID;
    CREATE TABLE failures (
        number INTEGER NOT NULL, idx INTEGER NOT NULL, error_type TEXT NOT NULL,
        message TEXT NOT NULL, traceback TEXT NOT NULL, PRIMARY KEY (number, idx)) WITHOUT ROWID;
    """

    def _fill(self, made: sqlite3.Connection, commits: Iterator[CommitRecord]) -> None:
        tags: dict[str, int] = {}
        for number, commit in enumerate(commits):
            tag = tags.setdefault(commit.tag, len(tags))
            shared = json.dumps(dict(commit.shared)) if commit.shared else None
            row = (number, commit.id, commit.at, tag, shared)
            made.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", row)
            made.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", _rows(number, commit))
            made.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", _files(number, commit))
            made.executemany("INSERT INTO failures VALUES (?, ?, ?, ?, ?)", _why(number, commit))
        made.executemany(
            "INSERT INTO tags VALUES (?, ?)", ((tag, name) for name, tag in tags.items())
        )

    def history(self, idx: int) -> list[tuple[str, list[str]]]:
        asked = (
            "SELECT commits.id, files.name FROM samples JOIN commits USING (number) "
            "LEFT JOIN files USING (number, idx) WHERE idx = ? ORDER BY number"
        )
        found: dict[str, list[str]] = {}
        with self._open() as opened:
            for commit_id, name in opened.execute(asked, (idx,)):
                refuse_paths([commit_id, name])
                found.setdefault(commit_id, []).append(name)
        return list(found.items())

    def commits(self) -> Iterator[CommitRecord]:
        with self._open() as opened:
            ask = opened.execute
            tags = dict(ask("SELECT tag, name FROM tags"))
            samples = _grouped(ask("SELECT * FROM samples ORDER BY number, idx"), 1)
            files = _grouped(ask("SELECT * FROM files ORDER BY number, idx"), 0)
            why = _grouped(ask("SELECT * FROM failures ORDER BY number, idx"), 0)
            for number, commit_id, at, tag, shared in ask("SELECT * FROM commits ORDER BY number"):
                entries = {row[0]: _values(row) for row in samples(number)}
                for _, idx, name, mark, replaces in files(number):
                    _add_file(entries[idx], name, mark, replaces)
                for _, idx, *texts in why(number):
                    entries[idx]["failure"] = texts
                records = tuple(map(SampleRecord.checked, entries.values()))
                refuse_paths([commit_id, tags[tag]])
                placed = json.loads(shared or "{}")
                yield CommitRecord(commit_id, RUN_KEY, tags[tag], "", at, records, placed)


def _rows(number: int, commit: CommitRecord) -> Iterator[tuple[Any, ...]]:
    for sample in commit.samples:
        signature = _signed(int(sample.signature, 16)) if sample.signature else None
        outcome = OUTCOMES.index(sample.outcome)
        yield sample.idx, number, outcome, sample.target, sample.attempts, signature


def _signed(number: int) -> int:
    """The same 64 bits, as the integer that SQLite takes."""
    return number - (1 << 64) if number >> 63 else number


def _files(number: int, commit: CommitRecord) -> Iterator[tuple[Any, ...]]:
    for sample in commit.samples:
        for name, mark in (sample.writes or {}).items():
            yield number, sample.idx, name, bytes.fromhex(mark), name in sample.replaces
        yield from ((number, sample.idx, name, None, False) for name in sample.removes)


def _why(number: int, commit: CommitRecord) -> Iterator[tuple[Any, ...]]:
    for sample in commit.samples:
        if (why := sample.failure) is not None:
            yield number, sample.idx, why.error_type, why.message, why.traceback


def _values(row: tuple[Any, ...]) -> dict[str, Any]:
    idx, _, outcome, target, attempts, signature = row
    return {
        "idx": idx,
        "outcome": OUTCOMES[outcome],
        "target": target,
        "attempts": attempts,
        "signature": None if signature is None else f"{signature % (1 << 64):016x}",
    }


def _add_file(values: dict[str, Any], name: str, mark: bytes | None, replaces: int) -> None:
    refuse_paths([name])
    if mark is None:
        values["removes"] = (*values.get("removes", ()), name)
        return
    values.setdefault("writes", {})[name] = mark.hex()
    if replaces:
        values["replaces"] = (*values.get("replaces", ()), name)


def _grouped(rows: Iterator[Any], column: int) -> Callable[[int], Iterator[Any]]:
    """Gives the rows of each number in turn; the numbers that are asked for ascend."""
    row = next(rows, None)

    def of(number: int) -> Iterator[Any]:
        nonlocal row
        while row is not None and row[column] == number:
            yield row
            row = next(rows, None)

    return of


class Bodies(SQLite):
    """A row a sample for what is counted; the commits' records are bodies that zlib packed."""

    A_BODY = 1
    """Commits a body: the more, the better they are packed."""

    SCHEMA = """
    CREATE TABLE bodies (body INTEGER PRIMARY KEY, records BLOB NOT NULL);
    CREATE TABLE samples (
        idx INTEGER NOT NULL, number INTEGER NOT NULL, outcome INTEGER NOT NULL,
        PRIMARY KEY (idx, number)) WITHOUT ROWID;
    CREATE TABLE failures (
        number INTEGER NOT NULL, idx INTEGER NOT NULL, error_type TEXT NOT NULL,
        message TEXT NOT NULL, traceback TEXT NOT NULL, PRIMARY KEY (number, idx)) WITHOUT ROWID;
    """

    def _fill(self, made: sqlite3.Connection, commits: Iterator[CommitRecord]) -> None:
        numbered = enumerate(commits)
        for body, some in enumerate(iter(lambda: list(islice(numbered, self.A_BODY)), [])):
            records = b"\n".join(commit.to_bytes() for _, commit in some)
            made.execute("INSERT INTO bodies VALUES (?, ?)", (body, zlib.compress(records, 5)))
            for number, commit in some:
                rows = ((idx, number, outcome) for idx, _, outcome, *_ in _rows(number, commit))
                made.executemany("INSERT INTO samples VALUES (?, ?, ?)", rows)
                made.executemany(
                    "INSERT INTO failures VALUES (?, ?, ?, ?, ?)", _why(number, commit)
                )

    def history(self, idx: int) -> list[tuple[str, list[str]]]:
        found = []
        with self._open() as opened:
            numbers = opened.execute("SELECT number FROM samples WHERE idx = ? ORDER BY 1", (idx,))
            for (number,) in numbers.fetchall():
                asked = "SELECT records FROM bodies WHERE body = ?"
                (records,) = opened.execute(asked, (number // self.A_BODY,)).fetchone()
                record = CommitRecord.from_bytes(_lines(records)[number % self.A_BODY])
                writes = (sample.writes or () for sample in record.samples if sample.idx == idx)
                found += [(record.id, list(names)) for names in writes]
        return found

    def commits(self) -> Iterator[CommitRecord]:
        with self._open() as opened:
            for (records,) in opened.execute("SELECT records FROM bodies ORDER BY body"):
                yield from map(CommitRecord.from_bytes, _lines(records))


def _lines(records: bytes) -> list[bytes]:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(records, 1 << 28)
    if unpacking.unconsumed_tail:
        raise ValueError("it would unpack to more than is read")
    return text.split(b"\n")


class LargeBodies(Bodies):
    A_BODY = 64


class LoadedPages(Pages):
    LOADED = True


FORMS: dict[str, type[Ledger]] = {
    "ours": Ours,
    "SQLite, rows": Pages,
    "SQLite, rows, loaded": LoadedPages,
    "SQLite, packed bodies": Bodies,
    "SQLite, bodies of 64": LargeBodies,
}
WRITTEN_BY = {"SQLite, rows, loaded": "SQLite, rows"}
QUESTIONS = {
    "done": "done indices, for a resumed run",
    "counts": "counts of outcomes",
    "failures": "failures, with their tracebacks",
    "history": "history of one sample",
    "all_commits": "all commits, for an undo",
    "quick_check": "(quick_check of the file)",
}


class Timed:
    """Commits, and how long it took to make them up."""

    def __init__(self, commits: Iterator[CommitRecord]) -> None:
        self._commits = commits
        self.seconds = 0.0

    def __iter__(self) -> Iterator[CommitRecord]:
        return self

    def __next__(self) -> CommitRecord:
        begin = time.process_time()
        try:
            return next(self._commits)
        finally:
            self.seconds += time.process_time() - begin


def memory(field: str) -> int:
    """KiB of this process: `VmRSS` now, `VmHWM` at most."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def one(job: str, form: str, folder: Path, samples: int, a_commit: int) -> None:
    """In a process of its own: prints the seconds, the MiB at most, and the answer's digest."""
    ledger = FORMS[form](folder)
    before = memory("VmRSS")
    begin = time.process_time()
    own, answer = 0.0, ""
    if job == "write":
        commits = Timed(commit_records(samples, a_commit))
        ledger.write(commits)
        own = commits.seconds
    else:
        asked = getattr(ledger, job)
        answer = repr(asked(samples // 3) if job == "history" else asked())
    seconds = time.process_time() - begin - own
    print(json.dumps([seconds, (memory("VmHWM") - before) / 1024, answer]))


def check_that_all_say_the_same(parent: Path) -> None:
    """Each form gives back what was written, but for where it was staged."""
    written = [replace(commit, staged="") for commit in commit_records(3000, 16)]
    for number, (form, cls) in enumerate(FORMS.items()):
        folder = parent / f"check-{number}"
        folder.mkdir()
        cls(folder).write(commit_records(3000, 16))
        if [replace(commit, staged="") for commit in cls(folder).commits()] != written:
            raise SystemExit(f"{form} does not give back what was written.")


def apart(job: str, form: str, folder: Path, given: Any) -> tuple[float, float, str]:
    sizes = [str(given.samples), str(given.a_commit)]
    command = [sys.executable, __file__, "--one", job, form, str(folder), *sizes]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, mebibytes, answer = json.loads(done.stdout)
    return seconds, mebibytes, answer


def best(job: str, form: str, folder: Path, given: Any) -> tuple[float, float, str]:
    return min(apart(job, form, folder, given) for _ in range(given.repeats))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=1_000_000)
    options.add_argument("--a-commit", type=int, default=16)
    options.add_argument("--repeats", type=int, default=2, help="of each question: the best counts")
    options.add_argument("--one", nargs=5, help="used by the script itself")
    given = options.parse_args()
    if given.one:
        job, form, folder, samples, a_commit = given.one
        one(job, form, Path(folder), int(samples), int(a_commit))
        return
    with temporary_folder(given.temporary_folder) as parent:
        check_that_all_say_the_same(parent)
        title(f"packing {given.samples:,} samples, {given.a_commit} a commit")
        folders = {}
        for number, form in enumerate(FORMS):
            if form in WRITTEN_BY:
                folders[form] = folders[WRITTEN_BY[form]]
                continue
            folders[form] = parent / str(number)
            folders[form].mkdir()
            seconds, most, _ = apart("write", form, folders[form], given)
            figure(f"{form}: write", seconds, "s", 1)
            figure(f"{form}: most memory", most, "MiB", 0)
            size = sum(path.stat().st_size for path in folders[form].iterdir())
            figure(f"{form}: on disk", size / 1e6, "MB", 1)
        for job, what in QUESTIONS.items():
            title(what)
            answers = set()
            for form, cls in FORMS.items():
                if not hasattr(cls, job):
                    continue
                seconds, most, answer = best(job, form, folders[form], given)
                figure(f"{form}", seconds, "s")
                figure(f"{form}: most memory", most, "MiB", 0)
                answers.add(answer)
            if len(answers) != 1:
                raise SystemExit(f"The forms differ: {answers}")


if __name__ == "__main__":
    main()
