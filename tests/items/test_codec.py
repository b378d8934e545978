"""The short cuts past imageio's plugins give what the plugins give: same pixels, same bytes."""

import errno
import io
import os
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream.items import JpegImageItem, PngImageItem, TiffImageItem
from prefect_pipestream.items.pictures import codec

from .pictures import SRGB, exif, photograph

Array = np.ndarray[Any, Any]
PHOTO = photograph(24, 36)
PALETTE = Image.fromarray(PHOTO).quantize(16)


def content(image: Image.Image, format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def in_mode(mode: str) -> Image.Image:
    return Image.fromarray(PHOTO).convert(mode)


FRAMES = [Image.fromarray(np.roll(PHOTO, shift, 1)) for shift in (3, 6)]
FILES = {
    "png": content(in_mode("RGB"), "PNG"),
    "png gray": content(in_mode("L"), "PNG"),
    "png gray alpha": content(in_mode("LA"), "PNG"),
    "png alpha": content(in_mode("RGBA"), "PNG", icc_profile=SRGB, exif=exif(6)),
    "png bits": content(in_mode("1"), "PNG"),
    "png 16 bits": content(Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257), "PNG"),
    "png palette": content(PALETTE, "PNG"),
    "png palette, one transparent": content(PALETTE, "PNG", transparency=3),
    "png palette, alpha": content(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
    "png gray, one transparent": content(in_mode("L"), "PNG", transparency=200),
    "png color, one transparent": content(in_mode("RGB"), "PNG", transparency=(1, 2, 3)),
    "png animated": content(in_mode("RGB"), "PNG", save_all=True, append_images=FRAMES),
    "png animated palette": content(
        PALETTE,
        "PNG",
        save_all=True,
        append_images=[f.quantize(16, palette=PALETTE) for f in FRAMES],
    ),
    "jpeg": content(in_mode("RGB"), "JPEG", quality=93, exif=exif(6), icc_profile=SRGB),
    "jpeg progressive": content(in_mode("RGB"), "JPEG", progressive=True, subsampling=0),
    "jpeg rgb": content(in_mode("RGB"), "JPEG", keep_rgb=True),
    "jpeg gray": content(in_mode("L"), "JPEG"),
    "jpeg inks": content(in_mode("CMYK"), "JPEG"),
    "jpeg of several": content(in_mode("RGB"), "MPO", save_all=True, append_images=FRAMES),
}


def assert_same(one: Array, other: Array) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.array_equal(one, other)
    assert one.flags.writeable
    assert other.flags.writeable


@pytest.mark.parametrize("name", FILES)
def test_both_ways_read_the_same_pixels(name: str) -> None:
    format_name = name.split()[0].upper()
    straight = codec.read_straight(io.BytesIO(FILES[name]), format_name)
    assert_same(straight, codec.read_by_imageio(io.BytesIO(FILES[name]), format_name))


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {"compress_level": 4, "optimize": False}),
        ("PNG", {"compress_level": 9, "optimize": True}),
        ("JPEG", {"quality": 80, "optimize": False, "progressive": False}),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": "4:4:4"}),
        ("JPEG", {"qtables": [list(range(1, 65)), list(range(2, 66))], "optimize": True}),
    ],
)
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_both_ways_write_the_same_bytes(format_name: str, options: Any, mode: str) -> None:
    array = np.array(in_mode(mode))
    straight = codec.write_straight(array, format_name, **options)
    assert straight == codec.write_by_imageio(array, format_name, **options)


@pytest.mark.parametrize("options", [{"quality": 70}, {"optimize": True, "progressive": True}])
@pytest.mark.parametrize("has_files_in_memory", [True, False])
def test_a_large_jpeg_has_the_same_bytes_by_way_of_a_file(
    options: Any, has_files_in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_files_in_memory:

        def forbidden(name: str) -> int:
            raise PermissionError(errno.EPERM, "as in a sandbox")

        monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    image = photograph(200, 300)
    expected = content(Image.fromarray(image), "JPEG", **options)
    assert codec.write_straight(image, "JPEG", **options) == expected
    with pytest.raises(ValueError, match="quality"):
        codec.write_straight(image, "JPEG", quality="much")


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, 2, 3, 4])),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_is_the_same_both_ways(shape: tuple[int, int, int | None], seed: int) -> None:
    sizes = [size for size in shape if size is not None]
    array = np.random.default_rng(seed).integers(0, 256, sizes).astype(np.uint8)
    for cls, format_name in ((PngImageItem, "PNG"), (JpegImageItem, "JPEG")):
        if cls is JpegImageItem and shape[2] in (2, 4):
            continue
        options = {"quality": 80} if cls is JpegImageItem else {"compress_level": 4}
        data = codec.write_straight(array, format_name, **options)
        assert data == codec.write_by_imageio(array, format_name, **options)
        by_imageio = codec.read_by_imageio(io.BytesIO(data), format_name)
        assert_same(codec.read_straight(io.BytesIO(data), format_name), by_imageio)
        assert_same(cls.decode(io.BytesIO(data)), by_imageio)


@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i4", "f2", "f8"])
@pytest.mark.parametrize(
    "shape", [(5, 6), (5, 6, 3), (5, 6, 4), (2, 5, 6, 3), (3, 5, 6), (7, 5, 6)]
)
def test_tiff_is_that_of_imageio(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    stream = io.BytesIO()
    TiffImageItem.encode(array, stream)
    is_rgb = len(shape) > 2 and shape[-1] in (3, 4) and dtype != "bool"
    by_imageio = iio.imwrite(
        "<bytes>",
        [array],
        plugin="tifffile",
        extension=".tiff",
        is_batch=True,
        photometric="rgb" if is_rgb else "minisblack",
        planarconfig=None,
        compression="zlib",
    )
    assert stream.getvalue() == by_imageio
    stream.seek(0)
    assert_same(TiffImageItem.decode(stream), iio.imread(by_imageio, plugin="tifffile", index=0))


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}])
def test_tiff_of_any_layout_reads_as_imageio_reads_it(options: Any) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, PHOTO, photometric="rgb", **options)
    by_imageio = iio.imread(stream.getvalue(), plugin="tifffile", index=0)
    stream.seek(0)
    assert np.array_equal(TiffImageItem.decode(stream), by_imageio)
