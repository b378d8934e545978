"""Tables in files: CSV, JSON Lines, Parquet, read as rows of plain values."""

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.sequences.sources.parquet import read_parquet
from prefect_pipestream.sequences.sources.text_files import text_of

TableFormat = Literal["csv", "jsonl", "parquet"]
TABLE = "table"
"""The key of the shared item that tells what a table was like, for its export."""
RESERVED = ("file", "name", "origin")
"""What the metadata of each sample has beside the columns."""

FORMATS: Mapping[str, TableFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_DELIMITERS = (",", ";", "\t")
_BOOLEANS = (("false", "true"), ("False", "True"), ("FALSE", "TRUE"))
_MOST_DIGITS = 300
_MOST_DEPTH = 300


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        format: What the file is.
        columns: The names of the columns, in order.
        rows: The values of each row by their columns; of JSON Lines some may lack. What is wrong
            with a row, as text, in place of it.
        lines: Where each row is: the number of its line, or of the row in a Parquet file.
        details: What else an export needs to write the same.
    """

    format: TableFormat
    columns: list[str]
    rows: list[dict[str, Any] | str]
    lines: list[int]
    details: dict[str, Any] = field(default_factory=dict)


def table_at(location: Path) -> Path:
    """Returns the table that a path or a folder leads to.

    Raises:
        DatasetError: If there is none in the folder, or which one is meant is not clear.
    """
    if not location.is_dir():
        return location
    found = sorted(path for path in location.iterdir() if path.suffix.lower() in FORMATS)
    proper = [path for path in found if path.stem == "metadata"] or found
    if len(proper) == 1:
        return proper[0]
    which = ", ".join(path.name for path in found) or "none"
    raise DatasetError(
        f"{location}: one table was expected (CSV, JSON Lines, Parquet), and there is: {which}. "
        "Give the file in place of the folder."
    )


def read_table(path: Path, expected: Collection[str] = ()) -> Table:
    """Reads a whole table into memory.

    Args:
        path: The file.
        expected: Names of columns that there may be, by which the delimiter of CSV is known.

    Raises:
        DecodeError: If it cannot be understood; what is wrong with one row is in its place.
        MissingExtraError: If it is a Parquet file, and the extra `parquet` is not installed.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DecodeError(f"{path}: is no table by its name: {', '.join(FORMATS)}. Rename it.")
    if kind == "csv":
        return _read_csv(str(path), expected)
    if kind == "jsonl":
        return _read_json_lines(str(path))
    rows, schema = read_parquet(str(path))
    columns = list(rows[0]) if rows else []
    lines = list(range(1, len(rows) + 1))
    return Table("parquet", columns, list(rows), lines, {"schema": schema})


# -- CSV -------------------------------------------------------------------------------------


def _read_csv(path: str, expected: Collection[str]) -> Table:
    text = text_of(path)
    delimiter = _delimiter_of(text, expected)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    try:
        for record in reader:
            if record:
                records.append(record)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DecodeError(
            f"{path}, line {reader.line_num}: {error}. Correct the line, its quotes above all."
        ) from error
    if not records:
        raise DecodeError(f"{path}: has no line with the names of the columns.")
    columns = records.pop(0)
    _refuse_doubles(path, columns)
    rows, booleans = _typed(columns, records)
    return Table("csv", columns, rows, lines[1:], {"delimiter": delimiter, "booleans": booleans})


def _delimiter_of(text: str, expected: Collection[str]) -> str:
    """That which makes expected columns of the first line, and then the most of them."""
    first = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")

    def merit(delimiter: str) -> tuple[int, int]:
        columns = next(csv.reader([first], delimiter=delimiter), [])
        return len(set(columns).intersection(expected)), len(columns)

    try:
        return max(_DELIMITERS, key=merit)  # the first of equals
    except csv.Error:  # which the reading of all lines will tell
        return _DELIMITERS[0]


def _refuse_doubles(path: str, columns: list[str]) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise DecodeError(f"{path}: two columns are called {name!r}. Rename one of them.")


def _typed(
    columns: list[str], records: list[list[str]]
) -> tuple[list[dict[str, Any] | str], dict[str, list[str]]]:
    """The rows with values, and how the booleans of columns are written."""
    count = len(columns)
    booleans: dict[str, list[str]] = {}
    readers: list[Callable[[str], Any] | None] = []
    for at, name in enumerate(columns):
        cells = {record[at] for record in records if len(record) == count} - {""}
        pair = next((list(pair) for pair in _BOOLEANS if cells and cells <= set(pair)), None)
        if pair is not None:
            booleans[name] = pair
            readers.append({"": None, pair[0]: False, pair[1]: True}.__getitem__)
        else:
            numbers = {cell: _number_in(cell) for cell in cells}
            is_numeric = bool(numbers) and None not in numbers.values()
            readers.append({"": None, **numbers}.__getitem__ if is_numeric else None)
    rows: list[dict[str, Any] | str] = []
    for record in records:
        if len(record) != count:
            rows.append(
                f"has {len(record)} cells, and the table {count} columns. Correct the line."
            )
            continue
        cells_of = zip(columns, record, readers, strict=True)
        rows.append({name: cell if read is None else read(cell) for name, cell, read in cells_of})
    return rows, booleans


def _number_in(cell: str) -> int | float | None:
    """The number that a cell stands for, if it would be written so again; None: it is none."""
    if len(cell) > _MOST_DIGITS:
        return None
    try:
        number: int | float = int(cell)
        if str(number) == cell:
            return number
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and repr(number) == cell else None


def write_csv(
    path: Path,
    columns: list[str],
    rows: Iterable[Mapping[str, Any]],
    delimiter: str,
    booleans: Mapping[str, list[str]],
) -> None:
    """Writes a table; see `_read_csv`. Lists and mappings are written as JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        quoting = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        records = ([_cell(row.get(name), booleans.get(name)) for name in columns] for row in rows)
        for record in chain([columns], records):
            # Some versions of Python do not quote a carriage return, and would not read it again.
            (quoting if any("\r" in cell for cell in record) else plain).writerow(record)


def _cell(value: Any, booleans: list[str] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return (booleans or _BOOLEANS[0])[value]
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else repr(value)


# -- JSON Lines ------------------------------------------------------------------------------


def _read_json_lines(path: str) -> Table:
    columns: dict[str, None] = {}
    rows: list[dict[str, Any] | str] = []
    lines = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        row = _row_in(line)
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
        rows.append(row)
        lines.append(number)
    return Table("jsonl", list(columns), rows, lines)


def _row_in(line: str) -> dict[str, Any] | str:
    """A row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is no JSON: {error}. Correct the line."
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}, not an object with the columns. Correct the line."
    if line.count("[") + line.count("{") > _MOST_DEPTH and _is_deeper(row, _MOST_DEPTH):
        return f"is nested deeper than {_MOST_DEPTH} levels."
    return row


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return False
    return True
