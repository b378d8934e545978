"""How pixels get out of files and into them: imageio's plugins, and short cuts past them.

Every format has a plugin of imageio, named here: `pillow` for most, `tifffile` for TIFF, `pyav`
for floats. Its way costs, on top of the library beneath, for 28×28×3 pixels 0.24 ms to read and
0.23 ms to write a PNG (straight: 0.10 and 0.10), 0.12 and 0.15 ms a JPEG (0.15 and 0.07); for
512×512×3 nothing that could be told from noise (`benchmarks/bench_codecs.py`, two cores with other
work). Those two are what data sets of many small pictures are made of, so that they go straight to
Pillow, or to imagecodecs where that is installed and does the same (see `fast`). So does TIFF to
tifffile (see `tiff`), whose pages and tags are looked at in any case. The tests hold that pixels
and bytes are those of the plugins.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from prefect_pipestream.errors import DecodeError, MissingExtraError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import fast, jpeg_head

if TYPE_CHECKING:
    from PIL import Image

#: The formats that Pillow reads and writes without imageio, and the class that reads each.
STRAIGHT = {"PNG": "PngImageFile", "JPEG": "JpegImageFile"}

# By format, what imageio knows it by where there is no file name.
_EXTENSIONS = {
    "PNG": ".png",
    "JPEG": ".jpeg",
    "BMP": ".bmp",
    "GIF": ".gif",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "HEIF": ".heic",
    "JXL": ".jxl",
}
# Planes are green, blue, red, alpha.
_PLANES_OF_RGB, _RGB_OF_PLANES = [1, 2, 0, 3], [2, 0, 1, 3]
# The package that has Pillow read a format, and this package's extra that brings it.
_WORTH_A_FILE = 1 << 16  # values of an array
_EXTRAS = {"HEIF": ("pillow_heif", "heif"), "JXL": ("pillow_jxl", "jxl")}
# A mode that holds what a palette or one transparent colour makes of the mode of a file.
_WITH_ALPHA = {"P": "RGBA", "L": "LA", "RGB": "RGBA"}


def check_pixels(width: int, height: int, frames: int = 1) -> None:
    """Raises `DecodeError` for an image over Pillow's `MAX_IMAGE_PIXELS`."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * frames > limit:
        size = f"{width}×{height}" + (f"×{frames}" if frames > 1 else "")
        raise DecodeError(
            f"{size} pixels are over the limit of {limit} (a decompression bomb?). "
            "If it is genuine, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def require(format_name: str) -> None:
    """Raises `MissingExtraError` if the format needs an extra that is not installed."""
    package, extra = _EXTRAS.get(format_name, (None, None))
    if package is None:
        return
    try:
        module = import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{format_name} images need {package.replace('_', '-')}: "
            f"`pip install prefect-pipestream[{extra}]`."
        ) from error
    if package == "pillow_heif":  # the other one tells Pillow of itself
        module.register_heif_opener()


def read(stream: BinaryIO, format_name: str) -> Array:
    """Returns the pixels of a picture, without a palette; several frames are stacked.

    Args:
        stream: A file of the format.
        format_name: The format, as Pillow names it.

    Raises:
        DecodeError: If it is damaged, has too many pixels, or frames of several sizes.
    """
    if format_name in STRAIGHT:
        array = _read_plain(stream, format_name)
        return read_straight(stream, format_name) if array is None else array
    return read_by_imageio(stream, format_name)


def write(array: Array, format_name: str, *, stack: bool = False, **options: Any) -> bytes:
    """Returns a picture, or a stack of them, as the content of a file.

    Args:
        array: What Pillow makes an image of, or of each part of it.
        format_name: The format, as Pillow names it.
        stack: Whether it is several pictures.
        **options: Those of Pillow's encoder.
    """
    if format_name in STRAIGHT and not stack:
        data = fast.write(array, format_name, options)
        return write_straight(array, format_name, **options) if data is None else data
    return write_by_imageio(array, format_name, stack=stack, **options)


def told(data: bytes, format_name: str) -> list[dict[str, Any]]:
    """Returns what is beside the pixels, by Pillow's names, of each frame of a file.

    Raises:
        DecodeError: If it is damaged before its pixels.
        MissingExtraError: If the format needs an extra that is not installed.
    """
    with _opened(BytesIO(data), format_name) as file:
        frames = file.properties(index=...).shape[0]
        found = []
        for index in range(frames):
            if frames > 1:  # of some formats, how long one is shown is known once it is decoded
                file.read(index=index)
            found.append(file.metadata(index=index))
        return found


def _read_plain(stream: BinaryIO, format_name: str) -> Array | None:
    """The pixels of a plain file by imagecodecs, else a JPEG's by the decoder that Pillow has.

    None of other files, and of what cannot be read: it is for `read_straight` to tell why.
    """
    data = stream.read()
    stream.seek(0)
    if fast.library() is not None:
        return _read_fast(data, format_name)
    return _read_plain_jpeg(data) if format_name == "JPEG" else None


def _read_plain_jpeg(data: bytes) -> Array | None:
    from PIL import Image

    shape = jpeg_head.plain_shape(data)
    if shape is None:
        return None
    height, width, channels = shape
    check_pixels(width, height)
    mode = "L" if channels == 1 else "RGB"
    try:  # without Pillow's look at the head, which takes a third of the time of a small one
        return np.array(Image.frombytes(mode, (width, height), data, "jpeg", mode, ""))
    except (OSError, ValueError):
        return None


def _read_fast(data: bytes, format_name: str) -> Array | None:
    found = fast.plain(data, format_name)
    if found is None:
        return None
    width, height, content = found
    check_pixels(width, height)
    return fast.read(content, format_name)


# -- by imageio ----------------------------------------------------------------------------


def read_by_imageio(stream: BinaryIO, format_name: str) -> Array:
    """Returns the pixels of a picture through the plugin `pillow`; see `read`."""
    with _opened(stream, format_name) as file:
        frames, height, width = file.properties(index=...).shape[:3]
        if format_name == "JPEG":  # what may follow in the file is a preview, a depth or the like
            frames = 1
        check_pixels(width, height, frames)
        pictures = [_frame(file, index) for index in range(frames)]
        if len({picture.shape for picture in pictures}) > 1:  # such as a first one of gray
            pictures = [file.read(index=index, mode="RGBA") for index in range(frames)]
    if len({picture.shape for picture in pictures}) > 1:
        raise DecodeError("its pictures are of several sizes, so that they are no stack.")
    return pictures[0] if frames == 1 else np.stack(pictures)


@contextmanager
def _opened(stream: BinaryIO, format_name: str) -> Iterator[Any]:
    import imageio.v3 as iio
    from PIL import Image

    require(format_name)
    try:
        file = iio.imopen(stream, "r", plugin="pillow")
    except OSError as error:  # imageio says no more, but for the cause
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise DecodeError(
                f"its pixels are over the limit of {Image.MAX_IMAGE_PIXELS} ({error.__cause__}) "
                "If it is genuine, raise PIL.Image.MAX_IMAGE_PIXELS."
            ) from error
        raise DecodeError(
            f"the {format_name} is damaged or truncated before its pixels. "
            "Restore the file or remove it."
        ) from error
    with file:
        yield file


def _frame(file: Any, index: int) -> Array:
    """A frame with its palette applied; the plugin would leave out what is transparent."""
    told = file.metadata(index=index)
    mode = _WITH_ALPHA.get(told["mode"]) if "transparency" in told else None
    return np.asarray(file.read(index=index, mode=mode))


def write_by_imageio(
    array: Array, format_name: str, *, stack: bool = False, **options: Any
) -> bytes:
    """Returns a picture as the content of a file through the plugin `pillow`; see `write`."""
    import imageio.v3 as iio

    require(format_name)
    return iio.imwrite(  # type: ignore[no-any-return]
        "<bytes>",
        array,
        plugin="pillow",
        extension=_EXTENSIONS[format_name],
        format=format_name,
        is_batch=stack,
        **options,
    )


# -- floats, by imageio --------------------------------------------------------------------


def read_floats(stream: BinaryIO, extension: str) -> Array:
    """Returns the pixels of an EXR or Radiance file, through the plugin `pyav`: float32.

    Args:
        stream: The file.
        extension: Its extension, which tells imageio the format.
    """
    with _floats("r", stream, extension) as file:
        planes = file.read(index=0, format=None)
    if planes.dtype == np.uint16:  # half a float, which numpy is to make a whole one of
        planes = planes.view(np.float16)
    planes = planes.astype(np.float32)
    if planes.ndim == 2:
        return np.asarray(planes)
    return np.ascontiguousarray(planes[_RGB_OF_PLANES[: len(planes)]].transpose(1, 2, 0))


def write_floats(array: Array, extension: str) -> bytes:
    """Returns a picture of float32 as the content of an EXR or Radiance file; see `read_floats`."""
    name = "grayf32le"
    if array.ndim == 3:
        name = {3: "gbrpf32le", 4: "gbrapf32le"}[array.shape[2]]
        order = _PLANES_OF_RGB[: array.shape[2]]
        array = np.ascontiguousarray(array.transpose(2, 0, 1)[order])
    with _floats("w", "<bytes>", extension, container="image2pipe") as file:
        return file.write(  # type: ignore[no-any-return]
            array,
            codec=extension[1:],
            in_pixel_format=name,
            out_pixel_format=name,
            is_batch=False,
        )


def _floats(mode: Literal["r", "w"], what: Any, extension: str, **options: Any) -> Any:
    import imageio.v3 as iio

    try:
        return iio.imopen(what, mode, plugin="pyav", extension=extension, **options)
    except ImportError as error:
        raise MissingExtraError(
            f"{extension} images need PyAV: `pip install prefect-pipestream[exr]`."
        ) from error


# -- by Pillow -----------------------------------------------------------------------------


def read_straight(stream: BinaryIO, format_name: str) -> Array:
    """Returns the pixels of a picture by Pillow's class for its format; see `read`."""
    module = import_module(f"PIL.{format_name.title()}ImagePlugin")
    with getattr(module, STRAIGHT[format_name])(stream) as image:
        frames = getattr(image, "n_frames", 1)
        check_pixels(image.width, image.height, frames)
        if frames == 1:
            return _pixels(image)
        stack = []
        for index in range(frames):
            image.seek(index)
            stack.append(_pixels(image))
        return np.stack(stack)


def _pixels(image: "Image.Image") -> Array:
    mode = image.mode
    if mode == "P":
        alpha = "transparency" in image.info
        image.load()
        palette = image.palette.mode if image.palette else "RGB"
        image = image.convert("RGBA" if alpha else palette)
    elif mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    return np.array(image)


def write_straight(array: Array, format_name: str, **options: Any) -> bytes:
    """Returns a picture as the content of a file by Pillow; see `write`."""
    from PIL import Image

    # Into a file Pillow writes a JPEG without Python's lock, which it holds all the time else.
    is_for_file = format_name == "JPEG" and array.size >= _WORTH_A_FILE
    with _file_in_memory() if is_for_file else BytesIO() as stream:
        Image.fromarray(array).save(stream, format_name, **options)
        stream.seek(0)
        return stream.read()


def _file_in_memory() -> BinaryIO:
    """A file that is in memory alone, where the system has such; else what is like a file."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            return open(os.memfd_create("picture"), "w+b", buffering=0)
    return BytesIO()
