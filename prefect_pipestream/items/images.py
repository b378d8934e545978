"""Items that hold images, through Pillow: `.png`, `.jpg` and `.bmp`."""

import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items import jpeg, png, png_chunks
from prefect_pipestream.items.arrays import Array, NumpyItem
from prefect_pipestream.items.base import Item
from prefect_pipestream.items.options import Rule, a_flag, one_of, whole
from prefect_pipestream.items.orientation import UPRIGHT

if TYPE_CHECKING:
    from PIL import Image

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or another RIFF file"),
    (b"\x93NUMPY", "a numpy file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
)
# Pixels a metre, across and down, in the header; the oldest kind of header has none.
_BMP_RESOLUTION = slice(38, 46)
_BMP_CORE_HEADER = (12).to_bytes(4, "little")


#: Whether what a file has beside its pixels is kept when it is rewritten.
METADATA = {"metadata": one_of("keep", "strip")}
#: Whether the orientation is kept, or the pixels were turned upright.
ORIENTATION = {"orientation": one_of("keep", "upright")}


class ImageItem(NumpyItem):
    """An image: H×W, or H×W×C with C = 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    One that is made from a file of its format keeps what that has beside its pixels.
    """

    __slots__ = ()

    @classmethod
    def keeps_metadata(cls, options: Mapping[str, Any]) -> bool:
        """Tell whether what the original has beside its pixels is to be kept."""
        return "metadata" in cls.encoder_defaults and options.get("metadata", "keep") == "keep"

    @classmethod
    def uses_original(cls) -> bool:
        """Tell that the original is used, of classes that know what to keep."""
        return "metadata" in cls.encoder_defaults

    @classmethod
    def orientation_in(cls, data: bytes) -> int:
        """Return the orientation that a file of this class tells, 1 to 8, as EXIF numbers it.

        Raises:
            DecodeError: If the file is damaged.
        """
        return UPRIGHT

    @classmethod
    def validate(cls, value: Any) -> Array:
        """Return the value as an array of booleans or real numbers."""
        array = super().validate(value)
        if array.dtype.kind not in "buif":
            raise EncodeError(f"{cls.__name__} holds an array of numbers, not of {array.dtype}.")
        return array

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Write the image with the encoder's defaults."""
        cls.encode_with(value, stream, cls.encoder_defaults)

    @classmethod
    def default_concrete(cls) -> type[Item[Any]]:
        """Return the class itself, or `PngImageItem` for the abstract one."""
        return cls if "file_extensions" in cls.__dict__ else PngImageItem


class PngImageItem(ImageItem):
    """A PNG: bool H×W; uint8 H×W, H×W×2, H×W×3, H×W×4; uint16 H×W.

    A palette decodes to RGB, anything with transparency to one channel more, an animation to
    one axis more (N×H×W…). 16 bits with colors or alpha, which Pillow would cut to 8, is refused.
    """

    __slots__ = ()
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "compress_level": None,
        "optimize": False,
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "compress_level": whole(0, 9, or_none="the original's, else 4"),
        "optimize": a_flag(),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Return `.png`."""
        return (".png",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Read the image, and check its checksums."""
        from PIL.PngImagePlugin import PngImageFile

        data = stream.read()
        expect_signature(data, b"\x89PNG\r\n\x1a\n", "PNG")
        png.check(data)
        stream.seek(0)
        with PngImageFile(stream) as image:
            frames = getattr(image, "n_frames", 1)
            check_pixels(image.width, image.height, frames)
            if frames == 1:
                return _to_array(image)
            stack = []
            for frame in range(frames):
                image.seek(frame)
                stack.append(_to_array(image))
            return np.stack(stack)

    @classmethod
    def encode_with(cls, value: Array, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Write the image; options: `compress_level` (0-9), `optimize`."""
        stream.write(cls._encoded(value, options, png_chunks.DEFAULT_LEVEL))

    @classmethod
    def encode_like(
        cls, value: Array, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Write the image with the ancillary chunks of a PNG, and compressed like it."""
        old = png_chunks.Png(original)
        data = cls._encoded(value, options, old.level())
        if cls.keeps_metadata(options):
            upright = options.get("orientation") == "upright"
            data = png_chunks.with_chunks(data, old, upright=upright)
        stream.write(data)

    @classmethod
    def _encoded(cls, value: Array, options: Mapping[str, Any], default_level: int) -> bytes:
        image = _to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 2, 3, 4), "<u2": (0,)})
        level = options.get("compress_level")
        return _saved(
            image,
            "PNG",
            compress_level=default_level if level is None else level,
            optimize=options.get("optimize", False),
        )

    @classmethod
    def orientation_in(cls, data: bytes) -> int:
        """Return the orientation that the EXIF data of a PNG tell."""
        return png_chunks.orientation_of(data)


class JpegImageItem(ImageItem):
    """A JPEG: uint8 H×W or H×W×3; bool H×W is written as 0 and 255. CMYK decodes to H×W×4."""

    __slots__ = ()
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "quality": None,
        "optimize": None,
        "progressive": None,
        "subsampling": None,
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "quality": whole(1, 100, or_none="the original's tables, else 80"),
        "optimize": a_flag(or_none="as the original"),
        "progressive": a_flag(or_none="as the original"),
        "subsampling": one_of("4:4:4", "4:2:2", "4:2:0", -1, 0, 1, 2, or_none="as the original"),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Return `.jpeg`, `.jpg`, `.jfif`, `.jpe`."""
        return (".jpeg", ".jpg", ".jfif", ".jpe")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Read the image, not turned by its EXIF orientation."""
        from PIL.JpegImagePlugin import JpegImageFile

        expect_signature(stream.read(16), b"\xff\xd8\xff", "JPEG")
        stream.seek(0)
        with JpegImageFile(stream) as image:
            check_pixels(image.width, image.height)
            return _to_array(image)

    @classmethod
    def encode_with(cls, value: Array, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Write the image; options: `quality` (1-100), `optimize`, `progressive`, `subsampling`."""
        stream.write(cls._encoded(value, options, None))

    @classmethod
    def encode_like(
        cls, value: Array, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Write the image with the metadata of a JPEG, and coded like it."""
        old = jpeg.parse(original)
        data = cls._encoded(value, options, old)
        if cls.keeps_metadata(options):
            upright = options.get("orientation") == "upright"
            data = jpeg.with_segments(data, old, upright=upright)
        stream.write(data)

    @classmethod
    def _encoded(
        cls, value: Array, options: Mapping[str, Any], original: jpeg.Jpeg | None
    ) -> bytes:
        image = _to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 3)})
        channels = 3 if image.mode == "RGB" else 1
        return _saved(image, "JPEG", **jpeg.coding(options, original, channels))

    @classmethod
    def orientation_in(cls, data: bytes) -> int:
        """Return the orientation that the EXIF data of a JPEG tell."""
        return jpeg.orientation_of(data)


class BmpImageItem(ImageItem):
    """A BMP: bool H×W; uint8 H×W or H×W×3. A palette decodes to RGB."""

    __slots__ = ()
    encoder_defaults: ClassVar[Mapping[str, Any]] = {"metadata": "keep"}
    encoder_rules: ClassVar[Mapping[str, Rule]] = METADATA

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Return `.bmp`."""
        return (".bmp",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Read the image."""
        from PIL.BmpImagePlugin import BmpImageFile

        expect_signature(stream.read(16), b"BM", "BMP")
        stream.seek(0)
        with BmpImageFile(stream) as image:
            check_pixels(image.width, image.height)
            return _to_array(image)

    @classmethod
    def encode_with(cls, value: Array, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Write the image. Alpha is refused: readers of BMP drop it."""
        stream.write(_saved(_to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 3)}), "BMP"))

    @classmethod
    def encode_like(
        cls, value: Array, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Write the image with the resolution of a BMP."""
        expect_signature(original, b"BM", "BMP")
        data = _saved(_to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 3)}), "BMP")
        resolution = original[_BMP_RESOLUTION]
        if cls.keeps_metadata(options) and original[14:18] != _BMP_CORE_HEADER:
            if len(resolution) < 8:
                raise DecodeError("the BMP is truncated inside its header.")
            data = data[: _BMP_RESOLUTION.start] + resolution + data[_BMP_RESOLUTION.stop :]
        stream.write(data)


def _saved(image: "Image.Image", format_name: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def expect_signature(data: bytes, signature: bytes, name: str) -> None:
    """Raise `DecodeError` that tells what the content is, if it is not what was expected."""
    if not data.startswith(signature):
        kinds = [kind for start, kind in _SIGNATURES if data.startswith(start)]
        raise DecodeError(
            f"the content is {kinds[0] if kinds else 'not an image'}, {name} was expected. "
            "Rename the file to what it is, or write it anew."
        )


def check_pixels(width: int, height: int, frames: int = 1) -> None:
    """Raise `DecodeError` for an image over Pillow's `MAX_IMAGE_PIXELS`."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * frames > limit:
        size = f"{width}×{height}" + (f"×{frames}" if frames > 1 else "")
        raise DecodeError(
            f"{size} pixels are over the limit of {limit} (a decompression bomb?). "
            "If it is genuine, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _to_array(image: "Image.Image") -> Array:
    mode = image.mode
    if mode == "P":
        alpha = "transparency" in image.info
        image.load()
        palette = image.palette.mode if image.palette else "RGB"
        image = image.convert("RGBA" if alpha else palette)
    elif mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode == "I":  # how Pillow before 11 reads 16-bit gray
        return np.array(image).astype(np.uint16)
    return np.array(image)


def _to_pillow(
    cls: type[ImageItem], value: Array, channels_of: Mapping[str, Sequence[int]]
) -> "Image.Image":
    """Make the Pillow image of an array, if its dtype may have its number of channels (0: H×W)."""
    from PIL import Image

    array = value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value
    dtype = array.dtype.newbyteorder("=" if sys.byteorder == "little" else "<")
    channels = {2: 0, 3: array.shape[-1] if array.ndim else 0}.get(array.ndim, -1)
    if channels not in channels_of.get(dtype.str, ()) or not array.size:
        allowed = ", ".join(
            f"{np.dtype(name)} {'H×W' if c == 0 else f'H×W×{c}'}"
            for name, counts in channels_of.items()
            for c in counts
        )
        raise EncodeError(
            f"{cls.__name__} cannot hold an array of {value.dtype} with shape {value.shape}; it "
            f"holds {allowed}. Convert the image, or use TiffImageItem, which holds any array."
        )
    return Image.fromarray(np.ascontiguousarray(array, dtype))
