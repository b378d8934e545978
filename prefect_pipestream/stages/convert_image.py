"""Converting images to another dtype or other channels."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _conversions
from prefect_pipestream.stages._images import KeyList, change_images, images_field
from prefect_pipestream.stages._pixels import Image


class StageConvertImage(SampleStage, title="convert-image"):
    """Converts images to another dtype, other channels, or both.

    The item class stays: where the format cannot hold the new image (a PNG of floats, a JPEG
    with alpha), put `reencode` before this stage. NaN cannot become an integer: it is an error.
    """

    dtype: Literal["bool", "uint8", "uint16", "float32", "float64"] | None = Field(
        None, description="The new dtype. By default it stays."
    )
    channels: Literal["gray", "rgb", "rgba"] | None = Field(
        None,
        description="The new channels: gray is H×W, the luma of the colours; new alpha is "
        "opaque, alpha that is not wanted is dropped. By default they stay.",
    )
    scale: bool = Field(
        True,
        description="Map the full range of the old dtype (0 to 1 for floats) on that of the "
        "new one. If false, values stay what they are, and saturate.",
    )
    images: KeyList = images_field()

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if self.dtype is None and self.channels is None:
            raise ValueError("give `dtype`, `channels` or both")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images converted.

        Raises:
            SampleError: If a key is missing, or an image is of a shape or dtype, or has values,
                that cannot be converted.
            DecodeError: If an image cannot be decoded.
        """
        return change_images(sample, self.images, self._converted, "convert")

    def _converted(self, image: Image) -> Image:
        # Alpha is made opaque, and luma rounded, in whichever dtype has a known range; booleans
        # cannot be weighed.
        if self.channels is not None and self.dtype == "bool":
            image = _conversions.to_channels(image, self.channels)
        if self.dtype is not None:
            image = _conversions.to_dtype(image, self.dtype, self.scale)
        if self.channels is not None and self.dtype != "bool":
            image = _conversions.to_channels(image, self.channels)
        return image
