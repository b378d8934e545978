"""Why a sample failed, as the ledger keeps it."""

import re
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_FRAMES = 12
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class SampleFailure:
    """Why a sample failed."""

    error_type: str
    message: str
    traceback: str

    @classmethod
    def of_error(cls, error: BaseException) -> "SampleFailure":
        """An error's class, message and traceback; of long tracebacks the innermost calls."""
        lines = traceback.format_exception(
            type(error), error, _innermost(error.__traceback__), chain=error.__cause__ is not None
        )
        return cls(type(error).__name__, _printable(str(error)), _printable("".join(lines)))

    @classmethod
    def of_texts(cls, texts: Any) -> "SampleFailure":
        """The failure in a list of its three texts.

        Raises:
            ValueError: If there are no such texts.
        """
        if not isinstance(texts, list | tuple) or len(texts) != 3:
            raise ValueError(f"{texts!r:.100} is no failure of a sample")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{texts!r:.100} is no failure of a sample")
        return cls(*texts)


def _printable(text: str) -> str:
    """The text without what no database or terminal takes: a file's name may be any bytes."""
    text = text.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def _innermost(trace: TracebackType | None) -> TracebackType | None:
    length, step = 0, trace
    while step is not None:
        length, step = length + 1, step.tb_next
    for _ in range(length - _FRAMES):
        assert trace is not None
        trace = trace.tb_next
    return trace
