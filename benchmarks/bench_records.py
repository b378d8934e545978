"""Commit records to JSON and back: by hand, by pydantic, and by msgspec, with the same checks.

File names may be any bytes, which Python's JSON keeps (`\\udcff`) and the parsers of both libraries
refuse. So each is measured with its own parser, and behind Python's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import msgspec
from _records import commit_records
from _report import figure, parser, title
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    Outcome,
    refuse_paths,
)

LATEST = 1e11
SIGNATURE = r"\A[0-9a-f]{16}\Z"


# -- what neither library says in a type -----------------------------------------------------


def check_files(names: Iterable[str]) -> None:
    refuse_paths(name.removeprefix("/") for name in names)


def check_places(record: Any) -> None:
    """The ids and folders of a commit, and its shared items."""
    check_files(record.shared)
    names = [record.id, record.tag]
    for path, parts in [(record.staged, 3), *((path, 2) for path in record.drops)]:
        names += path.split("/")
        if path.count("/") != parts - 1:
            raise ValueError(f"it names {path!r}")
    refuse_paths(names)
    if not (record.staged.startswith("staged/") and record.id.isascii()):
        raise ValueError(f"it names {record.staged!r} and {record.id!r}")
    if not is_run_key(record.run_key):
        raise ValueError("not a commit record of a known format")


# -- pydantic --------------------------------------------------------------------------------


def _file(name: str) -> str:
    check_files((name,))
    return name


_FileName = Annotated[str, AfterValidator(_file)]
_Index = Annotated[int, Field(ge=0, lt=MAX_INDEX, strict=True)]
_Time = Annotated[float, Field(ge=0, lt=LATEST, allow_inf_nan=False, strict=True)]
# Not strict as a whole: the lists of Python's JSON are tuples here.
_KNOWN = ConfigDict(extra="forbid")


@checked_dataclass(frozen=True, slots=True, config=_KNOWN)
class PydanticSample:
    idx: _Index
    outcome: Outcome
    signature: Annotated[str, Field(pattern=SIGNATURE.replace("Z", "z"))] | None = None
    target: _Index | None = None
    writes: dict[_FileName, str] | None = None
    replaces: tuple[_FileName, ...] = ()
    removes: tuple[_FileName, ...] = ()
    attempts: _Index = 1
    failure: tuple[str, str, str] | None = None


@checked_dataclass(frozen=True, slots=True, config=_KNOWN)
class PydanticCommit:
    format: Literal[1]
    id: str
    run_key: str
    tag: str
    staged: str
    at: _Time
    samples: tuple[PydanticSample, ...]
    shared: dict[_FileName, str] = field(default_factory=dict)
    drops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_places(self)


PYDANTIC = TypeAdapter(PydanticCommit)


def pydantic_encode(record: PydanticCommit) -> bytes:
    return PYDANTIC.dump_json(record, exclude_defaults=True)


def pydantic_python_encode(record: PydanticCommit) -> bytes:
    entry = PYDANTIC.dump_python(record, exclude_defaults=True)
    return json.dumps(entry, separators=(",", ":")).encode()


def pydantic_python_decode(text: bytes) -> PydanticCommit:
    return PYDANTIC.validate_python(json.loads(text))


# -- msgspec ---------------------------------------------------------------------------------

_Bounded = Annotated[int, msgspec.Meta(ge=0, lt=MAX_INDEX)]


class MsgspecFailure(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    error_type: str
    message: str
    traceback: str


class MsgspecSample(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    idx: _Bounded
    outcome: Outcome
    signature: Annotated[str, msgspec.Meta(pattern=SIGNATURE)] | None = None
    target: _Bounded | None = None
    writes: dict[str, str] | None = None
    replaces: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    attempts: _Bounded = 1
    failure: MsgspecFailure | None = None

    def __post_init__(self) -> None:
        check_files((*(self.writes or ()), *self.replaces, *self.removes))


class MsgspecCommit(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    format: Literal[1]
    id: str
    run_key: str
    tag: str
    staged: str
    at: Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
    samples: tuple[MsgspecSample, ...]
    shared: dict[str, str] = msgspec.field(default_factory=dict)
    drops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_places(self)


_decoder = msgspec.json.Decoder(MsgspecCommit)


def msgspec_python_encode(record: MsgspecCommit) -> bytes:
    return json.dumps(msgspec.to_builtins(record), separators=(",", ":")).encode()


def msgspec_python_decode(text: bytes) -> MsgspecCommit:
    return msgspec.convert(json.loads(text), MsgspecCommit)


# -- measured --------------------------------------------------------------------------------

Encode, Decode = Callable[[Any], bytes], Callable[[bytes], Any]
FORMS: dict[str, tuple[Encode, Decode]] = {
    "by hand": (CommitRecord.to_bytes, CommitRecord.from_bytes),
    "pydantic": (pydantic_encode, PYDANTIC.validate_json),
    "pydantic, Python's JSON": (pydantic_python_encode, pydantic_python_decode),
    "msgspec": (msgspec.json.encode, _decoder.decode),
    "msgspec, Python's JSON": (msgspec_python_encode, msgspec_python_decode),
}


def refused(decode: Decode, text: bytes) -> bool:
    try:
        decode(text)
    except (ValueError, RecursionError):  # pydantic's and msgspec's errors are ValueErrors
        return True
    return False


def edited(text: bytes, **changes: Any) -> bytes:
    """The record with other values, of its own or (`sample_…`) of its first sample."""
    entry = json.loads(text)
    for name, value in changes.items():
        where: Mapping[str, Any] = entry["samples"][0] if name.startswith("sample_") else entry
        where[name.removeprefix("sample_")] = value
    return json.dumps(entry).encode()


def forged(text: bytes) -> dict[str, bytes]:
    """What must be refused."""
    paths = ["", "..", "a/b", "../x", "a\0b", "\ud800", 7, None]
    numbers = [-1, 10**14, 2**70, True, "1", float("nan"), [], None]
    changes: list[dict[str, Any]] = [
        *({"sample_idx": value} for value in [*numbers, 1.5]),
        *({"sample_attempts": value} for value in [*numbers, 1.5]),
        *({"sample_target": value} for value in numbers[:-1]),
        *({"sample_outcome": value} for value in ("lost", 1, None, [])),
        *({"sample_signature": value} for value in ("x", "A" * 16, "0" * 16 + "\n", 7)),
        *({"sample_writes": value} for value in ([], 7, "a", {"a": 1}, {"a": None})),
        *({"sample_writes": {name: "0"}} for name in paths[:-2]),
        *({"sample_replaces": [name]} for name in paths),
        *({"sample_removes": [name]} for name in paths),
        *({"sample_failure": value} for value in (7, [], ["a", "b"], ["a", "b", 1], {})),
        *({"at": value} for value in (-1, 1e300, float("nan"), "1", None)),
        *({name: path} for name in ("id", "tag") for path in paths),
        *({"staged": path} for path in (*paths, "staged/a", "staged/../a", "other/a/b")),
        *({"drops": [path]} for path in (*paths[:1], *paths[3:], "a", "a/b/c", "a/..")),
        *({"shared": value} for value in ([["a", "0"]], {"/..": "0"}, {"/a": 1}, 7)),
        *({"run_key": value} for value in ("", "\ud800", 7, None)),
        *({"format": value} for value in (2, "1", None, [])),
        *({"samples": value} for value in (7, None, [7], [{}], [[]])),
        {"more": 1},
        {"sample_more": 1},
    ]
    made = {repr(change): edited(text, **change) for change in changes}
    return {
        **made,
        "nested deeply": b"[" * 100_000,
        "half": text[:-9],
        "a list": b"[" + text + b"]",
    }


def check_that_all_refuse(text: bytes) -> None:
    title("forged records that are not refused")
    tried = forged(text)
    for name, (_, decode) in FORMS.items():
        taken = [kind for kind, content in tried.items() if not refused(decode, content)]
        figure(f"{name}, of {len(tried)}", len(taken), " ".join(taken)[:200], 0)
    title("file names of any bytes (1: kept, 0: refused)")
    for name, (encode, decode) in FORMS.items():
        any_bytes = edited(text, sample_removes=["000_a.\udcff"])
        kept = not refused(decode, any_bytes) and b"\\udcff" in encode(decode(any_bytes))
        figure(name, kept, "", 0)


def seconds(job: Callable[[Any], Any], values: list[Any]) -> float:
    begin = time.process_time()
    for value in values:
        job(value)
    return time.process_time() - begin


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=16_000)
    options.add_argument("--repeats", type=int, default=7, help="in turns: the best of each counts")
    given = options.parse_args()
    check_that_all_refuse(next(commit_records(1, 1)).to_bytes())
    for a_commit in (1, 16):
        texts = [record.to_bytes() for record in commit_records(given.samples, a_commit)]
        records = {name: list(map(decode, texts)) for name, (_, decode) in FORMS.items()}
        check_that_all_write_the_same(texts, records)
        times: dict[str, list[float]] = {}
        for _ in range(given.repeats):
            for name, (encode, decode) in FORMS.items():
                times.setdefault(f"{name}: encode", []).append(seconds(encode, records[name]))
                times.setdefault(f"{name}: decode", []).append(seconds(decode, texts))
        title(f"µs a sample, {a_commit} a commit")
        for name, found in times.items():
            figure(name, min(found) * 1e6 / given.samples, "µs", 2)


def check_that_all_write_the_same(texts: list[bytes], records: dict[str, list[Any]]) -> None:
    samples = [json.loads(text)["samples"] for text in texts]
    for name, found in records.items():
        encode, _ = FORMS[name]
        if [json.loads(encode(record))["samples"] for record in found] != samples:
            raise SystemExit(f"{name} does not write what it read.")


if __name__ == "__main__":
    main()
