"""Clipping the values of images."""

from typing import Self

from pydantic import Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _pixels
from prefect_pipestream.stages._images import KeyList, change_images, images_field


class StageClipValues(SampleStage, title="clip-values"):
    """Limits the values of images, in their own units. Alpha and NaN stay.

    For uint8, uint16 and float images. For integers the limits are rounded inwards.
    """

    low: float | None = Field(
        None,
        allow_inf_nan=False,
        description="The lowest value to keep; lower ones become this. By default no limit.",
    )
    high: float | None = Field(
        None,
        allow_inf_nan=False,
        description="The highest value to keep; higher ones become this. By default no limit.",
    )
    images: KeyList = images_field()

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give `low`, `high` or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images clipped.

        Raises:
            SampleError: If a key is missing, or an image's dtype is another one or has no value
                within the limits.
            DecodeError: If an image cannot be decoded.
        """
        return change_images(
            sample, self.images, lambda image: _pixels.clip(image, self.low, self.high), "clip"
        )
