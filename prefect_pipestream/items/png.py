"""Checks of a PNG file that Pillow leaves out: checksums, the end, and a bit depth it would cut.

Format: https://www.w3.org/TR/png-3/
"""

import struct
import zlib

from prefect_pipestream.errors import DecodeError

_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_GRAY = 0
_IMAGE_DATA = (b"IDAT", b"fdAT")


def check(data: bytes) -> None:
    """Check the chunks of a PNG file, from after its signature to its end.

    Raises:
        DecodeError: If it is truncated, a checksum of its image data is wrong, or it has 16 bits a
            channel with colors or alpha.
    """
    view = memoryview(data)
    at = 8
    while True:
        if at + 12 > len(data):
            raise DecodeError(
                "the PNG is truncated: its end is missing. Restore the file or remove it."
            )
        length, name = _CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise DecodeError(
                f"the PNG is truncated inside its {_shown(name)} chunk. "
                "Restore the file or remove it."
            )
        # The upper case initial marks what a decoder cannot do without (fdAT: animations).
        if name[:1].isupper() or name in _IMAGE_DATA:
            _check_sum(view[at + 4 : end], _CRC.unpack_from(data, end)[0], name)
        if name == b"IHDR" and length >= 10:
            _check_depth(bits=data[at + 16], color_type=data[at + 17])
        if name == b"IEND":
            return
        at = end + 4


def _check_sum(content: memoryview, expected: int, name: bytes) -> None:
    if zlib.crc32(content) != expected:
        raise DecodeError(
            f"the PNG is damaged: wrong checksum of a {_shown(name)} chunk. "
            "Restore the file or remove it."
        )


def _check_depth(bits: int, color_type: int) -> None:
    if bits == 16 and color_type != _GRAY:
        raise DecodeError(
            "a PNG with 16 bits a channel and colors or alpha would lose 8 of them here. "
            "Convert it to a TIFF, or to 8 bits."
        )


def _shown(name: bytes) -> str:
    return name.decode("ascii", "replace")
