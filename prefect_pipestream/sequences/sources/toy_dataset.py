"""Generated samples, for trials and tests."""

import math
import secrets
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, PrivateAttr, field_validator

from prefect_pipestream.items import (
    Item,
    NpyNumpyItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence

NonNegative = Annotated[int, Field(ge=0)]
Box = tuple[int, int, int, int]  # left, top, right, bottom, the last two included


@source_sequence
class ToyDataset(SamplesSequence, title="toy_dataset"):
    """Generates samples: noise with rectangular objects, and what is known of them."""

    length: PositiveInt
    with_images: bool = True
    with_masks: bool = True
    with_instances: bool = True
    with_objects: bool = True
    with_bboxes: bool = True
    with_kpts: bool = True
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 256
    key_format: str = "*"
    max_labels: NonNegative = 5
    objects_range: tuple[NonNegative, NonNegative] = (1, 5)
    seed: int | None = None

    _entropy: int = PrivateAttr(default=0)

    @field_validator("objects_range")
    @classmethod
    def _check(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("expected the least number, then the greatest")
        return value

    def model_post_init(self, context: Any) -> None:
        """Draws a seed where none was given: a sample stays the same at each access."""
        self._entropy = secrets.randbits(32) if self.seed is None else abs(self.seed)

    def size(self) -> int:
        """Returns the length as given."""
        return self.length

    def get_sample(self, idx: int) -> Sample:
        """Generates the sample; the same index gives the same sample."""
        rng = np.random.default_rng((self._entropy, idx))
        boxes, labels = self._objects(rng)
        known: dict[str, Any] = {"label": int(rng.integers(self.max_labels + 1)), "id": idx}
        items: dict[str, Item[Any]] = {}
        if self.with_images:
            items["image"] = PngImageItem(self._image(rng, boxes))
        if self.with_masks:
            items["mask"] = PngImageItem(self._painted(boxes, [n + 1 for n in labels]))
        if self.with_instances:
            items["instances"] = PngImageItem(self._painted(boxes, range(1, len(boxes) + 1)))
        if self.with_bboxes and self.with_objects:
            bboxes = [[*map(float, box), n] for box, n in zip(boxes, labels, strict=True)]
            items["bboxes"] = NpyNumpyItem(np.asarray(bboxes, float).reshape(-1, 5))
            known["bboxes"] = bboxes
        if self.with_kpts and self.with_objects:
            known["keypoints"] = [_corners(box, n) for box, n in zip(boxes, labels, strict=True)]
            items["keypoints"] = YamlMetadataItem(known["keypoints"])
        items["metadata"] = YamlMetadataItem(
            {format_key(self.key_format, k): v for k, v in known.items()}
        )
        items["label"] = TxtNumpyItem(known["label"])
        return Sample.of({format_key(self.key_format, k): v for k, v in items.items()})

    def _size(self) -> tuple[int, int]:
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    def _objects(self, rng: np.random.Generator) -> tuple[list[Box], list[int]]:
        if not self.with_objects:
            return [], []
        least, greatest = self.objects_range
        count = int(rng.integers(least, greatest + 1))
        width, height = self._size()
        boxes = []
        for _ in range(count):
            left, right = sorted(int(v) for v in rng.integers(width, size=2))
            top, bottom = sorted(int(v) for v in rng.integers(height, size=2))
            boxes.append((left, top, right, bottom))
        return boxes, [int(v) for v in rng.integers(self.max_labels + 1, size=count)]

    def _image(self, rng: np.random.Generator, boxes: list[Box]) -> npt.NDArray[np.uint8]:
        width, height = self._size()
        image = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        for left, top, right, bottom in boxes:
            image[top : bottom + 1, left : right + 1] = rng.integers(256, size=3, dtype=np.uint8)
        return image

    def _painted(self, boxes: list[Box], values: Any) -> npt.NDArray[np.uint8]:
        width, height = self._size()
        mask = np.zeros((height, width), np.uint8)
        for (left, top, right, bottom), value in zip(boxes, values, strict=True):
            mask[top : bottom + 1, left : right + 1] = value
        return mask


def _corners(box: Box, label: int) -> list[list[float]]:
    """Two keypoints that look at each other, along the box's diagonal."""
    left, top, right, bottom = box
    angle = -math.atan2(bottom - top, right - left)
    scale = math.hypot(right - left, bottom - top) / 2
    return [
        [float(left), float(top), angle, scale, label, 1],
        [float(right), float(bottom), angle + math.pi, scale, label, 2],
    ]
