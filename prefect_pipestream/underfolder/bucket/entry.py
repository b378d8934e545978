"""One entry of a bucket's log: what one writer did to the dataset, all of it or nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Predicate
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from prefect_pipestream.storage.untrusted import is_name
from prefect_pipestream.underfolder.format.names import MAX_INDEX, is_shared, parse_item_name
from prefect_pipestream.underfolder.format.ref import Ref, version_by
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.records import CommitRecord, new_commit_id
from prefect_pipestream.underfolder.runs.imported import ImportLine

__all__ = ["FORMAT", "Entry", "Ref", "fact_entry", "version_by"]

FORMAT = 1
_LONGEST = 255


def _is_file_name(name: str) -> bool:
    own = name.removeprefix("/")
    if not (own.isprintable() and is_name(own) and len(own.encode()) <= _LONGEST):
        return False
    return is_shared(name) or parse_item_name(name) is not None


def _is_id(name: str) -> bool:
    return is_name(name) and len(name) <= _LONGEST


_FileName = Annotated[str, Predicate(_is_file_name)]
_RunKey = Annotated[str, Predicate(is_run_key)]
_RunFolder = Annotated[str, Predicate(_is_id)]
_Id = Annotated[str, Predicate(_is_id)]
_Index = Annotated[int, Field(strict=True, ge=0, lt=MAX_INDEX)]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one writer did.

    Attributes:
        id: Unique.
        run_key: The run that it is part of.
        commit: The commit that it is; None: it is a note.
        placed: What is in place from here on: the content of each file, by name.
        before: What those files were before that were there, and those that are removed: by name.
        facts: What is noted of the run.
        attempt: The attempt that has the run to itself from here on.
        claims: Whether the run created the dataset by it.
        undone: The names that the folders of undone runs get, by their names until here.
        notes: What is noted of other runs, by the names of their folders; None: not any more.
        pruned: The names of the folders of the runs that are removed for good.
        moves: Whether samples get other indices by it: attempts at other runs end.
        taken_back: What counts no more of runs that stand, as long as the run of this entry does:
            by the names of their folders, and by commit, the indices at which samples were written.
        imported: Which samples are to come from what, besides what earlier entries say.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: _Id
    run_key: _RunKey
    placed: Mapping[_FileName, Ref] = field(default_factory=dict)
    before: Mapping[_FileName, Ref] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    attempt: str | None = None
    claims: bool = False
    undone: Mapping[_RunFolder, _RunFolder] = field(default_factory=dict)
    notes: Mapping[_RunFolder, Mapping[str, Any]] = field(default_factory=dict)
    pruned: tuple[_RunFolder, ...] = ()
    taken_back: Mapping[_RunFolder, Mapping[_Id, tuple[_Index, ...]]] = field(default_factory=dict)
    commit: Any = None
    moves: bool = False
    imported: Any = ()

    @property
    def removed(self) -> list[str]:
        """The names of files that were there, and are not from here on."""
        return [name for name in self.before if name not in self.placed]

    @property
    def names(self) -> list[str]:
        """The names of all files that have another content from here on, or none."""
        return [*self.placed, *self.removed]

    @property
    def refs(self) -> list[Ref]:
        """All contents that it names."""
        return [*self.placed.values(), *self.before.values()]

    def to_bytes(self) -> bytes:
        """The entry as JSON."""
        values = {"format": FORMAT, **_ENTRY.dump_python(self, exclude_defaults=True)}
        if self.commit is not None:
            values["commit"] = self.commit.to_json()
        if self.imported:
            values["imported"] = [line.to_json() for line in self.imported]
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Entry":
        """The reverse of `to_bytes`.

        Raises:
            ValueError: If it is no entry, or of a format that this version does not know.
        """
        try:
            values = json.loads(content)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError("not an entry of a known format")
        if values.get("commit") is not None:
            commit = values["commit"] = CommitRecord.checked(values["commit"])
            if (commit.id, commit.run_key) != (values.get("id"), values.get("run_key")):
                raise ValueError("its commit is another one")
            if len(commit.tag.encode(errors="replace")) > _LONGEST:
                raise ValueError("its commit's tag is too long")
        if "imported" in values:
            values["imported"] = _lines_in(values["imported"])
        try:
            return _ENTRY.validate_python(values)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise ValueError(f"{wrong['loc']!r:.200}: {wrong['msg']}") from None


_ENTRY = TypeAdapter(Entry)


def fact_entry(run_key: str, facts: Mapping[str, Any], **others: Any) -> Entry:
    """An entry that notes something of a run, and changes no file."""
    return Entry(new_commit_id(), run_key, facts=facts, **others)


def _lines_in(said: Any) -> tuple[ImportLine, ...]:
    if not isinstance(said, list):
        raise ValueError("what it says of imports is no list")
    try:
        return tuple(map(ImportLine.checked, said))
    except TypeError as error:
        raise ValueError(f"what it says of imports: {error}") from error
