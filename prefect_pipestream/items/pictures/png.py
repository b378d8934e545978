"""The PNG item."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule, a_flag, whole
from prefect_pipestream.items.pictures import codec, png_chunks
from prefect_pipestream.items.pictures.base import (
    METADATA,
    ORIENTATION,
    ImageItem,
    as_held,
    expect_signature,
)
from prefect_pipestream.items.pictures.png_chunks import PngOriginal


class PngImageItem(ImageItem):
    """A PNG: bool H×W; uint8 H×W, H×W×2, H×W×3, H×W×4; uint16 H×W.

    A palette decodes to RGB, anything with transparency to one channel more, an animation to
    one axis more (N×H×W…). 16 bits with colors or alpha, which Pillow would cut to 8, is refused.
    """

    __slots__ = ()
    original_class = PngOriginal
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
        """Returns `.png`."""
        return (".png",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image, and checks its checksums."""
        data = stream.read()
        expect_signature(data, png_chunks.SIGNATURE, "PNG")
        png_chunks.check(data)
        stream.seek(0)
        return codec.read(stream, "PNG")

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: PngOriginal | None
    ) -> bytes:
        """Returns the image as the content of a file, compressed as the original."""
        image = as_held(cls, value, {"|b1": (0,), "|u1": (0, 2, 3, 4), "<u2": (0,)})
        return codec.write(image, "PNG", **cls.coding(options, original))

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: PngOriginal | None) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to compress the pixels."""
        level = options.get("compress_level")
        if level is None:
            level = png_chunks.DEFAULT_LEVEL if original is None else original.level
        return {"compress_level": level, "optimize": options.get("optimize", False)}
