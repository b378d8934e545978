"""Values of metadata as text, and back: JSON, with a mark on what JSON has not.

Nothing but plain data comes out of a text, whoever wrote it.
"""

import base64
import datetime
import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

_MARK = "$"
_MOST_CHARACTERS = 50_000_000  # aliases of YAML can stand for more than any memory holds
_NODE = 50  # what a value takes beside its characters
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Problem(str):
    """Why a file has no value; what a text says of such a one, which leads nowhere."""

    __slots__ = ()


PROBLEM = '{"$problem":'
"""How the text of a problem begins, and that of no value."""
_FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "set": set,
    "pairs": dict,
    "problem": Problem,
}


def as_text(value: Any) -> str:
    """A value of metadata as text; equal values of equal types have one text.

    Raises:
        ValueError: If it is no plain data, refers to itself, or is too large.
    """
    try:
        return _ENCODE(_Plain().of(value))
    except RecursionError as error:
        raise ValueError("it is nested too deep, or refers to itself") from error


def problem_as_text(problem: str) -> str:
    """The text that says why a file has no value."""
    return f"{PROBLEM}{_ENCODE(problem)}}}"


def from_text(text: str) -> Any:
    """The value of a text.

    Raises:
        ValueError: If it is no such text.
    """
    try:
        return json.loads(text, object_hook=_unmarked if f'"{_MARK}' in text else None)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


class _Plain:
    """Takes values apart, and counts what they are made of."""

    def __init__(self) -> None:
        self._left = _MOST_CHARACTERS

    def _count(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise ValueError(f"it takes more than {_MOST_CHARACTERS:,} characters")

    def of(self, value: Any) -> Any:
        self._count(_NODE)
        if isinstance(value, str | bytes):
            self._count(len(value))
        if isinstance(value, int):
            self._count(value.bit_length() // 3)
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, Mapping):
            return self._of_mapping(value)
        if isinstance(value, datetime.datetime | datetime.date | datetime.time):
            return {_MARK + type(value).__name__: value.isoformat()}
        if isinstance(value, bytes):
            return {_MARK + "bytes": base64.b64encode(value).decode()}
        if isinstance(value, Set):
            return {_MARK + "set": [self.of(one) for one in sorted(value, key=repr)]}
        if isinstance(value, Sequence):
            return [self.of(one) for one in value]
        raise ValueError(f"a {type(value).__name__} is no plain data")

    def _of_mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        if all(isinstance(key, str) and key[:1] != _MARK for key in value):
            self._count(sum(map(len, value)))
            return {key: self.of(one) for key, one in value.items()}
        return {_MARK + "pairs": [[self.of(key), self.of(one)] for key, one in value.items()]}


def _unmarked(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, value),) = found.items()
        if key[:1] == _MARK:
            make = _FROM_TEXT.get(key[1:])
            if make is None:
                raise ValueError(f"there is no value of kind {key!r}")
            return make(value)
    return found


def values_at(value: Any, names: Sequence[str]) -> list[Any]:
    """All that a path leads to in a value: through a list, in each of its members."""
    if isinstance(value, Problem):
        return []
    if not names:
        return [value]
    if len(names) == 1 and type(value) is dict:
        return [value[names[0]]] if names[0] in value else []
    from dictquery.datavalue import query_value

    found: list[Any] = query_value(value, "\0".join(names), key_separator="\0")
    return found
