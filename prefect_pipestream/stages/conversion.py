"""Converting images to another dtype or other channels."""

from typing import Any, Literal, Self

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
    has_alpha,
    images_field,
)

# ITU-R 601-2 luma, the weights that Pillow and OpenCV make gray of RGB with.
_LUMA = (0.299, 0.587, 0.114)


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
            image = to_channels(image, self.channels)
        if self.dtype is not None:
            image = to_dtype(image, self.dtype, self.scale)
        if self.channels is not None and self.dtype != "bool":
            image = to_channels(image, self.channels)
        return image


def to_dtype(image: Image, dtype: str, scale: bool = True) -> Image:
    """Returns the image, alpha included, in another dtype.

    Args:
        image: bool, uint8, uint16 or float; with `scale` False any integer or float.
        dtype: bool, uint8, uint16, float32 or float64. A value becomes True where it is at least
            half of white with `scale`, where it is not 0 without.
        scale: Map the full range of the one dtype on that of the other, rounding to the nearest.
            False: keep the values, rounded to integers and saturated where the new dtype has no
            such value.

    Raises:
        UnsupportedImageError: If NaN is to become an integer; or, with `scale`, the dtype has no
            known range or a float is outside of 0 to 1.
    """
    target = np.dtype(dtype)
    if image.dtype == target:
        return image
    if scale:
        return _scaled(image, target)
    if image.dtype.kind not in "buif":
        raise UnsupportedImageError(f"values of {image.dtype} cannot be converted.")
    if target.kind == "u":
        _refuse_nan(image, target)
        rounded = np.rint(image) if image.dtype.kind == "f" else image
        if image.dtype.kind == "b":
            return image.astype(target)
        return _saturated(rounded, target)
    return image.astype(target)


def _saturated(image: Image, target: np.dtype[Any]) -> Image:
    # Limits of the target that the source cannot hold are no limits.
    largest = int(np.iinfo(target).max)
    if image.dtype.kind == "f":
        return np.asarray(image.astype(np.float64).clip(0, largest).astype(target))
    limits = np.iinfo(image.dtype)
    bottom, top = max(0, int(limits.min)), min(largest, int(limits.max))
    return np.asarray(image.clip(bottom, top).astype(target))


def _scaled(image: Image, target: np.dtype[Any]) -> Image:
    white = full_range(image.dtype)[1]
    if image.dtype.kind == "f":
        if target.kind == "f":
            return image.astype(target)
        _refuse_nan(image, target)
        low, high = (image.min(), image.max()) if image.size else (0, 0)
        if low < 0 or high > 1:
            raise UnsupportedImageError(
                f"its values go from {low:g} to {high:g}, and floats are scaled from 0 to 1: "
                "use `clip-values` or `autocontrast` first, or `scale: false`."
            )
    if target.kind == "b":
        return np.asarray(image * 2.0 >= white) if image.dtype.kind == "f" else image > white // 2
    if target.kind == "f":
        return (image / np.float64(white)).astype(target)
    factor = full_range(target)[1] / white
    return np.rint(image * np.float64(factor)).astype(target)


def _refuse_nan(image: Image, target: np.dtype[Any]) -> None:
    missing = int(np.isnan(image).sum()) if image.dtype.kind == "f" else 0
    if missing:
        raise UnsupportedImageError(
            f"{missing} of its values are NaN, which {target} cannot hold: replace them first."
        )


def to_channels(image: Image, channels: Literal["gray", "rgb", "rgba"]) -> Image:
    """Returns the image with other channels, in the same dtype.

    Gray of colours is their ITU-R 601 luma, as Pillow and OpenCV compute it. Alpha is dropped
    where the new image has none, and opaque where the old one has none.

    Args:
        image: H×W or H×W×1 (gray), H×W×2 (gray and alpha), H×W×3 (RGB) or H×W×4 (RGBA).
        channels: "gray" (H×W), "rgb" or "rgba".

    Raises:
        UnsupportedImageError: If it has another shape or dtype.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        raise UnsupportedImageError("its shape is none of H×W and H×W×1 to H×W×4.")
    now = "gray" if image.ndim == 2 else {3: "rgb", 4: "rgba"}.get(image.shape[2])
    if now == channels:
        return image
    values = colours(image)
    if channels == "gray":
        return luma(values)
    if values.ndim == 2 or values.shape[2] == 1:
        gray = values.reshape(values.shape[:2])
        values = np.stack([gray] * 3, axis=-1)
    if channels == "rgb":
        return np.ascontiguousarray(values)
    if has_alpha(image):
        return np.concatenate([values, image[..., -1:]], axis=2)
    opaque = np.full((*values.shape[:2], 1), full_range(image.dtype)[1], dtype=image.dtype)
    return np.concatenate([values, opaque], axis=2)


def luma(values: Image) -> Image:
    """Returns the gray (H×W) of colours without alpha (H×W, H×W×1 or H×W×3), in their dtype.

    Raises:
        UnsupportedImageError: If it has another dtype.
    """
    top = full_range(values.dtype)[1]
    if values.ndim == 2:
        return values
    if values.shape[2] == 1:
        return values[..., 0]
    red, green, blue = (values[..., channel] for channel in range(3))
    if values.dtype.kind == "f":
        wide = np.result_type(values.dtype, np.float32).type
        red, green, blue = (wide(w) * c for w, c in zip(_LUMA, (red, green, blue), strict=True))
        return np.asarray((red + green + blue).astype(values.dtype))
    gray = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    if values.dtype.kind == "b":
        return np.asarray(gray >= 0.5)
    return np.asarray(np.rint(gray).clip(0, top).astype(values.dtype))
