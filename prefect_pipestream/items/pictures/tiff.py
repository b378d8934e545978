"""The TIFF item: any array, through tifffile."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.options import Rule
from prefect_pipestream.items.pictures import ifd
from prefect_pipestream.items.pictures.base import (
    METADATA,
    ORIENTATION,
    ImageItem,
    check_pixels,
    expect_signature,
)
from prefect_pipestream.items.pictures.orientation import as_stored, orientation_in
from prefect_pipestream.items.pictures.tiff_tags import TiffOriginal

_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# No compression of real data gets there; a damaged header does, and would fill the memory.
_MAX_PIXELS_PER_BYTE = 10_000


class TiffImageItem(ImageItem):
    """A TIFF of one or more pages: an array of any shape, of booleans, integers or floats.

    Of a file with several series of pages, the first one is the value.
    """

    __slots__ = ()
    original_class = TiffOriginal
    encoder_defaults: ClassVar[Mapping[str, Any]] = {
        "compression": "keep",
        "metadata": "keep",
        "orientation": "keep",
    }
    encoder_rules: ClassVar[Mapping[str, Rule]] = {
        "compression": Rule(
            "'keep' (the original's, else 'zlib'), or a compression that tifffile knows, such as "
            "'zlib', 'lzma' or None",
            lambda value: value in ("keep", None) or _is_compression(value),
        ),
        **METADATA,
        **ORIENTATION,
    }

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.tiff` and `.tif`."""
        return (".tiff", ".tif")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the array."""
        import tifffile

        data = stream.read()
        if not data.startswith(_SIGNATURES):
            expect_signature(data, _SIGNATURES[0], "TIFF")
        _check_pages(data)
        stream.seek(0)
        with tifffile.TiffFile(stream) as tiff:
            series = tiff.series[0]
            page = series.keyframe
            check_pixels(page.imagewidth, page.imagelength)
            if series.size > _MAX_PIXELS_PER_BYTE * len(data):
                raise DecodeError(
                    f"it claims an array of shape {tuple(series.shape)} in {len(data)} bytes. "
                    "Restore the file or remove it."
                )
            try:
                array = np.asarray(series.asarray())
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                array = _decoded_by_pillow(stream, tuple(series.shape), series.dtype, error)
            return array

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: TiffOriginal | None
    ) -> bytes:
        """Returns the array as the content of a file, compressed as the original."""
        import tifffile

        if value.dtype.kind == "f" and value.dtype.itemsize > 8:
            raise EncodeError(f"a TIFF cannot hold {value.dtype}: convert it to float64.")
        # Told, because what tifffile guesses is to change; the shape is kept in either case.
        photometric = None
        if value.ndim >= 2:
            is_rgb = value.ndim > 2 and value.shape[-1] in (3, 4) and value.dtype != np.bool_
            photometric = "rgb" if is_rgb else "minisblack"
        told = options.get("compression", "keep")
        if original is not None:
            arguments = original.coding(value, told)
        else:
            arguments = {"compression": "zlib" if told == "keep" else told}
        stream = BytesIO()
        tifffile.imwrite(stream, value, photometric=photometric, **arguments)
        return stream.getvalue()


def _is_compression(value: Any) -> bool:
    import tifffile

    if isinstance(value, str):
        return value.upper() == "ZLIB" or value.upper() in tifffile.COMPRESSION.__members__
    return type(value) is int and value in set(tifffile.COMPRESSION)


def _check_pages(data: bytes) -> None:
    """Raises `DecodeError` if the list of pages leads out of the file, or in a circle.

    tifffile reads the pages before that point as if there were no more: a truncated stack would
    lose its last pages unseen. In a circle it may go for ever.
    """
    for _ in ifd.Structure(data).chain():
        pass


def _decoded_by_pillow(
    stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any] | None, error: ValueError
) -> Array:
    """Decodes a compression that tifffile leaves to `imagecodecs` (LZW, JPEG, …), if Pillow can."""
    from PIL import ImageSequence
    from PIL.TiffImagePlugin import TiffImageFile

    stream.seek(0)
    with TiffImageFile(stream) as image:
        pages = []
        for page in ImageSequence.Iterator(image):
            # Pillow turns the pixels of a TIFF upright; those of other formats it leaves.
            turned = orientation_in(image.tag_v2.get(ifd.ORIENTATION))
            pages.append(as_stored(np.array(page), turned))
    array = pages[0] if len(pages) == 1 else np.stack(pages)
    if array.dtype != dtype or array.shape != shape:  # Pillow would have dropped something
        raise DecodeError(
            f"{error}. Install imagecodecs, or write the file with another compression."
        ) from error
    return array
