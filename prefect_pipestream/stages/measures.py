"""Measuring the quality of images, and leaving out samples whose images are blank."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import MetadataItem, YamlMetadataItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import REMOVE, Removal, SampleStage
from prefect_pipestream.stages._canonical import canonical
from prefect_pipestream.stages._images import (
    Image,
    Key,
    KeyList,
    UnsupportedImageError,
    colours,
    each_image,
    evaluate,
    full_range,
    images_field,
    require_image,
    where,
)
from prefect_pipestream.stages.conversion import luma


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
            key: evaluate(sample, key, image, measure, "measure")
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


class StageDropBlankImages(SampleStage, title="drop-blank-images"):
    """Drops samples whose images are blank: in place they are removed, elsewhere not written.

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

    def __call__(self, sample: Sample) -> Sample | Removal:
        """Returns the sample itself, or `REMOVE` if it is to be dropped.

        Raises:
            SampleError: If a key is missing, or an image is of a shape or dtype that cannot be
                measured.
            DecodeError: If an image cannot be decoded.
        """
        has_images = False
        for key, image in each_image(sample, self.images):
            has_images = True
            blank = evaluate(sample, key, image, spread, "measure") < self.threshold
            if blank and self.drop_if == "any":
                return REMOVE
            if not blank and self.drop_if == "all":
                return sample
        return REMOVE if has_images and self.drop_if == "all" else sample


def measure(image: Image) -> dict[str, Any]:
    """Measures an image.

    Args:
        image: H×W or H×W×C, bool, uint8, uint16 or float.

    Returns:
        width, height: in pixels.
        channels: their number, alpha included; 1 for H×W.
        mean, std: of all values, in the units of the image; None where there is none.
        sharpness: see `sharpness`.
        clipped: the share of the pixels, 0 to 1, of which a channel is at an end of the full
            range (at or beyond it for floats).

    Raises:
        UnsupportedImageError: If it has another dtype or shape.
    """
    require_image(image)
    black, white = full_range(image.dtype)
    values = colours(image)
    finite = values[np.isfinite(values)] if image.dtype.kind == "f" else values
    at_an_end = (values <= black) | (values >= white)
    clipped = at_an_end.any(axis=2) if values.ndim == 3 else at_an_end
    return {
        "width": int(image.shape[1]),
        "height": int(image.shape[0]),
        "channels": int(image.shape[2]) if image.ndim == 3 else 1,
        "mean": float(finite.mean(dtype=np.float64)) if finite.size else None,
        "std": float(finite.std(dtype=np.float64)) if finite.size else None,
        "sharpness": sharpness(image),
        "clipped": float(np.mean(clipped)) if values.size else 0.0,
    }


def sharpness(image: Image) -> float:
    """Returns the variance of the Laplacian of the image's gray, scaled to 8 bits.

    The usual measure of focus (Pech-Pacheco et al., 2000): under about 100 a photograph is
    likely blurred, whatever its dtype. It is 0 where the image is smaller than 3×3 pixels.
    """
    values = colours(image)
    if values.ndim == 3 and values.shape[2] not in (1, 3):
        raise UnsupportedImageError("its shape is none of H×W and H×W×1 to H×W×4.")
    white = full_range(image.dtype)[1]
    gray = luma(values).astype(np.float64) * (255 / white)
    with np.errstate(invalid="ignore", over="ignore"):
        laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
        laplacian = laplacian - 4 * gray[1:-1, 1:-1]
        known = laplacian[np.isfinite(laplacian)]
        return float(known.var()) if known.size else 0.0


def spread(image: Image) -> float:
    """Returns how much an image varies: 0 where each channel is of one value, at most 0.5.

    It is the largest standard deviation of a colour channel, as a share of the full range.

    Raises:
        UnsupportedImageError: If it has another dtype or shape than `measure` takes.
    """
    require_image(image)
    white = full_range(image.dtype)[1]
    values = colours(image)
    planes = [values] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    deviations = []
    for plane in planes:
        finite = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
        deviations.append(float(finite.std(dtype=np.float64)) / white if finite.size else 0.0)
    return max(deviations, default=0.0)
