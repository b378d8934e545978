"""What a rewritten TIFF keeps of the one before: its tags, page by page, and its compression.

tifffile leaves out the directories of EXIF and GPS and texts that are not ASCII, so that tags are
put into the new file here, as they are in the old one. Format: see `ifd`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import embedded, ifd
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.ifd import Structure, Tag
from prefect_pipestream.items.orientation import UPRIGHT, orientation_in

_COMPRESSION, _PREDICTOR, _SAMPLES = 259, 317, 277
_DESCRIPTION, _XMP, _PROFILE = 270, 700, 34675
_LOSSLESS = frozenset((1, 5, 8, 32773, 32946, 34925, 34926, 50000))
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


class Tiff:
    """Reads the tags of a TIFF file.

    Args:
        data: The content of the file.

    Attributes:
        pages: The tags of each page.

    Raises:
        DecodeError: If it is no TIFF, or is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self.structure = Structure(data)
        self.pages = [page.tags for page in self.structure.directories()]
        if not self.pages:
            raise DecodeError("the TIFF has no pages.")

    def value_of(self, code: int) -> int | None:
        """Returns the whole number that a tag of the first page holds; None if it holds none."""
        tags = (tag for tag in self.pages[0] if tag.code == code)
        return next(map(self.structure.value_of, tags), None)

    def arguments(self, array: Array, told: str | int | None) -> dict[str, Any]:
        """Returns what tifffile is told, so that the file is packed as before.

        Args:
            array: The new picture.
            told: The compression; "keep" is the old file's.
        """
        own = {"byteorder": self.structure.order, "bigtiff": self.structure.is_big}
        compression = self.value_of(_COMPRESSION) or 1
        if told != "keep":
            return {**own, "compression": told}
        if not _can_write(compression):
            return {**own, "compression": "zlib"}
        return {**own, "compression": compression, "predictor": self._predictor(array, compression)}

    def _predictor(self, array: Array, compression: int) -> int | None:
        predictor, kind = self.value_of(_PREDICTOR), array.dtype.kind
        fits = (predictor == _HORIZONTAL and kind in "iu" and array.dtype.itemsize <= 4) or (
            predictor == _OF_FLOATS and kind == "f" and _has_predictor(_OF_FLOATS)
        )
        return predictor if fits and compression != 1 else None


def _can_write(compression: int) -> bool:
    import tifffile

    try:
        return compression in _LOSSLESS and bool(tifffile.TIFF.COMPRESSORS[compression])
    except (KeyError, ImportError):  # without the package imagecodecs
        return False


def _has_predictor(predictor: int) -> bool:
    import tifffile

    try:
        return bool(tifffile.TIFF.PREDICTORS[predictor])
    except (KeyError, ImportError):
        return False


def with_tags(data: bytes, old: Tiff, array: Array, *, upright: bool) -> bytes:
    """Returns a TIFF file just encoded, with the tags of the one before.

    Args:
        data: The new file, in the byte order of the old one.
        old: The tags of the one before.
        array: The new picture.
        upright: Whether the picture was turned upright.
    """
    new = Tiff(data)
    is_kept = _filter(old, new, array)
    writer = _Writer(data, new.structure, old.structure)
    # Without tifffile's note of the shape, only one picture is read back as it was.
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    needs_shape = not is_picture or any(map(_tells_shape, old.pages[0]))
    link = new.structure.first_at
    for directory, before in zip(list(new.structure.directories()), old.pages, strict=False):
        kept = [_upright(tag, old.structure) if upright else tag for tag in before if is_kept(tag)]
        codes = {tag.code for tag in kept}
        own = [
            tag
            for tag in directory.tags
            if tag.code not in codes | _OF_TIFFFILE or (tag.code == _DESCRIPTION and needs_shape)
        ]
        link = writer.add(link, kept, own, directory.next_at)
    return bytes(writer.data)


def _filter(old: Tiff, new: Tiff, array: Array) -> Callable[[Tag], bool]:
    samples, before = (tiff.value_of(_SAMPLES) or 1 for tiff in (new, old))

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
    from io import BytesIO

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


def orientation_of(data: bytes) -> int:
    """Returns the orientation of a TIFF file's first page, 1 to 8.

    Raises:
        DecodeError: If it is no TIFF, or is damaged.
    """
    return orientation_in(Tiff(data).value_of(ifd.ORIENTATION))
