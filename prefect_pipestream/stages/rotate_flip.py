"""Rotating and mirroring images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _geometry
from prefect_pipestream.stages._images import KeyList, change_images, images_field


class StageRotateFlip(SampleStage, title="rotate-flip"):
    """Rotates images by right angles, then mirrors them; no pixel is changed."""

    rotate: Literal[0, 90, 180, 270] = Field(
        0, description="Degrees to rotate by, counter-clockwise."
    )
    flip: Literal["horizontal", "vertical"] | None = Field(
        None,
        description="How to mirror after the rotation: horizontal swaps left and right, "
        "vertical swaps top and bottom. By default not at all.",
    )
    images: KeyList = images_field()

    @model_validator(mode="after")
    def _check_moves(self) -> Self:
        if not self.rotate and not self.flip:
            raise ValueError("give `rotate`, `flip` or both")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images rotated and mirrored.

        Raises:
            SampleError: a key is missing, or an image is neither H×W nor H×W×C.
            DecodeError: an image cannot be decoded.
        """
        return change_images(
            sample,
            self.images,
            lambda image: _geometry.rotate_flip(image, self.rotate, self.flip),
            "rotate or flip",
        )
