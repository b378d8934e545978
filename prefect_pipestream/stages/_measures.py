"""Figures that tell the quality of an image. Alpha, NaN and infinite values do not count."""

from typing import Any

import numpy as np

from prefect_pipestream.stages._conversions import luma
from prefect_pipestream.stages._pixels import (
    Image,
    UnsupportedImageError,
    colours,
    full_range,
)


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


def require_image(image: Image) -> None:
    """Raises UnsupportedImageError unless the shape is H×W or H×W×C."""
    if image.ndim not in (2, 3):
        raise UnsupportedImageError("its shape is none of H×W and H×W×C.")
