"""What the exporters of objects have in common: the classes, the splits, the sizes of images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import is_folder_name
from prefect_pipestream.items import Item, MetadataItem
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
    """The width and height that are known of an image, else those of its file.

    Raises:
        DecodeError: If the file has to be asked, and cannot be decoded.
    """
    known = [facts.get(name) for name in ("width", "height")]
    if all(isinstance(one, int) for one in known):
        return known[0], known[1]  # type: ignore[return-value] # both are
    height, width = _shape_of(image)[:2]
    return width, height


def depth_of(image: Item[Any]) -> int:
    """The number of channels of an image.

    Raises:
        DecodeError: If it cannot be decoded.
    """
    shape = _shape_of(image)
    return shape[2] if len(shape) == 3 else 1


def _shape_of(image: Item[Any]) -> Sequence[int]:
    """The shape of an image: by the head of its file, where Pillow knows it, else by its pixels."""
    from PIL import Image, UnidentifiedImageError

    for source in image.file_sources[:1]:
        try:
            with Image.open(os.fspath(source.path)) as picture:
                bands = 3 if picture.mode == "P" else len(picture.getbands())
                return (picture.height, picture.width, bands)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
            break  # decoding says what is wrong with it
    shape: Sequence[int] = np.shape(image())
    return shape
