"""Where items are kept: shared by all samples or not, and in which files."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from prefect_pipestream.items import Item
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import Key, KeyList


class StageShareItems(SampleStage, title="share-items"):
    """Makes items shared by all samples of a dataset, or not. Missing keys are ignored."""

    share: KeyList = Field(
        default_factory=list,
        description="Keys of the items to share: written once, in the root of the dataset.",
    )
    unshare: KeyList = Field(
        default_factory=list, description="Keys of the items to write for each sample."
    )

    @model_validator(mode="after")
    def _check_disjoint(self) -> Self:
        if both := set(self.share) & set(self.unshare):
            raise ValueError(f"{sorted(both)[0]!r} is in both `share` and `unshare`")
        return self

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the items; their files stay their sources, to be linked."""
        items: dict[str, Item[Any]] = {}
        for keys, shared in ((self.share, True), (self.unshare, False)):
            for key in keys:
                if key in sample and sample[key].is_shared is not shared:
                    items[key] = sample[key].make_new(sample[key], shared=shared)
        return sample.merge(items)


class StageForgetSource(SampleStage, title="forget-source"):
    """Makes items forget files, so that they are written anew rather than linked to those.

    An item with no other file is decoded and keeps its value in memory. An image's new file still
    keeps what the forgotten one has beside its pixels.
    """

    always_remove: list[Path] = Field(
        default_factory=list,
        description="Files to forget, or folders with all the files below them.",
    )
    remove_by_key: dict[Key, list[Path]] = Field(
        default_factory=dict, description="More files and folders to forget, by item key."
    )

    def __init__(
        self, *paths: str | Path, always_remove: Any = (), remove_by_key: Any = None
    ) -> None:
        fields = {
            "always_remove": [*always_remove, *paths],
            "remove_by_key": remove_by_key or {},
        }
        super().__init__(**fields)

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the files forgotten.

        Raises:
            DecodeError: If an item that has no other file cannot be decoded.
        """
        items: dict[str, Item[Any]] = {}
        for key, item in sample.items():
            forgotten = [*self.always_remove, *self.remove_by_key.get(key, ())]
            items[key] = _without(item, [path.absolute() for path in forgotten])
        return sample.merge(items)


def _without(item: Item[Any], forgotten: list[Path]) -> Item[Any]:
    kept = [
        source
        for source in item.file_sources
        if not any(Path(source.path).is_relative_to(path) for path in forgotten)
    ]
    if len(kept) == len(item.file_sources):
        return item
    if item.has_value or not kept:
        return item.make_new(item(), *kept, shared=item.is_shared)
    return item.make_new(*kept, shared=item.is_shared)
