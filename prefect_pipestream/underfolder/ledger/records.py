"""What a commit says of itself, and of each of its samples: the ledger's entries."""

import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args

from annotated_types import Predicate
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.untrusted import is_name, read_regular
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.plain import text

Outcome = Literal["written", "unchanged", "skipped", "failed", "removed"]  # a ledger has positions
"""What became of a sample in a run.

``written``: at least one of its files is new. ``unchanged``: the transform returned it as it was.
``skipped``: the transform returned None, or there was nothing to remove. ``failed``: reading,
transforming or encoding it failed. ``removed``: its files were removed.
"""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
CHANGING: tuple[Outcome, ...] = ("written", "removed")
"""The outcomes of samples whose files are not what they were."""
FORMAT = 1
_LATEST = 1e11  # seconds since the epoch
_LONGEST_NAME = 200
_WRITE_ID = re.compile("[0-9A-Za-z]{1,64}")


def new_commit_id(write_id: str | None = None) -> str:
    """An id for a commit: it sorts by time, and ends with that of the write, where it has one.

    Raises:
        DatasetError: If that can be none.
    """
    check_write_id(write_id)
    return f"{time.time_ns():016x}-{write_id or secrets.token_hex(3)}"


def check_write_id(write_id: str | None) -> None:
    """Raises `DatasetError` if that can be no id of a write."""
    if write_id is not None and not _WRITE_ID.fullmatch(write_id):
        raise DatasetError(f"write_id {write_id!r:.100}: expected up to 64 letters and digits.")


def write_id_of(commit_id: str) -> str:
    """The id of the write that a commit is, as its writer gave it, or by chance."""
    return commit_id.rpartition("-")[2]


def is_person(name: str) -> bool:
    """Whether a user or a host may have this name in a record: as `person_of` makes it."""
    try:
        return len(name.encode()) <= 8 * _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def person_of(name: str) -> str:
    """The name of a user or a host as a record has it: Unicode, and cut where it is long."""
    return text(name, _LONGEST_NAME)


def _is_file_name(name: str) -> bool:
    return is_name(name.removeprefix("/"))


def _is_place(path: str) -> bool:
    return all(map(is_name, path.split("/")))


# What is on disk may say anything: a number is no text, and a name leads to no other folder.
_Index = Annotated[int, Field(strict=True, ge=0, lt=MAX_INDEX)]
_Name = Annotated[str, Predicate(is_name)]
_FileName = Annotated[str, Predicate(_is_file_name)]
_Person = Annotated[str, Predicate(is_person)]
_Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Failure = Annotated[
    SampleFailure,
    BeforeValidator(SampleFailure.of_texts),
    PlainSerializer(lambda why: [why.error_type, why.message, why.traceback]),
]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample's entry in a commit.

    Attributes:
        idx: The index under which the sample was read.
        outcome: What became of it.
        signature: The signature of the source's files after the commit; None where unknown.
        target: The index under which it was written.
        writes: Each file placed, by name, with its mark. A name with a leading slash, here
            and below, is a shared item that an undo puts back or removes.
        replaces: Of these, the names that were there before; their old files are kept.
        removes: Names that the new files supersede, or all of a sample that is removed; their
            files are kept.
        attempts: How often it was tried.
        failure: Why it failed.
        before: Of a sample that was moved to its `target`, the signature of its files before.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    idx: _Index
    outcome: Outcome
    signature: _Signature | None = None
    target: _Index | None = None
    writes: Mapping[_FileName, str] | None = None
    replaces: tuple[_FileName, ...] = ()
    removes: tuple[_FileName, ...] = ()
    attempts: _Index = 1
    failure: _Failure | None = None
    before: _Signature | None = None

    @property
    def written_at(self) -> int:
        """The index under which it is written."""
        return self.idx if self.target is None else self.target

    def to_json(self) -> dict[str, Any]:
        """The entry as plain values, without what is default."""
        entry: dict[str, Any] = _SAMPLE.dump_python(self, exclude_defaults=True)
        return entry

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "SampleRecord":
        """The record of these values, as `to_json` gives them.

        Raises:
            ValueError: If one is missing, unknown or not what it may be.
        """
        return _checked(_SAMPLE, values)


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit: its samples, and the shared items that it was the first to write.

    Attributes:
        id: Unique, and sorts by time.
        run_key: The run that it is part of.
        tag: The part of the run (a chunk) that made it.
        staged: The folder of its staged files, relative to ``.pipestream``.
        at: Seconds since the epoch.
        samples: Its samples.
        shared: Shared items, placed where there was none: the mark of each, by name with a
            leading slash.
        drops: Commits that this one takes back, as ``<run folder>/<commit id>``: they leave
            their ledger as this one is done.
        by: Who made it, and on which host, where that is noted of it alone; else the facts of
            its run say who.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    # A packed ledger holds no other ids than those of ASCII, which all are that were ever made.
    id: Annotated[_Name, Predicate(str.isascii)]
    run_key: Annotated[str, Predicate(is_run_key)]
    tag: _Name
    staged: Annotated[str, Field(pattern="^staged/[^/]+/[^/]+$"), Predicate(_is_place)]
    at: Annotated[float, Field(strict=True, ge=0, lt=_LATEST)]
    samples: tuple[SampleRecord, ...]
    shared: Mapping[_FileName, str] = field(default_factory=dict)
    drops: tuple[Annotated[str, Field(pattern="^[^/]+/[^/]+$"), Predicate(_is_place)], ...] = ()
    by: tuple[_Person, _Person] | None = None

    def to_bytes(self) -> bytes:
        """The record as JSON."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    @classmethod
    def read(cls, path: str) -> "CommitRecord":
        """The record in a file.

        Raises:
            ValueError: If it is no record, or of a format that this version does not know.
            OSError: If it cannot be read.
        """
        try:
            return cls.from_bytes(read_regular(path))
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error

    @classmethod
    def from_bytes(cls, content: bytes) -> "CommitRecord":
        """The reverse of `to_bytes`.

        Raises:
            ValueError: If it is no record, or of a format that this version does not know.
        """
        values = json.loads(content)  # not by pydantic, which refuses names that are no text
        return cls.checked(values)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values, without what is default."""
        return {"format": FORMAT, **_COMMIT.dump_python(self, exclude_defaults=True)}

    @classmethod
    def checked(cls, values: Any) -> "CommitRecord":
        """The record of these values, as `to_json` gives them.

        Raises:
            ValueError: If it is no record, or of a format that this version does not know.
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("not a commit record of a known format")
        return _checked(_COMMIT, {name: one for name, one in values.items() if name != "format"})


T = TypeVar("T")
_SAMPLE = TypeAdapter(SampleRecord)
_COMMIT = TypeAdapter(CommitRecord)


def _checked(of: TypeAdapter[T], values: Any) -> T:
    """Raises `ValueError` in one line: pydantic's has many, and what somebody forged."""
    try:
        return of.validate_python(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"{wrong['loc']!r:.200}: {wrong['msg']}") from None


def is_marks(value: Any) -> TypeGuard[Mapping[str, str]]:
    """Whether this can be the marks of files, by name; the names are to be looked at, too."""
    return isinstance(value, Mapping) and all(isinstance(mark, str) for mark in value.values())


def is_time(value: Any) -> TypeGuard[float]:
    """Whether this can be a time, in seconds since the epoch."""
    return isinstance(value, int | float) and 0 <= value < _LATEST


def refuse_paths(names: Iterable[str]) -> None:
    """Raises `ValueError` if one of the names is no name, or leads to another folder."""
    for name in names:
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"it names {name!r}")
