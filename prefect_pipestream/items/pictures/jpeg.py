"""The JPEG item, through Pillow."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule, a_flag, one_of, whole
from prefect_pipestream.items.pictures.base import (
    METADATA,
    ORIENTATION,
    ImageItem,
    check_pixels,
    expect_signature,
    from_pillow,
    saved,
    to_pillow,
)
from prefect_pipestream.items.pictures.jpeg_segments import SIGNATURE, JpegOriginal

_DEFAULT_QUALITY = 80


class JpegImageItem(ImageItem):
    """A JPEG: uint8 H×W or H×W×3; bool H×W is written as 0 and 255. CMYK decodes to H×W×4."""

    __slots__ = ()
    original_class = JpegOriginal
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
        """Returns `.jpeg`, `.jpg`, `.jfif`, `.jpe`."""
        return (".jpeg", ".jpg", ".jfif", ".jpe")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image, not turned by its EXIF orientation."""
        from PIL.JpegImagePlugin import JpegImageFile

        expect_signature(stream.read(16), SIGNATURE, "JPEG")
        stream.seek(0)
        with JpegImageFile(stream) as image:
            check_pixels(image.width, image.height)
            return from_pillow(image)

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: JpegOriginal | None
    ) -> bytes:
        """Returns the image as the content of a file, coded as the original."""
        image = to_pillow(cls, value, {"|b1": (0,), "|u1": (0, 3)})
        told: dict[str, Any] = {"optimize": False, "progressive": False}
        if original is not None:
            told = original.coding(channels=3 if image.mode == "RGB" else 1)
        names = ("quality", "optimize", "progressive", "subsampling")
        told.update((name, options[name]) for name in names if options.get(name) is not None)
        if "quality" in told:
            told.pop("qtables", None)
        elif "qtables" not in told:
            told["quality"] = _DEFAULT_QUALITY
        if told.get("keep_rgb") and told["subsampling"] not in (0, -1, "4:4:4"):
            told["keep_rgb"] = False  # of red, green and blue none is to be coarser
        return saved(image, "JPEG", **told)
