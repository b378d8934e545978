"""Telling encoders how to write the items that change."""

from typing import Any, Self

from pydantic import Field, model_validator

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import Key, require_key, where
from prefect_pipestream.stages._item_class import require_some_class


class StageEncoderOptions(SampleStage, title="encoder-options"):
    """Tells how items are encoded that the stages before changed; others stay as they are.

    Without it a changed image is encoded as its file was, and keeps what that has beside its
    pixels. Options that `reencode` set for an item stay.
    """

    options: dict[Key, dict[str, Any]] = Field(
        min_length=1,
        description="The options of each item, by key: {image: {quality: 90, metadata: strip}}. "
        "All images have metadata (keep, strip); a JPEG quality (1 to 100), progressive, "
        "optimize and subsampling; a PNG compress_level (0 to 9); a TIFF compression.",
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
