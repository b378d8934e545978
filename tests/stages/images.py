"""Images for the tests, from hypothesis."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = ("uint8", "uint16", "float32", "float64")


def shapes(max_side: int = 6, channels: tuple[int | None, ...] = (None, 1, 2, 3, 4)) -> Any:
    side = st.integers(1, max_side)
    return st.tuples(side, side, st.sampled_from(channels)).map(
        lambda s: s[:2] if s[2] is None else s
    )


def images(
    dtypes: tuple[str, ...] = DTYPES,
    *,
    special: bool = False,
    channels: tuple[int | None, ...] = (None, 1, 2, 3, 4),
) -> Any:
    """Images of any dtype and number of channels.

    Args:
        special: floats may also be NaN, infinite or as large as they get; else 0 to 1.
    """

    def of(dtype: str) -> Any:
        elements = None
        if dtype.startswith("float"):
            width = int(dtype[5:])
            elements = st.floats(width=width) if special else st.floats(0, 1, width=width)
        return hnp.arrays(np.dtype(dtype), shapes(channels=channels), elements=elements)

    return st.sampled_from(dtypes).flatmap(of)


def alpha_of(image: Any) -> Any:
    return image[..., -1] if image.ndim == 3 and image.shape[2] in (2, 4) else None


def white_of(dtype: Any) -> float:
    return 1.0 if np.dtype(dtype).kind == "f" else float(np.iinfo(dtype).max)
