"""Collecting what items samples have."""

from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr

from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage


@dataclass(frozen=True)
class ItemInfo:
    """What the samples seen have under one key.

    Attributes:
        item_type: The item class; where samples differ, the nearest class that they share.
        is_shared: Whether the item was shared in every sample.
        count: How many samples had it.
    """

    item_type: type[Item[Any]]
    is_shared: bool
    count: int = 1

    def joined(self, other: "ItemInfo") -> "ItemInfo":
        """Returns the information on the samples of both."""
        common = next(c for c in self.item_type.__mro__ if issubclass(other.item_type, c))
        return ItemInfo(common, self.is_shared and other.is_shared, self.count + other.count)


class StageItemInfo(SampleStage, title="item-info"):
    """Collects which items the samples have, in `items_info`; the samples stay as they are.

    It sees only the samples of its own process: run it without worker processes.
    """

    _infos: dict[str, ItemInfo] = PrivateAttr(default_factory=dict)

    @property
    def items_info(self) -> dict[str, ItemInfo]:
        """What was seen until now, by key."""
        return dict(self._infos)

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample itself."""
        for key, item in sample.items():
            info = ItemInfo(type(item), item.is_shared)
            seen = self._infos.get(key)
            self._infos[key] = info if seen is None else seen.joined(info)
        return sample
