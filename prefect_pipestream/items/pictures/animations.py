"""The items of several pictures, one after the other: GIF and animated PNG."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule, one_of
from prefect_pipestream.items.pictures import codec
from prefect_pipestream.items.pictures.base import METADATA, as_held, expect, is_stack
from prefect_pipestream.items.pictures.by_pillow import PillowImageItem, PillowOriginal
from prefect_pipestream.items.pictures.png import PngImageItem
from prefect_pipestream.items.pictures.png_chunks import PngOriginal

_MAX_COLORS = 256
_IMAGE, _EXTENSION, _END = 0x2C, 0x21, 0x3B
_CHANNELS = {"|b1": (0,), "|u1": (0, 2, 3, 4)}


class GifOriginal(PillowOriginal):
    """What a GIF has beside its pixels: its comment, and the timing of several."""

    format_name = "GIF"
    kept = ("comment",)

    def options(self, array: Array, *, upright: bool, frames: int) -> dict[str, Any]:
        """Returns what the encoder is told, with the timing of frames."""
        return super().options(array, upright=upright, frames=frames) | self.timing(frames)


class GifImageItem(PillowImageItem):
    """A GIF: uint8 H×W or H×W×3, and stacks of these. With transparency it decodes to RGBA.

    A picture of gray, and up to 256 colors in all pictures of a stack, are written without loss.
    More are refused, unless the option `colors` is "reduce". Equal frames that follow each other
    would be joined: such a stack is refused.
    """

    __slots__ = ()
    original_class = GifOriginal
    channels_of: ClassVar[Mapping[str, Sequence[int]]] = {"|u1": (0, 3)}
    stacks_of = channels_of
    encoder_defaults: ClassVar[Mapping[str, Any]] = {"colors": "exact", "metadata": "keep"}
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "colors": one_of("exact", "reduce"),
        **METADATA,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.gif`."""
        return (".gif",)

    @classmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for content of another format, or without its end.

        Pillow would read a file that is cut off as one with fewer frames.
        """
        expect(data.startswith((b"GIF87a", b"GIF89a")), data, "GIF")
        at = 13 + _size_of_palette(data, 10)
        while at < len(data) and data[at] != _END:
            if data[at] == _IMAGE:
                at += 11 + _size_of_palette(data, at + 9)
            elif data[at] == _EXTENSION:
                at += 2
            else:
                raise DecodeError("the GIF is damaged. Restore the file or remove it.")
            while at < len(data) and data[at]:
                at += 1 + data[at]
            at += 1
        if at >= len(data):
            raise DecodeError(
                "the GIF is truncated: its end is missing. Restore the file or remove it."
            )

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: GifOriginal | None) -> dict[str, Any]:
        """Returns whether colors are reduced, for `written`."""
        return {"colors": options.get("colors", "exact")}

    @classmethod
    def written(cls, array: Array, several: bool, told: dict[str, Any]) -> bytes:
        """Returns the content of a file, with one palette for all pictures."""
        reduce = told.pop("colors") == "reduce"
        if array.ndim - several == 2:  # a palette of all grays in order stays gray
            palette: Array | None = np.arange(_MAX_COLORS, dtype=np.uint8).repeat(3)
        else:
            array, palette = _indexed(array, reduce)
        if palette is not None:
            told |= {"mode": "P", "palette": palette.tobytes()}
        return super().written(array, several, told)


def _size_of_palette(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _indexed(array: Array, reduce: bool) -> tuple[Array, Array | None]:
    """Returns numbers of colors, and the colors; if they are too many, Pillow is to choose."""
    codes = array.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    # The brightest first, so that no reader takes grays for a picture without colors.
    found, numbers = np.unique(-codes, return_inverse=True)
    if len(found) <= _MAX_COLORS:
        colors = np.stack([-found >> 16, -found >> 8 & 255, -found & 255], axis=-1)
        return numbers.reshape(codes.shape).astype(np.uint8), colors.astype(np.uint8)
    if not reduce:
        raise EncodeError(
            f"GifImageItem holds at most {_MAX_COLORS} colors, not {len(found)}. Use "
            'WebpImageItem or ApngImageItem, or `with_options(colors="reduce")`.'
        )
    return array, None


class ApngOriginal(PngOriginal):
    """The chunks of an animated PNG."""

    def timing(self, frames: int) -> dict[str, Any]:
        """Returns how long each of as many frames is shown, in ms, and how often all are."""
        chunks = (*self._before, *self._after)
        controls = [chunk.content for chunk in chunks if chunk.name == b"fcTL"]
        plays = [chunk.content[4:8] for chunk in chunks if chunk.name == b"acTL"]
        if len(controls) != frames or not plays:
            return {}
        return {
            "duration": [_milliseconds(content[20:24]) for content in controls],
            "loop": int.from_bytes(plays[0], "big"),
        }


def _milliseconds(delay: bytes) -> float:
    parts, of = int.from_bytes(delay[:2], "big"), int.from_bytes(delay[2:], "big")
    return 1000 * parts / (of or 100)


class ApngImageItem(PngImageItem):
    """An animated PNG: stacks N×H×W… of bool H×W; uint8 H×W, H×W×2, H×W×3, H×W×4.

    A single picture is as in a PNG. An animation in a `.png` decodes in the same way.
    """

    __slots__ = ()
    original_class = ApngOriginal

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.apng`."""
        return (".apng",)

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: PngOriginal | None
    ) -> bytes:
        """Returns the pictures as the content of a file."""
        if not is_stack(value):
            return super().encoded(value, options, original)
        array = as_held(cls, value, _CHANNELS, stacks_of=_CHANNELS)
        told = cls.coding(options, original)
        if isinstance(original, ApngOriginal) and cls.keeps_metadata(options):
            told |= original.timing(len(array))
        return codec.write(array, "PNG", stack=True, **told)
