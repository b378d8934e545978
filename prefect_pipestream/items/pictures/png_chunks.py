"""The chunks of a PNG: checks that Pillow leaves out, and what a rewritten one keeps.

Format: https://www.w3.org/TR/png-3/, sections 5.3 (chunk order), 11.3 and 14.2 (copying chunks).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import embedded
from prefect_pipestream.items.pictures.base import Original, expect_signature
from prefect_pipestream.items.pictures.orientation import UPRIGHT

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEFAULT_LEVEL = 4

# Chunks that hold the picture, and what the header of a plain one says behind its size: 8 bits of
# gray, of colors, or of colors and alpha, not interlaced.
_OF_PICTURE = (b"IHDR", b"IDAT", b"IEND")
_PLAIN = tuple(bytes((*bits, 0, 0, 0)) for bits in ((8, 0), (8, 2), (8, 6)))
# Chunks of one length, which no reader could refuse, and those that may have any.
_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
_OF_ANY_LENGTH = (b"tEXt", b"eXIf")
_MOST_BESIDE = 1 << 16

_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER_AT = len(SIGNATURE) + _CHUNK.size
_GRAY = 0
_CHANNELS = {_GRAY: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # of a color type, without alpha

# Known chunks that do not speak of single pixels; of unknown ones the name tells.
_KEPT = frozenset(
    (
        *(b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"),
        *(b"pHYs", b"sCAL", b"pCAL", b"oFFs", b"tIME", b"tEXt", b"zTXt", b"iTXt", b"eXIf"),
    )
)
_OF_SAMPLES = frozenset((b"bKGD", b"sBIT"))  # as wide and as many as the samples of a pixel
_OF_PIXELS = frozenset((b"PLTE", b"tRNS", b"hIST", b"sPLT"))
_XMP_KEYWORD = b"XML:com.adobe.xmp\x00"
# The level that zlib was told, by what it notes of it: 1 stands for levels 2 to 5.
_LEVELS = {0: 1, 1: DEFAULT_LEVEL, 2: 6, 3: 9}


class Chunk(NamedTuple):
    """A chunk of a PNG."""

    name: bytes
    content: bytes


class _Header(NamedTuple):
    width: int
    height: int
    bits: int
    color_type: int

    @classmethod
    def of(cls, content: bytes) -> "_Header":
        if len(content) < 10:
            raise DecodeError("the PNG's header is too short. Restore the file or remove it.")
        return cls(*struct.unpack(">IIBB", content[:10]))

    @property
    def channels(self) -> int:
        """The number of channels without alpha."""
        return _CHANNELS.get(self.color_type, 0)


def _places(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name of each chunk, and where its content begins and ends."""
    at = len(SIGNATURE)
    name = b""
    while name != b"IEND":
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
        yield name, at + 8, end
        at = end + 4


def _is_whole(data: bytes, begin: int, end: int) -> bool:
    return bool(zlib.crc32(memoryview(data)[begin - 4 : end]) == _CRC.unpack_from(data, end)[0])


def _check_sum(data: bytes, name: bytes, begin: int, end: int) -> None:
    if not _is_whole(data, begin, end):
        raise DecodeError(
            f"the PNG is damaged: wrong checksum of a {_shown(name)} chunk. "
            "Restore the file or remove it."
        )


def _shown(name: bytes) -> str:
    return name.decode("ascii", "replace")


def check(data: bytes) -> None:
    """Checks what Pillow leaves out: checksums, the end, and a bit depth that it would cut.

    Raises:
        DecodeError: If it is truncated, a checksum of its image data is wrong, or it has 16 bits a
            channel with colors or alpha.
    """
    for name, begin, end in _places(data):
        # The upper case initial marks what a decoder cannot do without (fdAT: animations).
        if name[:1].isupper() or name == b"fdAT":
            _check_sum(data, name, begin, end)
        if name == b"IHDR":
            header = _Header.of(data[begin:end])
            if header.bits == 16 and header.color_type != _GRAY:
                raise DecodeError(
                    "a PNG with 16 bits a channel and colors or alpha would lose 8 of them here. "
                    "Convert it to a TIFF, or to 8 bits."
                )


def plain(data: bytes) -> tuple[int, int, bytes] | None:
    """Returns width, height and the file without what is beside its pixels, of a plain PNG.

    Such a one every reader takes alike: it has 8 bits a channel, gray, RGB or RGBA, no transparent
    color, and beside its pixels nothing that Pillow could refuse.

    Args:
        data: The content of a file that was checked; see `check`.

    Returns:
        None if it is not plain.
    """
    places = list(_places(data))
    _, begin, end = places[0]
    header, beside = data[begin:end], [place for place in places if place[0] not in _OF_PICTURE]
    if header[8:] not in _PLAIN or not _is_in_order([name for name, *_ in places]):
        return None
    size = _Header.of(header)[:2]
    if not all(size) or not _are_harmless(data, beside):
        return None
    if beside:
        kept = (data[begin - 8 : end + 4] for name, begin, end in places if name in _OF_PICTURE)
        data = SIGNATURE + b"".join(kept)
    return (*size, data)


def _is_in_order(names: list[bytes]) -> bool:
    """Whether there is one header, at the beginning, and the parts of the pixels are together."""
    parts = names.count(b"IDAT")
    together = parts > 0 and names[names.index(b"IDAT") :][:parts] == [b"IDAT"] * parts
    return together and names[0] == b"IHDR" and names.count(b"IHDR") == 1


def _are_harmless(data: bytes, places: list[tuple[bytes, int, int]]) -> bool:
    """Whether chunks say nothing of the pixels, and have nothing that a reader could refuse."""
    return sum(end - begin for _, begin, end in places) <= _MOST_BESIDE and all(
        (name in _OF_ANY_LENGTH or _LENGTHS.get(name) == end - begin)
        and _is_whole(data, begin, end)
        for name, begin, end in places
    )


class PngOriginal(Original):
    """The chunks of a PNG file, but for its pixels, and how they are compressed."""

    def __init__(self, data: bytes) -> None:
        expect_signature(data, SIGNATURE, "PNG")
        self._before: list[Chunk] = []
        self._after: list[Chunk] = []
        start = None  # of the pixels
        for name, begin, end in _places(data):
            if name == b"IDAT":  # decoded and checked elsewhere
                start = data[begin : min(end, begin + 3)] if start is None else start
                continue
            _check_sum(data, name, begin, end)
            if name != b"IEND":
                chunks = self._before if start is None else self._after
                chunks.append(Chunk(name, data[begin:end]))
        if start is None or not self._before or self._before[0].name != b"IHDR":
            raise DecodeError("the PNG has no header or no pixels.")
        self._header = _Header.of(self._before.pop(0).content)
        self._start = start

    @property
    def level(self) -> int:
        """The compression level that zlib was told, 0 to 9, as far as its stream tells."""
        if len(self._start) < 3:
            return DEFAULT_LEVEL
        is_stored = not self._start[2] & 0b110  # the first block's kind
        return 0 if is_stored else _LEVELS[self._start[1] >> 6]

    @property
    def orientation(self) -> int:
        """The orientation that its EXIF data tell."""
        found = (c.content for c in (*self._before, *self._after) if c.name == b"eXIf")
        return next(map(embedded.orientation_of, found), UPRIGHT)

    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns a PNG file just encoded, with the ancillary chunks of the one before."""
        first, end = _HEADER_AT + 13 + 4, len(data) - 12
        new = _Header.of(data[_HEADER_AT:first])
        before, after = (
            b"".join(_packed(self._fitted(c, new, upright)) for c in chunks if self._fits(c, new))
            for chunks in (self._before, self._after)
        )
        return data[:first] + before + data[first:end] + after + data[end:]

    def _fits(self, chunk: Chunk, new: _Header) -> bool:
        old, name = self._header, chunk.name
        if name == b"iCCP":
            return embedded.profile_fits(_start_of_profile(chunk), new.channels, old.channels)
        if name in _OF_SAMPLES:
            return (old.bits, old.color_type) == (new.bits, new.color_type)
        # A lower case letter says "ancillary", and, in fourth place, "may be copied".
        is_safe = name[:1].islower() and name[3:].islower()
        return name in _KEPT or (is_safe and name not in _OF_PIXELS)

    def _fitted(self, chunk: Chunk, new: _Header, upright: bool) -> Chunk:
        name, content = chunk
        if name == b"eXIf" and (upright or self._header[:2] != new[:2]):
            content = embedded.fitted_exif(content, new.width, new.height, upright=upright)
        elif upright and name == b"iTXt" and content.startswith(_XMP_KEYWORD):
            content = embedded.upright_xmp(content)
        return Chunk(name, content)


def _start_of_profile(chunk: Chunk) -> bytes:
    _, _, packed = chunk.content.partition(b"\x00")
    try:
        return zlib.decompressobj().decompress(packed[1:], 128)
    except zlib.error:
        return b""


def _packed(chunk: Chunk) -> bytes:
    body = chunk.name + chunk.content
    return len(chunk.content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
