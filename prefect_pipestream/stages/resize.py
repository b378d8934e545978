"""Resizing images and masks."""

from typing import Annotated, Literal

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _geometry
from prefect_pipestream.stages._images import KEY_FORMAT, KeyList, change_images
from prefect_pipestream.stages._pixels import Image

Pixels = Annotated[int, Field(ge=1, le=1_000_000)]
Size = tuple[Literal["max", "min"], Pixels] | tuple[Pixels, Pixels]


class StageResize(SampleStage, title="resize-images"):
    """Resizes images and masks, keeping their dtype; those of the right size stay untouched.

    Images are averaged where they get smaller, so that fine detail does not flicker. They are
    computed in float32, integers are rounded, and NaN spreads to the pixels around it.
    """

    size: Size = Field(
        description="Height and width in pixels; or [max, n] or [min, n], which makes the "
        "longer or the shorter side n pixels and keeps the proportions.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bilinear", description="How the values of images are computed."
    )
    images: KeyList = Field(
        default_factory=list,
        description="Keys of the images. Without any image and mask key, every image item of "
        "the sample is an image.",
    )
    masks: KeyList = Field(
        default_factory=list,
        description="Keys of the masks: they take the nearest pixel, so that no new value appears.",
    )
    output_key_format: str = Field("*", description=KEY_FORMAT)

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images and masks resized.

        Raises:
            SampleError: If a key is missing, or an image is of another shape or dtype.
            DecodeError: If an image cannot be decoded.
        """
        resized = sample
        if self.images or not self.masks:
            resized = change_images(
                resized, self.images, self._image, "resize", self.output_key_format
            )
        if self.masks:
            resized = change_images(
                resized, self.masks, self._mask, "resize", self.output_key_format
            )
        return resized

    def _image(self, image: Image) -> Image:
        return _geometry.resize(image, *self._size_for(image), self.interpolation)

    def _mask(self, mask: Image) -> Image:
        return _geometry.resize(mask, *self._size_for(mask), "nearest")

    def _size_for(self, image: Image) -> tuple[int, int]:
        _geometry.require_pixels(image)
        first, second = self.size
        if not isinstance(first, str):
            return first, second
        height, width = image.shape[:2]
        side = max(height, width) if first == "max" else min(height, width)
        return max(1, round(height * second / side)), max(1, round(width * second / side))
