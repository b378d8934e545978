"""What the image items have in common: their arrays, the way through Pillow, what they keep."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.arrays import Array, NumpyItem
from prefect_pipestream.items.base import Item
from prefect_pipestream.items.options import one_of
from prefect_pipestream.items.pictures.orientation import UPRIGHT
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION

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

#: Whether what a file has beside its pixels is kept when it is rewritten.
METADATA = {"metadata": one_of("keep", "strip")}
#: Whether the orientation is kept, or the pixels were turned upright.
ORIENTATION = {"orientation": one_of("keep", "upright")}


class Original(ABC):
    """A picture's file as far as it is not its pixels, for the file that takes its place.

    Args:
        data: The content of the file.

    Raises:
        DecodeError: If it is of another format, or damaged.
    """

    @abstractmethod
    def __init__(self, data: bytes) -> None: ...

    @property
    def orientation(self) -> int:
        """The orientation that it tells, 1 to 8, as EXIF numbers it."""
        return UPRIGHT

    @abstractmethod
    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns a file just encoded, with what this one has beside its pixels.

        Args:
            data: The new file.
            array: The new picture.
            upright: Whether the picture was turned upright.
        """


class ImageItem(NumpyItem):
    """An image: H×W, or H×W×C with C = 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    One that is made from a file of its format keeps what that has beside its pixels.
    """

    __slots__ = ()
    #: Reads what a new file keeps of the one before, for classes with the option `metadata`.
    original_class: ClassVar[type[Original] | None] = None

    @classmethod
    def validate(cls, value: Any) -> Array:
        """Returns the value as an array of booleans or real numbers."""
        array = super().validate(value)
        if array.dtype.kind not in "buif":
            raise EncodeError(f"{cls.__name__} holds an array of numbers, not of {array.dtype}.")
        return array

    @classmethod
    def default_concrete(cls) -> type[Item[Any]]:
        """Returns the class itself, or `PngImageItem` for the abstract one."""
        return cls if "file_extensions" in cls.__dict__ else CLASS_BY_EXTENSION[".png"]

    @classmethod
    def encoded(cls, value: Array, options: Mapping[str, Any], original: Any) -> bytes:
        """Returns the image as the content of a file; a class defines this, or `encode`.

        Args:
            value: The image.
            options: The options of the encoder.
            original: What is to be coded alike, an `original_class`; None if there is nothing.
        """
        stream = BytesIO()
        cls.encode(value, stream)
        return stream.getvalue()

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Writes the image with the encoder's defaults."""
        cls.encode_with(value, stream, cls.encoder_defaults)

    @classmethod
    def encode_with(cls, value: Array, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Writes the image; options: see `encoder_defaults`."""
        stream.write(cls.encoded(value, options, None))

    @classmethod
    def encode_like(
        cls, value: Array, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Writes the image as the original was coded, with what that has beside its pixels."""
        if cls.original_class is None:
            cls.encode_with(value, stream, options)
            return
        old = cls.original_class(original)
        data = cls.encoded(value, options, old)
        if cls.keeps_metadata(options):
            data = old.kept_in(data, value, upright=options.get("orientation") == "upright")
        stream.write(data)

    @classmethod
    def uses_original(cls) -> bool:
        """Tells that the original is used, of classes that know what to keep."""
        return "metadata" in cls.encoder_defaults

    @classmethod
    def keeps_metadata(cls, options: Mapping[str, Any]) -> bool:
        """Tells whether what the original has beside its pixels is to be kept."""
        return cls.uses_original() and options.get("metadata", "keep") == "keep"

    @classmethod
    def orientation_in(cls, data: bytes) -> int:
        """Returns the orientation that a file of this class tells, 1 to 8, as EXIF numbers it.

        Raises:
            DecodeError: If the file is damaged.
        """
        return UPRIGHT if cls.original_class is None else cls.original_class(data).orientation


def expect_signature(data: bytes, signature: bytes, name: str) -> None:
    """Raises `DecodeError` that tells what the content is, if it is not what was expected."""
    if not data.startswith(signature):
        kinds = [kind for start, kind in _SIGNATURES if data.startswith(start)]
        raise DecodeError(
            f"the content is {kinds[0] if kinds else 'not an image'}, {name} was expected. "
            "Rename the file to what it is, or write it anew."
        )


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


def from_pillow(image: "Image.Image") -> Array:
    """Returns the pixels of a Pillow image, without a palette."""
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


def to_pillow(
    cls: type[ImageItem], value: Array, channels_of: Mapping[str, Sequence[int]]
) -> "Image.Image":
    """Returns the Pillow image of an array.

    Args:
        cls: The item class, for messages.
        value: The array.
        channels_of: The numbers of channels that each dtype may have; 0: H×W.

    Raises:
        EncodeError: If the array has other ones.
    """
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


def saved(image: "Image.Image", format_name: str, **options: Any) -> bytes:
    """Returns a Pillow image as the content of a file."""
    stream = BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()
