"""JPEG and PNG by imagecodecs, where that is installed (extra `fast`) and does as Pillow does.

Only what both do alike goes this way: `read` and `write` return None for all else, and for what
imagecodecs refuses, so that the errors are those of Pillow. Of a JPEG pixels and bytes are the
same; of a PNG the pixels are, and the file has other bytes. It decodes straight into an array, and
without the interpreter's lock. `benchmarks/bench_codecs.py` has both side by side.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np

from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import jpeg_head, png_chunks

# What imagecodecs raises for a picture; its own errors are RuntimeErrors.
_REFUSED = (RuntimeError, ValueError)
_SAMPLINGS = {0: "444", 1: "422", 2: "420", "4:4:4": "444", "4:2:2": "422", "4:2:0": "420"}
# Each pixel less the one before: at the lowest level, trying out all filters takes most of the
# time, and files of photographs get 1 % smaller by it.
_FILTER_OF_SPEED = {"filter": 0x10}
_SPEED = 1


@cache
def library() -> ModuleType | None:
    """Returns imagecodecs; None if it is not installed, or does otherwise than Pillow does.

    It takes some 35 ms, once a process.
    """
    found = installed()
    return found if found is not None and _does_as_pillow(found) else None


def installed() -> ModuleType | None:
    """Returns imagecodecs, if it is installed."""
    try:
        return import_module("imagecodecs")
    except ImportError:
        return None


def in_use() -> str:
    """Returns in words what reads and writes JPEG and PNG here."""
    import PIL

    found = installed()
    if found is None:
        return f"Pillow {PIL.__version__} (with the extra `fast`: imagecodecs)"
    if library() is None:
        return (
            f"Pillow {PIL.__version__} (imagecodecs {found.__version__} is installed, and not "
            "used: it gives other pixels or bytes here)"
        )
    return f"imagecodecs {found.__version__}, and Pillow {PIL.__version__} for what it does not"


def plain(data: bytes, format_name: str) -> tuple[int, int, bytes] | None:
    """Returns width, height and what to decode, of a file that `read` may be able to read.

    Args:
        data: The content of the file.
        format_name: `PNG` or `JPEG`.
    """
    if format_name == "PNG":
        return png_chunks.plain(data)
    shape = jpeg_head.plain_shape(data)
    return None if shape is None else (shape[1], shape[0], data)


def read(data: bytes, format_name: str) -> Array | None:
    """Returns the pixels of a file that is `plain`; None if imagecodecs refuses it."""
    codecs: Any = library()
    # Its `png_decode` takes a reference too many from None with each file that it refuses.
    decode = codecs.spng_decode if format_name == "PNG" else codecs.jpeg8_decode
    try:
        return np.asarray(decode(data))
    except _REFUSED:
        return None


def write(array: Array, format_name: str, options: Mapping[str, Any]) -> bytes | None:
    """Returns a picture as the content of a file; None for what is for Pillow to write.

    Args:
        array: The picture: contiguous.
        format_name: `PNG` or `JPEG`.
        options: Those of Pillow's encoder.
    """
    if array.dtype == np.bool_ or (codecs := library()) is None:
        return None
    told = _told_of_png(options) if format_name == "PNG" else _told_of_jpeg(array, options)
    if told is None:
        return None
    encode = codecs.png_encode if format_name == "PNG" else codecs.jpeg8_encode
    try:
        return bytes(encode(array, **told))
    except _REFUSED:
        return None


def _told_of_png(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What imagecodecs is told for these options of Pillow; None if it has them not."""
    level = options.get("compress_level")
    if options.get("optimize") or level is None or options.keys() - {"compress_level", "optimize"}:
        return None
    return {"level": level} | (_FILTER_OF_SPEED if level == _SPEED else {})


def _told_of_jpeg(array: Array, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What imagecodecs is told for these options of Pillow; None if it has them not."""
    known = {"quality", "qtables", "optimize", "progressive", "subsampling", "keep_rgb"}
    if options.keys() - known or options.get("progressive") or options.get("keep_rgb"):
        return None
    quality, subsampling = options.get("quality"), options.get("subsampling", -1)
    if (tables := options.get("qtables")) is not None:
        quality = _qualities().get(tuple(map(tuple, tables[: 1 if array.ndim == 2 else 2])))
    if quality is None or (array.ndim == 2 and subsampling != -1):
        return None  # Pillow samples a gray picture as if there were colours
    return {
        "level": quality,
        "subsampling": _SAMPLINGS.get(subsampling),
        "optimize": bool(options.get("optimize")),
    }


@cache
def _qualities() -> dict[tuple[tuple[int, ...], ...], int]:
    """The quality of the tables that libjpeg makes, for gray and for colours."""
    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=50)  # of which it scales the others
    with Image.open(stream) as image:
        base = np.array(list(image.quantization.values()))  # type: ignore[attr-defined]
    found = {}
    for quality in range(1, 101):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        tables = tuple(map(tuple, ((base * scale + 50) // 100).clip(1, 255).tolist()))
        found[tables[:1]] = found[tables] = quality
    return found


def _does_as_pillow(codecs: Any) -> bool:
    """Whether a picture comes out alike: each of the two brings a libjpeg of its own."""
    from PIL import Image

    down, across = np.mgrid[:19, :21]
    colours = np.stack([across * 12, down * 13, across * down % 256], axis=-1).astype(np.uint8)
    gray = np.ascontiguousarray(colours[..., 2])
    try:
        for picture, subsampling in ((gray, -1), (colours, 0), (colours, 1), (colours, 2)):
            told: Any = _told_of_jpeg(picture, {"quality": 80, "subsampling": subsampling})
            stream = BytesIO()
            Image.fromarray(picture).save(stream, "JPEG", quality=80, subsampling=subsampling)
            data = codecs.jpeg8_encode(picture, **told)
            if data != stream.getvalue():
                return False
            with Image.open(stream) as image:
                if not np.array_equal(codecs.jpeg8_decode(data), np.asarray(image)):
                    return False
            if not np.array_equal(codecs.spng_decode(codecs.png_encode(picture)), picture):
                return False
    except Exception:  # noqa: BLE001 - one that was built without these, or is broken, is not used
        return False
    return True
