"""The WebP item."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule, whole
from prefect_pipestream.items.pictures.base import METADATA, ORIENTATION, expect
from prefect_pipestream.items.pictures.by_pillow import PillowImageItem, PillowOriginal

_LOSSY_QUALITY = 90


class WebpOriginal(PillowOriginal):
    """What a WebP file has beside its pixels: EXIF, colour profile, XMP; the timing of several."""

    format_name = "WEBP"

    @property
    def is_lossy(self) -> bool:
        """Whether its pixels were coded with loss."""
        return b"VP8 " in self.data and b"VP8L" not in self.data

    def options(self, array: Array, *, upright: bool, frames: int) -> dict[str, Any]:
        """Returns what the encoder is told, with the timing of frames."""
        return super().options(array, upright=upright, frames=frames) | self.timing(frames)


class WebpImageItem(PillowImageItem):
    """A WebP: uint8 H×W×3 or H×W×4, and stacks N×H×W×3 (an animation).

    It is written without loss, but in place of a file with loss: with loss at quality 90. Gray and
    16 bits are refused: WebP has neither. Of an animation, equal frames that follow each other
    would be joined: such a stack is refused.
    """

    __slots__ = ()
    original_class = WebpOriginal
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (3, 4)}
    stacks_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (3,)}
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "quality": None,
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "quality": whole(1, 100, or_none="lossless, or 90 if the original is lossy"),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.webp`."""
        return (".webp",)

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for content of another format."""
        expect(data[:4] == b"RIFF" and data[8:12] == b"WEBP", data, "WebP")

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: WebpOriginal | None) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        quality = options.get("quality")
        if quality is None and original is not None and original.is_lossy:
            quality = _LOSSY_QUALITY
        if quality is None:
            return {"lossless": True, "exact": True}  # also where nothing is to be seen
        return {"quality": quality}
