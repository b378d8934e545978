"""Measuring the quality of images."""

from typing import Any

from pydantic import Field

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import MetadataItem, YamlMetadataItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _measures
from prefect_pipestream.stages._canonical import canonical
from prefect_pipestream.stages._images import (
    Key,
    KeyList,
    each_image,
    evaluate,
    images_field,
    where,
)


class StageMeasureImages(SampleStage, title="measure-images"):
    """Measures images and puts the figures into a metadata item, a mapping by image key.

    Of each image: `width`, `height`, `channels`; `mean` and `std` (standard deviation) of its
    values, in its own units; `sharpness` (variance of the Laplacian in 8-bit units: a
    photograph under about 100 is likely blurred); `clipped`, the share of its pixels at an
    end of the dtype's range. Alpha and NaN do not count.
    """

    output_key: Key = Field(
        "measures",
        description="Key of the metadata item; a new one is YAML. Its content is replaced.",
    )
    images: KeyList = images_field()

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the metadata item; itself if that holds the figures already.

        Raises:
            SampleError: If a key is missing, an image is of a shape or dtype that cannot be
                measured, or the item of the output key is no metadata.
            DecodeError: If an image or the metadata item cannot be decoded.
        """
        figures: dict[str, Any] = {
            key: evaluate(sample, key, image, _measures.measure, "measure")
            for key, image in each_image(sample, self.images)
        }
        item = sample.get(self.output_key)
        if item is not None and not isinstance(item, MetadataItem):
            raise SampleError(
                f"item {where(self.output_key, item)} is a {type(item).__name__}, not metadata: "
                "choose another `output_key`."
            )
        if item is None:
            return sample.set_item(self.output_key, YamlMetadataItem(figures))
        if canonical(item()) == canonical(figures):
            return sample
        return sample.set_value(self.output_key, figures)
