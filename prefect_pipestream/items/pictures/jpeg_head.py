"""What the head of a JPEG says, as far as a reader needs it that looks at nothing else.

Format: ITU-T T.81, annex B.
"""

_END = b"\xff\xd9"
_SEQUENTIAL = (0xC0, 0xC1)  # frames that are coded by Huffman codes, from top to bottom
_SCAN = 0xDA
_TABLES = (0xC4, 0xDB, 0xDD)
_COMMENT, _PHOTOSHOP = 0xFE, 0xED
_APPLICATION = range(0xE0, 0xF0)
_COMMON = frozenset({0xC2, *_TABLES, *_APPLICATION, _COMMENT})  # with a frame that is progressive
# Pillow looks into some of them (APP2: colour profiles), and refuses what is too short for it.
_APP2, _LEAST_OF_APP2, _LEAST = 0xE2, 16, 9
# How often each component is sampled, across and down, in the order of the components.
_SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")


def scan_begin(data: bytes) -> int | None:
    """Returns where the coded picture begins in a JPEG: right behind the head of its first scan.

    None: what is before it is not segment by segment, each of a common kind.

    Args:
        data: The content of the file, which begins as a JPEG.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        at += 2 + length
        if length < 2 or not (marker in _SEQUENTIAL or marker in _COMMON or marker == _SCAN):
            return None
        if marker == _SCAN:
            return at
    return None


def plain_shape(data: bytes) -> tuple[int, int, int] | None:
    """Returns the shape of a JPEG that every reader takes alike; None of any other one.

    Such a one has 8 bits a channel, gray or three colours sampled 4:4:4, 4:2:2 or 4:2:0, in one
    scan, which is not progressive. Its head has nothing that Pillow could refuse, and behind it an
    end is marked: libjpeg would make up what is missing of a file that was cut off.

    Args:
        data: The content of the file, which begins as a JPEG.

    Returns:
        Height, width and channels.
    """
    at, frame = 2, b""
    while at + 4 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        begin, at = at + 4, at + 2 + length
        if marker == _SCAN:
            is_whole = frame and data[begin] == frame[5] and data.rfind(_END, at) >= 0
            return _shape(frame) if is_whole else None
        if marker in _SEQUENTIAL and not frame:
            frame = data[begin:at]
            if not _is_plain(frame):
                return None
        elif not _is_passed_over(marker, length):
            return None
    return None


def _is_plain(frame: bytes) -> bool:
    """Whether a frame's parameters are those of a plain JPEG; see `plain_shape`."""
    samplings = frame[7::3]
    return (
        len(frame) == 6 + 3 * len(samplings)
        and (frame[0], frame[5]) == (8, len(samplings))
        and samplings in _SAMPLINGS
    )


def _shape(frame: bytes) -> tuple[int, int, int] | None:
    height, width = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    return (height, width, frame[5]) if width and height else None


def _is_passed_over(marker: int, length: int) -> bool:
    """Whether a segment has nothing that one reader could take otherwise than another."""
    if marker in _APPLICATION:
        least = _LEAST_OF_APP2 if marker == _APP2 else _LEAST
        return length >= least and marker != _PHOTOSHOP
    return marker == _COMMENT or marker in _TABLES
