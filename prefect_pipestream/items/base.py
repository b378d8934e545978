"""The item: one value of a sample, decoded from its file when it is asked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Generic, Literal, TypeVar, cast

from prefect_pipestream.errors import DatasetWriteError, DecodeError, EncodeError, ItemError
from prefect_pipestream.items import loading, settings, storing
from prefect_pipestream.items.options import Rule, check_options
from prefect_pipestream.items.registry import (
    CLASS_BY_EXTENSION,
    class_for,
    register,
)
from prefect_pipestream.items.settings import (  # noqa: F401 # where pipelime has them
    SerializationMode,
    data_cache,
    disable_item_data_cache,
    enable_item_data_cache,
    item_disabled_serialization_modes,
    item_serialization_mode,
    no_data_cache,
    set_item_disabled_serialization_modes,
    set_item_serialization_mode,
)
from prefect_pipestream.storage.file_source import FileSource

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

T = TypeVar("T")
ItemT = TypeVar("ItemT", bound="Item[Any]")


class _Unset(Enum):
    UNSET = "unset"  # an enum member stays itself when pickled


_UNSET: Literal[_Unset.UNSET] = _Unset.UNSET


_ANY_NAME = Path("name")


class _MakeNew:
    """`make_new`, callable on a class and on an item, which hands on its options and its file."""

    def __get__(self, item: "Item[Any] | None", cls: type[ItemT]) -> Callable[..., ItemT]:
        def make_new(*sources: Any, shared: bool = False) -> ItemT:
            """Makes another item of the same class (of the default one of an abstract class).

            Of an image it keeps, when it is written, what the file has beside the pixels.

            Args:
                *sources: As for the item class itself.
                shared: Whether all samples of a dataset share the new item.
            """
            new = cast("type[ItemT]", cls.default_concrete())(*sources, shared=shared)
            if item is not None:
                new.allow_pickle = item.allow_pickle
                new._options = item._options
                new._made_from = item._files[0] if item._files else item._made_from
            return new

        return make_new


class Item(ABC, Generic[T]):
    """A value of a sample: in memory, or in files and decoded at each call.

    Calling the item returns the value, or None for an item without any source. A value is kept
    after decoding only where caching is switched on, for the item or its class.

    A subclass that defines `file_extensions`, `decode` and `encode` is registered for its
    extensions.

    Args:
        *sources: Any of: the value itself (at most one); a `pathlib.Path` of a file (a `str` is
            a value); a binary stream, decoded at once; another item, whose file or value this
            item then has (a file of another class is decoded as what it is); a `FileSource`.
        shared: Whether all samples of a dataset share the item.
        dont_check_paths: Has no effect: whether a file exists shows when the item is called.

    Raises:
        EncodeError: If a value is not one that this class can hold, or there are two.
        DecodeError: If a stream's content is not valid.
        ValueError: If a path's extension is that of another item class.
    """

    __slots__ = (
        "__weakref__",
        "_cached",
        "_files",
        "_made_from",
        "_mode",
        "_options",
        "_shared",
        "_value",
        "allow_pickle",
        "cache_data",
    )

    #: Names and defaults of what the encoder can be told.
    encoder_defaults: ClassVar[Mapping[str, Any]] = {}
    #: What each option may be.
    encoder_rules: ClassVar[Mapping[str, Rule]] = {}
    #: Whether a file without content is valid.
    may_be_empty: ClassVar[bool] = False

    cache_data: bool | None
    allow_pickle: bool
    _value: T | Literal[_Unset.UNSET]
    _cached: T | Literal[_Unset.UNSET]
    _files: tuple[FileSource, ...]
    _made_from: FileSource | None
    _shared: bool
    _mode: SerializationMode | None
    _options: dict[str, Any] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "file_extensions" in cls.__dict__:
            register(cls, tuple(cls.file_extensions()))

    def __init__(self, *sources: Any, shared: bool = False, dont_check_paths: bool = False) -> None:
        self._value = self._cached = _UNSET
        self._files = ()
        self._shared = shared
        self.cache_data = self._mode = self._options = self._made_from = None
        self.allow_pickle = False
        for source in sources:
            self._take(source)

    # -- making items ----------------------------------------------------------------------

    @staticmethod
    def get_instance(
        path: "str | os.PathLike[str]", shared_item: bool = False, *, allow_pickle: bool = False
    ) -> "Item[Any]":
        """Makes the item of a file, of the class that its extension (any case) tells.

        Nothing is read: whether the file exists shows when the item is called. Costs about 1 µs.
        """
        return Item.from_source(FileSource(_absolute(path)), shared_item, allow_pickle)

    @staticmethod
    def from_source(
        source: FileSource, shared: bool = False, allow_pickle: bool = False
    ) -> "Item[Any]":
        """Makes the item of a file source; `get_instance` without its checks of the path."""
        path = source.path
        cls = CLASS_BY_EXTENSION.get(path[path.rfind(".") :]) or class_for(path) or UnknownItem
        item: Item[Any] = object.__new__(cls)
        item._value = item._cached = _UNSET
        item._files = (source,)
        item._shared = shared
        item.cache_data = item._mode = item._options = item._made_from = None
        item.allow_pickle = allow_pickle
        return item

    make_new = _MakeNew()

    def with_options(self: ItemT, **options: Any) -> ItemT:
        """Returns the same item with other encoder options (or none); it is always encoded anew.

        Raises:
            EncodeError: If this class's encoder has no such option, or not of this value.
        """
        type(self).check_options(options)
        new = type(self)(self, shared=self._shared)
        new.allow_pickle = self.allow_pickle
        new.cache_data = self.cache_data
        new._mode = self._mode
        new._options = {**(self._options or {}), **options}
        return new

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        # A field of a pydantic model takes an item of the class, or a value for a new one.
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, Item) else cls.make_new(value),
            core_schema.is_instance_schema(cls),
        )

    def _take(self, source: Any) -> None:
        if isinstance(source, Item):
            if source._files:
                self._files += tuple(f for f in source._files if f not in self._files)
            if source._value is not _UNSET:
                same = type(source) is type(self)
                self._set_value(source._value if same else self.validate(source._value))
            self.allow_pickle = self.allow_pickle or source.allow_pickle
            self._made_from = self._made_from or source._made_from
        elif isinstance(source, FileSource):
            self._files += (source,)
        elif isinstance(source, os.PathLike):
            self._files += (FileSource(self._of_this_class(_absolute(source))),)
        elif callable(getattr(source, "readinto", None)):  # a binary stream, by its duck type
            name = getattr(source, "name", None)
            self._set_value(loading.decode(type(self), source.read(), str(name or "<stream>")))
        else:
            self._set_value(self.validate(source))

    def _set_value(self, value: T) -> None:
        if self._value is not _UNSET:
            raise EncodeError(f"{type(self).__name__}: two values given; an item holds one.")
        self._value = value

    def _of_this_class(self, path: str) -> str:
        extensions = self.file_extensions()
        if extensions and class_for(path) is not type(self):
            raise ValueError(
                f"{path}: a {type(self).__name__} is in a file with the extension "
                f"{' or '.join(extensions)}; for any file use Item.get_instance(path)."
            )
        return path

    # -- the value -------------------------------------------------------------------------

    def __call__(self) -> T:
        """Returns the value; None if the item has no source at all.

        Raises:
            DecodeError: If no file is there (any more), or its content is not valid.
            UnpicklingNotAllowedError: If it is a pickle and the item was not made for reading it.
        """
        if self._value is not _UNSET:
            return self._value
        if self.cache_data is not False and self._cached is not _UNSET:
            return self._cached
        if not self._files:
            return cast("T", None)
        return self._decoded()

    def _decoded(self) -> T:
        value: T = loading.read_value(self)
        keep = self.cache_data
        if settings.is_cached(type(self)) if keep is None else keep:
            self._cached = value
        return value

    def decoding_error(self) -> ItemError | None:
        """Returns the error of decoding the item's file; None if it decodes, or there is none.

        The file is read for it, also where its value is cached.
        """
        try:
            if self._files and self._value is _UNSET:
                self._decoded()
        except ItemError as error:
            return error
        return None

    # -- what a class of items is ----------------------------------------------------------

    @classmethod
    @abstractmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns the extensions of the class's files, with their dots; it writes the first."""

    @classmethod
    @abstractmethod
    def decode(cls, stream: BinaryIO) -> T:
        """Reads the value from a stream; any exception tells that the content is not valid."""

    @classmethod
    @abstractmethod
    def encode(cls, value: T, stream: BinaryIO) -> None:
        """Writes the value to a stream; any exception tells that this class cannot hold it."""

    @classmethod
    def encode_with(cls, value: T, stream: BinaryIO, options: Mapping[str, Any]) -> None:
        """Writes the value with encoder options; a class with `encoder_defaults` overrides this."""
        cls.encode(value, stream)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Checks encoder options.

        Raises:
            EncodeError: If the encoder has no such option, or not of this value.
        """
        check_options(cls, options)

    @classmethod
    def uses_original(cls) -> bool:
        """Tells whether `encode_like` is to be called, for a value that was made from a file."""
        return False

    @classmethod
    def keeps_metadata(cls, options: Mapping[str, Any]) -> bool:
        """Tells whether it is an error if the file that a value was made from cannot be read."""
        return False

    @classmethod
    def encode_like(
        cls, value: T, stream: BinaryIO, options: Mapping[str, Any], original: bytes
    ) -> None:
        """Writes the value with what the file that it was made from has beside its value.

        Args:
            value: The value.
            stream: Where to.
            options: All options of the encoder.
            original: The content of that file, which is of this class.

        Raises:
            DecodeError: If the original is damaged.
        """
        cls.encode_with(value, stream, options)

    @classmethod
    def validate(cls, value: Any) -> T:
        """Returns the value as this class holds it.

        Raises:
            EncodeError: If this class cannot hold the value.
        """
        return cast("T", value)

    @classmethod
    def default_concrete(cls) -> "type[Item[Any]]":
        """Returns the class that `make_new` makes items of: this one, unless it is abstract."""
        return cls

    # -- what an item is -------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether all samples of a dataset share the item."""
        return self._shared

    @property
    def has_value(self) -> bool:
        """Whether the item was given a value, rather than only files to decode."""
        return self._value is not _UNSET

    @property
    def file_sources(self) -> tuple[FileSource, ...]:
        """The files that hold the item's value."""
        return self._files

    @property
    def local_sources(self) -> tuple[Path, ...]:
        """The paths of the files that hold the item's value."""
        return tuple(Path(source.path) for source in self._files)

    @property
    def made_from(self) -> FileSource | None:
        """The file of the item whose `make_new` made this one, if it had one."""
        return self._made_from

    @property
    def encoder_options(self) -> dict[str, Any]:
        """The encoder options set for this item, over the defaults of its class."""
        return dict(self._options or ())

    @classmethod
    def save_options(cls) -> Mapping[str, Any]:
        """Returns what the encoder is told by default; None is "as in the file before"."""
        return cls.encoder_defaults

    def effective_serialization_mode(self) -> SerializationMode:
        """Returns the mode in force; see `serialization_mode`."""
        return self.serialization_mode

    def is_mode_enabled(self, mode: SerializationMode | str) -> bool:
        """Tells whether no setting disables a mode for the item's class."""
        return settings.is_mode_enabled(type(self), SerializationMode.of(mode))

    @property
    def serialization_mode(self) -> SerializationMode:
        """The mode in force: the item's own, else the lowest set on its class or a base of it.

        Assign a mode, its name, or None for the class's. A disabled mode gives way to the next
        lower one. An item made by `with_options` is always encoded anew.
        """
        if self._options is not None:
            return SerializationMode.CREATE_NEW_FILE
        return settings.effective_mode(type(self), self._mode)

    @serialization_mode.setter
    def serialization_mode(self, mode: SerializationMode | str | None) -> None:
        self._mode = None if mode is None else SerializationMode.of(mode)

    def __repr__(self) -> str:
        what = [repr(source.path) for source in self._files]
        if self._value is not _UNSET:
            shape = getattr(self._value, "shape", None)
            name = type(self._value).__name__
            what.insert(0, name if shape is None else f"{name} {tuple(shape)}")
        return f"{type(self).__name__}({', '.join(what)}{', shared' * self._shared})"

    def __getstate__(self) -> Any:
        attributes, slots = cast("tuple[Any, dict[str, Any]]", super().__getstate__())
        return attributes, {**slots, "_cached": _UNSET}

    # -- writing it ------------------------------------------------------------------------

    def default_extension(self) -> str | None:
        """Returns the extension that the item is written with; None if it is not known."""
        return next(iter(self._extensions()), None)

    def with_extension(self, filepath: "str | os.PathLike[str]", ext: str | None) -> Path:
        """Returns the path with another extension; None is the one the item is written with.

        Raises:
            ValueError: If the extension is none: they begin with a dot.
        """
        ext = self.default_extension() if ext is None else ext
        return Path(filepath) if ext is None else Path(filepath).with_suffix(ext)

    def as_default_name(self, filepath: "str | os.PathLike[str]") -> Path:
        """Returns the path with the extension that the item is written with."""
        return self.with_extension(filepath, None)

    def extension_in_use(self) -> str:
        """Returns the extension, with its dot, that a new file of the item gets; "" for none.

        It is that of the file which the item is in, as written, if that is linked or copied.
        """
        return storing.extension_in_use(self) or self.as_default_name(_ANY_NAME).suffix

    def get_all_names(self, filepath: "str | os.PathLike[str]") -> list[Path]:
        """Returns the path with each extension that files of the item may have."""
        return [self.with_extension(filepath, ext) for ext in self._extensions()]

    def _extensions(self) -> Sequence[str]:
        return self.file_extensions()

    def serialize(self, *paths: "str | os.PathLike[str]") -> None:
        """Writes the item to each path, by its serialization mode; then it has these sources, too.

        A path without an extension of this class gets the default one. Missing folders are made.
        An existing file is replaced, never written through, and only once the new one is whole.

        Raises:
            EncodeError: If the value cannot be encoded, or there is none.
            DatasetWriteError: If a path cannot be written, or is in an object store.
        """
        from prefect_pipestream.storage.address import is_address  # which needs pydantic

        for path in paths:
            if is_address(path):
                raise DatasetWriteError(
                    f"{os.fspath(path)}: an item is written to a file only. Write to a dataset in "
                    "an object store by a stream: DataStream.set_output."
                )
            target = Path(path)
            if class_for(target.name) is not type(self):
                target = self.as_default_name(target)
            self._files = storing.serialize(self, _absolute(target))

    def original(self, replaced: FileSource | None = None) -> FileSource | None:
        """Returns the file whose metadata the item's new file keeps, if there is one.

        Args:
            replaced: The file that the new one replaces, for an item that was made from none.
        """
        return storing.original_of(self, type(self), replaced)

    def store(self, path: str, replaced: FileSource | None = None) -> FileSource:
        """Creates the file `path`, which must not exist, by the serialization mode.

        Args:
            path: The file.
            replaced: The file that it replaces: if the item was made from none, what this one
                has beside its value is kept.

        The item gets no new source. A file is linked or copied only if it holds this item's
        value, in the format that the extension of `path` stands for.

        Raises:
            EncodeError: If the value cannot be encoded, or there is none.
            DatasetWriteError: If the path exists or cannot be written; nothing is left there.
        """
        return storing.store(self, path, path, replaced)

    def add_source(self, source: FileSource) -> None:
        """Lets the item know of one more file that holds its value."""
        self._files = (*(f for f in self._files if f.path != source.path), source)

    def remove_data_source(self: ItemT, *sources: "str | os.PathLike[str]") -> ItemT:
        """Returns an item that has forgotten these files, or all files below these folders.

        It keeps its value, decoded if no other file has it; the item itself if it had none of them.

        Raises:
            DecodeError: If the value cannot be decoded.
        """
        forgotten = [_absolute(path) for path in sources]
        kept = [
            source
            for source in self._files
            if not any(Path(source.path).is_relative_to(path) for path in forgotten)
        ]
        if len(kept) == len(self._files):
            return self
        value = () if kept and not self.has_value else (self(),)
        return self.make_new(*value, *kept, shared=self._shared)

    def is_stored_at(self, path: str) -> bool:
        """Tells whether the file at this absolute path already is what `store` would make."""
        return storing.is_stored_at(self, path)


class UnknownItem(Item[Any]):
    """An item in a file that no class can read: it can be linked and copied, not decoded."""

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns no extension: every file that no other class claims is an unknown item."""
        return ()

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Raises, as the format is not known."""
        raise DecodeError(
            "no item class reads files with this extension, they can only be linked and copied. "
            "Define an Item subclass for it, or leave the item out."
        )

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Raises, as the format is not known."""
        raise EncodeError("An UnknownItem has no encoder: make an item of the class to write.")

    def _extensions(self) -> Sequence[str]:
        return [Path(source.path).suffix for source in self._files[:1]]


def _absolute(path: "str | os.PathLike[str]") -> str:
    name = os.fspath(path)
    return name if name.startswith("/") else os.path.abspath(name)
