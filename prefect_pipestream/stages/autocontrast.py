"""Stretching the contrast of images."""

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _pixels
from prefect_pipestream.stages._images import KeyList, change_images, images_field


class StageAutocontrast(SampleStage, title="autocontrast"):
    """Stretches the values of images to the full range of their dtype (0 to 1 for floats).

    For uint8, uint16 and float images. Alpha, NaN, images of one value and images that fill
    the range already stay as they are; infinite values go to the ends of the range.
    """

    cutoff: float = Field(
        0.0,
        ge=0,
        lt=50,
        description="Percentage of the values to saturate at each end, so that a few extreme "
        "ones do not spoil the stretch.",
    )
    per_channel: bool = Field(
        False,
        description="Stretch each colour channel on its own. This also removes a colour cast, "
        "and may change colours.",
    )
    images: KeyList = images_field()

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images stretched.

        Raises:
            SampleError: If a key is missing, or an image is of another dtype.
            DecodeError: If an image cannot be decoded.
        """
        return change_images(
            sample,
            self.images,
            lambda image: _pixels.stretch(image, self.cutoff, self.per_channel),
            "stretch the contrast of",
        )
