"""The TIFF item: any array, through tifffile."""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO, ClassVar

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items import ifd, tiff_tags
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.images import (
    METADATA,
    ORIENTATION,
    ImageItem,
    check_pixels,
    expect_signature,
)
from prefect_pipestream.items.options import Rule
from prefect_pipestream.items.orientation import as_stored, orientation_in

_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# No compression of real data gets there; a damaged header does, and would fill the memory.
_MAX_PIXELS_PER_BYTE = 10_000


class TiffImageItem(ImageItem):
    """A TIFF of one or more pages: an array of any shape, of booleans, integers or floats.

    Of a file with several series of pages, the first one is the value.
    """

    __slots__ = ()
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
        """Return `.tiff` and `.tif`."""
        return (".tiff", ".tif")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Read the array."""
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
    def encode_with(cls, value: Array, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Write the array; option: `compression`, of those that tifffile has."""
        told = options.get("compression", "keep")
        stream.write(_written(value, compression="zlib" if told == "keep" else told))

    @classmethod
    def encode_like(
        cls, value: Array, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Write the array with the tags of a TIFF, and compressed like it."""
        old = tiff_tags.Tiff(original)
        data = _written(value, **old.arguments(value, options.get("compression", "keep")))
        if cls.keeps_metadata(options):
            upright = options.get("orientation") == "upright"
            data = tiff_tags.with_tags(data, old, value, upright=upright)
        stream.write(data)

    @classmethod
    def orientation_in(cls, data: bytes) -> int:
        """Return the orientation of a TIFF's first page."""
        return tiff_tags.orientation_of(data)


def _written(value: Array, **arguments: Any) -> bytes:
    import tifffile

    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        raise EncodeError(f"a TIFF cannot hold {value.dtype}: convert it to float64.")
    # Told, because what tifffile guesses is to change; the shape is kept in either case.
    photometric = None
    if value.ndim >= 2:
        is_rgb = value.ndim > 2 and value.shape[-1] in (3, 4) and value.dtype != np.bool_
        photometric = "rgb" if is_rgb else "minisblack"
    stream = BytesIO()
    tifffile.imwrite(stream, value, photometric=photometric, **arguments)
    return stream.getvalue()


def _is_compression(value: Any) -> bool:
    import tifffile

    if isinstance(value, str):
        return value.upper() == "ZLIB" or value.upper() in tifffile.COMPRESSION.__members__
    return type(value) is int and value in set(tifffile.COMPRESSION)


def _check_pages(data: bytes) -> None:
    """Raise `DecodeError` if the list of pages leads out of the file, or in a circle.

    tifffile reads the pages before that point as if there were no more: a truncated stack would
    lose its last pages unseen. In a circle it may go for ever. Of the pages' tags nothing is
    asked: tifffile takes some that `ifd` refuses.
    """
    form = ifd.Structure(data)
    seen: set[int] = set()
    at = form.first_at
    try:
        while page := form.offset.unpack_from(data, at)[0]:
            if page in seen:
                raise DecodeError(
                    f"the TIFF is damaged: after page {len(seen)} its list of pages goes on with "
                    "an earlier one. Restore the file or remove it."
                )
            seen.add(page)
            tags = form.count.unpack_from(data, page)[0]
            at = page + form.count.size + tags * form.entry.size
    except struct.error:
        raise DecodeError(
            f"the TIFF is truncated: page {len(seen)} or its end is missing. "
            "Restore the file or remove it."
        ) from None


def _decoded_by_pillow(
    stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any] | None, error: ValueError
) -> Array:
    """Decode a compression that tifffile leaves to `imagecodecs` (LZW, JPEG, …), if Pillow can."""
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
