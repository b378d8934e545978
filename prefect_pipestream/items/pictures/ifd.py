"""The structure of TIFF files and of EXIF data, which is one: directories of tags.

Format: TIFF 6.0, section 2; BigTIFF has wider fields; EXIF 3.0 (CIPA DC-008), section 4.5.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from prefect_pipestream.errors import DecodeError

EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD = 34665, 34853, 40965
POINTERS = (EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD)
ORIENTATION = 274

SHORT, LONG, LONG8 = 3, 4, 16
# Bytes of a value, by type; those that are not here have one.
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAGIC = {b"II*\x00": "<", b"MM\x00*": ">", b"II+\x00": "<", b"MM\x00+": ">"}


class Tag(NamedTuple):
    """One entry of a directory.

    Attributes:
        code: What it tells.
        kind: The type of its values, as numbered by TIFF.
        number: How many values there are.
        content: The values, as they are in the file.
        at: Where the values are in the file.
        entry: The whole entry, as it is in the file.
    """

    code: int
    kind: int
    number: int
    content: bytes
    at: int
    entry: bytes


class Directory(NamedTuple):
    """One directory of tags; of a TIFF, a page.

    Attributes:
        tags: Its tags, in their order.
        next_at: Where the offset of the next directory is.
    """

    tags: list[Tag]
    next_at: int


class Structure:
    """Reads the directories of a TIFF file, or of EXIF data.

    Args:
        data: The content of the file.

    Attributes:
        order: The byte order, as `struct` writes it.
        is_big: Whether it is a BigTIFF.
        offset: The form of an offset.
        count: The form of the number of tags, with which a directory begins.
        entry: The form of a tag's entry.
        first_at: Where the offset of the first directory is.

    Raises:
        DecodeError: If it does not begin as a TIFF.
    """

    def __init__(self, data: bytes) -> None:
        if data[:4] not in _MAGIC:
            raise DecodeError("it does not begin as a TIFF.")
        self.data = data
        self.order = _MAGIC[data[:4]]
        self.is_big = 43 in data[2:4]
        self.offset = struct.Struct(self.order + ("Q" if self.is_big else "I"))
        self.count = struct.Struct(self.order + ("Q" if self.is_big else "H"))
        self.entry = struct.Struct(self.order + ("HHQ8s" if self.is_big else "HHI4s"))
        self.first_at = 8 if self.is_big else 4

    def chain(self) -> Iterator[int]:
        """Yields where the directories begin that are chained: a TIFF's pages.

        Of their tags nothing is asked.

        Raises:
            DecodeError: If the chain leads out of the file, or in a circle.
        """
        seen: set[int] = set()
        at = self.first_at
        while start := self._unpack(self.offset, at)[0]:
            if start in seen:
                raise DecodeError(
                    f"it is damaged: after page {len(seen)} its list of pages goes on with an "
                    "earlier one. Restore the file or remove it."
                )
            seen.add(start)
            yield start
            at = start + self.count.size + self._unpack(self.count, start)[0] * self.entry.size

    def directories(self) -> Iterator[Directory]:
        """Yields the directories that are chained; of EXIF data the second is a thumbnail's.

        Raises:
            DecodeError: If one leads out of the file, or in a circle.
        """
        return map(self.directory, self.chain())

    def directory(self, start: int) -> Directory:
        """Reads the directory at an offset.

        Raises:
            DecodeError: If it leads out of the file.
        """
        number = self._unpack(self.count, start)[0]
        at = start + self.count.size
        if number * self.entry.size > len(self.data):
            raise DecodeError(f"its directory at {start} leads out of the file.")
        tags = [self._tag(at + i * self.entry.size) for i in range(number)]
        return Directory(tags, at + number * self.entry.size)

    def _tag(self, at: int) -> Tag:
        code, kind, count, value = self._unpack(self.entry, at)
        size = _SIZES.get(kind, 1) * count
        begin = at + self.entry.size - self.offset.size
        if size > self.offset.size:
            begin = self.offset.unpack(value)[0]
            if begin + size > len(self.data):
                raise DecodeError(f"its tag {code} leads out of the file.")
        content = self.data[begin : begin + size]
        return Tag(code, kind, count, content, begin, self.data[at : at + self.entry.size])

    def value_of(self, tag: Tag) -> int | None:
        """Returns the value of a tag that holds one whole number, else None."""
        code = _NUMBERS.get(tag.kind)
        if code is None or tag.number != 1:
            return None
        value: int = struct.unpack(self.order + code, tag.content)[0]
        return value

    def packed(self, tag: Tag, value: int) -> bytes:
        """Returns a whole number as the content of a tag that holds one."""
        return struct.pack(self.order + _NUMBERS[tag.kind], value)

    def _unpack(self, form: struct.Struct, at: int) -> tuple[Any, ...]:
        try:
            return form.unpack_from(self.data, at)
        except struct.error:
            raise DecodeError(
                f"it is truncated: byte {at} is not there. Restore the file or remove it."
            ) from None
