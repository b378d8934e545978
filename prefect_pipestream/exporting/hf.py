"""Saved datasets of the library `datasets` of Hugging Face."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import EncodeError, SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import Exporter
from prefect_pipestream.exporting.hf_rows import DTYPES, Row, filled, is_split, list_of
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.categories import Categories
from prefect_pipestream.sequences.sources.hf_columns import (
    HF,
    OWN_FACTS,
    Column,
    datasets,
    described,
    from_plain,
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

    _classes: Classes = PrivateAttr(default_factory=lambda: Classes(0, are_whole=True))
    _known: Any = PrivateAttr(None)
    _columns: list[Column] = PrivateAttr(default_factory=list)
    _types: dict[str, Any] = PrivateAttr(default_factory=dict)
    _kinds: dict[str, str] = PrivateAttr(default_factory=dict)
    _splits: dict[str, int] = PrivateAttr(default_factory=dict)
    _has_new_label: bool = PrivateAttr(False)
    _is_begun: bool = PrivateAttr(False)

    def write(self, idx: int, sample: Sample) -> None:
        """Notes the row of a sample beside the export, which is written once all are known.

        Raises:
            SampleError: If a value does not fit its column.
            ItemError: If an item cannot be written.
        """
        self._begin(idx, sample)
        row = Row(idx, sample, self.metadata_of(sample), dict(self._kinds))
        for column in self._columns:
            row.values[column.name] = self._known_value(column, row)
        has_new_label = self._add_others(row)
        self._note(row)
        self._kinds = row.kinds
        self._has_new_label |= has_new_label

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are noted from now on."""
        return self._classes.noted()

    def _begin(self, idx: int, sample: Sample) -> None:
        if not self._is_begun:
            datasets()
            if HF in sample and sample[HF].is_shared:
                self._known, self._columns = described(sample[HF]())
                schema = self._known.arrow_schema
                self._types = {name: schema.field(name).type for name in self._known}
            self._is_begun = True
        self._classes.take(idx, sample)
        for column in self._columns:
            if column.role == "label":
                self._classes.begin_with(self._known[column.name].names)

    # -- rows of known columns -------------------------------------------------------------

    def _known_value(self, column: Column, row: Row) -> Any:
        if column.role == "file":
            return row.file(column.key)
        if column.role == "files":
            return row.files_of_list(column.key)
        if column.role == "label":
            return self._number_of(row)
        feature = self._known[column.name]
        try:
            if column.role == "array":
                return list_of(feature, row.sample.get(column.key))
            value = row.facts.get(column.key)
            json.dumps(value)
            self._require_fitting(column.name, from_plain(feature, value))
            return value
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise SampleError(
                f"sample {row.idx}: {column.key!r} does not fit the column {column.name!r}, "
                f"{feature} ({error})."
            ) from error

    def _require_fitting(self, name: str, value: Any) -> None:
        import pyarrow

        kind = self._types[name]
        if not isinstance(kind, pyarrow.BaseExtensionType):
            pyarrow.array([value], kind)

    def _number_of(self, row: Row) -> int | None:
        number = self._classes.id_of(row.facts)
        is_known = number in (None, -1) or number in self._places or not self._classes.known
        if not is_known:
            raise SampleError(
                f"sample {row.idx}: `label_id` {number!r} is that of no class. Add it to "
                "`categories`, or correct it."
            )
        if self._classes.known and self._classes.are_nameless:
            raise SampleError(
                f"sample {row.idx} has a class with a name, and samples before have `label_id` "
                "without one. Add their classes to `categories`."
            )
        return number

    # -- rows of what else there is --------------------------------------------------------

    def _add_others(self, row: Row) -> bool:
        """Adds columns for items and facts that no column is known for; whether one for a class."""
        for key in sorted(row.sample, key=lambda key: key != self.image_key):
            is_own = not row.sample[key].is_shared and key != self.metadata_key
            if is_own and not self._has_column(key):
                row.add_item(key)
        plain = {column.key for column in self._columns if column.role == "plain"}
        for name, value in row.facts.items():
            if name not in OWN_FACTS and name not in plain:
                row.add_fact(name, value)
        if not self._columns:
            row.add_fact("file", row.facts.get("file"))
        if not any(column.role == "label" for column in self._columns):
            number = self._number_of(row)
            if number is not None:
                row.add("label", number)
                return True
        return False

    def _has_column(self, key: str) -> bool:
        """Whether a column is known for an item."""
        for column in self._columns:
            if column.role in ("file", "array") and column.key == key:
                return True
            word, _, number = key.rpartition("_")
            if column.role == "files" and word == column.key and number.isdecimal():
                return True
        return False

    # -- what is noted until all is known --------------------------------------------------

    def _note(self, row: Row) -> None:
        contents = {
            key: self.bytes_of(item, item.extension_in_use()) for key, item in row.files.items()
        }
        try:
            line = json.dumps([row.values, {key: len(found) for key, found in contents.items()}])
        except (TypeError, ValueError) as error:
            raise EncodeError(f"sample {row.idx}: its metadata is no JSON: {error}.") from error
        split = _split_of(row)
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
            named = {split or self._rest: table for split, table in tables.items()}
            counts = {split: self._file_count(table) for split, table in named.items()}
            if list(tables) == [""]:
                tables[""].save_to_disk(str(self.folder), num_shards=counts[self._rest])
            else:
                many = counts if self.samples_per_file else None
                library.DatasetDict(named).save_to_disk(str(self.folder), num_shards=many)
        shutil.rmtree(self.folder / _SPOOL, ignore_errors=True)

    @property
    def _rest(self) -> str:
        """What the samples without a split are called beside those of splits."""
        name = "other"
        while name in self._splits:
            name += "_"
        return name

    def _file_count(self, table: Any) -> int | None:
        """How many files a table gets; None: as the library has it."""
        return -(-len(table) // self.samples_per_file) if self.samples_per_file else None

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
            features[name] = library.Image() if kind == "image" else _value(DTYPES[kind])
        return features

    @property
    def _places(self) -> Mapping[int | None, int]:
        return _column_of(self._classes.known)[1]

    def _class_names(self) -> list[str]:
        return _column_of(self._classes.known)[0]

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
        """A row as the library takes it."""
        roles = {column.name: column.role for column in self._columns}
        example = {}
        for name, feature in features.items():
            role = roles.get(name) or self._kinds.get(name, "label")
            value = row.get(name)
            if role == "plain":
                value = from_plain(feature, value)
            elif role == "files":
                value = [filled(one, contents) for one in value or ()]
            elif role == "json":
                value = json.dumps(value) if name in row else None
            elif role in ("file", "image"):
                value = filled(value, contents)
            elif role == "bytes":
                value = None if value is None else contents[value["file"]]
            elif role == "label" and self._classes.known and value != -1:
                value = self._places.get(value)
            example[name] = value
        return example


@lru_cache(maxsize=1)
def _column_of(known: Categories) -> tuple[list[str], Mapping[int | None, int]]:
    """The names of classes in a column, and the number there of each: from 0 on, without gaps.

    Classes of one name are one there, as the library has it.
    """
    listed = sorted(known, key=lambda one: one["id"])
    names = list(dict.fromkeys(one["name"] for one in listed))
    places = {name: place for place, name in enumerate(names)}
    return names, {one["id"]: places[one["name"]] for one in listed}


def _split_of(row: Row) -> str:
    """The split of a sample; a text without a letter if it has none.

    Raises:
        SampleError: If the library takes it for no name of one.
    """
    said = row.facts.get("split")
    if said is None:
        return ""
    if not isinstance(said, str) or not is_split(said):
        raise SampleError(
            f"sample {row.idx}: `split` {said!r} is no name of a split, which has letters, digits "
            "and `_`. Give it one as `metadata.split`."
        )
    return said


def _value(dtype: str) -> Any:
    return datasets().Value(dtype)


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
