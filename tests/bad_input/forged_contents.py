"""Forgeries of what a private file says."""

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .forged_things import places
from .forged_trial import Forgery

_LEDGER = ("look", "undo", "pack", "mend")
JSON_FILES: dict[str, tuple[str, ...]] = {
    "log/*.json": ("write", "mend"),
    "runs/first/done/main/*.json": ("look", "undo", "mend"),
    "runs/first/run.json": ("look", "undo", "keep"),
    "runs/undo%3Aundone/run.json": ("undo", "prune", "keep"),
    "runs/undone~undone-*/run.json": ("look", "force"),
    "runs/half/undoing.json": ("undo", "mend"),
    "runs/first/attempt.json": ("resume",),
    "claim.json": ("write",),
    "review/review/review.json": ("review",),
    "review/late/review.json": ("review",),
    "staged/*.alive": ("write",),
}
"""The JSON files, and the steps that make most of what they say."""

NUMBERS: list[Any] = [-1, 2**70, 1e300, float("nan"), True, 0.0]
NAMES: list[Any] = [
    *("", "..", "/", "a\0b", "a\nb", "\ud800", "\udcff\x1b[2J", "x" * 300, "undo", "first", "é"),
    *("../../../victim/secret.txt", "{victim}/secret.txt", "/{victim}/secret.txt", "/.pipestream"),
]
THINGS: list[Any] = [None, [], {}, [[None]], {"a": None}, 7]


def contents() -> Iterator[Forgery]:
    """Each file with each content."""
    for place, steps in JSON_FILES.items():
        for kind, content in WHOLE.items():
            yield Forgery(place, kind, partial(_rewrite, place, content), steps=steps)
        yield from _edited(place, steps)
    for place, changes in (
        ("runs/packed/compact-1/samples.npz", {**ARRAYS, **PACKED}),
        ("seen/f.npz", ARRAYS),
    ):
        for kind, content in changes.items():
            steps = _LEDGER if "packed" in place else ("look", "prune")
            yield Forgery(place, kind, partial(_rewrite, place, content), steps=steps)
    for kind, content in PLANS.items():
        place = "plans/plan.npz"
        yield Forgery(place, kind, partial(_rewrite, place, content), steps=("plan", "look_over"))
    for place in ("files", "failures"):
        path = f"runs/packed/compact-1/{place}.jsonl.gz"
        for kind, content in LINES.items():
            yield Forgery(path, kind, partial(_rewrite, path, content), steps=_LEDGER)
    for kind, lines in JOURNAL.items():
        forge = partial(_rewrite, "journal", partial(_joined, lines))
        yield Forgery("journal", kind, forge, steps=("read", "write"))
    for kind, facts in UNDONE_RUNS.items():
        yield Forgery("runs", kind, partial(_make_runs, facts), steps=_LEDGER)


Content = Callable[[bytes], bytes]
"""A forged content, made of the right one."""


def _rewrite(place: str, content: Content, dataset: Path, victim: Path) -> None:
    for path in places(dataset, place):
        text = content(path.read_bytes())
        path.write_bytes(text.replace(b"{victim}", os.fsencode(victim)))


# -- JSON ----------------------------------------------------------------------------------

WHOLE: dict[str, Content] = {
    "deeply nested lists": lambda _: b"[" * 100_000,
    "deeply nested mappings": lambda _: b'{"a":' * 100_000,
    "half of it": lambda text: text[: len(text) // 2],
    "twice": lambda text: text * 2,
    "in UTF-16": lambda text: text.decode().encode("utf-16"),
    "a list": lambda text: b"[" + text + b"]",
    "every name twice": lambda text: text.replace(b"{", b'{"a":1,"a":2,'),
    "a number of 100,000 digits": lambda _: b"1" * 100_000,
    "1 MB of zeros": lambda _: b"\0" * 1_000_000,
    "a field more": lambda text: text.replace(b"{", b'{"more":1,', 1),
    "a field of deep lists": lambda text: (
        text.replace(b"{", b'{"more":' + b"[" * 900, 1)[:-1] + b"]" * 900 + b"}"
    ),
}


def _edited(place: str, steps: tuple[str, ...]) -> Iterator[Forgery]:
    """A field missing, or of another value: each field that there can be, of each mapping."""
    for path in FIELDS[place]:
        name = ".".join(map(str, path))
        edit = partial(_rewrite, place, partial(_without, path))
        yield Forgery(place, f"{name} missing", edit, steps=steps)
        for value in _values_for(path):
            change = partial(_with, path, value)
            yield Forgery(
                place, f"{name} = {value!r:.26}", partial(_rewrite, place, change), steps=steps
            )


def _values_for(path: tuple[Any, ...]) -> list[Any]:
    """Values to forge: those near to what is right are the most dangerous."""
    last = path[-1]
    if last in _NUMBERS:
        return [*NUMBERS, *THINGS]
    if last in _LISTS:
        return [*THINGS, *([name] for name in NAMES), ["a", "a"]]
    if last in _MAPPINGS:
        marks = [{name: "0" * 12} for name in NAMES]
        return [*THINGS, *marks, {"012_a.bin": 1}, {"012_a.bin": "\ud800"}]
    return [*NAMES, *THINGS]


_NUMBERS = {
    "size",
    "mtime_ns",
    "format",
    "at",
    "idx",
    "target",
    "attempts",
    "started",
    "finished",
    "undone",
    "expires",
}
_LISTS = {"drops", "replaces", "removes", "undoes_folders", "files", "failure"}
_MAPPINGS = {"shared", "writes", "runs", "sources"}
_SAMPLE = ("idx", "outcome", "signature", "target", "writes", "replaces", "removes", "failure")
_RECORD = [
    *((name,) for name in ("format", "id", "run_key", "tag", "staged", "at", "shared", "drops")),
    *(("samples", 0, name) for name in (*_SAMPLE, "attempts")),
    *(("samples",), ("samples", 0)),
]
_RUN = [
    *((name,) for name in ("run_key", "started", "finished", "undone", "user", "host", "undoes")),
    *((name,) for name in ("kept", "name", "plan")),
    *((name,) for name in ("undoes_folders", "fingerprint", "failed_in", "provenance")),
]
_SOURCE = ("size", "mtime_ns", "digest", "is_newer")
_REVIEW = [
    *((name,) for name in ("format", "id", "expires", "samples")),
    *(("samples", 0, name) for name in ("idx", "outcome", "files", "sources", "failure")),
    *(("samples", 0, "sources", "000_image.png", name) for name in _SOURCE),
]
FIELDS: dict[str, list[tuple[Any, ...]]] = {
    "log/*.json": _RECORD,
    "runs/first/done/main/*.json": _RECORD,
    "runs/first/run.json": _RUN,
    "runs/undo%3Aundone/run.json": _RUN,
    "runs/undone~undone-*/run.json": _RUN,
    "runs/half/undoing.json": [("undo",), ("runs",), ("runs", "half"), ("runs", "first")],
    "runs/first/attempt.json": [("attempt",), ("pid",), ("host",)],
    "claim.json": [("run_key",)],
    "review/review/review.json": _REVIEW,
    "review/late/review.json": [("expires",)],
    "staged/*.alive": [("run_key",), ("pid",), ("host",)],
}


def _with(path: tuple[Any, ...], value: Any, text: bytes) -> bytes:
    content = json.loads(text)
    where = _leading_to(content, path)
    where[path[-1]] = value
    return json.dumps(content).encode()


def _without(path: tuple[Any, ...], text: bytes) -> bytes:
    content = json.loads(text)
    where = _leading_to(content, path)
    if isinstance(where, dict):
        where.pop(path[-1], None)
    else:
        where.clear()
    return json.dumps(content).encode()


def _leading_to(content: Any, path: tuple[Any, ...]) -> Any:
    for part in path[:-1]:
        content = content[part]
    return content


# -- arrays --------------------------------------------------------------------------------


def _arrays(change: Callable[[dict[str, Any]], object], text: bytes) -> bytes:
    with np.load(io.BytesIO(text)) as found:
        arrays = dict(found)
    change(arrays)
    made = io.BytesIO()
    np.savez_compressed(made, **arrays)
    return made.getvalue()


def _changed(name: str, value: Callable[[Any], Any]) -> Content:
    return partial(_arrays, lambda arrays: arrays.update({name: value(arrays[name])}))


def _claims(count: str, text: bytes) -> bytes:
    """An array whose header says that it is far longer than it is."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(text)) as old,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            content = old.read(member)
            if member == "idx.npy":
                header = f"{{'descr':'<i8','fortran_order':False,'shape':({count},)}}\n".encode()
                content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            new.writestr(member, content)
    return made.getvalue()


@cache
def _bomb(size: int) -> bytes:
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
        new.open("idx.npy", "w", force_zip64=True) as member,
    ):
        header = f"{{'descr':'|u1','fortran_order':False,'shape':({size},)}}\n".encode()
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for _ in range(size >> 24):
            member.write(bytes(1 << 24))
    return made.getvalue()


def _member(name: str, text: bytes) -> bytes:
    made = io.BytesIO(text)
    with zipfile.ZipFile(made, "a") as new:
        new.writestr(name, b"x")
    return made.getvalue()


class _Evil:
    """Unpickled, it makes a file in the current folder's parent: nobody is to unpickle it."""

    def __reduce__(self) -> Any:
        return os.kill, (os.getpid(), 9)


ARRAYS: dict[str, Content] = {
    "deep text": lambda _: b"[" * 100_000,
    "half of it": lambda text: text[: len(text) // 2],
    "an empty archive": lambda _: b"PK\5\6" + bytes(18),
    "idx of objects": _changed("idx", lambda a: np.array([_Evil()] * len(a), dtype=object)),
    "idx claims 2**60 rows": partial(_claims, str(2**60)),
    "idx claims 2**31 rows": partial(_claims, str(2**31)),
    "idx claims -1 rows": partial(_claims, "-1"),
    "a bomb of 512 MiB": lambda _: _bomb(1 << 29),
    "a member ../../x.npy": partial(_member, "../../../../victim/x.npy"),
    "a member that is no array": partial(_member, "secret.txt"),
    "idx < 0": _changed("idx", lambda a: a - 100),
    "idx = 2**62": _changed("idx", lambda a: a + 2**62),
    "idx shorter": _changed("idx", lambda a: a[:-1]),
    "idx of two dimensions": _changed("idx", lambda a: a[:, None]),
    "idx a scalar": _changed("idx", lambda a: a[0]),
    "idx of floats": _changed("idx", lambda a: a * np.nan),
    "idx of complex numbers": _changed("idx", lambda a: a * 1j),
    "idx of text": _changed("idx", lambda a: a.astype("U")),
    "idx of bytes": _changed("idx", lambda a: a.astype("S")),
    "idx of dates": _changed("idx", lambda a: a.astype("M8[s]")),
    "idx missing": partial(_arrays, lambda arrays: arrays.pop("idx")),
    "outcome = 200": _changed("outcome", lambda a: a * 0 + 200),
    "signature of two dimensions": _changed("signature", lambda a: a[:, None]),
    "attempts = -1": _changed("attempts", lambda a: a.astype(np.int64) * 0 - 1),
}
PACKED: dict[str, Content] = {
    "commit_id of two dimensions": _changed("commit_id", lambda a: a[:, None]),
    "commit_id of text": _changed("commit_id", lambda a: a.astype("U")),
    "commit_id not in UTF-8": _changed("commit_id", lambda a: np.array([b"\xff"] * len(a))),
    "commit_id = ../..": _changed("commit_id", lambda a: np.array([b"../.."] * len(a))),
    "commit_id = a/b": _changed("commit_id", lambda a: np.array([b"a/b"] * len(a))),
    "commit_id empty": _changed("commit_id", lambda a: np.array([b""] * len(a))),
    "commit_id all the same": _changed("commit_id", lambda a: np.array([a[0]] * len(a))),
    "commit_id missing": partial(_arrays, lambda arrays: arrays.pop("commit_id")),
    "tags = ../..": _changed("tags", lambda a: np.array(["../.."])),
    "tags of lone surrogates": _changed("tags", lambda a: np.array(["\ud800"])),
    "tags of two dimensions": _changed("tags", lambda a: a[:, None]),
    "tags none": _changed("tags", lambda a: a[:0]),
    "tags of objects": _changed("tags", lambda a: np.array([_Evil()], dtype=object)),
    "commit_tag = 5": _changed("commit_tag", lambda a: a + 5),
    "commit_tag = -1": _changed("commit_tag", lambda a: a - 1),
    "commit_end = 2**62": _changed("commit_end", lambda a: a + 2**62),
    "commit_end < 0": _changed("commit_end", lambda a: a - 100),
    "commit_end backwards": _changed("commit_end", lambda a: a[::-1].copy()),
    "commit_at = 1e300": _changed("commit_at", lambda a: a * 0 + 1e300),
    "commit_at < 0": _changed("commit_at", lambda a: a * 0 - 1e18),
    "commit_at = nan": _changed("commit_at", lambda a: a * np.nan),
    "commit_at of text": _changed("commit_at", lambda a: a.astype("U")),
    "target = 2**62": _changed("target", lambda a: a + 2**62),
    "target of two dimensions": _changed("target", lambda a: a[:, None]),
    "idx = 10**15": _changed("idx", lambda a: a + 10**15),
}


def _facts(change: Callable[[dict[str, Any]], object], text: bytes) -> bytes:
    """A plan that says something else beside its columns."""

    def changed(arrays: dict[str, Any]) -> None:
        facts = json.loads(bytes(arrays["facts"]))
        change(facts)
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)

    return _arrays(changed, text)


def _fact(name: str, value: Any) -> Content:
    return partial(_facts, lambda facts: facts.update({name: value}))


def _text_of_facts(text: bytes) -> Content:
    return _changed("facts", lambda _: np.frombuffer(text, np.uint8))


_COLUMNS_OF_PLANS = ("outcome", "signature", "attempts")
PLANS: dict[str, Content] = {
    **{k: c for k, c in ARRAYS.items() if not k.startswith(_COLUMNS_OF_PLANS)},
    "idx descending": _changed("idx", lambda a: a[::-1].copy()),
    "idx all the same": _changed("idx", lambda a: a * 0),
    "own shorter": _changed("own", lambda a: a[:-1]),
    "own of objects": _changed("own", lambda a: np.array([_Evil()] * len(a), dtype=object)),
    "shared of two": _changed("shared", lambda a: np.concatenate([a, a])),
    "named < 0": _changed("named", lambda a: a - 100),
    "facts of objects": _changed("facts", lambda a: np.array([_Evil()], dtype=object)),
    "facts missing": partial(_arrays, lambda arrays: arrays.pop("facts")),
    "facts a list": _text_of_facts(b"[]"),
    "facts deeply nested": _text_of_facts(b"[" * 100_000),
    "facts not in UTF-8": _text_of_facts(b"\xff\xfe\xff"),
    **{
        f"{name} = {value!r:.26}": _fact(name, value)
        for name in ("key", "fingerprint", "transform", "target", "select", "where", "failed_in")
        for value in (*NAMES, *THINGS)
    },
}


# -- lines ---------------------------------------------------------------------------------


def _joined(lines: list[Any], _: bytes) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def _packed(lines: list[Any], text: bytes) -> bytes:
    return gzip.compress(_joined(lines, text), 1)


@cache
def _repeated(line: bytes, times: int) -> bytes:
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as file:
        for _ in range(times >> 14):
            file.write(line * (1 << 14))
    return made.getvalue()


def _changes(name: Any) -> list[Any]:
    """Forged lines of the files of the first commit."""
    return [[0, {}, [[0, {name: "0" * 12}, 1, [name]]]]]


LINES: dict[str, Content] = {
    "deeply nested": partial(_packed, [b"[" * 100_000]),
    "not packed": lambda _: b"[0]\n",
    "half of it": lambda text: text[: len(text) // 2],
    "a bomb of zeros": lambda _: _repeated(bytes(1 << 12), 1 << 17),
    "a bomb of lines": lambda _: _repeated(b'[0,"a","b","c"]\n', 1 << 24),
    "a bomb of later lines": lambda _: _repeated(b'[5,"a","b","c"]\n', 1 << 24),
    **{
        f"a line {line!r:.40}": partial(_packed, [line])
        for line in (
            *([], None, {}, 0, "text", [0], [None, {}, []], [0, {}, 1], [0, [], []], [0, {}, [[]]]),
            *([2**70, {}, []], [2**70, "a", "b", "c"], [-1, "a", "b", "c"], [[0], "a", "b", "c"]),
            *([0, "a", "b", 1], [0, "\ud800", "b", "c"], [True, "a", "b", "c"], [0, "a", "b"]),
            [0, {}, [[2**70, {}, 0, []]]],
            [0, {}, [[-1, {}, 0, []]]],
            [0, {}, [[0, [], 0, []]]],
            [0, {}, [[0, {"3_a.b": "x"}, 2**70, []]]],
            [0, {}, [[0, {"3_a.b": "x"}, 10**11, []]]],
            [0, {}, [[0, {"3_a.b": "x"}, [3], []]]],
            [0, {}, [[0, {"3_a.b": 1}, 0, []]]],
            [0, {}, [[0, {}, 0, [1]]]],
            [0, {}, [[0, {}, 0, 1]]],
            [0, {}, [[0, {}, "../x", []]]],
            [0, {}, [[0, {"3_a.b": "x"}, ["../../x"], []]]],
            [float("nan"), {}, []],
            *(
                [0, {"/../../../victim/secret.txt": "x"}, []],
                [0, {"/": "x"}, []],
                [0, {"/a": 1}, []],
            ),
        )
    },
    **{f"names {name!r:.30}": partial(_packed, _changes(name)) for name in NAMES},
}
JOURNAL: dict[str, list[Any]] = {
    "70,000 kinds": [
        [[[idx, [f"{idx}_k{idx}.bin" for _ in range(1)], []] for idx in range(70_000)], 1, 2]
    ],
    "times far too large": [[[], 10**40, 10**60]],
    "a million lines": [b"[[],1,1]"] * 1_000_000,
    "no times": [[[]]],
}


# -- runs that took each other back -------------------------------------------------------

UNDONE_RUNS: dict[str, dict[str, list[str]]] = {
    "that took each other back": {"first": ["b~undone-1"], "b~undone-1": ["first~undone-1"]},
    "that took itself back": {"first": ["first~undone-1"], "first~undone-1": ["first~undone-1"]},
    "that took back in a circle": {
        "first": ["b~undone-1"],
        "b~undone-1": ["packed~undone-1"],
        "packed": ["c~undone-1"],
        "c~undone-1": ["first~undone-2", "packed~undone-2"],
    },
    "that took 3,000 back, each the next": {
        "first": ["r0~undone-1"],
        **{
            (f"r{n}~undone-1" if n % 2 == 0 else f"r{n}"): [f"r{n + 1}~undone-1"]
            for n in range(3000)
        },
    },
}


def _make_runs(undoes: dict[str, list[str]], dataset: Path, victim: Path) -> None:
    for folder, undone in undoes.items():
        path = dataset / ".pipestream" / "runs" / folder
        path.mkdir(exist_ok=True)
        facts = {"run_key": folder.partition("~")[0], "started": 1, "undoes_folders": undone}
        (path / "run.json").write_text(json.dumps(facts))
