"""Masks of objects that are listed as COCO has them: polygons, run lengths and boxes."""

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prefect_pipestream.errors import MissingExtraError, SampleError
from prefect_pipestream.items import ImageItem, MetadataItem, PngImageItem
from prefect_pipestream.items.pictures.codec import check_pixels
from prefect_pipestream.items.pictures.size import size_of_picture
from prefect_pipestream.sequences.categories import Categories
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.sources.import_source import ANNOTATIONS, CATEGORIES
from prefect_pipestream.sequences.sources.objects import check_box, check_polygon, said
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import Key, replaced_by, require_key, where

Mask = NDArray[Any]
Runs = dict[str, Any]
_LONGEST = 2_000_000  # pixels around a polygon; pycocotools needs some 100 bytes for each


class StageAnnotationsToMask(SampleStage, title="annotations-to-mask"):
    """Paints the objects of a sample into a mask, as an item of its own.

    It needs the extra: pip install 'prefect-pipestream[coco]'. Polygons, run lengths and boxes are
    made to pixels by pycocotools: no other library's masks are those of COCO, pixel by pixel.

    A semantic mask (H×W, uint8, or uint16 where a class has a number over 255) has the number of
    the class, which is that of the `label` if the sample has `categories`, else `category_id`. A
    mask of instances (H×W, uint16) has the place of the object in the list, from 1 on.

    Its size is that which the metadata tell, else that of the image as it is seen, upright. So it
    lies on the picture; not on the pixels of a file whose EXIF turns them: see `rotate-flip`.
    """

    annotations_key: Key = Field(ANNOTATIONS, description="Key of the objects.")
    mask_key: Key = Field("mask", description="Key of the mask, a PNG. What it held is replaced.")
    kind: Literal["semantic", "instances"] = Field(
        "semantic", description="Whether pixels have the number of a class, or of an object."
    )
    order: Literal["listed", "area"] = Field(
        "listed",
        description="Which object has a pixel that is of several: the last one in the list, or "
        "that of the smallest area.",
    )
    crowds: Literal["below", "skip"] = Field(
        "below",
        description="Whether regions of many objects (`iscrowd: 1`) are painted below all others, "
        "or not at all.",
    )
    boxes: bool = Field(
        True, description="Whether an object without a segmentation is painted as its box."
    )
    background: int = Field(
        0,
        ge=0,
        le=65535,
        description="The value of pixels of no object; it must be the number of no class.",
    )
    image_key: Key = Field(
        "image", description="Key of the image, of the same size, if the metadata has none."
    )
    metadata_key: Key = Field(
        "metadata", description="Key of the metadata, with `width` and `height` in pixels."
    )

    def model_post_init(self, context: Any) -> None:
        """Looks whether pycocotools is there."""
        if importlib.util.find_spec("pycocotools") is None:
            raise MissingExtraError(
                "the stage `annotations-to-mask` needs the package pycocotools: "
                "pip install 'prefect-pipestream[coco]'."
            )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the mask.

        Raises:
            SampleError: If the sample has no such items, its size is not known, an object is none,
                has no class that is known or no proper shape, or a class has the number of the
                background.
            DecodeError: If an item cannot be decoded, or the mask is over the limit of pixels.
        """
        require_key(sample, self.annotations_key)
        objects = sample[self.annotations_key]()
        if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
            raise SampleError(
                f"item {where(self.annotations_key, sample[self.annotations_key])} is no list of "
                "objects, which are mappings. Name another `annotations_key`."
            )
        mask = self._painted(objects, *self._values(sample, objects), self._size(sample))
        item = sample.get(self.mask_key)
        if item is not None and _are_equal(item(), mask):
            return sample
        return sample.set_item(self.mask_key, PngImageItem(mask))

    def _size(self, sample: Sample) -> tuple[int, int]:
        """Height and width: what the objects were drawn on, even if the image was resized since."""
        item = sample.get(self.metadata_key)
        facts = item() if isinstance(item, MetadataItem) else None
        facts = facts if isinstance(facts, dict) else {}
        known = [one for one in (facts.get("height"), facts.get("width")) if type(one) is int]
        if len(known) < 2 or min(known) < 1:
            image = sample.get(self.image_key)
            if not isinstance(image, ImageItem):
                raise SampleError(
                    f"the size of the mask is not known: there is no image {self.image_key!r}, and "
                    f"no `width` and `height` in {self.metadata_key!r}."
                )
            width, height = size_of_picture(image, replaced_by(sample, self.image_key))
            known = [height, width]
        check_pixels(known[1], known[0])
        return known[0], known[1]

    def _values(self, sample: Sample, objects: list[dict[str, Any]]) -> tuple[list[int], str]:
        """The value of each object, and the dtype."""
        if self.kind == "instances":
            if len(objects) > np.iinfo(np.uint16).max or self.background:
                raise SampleError(
                    f"a mask of instances holds 65,535 objects, not {len(objects):,}, around a "
                    f"background of 0, not {self.background}."
                )
            return list(range(1, len(objects) + 1)), "uint16"
        numbers = _numbers_in(sample)
        values = [self._number(place, entry, numbers) for place, entry in enumerate(objects)]
        largest = max([*values, *numbers.values(), self.background], default=0)
        if min(values, default=0) < 0 or largest > np.iinfo(np.uint16).max:
            raise SampleError("a semantic mask holds classes with numbers from 0 to 65,535.")
        return values, "uint8" if largest <= np.iinfo(np.uint8).max else "uint16"

    def _number(self, place: int, entry: Mapping[str, Any], numbers: Mapping[str, int]) -> int:
        label, number = entry.get("label"), entry.get("category_id")
        if label is not None and numbers:
            number = numbers.get(label) if isinstance(label, str) else None
        if not isinstance(number, int) or isinstance(number, bool):
            raise SampleError(
                f"object {place} of {self.annotations_key!r} has the label {label!r} and category "
                f"{entry.get('category_id')!r}, and so no number: add it to {CATEGORIES!r}."
            )
        if number == self.background:
            raise SampleError(
                f"object {place} of {self.annotations_key!r} is of class {number}, which is the "
                "value of the background. Give another `background`, such as 255."
            )
        return number

    def _painted(
        self, objects: list[dict[str, Any]], values: list[int], dtype: str, size: tuple[int, int]
    ) -> Mask:
        from pycocotools import mask as rle

        mask = np.full(size, self.background, dtype)
        shapes = []
        for place, entry in enumerate(objects):
            if entry.get("iscrowd") and self.crowds == "skip":
                continue
            try:
                runs = runs_of(entry, size, self.boxes)
            except (ValueError, TypeError) as error:
                raise SampleError(
                    f"object {place} of {self.annotations_key!r} cannot be painted: {error}. "
                    "Correct it."
                ) from error
            if runs is not None:
                area = -int(rle.area(runs)) if self.order == "area" else 0
                shapes.append((not entry.get("iscrowd"), area, place, runs))
        for *_, place, runs in sorted(shapes, key=lambda one: one[:3]):
            mask[rle.decode(runs).astype(bool)] = values[place]
        return mask


def _numbers_in(sample: Sample) -> dict[str, int]:
    """The numbers of the classes that a sample's item lists; none where there is no such item."""
    item = sample.get(CATEGORIES)
    if not isinstance(item, MetadataItem):
        return {}
    try:
        numbers = Categories.of(item()).numbers
    except ValueError as error:
        raise SampleError(f"{where(CATEGORIES, item)} has {error}. Correct that item.") from error
    return {name: number for name, number in numbers.items() if isinstance(number, int)}


def _are_equal(value: Any, mask: Mask) -> bool:
    return (
        isinstance(value, np.ndarray) and value.dtype == mask.dtype and np.array_equal(value, mask)
    )


# -- shapes --------------------------------------------------------------------------------------


def runs_of(entry: Mapping[str, Any], size: tuple[int, int], boxes: bool = True) -> Runs | None:
    """Returns the pixels of an object as compressed run lengths, for `pycocotools.mask`.

    Args:
        entry: The object: `segmentation`, a list of polygons [x0, y0, x1, y1, …], of which those
            of less than three points are left out, or run lengths; else `bbox`. What is outside of
            the image is cut off.
        size: Height and width of the image.
        boxes: Whether an object without a segmentation is painted as its box.

    Returns:
        The run lengths, of an image of that size; None if there is nothing to paint.

    Raises:
        ValueError: If that is not made of numbers, or not of this size.
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, Mapping):
        return _compressed(segmentation, size)
    if segmentation is not None and not isinstance(segmentation, list):
        raise ValueError(f"its segmentation is {said(segmentation)}, expected polygons or an RLE")
    if segmentation:
        for polygon in segmentation:
            check_polygon(polygon)
        return _from_polygons([one for one in segmentation if len(one) >= 6], size)
    if not boxes or "bbox" not in entry:
        return None
    check_box(entry["bbox"])
    x, y, width, height = entry["bbox"]
    corners = [x, y, x, y + height, x + width, y + height, x + width, y]
    return _from_polygons([corners], size)


def _from_polygons(polygons: list[list[float]], size: tuple[int, int]) -> Runs | None:
    from pycocotools import mask as rle

    if not polygons:
        return None
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        around = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
        if around > _LONGEST or np.abs(points).max() > _LONGEST:
            raise ValueError(f"its outline is over {_LONGEST:,} pixels long, or as far away")
    runs: Runs = rle.merge(rle.frPyObjects(polygons, *size))
    return runs


def _compressed(runs: Mapping[str, Any], size: tuple[int, int]) -> Runs:
    """Run lengths as pycocotools takes them: with all pixels, as it does not look by itself."""
    counts = runs.get("counts")
    if list(runs.get("size") or []) != list(size):
        raise ValueError(
            f"its RLE is of the size {said(runs.get('size'))}, the image of {list(size)} (height, "
            "width)"
        )
    if isinstance(counts, str):
        lengths = _lengths(counts)
    elif isinstance(counts, list) and all(type(one) is int for one in counts):
        lengths = counts
    else:
        raise ValueError(f"the counts of its RLE are {said(counts)}, expected numbers or a text")
    if any(one < 0 for one in lengths) or sum(lengths) != size[0] * size[1]:
        raise ValueError(f"its RLE has {sum(lengths):,} pixels, the image {size[0] * size[1]:,}")
    if isinstance(counts, str):
        return {"size": list(size), "counts": counts.encode()}
    from pycocotools import mask as rle

    compressed: Runs = rle.frPyObjects({"size": list(size), "counts": counts}, *size)
    return compressed


def _lengths(text: str) -> list[int]:
    """The run lengths in the text of a compressed RLE: see `rleFrString` in COCO's maskApi.c."""
    lengths: list[int] = []
    number = shift = 0
    for char in text:
        part = ord(char) - 48
        if not 0 <= part < 64 or shift > 60:
            raise ValueError(f"the counts of its RLE are {said(text)}, which is no compressed RLE")
        number |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError(f"the counts of its RLE are {said(text)}, which ends in the middle")
    return lengths
