"""Saved datasets of the library `datasets` of Hugging Face."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import Exporter
from prefect_pipestream.items import ImageItem, Item, MetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.hf_columns import (
    HF,
    OWN_FACTS,
    Column,
    array_bytes,
    datasets,
    described,
    from_plain,
    is_list,
)

_MOST_ROWS = 200  # of a batch, and its bytes:
_MOST_BYTES = 64 << 20
_SPOOL = ".rows"


class HfExporter(Exporter):
    """Writes samples as rows: files as they are, classes as `ClassLabel`, metadata as columns.

    Columns are those that an import found; of other samples they are told by what these have:
    images are `Image`, other files bytes, JSON items JSON as text, and fields of the metadata
    numbers, texts, or JSON as text where they are neither.
    """

    samples_per_file: int | None = Field(
        None, ge=1, description="How many rows a file has; by default as the library has it."
    )

    _classes: Classes = PrivateAttr(default_factory=Classes)
    _known: Any = PrivateAttr(None)
    _columns: list[Column] = PrivateAttr(default_factory=list)
    _types: dict[str, Any] = PrivateAttr(default_factory=dict)
    _kinds: dict[str, str] = PrivateAttr(default_factory=dict)
    _splits: dict[str, int] = PrivateAttr(default_factory=dict)
    _has_new_label: bool = PrivateAttr(False)
    _is_begun: bool = PrivateAttr(False)

    def add(self, idx: int, sample: Sample) -> None:
        """Notes the row of a sample beside the export, which is written once all are known.

        Raises:
            SampleError: If a value does not fit its column.
            ItemError: If an item cannot be written.
        """
        self._begin(sample)
        facts = self.metadata_of(sample)
        split = facts.get("split")
        split = split if isinstance(split, str) and _is_name(split) else ""
        row: dict[str, Any] = {}
        files: dict[str, Item[Any]] = {}
        kinds = dict(self._kinds)
        for column in self._columns:
            row[column.name] = self._known_value(idx, column, sample, facts, files)
        self._add_others(idx, sample, facts, row, files, kinds)
        self._note(split, row, {name: self._bytes_of(item) for name, item in files.items()})
        self._kinds = kinds

    def _begin(self, sample: Sample) -> None:
        if not self._is_begun:
            datasets()
            if HF in sample and sample[HF].is_shared:
                self._known, self._columns = described(sample[HF]())
                schema = self._known.arrow_schema
                self._types = {name: schema.field(name).type for name in self._known}
            self._is_begun = True
        self._classes.know(sample)
        for column in self._columns:
            if column.role == "label":
                self._classes.begin_with(self._known[column.name].names)

    # -- rows of known columns -------------------------------------------------------------

    def _known_value(
        self,
        idx: int,
        column: Column,
        sample: Sample,
        facts: Mapping[str, Any],
        files: dict[str, Item[Any]],
    ) -> Any:
        if column.role == "file":
            return _file_of(sample, column.key, facts, files)
        if column.role == "files":
            found: list[Any] = []
            while f"{column.key}_{len(found)}" in sample:
                found.append(_file_of(sample, f"{column.key}_{len(found)}", facts, files))
            return found
        if column.role == "label":
            return self._number_of(facts)
        feature = self._known[column.name]
        try:
            if column.role == "array":
                return _list_of(feature, sample.get(column.key))
            value = facts.get(column.key)
            json.dumps(value)
            self._require_fitting(column.name, from_plain(feature, value))
            return value
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise SampleError(
                f"sample {idx}: {column.key!r} does not fit the column {column.name!r}, {feature} "
                f"({error})."
            ) from error

    def _require_fitting(self, name: str, value: Any) -> None:
        import pyarrow

        kind = self._types[name]
        if not isinstance(kind, pyarrow.BaseExtensionType):
            pyarrow.array([value], kind)

    def _number_of(self, facts: Mapping[str, Any]) -> int | None:
        if facts.get("label") is None and facts.get("label_id") is None:
            return None
        number = self._classes.id_of(facts)
        if number is None or number < -1:
            raise SampleError(f"`label_id` {number!r}: expected the number of a class, or -1.")
        return number

    # -- rows of what else there is --------------------------------------------------------

    def _add_others(
        self,
        idx: int,
        sample: Sample,
        facts: Mapping[str, Any],
        row: dict[str, Any],
        files: dict[str, Item[Any]],
        kinds: dict[str, str],
    ) -> None:
        """Adds columns for items and facts that no column is known for."""
        for key, item in sample.items():
            if not (item.is_shared or key == self.metadata_key or self._has_column(key)):
                self._add_item(idx, key, item, facts, row, files, kinds)
        plain = {column.key for column in self._columns if column.role == "plain"}
        for name, value in facts.items():
            if name not in OWN_FACTS and name not in plain:
                _require_new(idx, name, row)
                row[name] = value
                kinds[name] = _kind_with(kinds.get(name), value)
        if not self._columns:
            row["file"] = facts.get("file")
            kinds["file"] = _kind_with(kinds.get("file"), row["file"])
        if not any(column.role == "label" for column in self._columns):
            number = self._number_of(facts)
            if number is not None:
                _require_new(idx, "label", row)
                row["label"] = number
                self._has_new_label = True

    def _has_column(self, key: str) -> bool:
        """Whether a column is known for an item."""
        for column in self._columns:
            if column.role in ("file", "array") and column.key == key:
                return True
            word, _, number = key.rpartition("_")
            if column.role == "files" and word == column.key and number.isdecimal():
                return True
        return False

    def _add_item(
        self,
        idx: int,
        key: str,
        item: Item[Any],
        facts: Mapping[str, Any],
        row: dict[str, Any],
        files: dict[str, Item[Any]],
        kinds: dict[str, str],
    ) -> None:
        _require_new(idx, key, row)
        if isinstance(item, ImageItem):
            stem = PurePosixPath(str(facts.get("file", f"{idx:06d}"))).stem
            files[key] = item
            row[key] = {"file": key, "path": stem + item.extension_in_use()}
            kind = "image"
        elif isinstance(item, MetadataItem):
            row[key], kind = item(), "json"
        else:
            files[key] = item
            row[key], kind = {"file": key}, "bytes"
        if kinds.setdefault(key, kind) != kind:
            raise SampleError(f"sample {idx}: {key!r} is another kind of item than in others.")

    # -- what is noted until all is known --------------------------------------------------

    def _bytes_of(self, item: Item[Any]) -> bytes:
        return self.bytes_of(item, item.extension_in_use())

    def _note(self, split: str, row: dict[str, Any], contents: Mapping[str, bytes]) -> None:
        try:
            line = json.dumps([row, {key: len(content) for key, content in contents.items()}])
        except (TypeError, ValueError) as error:
            raise EncodeError(f"its metadata is no JSON: {error}.") from error
        self._splits.setdefault(split, len(self._splits))
        rows, files = self._spool(split)
        rows.parent.mkdir(exist_ok=True)
        with open(files, "ab") as out:
            out.writelines(contents.values())
        with open(rows, "a", encoding="ascii") as lines:
            lines.write(line + "\n")

    def _spool(self, split: str) -> tuple[Path, Path]:
        base = self.folder / _SPOOL
        number = self._splits[split]
        return base / f"{number}.jsonl", base / f"{number}.bin"

    def finish(self) -> None:
        """Writes a dataset, or one for each split."""
        library = datasets()
        features = self._features()
        with _quiet(library):
            tables = {split: self._table(split, features) for split in self._splits}
            options: dict[str, Any] = {}
            if list(tables) == [""]:
                if self.samples_per_file:
                    options["num_shards"] = -(-len(tables[""]) // self.samples_per_file)
                tables[""].save_to_disk(str(self.folder), **options)
            else:
                named = {split or "other": table for split, table in tables.items()}
                if self.samples_per_file:
                    options["num_shards"] = {
                        split: -(-len(table) // self.samples_per_file)
                        for split, table in named.items()
                    }
                library.DatasetDict(named).save_to_disk(str(self.folder), **options)
        shutil.rmtree(self.folder / _SPOOL, ignore_errors=True)

    def _features(self) -> Any:
        library = datasets()
        features = library.Features(dict(self._known or {}))
        for column in self._columns:
            if column.role == "label":
                features[column.name] = library.ClassLabel(names=self._class_names())
        if self._has_new_label:
            names = self._class_names()
            features["label"] = library.ClassLabel(names=names) if names else _value("int64")
        for name, kind in self._kinds.items():
            features[name] = library.Image() if kind == "image" else _value(_DTYPES[kind])
        return features

    @property
    def _places(self) -> dict[int, int]:
        """The number of each class in the column: they go from 0 there, without gaps."""
        numbers = sorted(one["id"] for one in self._classes.listed)
        return {number: place for place, number in enumerate(numbers)}

    def _class_names(self) -> list[str]:
        return [one["name"] for one in sorted(self._classes.listed, key=lambda one: one["id"])]

    def _table(self, split: str, features: Any) -> Any:
        """The rows of a split as a table that is mapped into memory."""
        import pyarrow

        library = datasets()
        path = self._spool(split)[0].with_suffix(".arrow")
        name = library.NamedSplit(split) if split else None
        with pyarrow.OSFile(str(path), "wb") as out:
            writer = None
            for batch in self._batches(split, features):
                rows = [features.encode_example(row) for row in batch]
                table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
                writer = writer or pyarrow.ipc.new_stream(out, table.schema)
                writer.write_table(table)
            if writer is not None:
                writer.close()
        return library.Dataset.from_file(str(path), split=name)

    def _batches(self, split: str, features: Any) -> Iterator[list[dict[str, Any]]]:
        rows, files = self._spool(split)
        batch: list[dict[str, Any]] = []
        size = 0
        with open(rows, encoding="ascii") as lines, open(files, "rb") as contents:
            for line in lines:
                row, sizes = json.loads(line)
                found = {key: contents.read(length) for key, length in sizes.items()}
                batch.append(self._example(row, found, features))
                size += sum(sizes.values())
                if len(batch) >= _MOST_ROWS or size >= _MOST_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    def _example(
        self, row: Mapping[str, Any], contents: Mapping[str, bytes], features: Any
    ) -> dict[str, Any]:
        roles = {column.name: column.role for column in self._columns}
        example = {}
        for name, feature in features.items():
            value = row.get(name)
            role = roles.get(name)
            if role == "plain":
                example[name] = from_plain(feature, value)
            elif is_list(feature) and role == "files":
                example[name] = [_filled(one, contents) for one in value or ()]
            elif self._kinds.get(name) == "json":
                example[name] = json.dumps(value) if name in row else None
            elif self._kinds.get(name) == "bytes":
                example[name] = None if value is None else contents[value["file"]]
            elif self._kinds.get(name) == "image" or role == "file":
                example[name] = _filled(value, contents)
            elif name == "label" and role is None and self._classes.listed:
                example[name] = None if value is None else self._places.get(value)
            else:
                example[name] = value
        return example


_DTYPES = {
    "none": "string",
    "true or false": "bool",
    "whole": "int64",
    "number": "float64",
    "text": "string",
    "json": "string",
    "bytes": "binary",
}


def _value(dtype: str) -> Any:
    return datasets().Value(dtype)


def _kind_with(known: str | None, value: Any) -> str:
    """What a column holds that held `known` until now, and holds this value, too."""
    kind = "json"
    if value is None:
        kind = "none"
    elif isinstance(value, bool):
        kind = "true or false"
    elif isinstance(value, int):
        kind = "whole" if -(2**63) <= value < 2**63 else "json"
    elif isinstance(value, float):
        kind = "number"
    elif isinstance(value, str):
        kind = "text"
    if known is None or known == "none" or known == kind:
        return kind
    if kind == "none":
        return known
    return "number" if {known, kind} == {"whole", "number"} else "json"


def _require_new(idx: int, name: str, row: Mapping[str, Any]) -> None:
    if name in row:
        raise SampleError(f"sample {idx}: two columns would be called {name!r}. Rename one.")


def _file_of(
    sample: Sample, key: str, facts: Mapping[str, Any], files: dict[str, Item[Any]]
) -> dict[str, Any] | None:
    """What is noted of a file; the file itself is among `files`."""
    item = sample.get(key)
    if item is None:
        return None
    files[key] = item
    paths = facts.get("paths")
    path = paths.get(key) if isinstance(paths, Mapping) else None
    return {"file": key, "path": path if isinstance(path, str) else None}


def _filled(value: Any, contents: Mapping[str, bytes]) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"bytes": contents[value["file"]], "path": value["path"]}


def _list_of(feature: Any, item: Item[Any] | None) -> Any:
    if item is None:
        return None
    value = np.asarray(item())
    is_fitting = len(value.shape) == len(feature.shape) and all(
        wanted in (None, length) for wanted, length in zip(feature.shape, value.shape, strict=True)
    )
    if not is_fitting or not np.can_cast(value.dtype, feature.dtype, "same_kind"):
        raise ValueError(f"an array of {value.dtype} with shape {value.shape}")
    array_bytes(feature, value)
    return value.astype(feature.dtype).tolist()


def _is_name(split: str) -> bool:
    """Whether the library takes a name for one of a split."""
    return split.replace("_", "").replace(".", "").isalnum() and split.strip(".") != ""


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keeps the library from drawing progress bars of its own."""
    if library.are_progress_bars_disabled():
        yield
        return
    library.disable_progress_bars()
    try:
        yield
    finally:
        library.enable_progress_bars()
