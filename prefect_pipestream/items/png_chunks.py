"""What a rewritten PNG keeps of the one before: its ancillary chunks, and its compression.

Format: https://www.w3.org/TR/png-3/, sections 5.3 (chunk order), 11.3 and 14.2 (copying chunks).
"""

import struct
import zlib
from typing import NamedTuple

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import embedded
from prefect_pipestream.items.orientation import UPRIGHT

DEFAULT_LEVEL = 4

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # of a color type, without alpha

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


class Png:
    """Reads the chunks of a PNG file.

    Args:
        data: The content of the file.

    Attributes:
        before: The chunks between the header and the pixels.
        after: Those behind the pixels.

    Raises:
        DecodeError: If it is no PNG, or is damaged.
    """

    def __init__(self, data: bytes) -> None:
        chunks = _chunks(data)
        places = [i for i, chunk in enumerate(chunks) if chunk.name == b"IDAT"]
        if chunks[0].name != b"IHDR" or len(chunks[0].content) != 13 or not places:
            raise DecodeError("the PNG has no header or no pixels.")
        header = chunks[0].content
        self.width, self.height, self.bits, self.color_type = struct.unpack(">IIBB", header[:10])
        self.before = chunks[1 : places[0]]
        self.after = [c for c in chunks[places[0] + 1 :] if c.name not in (b"IDAT", b"IEND")]
        self._pixels = chunks[places[0]].content

    @property
    def channels(self) -> int:
        """The number of channels without alpha."""
        return _CHANNELS.get(self.color_type, 0)

    def level(self) -> int:
        """The compression level that zlib was told, 0 to 9, as far as its stream tells."""
        if len(self._pixels) < 3:
            return DEFAULT_LEVEL
        is_stored = not self._pixels[2] & 0b110  # the first block's kind
        return 0 if is_stored else _LEVELS[self._pixels[1] >> 6]


def _chunks(data: bytes) -> list[Chunk]:
    if not data.startswith(_SIGNATURE):
        raise DecodeError("the content is no PNG.")
    found: list[Chunk] = []
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        length, name = _CHUNK.unpack_from(data, at)
        if at + 12 + length > len(data):
            break
        end = at + 8 + length
        found.append(Chunk(name, data[at + 8 : end]))
        # Pixels are decoded and checked elsewhere.
        if name != b"IDAT" and zlib.crc32(data[at + 4 : end]) != _CRC.unpack_from(data, end)[0]:
            raise DecodeError(f"the PNG is damaged: wrong checksum of the chunk at byte {at}.")
        if name == b"IEND":
            return found
        at += 12 + length
    raise DecodeError("the PNG is truncated: its end is missing.")


def with_chunks(data: bytes, old: Png, *, upright: bool) -> bytes:
    """Returns a PNG file just encoded, with the ancillary chunks of the one before.

    Args:
        data: The new file.
        old: What the one before has.
        upright: Whether the picture was turned upright.
    """
    new = Png(data)
    first = len(_SIGNATURE) + 12 + 13
    before = b"".join(_packed(_fitted(c, old, new, upright)) for c in _kept(old.before, old, new))
    after = b"".join(_packed(_fitted(c, old, new, upright)) for c in _kept(old.after, old, new))
    end = len(data) - 12
    return data[:first] + before + data[first:end] + after + data[end:]


def _kept(chunks: list[Chunk], old: Png, new: Png) -> list[Chunk]:
    return [chunk for chunk in chunks if _is_kept(chunk, old, new)]


def _is_kept(chunk: Chunk, old: Png, new: Png) -> bool:
    if chunk.name == b"iCCP":
        return embedded.profile_fits(_start_of_profile(chunk), new.channels, old.channels)
    if chunk.name in _OF_SAMPLES:
        return (old.bits, old.color_type) == (new.bits, new.color_type)
    if chunk.name in _KEPT:
        return True
    # A lower case letter says "ancillary", and, in fourth place, "may be copied".
    is_safe = chunk.name[:1].islower() and chunk.name[3:].islower()
    return is_safe and chunk.name not in _OF_PIXELS


def _start_of_profile(chunk: Chunk) -> bytes:
    _, _, packed = chunk.content.partition(b"\x00")
    try:
        return zlib.decompressobj().decompress(packed[1:], 128)
    except zlib.error:
        return b""


def _fitted(chunk: Chunk, old: Png, new: Png, upright: bool) -> Chunk:
    name, content = chunk
    if name == b"eXIf":
        if upright or (old.width, old.height) != (new.width, new.height):
            content = embedded.resized_exif(content, new.width, new.height)
        content = embedded.upright_exif(content) if upright else content
    elif upright and name == b"iTXt" and content.startswith(_XMP_KEYWORD):
        content = embedded.upright_xmp(content)
    return Chunk(name, content)


def _packed(chunk: Chunk) -> bytes:
    body = chunk.name + chunk.content
    return len(chunk.content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def orientation_of(data: bytes) -> int:
    """Returns the EXIF orientation of a PNG file, 1 to 8.

    Raises:
        DecodeError: If it is no PNG, or is damaged.
    """
    for chunk in _chunks(data):
        if chunk.name == b"eXIf":
            return embedded.orientation_of(chunk.content)
    return UPRIGHT
