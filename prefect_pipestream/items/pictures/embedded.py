"""What pictures of several formats embed: EXIF data, XMP packets and colour profiles."""

import re
from collections.abc import Iterator
from contextlib import suppress

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.items.pictures import ifd
from prefect_pipestream.items.pictures.ifd import Directory, Structure, Tag
from prefect_pipestream.items.pictures.orientation import UPRIGHT, orientation_in

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


def fitted_exif(exif: bytes, width: int, height: int, *, upright: bool) -> bytes:
    """Returns EXIF data for a picture of another size, or one that was turned upright.

    Numbers are put in place of those that tell size and orientation, if there are any; data that
    cannot be read stay as they are. The thumbnail is dropped if the picture was turned: it was not.
    """
    values = {_PIXEL_X: width, _PIXEL_Y: height} | ({ifd.ORIENTATION: UPRIGHT} if upright else {})
    changed = bytearray(exif)
    try:
        structure = Structure(exif)
        first = next(structure.directories(), ifd.Directory([], len(exif)))
    except DecodeError:
        return exif
    for tag in _tags(structure, first):
        if tag.code in values and structure.value_of(tag) is not None:
            changed[tag.at : tag.at + len(tag.content)] = structure.packed(tag, values[tag.code])
    end = first.next_at + structure.offset.size
    if upright and end <= len(changed):
        changed[first.next_at : end] = bytes(structure.offset.size)
    return bytes(changed)


def _tags(structure: Structure, first: Directory) -> Iterator[Tag]:
    """Yields the tags of the first directory, and of the one below it that EXIF has for itself."""
    yield from first.tags
    for tag in first.tags:
        if tag.code == ifd.EXIF_IFD and (start := structure.value_of(tag)) is not None:
            with suppress(DecodeError):  # it tells nothing, then
                yield from structure.directory(start).tags


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
