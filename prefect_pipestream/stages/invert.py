"""Inverting images."""

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _pixels
from prefect_pipestream.stages._images import KeyList, change_images, images_field


class StageInvert(SampleStage, title="invert"):
    """Inverts images: black becomes white. Alpha and NaN stay.

    For bool, uint8, uint16 and float images. Applied twice it gives the image again, exactly
    for integers, up to rounding for floats.
    """

    white: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="The value that black becomes, for example 4095 for 12 bits in uint16. "
        "By default the largest value of the dtype, for floats 1.",
    )
    images: KeyList = images_field()

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images inverted.

        Raises:
            SampleError: If a key is missing, or an image is of another dtype or has integers above
                `white`.
            DecodeError: If an image cannot be decoded.
        """
        return change_images(
            sample, self.images, lambda image: _pixels.invert(image, self.white), "invert"
        )
