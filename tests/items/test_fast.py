"""With imagecodecs pixels, a JPEG's bytes and every error are what they are without it."""

import gc
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import ImageItem, Item, JpegImageItem, PngImageItem
from prefect_pipestream.items.pictures import codec, fast, jpeg_head
from prefect_pipestream.items.pictures.png_chunks import PngOriginal

from .pictures import SRGB, exif, jpeg, photograph, with_segments
from .test_bad_content import chunk, png_with
from .test_codec import FILES

Array = np.ndarray[Any, Any]

needs_imagecodecs = pytest.mark.skipif(fast.library() is None, reason="needs imagecodecs")

SIZES = [(1, 1), (1, 9), (7, 3), (8, 8), (15, 17), (16, 16), (33, 64), (120, 97), (512, 512)]


def png(image: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **options)
    return stream.getvalue()


def class_of(data: bytes) -> type[ImageItem]:
    return PngImageItem if data[:1] == b"\x89" else JpegImageItem


def read_fast(data: bytes) -> Array | None:
    name = "PNG" if class_of(data) is PngImageItem else "JPEG"
    found = fast.plain(data, name)
    return None if found is None else fast.read(found[2], name)


def read_by_pillow(data: bytes) -> Array:
    name = "PNG" if class_of(data) is PngImageItem else "JPEG"
    return codec.read_straight(io.BytesIO(data), name)


def assert_same(one: Array, other: Array) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.array_equal(one, other)
    assert one.flags.writeable
    assert one.flags.c_contiguous


# -- the same pixels -----------------------------------------------------------------------


@needs_imagecodecs
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_is_read_alike(size: tuple[int, int]) -> None:
    image = photograph(*size)
    alpha = np.concatenate([image, image[..., :1]], axis=-1)
    files = [jpeg(image, subsampling=s, quality=q) for s in (0, 1, 2) for q in (30, 95)]
    files += [jpeg(image[..., 0]), jpeg(image, optimize=True, restart_marker_blocks=3)]
    files += [png(one, compress_level=1) for one in (image, alpha, image[..., 0].copy())]
    for data in files:
        pixels = read_fast(data)
        assert pixels is not None
        assert_same(pixels, read_by_pillow(data))


@needs_imagecodecs
def test_what_is_beside_the_pixels_changes_nothing() -> None:
    image = photograph(24, 36)
    plain = jpeg(image, exif=exif(6), icc_profile=SRGB, dpi=(72, 72), comment=b"a comment")
    adobe = with_segments(jpeg(image), (0xEE, b"Adobe\0\x64\0\0\0\0\x01"))
    for data in (plain, adobe, plain + b"more", png(image, dpi=(72, 72), exif=exif(6))):
        pixels = read_fast(data)
        assert pixels is not None
        assert_same(pixels, read_by_pillow(data))


def exotic() -> dict[str, bytes]:
    """Files that Pillow is to read, and those that it refuses."""
    image = photograph(24, 36)
    plain, gray16 = jpeg(image), Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    stream = io.BytesIO()
    gray16.save(stream, "PNG")
    several = "png animated", "png animated palette", "png bits", "png palette", "jpeg inks"
    return {name: FILES[name] for name in (*several, "jpeg progressive", "png gray alpha")} | {
        "png of one transparent color": FILES["png color, one transparent"],
        "png of 16 bits": stream.getvalue(),
        "png with a profile": png(image, icc_profile=SRGB),
        "jpeg without its end": plain[:-2],
        "jpeg that ends in its head": plain[: plain.index(b"\xff\xda") + 4] + b"\xff\xd9",
        "jpeg of other samplings": plain.replace(b"\x22\x00\x02\x11", b"\x12\x00\x02\x11"),
        "jpeg with Photoshop's blocks": with_segments(plain, (0xED, b"Photoshop 3.0\x008BIM")),
        "jpeg with half a JFIF head": with_segments(plain, (0xE0, b"JFIF")),
    }


@needs_imagecodecs
@pytest.mark.parametrize("name", exotic())
def test_exotic_files_are_left_to_pillow(name: str) -> None:
    assert read_fast(exotic()[name]) is None


# -- the same bytes ------------------------------------------------------------------------


@needs_imagecodecs
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_jpeg_has_the_same_bytes(size: tuple[int, int]) -> None:
    image = photograph(*size)
    options: list[dict[str, Any]] = [
        {"quality": quality, "subsampling": subsampling, "optimize": optimize}
        for quality in (1, 49, 80, 100)
        for subsampling in (0, 1, 2, -1, "4:4:4", "4:2:2", "4:2:0")
        for optimize in (False, True)
    ]
    for told in options:
        data = fast.write(image, "JPEG", told)
        assert data == codec.write_straight(image, "JPEG", **told)
    gray = image[..., 0].copy()
    told = {"quality": 80, "optimize": False, "progressive": False}
    assert fast.write(gray, "JPEG", told) == codec.write_straight(gray, "JPEG", **told)


@needs_imagecodecs
@pytest.mark.parametrize("quality", range(1, 101))
def test_a_jpeg_rewritten_by_its_own_tables_has_the_same_bytes(quality: int) -> None:
    for image in (photograph(24, 36), photograph(24, 36)[..., 0].copy()):
        original = JpegImageItem.original_class(jpeg(image, quality=quality))
        told = original.coding(channels=3 if image.ndim == 3 else 1)
        assert "qtables" in told
        data = fast.write(255 - image, "JPEG", told)
        assert data == codec.write_straight(255 - image, "JPEG", **told)


@needs_imagecodecs
@pytest.mark.parametrize(
    ("image", "format_name", "options"),
    [
        (photograph(9, 9), "JPEG", {"quality": 80, "progressive": True}),
        (photograph(9, 9), "JPEG", {"subsampling": 0, "keep_rgb": True, "quality": 80}),
        (photograph(9, 9), "JPEG", {"qtables": [[16] * 64, [17] * 64]}),
        (photograph(9, 9)[..., 0] > 99, "JPEG", {"quality": 80}),
        (photograph(9, 9)[..., 0], "JPEG", {"quality": 80, "subsampling": 2}),
        (photograph(9, 9)[..., 0] > 99, "PNG", {"compress_level": 4}),
        (photograph(9, 9), "PNG", {"compress_level": 4, "optimize": True}),
        (photograph(9, 9), "PNG", {"compress_level": 4, "icc_profile": SRGB}),
    ],
)
def test_what_imagecodecs_writes_otherwise_is_left_to_pillow(
    image: Array, format_name: str, options: Any
) -> None:
    assert fast.write(image, format_name, options) is None


@needs_imagecodecs
@pytest.mark.parametrize("level", [0, 1, 4, 6, 9])
def test_a_png_has_the_same_pixels_and_the_level_is_seen(level: int) -> None:
    image = photograph(37, 45)
    alpha = np.concatenate([image, image[..., :1]], axis=-1)
    gray16 = image[..., 0].astype(np.uint16) * 257
    for one in (image, alpha, alpha[..., 2:].copy(), image[..., 0].copy(), gray16):
        data = fast.write(one, "PNG", {"compress_level": level, "optimize": False})
        assert data is not None
        assert_same(read_by_pillow(data), one)
        assert PngOriginal(data).level == level


# -- the same errors -----------------------------------------------------------------------


def outcome(data: bytes, folder: Path) -> Any:
    path = folder / f"a{class_of(data).file_extensions()[0]}"
    path.write_bytes(data)
    try:
        return Item.get_instance(path)()
    except DecodeError as error:
        return str(error)


def assert_the_same_outcome(data: bytes, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "library", lambda: None)
        patch.setattr(jpeg_head, "plain_shape", lambda _: None)  # all is read by Pillow's classes
        expected = outcome(data, folder)
    assert_outcome(outcome(data, folder), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "library", lambda: None)
        assert_outcome(outcome(data, folder), expected)


def assert_outcome(one: Any, other: Any) -> None:
    assert isinstance(one, str) == isinstance(other, str), (one, other)
    if isinstance(one, str):
        assert one == other
    else:
        assert_same(one, other)


ROWS = (b"\0" + bytes(range(6))) * 2
PIXELS = zlib.compress(ROWS)
DAMAGED = {
    "png whose pixels are too few": png_with(chunk(b"IDAT", zlib.compress(ROWS[:-3]))),
    "png whose pixels have a wrong checksum": png_with(chunk(b"IDAT", PIXELS[:-1] + b"x")),
    "png whose pixels have no checksum": png_with(chunk(b"IDAT", PIXELS[:-4])),
    "png with more pixels than it needs": png_with(chunk(b"IDAT", zlib.compress(ROWS * 2))),
    "png with an unknown filter": png_with(chunk(b"IDAT", zlib.compress(b"\x05" + ROWS[1:]))),
    "png of garbage": png_with(chunk(b"IDAT", b"garbage")),
    "png without pixels": png_with(),
    "png with two headers": png_with(
        chunk(b"IHDR", b"\0\0\0\2\0\0\0\2\x08\x02\0\0\0"), chunk(b"IDAT", PIXELS)
    ),
    "png with a short gamma": png_with(chunk(b"gAMA", b"\0"), chunk(b"IDAT", PIXELS)),
    "png in parts with others between": png_with(
        chunk(b"IDAT", PIXELS[:5]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", PIXELS[5:])
    ),
    "png whose text has a wrong checksum": png_with(
        chunk(b"tEXt", b"a\0b")[:-1] + b"x", chunk(b"IDAT", PIXELS)
    ),
    "png of no width": png_with(chunk(b"IDAT", PIXELS), size=0),
}


@pytest.mark.parametrize("name", [*exotic(), *DAMAGED])
def test_a_file_is_read_or_refused_as_without(name: str, tmp_path: Path) -> None:
    assert_the_same_outcome((exotic() | DAMAGED)[name], tmp_path)


@pytest.mark.parametrize("name", ["jpeg", "jpeg gray", "png", "png alpha"])
def test_a_file_truncated_anywhere_is_read_or_refused_as_without(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    for size in range(1, len(data), max(1, len(data) // 150)):
        assert_the_same_outcome(data[:size], tmp_path)
        assert_the_same_outcome(data[:size] + b"\xff\xd9", tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["jpeg", "jpeg gray", "jpeg rgb", "png", "png gray", "png alpha"]),
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=4)),
        min_size=1,
        max_size=4,
    ),
    in_head=st.booleans(),
)
def test_any_damage_is_read_or_refused_as_without(
    name: str, edits: list[tuple[float, int, bytes]], in_head: bool, tmp_path: Path
) -> None:
    data = FILES[name]
    for position, removed, inserted in edits:
        at = int(position * (min(700, len(data)) if in_head else len(data)))
        data = data[:at] + inserted + data[at + removed :]
    assert_the_same_outcome(data or b"x", tmp_path)


@needs_imagecodecs
def test_pixel_limit_holds_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bytearray(jpeg(photograph(16, 16)))
    frame = plain.index(b"\xff\xc0")
    plain[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"
    assert "65280×65280 pixels are over the limit" in outcome(bytes(plain), tmp_path)
    big = png_with(chunk(b"IDAT", PIXELS), size=60_000)
    assert "60000×60000 pixels are over the limit" in outcome(big, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 255)
    assert "16×16 pixels are over the limit of 255" in outcome(jpeg(photograph(16, 16)), tmp_path)


@needs_imagecodecs
def test_many_broken_files_take_nothing_from_the_interpreter(tmp_path: Path) -> None:
    """Before Python 3.12 None is counted: with too few references to it, the process ends."""
    path = tmp_path / "a.png"
    gc.collect()
    before = sys.getrefcount(None)
    for data in (DAMAGED["png of garbage"], DAMAGED["png whose pixels are too few"]):
        path.write_bytes(data)
        for _ in range(200):
            with suppress(DecodeError):
                Item.get_instance(path)()
    gc.collect()
    assert sys.getrefcount(None) > before - 100


# -- where it is not to be used ------------------------------------------------------------


@pytest.fixture
def chosen_anew() -> Iterator[None]:
    fast.library.cache_clear()
    yield
    fast.library.cache_clear()


@pytest.mark.usefixtures("chosen_anew")
def test_without_imagecodecs_pillow_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert fast.library() is None
    assert fast.in_use().startswith("Pillow ")
    assert "extra `fast`" in fast.in_use()
    image = photograph(9, 11)
    stream = io.BytesIO()
    PngImageItem.encode(image, stream)
    assert stream.getvalue() == codec.write_straight(image, "PNG", compress_level=4)


@needs_imagecodecs
@pytest.mark.usefixtures("chosen_anew")
def test_imagecodecs_that_gives_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = fast.installed()
    assert fast.in_use().startswith(f"imagecodecs {found.__version__}")
    other = SimpleNamespace(**{name: getattr(found, name) for name in dir(found)})
    other.jpeg8_decode = lambda data: found.jpeg8_decode(data) ^ 1
    monkeypatch.setitem(sys.modules, "imagecodecs", other)
    fast.library.cache_clear()
    assert fast.library() is None
    assert "not used" in fast.in_use()
