"""Pictures of one item before and after a change, which compare, and of how they differ."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prefect_pipestream.items import ImageItem, Item, NumpyItem
from prefect_pipestream.views.item_thumbnails import (
    LARGEST_SIDE,
    Thumbnail,
    as_file,
    is_of_labels,
    label_colours,
    may_have_picture,
    shown_array,
    thumbnail,
)
from prefect_pipestream.views.thumbnails import AnyImage, brightest, scaled, to_uint8

Which = Literal["before", "after", "difference"]

_LARGEST_FILE = 256 << 20  # bytes
_Pixels = npt.NDArray[np.uint8]


def compared_picture(
    before: Item[Any] | None, after: Item[Any] | None, which: Which, side: int = LARGEST_SIDE
) -> Thumbnail | None:
    """A picture of an item before or after a change, or of the difference.

    Before and after have the same scale of brightness, so that they compare. The difference is the
    absolute one of each element, the greatest white; of masks, it is white where the labels differ.

    Args:
        before: The item before; None where there was none.
        after: The item after; None where there is none.
        which: Which picture.
        side: The longer side of the picture, in pixels: 1 to 1,024.

    Returns:
        The picture; None of what has none, such as the difference of images of two sizes.

    Raises:
        DecodeError: If an item cannot be decoded.
    """
    item = before if which == "before" else after
    old, new = _array_of(before), _array_of(after)
    both = [array for array in (old, new) if array is not None]
    shown = old if which == "before" else new
    if which == "difference":
        difference = _difference(old, new)
        return None if difference is None else _picture(difference, side)
    if item is None or not may_have_picture(item):
        return None
    if shown is None or shown.ndim not in (2, 3):
        return thumbnail(item, side)  # such as of a mesh, or a line
    if all(is_of_labels(array) for array in both):
        return _picture(label_colours()[shown.astype(np.intp)], side)
    if isinstance(item, ImageItem):
        return _picture(to_uint8(shown, max(map(brightest, both))), side)
    low, high = _range(both)
    floats = np.nan_to_num(shown.astype(np.float64), nan=low) - low
    return _picture(to_uint8(floats, high - low or 1.0), side)


def _picture(pixels: _Pixels, side: int) -> Thumbnail:
    # What a JPEG does to pixels would look like a change.
    return as_file(scaled(pixels, side), is_exact=True)


def _array_of(item: Item[Any] | None) -> AnyImage | None:
    if item is None or not isinstance(item, ImageItem | NumpyItem):
        return None
    if not item.has_value and any(one.size() > _LARGEST_FILE for one in item.file_sources):
        return None
    return shown_array(item())


def _difference(old: AnyImage | None, new: AnyImage | None) -> _Pixels | None:
    if old is None or new is None or old.shape != new.shape or old.ndim not in (2, 3):
        return None
    if is_of_labels(old) and is_of_labels(new):
        return np.where(old != new, np.uint8(255), np.uint8(0))
    apart = np.nan_to_num(np.abs(old.astype(np.float32) - new.astype(np.float32)))
    return to_uint8(apart, float(apart.max()) or 1.0)


def _range(arrays: list[AnyImage]) -> tuple[float, float]:
    """The least and the greatest number in arrays."""
    finite = [array[np.isfinite(array)] for array in arrays]
    ends = [end for array in finite if array.size for end in (array.min(), array.max())]
    return (float(min(ends)), float(max(ends))) if ends else (0.0, 0.0)
