"""Tar shards in which each sample is some files of one name, as the library `webdataset` has."""

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.import_source import CATEGORIES, ImportSource, Items
from prefect_pipestream.sequences.sources.named_keys import NamedKeys
from prefect_pipestream.sequences.sources.shard_members import (
    CLASS,
    METADATA,
    OWN_FACTS,
    is_text,
    keys_for,
    number_in,
    usual_extension,
    value_of_text,
)
from prefect_pipestream.sequences.sources.shards import ShardIndex, shards_at
from prefect_pipestream.sequences.sources.splits import split_called
from prefect_pipestream.storage.file_part import PartOfFile

_LONGEST_TEXT = 1 << 20  # bytes: what is longer is an item of its own


class _Sorted(NamedTuple):
    """The files of a sample, by what becomes of them.

    Attributes:
        parts: Those that are items, by their extensions.
        keys: The keys of these.
        texts: The content of the others.
        known: What `metadata.json` says.
    """

    parts: Mapping[str, PartOfFile]
    keys: Mapping[str, str]
    texts: Mapping[str, str]
    known: Mapping[str, Any]


@source_sequence
class FromWebDataset(ImportSource, title="from_webdataset"):
    """Takes the samples in tar shards; their headers are read once, when needed.

    Raises:
        DatasetNotFoundError: If there are no shards.
        DatasetError: If a shard is compressed.
    """

    shards: Path
    image_key: str = "image"
    metadata_key: str = "metadata"
    keys: NamedKeys | None = None
    classes: list[str] | None = None
    allow_damaged: bool = False
    origin: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Looks whether there are shards."""
        for _, path in shards_at(self.shards):
            self.refuse_missing(Path(path), "shard")

    @property
    def location(self) -> Path:
        """The file, folder or pattern."""
        return self.shards

    @cached_property
    @DatasetError.explaining_questions()
    def _index(self) -> ShardIndex:
        index = ShardIndex()
        for name, path in shards_at(self.shards):
            index.add_shard(name, path, allow_damaged=self.allow_damaged)
        return index

    def found_names(self) -> Iterable[str]:
        """Finds the samples in all shards: `<shard>/<key>`."""
        return self._index.names

    def in_order(self, names: Iterable[str]) -> list[str]:
        """The names in the order of the shards, as other readers have them."""
        return names if isinstance(names, list) else list(names)

    @cached_property
    def _categories(self) -> Any:
        """The classes: as given, or those of `categories.json` beside the shards."""
        if self.classes is not None:
            return [{"id": number, "name": name} for number, name in enumerate(self.classes)]
        path = self.shards / "categories.json"
        return JsonMetadataItem(path)() if path.is_file() else None

    @cached_property
    def _label_of(self) -> Mapping[int, str]:
        listed = self._categories if isinstance(self._categories, list) else []
        return {
            one["id"]: one["name"]
            for one in listed
            if isinstance(one, dict)
            and isinstance(one.get("id"), int)
            and isinstance(one.get("name"), str)
        }

    def _parts_of(self, idx: int) -> dict[str, PartOfFile]:
        """The files of a sample by their extensions.

        Raises:
            DecodeError: If something is wrong with it.
        """
        container = self._index.shards[self._index.shard_of[idx]][1]
        if idx in self._index.problems:
            raise DecodeError(
                f"{container.path}: sample {self.names[idx]!r} {self._index.problems[idx]}"
            )
        key = self._index.key_of(idx)
        parts = {}
        for extension, offset, size in self._index.members_of(idx):
            path = f"{container.path}/{key}.{extension}"
            read = partial(container.read, offset, size, path)
            parts[extension] = PartOfFile(path, container, read, size)
        return parts

    def _texts_in(self, parts: Mapping[str, PartOfFile]) -> dict[str, str]:
        """The texts of a sample: what is short, and text indeed."""
        texts = {}
        for extension, part in parts.items():
            if is_text(extension) and part.size() <= _LONGEST_TEXT and not self._named(extension):
                try:
                    texts[extension] = _content_of(part).decode("utf-8")
                except UnicodeDecodeError:  # an item of its own: nothing is lost
                    continue
        return texts

    def _named(self, extension: str) -> bool:
        return extension in (self.keys or {})

    def _known_in(self, parts: Mapping[str, PartOfFile]) -> Mapping[str, Any]:
        """What `metadata.json` says, if it can be part of the metadata."""
        if METADATA not in parts or self._named(METADATA):
            return {}
        try:
            value = Item.from_source(parts[METADATA].anew())()
        except DecodeError:  # an item of its own, which cannot be decoded
            return {}
        can_be = isinstance(value, dict) and not OWN_FACTS.intersection(value)
        return value if can_be else {}

    def _sorted(self, idx: int) -> _Sorted:
        """Tells what the metadata says of a sample from the items that it has."""
        parts = self._parts_of(idx)
        texts, known = self._texts_in(parts), self._known_in(parts)
        rest = {
            extension: part
            for extension, part in parts.items()
            if extension not in texts and not (extension == METADATA and known)
        }
        taken = {self.metadata_key, CATEGORIES}
        return _Sorted(rest, keys_for(rest, self.keys or {}, self.image_key, taken), texts, known)

    @cached_property
    def _places(self) -> list[dict[str, str]]:
        """What is known of the samples in each shard."""
        return [_place_of(shard) for shard, _ in self._index.shards]

    def _label_in(self, texts: Mapping[str, str]) -> dict[str, Any]:
        number = number_in(texts.get(CLASS))
        if number is None:
            return {}
        label = self._label_of.get(number)
        return {"label_id": number} if label is None else {"label": label, "label_id": number}

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `shard`, and `split`, `label`, `label_id` and `texts` as far as there are any.

        `members` has the extensions of items that do not follow from their keys.
        """
        _, keys, texts, known = self._sorted(idx)
        values = {one: value_of_text(one, text) for one, text in texts.items()}
        if isinstance(values.get(CLASS), int):
            del values[CLASS]  # it is the label's number
        unusual = {
            key: extension
            for extension, key in keys.items()
            if extension != usual_extension(key, extension.rpartition(".")[2], self.image_key)
        }
        place = self._places[self._index.shard_of[idx]]
        facts = {**place, **self._label_in(texts), **known}
        facts |= {"texts": values} if values else {}
        return facts | ({"members": unusual} if unusual else {})

    def items_of(self, idx: int) -> Items:
        """Returns the image and other files."""
        parts, keys, *_ = self._sorted(idx)
        return {keys[one]: Item.from_source(part) for one, part in parts.items()}

    @cached_property
    def shared_items(self) -> Items:
        """The classes, if there are any."""
        if self._categories is None:
            return {}
        return {CATEGORIES: JsonMetadataItem(self._categories, shared=True)}


def _place_of(shard: str) -> dict[str, str]:
    path = PurePosixPath(shard)
    words = (path.parts[0], path.name.split("-")[0].split("_")[0])
    split = next(filter(split_called, words), None)
    return {"shard": shard} if split is None else {"shard": shard, "split": split}


def _content_of(part: PartOfFile) -> bytes:
    try:
        return part.read()
    except FileNotFoundError as error:
        raise DecodeError(f"{part.path}: there is no {part.file} (any more).") from error
