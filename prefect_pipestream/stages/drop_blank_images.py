"""Leaving out samples with nothing on their images."""

from typing import Literal

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _measures
from prefect_pipestream.stages._images import KeyList, each_image, evaluate, images_field


class StageDropBlankImages(SampleStage, title="drop-blank-images"):
    """Drops samples whose images are blank: nothing is written for them.

    An image is blank if none of its colour channels varies, whatever its colour. Alpha, NaN
    and infinite values do not count. A sample without images is kept.
    """

    threshold: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="An image is blank if the standard deviation of each colour channel is "
        "below this share of the dtype's full range (0 to 1 for floats).",
    )
    drop_if: Literal["all", "any"] = Field(
        "all", description="Drop the sample if all of the images are blank, or if any is."
    )
    images: KeyList = images_field()

    def __call__(self, sample: Sample) -> Sample | None:
        """Returns the sample itself, or None if it is to be dropped.

        Raises:
            SampleError: If a key is missing, or an image is of a shape or dtype that cannot be
                measured.
            DecodeError: If an image cannot be decoded.
        """
        has_images = False
        for key, image in each_image(sample, self.images):
            has_images = True
            spread = evaluate(sample, key, image, _measures.spread, "measure")
            blank = spread < self.threshold
            if blank and self.drop_if == "any":
                return None
            if not blank and self.drop_if == "all":
                return sample
        return None if has_images and self.drop_if == "all" else sample
