"""How far a file's modification time can be trusted."""

import time

_TICK_NS = 20_000_000  # above the kernel's clock tick, in which two changes get one mtime
_COARSE_TICK_NS = 2_100_000_000  # on file systems that keep whole seconds


def tick_ns(mtime_ns: int) -> int:
    """How long after `mtime_ns` another change may still get that same modification time."""
    return _TICK_NS if mtime_ns % 1_000_000_000 else _COARSE_TICK_NS


def is_racy(mtime_ns: int) -> bool:
    """Whether a change from now on may still get this modification time."""
    return mtime_ns != 0 and abs(time.time_ns() - mtime_ns) < tick_ns(mtime_ns)
