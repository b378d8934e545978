"""What one sample may take."""

import sys
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Limits:
    """What one sample may take, before it fails and its process is ended.

    Args:
        seconds: The time to read, transform and encode it; None is any.
        mebibytes: The memory that its process may take beyond what it had before; None is any.

    Raises:
        ValueError: If one is not above 0, or memory cannot be limited on this system.
    """

    seconds: float | None = None
    mebibytes: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name, value in (("sample_timeout", self.seconds), ("sample_memory", self.mebibytes)):
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a number above 0, got {value!r}.")
        if self.mebibytes is not None and sys.platform != "linux":
            raise ValueError("sample_memory: memory can be limited on Linux only. Leave it out.")

    @classmethod
    def of(cls, sample_timeout: float | None, sample_memory: float | None) -> "Limits | None":
        """The limits in two arguments; None where there are none.

        Raises:
            ValueError: As the class.
        """
        if sample_timeout is None and sample_memory is None:
            return None
        return cls(sample_timeout, sample_memory)
