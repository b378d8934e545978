"""How items are written: in which class, and by which options of its encoder."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from prefect_pipestream import items
from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.sequences.fields import find_item_class
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import (
    Key,
    KeyList,
    images_field,
    require_key,
    select_images,
    where,
)


def item_class(value: Any) -> type[Item[Any]]:
    """Returns the item class of a name.

    Args:
        value: The name of a class of `prefect_pipestream.items`, as "PngImageItem";
            "package.module:Name" of one's own; or the class itself. An abstract class stands for
            its default, as ImageItem for PngImageItem.

    Raises:
        ValueError: If there is no such item class, or it has no files to be written to.
    """
    found = find_item_class(value)
    concrete = found.default_concrete()
    if "file_extensions" in getattr(concrete, "__abstractmethods__", ()) or not (
        concrete.file_extensions()
    ):
        raise ValueError(f"{concrete.__name__} has no file format of its own: name another class.")
    return concrete


def _name_of(cls: type[Item[Any]]) -> str:
    built_in = getattr(items, cls.__name__, None) is cls
    return cls.__name__ if built_in else f"{cls.__module__}:{cls.__qualname__}"


if TYPE_CHECKING:
    ItemClass = type[Item[Any]]
else:
    # pydantic takes no `type[...]` of a generic class with its arguments.
    ItemClass = Annotated[
        type,
        BeforeValidator(item_class),
        PlainSerializer(_name_of, return_type=str),
        WithJsonSchema({"type": "string", "examples": ["PngImageItem", "my_package.items:Mine"]}),
    ]
"""An item class, or its name."""


class StageReplaceItem(SampleStage, title="replace-item"):
    """Changes the class of items, and so the format they are written in; values stay."""

    key_item_map: dict[Key, ItemClass] = Field(
        description="The new item class by key, for example {image: PngImageItem}. "
        "Keys that a sample does not have are ignored."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the items replaced. Nothing is decoded before it is written.

        Raises:
            SampleError: If a value that is in memory is not one that the new class can hold.
        """
        items: dict[str, Item[Any]] = {}
        for key, cls in self.key_item_map.items():
            if key not in sample:
                continue
            try:
                items[key] = as_class(sample[key], cls)
            except EncodeError as error:
                raise SampleError(
                    f"item {where(key, sample[key])} cannot be a {cls.__name__}: {error}"
                ) from error
        return sample.merge(items)


class StageReencode(SampleStage, title="reencode"):
    """Encodes images anew: in another format, with other options of the encoder, or both.

    Without options, an image that is in the format already is left as it is. With options it
    is always encoded, so that a lossy format loses a little each time; it keeps what its file
    has beside the pixels, unless `metadata` is "strip". A new format takes none of that over.
    """

    item_class: ItemClass | None = Field(
        None,
        description="The new item class, for example PngImageItem, JpegImageItem, WebpImageItem "
        "or TiffImageItem. By default the class stays.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the encoder: {compress_level: 0 to 9} of a PNG, {quality: 1 to "
        "100} of a JPEG, {metadata: keep or strip} of any. What is left out stays as in the file.",
    )
    images: KeyList = images_field()

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.item_class is None:
            if not self.options:
                raise ValueError("give `item_class`, `options` or both")
            require_some_class(self.options)
            return self
        try:
            self.item_class.check_options(self.options)
        except EncodeError as error:
            raise ValueError(str(error)) from error
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the images to be encoded anew when they are written.

        Raises:
            SampleError: If a key is missing; an image's class has no such option; or a value that
                is in memory is not one that the new class can hold.
        """
        items: dict[str, Item[Any]] = {}
        for key in select_images(sample, self.images):
            try:
                item = as_class(sample[key], self.item_class or type(sample[key]))
                items[key] = item.with_options(**self.options) if self.options else item
            except EncodeError as error:
                raise SampleError(
                    f"image {where(key, sample[key])} cannot be encoded anew: {error}"
                ) from error
        return sample.merge(items)


class StageEncoderOptions(SampleStage, title="encoder-options"):
    """Tells how items are encoded that the stages before changed; others stay as they are.

    Without it a changed image is encoded as its file was, and keeps what that has beside its
    pixels. Options that `reencode` set for an item stay.
    """

    options: dict[Key, dict[str, Any]] = Field(
        min_length=1,
        description="The options of each item, by key: {image: {quality: 90, metadata: strip}}. "
        "All images have metadata (keep, strip); a JPEG quality (1 to 100), progressive, "
        "optimize and subsampling; a PNG compress_level (0 to 9; 1 is fast); a TIFF compression.",
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        for key, options in self.options.items():
            try:
                require_some_class(options)
            except ValueError as error:
                raise ValueError(f"{key!r}: {error}") from error
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with options for the items that changed.

        Raises:
            SampleError: If a key is missing, or an item's class has no such option.
        """
        items: dict[str, Item[Any]] = {}
        for key, options in self.options.items():
            require_key(sample, key)
            item = sample[key]
            try:
                type(item).check_options(options)
            except EncodeError as error:
                raise SampleError(f"item {where(key, item)}: {error}") from error
            if item.has_value or item.encoder_options:
                items[key] = item.with_options(**{**options, **item.encoder_options})
        return sample.merge(items)


def as_class(item: Item[Any], cls: type[Item[Any]]) -> Item[Any]:
    """Returns the item as one of another class, not decoded; itself if it is of that class.

    Raises:
        EncodeError: If the item's value is in memory, and the class cannot hold it.
    """
    if type(item) is cls:
        return item
    return cls(item, shared=item.is_shared)


def require_some_class(options: Mapping[str, Any]) -> None:
    """Checks encoder options of items whose class shows only when a sample is read.

    Raises:
        ValueError: If no class has all of these options, of these values.
    """
    classes = dict.fromkeys(cls for cls in CLASS_BY_EXTENSION.values() if cls.encoder_defaults)
    problems = []
    for cls in classes:
        try:
            cls.check_options(options)
        except EncodeError as error:
            problems.append(str(error))
        else:
            return
    raise ValueError("no item can be encoded so. " + " ".join(problems))
