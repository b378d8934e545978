"""Transforms that are not idempotent, to be named by flows in other processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from prefect_pipestream.sequences import Sample

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


BY_NAME: dict[str, Any] = {f.__name__: f for f in (invert, invert_slowly, count, count_slowly)}
