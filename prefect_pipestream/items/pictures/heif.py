"""The AVIF and HEIF items."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule, one_of, whole
from prefect_pipestream.items.pictures.base import METADATA, ORIENTATION, expect
from prefect_pipestream.items.pictures.boxes import boxes
from prefect_pipestream.items.pictures.by_pillow import PillowImageItem, PillowOriginal

_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


class AvifOriginal(PillowOriginal):
    """What an AVIF file has beside its pixels: EXIF, colour profile, XMP."""

    format_name = "AVIF"

    def options(self, array: Array, *, upright: bool, frames: int) -> dict[str, Any]:
        """Returns what the encoder is told, with the timing of frames."""
        timing = self.timing(frames)
        timing.pop("loop", None)
        return super().options(array, upright=upright, frames=frames) | timing


class AvifImageItem(PillowImageItem):
    """An AVIF: uint8 H×W×3 or H×W×4, and stacks of these (a sequence).

    It is written with loss, as Pillow can write it in no other way. Gray is refused, as it would
    come back as RGB. A file of more than 8 bits a channel is refused.
    """

    __slots__ = ()
    original_class = AvifOriginal
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (3, 4)}
    stacks_of = channels_of
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "quality": 90,
        "subsampling": "4:2:0",
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "quality": whole(1, 100),
        "subsampling": one_of("4:4:4", "4:2:2", "4:2:0"),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.avif` and `.avifs`."""
        return (".avif", ".avifs")

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for content of another format, or of more than 8 bits."""
        expect(bool(_brands(data) & _AVIF_BRANDS), data, "AVIF")
        _check_bits(data)

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: AvifOriginal | None) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        names = ("quality", "subsampling")
        return {name: options.get(name, cls.encoder_defaults[name]) for name in names}


class HeifOriginal(PillowOriginal):
    """What a HEIF file has beside its pixels: EXIF, colour profile, XMP."""

    format_name = "HEIF"
    is_upright = True  # the decoder turns pixels, and EXIF data tell so


class HeifImageItem(PillowImageItem):
    """A HEIF, as phones write it: uint8 H×W, H×W×3 or H×W×4, and stacks of these.

    It needs the extra `heif`. Pixels are upright. It is written with loss, at quality 90; with
    `quality=None` without. A file of more than 8 bits a channel is refused.
    """

    __slots__ = ()
    original_class = HeifOriginal
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (0, 3, 4)}
    stacks_of = channels_of
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "quality": 90,
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
        """Returns `.heic`, `.heif` and `.hif`."""
        return (".heic", ".heif", ".hif")

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for content of another format, or of more than 8 bits."""
        brands = _brands(data)
        expect(bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS, data, "HEIF")
        _check_bits(data)

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: HeifOriginal | None) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        quality = options.get("quality", cls.encoder_defaults["quality"])
        if quality is None:
            return {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
        return {"quality": quality}


def _brands(data: bytes) -> frozenset[bytes]:
    """The formats that the first box of a file tells."""
    if data[4:8] != b"ftyp":
        return frozenset()
    _, begin, end = next(boxes(data))
    return frozenset(data[at : at + 4] for at in range(begin, end, 4))


def _check_bits(data: bytes) -> None:
    """Raises `DecodeError` for more than 8 bits a channel, which Pillow would cut."""
    for kind, begin, end in boxes(data):
        if kind == b"meta" and (at := data.find(b"pixi", begin, end)) >= 0:
            bits = max(data[at + 9 : at + 9 + data[at + 8]], default=8)
            if bits > 8:
                raise DecodeError(
                    f"{bits} bits a channel would lose {bits - 8} of them here. Convert it to a "
                    "TIFF, or to 8 bits."
                )
