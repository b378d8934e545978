"""Encoding images anew."""

from typing import Any, Self

from pydantic import Field, model_validator

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import KeyList, images_field, select_images, where
from prefect_pipestream.stages._item_class import ItemClass, as_class, require_some_class


class StageReencode(SampleStage, title="reencode"):
    """Encodes images anew: in another format, with other options of the encoder, or both.

    Without options, an image that is in the format already is left as it is. With options it
    is always encoded, so that a lossy format loses a little each time; it keeps what its file
    has beside the pixels, unless `metadata` is "strip". A new format takes none of that over.
    """

    item_class: ItemClass | None = Field(
        None,
        description="The new item class, for example PngImageItem, JpegImageItem or "
        "TiffImageItem. By default the class stays.",
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
