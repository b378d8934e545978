"""Every kind of bad file is one clear error that names it; the fuzzers hold that for any bytes."""

import errno
import io
import json
import os
import pickle
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream.errors import DecodeError, ItemError, UnpicklingNotAllowedError
from prefect_pipestream.items import (
    ApngImageItem,
    BinaryItem,
    BmpImageItem,
    GifImageItem,
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
)

from .pictures import of_all_formats

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
PICTURES = of_all_formats()
VALUES: list[tuple[type[Item[Any]], Any]] = [
    *PICTURES.items(),
    (NpyNumpyItem, IMAGE),
    (TxtNumpyItem, IMAGE[..., 0]),
    (JsonMetadataItem, {"a": [1, 2.5, {"b": "text"}]}),
    (YamlMetadataItem, {"a": [1, 2.5, {"b": "2020-01-01"}], "c": {"d": None}}),
    (TomlMetadataItem, {"a": [1, 2], "b": {"c": "text"}}),
    (PickleItem, {"a": [1, 2]}),
]
IDS = [cls.__name__ for cls, _ in VALUES]


def content_of(cls: type[Item[Any]], value: Any) -> bytes:
    stream = io.BytesIO()
    cls.encode(value, stream)
    return stream.getvalue()


def file_with(folder: Path, extension: str, content: bytes) -> Path:
    path = folder / f"000007_key{extension}"
    path.write_bytes(content)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(DecodeError) as caught:
        Item.get_instance(path, allow_pickle=True)()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    return message


@pytest.mark.parametrize("cls", [cls for cls, _ in VALUES], ids=IDS)
def test_empty_file(cls: type[Item[Any]], tmp_path: Path) -> None:
    path = file_with(tmp_path, cls.file_extensions()[0], b"")
    assert "the file is empty" in error_of(path)


@pytest.mark.parametrize(
    ("cls", "value"), [*PICTURES.items(), (NpyNumpyItem, IMAGE)], ids=IDS[: len(PICTURES) + 1]
)
def test_file_truncated_anywhere_is_an_error_or_loses_nothing(
    cls: type[Item[Any]], value: Any, tmp_path: Path
) -> None:
    content = content_of(cls, value)
    path = file_with(tmp_path, cls.file_extensions()[0], content)
    whole = Item.get_instance(path)()
    for size in range(0, len(content), max(3, len(content) // 300)):
        path.write_bytes(content[:size])
        try:
            assert np.array_equal(Item.get_instance(path)(), whole), size
        except DecodeError:
            continue
    path.write_bytes(content[: len(content) // 2])
    error_of(path)


@pytest.mark.parametrize("position", [0.3, 0.5, 0.9])
def test_damaged_png_is_an_error(position: float, tmp_path: Path) -> None:
    content = bytearray(content_of(PngImageItem, IMAGE))
    content[int(len(content) * position)] ^= 1
    assert "wrong checksum" in error_of(file_with(tmp_path, ".png", bytes(content)))


@pytest.mark.parametrize(
    ("extension", "content", "message"),
    [
        (".jpg", content_of(PngImageItem, IMAGE), "content is a PNG image, JPEG was expected"),
        (".png", content_of(JpegImageItem, IMAGE), "content is a JPEG image, PNG was expected"),
        (".bmp", content_of(TiffImageItem, IMAGE), "content is a TIFF image, BMP was expected"),
        (".tif", content_of(BmpImageItem, IMAGE), "content is a BMP image, TIFF was expected"),
        (".png", b"<html>not found</html>", "content is not an image, PNG was expected"),
        (".npy", content_of(PngImageItem, IMAGE), "magic string"),
        (".npy", b"PK\x03\x04 an npz", "magic string"),
        (".json", content_of(PngImageItem, IMAGE), "UnicodeDecodeError"),
        (".txt", b"1 2\n3 x\n", "could not convert string 'x'"),
        (".txt", b"1 2\n3\n", "number of columns changed"),
        (".pkl", b"no pickle", "UnpicklingError"),
        (".pkl", b"cnowhere\nname\n.", "ModuleNotFoundError"),
    ],
)
def test_mislabelled_file(extension: str, content: bytes, message: str, tmp_path: Path) -> None:
    assert message in error_of(file_with(tmp_path, extension, content))


@pytest.mark.parametrize(
    ("extension", "text", "message"),
    [
        (".json", '{"a": 1,\n "b": }', "malformed JSON in line 2, column 7"),
        (".json", "{} trailing", "malformed JSON in line 1"),
        (".yaml", "a: 1\nb: [1, 2\nc: 3", "malformed YAML in line 3"),
        (".yml", "a: 1\n\tb: 2", "malformed YAML in line 2"),
        (".yaml", "--- 1\n--- 2\n", "malformed YAML in line 2"),
        (".yaml", "a: !!python/object/apply:os.getcwd []", "malformed YAML in line 1"),
        (".yaml", "a: 2020-99-99", "month must be in"),
        (".toml", "a = 1\nb = \n", "malformed TOML: Invalid value (at line 2"),
    ],
)
def test_malformed_metadata_tells_the_line(
    extension: str, text: str, message: str, tmp_path: Path
) -> None:
    assert message in error_of(file_with(tmp_path, extension, text.encode()))


def test_text_in_another_encoding(tmp_path: Path) -> None:
    for extension in (".yaml", ".toml", ".json"):
        error_of(file_with(tmp_path, extension, b'a = "\xe8"'))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "- " * 100_000])
def test_deeply_nested_metadata(text: str, tmp_path: Path) -> None:
    for extension in (".json", ".yaml", ".toml"):
        error_of(file_with(tmp_path, extension, text.encode()))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("cls", PICTURES)
def test_image_over_the_pixel_limit(
    cls: type[Item[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = PICTURES[cls]
    frames = len(image) if cls in (GifImageItem, ApngImageItem) else 1
    path = file_with(tmp_path, cls.file_extensions()[0], content_of(cls, image))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 11 * frames - 1)
    size = "11×9×3" if frames > 1 else "11×9"
    assert f"{size} pixels are over the limit of {9 * 11 * frames - 1}" in error_of(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "limit of 10" in error_of(path)
    for limit in (9 * 11 * frames, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert Item.get_instance(path)().shape == image.shape


@pytest.mark.parametrize("cls", PICTURES)
def test_picture_of_another_format_is_told_what_it_is(cls: type[Item[Any]], tmp_path: Path) -> None:
    for other, image in PICTURES.items():
        if {other, cls} == {PngImageItem, ApngImageItem} or other is cls:
            continue
        path = file_with(tmp_path, cls.file_extensions()[0], content_of(other, image))
        assert re.search("the content is an? .* image, .* was expected", error_of(path))


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_with(*chunks: bytes, size: int = 2, bits: int = 8, color_type: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", size, size, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def test_decompression_bomb_costs_no_memory(tmp_path: Path) -> None:
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert "over the limit" in error_of(file_with(tmp_path, ".png", png_with(data, size=60_000)))
    animated = png_with(chunk(b"acTL", struct.pack(">II", 2**30, 0)), data, size=30)
    assert "over the limit" in error_of(file_with(tmp_path, ".png", animated))
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    assert "truncated" in error_of(file_with(tmp_path, ".npy", npy))


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_png_that_would_lose_bits(color_type: int, tmp_path: Path) -> None:
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    message = error_of(file_with(tmp_path, ".png", png_with(data, bits=16, color_type=color_type)))
    assert "would lose 8 of them" in message


def test_unknown_format(tmp_path: Path) -> None:
    assert "no item class reads" in error_of(file_with(tmp_path, ".zzz", b"abc"))


def test_missing_file(tmp_path: Path) -> None:
    assert "there is no such file" in error_of(tmp_path / "a.png")
    assert "there is no such file" in error_of(tmp_path / "no folder" / "a.png")
    path = file_with(tmp_path, ".bin", b"abc")
    item = Item.get_instance(path)
    assert item() == b"abc"
    path.unlink()
    with pytest.raises(DecodeError, match="any more"):
        item()


def test_broken_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert "broken symbolic link" in error_of(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    assert "cannot be read" in error_of(tmp_path / "b.png")


def test_folder_fifo_and_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert "is a directory" in error_of(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert "no regular file" in error_of(tmp_path / "b.png")
    (tmp_path / "c").write_bytes(b"")
    assert "Not a directory" in error_of(tmp_path / "c" / "d.png")


@contextmanager
def unprivileged(path: Path) -> Iterator[None]:
    """Take the right to read a file, from root too."""
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def test_no_permission(tmp_path: Path) -> None:
    path = file_with(tmp_path, ".bin", b"abc")
    with unprivileged(path), pytest.raises(DecodeError, match=os.strerror(errno.EACCES)):
        Item.get_instance(path)()


def test_item_error_is_the_base_of_all() -> None:
    assert issubclass(DecodeError, ItemError)
    assert issubclass(UnpicklingNotAllowedError, ItemError)


def test_a_tiff_whose_pages_lead_in_a_circle(tmp_path: Path) -> None:
    """One page is the other's next: what reads them goes on for ever."""
    tags = [struct.pack("<HHII", number, 3, 1, 1) for number in (256, 257, 258, 259)]
    page = struct.pack("<H", len(tags)) + b"".join(tags)
    second = 8 + len(page) + 4
    content = b"II*\0" + struct.pack("<I", 8) + page + struct.pack("<I", second)
    content += page + struct.pack("<I", 8)
    assert "earlier" in error_of(file_with(tmp_path, ".tif", content))


EXTENSIONS = sorted({ext for cls, _ in VALUES for ext in cls.file_extensions()} | {".bin"})
STARTS = sorted({content_of(cls, value)[:12] for cls, value in VALUES} | {b""})


def decodes_or_says_why(path: Path) -> None:
    try:
        Item.get_instance(path)()
    except (DecodeError, UnpicklingNotAllowedError) as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is fine, and hypothesis
        # counts both; pytest.raises would demand the error


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    extension=st.sampled_from(EXTENSIONS),
    start=st.sampled_from(STARTS),
    content=st.binary(max_size=200) | st.text(max_size=60).map(str.encode),
)
def test_any_bytes_decode_or_are_a_clear_error(
    tmp_path: Path, extension: str, start: bytes, content: bytes
) -> None:
    decodes_or_says_why(file_with(tmp_path, extension, start + content))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.sampled_from(VALUES),
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=4)),
        min_size=1,
        max_size=6,
    ),
)
def test_any_damage_decodes_or_is_a_clear_error(
    tmp_path: Path, which: tuple[type[Item[Any]], Any], edits: list[tuple[float, int, bytes]]
) -> None:
    cls, value = which
    content = content_of(cls, value)
    for position, removed, inserted in edits:
        at = int(position * len(content))
        content = content[:at] + inserted + content[at + removed :]
    decodes_or_says_why(file_with(tmp_path, cls.file_extensions()[0], content))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_plain_data_comes_back_or_is_refused(tmp_path: Path, value: Any) -> None:
    for cls in (JsonMetadataItem, YamlMetadataItem, TomlMetadataItem):
        if cls is TomlMetadataItem:
            value = {"value": value}
        try:
            content = cls(value)
            content.serialize(tmp_path / "item")
        except ItemError:
            continue
        again = Item.get_instance(content.local_sources[0])
        assert again() == value
        assert json.dumps(again(), sort_keys=True) == json.dumps(value, sort_keys=True)


def test_bad_pickle_content_is_reported_not_raised_raw(tmp_path: Path) -> None:
    path = file_with(tmp_path, ".pkl", pickle.dumps(IMAGE)[:-20])
    error_of(path)
    assert isinstance(BinaryItem(path.read_bytes())(), bytes)
