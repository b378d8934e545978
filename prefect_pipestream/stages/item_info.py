"""Looking at samples that stay as they are: collecting and verifying items, timing a stage."""

import time
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import DecodeError, ItemError, SampleError
from prefect_pipestream.items import Item, UnknownItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import Removal, SampleStage, StageInput, StageResult
from prefect_pipestream.stages._images import Key, KeyList, require_key


class StageIdentity(SampleStage, title="identity"):
    """Does nothing."""

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample itself."""
        return sample


class StageTimer(SampleStage, title="timer"):
    """Times another stage, and writes the nanoseconds into the sample's metadata."""

    stage: StageInput = Field(description='The stage to time: "name" or {"name": arguments}.')
    skip_first: int = Field(
        1, ge=0, description="How many samples not to time at first, in each process."
    )
    time_key_path: Key = Field(
        "timings.*",
        description="The key and the path where the time goes; `*` stands for the stage's name.",
    )
    process: bool = Field(
        False, description="Measure the time that the process was busy, not the time that went by."
    )

    _seen: int = PrivateAttr(0)

    def __init__(self, stage: Any, **arguments: Any) -> None:
        super().__init__(**{"stage": stage, **arguments})

    def __call__(self, sample: Sample) -> StageResult:
        """Returns what the stage returns, with the time in its sample.

        Raises:
            SampleError: If the path goes through a value that cannot hold it.
        """
        clock = time.process_time_ns if self.process else time.perf_counter_ns
        start = clock()
        result = self.stage(sample)
        elapsed = clock() - start
        self._seen += 1
        if self._seen <= self.skip_first or result is None or isinstance(result, Removal):
            return result
        name = self.stage.stage_title or type(self.stage).__name__
        path = self.time_key_path.replace("*", name)
        if isinstance(result, tuple):
            return result[0].deep_set(path, elapsed), result[1]
        return result.deep_set(path, elapsed)


@dataclass(frozen=True)
class ItemInfo:
    """What the samples seen have under one key.

    Attributes:
        item_type: The item class.
        is_shared: Whether the item was shared.
        count: How many samples had it; also `count_`.
    """

    item_type: type[Item[Any]]
    is_shared: bool
    count: int = 1

    @property
    def count_(self) -> int:
        """How many samples had it."""
        return self.count


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
        """Returns the sample itself.

        Raises:
            SampleError: If an item is of another class than those of its key before, or only one
                of them is shared.
        """
        for key, item in sample.items():
            before = self._infos.get(key, ItemInfo(type(item), item.is_shared, 0))
            if before.item_type is not type(item):
                raise SampleError(
                    f"item {key!r} is a {type(item).__name__}, and a {before.item_type.__name__} "
                    "in other samples: convert them first, as with `replace-item`."
                )
            if before.is_shared != item.is_shared:
                raise SampleError(
                    f"item {key!r} is shared in some samples only: use `share-items` first."
                )
            self._infos[key] = replace(before, count=before.count + 1)
        return sample


class StageVerifyItems(SampleStage, title="verify-items"):
    """Decodes every item; the sample fails if a file is broken or not what its name says."""

    key_list: KeyList = Field(
        default_factory=list,
        description="Keys of the items to verify. Leave it empty for all of the sample.",
    )
    allow_unknown: bool = Field(
        True,
        description="Let files pass whose extension no item class knows: they cannot be "
        "decoded, only linked and copied. If false, they fail the sample.",
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample itself.

        Raises:
            SampleError: If a key is missing.
            DecodeError: If items cannot be decoded; the message names the file of each. Also a
                pickle, unless the caller allows unpickling.
        """
        for key in self.key_list:
            require_key(sample, key)
        errors = {key: self._error_of(sample[key]) for key in self.key_list or sample}
        failures = [f"item {key!r}: {error}" for key, error in errors.items() if error]
        if failures:
            raise DecodeError(" ".join(failures))
        return sample

    def _error_of(self, item: Item[Any]) -> ItemError | None:
        is_let_pass = isinstance(item, UnknownItem) and self.allow_unknown
        return None if is_let_pass else item.decoding_error()
