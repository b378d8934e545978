"""The files of a catalog: what was found in one item of all samples, below ``catalog/<item>/``.

``rows.npz`` says which document each sample has, and of which version of its file;
``documents.npz`` has the documents, and ``path-<hash>.npz`` what one path leads to in each. The
three go together by the same token. They are a short cut: what is missing, damaged or of another
token is made anew.
"""

import hashlib
import json
import os
import secrets
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import names_in
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.untrusted import write_anew
from prefect_pipestream.underfolder.catalog.documents import PROBLEM, from_text
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.packed import read_arrays

Ints = npt.NDArray[np.int64]
Values = list[list[Any]]
"""For each of some codes, all that a path leads to; nothing where it leads nowhere."""

_ROWS, _DOCUMENTS = "rows.npz", "documents.npz"


class Rows(NamedTuple):
    """Which document each sample has: columns of equal length, by ascending index.

    Attributes:
        idx: The sample.
        tail: The number of what follows the index in its file's name, among `Kept.tails`.
        size, mtime_ns, inode: The version of the file.
        code: The number of the document.
    """

    idx: Ints
    tail: Ints
    size: Ints
    mtime_ns: Ints
    inode: Ints
    code: Ints

    @classmethod
    def none(cls) -> "Rows":
        """No rows."""
        return cls(*(np.empty(0, np.int64) for _ in cls._fields))


class Kept(NamedTuple):
    """What is kept of one item.

    Attributes:
        rows: Which document each sample has.
        tails: What follows the index in the names of files.
        documents: How many documents there are.
        token: What the other files have to have, too.
        problems: The numbers of documents that say why their files have no value.
    """

    rows: Rows
    tails: list[str]
    documents: int
    token: bytes
    problems: Ints

    @classmethod
    def nothing(cls) -> "Kept":
        """Nothing is kept."""
        return cls(Rows.none(), [], 0, b"", np.empty(0, np.int64))


class Shelf:
    """The files of one item.

    Args:
        layout: The dataset.
        key: The item's key.
    """

    def __init__(self, layout: Layout, key: str) -> None:
        self._layout = layout
        name = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        self._parts = ("catalog", name)

    def _at(self, name: str) -> str:
        return self._layout.at(*self._parts, name)

    # -- reading ---------------------------------------------------------------------------

    def rows(self) -> Kept:
        """What is kept; nothing where that cannot be read."""
        found = self._arrays(_ROWS)
        try:
            rows = Rows(*(_ints(found[name]) for name in Rows._fields))
            tails = json.loads(bytes(found["tails"]))
            problems, token = _ints(found["problems"]), bytes(found["token"])
            kept = Kept(rows, tails, int(found["documents"][0]), token, problems)
        except (KeyError, ValueError, TypeError, IndexError, RecursionError):
            return Kept.nothing()
        return kept if _is_sound(kept) else Kept.nothing()

    def documents(self, kept: Kept) -> list[str] | None:
        """The documents' texts; None where they cannot be read."""
        found = self._arrays(_DOCUMENTS)
        try:
            ends, text = _ints(found["ends"]), bytes(found["text"])
            if bytes(found["token"]) != kept.token or len(ends) != kept.documents:
                return None
            starts = np.concatenate([[0], ends[:-1]])
            if len(ends) and (ends[-1] != len(text) or (starts > ends).any()):
                return None
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            return [text[start:end].decode() for start, end in pairs]
        except (KeyError, ValueError, TypeError, IndexError):
            return None

    def path(self, kept: Kept, path: str) -> tuple[Ints, Values] | None:
        """For each document the code of what a path leads to in it, and for each code what it is.

        Returns:
            Them; None where they are not kept.
        """
        found = self._arrays(_name_of(path))
        try:
            codes = _ints(found["code"])
            if bytes(found["token"]) != kept.token or len(codes) != kept.documents:
                return None
            values = from_text(bytes(found["values"]).decode())
        except (KeyError, ValueError, TypeError, IndexError):
            return None
        is_sound = isinstance(values, list) and all(isinstance(one, list) for one in values)
        return (codes, values) if is_sound and _is_within(codes, len(values)) else None

    def _arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        try:
            return read_arrays(self._at(name))
        except (OSError, DatasetError):  # mostly it is not there; no link is followed either
            return {}

    # -- writing ---------------------------------------------------------------------------

    def put_rows(self, rows: Rows, tails: list[str], texts: list[str]) -> Kept:
        """Keeps rows and documents; what was kept of paths before goes."""
        bad = [code for code, text in enumerate(texts) if text.startswith(PROBLEM)]
        problems = np.array(bad, dtype=np.int64)
        kept = Kept(rows, tails, len(texts), secrets.token_bytes(16), problems)
        encoded = [text.encode() for text in texts]
        self._put(
            _DOCUMENTS,
            kept.token,
            ends=np.cumsum([len(one) for one in encoded], dtype=np.int64),
            text=_bytes(b"".join(encoded)),
        )
        self._put(
            _ROWS,
            kept.token,
            **rows._asdict(),
            tails=_bytes(json.dumps(tails).encode()),
            documents=np.array([len(texts)]),
            problems=problems,
        )
        return kept

    def put_path(self, kept: Kept, path: str, codes: Ints, values: str) -> None:
        """Keeps what a path leads to; see `path`."""
        self._put(_name_of(path), kept.token, code=codes, values=_bytes(values.encode()))

    def _put(self, name: str, token: bytes, **arrays: npt.NDArray[Any]) -> None:
        file = BytesIO()
        columns: dict[str, Any] = {"token": _bytes(token), **arrays}
        np.savez(file, **columns)
        self._make()
        write_anew(self._at(name), file.getvalue(), self._layout.staged)

    def _make(self) -> None:
        os.makedirs(self._layout.staged, exist_ok=True)
        os.makedirs(self._layout.at(*self._parts), exist_ok=True)

    def forget_paths(self) -> None:
        """Removes what was kept of paths, as the documents are others now."""
        folder = self._layout.at(*self._parts)
        for name in names_in(folder):
            if name.startswith("path-"):
                remove(f"{folder}/{name}")


def _name_of(path: str) -> str:
    digest = hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return f"path-{digest}.npz"


def _bytes(content: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)


def _ints(column: npt.NDArray[Any]) -> Ints:
    if column.ndim != 1 or column.dtype != np.int64:
        raise ValueError("it is no column of numbers")
    return column


def _is_within(codes: Ints, count: int) -> bool:
    return not len(codes) or (int(codes.min()) >= 0 and int(codes.max()) < count)


def _is_sound(kept: Kept) -> bool:
    rows = kept.rows
    return (
        len({len(column) for column in rows}) == 1
        and bool((np.diff(rows.idx) > 0).all())
        and isinstance(kept.tails, list)
        and all(isinstance(tail, str) for tail in kept.tails)
        and bool((rows.size >= 0).all())
        and _is_within(rows.tail, len(kept.tails))
        and _is_within(rows.code, kept.documents)
        and _is_within(kept.problems, kept.documents)
    )
