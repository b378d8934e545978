"""The JPEG 2000 item."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.options import Rule, whole
from prefect_pipestream.items.pictures.base import METADATA, expect
from prefect_pipestream.items.pictures.boxes import boxes
from prefect_pipestream.items.pictures.by_pillow import PillowImageItem, PillowOriginal

_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_STREAM = b"\xff\x4f\xff\x51"  # of pixels, bare or in a box
_CHANNELS_AT, _BITS_AT = 40, 42


class Jpeg2000Original(PillowOriginal):
    """What Pillow keeps of a JPEG 2000 file: its comment, and whether it is in boxes."""

    format_name = "JPEG2000"
    kept = ("comment",)


class Jpeg2000ImageItem(PillowImageItem):
    """A JPEG 2000: uint8 H×W, H×W×2, H×W×3, H×W×4; uint16 H×W.

    It is written without loss, unless a `ratio` of compression is told. 16 bits with colors or
    alpha, which Pillow would cut to 8, is refused. Of what a file has beside its pixels only the
    comment is kept: Pillow reads neither profile nor EXIF data of this format.
    """

    __slots__ = ()
    original_class = Jpeg2000Original
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (0, 2, 3, 4), "<u2": (0,)}
    encoder_defaults: ClassVar[Mapping[str, Any]] = {"ratio": None, "metadata": "keep"}
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "ratio": whole(2, 1000, or_none="lossless"),
        **METADATA,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.jp2`, `.j2k`, `.j2c`, `.jpc`, `.jpf`, `.jpx`."""
        return (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for content of another format, or that would lose bits."""
        expect(data.startswith((_SIGNATURE, _STREAM)), data, "JPEG 2000")
        at = 0
        if not data.startswith(_STREAM):
            at = next((begin for kind, begin, _ in boxes(data) if kind == b"jp2c"), len(data))
        head = data[at : at + _BITS_AT + 3 * 4]
        if not head.startswith(_STREAM) or len(head) < _BITS_AT:
            raise DecodeError("the JPEG 2000 has no pixels. Restore the file or remove it.")
        channels = int.from_bytes(head[_CHANNELS_AT:_BITS_AT], "big")
        of_channels = head[_BITS_AT : _BITS_AT + 3 * channels : 3]
        bits = max(((byte & 0x7F) + 1 for byte in of_channels), default=8)
        if bits > 8 and channels > 1:
            raise DecodeError(
                f"a JPEG 2000 with {bits} bits a channel and colors or alpha would lose "
                f"{bits - 8} of them here. Convert it to a TIFF, or to 8 bits."
            )

    @classmethod
    def coding(
        cls, options: Mapping[str, Any], original: Jpeg2000Original | None
    ) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        is_bare = original is not None and original.data.startswith(_STREAM)
        told: dict[str, Any] = {"no_jp2": True} if is_bare else {}
        if (ratio := options.get("ratio")) is not None:
            told |= {"irreversible": True, "quality_mode": "rates", "quality_layers": [ratio]}
        return told
