"""What a commit says of itself, and of each of its samples: the ledger's entries."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard, get_args

from prefect_pipestream.storage.untrusted import is_name, read_regular
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.failure import SampleFailure

Outcome = Literal["written", "unchanged", "skipped", "failed"]
"""What became of a sample in a run.

``written``: at least one of its files is new. ``unchanged``: the transform returned it as it was.
``skipped``: the transform returned None. ``failed``: reading, transforming or encoding it failed.
"""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
FORMAT = 1
_LATEST = 1e11  # seconds since the epoch
_SIGNATURE = re.compile("[0-9a-f]{16}")


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
        removes: Names that the new files supersede; their files are kept.
        attempts: How often it was tried.
        failure: Why it failed.
    """

    idx: int
    outcome: Outcome
    signature: str | None = None
    target: int | None = None
    writes: Mapping[str, str] | None = None
    replaces: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    attempts: int = 1
    failure: SampleFailure | None = None

    @property
    def written_at(self) -> int:
        """The index under which it is written."""
        return self.idx if self.target is None else self.target

    def to_json(self) -> dict[str, Any]:
        """The entry as plain values, without what is default."""
        entry: dict[str, Any] = {"idx": self.idx, "outcome": self.outcome}
        for name in ("signature", "target", "writes", "replaces", "removes"):
            if value := getattr(self, name):
                entry[name] = value
        if self.target == 0:
            entry["target"] = 0
        if self.attempts != 1:
            entry["attempts"] = self.attempts
        if self.failure is not None:
            failure = self.failure
            entry["failure"] = [failure.error_type, failure.message, failure.traceback]
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "SampleRecord":
        """The reverse of `to_json`."""
        values = dict(entry)
        if values.get("failure") is not None:
            values["failure"] = SampleFailure.of_texts(values["failure"])
        for name in ("replaces", "removes"):
            values[name] = tuple(values.get(name, ()))
        return cls.checked(values)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "SampleRecord":
        """The record of these values.

        Raises:
            ValueError: If one is not of its type: what is on disk may say anything.
            TypeError: If one is missing or unknown.
        """
        record = cls(**values)
        record._check_types()
        return record

    def _check_types(self) -> None:
        """Raises `ValueError` if a value is not of its type: records on disk may say anything."""
        if not (
            all(
                type(number) is int and 0 <= number < MAX_INDEX
                for number in (self.idx, self.attempts, self.written_at)
            )
            and self.outcome in OUTCOMES
            and (self.writes is None or is_marks(self.writes))
            and (self.signature is None or _SIGNATURE.fullmatch(self.signature))
        ):
            raise ValueError(f"{self!r:.200} is no record of a sample")


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
    """

    id: str
    run_key: str
    tag: str
    staged: str
    at: float
    samples: tuple[SampleRecord, ...]
    shared: Mapping[str, str] = field(default_factory=dict)
    drops: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The record as JSON."""
        entry = {
            "format": FORMAT,
            "id": self.id,
            "run_key": self.run_key,
            "tag": self.tag,
            "staged": self.staged,
            "at": self.at,
            "shared": dict(self.shared),
            "drops": self.drops,
            "samples": [sample.to_json() for sample in self.samples],
        }
        return json.dumps(entry, separators=(",", ":")).encode()

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
    def from_bytes(cls, text: bytes) -> "CommitRecord":
        """The reverse of `to_bytes`.

        Raises:
            ValueError: If it is no record, or of a format that this version does not know.
        """
        entry = json.loads(text)
        if not isinstance(entry, dict) or entry.pop("format", None) != FORMAT:
            raise ValueError("not a commit record of a known format")
        try:
            return cls._from_entry(entry)
        except (TypeError, KeyError, AttributeError) as error:
            # A field is missing, unknown or of another type.
            raise ValueError(f"not a commit record: {error!r}") from error

    @classmethod
    def _from_entry(cls, entry: dict[str, Any]) -> "CommitRecord":
        entry["samples"] = tuple(SampleRecord.from_json(sample) for sample in entry["samples"])
        entry["drops"] = tuple(entry["drops"])
        record = cls(**entry)
        if not (is_run_key(record.run_key) and is_time(record.at) and is_marks(record.shared)):
            raise ValueError("not a commit record of a known format")
        record._check_places()
        return record

    def _check_places(self) -> None:
        """Raises `ValueError` if the record names a file outside of where its files are."""
        names: list[str] = list(self.shared)
        for sample in self.samples:
            names += [*(sample.writes or ()), *sample.replaces, *sample.removes]
        names = [self.id, self.tag, *(str.removeprefix(name, "/") for name in names)]
        for path, parts in [(self.staged, 3), *((path, 2) for path in self.drops)]:
            names += str.split(path, "/")
            if path.count("/") != parts - 1:
                raise ValueError(f"it names {path!r}")
        if not self.staged.startswith("staged/"):
            raise ValueError(f"it names {self.staged!r}")
        refuse_paths(names)
        if not self.id.isascii():  # as no id that was ever made: a packed ledger cannot hold it
            raise ValueError(f"it says that it is {self.id!r}")


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
