"""Rows of a table that names files: CSV, JSON Lines, Parquet."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import field_validator

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.import_source import ImportSource, Items
from prefect_pipestream.sequences.sources.tables import (
    RESERVED,
    TABLE,
    Table,
    read_table,
    table_at,
)
from prefect_pipestream.storage.asking import is_file
from prefect_pipestream.storage.paths_below import first_below, refuse_leading_out
from prefect_pipestream.underfolder.format.names import check_key

PATH_COLUMNS = ("path", "file", "file_name", "filename", "image", "image_path")
_ROWS_TO_LOOK_AT = 1000


@source_sequence
class FromTable(ImportSource, title="from_table"):
    """Takes the rows of a table as samples, with the files that they name.

    The table is read into memory as a whole, once.

    Raises:
        DatasetNotFoundError: If there is no such file.
    """

    file: Path
    path_column: str | None = None
    columns: dict[str, str] | None = None
    id_column: str | None = None
    image_key: str = "image"
    metadata_key: str = "metadata"
    root: Path | None = None
    origin: str | None = None

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for key in columns or {}:
            check_key(key)
            if key == TABLE:
                raise ValueError(f"the key {TABLE!r} is that of what the table was like.")
        return columns

    def model_post_init(self, context: Any) -> None:
        """Looks whether the file is there."""
        self.refuse_missing(self.file, "table")

    @property
    def location(self) -> Path:
        """The table."""
        return self.file

    @cached_property
    def _path(self) -> Path:
        return table_at(self.file)

    @cached_property
    def _table(self) -> Table:
        named = [self.path_column, self.id_column, *(self.columns or {}).values()]
        return read_table(self._path, {*PATH_COLUMNS, *(one for one in named if one is not None)})

    @cached_property
    def _root(self) -> str:
        return os.path.abspath(self._path.parent if self.root is None else self.root)

    # -- which columns are what --------------------------------------------------------------

    @cached_property
    def _files(self) -> Mapping[str, str]:
        """The columns of paths, by the keys of the items: that of the image is the first."""
        given = {self.image_key: self.path_column} if self.path_column is not None else {}
        given |= self.columns or {}
        image = given.pop(self.image_key, None)
        if image is None:
            image = next((name for name in PATH_COLUMNS if name in self._table.columns), None)
        files = {**({} if image is None else {self.image_key: image}), **given}
        asked = [*files.values(), *([] if self.id_column is None else [self.id_column])]
        missing = [name for name in asked if name not in self._table.columns]
        if image is None or missing:
            what = f"no column {missing[0]!r}" if missing else "no column of paths"
            raise DecodeError(
                f"{self._path}: there is {what}. Columns: {', '.join(self._table.columns)}. Name "
                "that of the images by `path_column`."
            )
        return files

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        """What each column is called in the metadata."""
        columns = set(self._table.columns)
        keys = {}
        for name in self._table.columns:
            key = name
            while key in RESERVED or not key or (key != name and key in columns):
                key = f"column_{key}"
            keys[name] = key
        return keys

    @cached_property
    def shared_items(self) -> Items:
        """What the table was like."""
        listed = [{"name": name, "key": key} for name, key in self._keys.items()]
        said = {
            "file": self._path.name,
            "format": self._table.format,
            "columns": listed,
            "paths": dict(self._files),
            **self._table.details,
        }
        return {TABLE: JsonMetadataItem(said, shared=True)}

    # -- the samples -------------------------------------------------------------------------

    def in_order(self, names: Iterable[str]) -> Sequence[str]:
        """The names in the order of the rows."""
        return list(names)

    def found_names(self) -> Iterable[str]:
        """Finds what each row is called: by its path below the root, or its id.

        Raises:
            DecodeError: If the table cannot be understood.
            DatasetError: If two rows have one name.
        """
        where: dict[str, int] = {}
        image_column = self._files[self.image_key]  # one that is not there is said before any row
        for row, line in zip(self._table.rows, self._table.lines, strict=True):
            name = self._name_of(row, image_column) or f"{self._path.name}, line {line}"
            if name in where:
                raise DatasetError(
                    f"{self._path}, lines {where[name]} and {line}: both are called {name!r}; each "
                    "sample is known by its name. Name another column by `id_column`, or remove "
                    "one of the lines."
                )
            where[name] = line
        return where

    def _name_of(self, row: Mapping[str, Any] | str, image_column: str) -> str | None:
        """What a row is called; None for one that has no name, and fails."""
        if isinstance(row, str):
            return None
        if self.id_column is not None:
            value = row.get(self.id_column)
            return str(value) if isinstance(value, str | int) and value != "" else None
        text = row.get(image_column)
        if not isinstance(text, str) or not text:
            return None
        return self._below(text) or text

    def _below(self, text: str) -> str | None:
        return first_below(self._root, [os.path.join(home, text) for home in self._homes])

    @cached_property
    def _homes(self) -> list[str]:
        """The folders that paths are relative to: first that in which there are some."""
        homes = list(dict.fromkeys([self._root, os.path.abspath(self._path.parent)]))
        column = self._files[self.image_key]
        rows = islice((row for row in self._table.rows if isinstance(row, dict)), _ROWS_TO_LOOK_AT)
        texts = [text for row in rows if isinstance(text := row.get(column), str) and text]
        for home in homes if len(homes) > 1 else []:
            below = (first_below(self._root, [os.path.join(home, text)]) for text in texts)
            if any(one is not None and is_file(os.path.join(self._root, one)) for one in below):
                return [home, *(other for other in homes if other != home)]
        return homes

    def _row(self, idx: int) -> Mapping[str, Any]:
        row = self._table.rows[idx]
        if isinstance(row, str):
            raise DecodeError(f"{self._where(idx)} {row}")
        image_column = self._files[self.image_key]
        if self._name_of(row, image_column) is None:
            column = self.id_column or image_column
            raise DecodeError(
                f"{self._where(idx)} has {row.get(column)!r} in column {column!r}, by which the "
                "sample is known. Give it a text, or name an `id_column`."
            )
        return row

    def _where(self, idx: int) -> str:
        return f"{self._path}, line {self._table.lines[idx]}"

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns the columns."""
        row = self._row(idx)
        facts = {self._keys[name]: row[name] for name in self._table.columns if name in row}
        is_name = self.id_column is None and self._files[self.image_key] == "file"
        if is_name and row["file"] == self.names[idx]:  # as the metadata has it in any case
            del facts[self._keys["file"]]
        return facts

    def items_of(self, idx: int) -> Items:
        """Returns the files that a row names."""
        row = self._row(idx)
        items: Items = {}
        for key, column in self._files.items():
            text = row.get(column)
            if text is None or text == "":
                continue
            path = self._below(text) if isinstance(text, str) else None
            if path is None:
                raise DecodeError(
                    f"{self._where(idx)}: {text!r} in column {column!r} is no path below "
                    f"{self._root}. If it is meant, name a folder that has it by `root`."
                )
            refuse_leading_out(self._root, path)
            items[key] = Item.get_instance(os.path.join(self._root, path))
        return items
