"""The JPEG XL item.

Format: ISO/IEC 18181-1, annex D (what a file begins with); 18181-2, section 9 (boxes).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.options import Rule, whole
from prefect_pipestream.items.pictures.base import METADATA, ORIENTATION, expect
from prefect_pipestream.items.pictures.boxes import boxes
from prefect_pipestream.items.pictures.by_pillow import PillowImageItem, PillowOriginal
from prefect_pipestream.items.pictures.codec import check_pixels, require

_SIGNATURE = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_STREAM = b"\xff\x0a"
_BITS_OF_SIZE = (9, 13, 18, 30)
# Width to height, as numbers: none is 0.
_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class JpegxlOriginal(PillowOriginal):
    """What a JPEG XL file has beside its pixels that is kept: EXIF."""

    format_name = "JXL"
    kept = ("exif",)
    is_upright = True  # the decoder turns pixels; EXIF data do not count


class JpegxlImageItem(PillowImageItem):
    """A JPEG XL: uint8 H×W, H×W×2, H×W×3, H×W×4; uint16 H×W; float32 H×W.

    It needs the extra `jxl`. Pixels are upright. It is written without loss, unless a `quality` is
    told. An animation is refused. Of what a file has beside its pixels only EXIF data are kept:
    the plugin of Pillow writes no colour profile.
    """

    __slots__ = ()
    original_class = JpegxlOriginal
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {
        "|u1": (0, 2, 3, 4),
        "<u2": (0,),
        "<f4": (0,),
    }
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "quality": None,
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "quality": whole(1, 100, or_none="lossless"),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.jxl`."""
        return (".jxl",)

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for another format, too many pixels or an animation."""
        expect(data.startswith((_SIGNATURE, _STREAM)), data, "JPEG XL")
        require("JXL")
        head = _Bits(_stream(data))
        check_pixels(*head.size())
        if head.tells_animation():
            raise DecodeError(
                "an animation in JPEG XL would lose all pictures but the first here. Convert it "
                "to an animated PNG or to a TIFF."
            )

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: JpegxlOriginal | None) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        quality = options.get("quality")
        return {"lossless": True} if quality is None else {"quality": quality}


def _stream(data: bytes) -> bytes:
    """What follows the signature of the pixels' own stream."""
    if data.startswith(_STREAM):
        return data[2:34]
    for kind, begin, _ in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 * (kind == b"jxlp")  # its number
            return data[begin + 2 : begin + 34]
    raise DecodeError("the JPEG XL has no pixels. Restore the file or remove it.")


class _Bits:
    """The head of a stream, bit by bit, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value

    def size(self) -> tuple[int, int]:
        """Returns width and height."""
        is_small = bool(self.take(1))
        height = self._length(is_small)
        across, down = _RATIOS[self.take(3)]
        width = height * across // down if across else self._length(is_small)
        return width, height

    def _length(self, is_small: bool) -> int:
        return 8 * (self.take(5) + 1) if is_small else 1 + self.take(_BITS_OF_SIZE[self.take(2)])

    def tells_animation(self) -> bool:
        """Returns whether several pictures follow; to be asked after the size."""
        if self.take(1) or not self.take(1):  # all is as usual; no more fields
            return False
        self.take(3)  # the orientation
        if self.take(1):
            self.size()  # as it is to be shown
        has_preview = self.take(1)
        return not has_preview and bool(self.take(1))
