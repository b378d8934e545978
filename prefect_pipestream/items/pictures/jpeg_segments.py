"""What a rewritten JPEG keeps of the one before: its segments, and how it was coded.

Format: ITU-T T.81, annex B; EXIF in APP1; ICC.1 annex B.4 for profiles in APP2.
"""

import re
from functools import cache, lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import embedded
from prefect_pipestream.items.pictures.base import Original, expect_signature
from prefect_pipestream.items.pictures.jpeg_head import scan_begin

SIGNATURE = b"\xff\xd8\xff"

_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_PROFILE, _SEVERAL = b"ICC_PROFILE\x00", b"MPF\x00"
_MARKERS = {"COM": 0xFE} | {f"APP{number}": 0xE0 + number for number in range(16)}
_EOI = 0xD9
_END = bytes((0xFF, _EOI))
_LONGEST_KNOWN = 2048  # bytes of a head that is remembered: of a photograph each has its own
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # within the coded picture


class Segment(NamedTuple):
    """A segment of metadata: the name of its marker, and what is behind its length."""

    marker: str
    content: bytes

    def has(self, marker: str, start: bytes) -> bool:
        """Whether it is of a marker, and begins so."""
        return self.marker == marker and self.content.startswith(start)


class _Head:
    """The segments of a JPEG file up to its pixels, as Pillow reads them."""

    def __init__(self, data: bytes) -> None:
        from PIL.JpegImagePlugin import JpegImageFile

        stream = BytesIO(data)
        try:
            self.image = JpegImageFile(stream)
        except Exception as error:  # Pillow raises whatever broken content makes it raise
            raise DecodeError(f"the JPEG is damaged before its pixels ({error}).") from error
        if not self.image.tile or len(self.image.layer) != self.image.layers:
            raise DecodeError("the JPEG is damaged before its pixels.")
        self.segments = [Segment(*one) for one in self.image.applist]
        self.end = stream.tell()
        self._data = data
        self._codings: dict[int, dict[str, Any]] = {}

    def coding(self, channels: int) -> dict[str, Any]:
        """Returns what Pillow is told, to code a picture of 1 or 3 channels as this one."""
        if channels not in self._codings:
            self._codings[channels] = self._coding(channels)
        return dict(self._codings[channels])

    def _coding(self, channels: int) -> dict[str, Any]:
        is_progressive = "progressive" in self.image.info
        told: dict[str, Any] = {
            "optimize": is_progressive or not self._has_standard_codes(),
            "progressive": is_progressive,
        }
        if self.image.layers != channels:
            return told
        if (tables := self._tables()) is not None:
            told["qtables"] = tables
        if channels > 1:
            told |= {"subsampling": self._subsampling(), "keep_rgb": self._is_rgb()}
        return told

    def _tables(self) -> tuple[tuple[int, ...], ...] | None:
        """The quantization table of each channel, without a last that repeats; None if one lacks.

        Each is in the order of rows.
        """
        known = self.image.quantization
        if any(number not in known for *_, number in self.image.layer):
            return None
        tables = tuple(tuple(known[number]) for *_, number in self.image.layer)
        return tables[:2] if tables[1:2] == tables[2:] else tables

    def _subsampling(self) -> int:
        """How colours are sampled, as Pillow numbers it, or the next finer that it can write."""
        (_, luma_across, luma_down, _), *colours = self.image.layer
        across = min(luma_across // max(colour[1], 1) for colour in colours)
        down = min(luma_down // max(colour[2], 1) for colour in colours)
        if across < 2:
            return 0
        return 2 if down >= 2 else 1

    def _is_rgb(self) -> bool:
        """Whether it holds red, green and blue, not luma and colours; as libjpeg guesses it."""
        if "APP0" in self.image.app:
            return False
        transform = self.image.info.get("adobe_transform")
        names = bytes(name for name, *_ in self.image.layer)
        return names == b"RGB" if transform is None else transform == 0

    def _has_standard_codes(self) -> bool:
        """Whether its Huffman codes were not made for it; a thumbnail's do not count."""
        codes = _standard_codes()
        of_thumbnails = sum(segment.content.count(codes) for segment in self.segments)
        return self._data.count(codes, 0, self.end) > of_thumbnails


# Small pictures of one program begin alike: all but some are read by a look at the first bytes.
_known_head = lru_cache(maxsize=64)(_Head)


class JpegOriginal(Original):
    """The segments of a JPEG file up to its pixels, and what is behind."""

    def __init__(self, data: bytes) -> None:
        expect_signature(data, SIGNATURE, "JPEG")
        end = scan_begin(data)
        is_short = end is not None and end <= _LONGEST_KNOWN
        self._head = _known_head(data[:end]) if is_short else _Head(data)
        self._data = data

    @property
    def orientation(self) -> int:
        """The orientation that its EXIF data tell."""
        return embedded.orientation_of(self._head.image.info.get("exif", b"")[len(_EXIF) :])

    def coding(self, channels: int) -> dict[str, Any]:
        """Returns what Pillow is told, to code a picture of 1 or 3 channels as this one."""
        return self._head.coding(channels)

    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns a JPEG file just encoded, with the metadata of the one before."""
        height, width = array.shape[:2]
        channels = array.shape[2] if array.ndim == 3 else 1
        image, segments = self._head.image, self._head.segments
        profile = image.info.get("icc_profile") or b""
        fits = embedded.profile_fits(profile, channels, image.layers)
        kept = [s for s in segments if _is_kept(s) and (fits or not s.has("APP2", _PROFILE))]
        if upright or image.size != (width, height):
            kept = [_fitted(segment, width, height, upright) for segment in kept]
        # Of the new one's head, only how it was coded.
        begin = 4 + int.from_bytes(data[4:6], "big") if data[6:10] == b"JFIF" else 2
        return data[:2] + b"".join(map(_packed, kept)) + data[begin:] + self._trailer()

    def _trailer(self) -> bytes:
        """Returns what is behind the end of the picture: the scans are walked to find it.

        There is nothing to find where the only end marker is at the end of the file.
        Other pictures do not count: what leads to them is not kept.
        """
        data, at = self._data, self._head.end
        if data.find(_END, at) in (-1, len(data) - len(_END)):
            return b""
        if any(segment.has("APP2", _SEVERAL) for segment in self._head.segments):
            return b""
        while (found := _NEXT_MARKER.search(data, at)) is not None:
            marker, at = found[1][0], found.end()
            if marker == _EOI:
                return data[at:]
            if marker not in _ALONE:
                at += int.from_bytes(data[at : at + 2], "big")
        return b""


@cache
def _standard_codes() -> bytes:
    """The longest of the codes in annex K, which encoders take that do not make their own."""
    from PIL import Image

    stream = BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    data = stream.getvalue()
    size = 2 + 1 + 16 + 162  # of a segment with the codes of alternating parts of luma
    begin = data.index(b"\xff\xc4" + size.to_bytes(2, "big")) + 4
    return data[begin : begin + size - 2]


def _is_kept(segment: Segment) -> bool:
    """Whether a segment neither tells how pixels are coded nor where other pictures are."""
    return not (segment.has("APP14", b"Adobe") or segment.has("APP2", _SEVERAL))


def _fitted(segment: Segment, width: int, height: int, upright: bool) -> Segment:
    marker, content = segment
    if segment.has("APP1", _EXIF):
        exif = embedded.fitted_exif(content[len(_EXIF) :], width, height, upright=upright)
        return Segment(marker, _EXIF + exif)
    if upright and segment.has("APP1", _XMP):
        return Segment(marker, embedded.upright_xmp(content))
    return segment


def _packed(segment: Segment) -> bytes:
    head = bytes((0xFF, _MARKERS[segment.marker]))
    return head + (len(segment.content) + 2).to_bytes(2, "big") + segment.content
