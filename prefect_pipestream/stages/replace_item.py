"""Changing the class of items."""

from typing import Any

from pydantic import Field

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import Key, where
from prefect_pipestream.stages._item_class import ItemClass, as_class


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
