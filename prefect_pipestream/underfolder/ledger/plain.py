"""Values as the ledger notes them: plain JSON of bounded size, without secrets."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

MOST = 8000
"""About how many characters of JSON a value takes at most."""
HIDDEN = "**********"
"""What is noted in place of a secret."""
_LONGEST = 1000
_BY_TEXT = (complex, date, time, timedelta, Decimal, Fraction, PurePath, UUID)
_DEEPEST = 20
_MOST_BITS = 256
_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|credential|(?:api|access|private|account).?key|token$",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"(://)[^/@\s]+@")

Opened = Callable[[Any], Any]
"""What makes something plainer of a value: the outermost part of it, at least."""


def plain(value: Any, most: int = MOST, opened: Opened | None = None) -> Any:
    """A value as plain JSON; what is too long is cut, with a word that says so.

    What is named like a secret (`password`, `api_key`) is not told, nor what stands before the `@`
    of an address. Costs no more for a value that is larger than what is noted of it.

    Args:
        value: Anything, as what a stranger's file says.
        most: About how many characters it may have.
        opened: Makes something plainer of values that JSON does not have.
    """
    return _Writer(most, opened).plain(value, 0)


def noted_plain(value: Any) -> Any:
    """A value that `plain` made and a file has, as it was made; another one likewise bounded."""
    return plain(value, 2 * MOST)


def as_json(value: Any) -> str:
    """A plain value in one line."""
    return json.dumps(value, ensure_ascii=False)


def text(value: str, longest: int = _LONGEST) -> str:
    """A text that every file and every terminal can take, and that is cut where it is long."""
    # An address is hidden before it is cut, and found where it is cut.
    begin = value[: longest + _LONGEST].encode(errors="backslashreplace").decode()
    shown = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", begin)
    if len(value) <= longest:
        return shown
    return f"{shown[:longest]}… (cut: {len(value):,} characters)"


class _Writer:
    """Writes one value, as long as there is place left."""

    def __init__(self, most: int, opened: Opened | None) -> None:
        self._left = most
        self._longest = most // 8
        self._opened = opened

    def plain(self, value: Any, depth: int) -> Any:
        if self._opened is not None:
            value = self._opened(value)
        if isinstance(value, Enum):
            value = value.value if isinstance(value.value, str | int) else value.name
        if isinstance(value, Mapping | list | tuple | Set | range):
            if depth == _DEEPEST:
                return self._taken("… (cut: nested deeper)")
            self._left -= 2
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            return self._list(value, len(value), depth + 1)
        return self._taken(self._simple(value))

    def _taken(self, value: Any) -> Any:
        self._left -= len(value) + 4 if isinstance(value, str) else 8
        return value

    def _simple(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            bits = value.bit_length()
            return int(value) if bits <= _MOST_BITS else f"… (cut: a number of {bits:,} bits)"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return text(value, max(0, min(self._longest, self._left)))
        if isinstance(value, bytes | bytearray):
            return f"<{len(value):,} bytes>"
        if isinstance(value, _BY_TEXT):
            return text(str(value))
        return f"<{type(value).__qualname__}>"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, (name, part) in enumerate(value.items()):
            if self._left <= 0:
                found["…"] = f"cut: {len(value) - number:,} more"
                break
            shown = self._taken(text(str(self._simple(name)), 200))
            is_secret = isinstance(part, str | bytes) and _SECRET_NAME.search(shown)
            found[shown] = HIDDEN if is_secret else self.plain(part, depth)
        return found

    def _list(self, value: Iterable[Any], length: int, depth: int) -> list[Any]:
        found: list[Any] = []
        for part in value:
            if self._left <= 0:
                found.append(f"… (cut: {length - len(found):,} more)")
                break
            found.append(self.plain(part, depth))
        return found
