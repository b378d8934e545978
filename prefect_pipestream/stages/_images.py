"""What an image is to stages, how they find theirs in a sample, and put changed ones back.

An image is H×W (gray) or H×W×C, of bool, uint8, uint16 or a float dtype. The full range of
a dtype is 0 to its largest value, for floats 0 to 1. In an H×W×2 or H×W×4 image the last
channel is alpha, which no function changes unless it says so. A function returns the very
array that it was given if it has nothing to change. NaN stays NaN unless said otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, StringConstraints

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import FileSource, ImageItem, Item, JpegImageItem, NumpyItem
from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.sample import Sample

Image = NDArray[Any]

_INKS = 4  # the channels of a CMYK JPEG


# -- fields of stages ----------------------------------------------------------------------


Key = Annotated[str, StringConstraints(min_length=1)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


KeyList = Annotated[list[Key], BeforeValidator(_as_list)]
"""Keys of items; a single one need not be in a list."""

KEY_FORMAT = (
    "How the result's key is made of the image's: each `*` stands for that key, and text "
    "without one is put behind it. The default replaces the image."
)


def images_field() -> Any:
    """Returns the field `images`, the same in all image stages."""
    return Field(
        default_factory=list,
        description="Keys of the images. Leave it empty for every image item of the sample.",
    )


# -- arrays --------------------------------------------------------------------------------


class UnsupportedImageError(ValueError):
    """An image is not one that an operation can work on; the message says what it can."""


def full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Returns the values of black and white in an image of this dtype.

    Raises:
        UnsupportedImageError: If the dtype is none of bool, uint8, uint16 and the floats.
    """
    if dtype.kind == "f" or dtype.kind == "b":
        return 0, 1
    if dtype == np.uint8 or dtype == np.uint16:
        return 0, int(np.iinfo(dtype).max)
    raise UnsupportedImageError(
        f"values of {dtype} have no known range: expected bool, uint8, uint16 or a float; "
        "use `convert-image` with `scale: false` first."
    )


def has_alpha(image: Image) -> bool:
    """Tells whether the last channel is alpha."""
    return image.ndim == 3 and image.shape[2] in (2, 4)


def colours(image: Image) -> Image:
    """Returns a view of the image without its alpha."""
    return image[..., :-1] if has_alpha(image) else image


def with_colours(image: Image, changed: Image) -> Image:
    """Puts changed colours and the image's own alpha together."""
    if not has_alpha(image):
        return changed
    return np.concatenate([changed, image[..., -1:]], axis=2)


def require_image(image: Image) -> None:
    """Raises UnsupportedImageError unless the shape is H×W or H×W×C."""
    if image.ndim not in (2, 3):
        raise UnsupportedImageError("its shape is none of H×W and H×W×C.")


def require_pixels(image: Image) -> None:
    """Raises UnsupportedImageError unless the shape is H×W or H×W×C, and none of these 0."""
    require_image(image)
    if 0 in image.shape:
        raise UnsupportedImageError("it has no pixels.")


def refuse_too_many_pixels(width: int, height: int) -> None:
    """Raises UnsupportedImageError for a size of which no file could be read again."""
    from PIL import Image as pillow

    limit = pillow.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UnsupportedImageError(
            f"{width}×{height} pixels would be over the limit of {limit}, and not be read again. "
            "If it is meant, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


# -- images in a sample --------------------------------------------------------------------


def replaced_by(sample: Sample, key: str) -> FileSource | None:
    """Returns the file that a new one of this item replaces, if the sample was read from one."""
    return None if sample.origin is None else sample.origin.source_of(key)


def select_images(sample: Sample, keys: Sequence[str]) -> list[str]:
    """Returns the keys of the images to work on: those given, else those of all image items.

    Raises:
        SampleError: If the sample has no item of a given key, or one that cannot hold an image.
    """
    if not keys:
        return [key for key, item in sample.items() if isinstance(item, ImageItem)]
    for key in keys:
        require_key(sample, key)
        # An image may also be kept in an item of plain numbers, as `.npy`.
        if not isinstance(sample[key], NumpyItem):
            raise SampleError(
                f"item {where(key, sample[key])} is a {type(sample[key]).__name__}, not an image: "
                "leave the key out."
            )
    return list(keys)


def require_key(sample: Sample, key: str) -> None:
    """Raises SampleError unless the sample has an item of the key."""
    if key not in sample:
        raise SampleError(
            f"the sample has no item {key!r}; it has {', '.join(map(repr, sample)) or 'no items'}."
        )


def where(key: str, item: Item[Any], image: Image | None = None) -> str:
    """Names an item in a message: its key, file, and its image's shape and dtype."""
    details = [source.path for source in item.file_sources[:1]]
    if image is not None:
        details.append("×".join(map(str, image.shape)) + f" {image.dtype}")
    return f"{key!r} ({', '.join(details)})" if details else repr(key)


def read_image(sample: Sample, key: str) -> Image:
    """Returns the array of an item, in the machine's byte order.

    Raises:
        DecodeError: If its file cannot be decoded.
        SampleError: If the item has no value, or is a JPEG of four inks.
    """
    image = sample[key]()
    if not isinstance(image, np.ndarray):
        raise SampleError(f"item {where(key, sample[key])} holds no image.")
    if isinstance(sample[key], JpegImageItem) and image.ndim == 3 and image.shape[2] == _INKS:
        # Its fourth channel would pass for alpha.
        raise SampleError(
            f"item {where(key, sample[key])} is a CMYK JPEG: convert the file to RGB first."
        )
    return np.asarray(image, dtype=image.dtype.newbyteorder("="))


def each_image(sample: Sample, keys: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Yields the key and the array of each image; see `select_images` and `read_image`."""
    for key in select_images(sample, keys):
        yield key, read_image(sample, key)


def evaluate(
    sample: Sample, key: str, image: Image, function: Callable[[Image], Any], doing: str
) -> Any:
    """Returns what a function makes of an image.

    Raises:
        SampleError: If the function cannot work on the image; the message names the key, the file,
            the shape and the dtype.
    """
    try:
        return function(image)
    except UnsupportedImageError as error:
        raise SampleError(
            f"cannot {doing} image {where(key, sample[key], image)}: {error}"
        ) from error


def change_images(
    sample: Sample,
    keys: Sequence[str],
    change: Callable[[Image], Image],
    doing: str,
    key_format: str = "*",
) -> Sample:
    """Returns the sample with the images changed, each in an item of the same class.

    Args:
        sample: The sample.
        keys: The images; none: every image item.
        change: Makes the new image. Where it returns the very array that it got, the item is
            carried over, so that its file is linked rather than encoded anew.
        doing: What is done, for messages: "cannot `doing` image …".
        key_format: Makes the key of the result, see `KEY_FORMAT`.

    Raises:
        SampleError: If a key is missing, or `change` cannot work on an image.
        DecodeError: If an image cannot be decoded.
    """
    items: dict[str, Item[Any]] = {}
    for key, image in each_image(sample, keys):
        changed = evaluate(sample, key, image, change, doing)
        item = sample[key]
        if changed is not image:
            item = item.make_new(changed, shared=item.is_shared)
        items[format_key(key_format, key)] = item
    return sample.merge(items)
