"""How an item gets into a file: by a link, a copy or its encoder."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any

from prefect_pipestream.errors import (
    DatasetWriteError,
    DecodeError,
    EncodeError,
    MissingExtraError,
)
from prefect_pipestream.items import settings
from prefect_pipestream.items.registry import class_for, extension_of
from prefect_pipestream.items.settings import SerializationMode
from prefect_pipestream.storage import making
from prefect_pipestream.storage.asking import is_link, status_through_links
from prefect_pipestream.storage.file_source import FileSource

if TYPE_CHECKING:
    from prefect_pipestream.items.base import Item

_temporary_number = count()


def store(
    item: "Item[Any]", path: str, final_path: str, replaced: FileSource | None = None
) -> FileSource:
    """Creates the file `path` in the format of `final_path`; see `Item.store`."""
    cls = class_for(final_path) or type(item)
    mode, can_encode = item.serialization_mode, bool(cls.file_extensions())
    for source in _in_format_of(item, final_path):
        if source.is_current() if item.has_value else source.is_there():
            stored = _link_or_copy(source, path, mode, cls, force=not can_encode)
            if stored is not None:
                return stored
    return making.write_new(path, encoded(item, cls, replaced))


def extension_in_use(item: "Item[Any]") -> str:
    """The extension of the file that is linked or copied where the item is written; "" for none."""
    if item.has_value or item.serialization_mode is SerializationMode.CREATE_NEW_FILE:
        return ""
    path = item.file_sources[0].path if item.file_sources else ""
    return os.path.splitext(path)[1] if class_for(path) is type(item) else ""


def copied_from(item: "Item[Any]", path: str) -> Iterator[FileSource]:
    """Yields the files of which a file at a path may be a copy, if they still hold the value.

    None of them is asked for.
    """
    cls = class_for(path) or type(item)
    is_allowed = settings.is_mode_enabled(cls, SerializationMode.DEEP_COPY)
    if is_allowed or not cls.file_extensions():
        yield from _in_format_of(item, path)


def _in_format_of(item: "Item[Any]", path: str) -> Iterator[FileSource]:
    """Yields the files that may be linked or copied to a path, if they still hold the value."""
    cls, extension = class_for(path) or type(item), extension_of(path)
    can_encode = bool(cls.file_extensions())
    if item.serialization_mode is SerializationMode.CREATE_NEW_FILE and can_encode:
        return
    for source in item.file_sources:
        same = (class_for(source.path) or type(item)) is cls
        if not can_encode and extension:  # an unknown format is known by its name only
            same = extension_of(source.path) == extension
        if same:
            yield source


def _link_or_copy(
    source: FileSource, path: str, mode: SerializationMode, cls: type, *, force: bool
) -> FileSource | None:
    if mode >= SerializationMode.SYM_LINK:
        symbolic = mode is SerializationMode.SYM_LINK
        linked = making.link_new(source, path, symbolic=symbolic)
        if linked is not None:
            return linked
    if not force and not settings.is_mode_enabled(cls, SerializationMode.DEEP_COPY):
        return None
    try:
        return making.copy_new(source, path)
    except FileNotFoundError:  # gone since it was looked at
        return None


def encoded(item: "Item[Any]", cls: "type[Item[Any]]", replaced: FileSource | None = None) -> bytes:
    """Returns the item's value as the content of a file of this class; see `Item.store`.

    Raises:
        EncodeError: If there is no value, this class cannot hold it, or the metadata of the file
            that it was made from cannot be kept.
        DecodeError: If the value is in a file that cannot be decoded.
    """
    if not item.has_value and not item.file_sources:
        raise EncodeError(f"{item!r} has no value and no file: there is nothing to write.")
    if not settings.is_mode_enabled(cls, SerializationMode.CREATE_NEW_FILE):
        raise EncodeError(
            f"{item!r} would have to be written to a new file, and CREATE_NEW_FILE is disabled. "
            "Enable it for this item class."
        )
    value = item()
    own_class = cls is type(item)
    options = {**cls.encoder_defaults, **(item.encoder_options if own_class else {})}
    source = original_of(item, cls, replaced) if cls.uses_original() else None
    try:
        value = value if own_class else cls.validate(value)
        if source is not None:
            return _encoded_like(source, cls, value, options)
        return _encoded(cls, value, options)
    except (EncodeError, MissingExtraError):
        raise
    except Exception as error:  # encoders raise whatever a value makes them raise
        raise EncodeError(
            f"{cls.__name__} cannot encode {_described(value)} ({type(error).__name__}: {error}). "
            "Convert the value or use another item class."
        ) from error


def _encoded(cls: "type[Item[Any]]", value: Any, options: Mapping[str, Any]) -> bytes:
    stream = BytesIO()
    cls.encode_with(value, stream, options)
    return stream.getvalue()


def _encoded_like(
    source: FileSource, cls: "type[Item[Any]]", value: Any, options: Mapping[str, Any]
) -> bytes:
    """Encodes a value with what a file has beside its own."""
    stream = BytesIO()
    try:
        cls.encode_like(value, stream, options, content_of(source))
    except (FileNotFoundError, DecodeError) as error:
        if cls.keeps_metadata(options) and not _is_no_file(source.file):
            raise _cannot_keep(source, error) from error
        return _encoded(cls, value, options)
    return stream.getvalue()


def _is_no_file(path: str) -> bool:
    """Whether a broken link is there, or a pipe or the like: it has nothing to be kept."""
    found = status_through_links(path)
    return is_link(path) if found is None else not stat.S_ISREG(found.st_mode)


def original_of(
    item: "Item[Any]", cls: "type[Item[Any]]", replaced: FileSource | None
) -> FileSource | None:
    """Returns the file of this class whose metadata a new file of the item keeps.

    It is one that holds the item's value, else the one that the item was made from, else the
    one that is replaced.
    """
    known = [source for source in (*item.file_sources, item.made_from) if source is not None]
    candidates = known or ([] if replaced is None else [replaced])
    return next((source for source in candidates if class_for(source.path) is cls), None)


def content_of(source: FileSource) -> bytes:
    """Reads an original.

    What is known of the file stays: the version that the value was decoded from is the one that
    a commit compares.

    Raises:
        FileNotFoundError: If it is not there.
        DecodeError: If it cannot be read.
    """
    return source.content()


def _cannot_keep(source: FileSource, error: Exception) -> EncodeError:
    is_gone = isinstance(error, FileNotFoundError)
    what = "there is no such file any more." if is_gone else str(error)
    return EncodeError(
        f"{source.path}: what it has beside its pixels (EXIF, colour profile, …) is to be kept, "
        f"and cannot be read: {what.removeprefix(source.path + ': ')} Restore the file, or write "
        'without: `with_options(metadata="strip")`, or the option of the stage or flow.'
    )


def _described(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"an array of {dtype} with shape {tuple(shape)}"
    return f"a value of type {type(value).__name__}"


def is_stored_at(item: "Item[Any]", path: str) -> bool:
    """Tells whether the file at `path` already holds the item; see `Item.is_stored_at`."""
    if not item.file_sources or item.serialization_mode is SerializationMode.CREATE_NEW_FILE:
        return False
    for number, source in enumerate(item.file_sources):
        if source.path == path:
            # An item without a value is what is in its first file, whatever that is by now; what
            # was written for it to another one may have been replaced there.
            return (number == 0 and not item.has_value) or source.is_current()
    return False


def serialize(item: "Item[Any]", path: str) -> tuple[FileSource, ...]:
    """Writes the item to `path`, over what is there; returns its sources with the new one."""
    if is_stored_at(item, path) and status_through_links(path):
        return item.file_sources
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{os.getpid()}-{next(_temporary_number)}-{name}"
    try:
        os.makedirs(folder, exist_ok=True)
        stored = store(item, temporary, path)
        try:
            making.keep_access(temporary, path)
            os.replace(temporary, path)
        finally:
            # A rename of one hard link over another of the same file leaves both.
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except DatasetWriteError:
        raise
    except OSError as error:
        making.cannot_write(path, error)
    for source in item.file_sources:
        if source.path == path:
            source.version = stored.version
            return item.file_sources
    stored.path = path
    return (*item.file_sources, stored)
