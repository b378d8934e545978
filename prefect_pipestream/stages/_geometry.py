"""Moving the pixels of an image: rotate, flip, crop, pad and resize, for any dtype."""

from typing import Any, Literal

import numpy as np

from prefect_pipestream.items.pictures.orientation import UPRIGHT, upright
from prefect_pipestream.stages._measures import require_image
from prefect_pipestream.stages._pixels import Image, UnsupportedImageError

Flip = Literal["horizontal", "vertical"]
Border = Literal["constant", "reflect", "replicate", "circular"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


def rotate_flip(image: Image, degrees: int, flip: Flip | None, orientation: int = UPRIGHT) -> Image:
    """Rotates an image (H×W or H×W×C) counter-clockwise by right angles, then mirrors it.

    One of another orientation is turned upright first. Where nothing is to be done, the very
    array is returned.

    Raises:
        UnsupportedImageError: If it has another shape.
    """
    require_image(image)
    if not degrees and flip is None:
        return upright(image, orientation)
    moved = np.rot90(upright(image, orientation), degrees // 90)
    if flip == "horizontal":
        moved = moved[:, ::-1]
    elif flip == "vertical":
        moved = moved[::-1]
    return np.ascontiguousarray(moved)


def require_pixels(image: Image) -> None:
    """Raises UnsupportedImageError unless the shape is H×W or H×W×C, and none of these 0."""
    require_image(image)
    if 0 in image.shape:
        raise UnsupportedImageError("it has no pixels.")


# -- crop and pad ----------------------------------------------------------------------------


def crop_and_pad(
    image: Image,
    x: int,
    y: int,
    width: int,
    height: int,
    border: Border,
    fill: Any,
) -> Image:
    """Returns the window of an image that begins at (x, y), with a border where it is outside.

    Args:
        image: H×W or H×W×C.
        x: The window's left side; negative is outside of the image.
        y: The window's top.
        width: The window's width; 0: up to the image's right side.
        height: The window's height; 0: up to the image's bottom.
        border: What is outside: one value; the image mirrored at its edge pixels (which are not
            doubled); its edge pixels; or the image again.
        fill: The value of "constant": a number, or C of them.

    Raises:
        UnsupportedImageError: If it has another shape, or the window or the image has no pixel.
    """
    require_image(image)
    rows, columns = image.shape[:2]
    width, height = width or columns - x, height or rows - y
    if width <= 0 or height <= 0:
        raise UnsupportedImageError(f"nothing of it is right of x = {x} and below y = {y}.")
    if border == "constant":
        return _framed(image, x, y, width, height, fill)
    if not rows or not columns:
        raise UnsupportedImageError(f"it has no pixel to continue by {border!r}.")
    taken_rows = _outside(np.arange(y, y + height), rows, border)
    taken_columns = _outside(np.arange(x, x + width), columns, border)
    return np.asarray(image[taken_rows[:, None], taken_columns])


def _framed(image: Image, x: int, y: int, width: int, height: int, fill: Any) -> Image:
    rows, columns = image.shape[:2]
    window = np.empty((height, width, *image.shape[2:]), dtype=image.dtype)
    window[...] = fill
    left, right = max(x, 0), min(x + width, columns)
    top, bottom = max(y, 0), min(y + height, rows)
    if left < right and top < bottom:
        window[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return window


def _outside(places: Image, size: int, border: Border) -> Image:
    """Maps places on an axis, also those outside of it, on places in it."""
    if border == "replicate":
        return places.clip(0, size - 1)
    if border == "circular" or size == 1:
        return np.asarray(places % size)
    period = 2 * (size - 1)
    folded = places % period
    mirrored: Image = np.minimum(folded, period - folded)
    return mirrored


# -- resize ----------------------------------------------------------------------------------


def resize(image: Image, height: int, width: int, interpolation: Interpolation) -> Image:
    """Resizes an image (H×W or H×W×C), each channel on its own, in the same dtype.

    "bilinear" and "bicubic" are Pillow's: a smaller image is averaged over all the pixels
    that fall together, so that nothing flickers (OpenCV, as the reference uses it, skips
    pixels). They compute in float32; integers are rounded and saturate. NaN spreads to the
    pixels around it. "nearest" takes the pixel under the centre of the new one; bool images
    always use it.

    Raises:
        UnsupportedImageError: If it has another shape, no pixels, or a dtype that is none of bool,
            uint8, uint16 and the floats (unless "nearest").
    """
    require_pixels(image)
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "nearest" or image.dtype.kind == "b":
        rows = ((np.arange(height) + 0.5) * (image.shape[0] / height)).astype(np.intp)
        columns = ((np.arange(width) + 0.5) * (image.shape[1] / width)).astype(np.intp)
        return np.asarray(image[rows[:, None], columns])
    if image.dtype.kind != "f" and image.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError("its dtype is none of bool, uint8, uint16 and the floats.")
    if image.ndim == 2 or (image.dtype == np.uint8 and image.shape[2] == 3):
        return _resize_bands(image, height, width, interpolation)
    planes = [
        _resize_bands(np.ascontiguousarray(image[..., c]), height, width, interpolation)
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _resize_bands(image: Image, height: int, width: int, interpolation: Interpolation) -> Image:
    from PIL import Image as pillow

    how = {"bilinear": pillow.Resampling.BILINEAR, "bicubic": pillow.Resampling.BICUBIC}
    bands = image if image.dtype == np.uint8 else image.astype(np.float32)
    resized = np.asarray(pillow.fromarray(bands).resize((width, height), how[interpolation]))
    if image.dtype == np.uint16:
        resized = np.rint(resized).clip(0, np.iinfo(np.uint16).max)
    return resized.astype(image.dtype, copy=False)
