"""Cropping and padding images."""

from functools import partial
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages import _conversions, _geometry, _pixels
from prefect_pipestream.stages._images import KEY_FORMAT, KeyList, change_images

Band = Annotated[int, Field(ge=0, le=255)]
Offset = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Length = Annotated[int, Field(ge=0, le=1_000_000)]


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
    border: Literal["constant", "reflect", "replicate", "circular"] = Field(
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

    def _window(self, color: str | tuple[int, ...], image: _pixels.Image) -> _pixels.Image:
        height, width = image.shape[:2] if image.ndim in (2, 3) else (-1, -1)
        if not (self.x or self.y) and self.width in (0, width) and self.height in (0, height):
            return image
        fill = _fill(image, color) if self.border == "constant" else 0
        return _geometry.crop_and_pad(
            image, self.x, self.y, self.width, self.height, self.border, fill
        )


def _rgba(color: str | tuple[int, ...]) -> tuple[int, ...]:
    """Returns red, green, blue and alpha, from 0 to 255."""
    if isinstance(color, str):
        from PIL import ImageColor

        color = ImageColor.getrgb(color)
    return color if len(color) == 4 else (*color, 255)


def _fill(image: _pixels.Image, color: str | tuple[int, ...]) -> _pixels.Image:
    """Returns a colour as one pixel of an image: of its dtype and number of channels."""
    if not any(_rgba(color)[:3]) and not _pixels.has_alpha(image):
        return np.zeros(image.shape[2:], dtype=image.dtype)  # black is known for every dtype
    rgba = np.array(_rgba(color), dtype=np.uint8)[None, None]
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 4:
        pixel = rgba
    elif channels == 3:
        pixel = rgba[..., :3]
    elif channels > 4:
        raise _pixels.UnsupportedImageError(f"only black is known for {channels} channels.")
    else:
        gray = _conversions.luma(rgba[..., :3])[..., None]
        pixel = np.concatenate([gray, rgba[..., 3:]], axis=2) if channels == 2 else gray
    scaled = _conversions.to_dtype(pixel, str(image.dtype))[0, 0]
    return np.asarray(scaled if image.ndim == 3 else scaled[0])
