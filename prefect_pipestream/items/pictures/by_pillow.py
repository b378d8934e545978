"""What the items of formats have in common that Pillow reads and writes, through imageio."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.errors import EncodeError
from prefect_pipestream.items.arrays import Array
from prefect_pipestream.items.pictures import codec, embedded
from prefect_pipestream.items.pictures.base import ImageItem, Original, as_held, is_stack
from prefect_pipestream.items.pictures.orientation import UPRIGHT
from prefect_pipestream.items.registry import class_for

_EXIF = b"Exif\x00\x00"


class PillowOriginal(Original):
    """What Pillow reads beside the pixels of a file, and what its encoder takes of that."""

    #: The format, as Pillow names it.
    format_name: ClassVar[str]
    #: What Pillow's encoder of the format takes.
    kept: ClassVar[Sequence[str]] = ("exif", "icc_profile", "xmp")
    #: Whether pixels are as they are to be seen, whatever EXIF data tell.
    is_upright: ClassVar[bool] = False

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.frames = codec.told(data, self.format_name)

    @property
    def orientation(self) -> int:
        """The orientation that its EXIF data tell."""
        return UPRIGHT if self.is_upright else embedded.orientation_of(self._exif)

    @property
    def _exif(self) -> bytes:
        return bytes(self.frames[0].get("exif") or b"").removeprefix(_EXIF)

    def options(self, array: Array, *, upright: bool, frames: int) -> dict[str, Any]:
        """Returns what the encoder is told, so that a new file has what this one has.

        Args:
            array: The new picture, or the first of several.
            upright: Whether it was turned upright.
            frames: How many they are.
        """
        found: dict[str, Any] = {name: self.frames[0].get(name) for name in self.kept}
        height, width = array.shape[:2]
        if found.get("exif"):
            found["exif"] = embedded.fitted_exif(self._exif, width, height, upright=upright)
        if upright and (xmp := found.get("xmp")):
            found["xmp"] = embedded.upright_xmp(xmp)
        channels, before = (_colors(shape) for shape in (array.shape, self._shape))
        if not embedded.profile_fits(found.get("icc_profile") or b"", channels, before):
            found["icc_profile"] = None
        return {name: value for name, value in found.items() if value}

    @property
    def _shape(self) -> tuple[int, ...]:
        mode = self.frames[0]["mode"]
        return (1, 1) if mode[0] in "1LIF" else (1, 1, 3)

    def timing(self, frames: int) -> dict[str, Any]:
        """Returns how long each of as many frames is shown, in ms, and how often all are."""
        if len(self.frames) != frames or frames == 1:
            return {}
        times = [frame.get("duration", 0) for frame in self.frames]
        return {"duration": times, "loop": self.frames[0].get("loop", 1)}

    def kept_in(self, data: bytes, array: Array, *, upright: bool) -> bytes:
        """Returns the new file as it is: the encoder was told what to keep."""
        return data


def _colors(shape: tuple[int, ...]) -> int:
    return 3 if len(shape) > 2 and shape[2] > 2 else 1


class PillowImageItem(ImageItem):
    """An image in a format that Pillow reads and writes; a format is a subclass."""

    __slots__ = ()
    original_class: ClassVar[type[PillowOriginal]]
    #: The numbers of channels that each dtype may have; 0: H×W.
    channels_of: ClassVar[Mapping[str, Sequence[int]]]
    #: Those of several pictures in a file; none if it holds one.
    stacks_of: ClassVar[Mapping[str, Sequence[int]]] = {}

    def as_default_name(self, path: "str | os.PathLike[str]") -> Path:
        """Returns the path with the extension of the file that the item has, or was made from."""
        known = [source.path for source in (*self.file_sources, self.made_from) if source]
        own = [path for path in known if class_for(path) is type(self)]
        return Path(path).with_suffix(Path(own[0]).suffix) if own else super().as_default_name(path)

    @classmethod
    @abstractmethod
    def check(cls, data: bytes) -> None:
        """Raises `DecodeError` for another format, and for what Pillow would not read whole."""

    @classmethod
    def coding(cls, options: Mapping[str, Any], original: Any) -> dict[str, Any]:
        """Returns what Pillow's encoder is told of how to code the pixels."""
        return {}

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the image, or several as a stack, not turned by EXIF data."""
        data = stream.read()
        cls.check(data)
        stream.seek(0)
        return codec.read(stream, cls.original_class.format_name)

    @classmethod
    def encoded(
        cls, value: Array, options: Mapping[str, Any], original: PillowOriginal | None
    ) -> bytes:
        """Returns the image, or a stack, as the content of a file."""
        array = as_held(cls, value, cls.channels_of, stacks_of=cls.stacks_of)
        several = bool(cls.stacks_of) and is_stack(array)
        told = cls.coding(options, original)
        if original is not None and cls.keeps_metadata(options):
            frames = len(array) if several else 1
            upright = options.get("orientation") == "upright"
            told |= original.options(array[0] if several else array, upright=upright, frames=frames)
        return cls.written(array, several, told)

    @classmethod
    def written(cls, array: Array, several: bool, told: dict[str, Any]) -> bytes:
        """Returns the content of a file; see `codec.write`."""
        name = cls.original_class.format_name
        data = codec.write(array, name, stack=several, **told)
        if several and (written := len(codec.told(data, name))) != len(array):
            raise EncodeError(
                f"{cls.__name__}: of {len(array)} pictures {written} would be left, because the "
                "encoder joins equal ones that follow each other. Use ApngImageItem or "
                "TiffImageItem for them."
            )
        return data
