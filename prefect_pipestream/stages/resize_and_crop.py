"""Resizing, cropping and padding images and masks."""

from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import conversion
from prefect_pipestream.stages._images import (
    KEY_FORMAT,
    Image,
    KeyList,
    UnsupportedImageError,
    change_images,
    has_alpha,
    refuse_too_many_pixels,
    require_image,
    require_pixels,
)

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Pixels = Annotated[int, Field(ge=1, le=1_000_000)]
Size = tuple[Literal["max", "min"], Pixels] | tuple[Pixels, Pixels]
Border = Literal["constant", "reflect", "replicate", "circular"]
Band = Annotated[int, Field(ge=0, le=255)]
Offset = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Length = Annotated[int, Field(ge=0, le=1_000_000)]


class StageResize(SampleStage, title="resize-images"):
    """Resizes images and masks, keeping their dtype; those of the right size stay untouched.

    Images are averaged where they get smaller, so that fine detail does not flicker. They are
    computed in float32, integers are rounded, and NaN spreads to the pixels around it.
    """

    size: Size = Field(
        description="Height and width in pixels; or [max, n] or [min, n], which makes the "
        "longer or the shorter side n pixels and keeps the proportions.",
    )
    interpolation: Interpolation = Field(
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
        key_format = self.output_key_format
        if self.images or not self.masks:
            sample = change_images(sample, self.images, self._image, "resize", key_format)
        if self.masks:
            sample = change_images(sample, self.masks, self._mask, "resize", key_format)
        return sample

    def _image(self, image: Image) -> Image:
        return resize(image, *self._size_for(image), self.interpolation)

    def _mask(self, mask: Image) -> Image:
        return resize(mask, *self._size_for(mask), "nearest")

    def _size_for(self, image: Image) -> tuple[int, int]:
        require_pixels(image)
        first, second = self.size
        if not isinstance(first, str):
            return first, second
        height, width = image.shape[:2]
        side = max(height, width) if first == "max" else min(height, width)
        return max(1, round(height * second / side)), max(1, round(width * second / side))


def resize(image: Image, height: int, width: int, interpolation: Interpolation) -> Image:
    """Resizes an image (H×W or H×W×C), each channel on its own, in the same dtype.

    "bilinear" and "bicubic" are Pillow's: a smaller image is averaged over all the pixels
    that fall together, so that nothing flickers (OpenCV, as the reference uses it, skips
    pixels). They compute in float32; integers are rounded and saturate. NaN spreads to the
    pixels around it. "nearest" takes the pixel under the centre of the new one; bool images
    always use it.

    Raises:
        UnsupportedImageError: If it has another shape, no pixels, or a dtype that is none of bool,
            uint8, uint16 and the floats (unless "nearest"). If it would have more pixels than can
            be read again.
    """
    require_pixels(image)
    if image.shape[:2] == (height, width):
        return image
    refuse_too_many_pixels(width, height)
    if interpolation == "nearest" or image.dtype.kind == "b":
        rows = ((np.arange(height) + 0.5) * (image.shape[0] / height)).astype(np.intp)
        columns = ((np.arange(width) + 0.5) * (image.shape[1] / width)).astype(np.intp)
        return np.asarray(image[rows[:, None], columns])
    if image.dtype.kind != "f" and image.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError("its dtype is none of bool, uint8, uint16 and the floats.")
    if image.ndim == 2 or (image.dtype == np.uint8 and image.shape[2] == 3):
        return _resize_bands(image, height, width, interpolation)
    planes = [
        _resize_bands(np.ascontiguousarray(image[..., c]), height, width, interpolation)
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _resize_bands(image: Image, height: int, width: int, interpolation: Interpolation) -> Image:
    from PIL import Image as pillow

    how = {"bilinear": pillow.Resampling.BILINEAR, "bicubic": pillow.Resampling.BICUBIC}
    bands = image if image.dtype == np.uint8 else image.astype(np.float32)
    resized = np.asarray(pillow.fromarray(bands).resize((width, height), how[interpolation]))
    if image.dtype == np.uint16:
        resized = np.rint(resized).clip(0, np.iinfo(np.uint16).max)
    return resized.astype(image.dtype, copy=False)


def _check_name(name: str) -> str:
    _rgba(name)  # a ValueError that says what colours are called
    return name


Color = (
    Annotated[str, AfterValidator(_check_name)]
    | tuple[Band, Band, Band]
    | tuple[Band, Band, Band, Band]
)


class StageCropAndPad(SampleStage, title="crop-and-pad-images"):
    """Cuts a window out of images; where it is outside of an image, a border is made."""

    x: Offset = Field(
        0, description="The window's left side; if negative, the image is padded on its left."
    )
    y: Offset = Field(
        0, description="The window's top; if negative, the image is padded at its top."
    )
    width: Length = Field(
        0, description="The window's width in pixels; 0 is up to the right side of the image."
    )
    height: Length = Field(
        0, description="The window's height in pixels; 0 is up to the bottom of the image."
    )
    border: Border = Field(
        "constant",
        description="What is outside of the image: a colour, the image mirrored at its edge, "
        "its edge pixels, or the image again.",
    )
    pad_colors: Color | list[Color] = Field(
        "black",
        description="The colour of a constant border, by name, as #rrggbb or as [red, green, "
        "blue] from 0 to 255; or a list of one for each image. It is scaled to the dtype.",
    )
    images: KeyList = Field(default_factory=lambda: ["image"], description="Keys of the images.")
    output_key_format: str = Field("*", description=KEY_FORMAT)

    @model_validator(mode="after")
    def _check_colors(self) -> Self:
        if isinstance(self.pad_colors, list):
            given, expected = len(self.pad_colors), len(self.images)
            if not given or (given != 1 and given != expected):
                raise ValueError(f"give one pad color, or {expected} for {expected} images")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the windows.

        Raises:
            SampleError: If a key is missing, an image is neither H×W nor H×W×C, nothing of it is in
                a window without a size, or its dtype has no known range for the colour.
            DecodeError: If an image cannot be decoded.
        """
        result = sample
        colors = self.pad_colors if isinstance(self.pad_colors, list) else [self.pad_colors]
        for number, key in enumerate(self.images or [None]):
            color = colors[number % len(colors)]
            result = change_images(
                result,
                [] if key is None else [key],
                partial(self._window, color),
                "crop and pad",
                self.output_key_format,
            )
        return result

    def _window(self, color: str | tuple[int, ...], image: Image) -> Image:
        height, width = image.shape[:2] if image.ndim in (2, 3) else (-1, -1)
        if not (self.x or self.y) and self.width in (0, width) and self.height in (0, height):
            return image
        fill = _fill(image, color) if self.border == "constant" else 0
        return crop_and_pad(image, self.x, self.y, self.width, self.height, self.border, fill)


def _rgba(color: str | tuple[int, ...]) -> tuple[int, ...]:
    """Returns red, green, blue and alpha, from 0 to 255."""
    if isinstance(color, str):
        from PIL import ImageColor

        color = ImageColor.getrgb(color)
    return color if len(color) == 4 else (*color, 255)


def _fill(image: Image, color: str | tuple[int, ...]) -> Image:
    """Returns a colour as one pixel of an image: of its dtype and number of channels."""
    if not any(_rgba(color)[:3]) and not has_alpha(image):
        return np.zeros(image.shape[2:], dtype=image.dtype)  # black is known for every dtype
    rgba = np.array(_rgba(color), dtype=np.uint8)[None, None]
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 4:
        pixel = rgba
    elif channels == 3:
        pixel = rgba[..., :3]
    elif channels > 4:
        raise UnsupportedImageError(f"only black is known for {channels} channels.")
    else:
        gray = conversion.luma(rgba[..., :3])[..., None]
        pixel = np.concatenate([gray, rgba[..., 3:]], axis=2) if channels == 2 else gray
    scaled = conversion.to_dtype(pixel, str(image.dtype))[0, 0]
    return np.asarray(scaled if image.ndim == 3 else scaled[0])


def crop_and_pad(
    image: Image,
    x: int,
    y: int,
    width: int,
    height: int,
    border: Border,
    fill: Any,
) -> Image:
    """Returns the window of an image that begins at (x, y), with a border where it is outside.

    Args:
        image: H×W or H×W×C.
        x: The window's left side; negative is outside of the image.
        y: The window's top.
        width: The window's width; 0: up to the image's right side.
        height: The window's height; 0: up to the image's bottom.
        border: What is outside: one value; the image mirrored at its edge pixels (which are not
            doubled); its edge pixels; or the image again.
        fill: The value of "constant": a number, or C of them.

    Raises:
        UnsupportedImageError: If it has another shape, or the window or the image has no pixel; or
            the window has more than can be read again.
    """
    require_image(image)
    rows, columns = image.shape[:2]
    width, height = width or columns - x, height or rows - y
    if width <= 0 or height <= 0:
        raise UnsupportedImageError(f"nothing of it is right of x = {x} and below y = {y}.")
    refuse_too_many_pixels(width, height)
    if border == "constant":
        return _framed(image, x, y, width, height, fill)
    if not rows or not columns:
        raise UnsupportedImageError(f"it has no pixel to continue by {border!r}.")
    taken_rows = _outside(np.arange(y, y + height), rows, border)
    taken_columns = _outside(np.arange(x, x + width), columns, border)
    return np.asarray(image[taken_rows[:, None], taken_columns])


def _framed(image: Image, x: int, y: int, width: int, height: int, fill: Any) -> Image:
    rows, columns = image.shape[:2]
    window = np.empty((height, width, *image.shape[2:]), dtype=image.dtype)
    window[...] = fill
    left, right = max(x, 0), min(x + width, columns)
    top, bottom = max(y, 0), min(y + height, rows)
    if left < right and top < bottom:
        window[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return window


def _outside(places: Image, size: int, border: Border) -> Image:
    """Maps places on an axis, also those outside of it, on places in it."""
    if border == "replicate":
        return places.clip(0, size - 1)
    if border == "circular" or size == 1:
        return np.asarray(places % size)
    period = 2 * (size - 1)
    folded = places % period
    mirrored: Image = np.minimum(folded, period - folded)
    return mirrored
