"""Changing single items, of any class: their metadata, where they are kept, and their hash."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import Item, YamlMetadataItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._canonical import NotPlainError, canonical
from prefect_pipestream.stages._images import Key, KeyList, require_key, where


class StageSetMetadata(SampleStage, title="set-meta"):
    """Sets a value inside a metadata item; a new item is YAML."""

    key_path: Key = Field(
        description="The key, then a path into its value, as `meta.scores[0].label`. A "
        "backslash takes the next `.` or `[` literally."
    )
    value: Any = Field(
        None, description="What to set: a text, number, truth value, list, mapping or nothing."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the value set; itself if it is there already.

        Raises:
            SampleError: If the path goes through a value that cannot hold it.
            DecodeError: If the item cannot be decoded.
        """
        missing = object()
        if _are_equal(sample.deep_get(self.key_path, missing), self.value):
            return sample
        return sample.deep_set(self.key_path, self.value)


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return canonical(one) == canonical(other)
    except NotPlainError:
        return False


def _check_algorithm(name: str) -> str:
    if name not in hashlib.algorithms_available or not hashlib.new(name).digest_size:
        known = sorted(a for a in hashlib.algorithms_guaranteed if hashlib.new(a).digest_size)
        raise ValueError(f"there is no hash algorithm {name!r}: choose one of {', '.join(known)}")
    return name


class StageSampleHash(SampleStage, title="sample-hash"):
    """Hashes the values of items, so that samples of the same content can be found.

    The hash is of the values, not of their files: it is the same for a PNG and a TIFF of the
    same pixels, on every machine and Python version.
    """

    algorithm: Annotated[str, AfterValidator(_check_algorithm)] = Field(
        "sha256", description="The name of the hash algorithm, as in `hashlib`."
    )
    # Not an attribute `keys`: Prefect, which looks into parameters, would take it for a method.
    key_list: KeyList = Field(
        alias="keys", min_length=1, description="The keys of the items to hash, in this order."
    )
    hash_key: Key = Field(
        "hash",
        description="The key of the result: a metadata item whose value is the hexadecimal "
        "digests of the items, one behind the other.",
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the hash; itself if it holds that already.

        Raises:
            SampleError: If a key is missing, or a value is not made of plain values and arrays.
            DecodeError: If an item cannot be decoded.
        """
        digest = "".join(self._digest(sample, key) for key in self.key_list)
        item = sample.get(self.hash_key)
        if isinstance(item, YamlMetadataItem) and item() == digest:
            return sample
        return sample.set_item(self.hash_key, YamlMetadataItem(digest))

    def _digest(self, sample: Sample, key: str) -> str:
        require_key(sample, key)
        try:
            content = canonical(sample[key]())
        except NotPlainError as error:
            raise SampleError(f"cannot hash item {where(key, sample[key])}: {error}") from error
        return hashlib.new(self.algorithm, content, usedforsecurity=False).hexdigest()


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


class StageCopyItems(SampleStage, title="copy-items"):
    """Gives each sample items of another sample. Only from Python: no text can name a sample."""

    model_config = ConfigDict(populate_by_name=True)
    from_text: ClassVar[bool] = False

    source: Sample = Field(description="The sample that the items are taken from.")
    key_list: KeyList = Field(alias="k", description="The keys of the items to take.")
    force_shared: bool = Field(
        False, alias="f", description="Share the items, also those that the source does not."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the items.

        Raises:
            MissingItemError: If the other sample lacks a key.
        """
        items = {key: self.source[key] for key in self.key_list}
        if self.force_shared:
            items = {key: item.make_new(item, shared=True) for key, item in items.items()}
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
        items: dict[str, Item[Any]] = {
            key: item.remove_data_source(*self.always_remove, *self.remove_by_key.get(key, ()))
            for key, item in sample.items()
        }
        return sample.merge(items)
