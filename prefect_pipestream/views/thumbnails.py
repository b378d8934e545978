"""Small pictures of images, alone, or before and after and inline in Markdown."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 160
"""The longer side of a picture, in pixels."""

_SMALL_PNG = 6_000
_WORTH_A_TRY = 2 * _SMALL_PNG  # bytes of a PNG that was compressed in a hurry
_JPEG_QUALITY = 82
_MOST_COLOURS = 4096  # of a picture that may be smaller as PNG

AnyImage = npt.NDArray[Any]


def inline_pair(before: AnyImage | None, after: AnyImage | None) -> tuple[str, str]:
    """Markdown of two images, both in the same brightness scale so that they compare.

    Args:
        before: An image: bool, integer or float, H×W or H×W×C; None where there is none.
        after: Likewise.
    """
    both = [image for image in (before, after) if image is not None]
    if not both:
        return "", ""
    bright = max(brightest(image) for image in both)
    return _inline(before, bright, "before"), _inline(after, bright, "after")


def brightest(image: AnyImage) -> float:
    """What is shown white: the type's greatest value for 8 bits, else the image's own."""
    if image.dtype == np.uint8 or image.size == 0:
        return 255.0
    finite = image[np.isfinite(image)]
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _inline(image: AnyImage | None, bright: float, what: str) -> str:
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        return ""
    kind, content = encoded(scaled(to_uint8(image, bright), SIDE))
    return f"![{what}](data:image/{kind};base64,{base64.b64encode(content).decode()})"


def to_uint8(image: AnyImage, bright: float) -> npt.NDArray[np.uint8]:
    """The image as it is shown: H×W, H×W×3 or H×W×4, with `bright` as white."""
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        image = image[..., :3] if image.shape[2] > 4 else image[..., 0]
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.dtype == np.uint8:
        return image
    scaled = np.nan_to_num(image.astype(np.float32)) * (255.0 / bright)
    return scaled.clip(0, 255).astype(np.uint8)


def scaled(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """The image with a longer side of `side`: large ones made smaller, tiny ones larger."""
    longest = max(pixels.shape[:2])
    step = max(1, longest // (4 * side))  # a cheap first step for huge images
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    return picture.resize(size, how)


def encoded(picture: Image.Image) -> tuple[str, bytes]:
    """The picture in as few bytes as there may be in a page of text: PNG, or JPEG if smaller."""
    if picture.getcolors(_MOST_COLOURS) is None:  # a photograph
        return "jpeg", _as_jpeg(picture.convert("RGB"))
    png = _as_png(picture, compress_level=1)
    if len(png) <= _WORTH_A_TRY:  # the next levels take ten times as long, for 3 % less
        png = _as_png(picture, compress_level=6)
    if len(png) <= _SMALL_PNG:
        return "png", png
    jpeg = _as_jpeg(picture.convert("RGB"))
    return ("jpeg", jpeg) if len(jpeg) < len(png) else ("png", png)


def quickly_encoded(picture: Image.Image, *, is_exact: bool) -> tuple[str, bytes]:
    """The picture in as little time as can be: as PNG where each pixel is to stay, else as JPEG."""
    if is_exact or picture.mode not in ("RGB", "L"):
        return "png", _as_png(picture, compress_level=1)
    return "jpeg", _as_jpeg(picture)


def _as_jpeg(picture: Image.Image) -> bytes:
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    return jpeg.getvalue()


def _as_png(picture: Image.Image, **options: Any) -> bytes:
    png = io.BytesIO()
    picture.save(png, "PNG", **options)
    return png.getvalue()
