"""What a rewritten JPEG keeps of the one before: its segments, and how it was coded.

Format: ITU-T T.81, annex B; EXIF in APP1; ICC.1 annex B.4 for profiles in APP2.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import embedded
from prefect_pipestream.items.orientation import UPRIGHT

_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_PROFILE, _ADOBE, _SEVERAL = b"ICC_PROFILE\x00", b"Adobe", b"MPF\x00"
_APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_DHT, _EOI, _SOS, _DQT = 0xC4, 0xD9, 0xDA, 0xDB
_END = bytes((0xFF, _EOI))
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # within the coded picture

DEFAULT_QUALITY = 80


class Segment(NamedTuple):
    """A segment of a JPEG: its marker's second byte, and what is behind its length."""

    marker: int
    content: bytes


class Component(NamedTuple):
    """A channel: its identifier, its sampling factors and the number of its table."""

    name: int
    across: int
    down: int
    table: int


@dataclass
class Jpeg:
    """A JPEG file as far as it is not its pixels.

    Attributes:
        segments: All segments up to the first scan.
        scan_at: Where the first scan's marker is.
        width: In pixels.
        height: In pixels.
        components: The channels.
        tables: The quantization tables by number, each in the order of rows.
        is_progressive: Whether the picture comes in several scans, from coarse to fine.
        trailer: What is behind the end of the picture.
    """

    segments: list[Segment]
    scan_at: int
    width: int
    height: int
    components: list[Component]
    tables: dict[int, list[int]]
    is_progressive: bool
    trailer: bytes

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.components)

    def tables_by_channel(self) -> list[list[int]] | None:
        """The table of each channel, the last ones left out that repeat; None if one lacks."""
        try:
            tables = [self.tables[component.table] for component in self.components]
        except KeyError:
            return None
        if len(tables) > 2 and tables[1] == tables[2]:
            del tables[2:]
        return tables

    def subsampling(self) -> int:
        """How colours are sampled, as Pillow numbers it, or the next finer that it can write."""
        luma, *colours = self.components
        across = min(luma.across // max(colour.across, 1) for colour in colours)
        down = min(luma.down // max(colour.down, 1) for colour in colours)
        if across < 2:
            return 0
        return 2 if down >= 2 else 1

    def is_rgb(self) -> bool:
        """Whether it holds red, green and blue, not luma and colours; as libjpeg guesses it."""
        if self.channels != 3 or any(marker == _APP0 for marker, _ in self.segments):
            return False
        for marker, content in self.segments:
            if marker == _APP14 and content.startswith(_ADOBE) and len(content) >= 12:
                return content[11] == 0
        return bytes(component.name for component in self.components) == b"RGB"

    def is_optimized(self) -> bool:
        """Whether its Huffman codes were made for it."""
        return self.is_progressive or not self._codes() <= _standard_codes()

    def _codes(self) -> frozenset[bytes]:
        found = set()
        for marker, content in self.segments:
            at = 0
            while marker == _DHT and at + 17 <= len(content):
                end = at + 17 + sum(content[at + 1 : at + 17])
                found.add(content[at:end])
                at = end
        return frozenset(found)


def parse(data: bytes) -> Jpeg:
    """Reads what a JPEG file has beside its pixels.

    Raises:
        DecodeError: If it is no JPEG, or is damaged before its pixels begin.
    """
    segments, scan_at = _segments(data)
    frame = next((s for s in segments if s.marker in _FRAMES), None)
    if frame is None or len(frame.content) < 6 or len(frame.content) < 6 + 3 * frame.content[5]:
        raise DecodeError("the JPEG tells no size.")
    height, width, number = struct.unpack(">xHHB", frame.content[:6])
    triples = (frame.content[6 + 3 * i : 9 + 3 * i] for i in range(number))
    components = [Component(name, both >> 4, both & 15, table) for name, both, table in triples]
    if not components:
        raise DecodeError("the JPEG has no channels.")
    return Jpeg(
        segments,
        scan_at,
        width,
        height,
        components,
        _tables(segments),
        frame.marker in _PROGRESSIVE,
        _trailer(data, scan_at),
    )


def _segments(data: bytes) -> tuple[list[Segment], int]:
    """Returns the segments up to the first scan, and where that begins."""
    if data[:2] != b"\xff\xd8":
        raise DecodeError("the content is no JPEG.")
    segments: list[Segment] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SOS:
            return segments, at
        if marker == 0xFF:  # fills up
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker in (0x00, _EOI) or end < at + 4:
                break
            segments.append(Segment(marker, data[at + 4 : end]))
            at = end
    raise DecodeError(f"the JPEG is damaged at byte {at}, before its pixels.")


def _tables(segments: Sequence[Segment]) -> dict[int, list[int]]:
    from PIL.JpegImagePlugin import zigzag_index

    tables = {}
    for marker, content in segments:
        at = 0
        while marker == _DQT and at < len(content):
            number, is_wide = content[at] & 15, content[at] >> 4
            form = struct.Struct(">64H" if is_wide else ">64B")
            if at + 1 + form.size > len(content):
                raise DecodeError("the JPEG's quantization tables are cut off.")
            zigzag = form.unpack_from(content, at + 1)
            tables[number] = [zigzag[i] for i in zigzag_index]
            at += 1 + form.size
    return tables


def _trailer(data: bytes, scan_at: int) -> bytes:
    """Returns what is behind the end of the picture: the scans are walked to find it.

    Not where the end's marker is nowhere but at the end of the file, which is quick to see.
    """
    if data.find(_END, scan_at) in (-1, len(data) - len(_END)):
        return b""
    at = scan_at
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            return data[at:]
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return b""


@cache
def _standard_codes() -> frozenset[bytes]:
    """The Huffman codes of annex K, which encoders take that do not make their own."""
    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return parse(stream.getvalue())._codes()


def coding(options: Mapping[str, Any], old: Jpeg | None, channels: int) -> dict[str, Any]:
    """Returns what Pillow is told: the options given, else what the old file has."""
    told: dict[str, Any] = {"optimize": False, "progressive": False}
    if old is not None:
        told = {"optimize": old.is_optimized(), "progressive": old.is_progressive}
    tables = None
    if old is not None and old.channels == channels:
        tables = old.tables_by_channel()
        if channels > 1:
            told["subsampling"] = old.subsampling()
            told["keep_rgb"] = old.is_rgb()
    if options.get("quality") is not None:
        told["quality"] = options["quality"]
    elif tables is not None:
        told["qtables"] = tables
    else:
        told["quality"] = DEFAULT_QUALITY
    names = ("optimize", "progressive", "subsampling")
    told.update((name, options[name]) for name in names if options.get(name) is not None)
    if told.get("keep_rgb") and told["subsampling"] not in (0, -1, "4:4:4"):
        told["keep_rgb"] = False  # of red, green and blue none is to be coarser
    return told


def with_segments(data: bytes, old: Jpeg, *, upright: bool) -> bytes:
    """Returns a JPEG file just encoded, with the metadata of the one before.

    Args:
        data: The new file.
        old: What the one before has.
        upright: Whether the picture was turned upright.
    """
    new = parse(data)
    profile = b"".join(c[14:] for m, c in old.segments if m == _APP2 and c.startswith(_PROFILE))
    fits = embedded.profile_fits(profile, new.channels, old.channels)
    kept = [s for s in old.segments if _is_metadata(s) and (fits or not _is(s, _APP2, _PROFILE))]
    is_alone = not any(_is(segment, _APP2, _SEVERAL) for segment in old.segments)
    if (new.width, new.height) != (old.width, old.height) or upright:
        kept = [_fitted(segment, new, upright) for segment in kept]
    own = [s for s in new.segments if not _is_metadata(s) and not _is(s, _APP0, b"JFIF")]
    head = b"".join(_packed(segment) for segment in (*kept, *own))
    return b"\xff\xd8" + head + data[new.scan_at :] + (old.trailer if is_alone else b"")


def _is(segment: Segment, marker: int, start: bytes) -> bool:
    return segment.marker == marker and segment.content.startswith(start)


def _is_metadata(segment: Segment) -> bool:
    """Whether a segment neither tells how pixels are coded nor where other pictures are."""
    if _is(segment, _APP14, _ADOBE) or _is(segment, _APP2, _SEVERAL):
        return False
    return segment.marker == _COM or _APP0 <= segment.marker <= _APP15


def _fitted(segment: Segment, new: Jpeg, upright: bool) -> Segment:
    if _is(segment, _APP1, _EXIF):
        exif = embedded.resized_exif(segment.content[len(_EXIF) :], new.width, new.height)
        return Segment(_APP1, _EXIF + (embedded.upright_exif(exif) if upright else exif))
    if upright and _is(segment, _APP1, _XMP):
        return Segment(_APP1, embedded.upright_xmp(segment.content))
    return segment


def _packed(segment: Segment) -> bytes:
    marker, content = segment
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def orientation_of(data: bytes) -> int:
    """Returns the EXIF orientation of a JPEG file, 1 to 8.

    Raises:
        DecodeError: If it is no JPEG, or is damaged before its pixels begin.
    """
    for segment in _segments(data)[0]:
        if _is(segment, _APP1, _EXIF):
            return embedded.orientation_of(segment.content[len(_EXIF) :])
    return UPRIGHT
