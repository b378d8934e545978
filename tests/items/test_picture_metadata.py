"""A picture that is rewritten keeps what is not its pixels, and comes back by an undo."""

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from prefect_pipestream.errors import ConflictError, DecodeError, EncodeError
from prefect_pipestream.items import (
    AvifImageItem,
    BmpImageItem,
    HeifImageItem,
    Item,
    JpegImageItem,
    PngImageItem,
    SerializationMode,
    TiffImageItem,
    WebpImageItem,
)
from prefect_pipestream.items.pictures.jpeg_segments import JpegOriginal
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder.runs.undo import undo_run

from .pictures import (
    LONG_PROFILE,
    SRGB,
    XMP,
    exif,
    jpeg,
    of_all_formats,
    photograph,
    png_chunks,
    psnr,
    with_segments,
)

HEIGHT, WIDTH = 64, 96
PHOTO = photograph(HEIGHT, WIDTH)
OWN_TABLES_DB = 45.0  # what a photograph loses that is coded again by its own tables
FEW, MANY = 20, 200  # examples

Change = Callable[[Sample, str], Sample]


def inverted(sample: Sample, key: str) -> Sample:
    return sample.set_value(key, 255 - sample[key]())


def rewritten(
    content: bytes, extension: str, change: Change = inverted, *, undo: bool = False
) -> bytes:
    """A file after its item was changed through a stream, by which it comes back."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, "data", f"0_image{extension}")
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))  # of a file this new, a commit waits for the clock's tick
        stream = DataStream.read_write_underfolder(root)
        stream.set_output(0, change(stream[0], "image"))
        new = path.read_bytes()
        if undo:
            undo_run(root, stream.run_key)
            assert path.read_bytes() == content
    return new


def segments(data: bytes) -> list[tuple[str, bytes]]:
    """The APPn and COM segments of a JPEG, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format in ("JPEG", "MPO")
        found: list[tuple[str, bytes]] = image.applist  # type: ignore[attr-defined]
        return [(name, content) for name, content in found if not content.startswith(b"Adobe")]


def names_of(chunks: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The names of chunks, each once: the pixels may be in several."""
    return list(dict.fromkeys(name for name, _ in chunks))


def coding(data: bytes) -> Any:
    """How the channels of a JPEG are sampled and quantized, and whether it is progressive."""
    with Image.open(io.BytesIO(data)) as image:
        layers = image.layer  # type: ignore[attr-defined]
        tables = image.quantization  # type: ignore[attr-defined]
        channels = [(across, down, list(tables[table])) for _, across, down, table in layers]
        return channels, "progressive" in image.info


def pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


# -- JPEG ----------------------------------------------------------------------------------


@st.composite
def camera_files(draw: st.DrawFn) -> bytes:
    is_gray = draw(st.booleans())
    options: dict[str, Any] = {
        "quality": draw(st.integers(50, 100)),
        "progressive": draw(st.booleans()),
        "optimize": draw(st.booleans()),
    }
    if not is_gray:
        options["subsampling"] = draw(st.sampled_from([0, 1, 2]))
    orientation = draw(st.sampled_from([None, *range(1, 9)]))
    data = exif(orientation, gps=draw(st.booleans()), thumbnail=draw(st.booleans()))
    extras = {
        "exif": data,
        "icc_profile": draw(st.sampled_from([SRGB, LONG_PROFILE])),
        "xmp": XMP,
        "comment": "made by Jörg".encode(),
        "dpi": draw(st.sampled_from([(72, 72), (300, 300), (240, 120)])),
    }
    options |= {name: value for name, value in extras.items() if draw(st.booleans())}
    content = jpeg(PHOTO[..., 0] if is_gray else PHOTO, **options)
    more = [(0xED, b"Photoshop 3.0\x008BIM\x04\x04 caption"), (0xFE, b"a second comment")]
    return with_segments(content, *draw(st.lists(st.sampled_from(more), unique=True)))


def check_jpeg(content: bytes) -> None:
    new = rewritten(content, ".jpg", undo=True)
    assert segments(new) == segments(content)
    assert coding(new) == coding(content)
    assert psnr(pixels(new), 255 - pixels(content)) > 24


@settings(max_examples=FEW, deadline=None)
@given(camera_files())
def test_jpeg_keeps_all_but_its_pixels(content: bytes) -> None:
    check_jpeg(content)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(camera_files())
def test_many_jpegs_keep_all_but_their_pixels(content: bytes) -> None:
    check_jpeg(content)


@pytest.mark.parametrize("optimize", [False, True])
def test_jpeg_keeps_whether_its_codes_are_optimized(optimize: bool) -> None:
    content = jpeg(PHOTO, quality=90, optimize=optimize)
    new = rewritten(content, ".jpg")
    plain = jpeg(255 - pixels(content), quality=90, optimize=optimize)
    assert len(new) == len(plain)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [50, 75, 92, 98, 100])
def test_generation_loss_by_its_own_tables_is_small(quality: int, subsampling: int) -> None:
    content = jpeg(photograph(128, 160, quality), quality=quality, subsampling=subsampling)
    new = rewritten(content, ".jpg", lambda s, key: s.set_value(key, s[key]()))
    assert psnr(pixels(new), pixels(content)) >= OWN_TABLES_DB


def test_jpeg_of_red_green_and_blue_stays_one() -> None:
    content = jpeg(PHOTO, quality=95, keep_rgb=True, subsampling=0, exif=exif(6))
    new = rewritten(content, ".jpg")
    assert segments(new) == segments(content)
    assert coding(new) == coding(content)
    assert psnr(pixels(new), 255 - pixels(content)) > 40


@pytest.mark.parametrize(("luma", "expected"), [(0x12, 0x11), (0x41, 0x21), (0x42, 0x22)])
def test_subsampling_that_pillow_cannot_write_becomes_the_next_finer(
    luma: int, expected: int
) -> None:
    content = bytearray(jpeg(PHOTO, quality=90, subsampling=0))
    at = content.index(b"\xff\xc0") + 11  # the first channel's factors
    content[at] = luma
    stream = io.BytesIO()
    JpegImageItem.encode_like(PHOTO, stream, JpegImageItem.encoder_defaults, bytes(content))
    (across, down, _), *_ = coding(stream.getvalue())[0]
    assert across << 4 | down == expected


def test_segments_that_led_to_pictures_behind_the_first_are_dropped() -> None:
    first = jpeg(PHOTO, exif=exif(3))
    several = with_segments(first, (0xE2, b"MPF\x00" + bytes(40)))
    new = rewritten(several + jpeg(PHOTO), ".jpg")
    assert segments(new) == segments(first)
    assert new.endswith(b"\xff\xd9")
    assert new.count(b"\xff\xd8\xff") == 2  # its own beginning, and the thumbnail's


def test_what_follows_a_jpeg_stays_behind_it() -> None:
    assert rewritten(jpeg(PHOTO) + b"a short film", ".jpg").endswith(b"\xff\xd9a short film")


def test_pictures_that_begin_alike_keep_each_its_own() -> None:
    small = jpeg(PHOTO[:28, :28])
    alike = jpeg(255 - PHOTO[:28, :28]) + b"a short film"
    assert alike[:600] == small[:600] != jpeg(PHOTO[:28, :28], quality=50)[:600]
    assert rewritten(small, ".jpg").endswith(b"\xff\xd9")
    assert rewritten(alike, ".jpg").endswith(b"\xff\xd9a short film")
    commented = with_segments(small, (0xFE, b"mine"))
    for _ in range(2):
        assert segments(rewritten(commented, ".jpg")) == segments(commented)
        assert segments(rewritten(small, ".jpg")) == segments(small)


def test_bytes_between_segments_and_a_head_that_is_cut_off_are_as_pillow_takes_them() -> None:
    small = jpeg(PHOTO[:28, :28])
    filled = small[:2] + b"\xff\xff" + small[2:]
    assert coding(rewritten(filled, ".jpg")) == coding(small)
    with pytest.raises(DecodeError, match="damaged before its pixels"):
        JpegOriginal(small[:300])


def test_gray_made_of_colours_keeps_all_but_a_profile_of_colours() -> None:
    content = jpeg(PHOTO, exif=exif(6), icc_profile=SRGB, quality=93)
    new = rewritten(content, ".jpg", lambda s, key: s.set_value(key, s[key]()[..., 1]))
    kept = [(name, data) for name, data in segments(content) if not data.startswith(b"ICC_")]
    assert segments(new) == kept
    assert len(kept) == len(segments(content)) - 1


def test_of_another_size_exif_tells_that_size_and_else_the_same() -> None:
    content = jpeg(PHOTO, exif=exif(6))
    new = rewritten(content, ".jpg", lambda s, key: s.set_value(key, s[key]()[:40, :50]))
    was, now = piexif.load(content), piexif.load(new)
    sizes = [now["Exif"].pop(piexif.ExifIFD.PixelXDimension)]
    sizes += [now["Exif"].pop(piexif.ExifIFD.PixelYDimension)]
    assert sizes == [50, 40]
    del was["Exif"][piexif.ExifIFD.PixelXDimension], was["Exif"][piexif.ExifIFD.PixelYDimension]
    assert now == was


# -- PNG, TIFF, BMP ------------------------------------------------------------------------


@st.composite
def png_files(draw: st.DrawFn) -> bytes:
    info = PngImagePlugin.PngInfo()
    parts: list[Callable[[], None]] = [
        lambda: info.add_text("Title", "a picture"),
        lambda: info.add_text("Comment", "long " * 50, zip=True),
        lambda: info.add_itxt("Author", "Jörg", lang="de"),
        lambda: info.add_itxt("XML:com.adobe.xmp", XMP.decode()),
        lambda: info.add(b"gAMA", (45455).to_bytes(4, "big")),
        lambda: info.add(b"cHRM", bytes(range(32))),
        lambda: info.add(b"sBIT", b"\x08\x08\x08"),
        lambda: info.add(b"tIME", b"\x07\xe8\x05\x06\x07\x08\x09", after_idat=True),
        lambda: info.add(b"prVs", b"may be copied", after_idat=draw(st.booleans())),
    ]
    for part in draw(st.lists(st.sampled_from(parts), unique=True)):
        part()
    extras = {"icc_profile": SRGB, "dpi": (300, 300), "exif": exif(draw(st.integers(1, 8)))[6:]}
    options = {name: value for name, value in extras.items() if draw(st.booleans())}
    stream = io.BytesIO()
    level = draw(st.sampled_from([0, 1, 4, 6, 9]))
    Image.fromarray(PHOTO).save(stream, "PNG", pnginfo=info, compress_level=level, **options)
    return stream.getvalue()


def check_png(content: bytes) -> None:
    new = rewritten(content, ".png", undo=True)
    was, now = (
        [chunk for chunk in png_chunks(data) if chunk[0] != b"IDAT"] for data in (content, new)
    )
    assert now == was
    level, new_level = (
        next(body[1] >> 6 for name, body in png_chunks(data) if name == b"IDAT")
        for data in (content, new)
    )
    assert new_level == level
    assert np.array_equal(pixels(new), 255 - pixels(content))


@settings(max_examples=FEW, deadline=None)
@given(png_files())
def test_png_keeps_all_but_its_pixels(content: bytes) -> None:
    check_png(content)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(png_files())
def test_many_pngs_keep_all_but_their_pixels(content: bytes) -> None:
    check_png(content)


def test_png_that_was_stored_is_not_compressed() -> None:
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "PNG", compress_level=0)
    assert len(rewritten(stream.getvalue(), ".png")) >= len(stream.getvalue())


def test_png_chunks_of_a_palette_or_of_other_samples_are_not_kept() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"bKGD", b"\x01")
    info.add(b"hIST", bytes(512))
    info.add(b"abCD", b"speaks of pixels")
    info.add_text("Title", "a picture")
    stream = io.BytesIO()
    palette = Image.fromarray(PHOTO).quantize(256)
    palette.save(stream, "PNG", pnginfo=info, transparency=3)
    new = rewritten(stream.getvalue(), ".png")
    assert names_of(png_chunks(new)) == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert pixels(new).shape == (HEIGHT, WIDTH, 4)


def test_gray_png_made_of_colours_keeps_no_profile_of_colours() -> None:
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "PNG", icc_profile=SRGB, dpi=(300, 300))
    new = rewritten(stream.getvalue(), ".png", lambda s, key: s.set_value(key, s[key]()[..., 0]))
    assert names_of(png_chunks(new)) == [b"IHDR", b"pHYs", b"IDAT", b"IEND"]


@st.composite
def tiff_files(draw: st.DrawFn) -> bytes:
    dtype = draw(st.sampled_from(["uint8", "uint16", "float32"]))
    shape = draw(st.sampled_from([(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3), (4, HEIGHT, WIDTH)]))
    is_rgb = shape[-1] == 3
    compression = draw(st.sampled_from([None, "zlib", "lzma"]))
    tags: list[Any] = [
        (315, "s", 0, "Someone", True),
        (306, "s", 0, "2024:05:06 07:08:09", True),
        (274, "H", 1, draw(st.integers(1, 8)), False),
        (34675, "B", len(SRGB), SRGB, False),
        (700, "B", len(XMP), XMP, False),
        (33550, "d", 3, (0.5, 0.5, 0.0), False),
        (65000, "H", 5, (1, 2, 3, 4, 5), False),
    ]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        np.random.default_rng(1).integers(0, 250, shape).astype(dtype),
        photometric="rgb" if is_rgb else "minisblack",
        byteorder=draw(st.sampled_from("<>")),
        bigtiff=draw(st.booleans()),
        compression=compression,
        predictor=bool(compression) and dtype != "float32" and draw(st.booleans()),
        resolution=draw(st.sampled_from([None, (300.0, 150.5)])),
        resolutionunit=draw(st.sampled_from(["INCH", "CENTIMETER"])),
        description=draw(st.sampled_from([None, "what it shows"])),
        software=draw(st.sampled_from(["a scanner", False])),
        extratags=draw(st.lists(st.sampled_from(tags), unique_by=lambda tag: tag[0])),
    )
    return stream.getvalue()


TIFF_PLACES = {"StripOffsets", "StripByteCounts", "RowsPerStrip"}


def tiff_tags(data: bytes) -> list[list[tuple[str, Any]]]:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return [
            [(t.name, t.value) for t in page.tags if t.name not in TIFF_PLACES]
            for page in tiff.pages
        ]


def check_tiff(content: bytes) -> None:
    new = rewritten(content, ".tif", undo=True)
    was, now = tiff_tags(content), tiff_tags(new)
    for old_page, new_page in zip(was, now, strict=True):
        assert [tag for tag in old_page if tag not in new_page] == []
        assert {name for name, _ in new_page} == {name for name, _ in old_page}
    with tifffile.TiffFile(io.BytesIO(content)) as old, tifffile.TiffFile(io.BytesIO(new)) as tiff:
        assert (tiff.byteorder, tiff.is_bigtiff) == (old.byteorder, old.is_bigtiff)
        assert np.array_equal(tiff.asarray(), 255 - old.asarray())


@settings(max_examples=FEW, deadline=None)
@given(tiff_files())
def test_tiff_keeps_all_but_its_pixels(content: bytes) -> None:
    check_tiff(content)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(tiff_files())
def test_many_tiffs_keep_all_but_their_pixels(content: bytes) -> None:
    check_tiff(content)


def test_tiff_keeps_the_directories_of_exif_and_gps() -> None:
    stream = io.BytesIO()
    image = Image.fromarray(PHOTO)
    data = Image.Exif()
    data.load(exif(6, thumbnail=False))
    image.save(stream, "TIFF", exif=data)
    new = rewritten(stream.getvalue(), ".tif")
    was, now = (dict(tiff_tags(content)[0]) for content in (stream.getvalue(), new))
    assert was["GPSTag"]["GPSLatitude"] == now["GPSTag"]["GPSLatitude"]
    assert was["ExifTag"] == now["ExifTag"]
    assert now["Artist"] == was["Artist"]


@pytest.mark.parametrize("lower", [0, 10])
def test_axes_of_imagej_are_kept_for_the_same_shape_only(lower: int) -> None:
    stream = io.BytesIO()
    stack = np.random.default_rng(1).integers(0, 250, (6, 40, 50)).astype(np.uint8)
    tifffile.imwrite(stream, stack, imagej=True, metadata={"axes": "TYX", "fps": 7.0})
    new = rewritten(
        stream.getvalue(), ".tif", lambda s, key: s.set_value(key, 255 - s[key]()[:, lower:])
    )
    with tifffile.TiffFile(io.BytesIO(new)) as tiff:
        assert np.array_equal(tiff.asarray(), 255 - stack[:, lower:])
        assert (tiff.imagej_metadata or {}).get("fps") == (None if lower else 7.0)


def test_bmp_keeps_its_resolution() -> None:
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "BMP", dpi=(203, 305))
    new = rewritten(stream.getvalue(), ".bmp")
    assert new[:54] == stream.getvalue()[:54]


# -- which file is the original ------------------------------------------------------------


FILES = {
    ".jpg": lambda: jpeg(PHOTO, quality=93, exif=exif(6), comment=b"a comment"),
    ".png": lambda: _saved("PNG", dpi=(300, 300)),
    ".tif": lambda: _saved("TIFF", tiffinfo={270: "what it shows"}),
    ".bmp": lambda: _saved("BMP", dpi=(300, 300)),
    ".webp": lambda: _saved("WEBP", lossless=True, exif=exif(6), icc_profile=SRGB),
    ".avif": lambda: _saved("AVIF", exif=exif(6), xmp=XMP),
    ".heic": lambda: _saved("HEIF", exif=exif(1)),
}
CLASSES = {
    ".jpg": JpegImageItem,
    ".png": PngImageItem,
    ".tif": TiffImageItem,
    ".bmp": BmpImageItem,
    ".webp": WebpImageItem,
    ".avif": AvifImageItem,
    ".heic": HeifImageItem,
}
for extension in [name for name, cls in CLASSES.items() if cls not in of_all_formats()]:
    del FILES[extension], CLASSES[extension]  # what needs an extra that is not there


def _saved(format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, format_name, **options)
    return stream.getvalue()


@pytest.mark.parametrize("extension", FILES)
def test_fresh_item_at_a_key_keeps_what_the_file_there_had(extension: str) -> None:
    content = FILES[extension]()
    fresh = rewritten(
        content, extension, lambda s, key: s.set_item(key, CLASSES[extension](255 - s[key]()))
    )
    assert fresh == rewritten(content, extension)


def dataset(folder: Path, **files: bytes) -> DataStream:
    (folder / "data").mkdir(parents=True)
    for key, content in files.items():
        key, _, extension = key.rpartition("_")
        (folder / "data" / f"0_{key}.{extension}").write_bytes(content)
    return DataStream.read_write_underfolder(folder)


@pytest.mark.parametrize("is_fresh", [False, True])
def test_picture_written_to_another_dataset_keeps_it(tmp_path: Path, is_fresh: bool) -> None:
    content = FILES[".jpg"]()
    sample = dataset(tmp_path / "a", image_jpg=content)[0]
    value = 255 - sample["image"]()
    changed = (
        sample.set_item("image", JpegImageItem(value))
        if is_fresh
        else sample.set_value("image", value)
    )
    DataStream.create_new_underfolder(tmp_path / "b").set_output(0, changed)
    assert segments((tmp_path / "b/data/0_image.jpeg").read_bytes()) == segments(content)


def test_pipes_keep_it_too(tmp_path: Path) -> None:
    content = FILES[".jpg"]()
    dataset(tmp_path / "a", image_jpg=content)
    source = SamplesSequence.from_underfolder(tmp_path / "a")
    source.map("invert").map({"resize-images": {"size": [32, 32]}}).to_underfolder(
        tmp_path / "b"
    ).run()
    new = (tmp_path / "b/data/0_image.jpeg").read_bytes()
    assert coding(new) == coding(content)
    assert [len(data) for _, data in segments(new)] == [len(data) for _, data in segments(content)]


def test_sample_set_again_keeps_it(tmp_path: Path) -> None:
    content = FILES[".jpg"]()
    stream = dataset(tmp_path, image_jpg=content)
    sample = inverted(stream[0], "image")
    stream.set_output(0, sample)
    stream.set_output(0, inverted(sample, "image"))
    assert segments((tmp_path / "data/0_image.jpg").read_bytes()) == segments(content)


@pytest.mark.parametrize("key", ["image", "other"])
@pytest.mark.parametrize("is_fresh", [False, True])
def test_reading_the_original_hides_no_conflict(tmp_path: Path, key: str, is_fresh: bool) -> None:
    stream = dataset(tmp_path, image_jpg=FILES[".jpg"]())
    sample = stream[0]
    value = 255 - sample["image"]()
    changed = (
        sample.set_item(key, JpegImageItem(value))
        if is_fresh
        else sample.set_value_as(key, "image", value)
    )
    other = DataStream.read_write_underfolder(tmp_path)
    other.set_output(0, inverted(other[0], "image"))
    with pytest.raises(ConflictError):
        stream.set_output(0, changed)


def test_another_format_takes_nothing_over(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image_jpg=FILES[".jpg"]())
    sample = stream[0]
    stream.set_output(0, sample.set_item("image", PngImageItem(sample["image"]())))
    chunks = png_chunks((tmp_path / "data/0_image.png").read_bytes())
    assert names_of(chunks) == [b"IHDR", b"IDAT", b"IEND"]


def test_item_encoded_anew_without_a_change_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES[".jpg"]())
    item = Item.get_instance(tmp_path / "a.jpg")
    item.serialization_mode = SerializationMode.CREATE_NEW_FILE
    item.serialize(tmp_path / "b.jpg")
    assert segments((tmp_path / "b.jpg").read_bytes()) == segments(FILES[".jpg"]())


@pytest.mark.parametrize("extension", FILES)
def test_unchanged_picture_stays_byte_for_byte(tmp_path: Path, extension: str) -> None:
    content = FILES[extension]()
    stream = dataset(tmp_path / "a", **{f"image_{extension[1:]}": content})
    stream.set_output(0, stream[0])
    DataStream.create_new_underfolder(tmp_path / "b").set_output(0, stream[0])
    (copy,) = (tmp_path / "b" / "data").iterdir()
    assert copy.read_bytes() == content
    assert copy.samefile(tmp_path / "a" / "data" / f"0_image{extension}")


# -- options -------------------------------------------------------------------------------


def with_options(**options: Any) -> Change:
    def change(sample: Sample, key: str) -> Sample:
        return sample.set_item(key, inverted(sample, key)[key].with_options(**options))

    return change


@pytest.mark.parametrize("extension", FILES)
def test_metadata_can_be_stripped(extension: str) -> None:
    new = rewritten(FILES[extension](), extension, with_options(metadata="strip"))
    with Image.open(io.BytesIO(new)) as image:
        assert not image.getexif().get(piexif.ImageIFD.Orientation)
        assert "comment" not in image.info
        assert round(image.info.get("dpi", (1, 1))[0]) in (1, 96)
    assert b"what it shows" not in new
    if extension == ".jpg":
        assert [name for name, _ in segments(new)] == ["APP0"]
        assert coding(new) == coding(FILES[".jpg"]())


def test_quality_can_be_set_and_the_rest_stays() -> None:
    content = jpeg(PHOTO, quality=93, subsampling=0, progressive=True, exif=exif(6))
    new = rewritten(content, ".jpg", with_options(quality=60))
    plain = jpeg(PHOTO, quality=60, subsampling=0, progressive=True)
    assert segments(new) == segments(content)
    assert coding(new) == coding(plain)


@pytest.mark.parametrize(
    ("cls", "options", "expected"),
    [
        (
            JpegImageItem,
            {"quality": 101},
            r"'quality' cannot be 101; expected .* 1 to 100, or None",
        ),
        (JpegImageItem, {"quality": True}, "'quality' cannot be True"),
        (JpegImageItem, {"metadata": "drop"}, "'metadata' cannot be 'drop'; .*'keep', 'strip'"),
        (JpegImageItem, {"subsampling": "4:1:0"}, "'subsampling' cannot be '4:1:0'"),
        (PngImageItem, {"compress_level": 10}, "'compress_level' cannot be 10"),
        (PngImageItem, {"quality": 90}, "PngImageItem has no encoder option 'quality'"),
        (TiffImageItem, {"compression": "zipp"}, "'compression' cannot be 'zipp'"),
        (BmpImageItem, {"metadata": None}, "'metadata' cannot be None"),
    ],
)
def test_wrong_options_are_refused_at_once(cls: Any, options: Any, expected: str) -> None:
    with pytest.raises(EncodeError, match=expected):
        cls(PHOTO).with_options(**options)


# -- originals that are gone or damaged ----------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "another format"])
@pytest.mark.parametrize("extension", FILES)
def test_original_that_cannot_be_read_is_named(tmp_path: Path, extension: str, damage: str) -> None:
    path = tmp_path / f"a{extension}"
    content = FILES[extension]()
    path.write_bytes(content)
    item = Item.get_instance(path)
    new = item.make_new(255 - item())
    if damage == "gone":
        path.unlink()
    else:
        broken = {"empty": b"", "cut off": content[:20], "another format": b"%PDF" + bytes(99)}
        path.write_bytes(broken[damage])
    with pytest.raises(EncodeError, match=rf"a\{extension}: what it has .*metadata=\"strip\""):
        new.serialize(tmp_path / f"b{extension}")
    assert not (tmp_path / f"b{extension}").exists()
    new.with_options(metadata="strip").serialize(tmp_path / f"b{extension}")
    assert pixels((tmp_path / f"b{extension}").read_bytes()).shape == PHOTO.shape


def test_damaged_file_is_replaced_only_without_its_metadata(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image_jpg=b"\xff\xd8\xff\xe1 no more")
    fresh = JpegImageItem(PHOTO)
    with pytest.raises(EncodeError, match=r"Sample 0, item 'image': .*0_image.jpg: what it has"):
        stream.set_output(0, stream[0].set_item("image", fresh))
    stream.set_output(0, stream[0].set_item("image", fresh.with_options(metadata="strip")))
    assert psnr(stream[0]["image"](), PHOTO) > 30
