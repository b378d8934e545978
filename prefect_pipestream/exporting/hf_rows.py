"""What a sample is as a row of a table, while it is not known yet what columns the table has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import ImageItem, Item, MetadataItem
from prefect_pipestream.sequences import Sample

DTYPES = {
    "none": "string",
    "true or false": "bool",
    "whole": "int64",
    "number": "float64",
    "text": "string",
    "json": "string",
    "bytes": "binary",
}
"""The types of columns, by what they hold; those of images are no values."""


@dataclass
class Row:
    """A sample on its way into a row.

    Attributes:
        idx: Its index.
        sample: The sample.
        facts: What its metadata says.
        kinds: What the columns hold that were not known before: see `DTYPES`.
        values: The values by columns; of a file it is where it came from, and its key in `files`.
        files: The items whose files are part of the row.
    """

    idx: int
    sample: Sample
    facts: Mapping[str, Any]
    kinds: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Item[Any]] = field(default_factory=dict)

    def file(self, key: str) -> dict[str, Any] | None:
        """Takes the file of an item; None if there is no such item."""
        item = self.sample.get(key)
        if item is None:
            return None
        self.files[key] = item
        paths = self.facts.get("paths")
        path = paths.get(key) if isinstance(paths, Mapping) else None
        return {"file": key, "path": path if isinstance(path, str) else None}

    def files_of_list(self, key: str) -> list[dict[str, Any] | None]:
        """Takes the files of the items `<key>_0`, `<key>_1`, …"""
        found: list[dict[str, Any] | None] = []
        while f"{key}_{len(found)}" in self.sample:
            found.append(self.file(f"{key}_{len(found)}"))
        return found

    def add(self, name: str, value: Any) -> None:
        """Adds a value.

        Raises:
            SampleError: If there is one of this column.
        """
        if name in self.values:
            raise SampleError(
                f"sample {self.idx}: two columns would be called {name!r}. Rename one."
            )
        self.values[name] = value

    def add_fact(self, name: str, value: Any) -> None:
        """Adds a field of the metadata, and notes what its column is to hold.

        Raises:
            SampleError: If there is a value of this column, or in other samples an item.
        """
        if self.kinds.get(name) in ("image", "bytes"):
            raise SampleError(f"sample {self.idx}: {name!r} is an item of others. Rename one.")
        self.add(name, value)
        self.kinds[name] = _kind_with(self.kinds.get(name), value)

    def add_item(self, key: str) -> None:
        """Adds an item: an image or another file, or metadata as JSON.

        Raises:
            SampleError: If there is a value of this column, or other samples have another kind.
        """
        item = self.sample[key]
        kind = "bytes"
        if isinstance(item, ImageItem):
            kind = "image"
            stem = PurePosixPath(str(self.facts.get("file", f"{self.idx:06d}"))).stem
            self.add(key, {"file": key, "path": stem + item.extension_in_use()})
        elif isinstance(item, MetadataItem):
            kind = "json"
            self.add(key, item())
        else:
            self.add(key, {"file": key})
        if kind != "json":
            self.files[key] = item
        if self.kinds.setdefault(key, kind) != kind:
            raise SampleError(f"sample {self.idx}: {key!r} is another kind of item than in others.")


def filled(value: Any, contents: Mapping[str, bytes]) -> dict[str, Any] | None:
    """A file as the library has it: its content and its path."""
    if value is None:
        return None
    return {"bytes": contents[value["file"]], "path": value["path"]}


def list_of(feature: Any, item: Item[Any] | None) -> Any:
    """An array as lists, for a column of arrays.

    Raises:
        ValueError: If it has not the shape and dtype of the column.
    """
    if item is None:
        return None
    value = np.asarray(item())
    is_fitting = len(value.shape) == len(feature.shape) and all(
        wanted in (None, length) for wanted, length in zip(feature.shape, value.shape, strict=True)
    )
    if not is_fitting or not np.can_cast(value.dtype, feature.dtype, "same_kind"):
        raise ValueError(f"an array of {value.dtype} with shape {value.shape}")
    return value.astype(feature.dtype).tolist()


def is_split(name: str) -> bool:
    """Whether the library takes a name for one of a split."""
    return re.fullmatch(r"\w+(\.\w+)*", name) is not None


def _kind_with(known: str | None, value: Any) -> str:
    """What a column holds that held `known` until now, and holds this value, too."""
    kind = _kind_of(value)
    if known in (None, "none", kind):
        return kind
    if kind == "none":
        return str(known)
    return "number" if {known, kind} == {"whole", "number"} else "json"


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true or false"
        case int() if -(2**63) <= value < 2**63:
            return "whole"
        case float():
            return "number"
        case str():
            return "text"
    return "json"
