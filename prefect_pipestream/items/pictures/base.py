"""What the image items have in common: their arrays, and what they keep of a file."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.arrays import Array, NumpyItem
from prefect_pipestream.items.base import Item
from prefect_pipestream.items.options import one_of
from prefect_pipestream.items.pictures.orientation import UPRIGHT
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION, class_for

# Where a format is known by its first bytes: where they are, what they are, and its name.
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"RIFF", "a RIFF file"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIF image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftyp", "a video, or another file of boxes"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xffO\xffQ", "a JPEG 2000 image"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"\xff\n", "a JPEG XL image"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance image"),
    (0, b"#?RGBE", "a Radiance image"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x93NUMPY", "a numpy file"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"%PDF", "a PDF document"),
)

_MOST_CHANNELS = 4

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


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image which some item class reads."""
    cls = class_for(name)
    return cls is not None and issubclass(cls, ImageItem)


def expect_signature(data: bytes, signature: bytes, name: str) -> None:
    """Raises `DecodeError` that tells what the content is, if it is not what was expected."""
    expect(data.startswith(signature), data, name)


def expect(is_format: bool, data: bytes, name: str) -> None:
    """Raises `DecodeError` that tells what the content is, unless it is of the format named."""
    if not is_format:
        kinds = [kind for at, start, kind in _SIGNATURES if data[at : at + len(start)] == start]
        raise DecodeError(
            f"the content is {kinds[0] if kinds else 'not an image'}, {name} was expected. "
            "Rename the file to what it is, or write it anew."
        )


def is_stack(array: Array) -> bool:
    """Tells whether an array is several pictures: N×H×W×C, or N×H×W with W over 4."""
    return array.ndim == 4 or (array.ndim == 3 and array.shape[-1] > _MOST_CHANNELS)


def as_held(
    cls: type[ImageItem],
    value: Array,
    channels_of: Mapping[str, Sequence[int]],
    *,
    stacks_of: Mapping[str, Sequence[int]] | None = None,
) -> Array:
    """Returns an array as the encoders take it: contiguous, in the byte order of files.

    Args:
        cls: The item class, for messages.
        value: The array.
        channels_of: The numbers of channels that each dtype may have; 0: H×W.
        stacks_of: Those of several pictures, stacked: N×H×W or N×H×W×C, N > 1.

    Raises:
        EncodeError: If the array has other ones.
    """
    array, dtype = value, _in_file_order(value)
    several = bool(stacks_of) and is_stack(array)
    if array.ndim == 3 + several and array.shape[-1] == 1:
        array = array[..., 0]
    channels = {2: 0, 3: array.shape[-1]}.get(array.ndim - several, -1) if array.ndim else -1
    allowed = stacks_of if several and stacks_of else channels_of
    fits = channels in allowed.get(dtype.str, ()) and not (several and len(array) < 2)
    if not fits or not array.size:
        held = _in_words(channels_of)
        if stacks_of:
            held += f", and N > 1 of {_in_words(stacks_of)}"
        raise EncodeError(
            f"{cls.__name__} cannot hold an array of {value.dtype} with shape {value.shape}; it "
            f"holds {held}. Convert the image, or use TiffImageItem, which holds any array."
        )
    return np.ascontiguousarray(array, dtype)


def _in_words(channels_of: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(
        f"{np.dtype(name)} {'H×W' if count == 0 else f'H×W×{count}'}"
        for name, counts in channels_of.items()
        for count in counts
    )


def _in_file_order(array: Array) -> np.dtype[Any]:
    return array.dtype.newbyteorder("=" if sys.byteorder == "little" else "<")
