"""Parquet files, their values as JSON can have them, and back.

Through pyarrow, which is what pandas, polars' and Hugging Face's files of this kind are made by: it
knows every type, and turns texts into times and decimals without a loss.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_pipestream.errors import DecodeError, EncodeError, MissingExtraError

Rows = list[dict[str, Any]]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow: `pip install prefect-pipestream[parquet]`."
        ) from error
    return pyarrow


def read_parquet(path: str) -> tuple[Rows, str]:
    """Reads a file: its rows, and its schema as text.

    Dates, times with a date and decimals are text; times of a day and durations whole numbers of
    their unit; bytes base64.

    Raises:
        DecodeError: If it is no Parquet file, or has a type that JSON cannot have.
        MissingExtraError: If the extra `parquet` is not installed.
    """
    pa = _pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DecodeError(f"{path}: is no Parquet file that can be read: {error}") from error
    columns = {
        field.name: _as_json(pa, table.column(at), f"{path}, column {field.name!r}")
        for at, field in enumerate(table.schema)
    }
    if len(columns) < len(table.schema):
        raise DecodeError(f"{path}: two columns have one name. Rename one of them.")
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return rows, base64.b64encode(table.schema.serialize().to_pybytes()).decode()


def _as_json(pa: Any, column: Any, where: str) -> list[Any]:
    plain = _plain_type(pa, column.type)
    try:
        cast = column if plain == column.type else column.cast(plain)
        comes_back = plain == column.type or cast.cast(column.type).equals(column)
    except (pa.ArrowException, ValueError) as error:
        raise DecodeError(f"{where}: {column.type} has no form in JSON: {error}") from error
    if not comes_back:
        raise DecodeError(f"{where}: its values do not come back from texts. Convert them before.")
    values: list[Any] = cast.to_pylist()
    return [_to_json(pa, value, plain) for value in values] if _is_deep(pa, plain) else values


def _plain_type(pa: Any, kind: Any) -> Any:
    """The type whose values are, or nearly are, those that JSON has."""
    is_ = pa.types
    if is_.is_timestamp(kind) or is_.is_date(kind) or is_.is_decimal(kind):
        return pa.string()
    if is_.is_time32(kind):
        return pa.int32()
    if is_.is_time64(kind) or is_.is_duration(kind):
        return pa.int64()
    if is_.is_dictionary(kind):
        return _plain_type(pa, kind.value_type)
    if is_.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(pa, field.type)) for field in kind])
    if is_.is_map(kind):
        return pa.map_(_plain_type(pa, kind.key_type), _plain_type(pa, kind.item_type))
    if is_.is_fixed_size_list(kind):
        return pa.list_(_field_of(pa, kind), kind.list_size)
    if is_.is_large_list(kind):
        return pa.large_list(_field_of(pa, kind))
    return pa.list_(_field_of(pa, kind)) if is_.is_list(kind) else kind


def _field_of(pa: Any, kind: Any) -> Any:
    return kind.value_field.with_type(_plain_type(pa, kind.value_type))


def _is_list(pa: Any, kind: Any) -> bool:
    is_ = pa.types
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def _is_bytes(pa: Any, kind: Any) -> bool:
    is_ = pa.types
    return bool(is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind))


def _is_deep(pa: Any, kind: Any) -> bool:
    """Whether values of a plain type are still others than those of JSON."""
    if pa.types.is_struct(kind):
        return any(_is_deep(pa, field.type) for field in kind)
    if _is_list(pa, kind):
        return _is_deep(pa, kind.value_type)
    return bool(_is_bytes(pa, kind) or pa.types.is_map(kind))


def _to_json(pa: Any, value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if _is_bytes(pa, kind):
        return base64.b64encode(value).decode()
    if pa.types.is_struct(kind):
        return {field.name: _to_json(pa, value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        types = (kind.key_type, kind.item_type)
        return [[_to_json(pa, *one) for one in zip(pair, types, strict=True)] for pair in value]
    if _is_list(pa, kind):
        return [_to_json(pa, one, kind.value_type) for one in value]
    return value


def _of_json(pa: Any, value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if _is_bytes(pa, kind):
        return base64.b64decode(value, validate=True)
    if pa.types.is_struct(kind):
        return {field.name: _of_json(pa, value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        types = (kind.key_type, kind.item_type)
        return [
            tuple(_of_json(pa, *one) for one in zip(pair, types, strict=True)) for pair in value
        ]
    if _is_list(pa, kind):
        return [_of_json(pa, one, kind.value_type) for one in value]
    return value


class ParquetSchema:
    """The columns of a file to be written: those of one that was read, by its schema, or none.

    Raises:
        EncodeError: If the text is no schema.
        MissingExtraError: If the extra `parquet` is not installed.
    """

    def __init__(self, text: str | None) -> None:
        pa = self._pa = _pyarrow()
        try:
            content = b"" if text is None else base64.b64decode(text, validate=True)
            self._schema = pa.ipc.read_schema(pa.py_buffer(content)) if content else pa.schema([])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise EncodeError(f"the `schema` of the item `table` is none: {error}") from error

    def check(self, row: Mapping[str, Any]) -> None:
        """Raises `EncodeError` if a value is not of its column's type."""
        for field in self._schema:
            if field.name in row:
                self._column([row[field.name]], field)

    def write(self, path: str, columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a file; columns that the schema does not have get the type of their values.

        Raises:
            EncodeError: If those are of several types.
        """
        pa = self._pa
        known = {field.name: field for field in self._schema}
        fields, arrays = [], []
        for name in columns:
            array = self._column([row.get(name) for row in rows], known.get(name), name)
            arrays.append(array)
            fields.append(known.get(name) or pa.field(name, array.type))
        schema = pa.schema(fields, metadata=self._schema.metadata)
        pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), path)

    def _column(self, values: list[Any], field: Any, name: str = "") -> Any:
        pa = self._pa
        try:
            if field is None:
                return pa.array(values)
            plain = _plain_type(pa, field.type)
            inner = [_of_json(pa, value, plain) for value in values]
            return pa.array(inner, plain).cast(field.type)
        except (pa.ArrowException, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"of type {field.type}" if field is not None else "of one type"
            raise EncodeError(
                f"column {field.name if field is not None else name!r}: its values are not {what}: "
                f"{error}. Correct them, or write another format."
            ) from error
