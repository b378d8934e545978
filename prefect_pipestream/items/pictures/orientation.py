"""Turning pixels by an orientation, 1 to 8 as EXIF numbers it: 6 says "turn me clockwise"."""

from typing import Any

import numpy as np

from prefect_pipestream.items.arrays import Array

UPRIGHT = 1
_LAST = 8
_TURNED, _TURNED_BACK = 6, 8


def orientation_in(value: Any) -> int:
    """Returns the orientation that the value of a file's tag stands for; upright if it is none."""
    return int(value) if value in range(UPRIGHT, _LAST + 1) else UPRIGHT


def upright(image: Array, orientation: int) -> Array:
    """Returns an image (H×W or H×W×C) of an orientation as it is to be seen."""
    turns, is_mirrored = {
        1: (0, False),
        2: (0, True),
        3: (2, False),
        4: (2, True),
        5: (3, True),
        6: (3, False),
        7: (1, True),
        8: (1, False),
    }[orientation]
    if orientation == UPRIGHT:
        return image
    turned = np.rot90(image, turns)
    return np.ascontiguousarray(turned[:, ::-1] if is_mirrored else turned)


def as_stored(image: Array, orientation: int) -> Array:
    """Returns an image (H×W or H×W×C) that is upright as it is stored with an orientation."""
    # All others are their own inverse.
    swapped = {_TURNED: _TURNED_BACK, _TURNED_BACK: _TURNED}
    return upright(image, swapped.get(orientation, orientation))
