"""Plain values as bytes: equal values give equal bytes, in every process and Python version."""

import hashlib
from collections.abc import Iterable, Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

_BY_REPR = (int, float, complex, date, time, timedelta, Decimal, Fraction, range, UUID)


class NotPlainError(TypeError):
    """A value is not a plain one."""


def canonical(value: Any, depth: int = 0) -> bytes:
    """Returns bytes that stand for a plain value, and tell it from every other.

    Args:
        value: None, a bool, number, string, bytes, path, date, enum member, numpy array, or a
            mapping, list, tuple or set of these. The order of a mapping or a set does not
            count. Types do: 1, 1.0 and True differ, a list and a tuple do not.
        depth: How deep inside of another value it is.

    Raises:
        NotPlainError: If it is something else, or nested too deep (as what contains itself).
    """
    if depth > 50:
        raise NotPlainError("the value is nested more than 50 deep, or contains itself.")
    if value is None or isinstance(value, bool):
        return tagged("constant", str(value).encode())
    if isinstance(value, Enum):
        return tagged("enum", f"{type(value).__qualname__}.{value.name}".encode())
    if isinstance(value, np.ndarray | np.generic):
        return _canonical_array(np.asarray(value), depth)
    if isinstance(value, str):
        return tagged("str", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes | bytearray | memoryview):
        return tagged("bytes", bytes(value))
    if isinstance(value, PurePath):
        return tagged("path", str(value).encode("utf-8", "surrogateescape"))
    for kind in _BY_REPR:
        if isinstance(value, kind):
            return tagged(type(value).__name__, repr(value).encode())
    return _canonical_container(value, depth + 1)


def _canonical_container(value: Any, depth: int) -> bytes:
    if isinstance(value, Mapping):
        pairs = (canonical(k, depth) + canonical(v, depth) for k, v in value.items())
        return tagged_all("mapping", sorted(pairs))
    if isinstance(value, Set):
        return tagged_all("set", sorted(canonical(one, depth) for one in value))
    if isinstance(value, list | tuple):
        return tagged_all("list", (canonical(one, depth) for one in value))
    raise NotPlainError(f"a {type(value).__qualname__} is not a plain value.")


def _canonical_array(array: np.ndarray[Any, Any], depth: int) -> bytes:
    if array.dtype.hasobject:
        return tagged_all("objects", [repr(array.shape).encode(), canonical(array.tolist(), depth)])
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    header = f"{little.dtype.descr}{array.shape}".encode()
    return tagged("array", header + hashlib.sha256(little.tobytes()).digest())


def tagged(tag: str, content: bytes) -> bytes:
    """Puts a tag and the length before bytes, so that no two sequences of them are the same."""
    return f"{tag}:{len(content)}:".encode() + content


def tagged_all(tag: str, contents: Iterable[bytes]) -> bytes:
    """Tags a sequence of bytes that are tagged themselves."""
    return tagged(tag, b"".join(contents))
