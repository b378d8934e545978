"""Rotating and mirroring images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prefect_pipestream.items.pictures.orientation import UPRIGHT
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _geometry
from prefect_pipestream.stages._images import (
    KeyList,
    change_images,
    images_field,
    select_images,
)
from prefect_pipestream.stages._upright import common_orientation, marked_upright


class StageRotateFlip(SampleStage, title="rotate-flip"):
    """Rotates images by right angles, then mirrors them; no pixel is changed.

    Images are turned upright first, where their files tell an orientation, and the new files
    tell that they are. Images that are turned together must have one orientation.
    """

    rotate: Literal[0, 90, 180, 270] | None = Field(
        None,
        description="Degrees to rotate by, counter-clockwise; 0 only turns upright.",
    )
    flip: Literal["horizontal", "vertical"] | None = Field(
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
            lambda image: _geometry.rotate_flip(image, self.rotate or 0, self.flip, orientation),
            doing,
        )
        is_as_it_was = orientation == UPRIGHT and not self.rotate and self.flip is None
        return turned if is_as_it_was else marked_upright(turned, keys)
