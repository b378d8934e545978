"""Transforms that are not idempotent, to be named by flows in other processes."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prefect_pipestream.sequences import REMOVE, Sample

SLOWLY_S = float(os.environ.get("TESTS_SLOWLY_S", "0.002"))


def invert(sample: Sample) -> Sample:
    """Gives the negative of the image: done twice, it is undone."""
    return sample.set_value("image", 255 - sample["image"]())


def invert_slowly(sample: Sample) -> Sample:
    """The same, so slow that there is time to kill it."""
    time.sleep(SLOWLY_S)
    return invert(sample)


def count(sample: Sample) -> Sample:
    """Adds one to the counter."""
    return sample.set_value("label", sample["label"]() + 1)


def count_slowly(sample: Sample) -> Sample:
    """The same, slowly."""
    value = sample["label"]()
    time.sleep(SLOWLY_S)
    return sample.set_value("label", value + 1)


def count_or_remove(sample: Sample) -> Any:
    """Removes one sample in five, by its image; counts in the others."""
    return REMOVE if sample["image"]()[0, 0] % 5 == 3 else count(sample)


def count_or_remove_slowly(sample: Sample) -> Any:
    """The same, slowly."""
    found = count_or_remove(sample)
    time.sleep(SLOWLY_S)
    return found


class KillsOnce:
    """Counts, and kills its own process at one sample, but once only.

    Args:
        at: The counter's value at which to.
        mark: A file that tells that it was done.
    """

    def __init__(self, at: int, mark: Path) -> None:
        self.at = at
        self.mark = mark

    def __call__(self, sample: Sample) -> Sample:
        if int(np.ravel(sample["label"]())[0]) == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return count(sample)


def _sleep_in_c() -> None:
    """Sleeps without letting go of Python's lock: no other thread of Python runs meanwhile."""
    ctypes.PyDLL(None).sleep(1000)


def _loop() -> None:
    while True:
        pass


BREAKS: dict[str, Callable[[], Any]] = {
    "loop": _loop,
    "sleep": lambda: time.sleep(1000),
    "block in C": _sleep_in_c,
    "memory": lambda: np.ones(10 * 2**30, np.uint8),
    "os._exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit("at once"),
    "segmentation fault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Breaks:
    """Counts, and does something that no transform should at some samples.

    Args:
        at: The name of what it does, by the counter's value.
    """

    def __init__(self, at: dict[int, str]) -> None:
        self.at = at

    def __call__(self, sample: Sample) -> Sample:
        how = self.at.get(int(np.ravel(sample["label"]())[0]))
        if how is not None:
            BREAKS[how]()
        return count(sample)


_ALL = (invert, invert_slowly, count, count_slowly, count_or_remove, count_or_remove_slowly)
BY_NAME: dict[str, Any] = {f.__name__: f for f in _ALL}
