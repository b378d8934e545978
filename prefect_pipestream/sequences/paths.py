"""Key paths into nested values: `meta.a.b[0]`, as `Sample.deep_get` and `deep_set` take them.

A path is split at dots; `[n]` is an index. A backslash before `.`, `[`, `]` or another
backslash takes that character literally. Empty parts are dropped: `a..b` is `a.b`.
"""

import re
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from prefect_pipestream.errors import SampleError

Token = str | int

_PART = re.compile(r"\[(-?\d+)\]|((?:\\[.\[\]\\]|(?!\[-?\d+\])[^.])+)|\.")
_ESCAPED = re.compile(r"\\([.\[\]\\])")
_MISSING = object()
# A typo such as `[999999999]` must not fill the memory with None.
_MAX_PADDING = 1_000_000


@lru_cache(maxsize=1024)
def split_path(path: str) -> tuple[Token, ...]:
    """Splits a key path into keys (str) and indices (int)."""
    tokens: list[Token] = []
    for match in _PART.finditer(path):
        index, key = match.groups()
        if index is not None:
            tokens.append(int(index))
        elif key is not None:
            tokens.append(_ESCAPED.sub(r"\1", key))
    return tuple(tokens)


def get_in(value: Any, tokens: Sequence[Token], default: Any = None) -> Any:
    """Walks into mappings, sequences, arrays and plain attributes (`image.shape[0]`).

    Returns `default` where the path leads nowhere.
    """
    for token in tokens:
        value = _step(value, token)
        if value is _MISSING:
            return default
    return value


def set_in(value: Any, tokens: Sequence[Token], new: Any, where: str) -> Any:
    """Sets the value at the path, in place, and returns the root.

    Missing containers are made on the way: a list where the next token is an index, a
    mapping elsewhere. A list is filled up with None to reach an index past its end.

    Raises:
        SampleError: If the path goes through something that cannot hold it; `where` names the path
            in the message.
    """
    if not tokens:
        return new
    if value is None:
        value = [] if isinstance(tokens[0], int) else {}
    head, rest = tokens[0], tokens[1:]
    slot: Any = _slot(value, head, where)
    if rest:
        child = _child(value, slot)
        new = set_in(child, rest, new, where)
    try:
        if isinstance(value, MutableSequence) and slot >= len(value):
            value.extend([None] * (slot + 1 - len(value)))
        value[slot] = new
    except (IndexError, TypeError, ValueError) as err:
        raise SampleError(f"cannot set {where!r}: at {head!r}, {err}.") from err
    return value


def _step(value: Any, token: Token) -> Any:
    if isinstance(value, Mapping):
        key = _mapping_key(value, token)
        return value.get(key, _MISSING)
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        index = _as_index(token)
        if index is not None:
            try:
                return value[index]
            except IndexError:
                return _MISSING
    if isinstance(token, str) and not token.startswith("_"):
        found = getattr(value, token, _MISSING)
        return _MISSING if callable(found) else found
    return _MISSING


def _mapping_key(value: Mapping[Any, Any], token: Token) -> Token:
    """The key as given, or its integer where only that is in the mapping (YAML has such)."""
    if token not in value:
        index = _as_index(token)
        if index is not None and index in value:
            return index
    return token


def _as_index(token: Token) -> int | None:
    if isinstance(token, int):
        return token
    return int(token) if re.fullmatch(r"-?\d+", token) else None


def _slot(value: Any, token: Token, where: str) -> Token:
    """The key or index of `value` that the token names."""
    if isinstance(value, MutableMapping):
        return _mapping_key(value, token)
    if isinstance(value, MutableSequence | np.ndarray):
        index = _as_index(token)
        if index is None:
            raise SampleError(f"cannot set {where!r}: a list has no key {token!r}, give an index.")
        if index < 0:
            index += len(value)
        if index < 0 or index > len(value) + _MAX_PADDING:
            raise SampleError(
                f"cannot set {where!r}: index {token} is out of range, the length is {len(value)}."
            )
        return index
    raise SampleError(
        f"cannot set {where!r}: {token!r} would go into a value of type "
        f"{type(value).__name__}, expected a mapping, a list or an array."
    )


def _child(value: Any, slot: Any) -> Any:
    try:
        return value.get(slot) if isinstance(value, Mapping) else value[slot]
    except IndexError:
        return None
