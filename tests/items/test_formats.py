"""What each item class writes, byte for byte where that is the format, and reads back."""

import datetime
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

from prefect_pipestream.errors import EncodeError, UnpicklingNotAllowedError
from prefect_pipestream.items import (
    BinaryItem,
    BmpImageItem,
    Item,
    JpegImageItem,
    JsonMetadataItem,
    NpyNumpyItem,
    PickleItem,
    PngImageItem,
    TiffImageItem,
    TomlMetadataItem,
    TxtNumpyItem,
    YamlMetadataItem,
    allow_unpickling,
)
from prefect_pipestream.items.pictures import fast

RANDOM = np.random.default_rng(0)


def pixels(dtype: str, *shape: int) -> np.ndarray:
    return (RANDOM.random(shape) * (2 if dtype == "bool" else 250)).astype(dtype)


def written(item: Item[Any]) -> bytes:
    stream = io.BytesIO()
    type(item).encode(item(), stream)
    return stream.getvalue()


def written_and_read(item: Item[Any], folder: Path) -> Any:
    item.serialize(folder / "item")
    return Item.get_instance(item.local_sources[0])()


def assert_same_array(value: Any, expected: np.ndarray) -> None:
    assert isinstance(value, np.ndarray)
    assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(value, expected, equal_nan=value.dtype.kind in "fc")
    assert value.flags.writeable


# -- arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "back"),
    [
        (5, "5\n", [5.0]),
        (True, "1\n", [1.0]),
        ([1, 2], "1\n2\n", [1.0, 2.0]),
        ([[1, 2], [3, 4]], "1 2\n3 4\n", [[1.0, 2.0], [3.0, 4.0]]),
        ([[1, 2]], "1 2\n", [1.0, 2.0]),
        (0.1, "1.000000000000000056e-01\n", [0.1]),
        (np.float32([1.1]), "1.100000023841857910e+00\n", [np.float32(1.1)]),
        ([np.nan, -np.inf], "nan\n-inf\n", [np.nan, -np.inf]),
        (np.uint64([2**63]), "9223372036854775808\n", [2.0**63]),
        (np.zeros((0, 4)), "# empty\n", []),
    ],
)
def test_text_is_written_as_numpy_does_and_read_at_least_1d(
    value: Any, text: str, back: list[Any], tmp_path: Path
) -> None:
    item = TxtNumpyItem(value)
    assert written(item).decode() == text
    assert_same_array(written_and_read(item, tmp_path), np.array(back, dtype=float))


@pytest.mark.parametrize("text", ["", " \n", "# only\n # comments"])
def test_text_with_no_rows_is_an_array_without_elements(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text or "\n")
    assert_same_array(TxtNumpyItem(tmp_path / "a.txt")(), np.empty((0,)))


@pytest.mark.parametrize("value", [np.zeros((2, 2, 2)), np.array([1j]), np.array(["a"])])
def test_text_refuses_what_it_cannot_hold(value: np.ndarray) -> None:
    with pytest.raises(EncodeError, match="NpyNumpyItem"):
        written(TxtNumpyItem(value))


@pytest.mark.parametrize("dtype", ["bool", "u1", "<i8", ">i4", "f4", "c16", "U3", "M8[s]"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3)])
def test_npy_keeps_any_dtype_and_shape(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.asarray(RANDOM.random(shape) * 99).astype("i8").astype(dtype)
    assert_same_array(written_and_read(NpyNumpyItem(array), tmp_path), array)
    assert np.array_equal(np.load(tmp_path / "item.npy"), array)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_npy_keeps_order_and_structure(tmp_path: Path) -> None:
    fortran = np.asfortranarray(RANDOM.random((3, 4)))
    value = written_and_read(NpyNumpyItem(fortran), tmp_path / "f")
    assert value.flags.f_contiguous
    assert_same_array(value, fortran)
    for name in ("x", "ü", "日本"):
        table = np.zeros(3, dtype=[(name, "f4"), ("id", "i8", (2,))])
        table["id"] = 7
        assert_same_array(written_and_read(NpyNumpyItem(table), tmp_path / name), table)


# -- images --------------------------------------------------------------------------------

PNG_ARRAYS = [
    pixels("bool", 5, 6),
    pixels("u1", 5, 6),
    pixels("u1", 5, 6, 2),
    pixels("u1", 5, 6, 3),
    pixels("u1", 5, 6, 4),
    pixels("u2", 5, 6) * np.uint16(257),
]


@pytest.mark.parametrize("array", PNG_ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_png_is_lossless_and_reads_as_imageio_reads_it(array: np.ndarray, tmp_path: Path) -> None:
    assert_same_array(written_and_read(PngImageItem(array), tmp_path), array)
    assert_same_array(np.array(iio.imread(tmp_path / "item.png")), array)


@pytest.mark.parametrize("array", [PNG_ARRAYS[i] for i in (0, 1, 3)], ids=lambda a: str(a.dtype))
def test_bmp_is_lossless_and_reads_as_imageio_reads_it(array: np.ndarray, tmp_path: Path) -> None:
    assert_same_array(written_and_read(BmpImageItem(array), tmp_path), array)
    assert_same_array(np.array(iio.imread(tmp_path / "item.bmp")), array)


@pytest.mark.parametrize("array", [PNG_ARRAYS[i] for i in (0, 1, 3)], ids=lambda a: str(a.dtype))
def test_jpeg_reads_as_imageio_reads_it(array: np.ndarray, tmp_path: Path) -> None:
    value = written_and_read(JpegImageItem(array), tmp_path)
    assert (value.dtype, value.shape) == (np.dtype("u1"), array.shape)
    assert_same_array(value, np.array(iio.imread(tmp_path / "item.jpeg")))


def test_encoder_defaults_are_those_of_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "library", lambda: None)  # of which a PNG has other bytes
    image = pixels("u1", 40, 30, 3)
    expected = {
        PngImageItem: {"format": "PNG", "compress_level": 4},
        JpegImageItem: {"format": "JPEG", "quality": 80},
        BmpImageItem: {"format": "BMP"},
    }
    for cls, arguments in expected.items():
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, **arguments)
        assert written(cls(image)) == stream.getvalue()
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, compression="zlib")
    assert written(TiffImageItem(image)) == stream.getvalue()


def test_channel_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    image = pixels("u1", 5, 6, 1)
    assert_same_array(written_and_read(PngImageItem(image), tmp_path), image[..., 0])


def test_views_and_foreign_byte_order_are_encoded(tmp_path: Path) -> None:
    image = pixels("u1", 8, 6, 3)
    for name, view in (("a", image[::2, ::-1]), ("b", image[..., ::-1]), ("c", image[..., 0].T)):
        assert_same_array(written_and_read(PngImageItem(view), tmp_path / name), view.copy())
    big_endian = (pixels("u1", 4, 5) * 200.0).astype(">u2")
    value = written_and_read(PngImageItem(big_endian), tmp_path / "d")
    assert np.array_equal(value, big_endian)


@pytest.mark.parametrize(
    ("cls", "array"),
    [
        (PngImageItem, pixels("f4", 5, 6)),
        (PngImageItem, pixels("i8", 5, 6)),
        (PngImageItem, pixels("u2", 5, 6, 3)),
        (PngImageItem, pixels("bool", 5, 6, 3)),
        (PngImageItem, pixels("u1", 5, 6, 7)),
        (PngImageItem, pixels("u1", 5)),
        (PngImageItem, pixels("u1", 0, 6)),
        (PngImageItem, pixels("u1")),
        (JpegImageItem, pixels("u1", 5, 6, 4)),
        (JpegImageItem, pixels("u1", 5, 6, 2)),
        (JpegImageItem, pixels("u2", 5, 6)),
        (BmpImageItem, pixels("u1", 5, 6, 4)),
        (BmpImageItem, pixels("u2", 5, 6)),
    ],
)
def test_image_that_the_format_would_change_is_refused(cls: type[Item], array: np.ndarray) -> None:
    with pytest.raises(EncodeError, match="cannot hold"):
        written(cls(array))


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (2, 5, 6, 3), (3, 5, 6), (7,), (5, 6, 9)])
def test_tiff_keeps_any_number_type_and_shape(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = pixels(dtype, *shape)
    assert_same_array(written_and_read(TiffImageItem(array), tmp_path), array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_is_read_as_it_is_stored_whatever_its_orientation(
    compression: str, orientation: int
) -> None:
    image = pixels("uint8", 5, 7, 3)
    stream = io.BytesIO()
    Image.fromarray(image).save(
        stream, "TIFF", compression=compression, tiffinfo={274: orientation}
    )
    stream.seek(0)
    assert_same_array(TiffImageItem.decode(stream), image)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"])
def test_tiff_of_other_programs_is_read(compression: str, tmp_path: Path) -> None:
    image = pixels("u1", 9, 7, 3)
    pages = [Image.fromarray(image), Image.fromarray(255 - image)]
    pages[0].save(
        tmp_path / "a.tif", compression=compression, save_all=True, append_images=pages[1:]
    )
    assert_same_array(Item.get_instance(tmp_path / "a.tif")(), np.stack([image, 255 - image]))


def test_bigtiff_and_big_endian_tiff_are_read(tmp_path: Path) -> None:
    image = pixels("u2", 9, 7)
    tifffile.imwrite(tmp_path / "a.tif", image, bigtiff=True)
    tifffile.imwrite(tmp_path / "b.tif", image, byteorder=">")
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(Item.get_instance(tmp_path / name)(), image)


def png_file(size: int, bits: int, color_type: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", size, size, bits, color_type, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, b"\x80", [True, False]),
        (2, b"\x70", [85, 255]),
        (4, b"\x1f", [17, 255]),
        (16, b"\x01\x02\x03\x04", [0x102, 0x304]),
    ],
)
def test_gray_png_of_any_depth_is_read(bits: int, row: bytes, expected: list[Any], tmp_path: Path):
    dtype = {1: "bool", 16: "u2"}.get(bits, "u1")
    (tmp_path / "a.png").write_bytes(png_file(2, bits, 0, (b"\0" + row) * 2))
    assert_same_array(Item.get_instance(tmp_path / "a.png")(), np.array([expected] * 2, dtype))
    assert_same_array(np.array(iio.imread(tmp_path / "a.png")), np.array([expected] * 2, dtype))


@pytest.mark.parametrize(
    ("extension", "transparency"),
    [("png", None), ("png", 0), ("png", b"\0\x80\xff"), ("bmp", None)],
)
def test_palette_becomes_rgb_and_with_transparency_rgba(
    extension: str, transparency: int | bytes | None, tmp_path: Path
) -> None:
    palette = Image.fromarray(pixels("u1", 9, 7, 3)).quantize(8)
    if transparency is not None:
        palette.info["transparency"] = transparency
    palette.save(tmp_path / f"a.{extension}")
    mode = "RGB" if transparency is None else "RGBA"
    value = Item.get_instance(tmp_path / f"a.{extension}")()
    assert_same_array(value, np.array(palette.convert(mode)))


def test_transparent_color_becomes_an_alpha_channel(tmp_path: Path) -> None:
    gray, rgb = pixels("u1", 3, 3), pixels("u1", 3, 3, 3)
    Image.fromarray(gray).save(tmp_path / "a.png", transparency=int(gray[0, 0]))
    Image.fromarray(rgb).save(tmp_path / "b.png", transparency=tuple(rgb[0, 0].tolist()))
    for name, image in (("a.png", gray[..., None]), ("b.png", rgb)):
        value = Item.get_instance(tmp_path / name)()
        assert np.array_equal(value[..., :-1], image)
        assert value[0, 0, -1] == 0


def test_animated_png_is_a_stack(tmp_path: Path) -> None:
    frames = [pixels("u1", 6, 7, 3) for _ in range(3)]
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    assert_same_array(Item.get_instance(tmp_path / "a.png")(), np.stack(frames))


def test_cmyk_jpeg_has_four_channels_and_cannot_be_written_back(tmp_path: Path) -> None:
    Image.fromarray(pixels("u1", 16, 16, 3)).convert("CMYK").save(tmp_path / "a.jpg")
    item = Item.get_instance(tmp_path / "a.jpg")
    assert_same_array(item(), np.array(iio.imread(tmp_path / "a.jpg")))
    assert item().shape == (16, 16, 4)
    with pytest.raises(EncodeError, match="JpegImageItem cannot hold"):
        item.make_new(255 - item()).store(str(tmp_path / "b.jpg"))


def test_exif_orientation_is_left_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(pixels("u1", 16, 8, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert Item.get_instance(tmp_path / "a.jpg")().shape == (16, 8, 3)


def test_encoder_options_reach_the_encoder(tmp_path: Path) -> None:
    image = pixels("u1", 64, 64, 3)
    for item, options in (
        (PngImageItem(image // 8), {"compress_level": 0}),
        (JpegImageItem(image), {"quality": 20, "progressive": True, "subsampling": "4:4:4"}),
        (TiffImageItem(image // 8), {"compression": None}),
    ):
        default = item.store(str(tmp_path / f"default{item.file_extensions()[0]}"))
        other = item.with_options(**options).store(str(tmp_path / f"o{item.file_extensions()[0]}"))
        assert default.version is not None
        assert other.version is not None
        assert default.version.size != other.version.size
        assert Item.get_instance(other.path)().shape == image.shape


# -- metadata ------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "b": 1,
    "a": [1, 2, {"c": "d"}],
    "f": 1.5,
    "text": 'è\n日本 "q" \\',
    "yes": True,
    "empty": {},
    "none": [],
}


@pytest.mark.parametrize("cls", [JsonMetadataItem, YamlMetadataItem, TomlMetadataItem])
def test_plain_data_is_kept(cls: type[Item], tmp_path: Path) -> None:
    value = written_and_read(cls(PLAIN), tmp_path)
    assert value == PLAIN
    if cls is not TomlMetadataItem:  # which puts tables last
        assert list(value) == list(PLAIN)
    assert written_and_read(cls({}), tmp_path / "empty") == {}


@pytest.mark.parametrize("cls", [JsonMetadataItem, YamlMetadataItem])
@pytest.mark.parametrize("value", [None, True, 5, 1.5, float("inf"), "", "text", [], [1, ["a"]]])
def test_any_plain_value_is_kept(cls: type[Item], value: Any, tmp_path: Path) -> None:
    item = cls(value)
    back = written_and_read(item, tmp_path)
    assert back == value
    assert type(back) is type(value)


def test_written_text_is_that_of_the_format() -> None:
    assert written(JsonMetadataItem({"b": [1, None], "a": "è"})) == (
        rb'{"b": [1, null], "a": "\u00e8"}'
    )
    assert written(YamlMetadataItem({"b": [1, None], "a": {"c": (1, 2)}})) == (
        b"b:\n- 1\n- null\na:\n  c:\n  - 1\n  - 2\n"
    )


@pytest.mark.parametrize("cls", [JsonMetadataItem, YamlMetadataItem, TomlMetadataItem])
def test_numpy_values_become_numbers_and_lists(cls: type[Item], tmp_path: Path) -> None:
    value = {
        "i": np.int64(3),
        "u": np.uint8(255),
        "f": np.float32(1.5),
        "d": np.float64(0.1),
        "b": np.bool_(True),
        "a": np.arange(4).reshape(2, 2),
        "l": [np.float32(0.5)],
        "s": np.str_("text"),
    }
    back = written_and_read(cls(value), tmp_path)
    assert back == {
        "i": 3,
        "u": 255,
        "f": 1.5,
        "d": 0.1,
        "b": True,
        "a": [[0, 1], [2, 3]],
        "l": [0.5],
        "s": "text",
    }
    assert [type(back[key]) for key in "iufdb"] == [int, int, float, float, bool]


def test_dates_sets_and_bytes_are_kept_where_the_format_has_them(tmp_path: Path) -> None:
    dates = {"d": datetime.date(2020, 1, 2), "t": datetime.datetime(2020, 1, 2, 3, 4, 5)}
    assert written_and_read(YamlMetadataItem(dates), tmp_path) == dates
    assert written_and_read(TomlMetadataItem(dates), tmp_path) == dates
    more = {"s": {1, 2}, "b": b"abc", 5: "five"}
    assert written_and_read(YamlMetadataItem(more), tmp_path / "more") == more


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (JsonMetadataItem({"a": {1, 2}}), "set"),
        (JsonMetadataItem({"a": datetime.date(2020, 1, 1)}), "date"),
        (YamlMetadataItem({"a": Path("/a")}), "represent"),
        (YamlMetadataItem({(1, 2): 3}), "plain keys"),
        (TomlMetadataItem({"a": None}), "no None"),
        (TomlMetadataItem({1: "a"}), "text as keys"),
        (TomlMetadataItem({"a": b"abc"}), "bytes"),
    ],
)
def test_what_would_not_come_back_is_refused(item: Item[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=message):
        item.serialize(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_json_with_a_byte_order_mark_or_in_utf16_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes('{"a": "è"}'.encode(encoding))
        assert Item.get_instance(tmp_path / "a.json")() == {"a": "è"}


# -- bytes and pickles ---------------------------------------------------------------------


def test_bytes_are_kept_even_none(tmp_path: Path) -> None:
    for content in (b"", b"abc\0\xff"):
        assert written_and_read(BinaryItem(content), tmp_path / str(len(content))) == content
    assert written_and_read(BinaryItem(bytearray(b"abc")), tmp_path / "array") == b"abc"


def test_pickle_is_read_only_where_allowed(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    PickleItem({1: (2, 3)}).serialize(tmp_path / "a")
    NpyNumpyItem(objects).serialize(tmp_path / "b")
    for name, value in (("a.pkl", {1: (2, 3)}), ("b.npy", objects)):
        with pytest.raises(UnpicklingNotAllowedError, match=rf"{name}.*allow_pickle=True"):
            Item.get_instance(tmp_path / name)()
        assert np.array_equal(Item.get_instance(tmp_path / name, allow_pickle=True)(), value)
        with allow_unpickling():
            assert np.array_equal(Item.get_instance(tmp_path / name)(), value)
        with pytest.raises(UnpicklingNotAllowedError):
            Item.get_instance(tmp_path / name)()


def test_pickle_runs_no_code_where_not_allowed(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    content = pickle.dumps(Touch())
    for name in ("a.pkl", "a.npy", "a.txt", "a.png"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((UnpicklingNotAllowedError, ValueError)):
            Item.get_instance(tmp_path / name)()
    with pytest.raises(ValueError, match="magic string"):
        Item.get_instance(tmp_path / "a.npy", allow_pickle=True)()
    assert not (tmp_path / "ran").exists()


def test_a_float_that_tiff_has_not_is_refused(tmp_path):
    with pytest.raises(EncodeError, match="float64"):
        TiffImageItem(np.zeros((4, 4), np.longdouble)).serialize(tmp_path / "a.tiff")
