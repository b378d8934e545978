"""How an item's value comes out of its file, and every way that can fail as one clear error."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from prefect_pipestream.errors import (
    DecodeError,
    EncodeError,
    MissingExtraError,
    UnpicklingNotAllowedError,
)
from prefect_pipestream.items import settings
from prefect_pipestream.items.registry import class_for
from prefect_pipestream.storage.asking import is_link

if TYPE_CHECKING:
    from prefect_pipestream.items.base import Item


def read_value(item: "Item[Any]") -> Any:
    """Decodes the first of the item's files that is there, as what its extension tells.

    Raises:
        DecodeError: If none is there, or its content is not valid.
        UnpicklingNotAllowedError: If it is a pickle, and the item was not made for reading it.
    """
    for source in item.file_sources:
        try:
            data = source.read()
        except FileNotFoundError:
            continue
        cls = class_for(source.path) or type(item)
        if item.allow_pickle:
            with settings.allow_unpickling():
                value = decode(cls, data, source.path)
        else:
            value = decode(cls, data, source.path)
        if cls is not type(item):
            # Only where the item was made from another one, or its file got a new extension.
            value = _converted(item, value, source.path)
        return value
    path = item.file_sources[0].path
    what = "is a broken symbolic link" if is_link(path) else "there is no such file"
    raise DecodeError(f"{path}: {what} (any more). Restore the file or read the sample anew.")


def _converted(item: "Item[Any]", value: Any, path: str) -> Any:
    try:
        return item.validate(value)
    except EncodeError as error:
        raise DecodeError(f"{path}: is no {type(item).__name__}: {error}") from error


def decode(cls: "type[Item[Any]]", data: bytes, path: str) -> Any:
    """Decodes the content of a file; `path` is what errors name it.

    Raises:
        DecodeError: If it is not valid.
        UnpicklingNotAllowedError: If it is a pickle, and this is not a place to read one.
    """
    if not data and not cls.may_be_empty:
        raise DecodeError(f"{path}: the file is empty. Restore the file or remove it.")
    try:
        return cls.decode(BytesIO(data))
    except MissingExtraError:
        raise
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except UnpicklingNotAllowedError as error:
        raise UnpicklingNotAllowedError(f"{path}: {error}") from error
    except Exception as error:  # decoders raise whatever broken content makes them raise
        raise DecodeError(
            f"{path}: cannot be decoded by {cls.__name__} "
            f"({type(error).__name__}: {error}). Restore the file or remove it."
        ) from error
