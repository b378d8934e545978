"""Changing the values of images: inverting, stretching and clipping them."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import (
    Image,
    KeyList,
    UnsupportedImageError,
    change_images,
    colours,
    full_range,
    images_field,
    with_colours,
)


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
        return change_images(sample, self.images, lambda image: invert(image, self.white), "invert")


def invert(image: Image, white: float | None = None) -> Image:
    """Returns `white` minus the image, in the same dtype and shape.

    Applied twice it gives the image again: exactly for integers, up to rounding for floats.

    Args:
        image: bool, uint8, uint16 or float.
        white: The value that black becomes; None: the top of the dtype's full range.

    Raises:
        UnsupportedImageError: If it has another dtype, or integers above `white`.
    """
    top = full_range(image.dtype)[1]
    values = colours(image)
    if image.dtype.kind == "b":
        return with_colours(image, np.logical_not(values))
    if white is None:
        white = top
    if image.dtype.kind == "u":
        if white != int(white) or white > top:
            raise UnsupportedImageError(f"white = {white} is no value of {image.dtype}.")
        highest = int(values.max(initial=0))
        if highest > white:
            raise UnsupportedImageError(
                f"the value {highest} is above white = {white}, and its inverse below 0: "
                "raise `white` or use `clip-values` first."
            )
    return with_colours(image, np.subtract(image.dtype.type(white), values, dtype=image.dtype))


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
            lambda image: stretch(image, self.cutoff, self.per_channel),
            "stretch the contrast of",
        )


def stretch(image: Image, cutoff: float = 0.0, per_channel: bool = False) -> Image:
    """Stretches the values to the full range of the dtype.

    NaN and infinite values do not count when the range is sought; infinite ones go to its
    ends. An image of one value, or one that fills the range already, stays as it is.

    Args:
        image: bool (stays as it is), uint8, uint16 or float.
        cutoff: The percentage of the values to saturate at each end, below 50.
        per_channel: Find the range of each colour channel on its own.

    Raises:
        UnsupportedImageError: If it has another dtype.
    """
    full_range(image.dtype)
    values = colours(image)
    if image.dtype.kind == "b":
        return image
    if not (per_channel and values.ndim == 3):
        changed = _stretch_plane(values, cutoff)
        return image if changed is values else with_colours(image, changed)
    planes = [values[..., channel] for channel in range(values.shape[2])]
    stretched = [_stretch_plane(plane, cutoff) for plane in planes]
    if all(new is old for new, old in zip(stretched, planes, strict=True)):
        return image
    return with_colours(image, np.stack(stretched, axis=-1))


def _stretch_plane(plane: Image, cutoff: float) -> Image:
    black, white = full_range(plane.dtype)
    bounds = _bounds(plane, cutoff)
    if bounds is None or bounds[0] == bounds[1]:
        return plane
    if bounds == (black, white) and not ((plane < black) | (plane > white)).any():
        return plane
    low, high = bounds
    if plane.dtype.kind == "u":
        # A table of all values: exact, and faster than arithmetic on every pixel.
        table = (np.arange(white + 1) - low) * (white / (high - low))
        return np.asarray(np.rint(table).clip(0, white).astype(plane.dtype)[plane])
    wide = np.result_type(plane.dtype, np.float32).type
    half = wide(0.5)  # of extreme values the difference overflows, the half of it does not
    with np.errstate(over="ignore"):
        span = wide(high) - wide(low)
        if np.isfinite(span):
            scaled = (plane.astype(wide, copy=False) - wide(low)) / span
        else:
            halves = half * wide(high) - half * wide(low)
            scaled = (plane.astype(wide, copy=False) * half - half * wide(low)) / halves
    return np.asarray(scaled.clip(0, 1).astype(plane.dtype))


def _bounds(plane: Image, cutoff: float) -> tuple[float, float] | None:
    """Returns the lowest and highest value once `cutoff` percent at each end are left out."""
    if plane.dtype.kind == "u":
        counts = np.bincount(plane.ravel()).cumsum()
        if not counts.size:
            return None
        skipped = int(counts[-1] * cutoff / 100)
        low = int(np.searchsorted(counts, skipped, side="right"))
        high = int(np.searchsorted(counts, counts[-1] - skipped, side="left"))
        return low, high
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return None
    skipped = int(finite.size * cutoff / 100)
    if skipped:
        finite = np.partition(finite, [skipped, finite.size - 1 - skipped])
        return float(finite[skipped]), float(finite[-1 - skipped])
    return float(finite.min()), float(finite.max())


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
            sample, self.images, lambda image: clip(image, self.low, self.high), "clip"
        )


def clip(image: Image, low: float | None, high: float | None) -> Image:
    """Moves values below `low` up to it and values above `high` down to it.

    For integers the limits are rounded inwards. Infinite values are clipped as any other.

    Args:
        image: bool, uint8, uint16 or float.
        low: The lowest value to keep; None: no limit.
        high: The highest value to keep; None: no limit.

    Raises:
        UnsupportedImageError: If it has another dtype, or no value of that is within the
            limits.
    """
    full_range(image.dtype)
    values = colours(image)
    if image.dtype.kind == "f":
        largest = float(np.finfo(image.dtype).max)
        bottom: float = -np.inf if low is None else max(low, -largest)
        top: float = np.inf if high is None else min(high, largest)
        if bottom > largest or top < -largest:
            bottom, top = 1, 0
    else:
        largest = full_range(image.dtype)[1]
        bottom = 0 if low is None else max(0, int(np.ceil(low)))
        top = largest if high is None else min(largest, int(np.floor(high)))
    if bottom > top:
        raise UnsupportedImageError(f"no value of {image.dtype} is between {low} and {high}.")
    as_dtype = image.dtype.type
    if not ((values < as_dtype(bottom)) | (values > as_dtype(top))).any():
        return image
    return with_colours(image, values.clip(as_dtype(bottom), as_dtype(top)))
