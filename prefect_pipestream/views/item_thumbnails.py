"""A small picture of any item that can be seen: an image, a mask, an array."""

import colorsys
import io
import os
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import FileSource, ImageItem, Item, Model3DItem, NumpyItem
from prefect_pipestream.items.pictures.base import is_stack
from prefect_pipestream.storage.address import Address, place_of
from prefect_pipestream.storage.asking import NO_RIGHT
from prefect_pipestream.storage.bounded_files import BoundedFiles
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.format.caches import place_for_caches
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.views.mesh_pictures import mesh_picture
from prefect_pipestream.views.thumbnails import (
    SIDE,
    AnyImage,
    brightest,
    quickly_encoded,
    scaled,
    to_uint8,
)

LARGEST_SIDE = 1024
"""The longest side that a thumbnail may have, in pixels."""
MOST_BYTES = 256 << 20
"""How much the thumbnails of a dataset take on the disk, unless told otherwise."""
FOLDER = "thumbnails"
"""Their folder below ``.pipestream``."""

_LARGEST_FILE = 256 << 20  # bytes: a larger one is not worth the time for a thumbnail
_MOST_LABELS = 32
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_FORM = 2  # of what is kept: another one when pictures are to look otherwise


class Thumbnail(NamedTuple):
    """A small picture of an item, as a browser takes it.

    Attributes:
        media_type: ``image/png`` or ``image/jpeg``.
        content: The file.
    """

    media_type: str
    content: bytes


def thumbnail(item: Item[Any], side: int = SIDE) -> Thumbnail | None:
    """A small picture of an item, made anew.

    An image is shown as it is, of a stack the middle one; a mask of fewer than 32 labels with a
    colour for each; a mesh from one side; another array as an image from its least to its greatest
    value, or as a line where it has one dimension.

    Args:
        item: The item.
        side: The longer side of the picture, in pixels: 1 to 1,024.

    Returns:
        The picture; None of what has none: metadata, a single number, points, other files, and
        those of more than 256 MiB.

    Raises:
        DecodeError: If the item cannot be decoded.
        ValueError: If `side` is out of range.
    """
    _check_side(side)
    return _picture_of(item, side) if may_have_picture(item) else None


def whole_picture(item: Item[Any]) -> Thumbnail | None:
    """The picture of an item as `thumbnail` shows it, with each pixel that it has.

    Returns:
        The picture; None of what has none, or is not of two dimensions (and colours).

    Raises:
        DecodeError: If the item cannot be decoded.
    """
    return _picture_of(item, None) if may_have_picture(item) else None


class Thumbnails:
    """The thumbnails of a dataset's items, kept below its ``.pipestream``.

    Each is kept for the version of the file that it was made from: what changed is shown anew. Of a
    dataset that cannot be written, or is in a bucket, they are kept in a cache folder
    (``PIPESTREAM_CACHE``, else below ``~/.cache``). They may be deleted at any time, and used by
    threads and processes at once.

    Args:
        folder: Where the dataset is.
        most_bytes: How much they may take on the disk; then the oldest ones go.

    Raises:
        DatasetError: If the folder could not be asked for.
    """

    def __init__(self, folder: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> None:
        given = place_of(folder)
        dataset = given if isinstance(given, Address) else Layout.of(given)
        self._dataset = dataset if isinstance(dataset, Address) else dataset.root
        with DatasetError.explaining_questions():
            place = place_for_caches(dataset)
        private = os.path.basename(place.private)
        self._kept = BoundedFiles(place.root, private, FOLDER, most_bytes=most_bytes)
        self._is_said = False

    def of(self, item: Item[Any], side: int = SIDE, *, is_fresh: bool = False) -> Thumbnail | None:
        """The thumbnail of an item, as `thumbnail` makes it; one that is kept is not made again.

        It shows the item's file as it is now, where it has one.

        Args:
            item: The item.
            side: The longer side of the picture, in pixels: 1 to 1,024.
            is_fresh: Whether its sample was read just now: then its file is as it was then.

        Raises:
            DecodeError: If the item cannot be decoded.
            DatasetError: If its file cannot be looked at.
            ValueError: If `side` is out of range.
        """
        _check_side(side)
        if not may_have_picture(item):
            return None
        if item.has_value or not item.file_sources:
            return _picture_of(item, side)
        source = item.file_sources[0] if is_fresh else item.file_sources[0].anew()
        version = _version_now(source)
        kept = None if version is None else self._kept.get(_key(source, version, side))
        found = None if kept is None else _sound(kept, side)
        if found is None:
            fresh = item if is_fresh else Item.from_source(source.anew())
            found = _picture_of(fresh, side)
            self._keep(fresh.file_sources[0], found, side)
        return found

    def _keep(self, source: FileSource, found: Thumbnail | None, side: int) -> None:
        """Keeps a picture for what its file was like as it was decoded."""
        version = _lasting_version(source)
        if found is None or version is None:
            return
        try:
            self._kept.put(_key(source, version, side), found.content)
        except FileNotFoundError:
            return  # another process deletes them, or makes room
        except (OSError, DatasetError) as error:
            if self._is_said or (isinstance(error, OSError) and error.errno in NO_RIGHT):
                return
            self._is_said = True
            warnings.warn(
                f"{self._dataset}: thumbnails cannot be kept ({error}). They are made again "
                "each time.",
                stacklevel=3,
            )


def _check_side(side: int) -> None:
    if not 1 <= side <= LARGEST_SIDE:
        raise ValueError(f"side {side!r}: expected 1 to {LARGEST_SIDE} pixels.")


def may_have_picture(item: Item[Any]) -> bool:
    """Whether a picture of an item is worth its decoding."""
    return isinstance(item, ImageItem | NumpyItem | Model3DItem)


def _version_now(source: FileSource) -> Version | None:
    """What a file is like; None where there is none, which its decoding says better."""
    with DatasetError.explaining_questions():
        try:
            source.look()
        except FileNotFoundError:
            return None
    return source.known_as or source.version


def _lasting_version(source: FileSource) -> Version | None:
    """What a file was like as it was decoded; None where it may have changed unseen."""
    if source.known_as is not None:
        return None if source.is_newer else source.known_as
    version = source.version
    return version if version is not None and version.is_beyond_tick else None


def _key(source: FileSource, version: Version, side: int) -> str:
    name = os.path.basename(source.path)
    return f"{_FORM}:{side}:{version.size}:{version.mtime_ns}:{version.inode}:{name}"


def _sound(content: bytes, side: int) -> Thumbnail | None:
    """What was kept, if it is a picture of that size: the file may be anybody's."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) != side:
                return None
            return Thumbnail("image/png" if picture.format == "PNG" else "image/jpeg", content)
    except (OSError, ValueError, SyntaxError, *_TOO_LARGE):
        return None


# -- making one ----------------------------------------------------------------------------


def _picture_of(item: Item[Any], side: int | None) -> Thumbnail | None:
    if not item.has_value and any(_size(source) > _LARGEST_FILE for source in item.file_sources):
        return None
    value = item()
    if isinstance(item, Model3DItem):
        drawn = mesh_picture(value, LARGEST_SIDE if side is None else side)
        return None if drawn is None else as_file(drawn, is_exact=True)
    array = shown_array(value)
    if array is None:
        return None
    if array.ndim == 1:
        return as_file(_line(array, LARGEST_SIDE if side is None else side), is_exact=True)
    if array.ndim not in (2, 3):
        return None
    pixels = _pixels(array, is_image=isinstance(item, ImageItem))
    if side is None:
        return as_file(Image.fromarray(pixels), is_exact=True)
    is_exact = array.ndim == 2 or 2 * max(pixels.shape[:2]) <= side
    return as_file(scaled(pixels, side), is_exact=is_exact)


def shown_array(value: Any) -> AnyImage | None:
    """What is shown of a value: of a stack the middle one; None of what has no picture."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "buifc" or value.size < 2:
        return None
    array = np.abs(value) if value.dtype.kind == "c" else value
    while is_stack(array):
        array = array[len(array) // 2]
    return array


def _size(source: FileSource) -> int:
    try:
        return source.size()
    except OSError:  # its decoding says what is wrong
        return 0


def as_file(picture: Image.Image, *, is_exact: bool) -> Thumbnail:
    """A picture as a browser takes it; see `quickly_encoded`."""
    kind, content = quickly_encoded(picture, is_exact=is_exact)
    return Thumbnail(f"image/{kind}", content)


def _pixels(array: AnyImage, *, is_image: bool) -> npt.NDArray[np.uint8]:
    if is_of_labels(array):
        return label_colours()[array.astype(np.intp)]
    if is_image or array.dtype == np.bool_:
        return to_uint8(array, brightest(array))
    low, high = _range(array)
    return to_uint8(np.nan_to_num(array.astype(np.float64), nan=low) - low, high - low or 1.0)


def _range(array: AnyImage) -> tuple[float, float]:
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def is_of_labels(array: AnyImage) -> bool:
    """Whether an array is a mask of few labels, which would all be next to black."""
    if array.ndim != 2 or array.dtype.kind not in "ui":
        return False
    return bool(array.min() >= 0 and array.max() < _MOST_LABELS)


@cache
def label_colours() -> npt.NDArray[np.uint8]:
    """A colour for each label, far from that of the next one; 0 is black."""
    colours = [(0.0, 0.0, 0.0)]
    for number in range(1, _MOST_LABELS):
        hue, saturation = number * 0.618 % 1, 0.65 + 0.35 * (number % 2)
        colours.append(colorsys.hsv_to_rgb(hue, saturation, 1.0))
    return (np.array(colours) * 255).astype(np.uint8)


def _line(array: AnyImage, side: int) -> Image.Image:
    """A line through the values, from the first at the left to the last at the right."""
    height = max(1, side // 2)
    picture = Image.new("L", (side, height), 255)
    low, high = _range(array)
    step = max(1, len(array) // (4 * side))
    values = np.nan_to_num(array[::step].astype(np.float64), nan=low, posinf=high, neginf=low)
    x = np.linspace(0, side - 1, len(values))
    y = (height - 1) * (1 - (values - low) / (high - low or 1.0))
    ImageDraw.Draw(picture).line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=0)
    return picture
