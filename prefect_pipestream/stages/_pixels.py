"""Arithmetic on the values of an image: plain functions from array to array.

An image is H×W (gray) or H×W×C, of bool, uint8, uint16 or a float dtype. The full range of
a dtype is 0 to its largest value, for floats 0 to 1. In an H×W×2 or H×W×4 image the last
channel is alpha, which no function here changes unless it says so. A function returns the
very array that it was given if it has nothing to change. NaN stays NaN unless said otherwise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]


class UnsupportedImageError(ValueError):
    """An image is not one that an operation can work on; the message says what it can."""


def full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Returns the values of black and white in an image of this dtype.

    Raises:
        UnsupportedImageError: If the dtype is none of bool, uint8, uint16 and the floats.
    """
    if dtype.kind == "f" or dtype.kind == "b":
        return 0, 1
    if dtype == np.uint8 or dtype == np.uint16:
        return 0, int(np.iinfo(dtype).max)
    raise UnsupportedImageError(
        f"values of {dtype} have no known range: expected bool, uint8, uint16 or a float; "
        "use `convert-image` with `scale: false` first."
    )


def has_alpha(image: Image) -> bool:
    """Tells whether the last channel is alpha."""
    return image.ndim == 3 and image.shape[2] in (2, 4)


def colours(image: Image) -> Image:
    """Returns a view of the image without its alpha."""
    return image[..., :-1] if has_alpha(image) else image


def _with_colours(image: Image, changed: Image) -> Image:
    """Puts changed colours and the image's own alpha together."""
    if not has_alpha(image):
        return changed
    return np.concatenate([changed, image[..., -1:]], axis=2)


# -- invert ----------------------------------------------------------------------------------


def invert(image: Image, white: float | None = None) -> Image:
    """Returns `white` minus the image, in the same dtype and shape.

    Applied twice it gives the image again: exactly for integers, up to rounding for floats.

    Args:
        image: bool, uint8, uint16 or float.
        white: The value that black becomes; None: the top of the dtype's full range.

    Raises:
        UnsupportedImageError: If it has another dtype, or integers above `white`.
    """
    top = full_range(image.dtype)[1]
    values = colours(image)
    if image.dtype.kind == "b":
        return _with_colours(image, np.logical_not(values))
    if white is None:
        white = top
    if image.dtype.kind == "u":
        if white != int(white) or white > top:
            raise UnsupportedImageError(f"white = {white} is no value of {image.dtype}.")
        highest = int(values.max(initial=0))
        if highest > white:
            raise UnsupportedImageError(
                f"the value {highest} is above white = {white}, and its inverse below 0: "
                "raise `white` or use `clip-values` first."
            )
    return _with_colours(image, np.subtract(image.dtype.type(white), values, dtype=image.dtype))


# -- autocontrast ----------------------------------------------------------------------------


def stretch(image: Image, cutoff: float = 0.0, per_channel: bool = False) -> Image:
    """Stretches the values to the full range of the dtype.

    NaN and infinite values do not count when the range is sought; infinite ones go to its
    ends. An image of one value, or one that fills the range already, stays as it is.

    Args:
        image: bool (stays as it is), uint8, uint16 or float.
        cutoff: The percentage of the values to saturate at each end, below 50.
        per_channel: Find the range of each colour channel on its own.

    Raises:
        UnsupportedImageError: If it has another dtype.
    """
    full_range(image.dtype)
    values = colours(image)
    if image.dtype.kind == "b":
        return image
    if not (per_channel and values.ndim == 3):
        changed = _stretch_plane(values, cutoff)
        return image if changed is values else _with_colours(image, changed)
    planes = [values[..., channel] for channel in range(values.shape[2])]
    stretched = [_stretch_plane(plane, cutoff) for plane in planes]
    if all(new is old for new, old in zip(stretched, planes, strict=True)):
        return image
    return _with_colours(image, np.stack(stretched, axis=-1))


def _stretch_plane(plane: Image, cutoff: float) -> Image:
    black, white = full_range(plane.dtype)
    bounds = _bounds(plane, cutoff)
    if bounds is None or bounds[0] == bounds[1]:
        return plane
    if bounds == (black, white) and not ((plane < black) | (plane > white)).any():
        return plane
    low, high = bounds
    if plane.dtype.kind == "u":
        # A table of all values: exact, and faster than arithmetic on every pixel.
        table = (np.arange(white + 1) - low) * (white / (high - low))
        return np.asarray(np.rint(table).clip(0, white).astype(plane.dtype)[plane])
    wide = np.result_type(plane.dtype, np.float32).type
    half = wide(0.5)  # of extreme values the difference overflows, the half of it does not
    with np.errstate(over="ignore"):
        span = wide(high) - wide(low)
        if np.isfinite(span):
            scaled = (plane.astype(wide, copy=False) - wide(low)) / span
        else:
            halves = half * wide(high) - half * wide(low)
            scaled = (plane.astype(wide, copy=False) * half - half * wide(low)) / halves
    return np.asarray(scaled.clip(0, 1).astype(plane.dtype))


def _bounds(plane: Image, cutoff: float) -> tuple[float, float] | None:
    """Returns the lowest and highest value once `cutoff` percent at each end are left out."""
    if plane.dtype.kind == "u":
        counts = np.bincount(plane.ravel()).cumsum()
        if not counts.size:
            return None
        skipped = int(counts[-1] * cutoff / 100)
        low = int(np.searchsorted(counts, skipped, side="right"))
        high = int(np.searchsorted(counts, counts[-1] - skipped, side="left"))
        return low, high
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return None
    skipped = int(finite.size * cutoff / 100)
    if skipped:
        finite = np.partition(finite, [skipped, finite.size - 1 - skipped])
        return float(finite[skipped]), float(finite[-1 - skipped])
    return float(finite.min()), float(finite.max())


# -- clip ------------------------------------------------------------------------------------


def clip(image: Image, low: float | None, high: float | None) -> Image:
    """Moves values below `low` up to it and values above `high` down to it.

    For integers the limits are rounded inwards. Infinite values are clipped as any other.

    Args:
        image: bool, uint8, uint16 or float.
        low: The lowest value to keep; None: no limit.
        high: The highest value to keep; None: no limit.

    Raises:
        UnsupportedImageError: If it has another dtype, or no value of that is within the
            limits.
    """
    full_range(image.dtype)
    values = colours(image)
    if image.dtype.kind == "f":
        largest = float(np.finfo(image.dtype).max)
        bottom: float = -np.inf if low is None else max(low, -largest)
        top: float = np.inf if high is None else min(high, largest)
        if bottom > largest or top < -largest:
            bottom, top = 1, 0
    else:
        largest = full_range(image.dtype)[1]
        bottom = 0 if low is None else max(0, int(np.ceil(low)))
        top = largest if high is None else min(largest, int(np.floor(high)))
    if bottom > top:
        raise UnsupportedImageError(f"no value of {image.dtype} is between {low} and {high}.")
    as_dtype = image.dtype.type
    if not ((values < as_dtype(bottom)) | (values > as_dtype(top))).any():
        return image
    return _with_colours(image, values.clip(as_dtype(bottom), as_dtype(top)))
