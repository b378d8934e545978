"""The boxes that files of AVIF, HEIF, JPEG 2000 and JPEG XL consist of.

Format: ISO/IEC 14496-12, section 4.2; ISO/IEC 15444-1, annex I.4.
"""

from collections.abc import Iterator

from prefect_pipestream.errors import DecodeError


def boxes(data: bytes, begin: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each box, and where its content begins and ends."""
    end = len(data) if end is None else end
    while begin + 8 <= end:
        size, kind, head = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 :][:4], 8
        if size == 1:
            size, head = int.from_bytes(data[begin + 8 : begin + 16], "big"), 16
        stop = end if size == 0 else begin + size
        if stop < begin + head or stop > end:
            raise DecodeError(
                f"the file is truncated inside its {kind.decode('latin-1')!r} box. "
                "Restore the file or remove it."
            )
        yield kind, begin + head, stop
        begin = stop
