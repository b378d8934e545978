"""Formats that Pillow, its plugins and PyAV read, through imageio: WebP, GIF, AVIF, EXR, …"""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items import (
    ApngImageItem,
    AvifImageItem,
    ExrImageItem,
    GifImageItem,
    HeifImageItem,
    ImageItem,
    Item,
    Jpeg2000ImageItem,
    JpegxlImageItem,
    RadianceImageItem,
    WebpImageItem,
)
from prefect_pipestream.sequences import DataStream, SamplesSequence

from .pictures import SRGB, XMP, exif, of_all_formats, photograph, psnr

Array = np.ndarray[Any, Any]
INSTALLED = of_all_formats()
PHOTO = photograph(40, 56)
GRAY, ALPHA = PHOTO[..., 0], np.concatenate([PHOTO, PHOTO[..., :1]], axis=-1)
SEVERAL = np.stack([PHOTO, 255 - PHOTO, PHOTO // 2])


def needs(cls: type[ImageItem]) -> None:
    if cls not in INSTALLED:
        pytest.skip("its extra is not installed")


def content(cls: type[ImageItem], image: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    cls.encode_with(image, stream, {**cls.encoder_defaults, **options})
    return stream.getvalue()


def decoded(cls: type[ImageItem], data: bytes) -> Array:
    value = cls.decode(io.BytesIO(data))
    assert value.flags.writeable
    assert value.flags.c_contiguous
    return value


# -- what is written is read back ----------------------------------------------------------

HELD: list[tuple[type[ImageItem], str, tuple[str, ...]]] = [
    (WebpImageItem, "uint8", ("rgb", "rgba", "several rgb")),
    (ApngImageItem, "uint8", ("gray", "gray alpha", "rgb", "rgba", "several gray", "several rgb")),
    (ApngImageItem, "uint8", ("several rgba", "several gray alpha")),
    (ApngImageItem, "bool", ("gray", "several gray")),
    (ApngImageItem, "uint16", ("gray",)),
    (GifImageItem, "uint8", ("gray", "several gray")),
    (HeifImageItem, "uint8", ("gray", "rgb", "rgba", "several rgb")),
    (Jpeg2000ImageItem, "uint8", ("gray", "gray alpha", "rgb", "rgba")),
    (Jpeg2000ImageItem, "uint16", ("gray",)),
    (JpegxlImageItem, "uint8", ("gray", "gray alpha", "rgb", "rgba")),
    (JpegxlImageItem, "uint16", ("gray",)),
    (ExrImageItem, "float32", ("gray", "rgb", "rgba")),
]
CHANNELS: dict[str, tuple[int, ...]] = {"gray": (), "gray alpha": (2,), "rgb": (3,), "rgba": (4,)}


@pytest.mark.parametrize(
    ("cls", "dtype", "kinds"), HELD, ids=lambda one: getattr(one, "__name__", "")
)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_is_held_comes_back(
    cls: type[ImageItem], dtype: str, kinds: tuple[str, ...], data: st.DataObject
) -> None:
    needs(cls)
    kind = data.draw(st.sampled_from(kinds))
    # No narrower than 5, so that N×H×W is not taken for H×W×C.
    most = (2, 6) if dtype == "float32" else (40, 40)  # floats are drawn one by one
    size = data.draw(st.tuples(st.integers(1, most[0]), st.integers(5, most[1])))
    shape = (*size, *CHANNELS[kind.removeprefix("several ")])
    image = data.draw(arrays.arrays(dtype, shape))
    if kind.startswith("several"):
        image = np.stack([image, ~image if dtype == "bool" else 255 - image])
    options = {"quality": None} if cls is HeifImageItem else {}
    value = decoded(cls, content(cls, image, **options))
    assert (value.dtype, value.shape) == (image.dtype, image.shape)
    assert np.array_equal(value, image, equal_nan=dtype == "float32")


@settings(max_examples=40, deadline=None)
@given(
    colors=arrays.arrays(np.uint8, st.tuples(st.integers(1, 256), st.just(3))),
    several=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gif_keeps_up_to_256_colors(colors: Array, several: bool, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, len(colors), (20, 30))
    image = colors[numbers]
    if several and len(np.unique(colors, axis=0)) > 1:
        other = colors[np.roll(numbers, 1, axis=1)]
        image = image if np.array_equal(image, other) else np.stack([image, other])
    assert np.array_equal(decoded(GifImageItem, content(GifImageItem, image)), image)


def test_gif_of_more_colors_is_refused_or_reduced() -> None:
    with pytest.raises(EncodeError, match=r"at most 256 colors, not \d+.*ApngImageItem"):
        content(GifImageItem, PHOTO)
    for image in (PHOTO, SEVERAL):
        value = decoded(GifImageItem, content(GifImageItem, image, colors="reduce"))
        assert value.shape == image.shape
        assert np.abs(value.astype(int) - image).mean() < 12


@settings(max_examples=10, deadline=None)  # FFmpeg takes its time
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 10), st.just(3)),
        elements=st.floats(0, 2.0**120, width=32),
    )
)
def test_radiance_is_as_exact_as_it_can_be(image: Array) -> None:
    needs(RadianceImageItem)
    value = decoded(RadianceImageItem, content(RadianceImageItem, image))
    assert (value.dtype, value.shape) == (image.dtype, image.shape)
    brightest = image.max(axis=-1, keepdims=True)
    assert (np.abs(value - image) <= np.maximum(brightest / 128, 1e-30)).all()


@pytest.mark.parametrize(
    ("cls", "options", "least"),
    [
        (WebpImageItem, {"quality": 90}, 32),
        (AvifImageItem, {}, 35),
        (AvifImageItem, {"quality": 100, "subsampling": "4:4:4"}, 45),
        (HeifImageItem, {}, 32),
        (Jpeg2000ImageItem, {"ratio": 4}, 30),
        (JpegxlImageItem, {"quality": 90}, 30),
    ],
)
def test_loss_is_as_told(cls: type[ImageItem], options: dict[str, Any], least: float) -> None:
    needs(cls)
    data = content(cls, PHOTO, **options)
    assert len(data) < PHOTO.nbytes * 0.6
    assert psnr(decoded(cls, data), PHOTO) > least


@pytest.mark.parametrize(
    ("cls", "image"),
    [
        (WebpImageItem, GRAY),
        (WebpImageItem, PHOTO.astype(np.uint16)),
        (WebpImageItem, np.stack([ALPHA, 255 - ALPHA])),
        (GifImageItem, ALPHA),
        (GifImageItem, GRAY[None]),
        (ApngImageItem, PHOTO.astype(np.uint16)),
        (ApngImageItem, SEVERAL[..., 0].astype(np.uint16)),
        (AvifImageItem, GRAY),
        (AvifImageItem, PHOTO[None]),
        (HeifImageItem, GRAY.astype(np.uint16)),
        (Jpeg2000ImageItem, SEVERAL),
        (Jpeg2000ImageItem, GRAY > 9),
        (JpegxlImageItem, PHOTO.astype(np.float32)),
        (ExrImageItem, PHOTO),
        (ExrImageItem, PHOTO.astype(np.float64)),
        (RadianceImageItem, ALPHA.astype(np.float32)),
    ],
)
def test_what_the_format_would_change_is_refused(cls: type[ImageItem], image: Array) -> None:
    needs(cls)
    with pytest.raises(EncodeError, match=r"cannot hold an array .*; it holds .* Convert"):
        content(cls, image)


@pytest.mark.parametrize("cls", [WebpImageItem, GifImageItem])
def test_stack_that_would_lose_pictures_is_refused(cls: type[ImageItem]) -> None:
    image = PHOTO if cls is WebpImageItem else GRAY
    with pytest.raises(EncodeError, match="of 3 pictures 2 would be left"):
        content(cls, np.stack([image, image, 255 - image]))


def test_apng_keeps_equal_pictures() -> None:
    image = np.stack([PHOTO, PHOTO, 255 - PHOTO])
    assert np.array_equal(decoded(ApngImageItem, content(ApngImageItem, image)), image)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_radiance_refuses_what_is_no_light(value: float) -> None:
    needs(RadianceImageItem)
    with pytest.raises(EncodeError, match="from 0 up"):
        content(RadianceImageItem, np.full((3, 3, 3), value, np.float32))


# -- files of other programs ---------------------------------------------------------------


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def test_gif_with_transparency_is_rgba() -> None:
    palette = Image.fromarray(PHOTO).quantize(8)
    value = decoded(GifImageItem, saved(palette, "GIF", transparency=0))
    palette.info["transparency"] = 0
    assert np.array_equal(value, np.array(palette.convert("RGBA")))


def test_animated_gif_of_own_palettes_is_a_stack() -> None:
    frames = [Image.fromarray(frame) for frame in SEVERAL]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)
    value = decoded(GifImageItem, data)
    assert value.shape == SEVERAL.shape
    assert np.abs(value.astype(int) - SEVERAL).mean() < 12


@pytest.mark.parametrize("bits", [10, 12])
def test_heif_of_more_bits_is_refused(bits: int) -> None:
    needs(HeifImageItem)
    import pillow_heif

    wide = (PHOTO.astype(np.uint16) * 257).tobytes()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    file = pillow_heif.from_bytes("RGB;16", PHOTO.shape[1::-1], wide)
    stream = io.BytesIO()
    file.save(stream)
    with pytest.raises(DecodeError, match=f"{bits} bits a channel would lose {bits - 8}"):
        HeifImageItem.decode(io.BytesIO(stream.getvalue()))


def test_jpeg_2000_of_16_bits_a_color_is_refused() -> None:
    data = bytearray(content(Jpeg2000ImageItem, PHOTO))
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at] == 7  # bits, less one
    data[at] = 15
    with pytest.raises(DecodeError, match=r"16 bits a channel .* would lose 8"):
        Jpeg2000ImageItem.decode(io.BytesIO(data))


def jxl_head(width: int, height: int, *, animated: bool = False) -> bytes:
    bits, at = 0, 0

    def put(value: int, count: int) -> None:
        nonlocal bits, at
        bits |= value << at
        at += count

    put(0, 1)
    for number, length in enumerate((height, width)):
        put(3, 2)
        put(length - 1, 30)
        if number == 0:
            put(0, 3)
    for flag, count in ((0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (int(animated), 1)):
        put(flag, count)
    return b"\xff\x0a" + bits.to_bytes(30, "little")


def test_bomb_and_animation_in_jpeg_xl_are_refused_before_they_are_decoded() -> None:
    needs(JpegxlImageItem)
    with pytest.raises(DecodeError, match="60000×50000 pixels are over the limit"):
        JpegxlImageItem.decode(io.BytesIO(jxl_head(60_000, 50_000)))
    with pytest.raises(DecodeError, match="animation in JPEG XL would lose all pictures but"):
        JpegxlImageItem.decode(io.BytesIO(jxl_head(60, 50, animated=True)))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (40, 56), (300, 200), (9, 9), (2000, 8)])
def test_size_of_a_jpeg_xl_is_known_from_its_head(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(JpegxlImageItem)
    data = content(JpegxlImageItem, np.zeros((height, width), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(DecodeError, match=f"^{width}×{height} pixels"):
        JpegxlImageItem.decode(io.BytesIO(data))


def test_bombs_of_floats_are_refused_before_they_are_decoded() -> None:
    needs(ExrImageItem)
    image = np.ones((4, 5, 3), np.float32)
    window = np.array([0, 0, 4, 3], "<i4").tobytes()
    exr = content(ExrImageItem, image)
    assert exr.count(window) == 2
    exr = exr.replace(window, np.array([0, 0, 59_999, 49_999], "<i4").tobytes())
    radiance = content(RadianceImageItem, image).replace(b"-Y 4 +X 5", b"-Y 50000 +X 60000")
    for cls, data in ((ExrImageItem, exr), (RadianceImageItem, radiance)):
        with pytest.raises(DecodeError, match="60000×50000 pixels are over the limit"):
            cls.decode(io.BytesIO(data))


def test_openexr_with_more_channels_is_refused() -> None:
    needs(ExrImageItem)
    exr = content(ExrImageItem, np.ones((4, 5), np.float32))
    at = exr.index(b"Y\x00")
    with pytest.raises(DecodeError, match="with the channels Z cannot be read"):
        ExrImageItem.decode(io.BytesIO(exr[:at] + b"Z" + exr[at + 1 :]))


# -- what is kept, and what is passed through ----------------------------------------------


@pytest.mark.parametrize(
    ("cls", "format_name", "kept"),
    [
        (WebpImageItem, "WEBP", {"exif", "icc_profile", "xmp"}),
        (AvifImageItem, "AVIF", {"exif", "icc_profile", "xmp"}),
        (HeifImageItem, "HEIF", {"exif", "icc_profile", "xmp"}),
        (Jpeg2000ImageItem, "JPEG2000", {"comment"}),
        (JpegxlImageItem, "JXL", {"exif"}),
    ],
)
def test_rewritten_picture_keeps_what_is_beside_its_pixels(
    cls: type[ImageItem], format_name: str, kept: set[str], tmp_path: Path
) -> None:
    needs(cls)
    all_of_it = {
        "exif": exif(1, PHOTO.shape[1::-1]),
        "icc_profile": SRGB,
        "xmp": XMP.replace(b"6", b"1"),
        "comment": b"a comment",
    }
    data = saved(Image.fromarray(PHOTO), format_name, **all_of_it)
    path = tmp_path / f"a{cls.file_extensions()[0]}"
    path.write_bytes(data)
    item = Item.get_instance(path)
    item.make_new(255 - item()).serialize(tmp_path / "b")
    new = item.make_new(255 - item()).with_options(metadata="strip")
    new.serialize(tmp_path / "stripped")
    with (
        Image.open(path) as before,
        Image.open(tmp_path / f"b{path.suffix}") as after,
        Image.open(tmp_path / f"stripped{path.suffix}") as stripped,
    ):
        for name in kept:
            # With "Exif" before it or without, as the format has it.
            there, here = (image.info[name].removeprefix(b"Exif\0\0") for image in (before, after))
            assert there == here, name
            assert stripped.info.get(name) != before.info[name], name


@pytest.mark.parametrize("cls", [WebpImageItem, AvifImageItem])
def test_picture_turned_upright_says_so(cls: type[ImageItem], tmp_path: Path) -> None:
    path = tmp_path / f"a{cls.file_extensions()[0]}"
    path.write_bytes(saved(Image.fromarray(PHOTO), cls.__name__[:4].upper(), exif=exif(6)))
    assert cls.orientation_in(path.read_bytes()) == 6
    item = Item.get_instance(path)
    assert item().shape == PHOTO.shape
    new = item.make_new(np.rot90(item(), 3)).with_options(orientation="upright")
    new.serialize(tmp_path / "b")
    data = new.local_sources[0].read_bytes()
    assert cls.orientation_in(data) == 1
    assert decoded(cls, data).shape == (PHOTO.shape[1], PHOTO.shape[0], 3)


@pytest.mark.parametrize(
    ("cls", "extension"), [(GifImageItem, "gif"), (ApngImageItem, "apng"), (WebpImageItem, "webp")]
)
def test_rewritten_animation_keeps_its_timing(
    cls: type[ImageItem], extension: str, tmp_path: Path
) -> None:
    frames = [Image.fromarray(frame).convert("L").convert("RGB") for frame in SEVERAL]
    format_name = {"apng": "PNG"}.get(extension, extension.upper())
    times = [40, 80, 120]
    data = saved(
        frames[0], format_name, save_all=True, append_images=frames[1:], duration=times, loop=2
    )
    (tmp_path / f"a.{extension}").write_bytes(data)
    item = Item.get_instance(tmp_path / f"a.{extension}")
    new = item.make_new(255 - item())
    new.serialize(tmp_path / "b")
    with Image.open(new.local_sources[0]) as image:
        assert image.info["loop"] == 2
        found = []
        for number in range(3):
            image.seek(number)
            image.load()
            found.append(image.info["duration"])
    assert found == times


def test_lossy_webp_stays_lossy_and_lossless_stays_lossless(tmp_path: Path) -> None:
    for lossless, kind in ((True, b"VP8L"), (False, b"VP8 ")):
        path = tmp_path / f"{lossless}.webp"
        path.write_bytes(saved(Image.fromarray(PHOTO), "WEBP", lossless=lossless))
        item = Item.get_instance(path)
        new = item.make_new(255 - item())
        new.serialize(tmp_path / f"new{lossless}")
        assert kind in new.local_sources[0].read_bytes()[:64]


def test_bare_stream_of_jpeg_2000_stays_bare(tmp_path: Path) -> None:
    (tmp_path / "a.j2k").write_bytes(saved(Image.fromarray(PHOTO), "JPEG2000", no_jp2=True))
    item = Item.get_instance(tmp_path / "a.j2k")
    new = item.make_new(255 - item())
    new.serialize(tmp_path / "b.j2k")
    data = (tmp_path / "b.j2k").read_bytes()
    assert data.startswith(b"\xff\x4f\xff\x51")
    assert np.array_equal(decoded(Jpeg2000ImageItem, data), 255 - PHOTO)


EXTENSIONS = [
    *(".webp", ".gif", ".apng", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".exr", ".hdr")
]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_file_is_passed_through_byte_for_byte_whatever_it_holds(
    extension: str, tmp_path: Path
) -> None:
    data = b"any content, as none is decoded"
    (tmp_path / "a" / "data").mkdir(parents=True)
    (tmp_path / "a" / "data" / f"0_image{extension}").write_bytes(data)
    source = SamplesSequence.from_underfolder(tmp_path / "a")
    DataStream.create_new_underfolder(tmp_path / "b").set_output(0, source[0])
    source.to_underfolder(tmp_path / "c").run()
    for copy in ("b", "c"):
        (file,) = (tmp_path / copy / "data").iterdir()
        assert file.suffix == extension
        assert file.read_bytes() == data


def test_images_of_the_new_formats_are_found_in_a_folder(tmp_path: Path) -> None:
    for number, (cls, image) in enumerate(INSTALLED.items()):
        (tmp_path / f"{number}{cls.file_extensions()[-1]}").write_bytes(content(cls, image))
    sequence = SamplesSequence.from_images(tmp_path)
    assert {type(sample["image"]) for sample in sequence} == set(INSTALLED)
    assert len({sample["image"]().shape for sample in sequence}) > 1


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """In a process where the packages cannot be imported."""
    script = (
        "import io, sys, numpy as np\n"
        "sys.modules |= dict.fromkeys(('pillow_heif', 'pillow_jxl', 'av'))\n"
        "from prefect_pipestream.errors import MissingExtraError\n"
        "from prefect_pipestream.items import *\n"
        "for cls in (HeifImageItem, JpegxlImageItem, ExrImageItem):\n"
        "    image = np.zeros((9, 9), 'f4' if cls is ExrImageItem else 'u1')\n"
        "    try:\n"
        "        cls.encode(image, io.BytesIO())\n"
        "    except MissingExtraError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    told = done.stdout.splitlines()
    assert [line.rpartition("install ")[2] for line in told] == [
        "prefect-pipestream[heif]`.",
        "prefect-pipestream[jxl]`.",
        "prefect-pipestream[exr]`.",
    ]


def test_formats_are_read_as_imageio_reads_them(tmp_path: Path) -> None:
    for cls in (WebpImageItem, AvifImageItem, Jpeg2000ImageItem, HeifImageItem, JpegxlImageItem):
        if cls in INSTALLED:
            path = tmp_path / f"a{cls.file_extensions()[0]}"
            path.write_bytes(content(cls, INSTALLED[cls]))
            assert np.array_equal(Item.get_instance(path)(), iio.imread(path, plugin="pillow"))
