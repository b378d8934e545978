"""Datasets that the library `datasets` of Hugging Face saved with `save_to_disk`."""

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import FileSource, Item, JsonMetadataItem
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.hf_columns import (
    HF,
    Column,
    array_bytes,
    class_name,
    columns_of,
    datasets,
    description,
    extension_by_content,
    plain,
)
from prefect_pipestream.sequences.sources.import_source import CATEGORIES, ImportSource, Items
from prefect_pipestream.sequences.sources.named_keys import NamedKeys
from prefect_pipestream.storage.file_part import Container, PartOfFile


class _Split(NamedTuple):
    """One table, and the file that stands for it.

    Attributes:
        name: The split's; None of a dataset without splits.
        rows: Its rows, of which nothing is decoded.
        plain: The columns that are read for the metadata.
        container: What `save_to_disk` writes last.
    """

    name: str | None
    rows: Any
    plain: Any
    container: Container


@source_sequence
class FromHf(ImportSource, title="from_hf"):
    """Takes the rows of a saved dataset; it is mapped into memory, and read where needed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        MissingExtraError: If the library is not installed.
    """

    folder: Path
    image_key: str = "image"
    metadata_key: str = "metadata"
    keys: NamedKeys | None = None
    id_column: str | None = None
    label_column: str | None = None
    leave_out: list[str] | None = None
    images_folder: Path | None = None
    origin: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Looks whether the folder and the library are there."""
        self.refuse_missing(self.folder, "folder")
        datasets()

    @property
    def location(self) -> Path:
        """The folder."""
        return self.folder

    # -- the tables ------------------------------------------------------------------------

    @cached_property
    @DatasetError.explaining_questions()
    def _splits(self) -> list[_Split]:
        folder = os.path.abspath(self.folder)
        if not os.path.exists(f"{folder}/dataset_dict.json"):
            table = _table_at(folder)
            return [self._split(None if table.split is None else str(table.split), table, folder)]
        said = _json_at(f"{folder}/dataset_dict.json").get("splits")
        if not isinstance(said, list) or not all(_is_name(name) for name in said):
            raise DatasetError(f"{folder}/dataset_dict.json: {said!r} are no names of splits.")
        found = [
            self._split(name, _table_at(f"{folder}/{name}"), f"{folder}/{name}") for name in said
        ]
        for split in found[1:]:
            if split.rows.features != found[0].rows.features:
                raise DatasetError(
                    f"{folder}: the splits {found[0].name!r} and {split.name!r} have other "
                    "columns. Import each split's folder into a dataset of its own."
                )
        return found

    def _split(self, name: str | None, table: Any, folder: str) -> _Split:
        rows = table.with_format(None)
        unknown = [
            one for one in (*(self.leave_out or ()), *(self.keys or ())) if one not in rows.features
        ]
        if self.id_column is not None and self.id_column not in rows.features:
            unknown.append(self.id_column)
        if unknown:
            raise DatasetError(
                f"{folder}: there is no column {unknown[0]!r}. There are: "
                f"{', '.join(rows.features)}."
            )
        rows = rows.remove_columns(list(self.leave_out or ()))
        read = [c.name for c in self._columns_in(rows.features) if c.role in ("label", "plain")]
        return _Split(name, rows, rows.select_columns(read), Container.at(f"{folder}/state.json"))

    def _columns_in(self, features: Any) -> list[Column]:
        return columns_of(
            features,
            keys=self.keys or {},
            image_key=self.image_key,
            label_column=self.label_column,
            taken={self.metadata_key, CATEGORIES, HF},
        )

    @cached_property
    def _features(self) -> Any:
        return self._splits[0].rows.features if self._splits else {}

    @cached_property
    def _columns(self) -> list[Column]:
        return self._columns_in(self._features)

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for split in self._splits:
            starts.append(starts[-1] + len(split.rows))
        return starts

    def _at(self, idx: int) -> tuple[_Split, int]:
        number = bisect_right(self._starts, idx) - 1
        return self._splits[number], idx - self._starts[number]

    # -- samples ---------------------------------------------------------------------------

    def found_names(self) -> Iterable[str]:
        """Finds the rows: `<split>/<number>`, or what the column of names says."""
        names: list[str] = []
        for split in self._splits:
            before = "" if split.name is None else f"{split.name}/"
            names.extend(before + name for name in self._row_names(split))
        return names

    def _row_names(self, split: _Split) -> Iterable[str]:
        if self.id_column is None:
            return map(str, range(len(split.rows)))
        column = split.rows.data.column(self.id_column).to_pylist()
        for row, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
                raise DatasetError(
                    f"{self.folder}: row {row} has {value!r} in {self.id_column!r}; expected a "
                    "text or a number that tells it from others."
                )
        return map(str, column)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """The names in the order of the rows, to which others are added at the end."""
        return names if isinstance(names, list) else list(names)

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `split`, `label`, `label_id`, the plain columns, and `paths` of the files."""
        split, row = self._at(idx)
        facts: dict[str, Any] = {} if split.name is None else {"split": split.name}
        values = split.plain[row] if split.plain.column_names else {}
        for column in self._columns:
            feature = self._features[column.name]
            if column.role == "label":
                number = values[column.name]
                facts |= {"label": class_name(feature, number), "label_id": number}
            elif column.role == "plain":
                facts[column.key] = plain(feature, values[column.name])
        paths = {key: path for key, _, path in self._files_of(idx) if path is not None}
        return facts | ({"paths": paths} if paths else {})

    def _files_of(self, idx: int) -> Iterable[tuple[str, "_Cell", str | None]]:
        split, row = self._at(idx)
        for column in self._columns:
            if column.role == "file":
                yield from _Cell(split.rows, column.name, row).file(column.key)
            elif column.role == "files":
                length = _Cell(split.rows, column.name, row).length()
                for number in range(length):
                    cell = _Cell(split.rows, column.name, row, number)
                    yield from cell.file(f"{column.key}_{number}")

    def items_of(self, idx: int) -> Items:
        """Returns the images, other files and arrays."""
        split, row = self._at(idx)
        items: Items = {}
        for key, cell, path in self._files_of(idx):
            items[key] = Item.from_source(self._source_of(split, key, cell, path))
        for column in self._columns:
            cell = _Cell(split.rows, column.name, row)
            if column.role == "array" and not cell.is_empty():
                read = partial(cell.array, self._features[column.name])
                path = f"{self._path_of(split, row)}/{column.key}.npy"
                items[column.key] = Item.from_source(PartOfFile(path, split.container, read))
        return items

    def _path_of(self, split: _Split, row: int) -> str:
        return f"{os.path.dirname(split.container.path)}/{row}"

    def _source_of(self, split: _Split, key: str, cell: "_Cell", path: str | None) -> FileSource:
        start = cell.start()
        if start is None:
            return FileSource(self._linked(path))
        name = f"{self._path_of(split, cell.row)}/{key}{extension_by_content(start, path)}"
        return PartOfFile(name, split.container, cell.content)

    def _linked(self, path: str | None) -> str:
        """The path of a file that is not saved in the table.

        Raises:
            DecodeError: If it is not below the folder, nor below `images_folder`.
        """
        roots = [os.path.realpath(r) for r in (self.folder, self.images_folder) if r is not None]
        for root in roots:
            found = os.path.realpath(os.path.join(root, path or ""))
            if path and found.startswith(root + os.sep) and os.path.lexists(found):
                return found
        raise DecodeError(
            f"{self.folder}: the file {path!r} is not saved in the table, and is not below "
            f"{' or '.join(roots)}. Name the folder that it is in as `images_folder`."
        )

    @cached_property
    def shared_items(self) -> Items:
        """The classes, and what the columns are."""
        if not self._splits:
            return {}
        # A part of the source, not a value: a later import leaves the dataset's own as it is.
        content = json.dumps(description(self._features, self._columns)).encode()
        container = self._splits[0].container
        described = PartOfFile(
            f"{os.path.abspath(self.folder)}/{HF}.json", container, partial(bytes, content)
        )
        items: Items = {HF: Item.from_source(described, shared=True)}
        for column in self._columns:
            if column.role == "label":
                names = self._features[column.name].names
                listed = [{"id": number, "name": name} for number, name in enumerate(names)]
                items[CATEGORIES] = JsonMetadataItem(listed, shared=True)
        return items


class _Cell(NamedTuple):
    """A file or an array in a table, or one of a list of them; picklable as its table is."""

    rows: Any
    column: str
    row: int
    number: int | None = None

    def _scalar(self) -> Any:
        scalar = self.rows.data.column(self.column)[self.row]
        return scalar if self.number is None else scalar.values[self.number]

    def is_empty(self) -> bool:
        return not self._scalar().is_valid

    def length(self) -> int:
        scalar = self._scalar()
        return len(scalar.values) if scalar.is_valid else 0

    def file(self, key: str) -> Iterable[tuple[str, "_Cell", str | None]]:
        """The file with its key and path, if there is one."""
        scalar = self._scalar()
        if scalar.is_valid and (scalar["bytes"].is_valid or scalar["path"].is_valid):
            yield key, self, scalar["path"].as_py()

    def start(self) -> bytes | None:
        """The first 32 bytes; None if there are none in the table."""
        content = self._scalar()["bytes"]
        return bytes(content.as_buffer()[:32]) if content.is_valid else None

    def content(self) -> bytes:
        return bytes(self._scalar()["bytes"].as_py())

    def array(self, feature: Any) -> bytes:
        return array_bytes(feature, self.rows.select_columns([self.column])[self.row][self.column])


def _table_at(folder: str) -> Any:
    """A saved table.

    Raises:
        DatasetError: If there is none, or it cannot be read.
    """
    files = _json_at(f"{folder}/state.json").get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and _is_name(file.get("filename")) for file in files
    ):
        raise DatasetError(f"{folder}/state.json: {files!r} are no names of files beside it.")
    try:
        return datasets().Dataset.load_from_disk(folder)
    except Exception as error:  # the library raises whatever it comes upon
        raise DatasetError(
            f"{folder}: cannot be read by the library datasets ({type(error).__name__}: {error}). "
            "Save it anew."
        ) from error


def _json_at(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError as error:
        raise DatasetError(
            f"there is no {path}: expected what `save_to_disk` of the library datasets writes."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is no JSON ({error}). Save the dataset anew.") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a mapping. Save the dataset anew.")
    return value


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
