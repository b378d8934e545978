"""Tables of samples: CSV, JSON Lines or Parquet, with the files that they name beside them."""

import filecmp
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.exporter import Exporter, is_folder_name, place_below
from prefect_pipestream.items import Item, MetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.parquet import ParquetSchema
from prefect_pipestream.sequences.sources.tables import (
    FORMATS,
    RESERVED,
    TABLE,
    TableFormat,
    write_csv,
)
from prefect_pipestream.storage.asking import is_there

_PATH_COLUMN = "file_name"  # by which Hugging Face's `imagefolder` finds the images, too


@dataclass(frozen=True)
class _About:
    """What the table is to be like, as the item `table` tells it."""

    keys: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    file: str = ""
    format: str = ""
    delimiter: str = ","
    booleans: dict[str, list[str]] = field(default_factory=dict)
    schema: str | None = None

    @classmethod
    def of(cls, said: Any) -> "_About":
        """Raises a TypeError, KeyError or ValueError if it is not of this kind."""
        columns = {str(one["name"]): str(one["key"]) for one in said["columns"]}
        pairs = {name: [str(no), str(yes)] for name, (no, yes) in said.get("booleans", {}).items()}
        delimiter, schema = str(said.get("delimiter", ",")), said.get("schema")
        if len(delimiter) != 1 or not isinstance(schema, str | None):
            raise ValueError
        paths = {str(key): str(column) for key, column in said["paths"].items()}
        return cls(columns, paths, str(said["file"]), said["format"], delimiter, pairs, schema)


class TableExporter(Exporter):
    """Writes the metadata of each sample as a row, and the files that it names beside the table.

    What was imported from a table has the same columns in the same order, and its files at the same
    paths; what the metadata has besides becomes columns behind them. The files of other samples are
    where they were at their source, by the column `file_name`.
    """

    format: TableFormat | None = Field(
        None, description="csv, jsonl or parquet; by default what the table was, else csv."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description='Items to write as files, by key, with the column of their paths: {"mask": '
        '"mask_path"}; beside the image, and those that the table had.',
    )
    _about: _About | None = PrivateAttr(None)
    _said: Any = PrivateAttr(None)
    _rows: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _schema: ParquetSchema | None = PrivateAttr(None)

    def write(self, idx: int, sample: Sample) -> None:
        """Writes the files, and notes the row.

        Raises:
            SampleError: If there is no image, or the metadata has no place in the table.
            ItemError: If an item cannot be written, or a value has not the type of its column.
        """
        about = self._about_of(idx, sample)
        facts = self.metadata_of(sample)
        row = self._row_of(idx, facts, about)
        paths = self._paths(about)
        if not any(key in sample for key in paths) and TABLE not in sample:
            self.image_of(idx, sample)
        places = {
            column: self._place_of(idx, sample, key, row.get(column))
            for key, column in paths.items()
            if key in sample
        }
        self._check(row | places, about)
        for key, column in paths.items():
            if key in sample:
                row[column] = self._put_file(idx, sample[key], places[column])
            elif row.get(column):
                row[column] = None
        self._rows.append(row)

    def finish(self) -> None:
        """Writes the table."""
        about = self._about or _About(paths={self.image_key: _PATH_COLUMN})
        wanted = self._format(about)
        columns = dict.fromkeys([*about.keys] if about.keys else self._paths(about).values())
        for row in self._rows:
            columns.update(dict.fromkeys(row))
        path = self.folder / self._table_name(about, wanted)
        if wanted == "csv":
            write_csv(path, list(columns), self._rows, about.delimiter, about.booleans)
        elif wanted == "jsonl":
            with path.open("w", encoding="utf-8") as file:
                for row in self._rows:
                    ordered = {name: row[name] for name in columns if name in row}
                    file.write(json.dumps(ordered, ensure_ascii=False) + "\n")
        else:
            (self._schema or ParquetSchema(about.schema)).write(str(path), columns, self._rows)

    def _format(self, about: _About) -> str:
        return self.format or about.format or "csv"

    def _table_name(self, about: _About, wanted: str) -> str:
        stem, extension = os.path.splitext(about.file)
        is_name = is_folder_name(about.file) and bool(stem)
        is_same = FORMATS.get(extension.lower()) == wanted
        name = (stem if is_name else "metadata") + (
            extension if is_name and is_same else f".{wanted}"
        )
        return f"table-{name}" if is_there(str(self.folder / name)) else name

    # -- a row -------------------------------------------------------------------------------

    def _about_of(self, idx: int, sample: Sample) -> _About:
        """What the table was like: that of the first sample counts for all."""
        item = sample.get(TABLE)
        said = item() if isinstance(item, MetadataItem) and item.is_shared else None
        if self._about is None or said != self._said:
            try:
                own = _About.of(said) if said is not None else _About()
                if own.format not in ("", *FORMATS.values()):
                    raise ValueError
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise SampleError(
                    f"sample {idx}: the shared item {TABLE!r} does not tell what a table was like, "
                    "as an import has it. Remove it."
                ) from error
            if self._about is not None and own.keys:
                return own
            self._about, self._said = own, said
        return self._about

    def _paths(self, about: _About) -> dict[str, str]:
        return {**(about.paths or {self.image_key: _PATH_COLUMN}), **self.columns}

    def _row_of(self, idx: int, facts: Mapping[str, Any], about: _About) -> dict[str, Any]:
        """The metadata by the names of the columns, as plain values."""
        row = {name: facts[key] for name, key in about.keys.items() if key in facts}
        if "file" in about.keys and "file" not in row and "file" in facts:
            row["file"] = facts["file"]
        known = {*about.keys.values(), *RESERVED}
        row |= {str(key): value for key, value in facts.items() if key not in known}
        try:
            text = json.dumps(row, ensure_ascii=False, default=_as_plain)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(
                f"sample {idx}: its `{self.metadata_key}` cannot be a row of a table: {error}"
            ) from error
        plain: dict[str, Any] = json.loads(text)
        return plain

    def _check(self, row: Mapping[str, Any], about: _About) -> None:
        if self._format(about) != "parquet":
            return
        if self._schema is None:
            self._schema = ParquetSchema(about.schema)
        self._schema.check(row)

    # -- its files ---------------------------------------------------------------------------

    def _place_of(self, idx: int, sample: Sample, key: str, text: Any) -> str:
        """Where an item goes: to the path of its column, with the extension that it has now."""
        extension = sample[key].extension_in_use()
        if isinstance(text, str) and text and _is_place(text):
            stem, was = os.path.splitext(text)
            return text if was.lower() == extension.lower() else stem + extension
        if key == self.image_key:
            return self.file_of(idx, sample)
        return f"{key}/{idx:06d}{extension}"

    def _put_file(self, idx: int, item: Item[Any], text: str) -> str:
        """Writes an item's file, or names one of the same content that is there already."""
        wanted = self.folder / os.path.normpath(text)
        path = self.free_path(idx, os.path.normpath(text))
        self.put(item, path)
        if path != wanted and filecmp.cmp(path, wanted, shallow=False):
            path.unlink()
            return text
        return text if path == wanted else path.relative_to(self.folder).as_posix()


def _is_place(text: str) -> bool:
    return place_below(text) is not None and text.isprintable() and not text.endswith("/")


def _as_plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} is no plain data")
