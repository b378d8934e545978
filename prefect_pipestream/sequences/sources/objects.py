"""What the layouts of detection have in common: boxes and polygons."""

from numbers import Real
from typing import Any

_LARGEST = 1e15  # pixels; a float tells such numbers apart to an eighth


def is_number(value: object) -> bool:
    """Whether a value is a finite number of a size that coordinates can have."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and bool(-_LARGEST < value < _LARGEST)  # type: ignore[operator] # a number


def check_polygon(polygon: object) -> None:
    """Raises `ValueError` unless a polygon is [x0, y0, x1, y1, …], all of them numbers."""
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_number, polygon)):
        raise ValueError(
            f"a polygon is {said(polygon)}, expected numbers x0, y0, x1, y1, … in pixels"
        )


def are_polygons(segmentation: object) -> bool:
    """Whether a segmentation is a list of polygons, of which each has at least three points."""
    if not isinstance(segmentation, list):
        return False
    try:
        for polygon in segmentation:
            check_polygon(polygon)
    except ValueError:
        return False
    return all(len(polygon) >= 6 for polygon in segmentation)


def check_box(box: object) -> None:
    """Raises `ValueError` unless a box is [x, y, width, height], all of them numbers.

    It may be outside of the image: that is left as it is.
    """
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(
            f"its bbox is {str(box)[:80]}, expected four numbers: x, y, width and height in pixels"
        )


def said(value: Any) -> str:
    """A value as it is shown in a message: the beginning of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
