"""Turning images: upright, by right angles, and mirrored."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from prefect_pipestream.errors import DecodeError, SampleError
from prefect_pipestream.items.pictures.orientation import UPRIGHT, upright
from prefect_pipestream.items.pictures.size import orientation_of
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import (
    Image,
    KeyList,
    change_images,
    images_field,
    replaced_by,
    require_image,
    select_images,
    where,
)

Flip = Literal["horizontal", "vertical"]


class StageRotateFlip(SampleStage, title="rotate-flip"):
    """Rotates images by right angles, then mirrors them; no pixel is changed.

    Images are turned upright first, where their files tell an orientation, and the new files
    tell that they are. Images that are turned together must have one orientation.
    """

    rotate: Literal[0, 90, 180, 270] | None = Field(
        None,
        description="Degrees to rotate by, counter-clockwise; 0 only turns upright.",
    )
    flip: Flip | None = Field(
        None,
        description="How to mirror after the rotation: horizontal swaps left and right, "
        "vertical swaps top and bottom. By default not at all.",
    )
    images: KeyList = images_field()

    @model_validator(mode="after")
    def _check_moves(self) -> Self:
        if self.rotate is None and self.flip is None:
            raise ValueError("give `rotate`, `flip` or both")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images rotated and mirrored.

        Raises:
            SampleError: If a key is missing, an image is neither H×W nor H×W×C, or images have
                different orientations.
            DecodeError: If an image cannot be decoded.
        """
        doing, keys = "rotate or flip", select_images(sample, self.images)
        orientation = common_orientation(sample, keys, doing)
        turned = change_images(
            sample,
            keys,
            lambda image: rotate_flip(image, self.rotate or 0, self.flip, orientation),
            doing,
        )
        is_as_it_was = orientation == UPRIGHT and not self.rotate and self.flip is None
        return turned if is_as_it_was else marked_upright(turned, keys)


def rotate_flip(image: Image, degrees: int, flip: Flip | None, orientation: int = UPRIGHT) -> Image:
    """Rotates an image (H×W or H×W×C) counter-clockwise by right angles, then mirrors it.

    One of another orientation is turned upright first. Where nothing is to be done, the very
    array is returned.

    Raises:
        UnsupportedImageError: If it has another shape.
    """
    require_image(image)
    if not degrees and flip is None:
        return upright(image, orientation)
    moved = np.rot90(upright(image, orientation), degrees // 90)
    if flip == "horizontal":
        moved = moved[:, ::-1]
    elif flip == "vertical":
        moved = moved[::-1]
    return np.ascontiguousarray(moved)


def common_orientation(sample: Sample, keys: Sequence[str], doing: str) -> int:
    """Returns the orientation of images that are turned together, 1 to 8 as EXIF numbers it.

    Args:
        sample: The sample.
        keys: The images.
        doing: What is done, for messages.

    Raises:
        SampleError: If they differ, or an image's file cannot be read.
    """
    found = {key: _orientation_of(sample, key) for key in keys}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{where(key, sample[key])}: {value}" for key, value in found.items())
        raise SampleError(
            f"cannot {doing} images whose files tell different orientations ({told}): turned "
            "upright they would not lie on each other any more. Name those that are alike, or "
            "make the files alike first."
        )
    return next(iter(found.values()), UPRIGHT)


def _orientation_of(sample: Sample, key: str) -> int:
    try:
        return orientation_of(sample[key], replaced_by(sample, key))
    except DecodeError as error:
        raise SampleError(f"image {where(key, sample[key])}: {error}") from error


def marked_upright(sample: Sample, keys: Sequence[str]) -> Sample:
    """Returns the sample with images whose new files tell that they are upright.

    Nor have they the thumbnail of the old file any more, which was not turned.
    """
    items = {key: sample[key] for key in keys if "orientation" in sample[key].encoder_defaults}
    return sample.merge({k: item.with_options(orientation="upright") for k, item in items.items()})
