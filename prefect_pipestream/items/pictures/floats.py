"""The items of light as floats: OpenEXR and Radiance.

Format: https://openexr.com/en/latest/OpenEXRFileLayout.html; the Radiance reference, "filefmts".
"""

import re
import struct
from collections.abc import Sequence
from typing import BinaryIO

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import codec
from prefect_pipestream.items.pictures.base import ImageItem, as_held, expect

_EXR = b"v/1\x01"
_SEVERAL_PARTS_OR_DEEP = 0x1800
_TILED = 0x200
_UINT = 0
_EXR_CHANNELS = ({b"R", b"G", b"B"}, {b"R", b"G", b"B", b"A"}, {b"Y"})
# How many lines are compressed together; what else there is comes out different, or not at all.
_LINES_OF_COMPRESSION = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32}
_RADIANCE = (b"#?RADIANCE", b"#?RGBE")
_RUN = 128  # of equal bytes, as many as the count is above it
_RADIANCE_SIZE = re.compile(rb"\n\n-Y (\d{1,9}) \+X (\d{1,9})\n")


class ExrImageItem(ImageItem):
    """An OpenEXR image: float32 H×W, H×W×3 or H×W×4, without loss and not compressed.

    It needs the extra `exr`. Halves of a float are read as float32. Other channels than R, G, B, A
    or Y, several parts, deep pixels and the compressions DWA and HTJ2K are refused. Attributes of
    the file are not kept.
    """

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.exr`."""
        return (".exr",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image."""
        data = stream.read()
        expect(data.startswith(_EXR), data, "OpenEXR")
        _check_exr(data)
        stream.seek(0)
        return codec.read_floats(stream, ".exr")

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Writes the image."""
        stream.write(codec.write_floats(as_held(cls, value, {"<f4": (0, 3, 4)}), ".exr"))


def _check_exr(data: bytes) -> None:
    """Raises `DecodeError` for too many pixels, and for what would be left out or wrong unseen."""
    flags = int.from_bytes(data[4:8], "little")
    if flags & _SEVERAL_PARTS_OR_DEEP:
        raise DecodeError("an OpenEXR of several parts, or of deep pixels, cannot be read here.")
    told, end = _exr_header(data)
    try:
        sizes = [_size(told[name]) for name in (b"displayWindow", b"dataWindow")]
        for width, height in sizes:
            codec.check_pixels(width, height)
        _check_channels(told[b"channels"])
        lines = _LINES_OF_COMPRESSION.get(told[b"compression"][0])
        if lines is None:
            raise DecodeError(
                "the compression of this OpenEXR cannot be read here. Write it with ZIP or PIZ."
            )
        blocks = _tiles(told[b"tiles"], width, height) if flags & _TILED else -(-height // lines)
        _check_blocks(data, end, blocks, 20 if flags & _TILED else 8)
    except (KeyError, IndexError, struct.error) as error:
        raise DecodeError("the OpenEXR is damaged inside its header.") from error


def _exr_header(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """Returns what the header of an OpenEXR tells, by name, and where it ends."""
    told, at = {}, 8
    while data[at : at + 1] != b"\x00":
        name, kind, rest = [*data[at : at + 512].split(b"\x00", 2), b"", b""][:3]
        at += len(name) + len(kind) + 2
        size = int.from_bytes(rest[:4], "little")
        if len(rest) < 4 or at + 4 + size > len(data):
            raise DecodeError("the OpenEXR is truncated inside its header.")
        told[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return told, at + 1


def _size(window: bytes) -> tuple[int, int]:
    left, top, right, bottom = struct.unpack("<4i", window)
    return max(right - left + 1, 0), max(bottom - top + 1, 0)


def _tiles(told: bytes, width: int, height: int) -> int:
    """Returns how many tiles a picture has."""
    across, down, mode = map(int, struct.unpack("<IIB", told))
    if mode & 15 or not across or not down:
        raise DecodeError("an OpenEXR with the picture in several sizes cannot be read here.")
    return -(-width // across) * -(-height // down)


def _check_blocks(data: bytes, at: int, count: int, head: int) -> None:
    """Raises `DecodeError` if a block of lines, or a tile, is not there to its end."""
    if len(data) < at + 8 * count:
        raise DecodeError("the OpenEXR is truncated. Restore the file or remove it.")
    for begin in struct.unpack_from(f"<{count}Q", data, at):
        size = int.from_bytes(data[begin + head - 4 : begin + head], "little")
        if not at < begin <= len(data) - head - size:
            raise DecodeError("the OpenEXR is truncated. Restore the file or remove it.")


def _check_channels(value: bytes) -> None:
    names, kinds = set(), set()
    while len(value) > 1:
        name, _, rest = value.partition(b"\x00")
        names.add(name)
        kinds.add(int.from_bytes(rest[:4], "little"))
        value = rest[16:]
    if names not in _EXR_CHANNELS or _UINT in kinds:
        told = ", ".join(sorted(name.decode("latin-1") for name in names))
        raise DecodeError(
            f"an OpenEXR with the channels {told} cannot be read here: floats R, G, B, with or "
            "without A, or Y alone can. Convert it to a TIFF."
        )


class RadianceImageItem(ImageItem):
    """A Radiance picture (`.hdr`): float32 H×W×3.

    It needs the extra `exr`. The format holds 8 bits a color and an exponent for the three: what
    is read back differs by up to 1/128 of the brightest of them. The lines of its header are not
    kept.
    """

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.hdr`."""
        return (".hdr",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image."""
        data = stream.read()
        expect(data.startswith(_RADIANCE), data, "Radiance")
        size = _RADIANCE_SIZE.search(data)
        if size is None:
            raise DecodeError(
                "the Radiance picture is damaged, or its rows are not from top to bottom."
            )
        width, height = int(size[2]), int(size[1])
        codec.check_pixels(width, height)
        _check_rows(data, size.end(), width, height)
        stream.seek(0)
        return codec.read_floats(stream, ".hdr")

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Writes the image."""
        array = as_held(cls, value, {"<f4": (3,)})
        if not (array >= 0).all() or array.max() >= 2.0**127:
            raise EncodeError(
                "RadianceImageItem holds numbers from 0 up, without NaN and infinity. Use "
                "ExrImageItem or TiffImageItem."
            )
        stream.write(codec.write_floats(array, ".hdr"))


def _check_rows(data: bytes, at: int, width: int, height: int) -> None:
    """Raises `DecodeError` if a row of a Radiance picture is not there to its end."""
    start = b"\x02\x02" + width.to_bytes(4, "big")[2:]
    for row in range(height):
        if not 8 <= width < 32768 or data[at : at + 4] != start:  # not packed
            at += 4 * width * (height - row)
            break
        at += 4
        left = 4 * width
        while left > 0 and at < len(data):
            count = data[at]
            at += 2 if count > _RUN else 1 + count
            left -= count - _RUN if count > _RUN else count
    if at > len(data) or not data[at - 1 : at]:
        raise DecodeError(
            "the Radiance picture is truncated, or packed as before 1991. Restore the file or "
            "remove it."
        )
