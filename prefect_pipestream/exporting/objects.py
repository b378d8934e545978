"""What the exporters of objects have in common: the classes, the splits, the sizes of images."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import is_folder_name
from prefect_pipestream.items import Item, MetadataItem
from prefect_pipestream.items.pictures.size import size_of_picture
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.objects import check_box


def objects_of(idx: int, sample: Sample, key: str, classes: Classes) -> list[dict[str, Any]] | None:
    """The objects of a sample, each with the `label` that it has; None if it has no such item.

    Raises:
        SampleError: If they are no objects, or one has no class that is known, or no proper box.
        DecodeError: If the item cannot be decoded.
    """
    item = sample.get(key)
    if item is None:
        return None
    value = item() if isinstance(item, MetadataItem) else None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise SampleError(
            f"sample {idx}: {key!r} is no list of objects, which are mappings. Name another "
            "`annotations_key`, or correct the item."
        )
    found = []
    for number, entry in enumerate(value):
        try:
            if "bbox" in entry:
                check_box(entry["bbox"])
            label = classes.label_of(entry)
        except (ValueError, TypeError) as error:
            raise SampleError(
                f"sample {idx}: object {number} of {key!r}: {error}. Correct it."
            ) from error
        found.append(entry if label is None else {**entry, "label": label})
    return found


def split_of(idx: int, facts: Mapping[str, Any]) -> str | None:
    """The split of a sample, which is part of file names.

    Raises:
        SampleError: If it cannot be.
    """
    split = facts.get("split")
    if split is None:
        return None
    if not isinstance(split, str) or not is_folder_name(split):
        raise SampleError(
            f"sample {idx}: `split` {split!r} is to be part of a file's name. Give it a text "
            "without slashes as `metadata.split`."
        )
    return split


def file_in_split(file: str, split: str | None) -> str:
    """The path of an image without the folder of its split."""
    return file if split is None else file.removeprefix(f"{split}/") or file


def size_of(image: Item[Any], facts: Mapping[str, Any]) -> tuple[int, int]:
    """The width and height that are known of an image, else those with which it is seen.

    Raises:
        DecodeError: If the file has to be asked, and cannot be decoded.
    """
    return _size_in(facts) or size_of_picture(image)


def refuse_drawn_as_stored(idx: int, image: Item[Any], facts: Mapping[str, Any]) -> None:
    """Raises `SampleError` if objects were drawn on a picture that lies on its other side.

    So it is where a file of COCO has the size of the pixels as they are stored, turned by EXIF.
    """
    known = _size_in(facts)
    if known is None or known[0] == known[1]:
        return
    seen = size_of_picture(image)
    if known[::-1] == seen:
        raise SampleError(
            f"sample {idx}: its objects were drawn on a picture of {known[0]}×{known[1]}, by its "
            f"metadata, and the image is seen as {seen[0]}×{seen[1]}, to which this layout refers. "
            "Turn the objects, or correct `width` and `height`."
        )


def _size_in(facts: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = facts.get("width"), facts.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def depth_of(image: Item[Any]) -> int:
    """The number of channels of an image: by the head of its file, where Pillow knows it.

    Raises:
        DecodeError: If it has to be decoded, and cannot be.
    """
    from PIL import Image, UnidentifiedImageError

    for source in image.file_sources[:1]:
        try:
            with Image.open(
                source.path if source.is_whole else BytesIO(source.content())
            ) as picture:
                return 3 if picture.mode == "P" else len(picture.getbands())
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
            break  # decoding says what is wrong with it
    shape = np.shape(image())
    return shape[2] if len(shape) == 3 else 1
