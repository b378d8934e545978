"""What a rewritten TIFF keeps of the one before: its tags, page by page, and its compression.

tifffile leaves out the directories of EXIF and GPS and texts that are not ASCII, so that tags are
put into the new file here, as they are in the old one. Format: see `ifd`.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import embedded, ifd
from prefect_pipestream.items.pictures.base import Original
from prefect_pipestream.items.pictures.ifd import Structure, Tag
from prefect_pipestream.items.pictures.orientation import UPRIGHT, orientation_in

_COMPRESSION, _PREDICTOR, _SAMPLES = 259, 317, 277
_DESCRIPTION, _XMP, _PROFILE = 270, 700, 34675
_PLAIN = 1
_LOSSLESS = frozenset((_PLAIN, 5, 8, 32773, 32946, 34925, 34926, 50000))
_HORIZONTAL, _OF_FLOATS = 2, 3

# How and where pixels are; lowest and highest values; other pictures: reduced ones, raw ones,
# layers.
_OF_PIXELS = frozenset(
    (
        *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284),
        *(301, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342),
        *(347, 400, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
        *(32997, 32998, 37724, 50674),
    )
)
_OF_IMAGEJ = frozenset((50838, 50839))
# What tifffile adds on its own, and does without.
_OF_TIFFFILE = frozenset((282, 283, 296, 305))


class _Tags:
    """The tags of each page of a TIFF file."""

    def __init__(self, data: bytes) -> None:
        self.structure = Structure(data)
        self.pages = list(self.structure.directories())
        if not self.pages:
            raise DecodeError("the TIFF has no pages.")

    def value_of(self, code: int) -> int | None:
        """Returns the whole number that a tag of the first page holds; None if it holds none."""
        tags = (tag for tag in self.pages[0].tags if tag.code == code)
        return next(map(self.structure.value_of, tags), None)


class TiffOriginal(Original):
    """The tags of a TIFF file, page by page, and how it is packed."""

    def __init__(self, data: bytes) -> None:
        self._tags = _Tags(data)

    @property
    def orientation(self) -> int:
        """The orientation of its first page."""
        return orientation_in(self._tags.value_of(ifd.ORIENTATION))

    def coding(self, array: Array, told: str | int | None) -> dict[str, Any]:
        """Returns what tifffile is told, so that a file is packed as this one.

        Args:
            array: The new picture.
            told: The compression; "keep" is this file's.
        """
        structure = self._tags.structure
        own = {"byteorder": structure.order, "bigtiff": structure.is_big}
        if told != "keep":
            return {**own, "compression": told}
        compression = self._tags.value_of(_COMPRESSION) or _PLAIN
        if compression not in _LOSSLESS or not _can_write("COMPRESSORS", compression):
            return {**own, "compression": "zlib"}
        predictor = self._tags.value_of(_PREDICTOR) if compression != _PLAIN else None
        if array.dtype.kind == "f":
            fits = predictor == _OF_FLOATS and _can_write("PREDICTORS", predictor)
        else:
            is_small = array.dtype.kind in "iu" and array.dtype.itemsize <= 4
            fits = predictor == _HORIZONTAL and is_small
        return {**own, "compression": compression, "predictor": predictor if fits else None}

    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns a TIFF file just encoded, in this one's byte order, with the tags of this one."""
        old, new = self._tags, _Tags(data)
        is_kept = _filter(old, new, array)
        writer = _Writer(data, new.structure, old.structure)
        # Without tifffile's note of the shape, only one picture is read back as it was.
        is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
        needs_shape = not is_picture or any(map(_tells_shape, old.pages[0].tags))
        link = new.structure.first_at
        for page, before in zip(new.pages, old.pages, strict=False):
            kept = [tag for tag in before.tags if is_kept(tag)]
            if upright:
                kept = [_upright(tag, old.structure) for tag in kept]
            codes = {tag.code for tag in kept} | _OF_TIFFFILE
            own = [
                tag
                for tag in page.tags
                if tag.code not in codes or (tag.code == _DESCRIPTION and needs_shape)
            ]
            link = writer.add(link, kept, own, page.next_at)
        return bytes(writer.data)


def _can_write(codecs: str, number: int) -> bool:
    """Whether tifffile has such a codec: some are in the package imagecodecs."""
    import tifffile

    try:
        return bool(getattr(tifffile.TIFF, codecs)[number])
    except (KeyError, ImportError):
        return False


def _filter(old: _Tags, new: _Tags, array: Array) -> Callable[[Tag], bool]:
    samples, before = (tags.value_of(_SAMPLES) or 1 for tags in (new, old))

    def is_kept(tag: Tag) -> bool:
        if tag.code in _OF_PIXELS:
            return False
        if tag.code == _PROFILE:
            return embedded.profile_fits(tag.content, samples, before)
        if tag.code in _OF_IMAGEJ or (tag.code == _DESCRIPTION and _tells_axes(tag.content)):
            return _is_alike(old.structure.data, array)
        return not _tells_shape(tag)

    return is_kept


def _tells_shape(tag: Tag) -> bool:
    return tag.code == _DESCRIPTION and tag.content.startswith(b'{"shape"')


def _tells_axes(description: bytes) -> bool:
    return description.startswith(b"ImageJ=") or b"<OME " in description


def _is_alike(data: bytes, array: Array) -> bool:
    """Tells whether an array has the shape and dtype of that in a file."""
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as tiff:
        series = tiff.series[0]
        return bool(tuple(series.shape) == array.shape and np.dtype(series.dtype) == array.dtype)


def _upright(tag: Tag, structure: Structure) -> Tag:
    if tag.code == ifd.ORIENTATION and structure.value_of(tag) is not None:
        return tag._replace(content=structure.packed(tag, UPRIGHT))
    if tag.code == _XMP:
        return tag._replace(content=embedded.upright_xmp(tag.content))
    return tag


class _Writer:
    """Puts directories behind the end of a file, in place of those that it has."""

    def __init__(self, data: bytes, new: Structure, old: Structure) -> None:
        self.data = bytearray(data)
        self._new = new
        self._old = old

    def add(self, link: int, kept: Sequence[Tag], own: Sequence[Tag], next_at: int) -> int:
        """Adds a directory.

        Args:
            link: Where the offset that leads to it is.
            kept: The tags of the old file.
            own: Those of the new one.
            next_at: Where the offset of the one that follows is, in the file as it is.

        Returns:
            Where the offset of the one that follows is now.
        """
        following = bytes(self.data[next_at : next_at + self._new.offset.size])
        entries = [(tag.code, self._moved(tag)) for tag in kept]
        start, end = self._put(entries + [(tag.code, tag.entry) for tag in own])
        self._set(link, self._new.offset.pack(start))
        self._set(end, following)
        return end

    def _put(self, entries: list[tuple[int, bytes]]) -> tuple[int, int]:
        entries.sort(key=lambda entry: entry[0])
        content = self._new.count.pack(len(entries)) + b"".join(entry for _, entry in entries)
        start = self._append(content + bytes(self._new.offset.size))
        return start, start + len(content)

    def _moved(self, tag: Tag, above: tuple[int, ...] = ()) -> bytes:
        """Returns the entry of a tag whose values, and directories below, are put anew."""
        kind, count, content = tag.kind, tag.number, tag.content
        start = self._old.value_of(tag) if tag.code in ifd.POINTERS else None
        if start is not None:
            if start in above:
                raise DecodeError("its directories lead in a circle.")
            below = self._old.directory(start).tags
            entries = [(one.code, self._moved(one, (*above, start))) for one in below]
            content = self._new.offset.pack(self._put(entries)[0])
            kind, count = ifd.LONG8 if self._new.is_big else ifd.LONG, 1
        size = self._new.offset.size
        if len(content) > size:
            content = self._new.offset.pack(self._append(content))
        return self._new.entry.pack(tag.code, kind, count, content.ljust(size, b"\x00"))

    def _append(self, content: bytes) -> int:
        self.data += bytes(len(self.data) % 2)
        start = len(self.data)
        self.data += content
        return start

    def _set(self, at: int, content: bytes) -> None:
        self.data[at : at + len(content)] = content
