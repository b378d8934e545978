"""Tar shards, as the library `webdataset` reads them."""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import Exporter, free_name, place_below
from prefect_pipestream.exporting.objects import split_of
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.shard_members import (
    CLASS,
    METADATA,
    OWN_FACTS,
    number_in,
    usual_extension,
)

_USUAL = 1000


class WebDatasetExporter(Exporter):
    """Writes each sample into a shard: its items, its class (`cls`) and its texts.

    Shards are equal for equal samples: files have no time and no owner, and are in order.
    """

    samples_per_shard: int | None = Field(
        None,
        ge=1,
        description="How many samples a shard has. By default those that it had at its source; "
        f"{_USUAL:,} of what does not come from shards.",
    )

    _classes: Classes = PrivateAttr(default_factory=lambda: Classes(0, are_whole=True))
    _written: Counter[str] = PrivateAttr(default_factory=Counter)
    _shards: dict[str, None] = PrivateAttr(default_factory=dict)
    _names: set[tuple[str, str]] = PrivateAttr(default_factory=set)

    def write(self, idx: int, sample: Sample) -> None:
        """Appends a sample to its shard.

        Raises:
            SampleError: If it has no items, or two that get one name.
            ItemError: If an item cannot be written.
        """
        facts = self.metadata_of(sample)
        members = self._members_of(idx, sample, facts)
        shard, key, series = self._place_of(idx, facts)
        content = b"".join(
            _packed(f"{key}.{extension}", members[extension]) for extension in sorted(members)
        )
        path = self.folder / f"{shard}.tar"
        if shard not in self._shards:
            self.begin(path)
        with open(path, "ab") as file:
            file.write(content)
        self._shards[shard] = None
        self._names.add((shard, key))
        self._written[series] += 1

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are noted from now on."""
        return self._classes.noted()

    def finish(self) -> None:
        """Ends each shard, and writes the classes beside them."""
        for shard in self._shards:
            with open(self.folder / f"{shard}.tar", "ab") as file:
                file.write(bytes(2 * tarfile.BLOCKSIZE))
                file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
        if self._classes.known:
            self.put(JsonMetadataItem(list(self._classes.known)), self.folder / "categories.json")

    def _place_of(self, idx: int, facts: Mapping[str, Any]) -> tuple[str, str, str]:
        """The shard, the key in it, and the series of shards that it is one of."""
        shard, file = place_below(facts.get("shard")), place_below(facts.get("file"))
        is_from_shard = shard is not None and (file or "").startswith(f"{shard}/")
        if is_from_shard:
            key = str(file)[len(str(shard)) + 1 :]
        else:
            key = os.path.splitext(file or f"{idx:06d}")[0]
        series = split_of(idx, facts) or ""
        if not is_from_shard or self.samples_per_shard is not None:
            number = self._written[series] // (self.samples_per_shard or _USUAL)
            shard = f"{series or 'data'}-{number:06d}"
        key = _without_dots(key)
        key = free_name(key, idx, lambda key: (str(shard), key) in self._names)
        return str(shard), key, series

    def _members_of(self, idx: int, sample: Sample, facts: Mapping[str, Any]) -> dict[str, bytes]:
        """The content of each file of a sample, by its extension."""
        members: dict[str, bytes] = {}
        said = facts.get("members")
        for key, item in sample.items():
            if item.is_shared or key == self.metadata_key:
                continue
            extension = self._extension_of(key, item, said if isinstance(said, dict) else {})
            if extension in members:
                raise SampleError(f"sample {idx}: two items would be its file .{extension}.")
            members[extension] = self.bytes_of(item, item.extension_in_use())
        self._classes.take(idx, sample)
        for extension, content in self._facts_as_members(idx, facts).items():
            if extension in members:
                raise SampleError(
                    f"sample {idx}: its metadata and an item would both be its file .{extension}. "
                    "Rename the item."
                )
            members[extension] = content
        if not members:
            raise SampleError(f"sample {idx} has no item to write.")
        return members

    def _extension_of(self, key: str, item: Item[Any], said: Mapping[str, Any]) -> str:
        in_use = item.extension_in_use().removeprefix(".")
        was = said.get(key)
        if isinstance(was, str) and was.isprintable() and "/" not in was:
            word, dot, last = was.rpartition(".")
            return was if last == in_use else f"{word}{dot}{in_use}"
        return usual_extension(key, in_use, self.image_key)

    def _facts_as_members(self, idx: int, facts: Mapping[str, Any]) -> dict[str, bytes]:
        texts = facts.get("texts")
        said = dict(texts) if isinstance(texts, Mapping) else {}
        found = self._other_facts(idx, facts)
        for extension, value in said.items():
            if not isinstance(value, str | int) or not extension.isprintable() or "/" in extension:
                raise SampleError(
                    f"sample {idx}: `texts` has {extension!r}: {value!r}; expected extensions, and "
                    "texts or whole numbers."
                )
            found[extension] = str(value).encode("utf-8")
        number = self._classes.id_of(facts)
        if number is not None and number_in(said.get(CLASS)) != number:
            found[CLASS] = str(number).encode()
        return found

    def _other_facts(self, idx: int, facts: Mapping[str, Any]) -> dict[str, bytes]:
        others = {name: value for name, value in facts.items() if name not in OWN_FACTS}
        if not others:
            return {}
        try:
            return {METADATA: json.dumps(others).encode()}
        except (TypeError, ValueError) as error:
            raise EncodeError(f"sample {idx}: its metadata is no JSON: {error}.") from error


def _without_dots(key: str) -> str:
    """A key as shards have it: it ends at the first dot of a file's name."""
    path = PurePosixPath(key)
    name = path.name.replace(".", "_") or "_"
    return str(path.with_name(name)) if path.name else name


def _packed(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict") + content + padding
