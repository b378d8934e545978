"""Choosing and renaming the keys of a sample. Keys that it does not have are ignored."""

from pydantic import Field

from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import Key, KeyList


class StageRemap(SampleStage, title="remap-key"):
    """Renames keys. A key whose new name is taken keeps its old one."""

    remap: dict[Key, Key] = Field(description="The new key by old key.")
    remove_missing: bool = Field(
        True, description="Remove the items whose keys are not in `remap`, rather than keep them."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the keys renamed, in the order of `remap`."""
        if self.remove_missing:
            sample = sample.extract_keys(*self.remap)
        for old, new in self.remap.items():
            sample = sample.rename_key(old, new)
        return sample


class StageKeysFilter(SampleStage, title="filter-keys"):
    """Keeps, or removes, the items of some keys."""

    key_list: KeyList = Field(description="The keys to keep.")
    negate: bool = Field(False, description="Remove the keys and keep all others.")

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the remaining items."""
        if self.negate:
            return sample.remove_keys(*self.key_list)
        return sample.extract_keys(*self.key_list)


class StageKeyFormat(SampleStage, title="format-key"):
    """Renames keys by a pattern. A key whose new name is taken keeps its old one."""

    key_format: str = Field(
        "*",
        description="The new key: each `*` stands for the old one, and text without a `*` is "
        "put behind it.",
    )
    apply_to: KeyList | None = Field(
        None, description="The keys to rename. By default all of the sample."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the keys renamed."""
        for key in list(sample) if self.apply_to is None else self.apply_to:
            sample = sample.rename_key(key, format_key(self.key_format, key))
        return sample


class StageDuplicateKey(SampleStage, title="duplicate-key"):
    """Puts an item under a second key too, unless that is taken."""

    source_key: Key = Field(description="The key of the item.")
    copy_to: Key = Field(description="The second key.")

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the second key."""
        return sample.duplicate_key(self.source_key, self.copy_to)
