"""The BMP item, and what a rewritten BMP keeps of the one before: its resolution."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule
from prefect_pipestream.items.pictures.base import (
    METADATA,
    ImageItem,
    Original,
    check_pixels,
    expect_signature,
    from_pillow,
    saved,
    to_pillow,
)

_SIGNATURE = b"BM"
# Pixels a metre, across and down, in the header; the oldest kind of header has none.
_RESOLUTION = slice(38, 46)
_CORE_HEADER = (12).to_bytes(4, "little")


class BmpOriginal(Original):
    """The resolution of a BMP file."""

    def __init__(self, data: bytes) -> None:
        expect_signature(data, _SIGNATURE, "BMP")
        self._resolution = data[_RESOLUTION]
        self._has_resolution = data[14:18] != _CORE_HEADER

    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns a BMP file just encoded, with the resolution of the one before."""
        if not self._has_resolution:
            return data
        if len(self._resolution) < 8:
            raise DecodeError("the BMP is truncated inside its header.")
        return data[: _RESOLUTION.start] + self._resolution + data[_RESOLUTION.stop :]


class BmpImageItem(ImageItem):
    """A BMP: bool H×W; uint8 H×W or H×W×3. A palette decodes to RGB.

    Alpha is refused: readers of BMP drop it.
    """

    __slots__ = ()
    original_class = BmpOriginal
    encoder_defaults: ClassVar[Mapping[str, Any]] = {"metadata": "keep"}
    encoder_rules: ClassVar[Mapping[str, Rule]] = METADATA

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.bmp`."""
        return (".bmp",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image."""
        from PIL.BmpImagePlugin import BmpImageFile

        expect_signature(stream.read(16), _SIGNATURE, "BMP")
        stream.seek(0)
        with BmpImageFile(stream) as image:
            check_pixels(image.width, image.height)
            return from_pillow(image)

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: BmpOriginal | None
    ) -> bytes:
        """Returns the image as the content of a file."""
        return saved(to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 3)}), "BMP")
