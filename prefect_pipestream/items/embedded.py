"""What pictures of several formats embed: EXIF data, XMP packets and colour profiles."""

import re
from collections.abc import Callable

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items import ifd
from prefect_pipestream.items.ifd import Structure, Tag
from prefect_pipestream.items.orientation import UPRIGHT, orientation_in

_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"']))[2-8]")
_CHANNELS_OF_SPACE = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}


def orientation_of(exif: bytes) -> int:
    """Returns the orientation that EXIF data tell, 1 to 8; 1 if they tell none."""
    try:
        structure = Structure(exif)
        for tag in next(structure.directories(), ifd.Directory([], 0)).tags:
            if tag.code == ifd.ORIENTATION:
                return orientation_in(structure.value_of(tag))
    except DecodeError:  # as for viewers, what cannot be read tells nothing
        pass
    return UPRIGHT


def upright_exif(exif: bytes) -> bytes:
    """Returns EXIF data that tell orientation 1, without the thumbnail, which was not turned."""
    changed = _patched(exif, lambda tag: UPRIGHT if tag.code == ifd.ORIENTATION else None)
    try:
        structure = Structure(changed)
        first = next(structure.directories(), None)
    except DecodeError:
        return changed
    if first is None or len(changed) < first.next_at + structure.offset.size:
        return changed
    end = first.next_at + structure.offset.size
    return changed[: first.next_at] + bytes(structure.offset.size) + changed[end:]


def resized_exif(exif: bytes, width: int, height: int) -> bytes:
    """Returns EXIF data that tell another size of the picture, if they tell one at all."""
    sizes = {_PIXEL_X: width, _PIXEL_Y: height}
    return _patched(exif, lambda tag: sizes.get(tag.code))


def _patched(exif: bytes, value_of: Callable[[Tag], int | None]) -> bytes:
    """Puts numbers in place of those of tags; data that cannot be read stay as they are."""
    changed = bytearray(exif)
    try:
        structure = Structure(exif)
        first = next(structure.directories(), None)
        tags = [] if first is None else list(first.tags)
        for tag in tuple(tags):
            start = structure.value_of(tag) if tag.code == ifd.EXIF_IFD else None
            if start is not None:
                tags += structure.directory(start).tags
    except DecodeError:
        return exif
    for tag in tags:
        value = value_of(tag)
        if value is not None and structure.value_of(tag) is not None:
            changed[tag.at : tag.at + len(tag.content)] = structure.packed(tag, value)
    return bytes(changed)


def upright_xmp(xmp: bytes) -> bytes:
    """Returns an XMP packet that tells orientation 1, if it tells one at all."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def profile_fits(profile: bytes, channels: int, channels_before: int) -> bool:
    """Tells whether a colour profile holds for a picture of so many channels without alpha.

    Args:
        profile: The profile, or its first 20 bytes.
        channels: The new picture's channels.
        channels_before: Those of the picture that it was made for.
    """
    return channels == channels_before or _CHANNELS_OF_SPACE.get(profile[16:20]) == channels
