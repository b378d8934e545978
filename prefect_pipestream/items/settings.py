"""Settings of item classes: how items are written, what is cached, whether pickles are read.

A setter holds for the whole process; a context manager (each is a decorator, too) holds for the
code inside it and leaves other threads alone. Where no class is given, all classes are meant.
"""

import enum
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")
_ClassSettings = tuple[dict[type, V], dict[type, V] | None]


class SerializationMode(enum.IntEnum):
    """How an item whose value is already in a file gets into another one.

    A link that the file system cannot make falls back to a copy, a copy without a file to copy
    to a new file.
    """

    CREATE_NEW_FILE = 0
    DEEP_COPY = 1
    SYM_LINK = 2
    HARD_LINK = 3

    @classmethod
    def of(cls, mode: "SerializationMode | str") -> "SerializationMode":
        """Returns the mode of this name, upper or lower case, or the mode itself.

        Raises:
            ValueError: If no mode is called so.
        """
        if isinstance(mode, str):
            try:
                return cls[mode.upper()]
            except KeyError:
                allowed = ", ".join(cls.__members__)
                raise ValueError(
                    f"No serialization mode {mode!r}; choose one of {allowed}."
                ) from None
        return cls(mode)


class _ClassSetting(Generic[V]):
    """Values set for classes: those of the process, overlaid by those of the current context."""

    def __init__(self, name: str) -> None:
        self._process: dict[type, V] = {}
        self._context: ContextVar[dict[type, V] | None] = ContextVar(name, default=None)

    def set(self, value: V, classes: Iterable[type]) -> None:
        self._process = _with(self._process, value, classes)

    @contextmanager
    def within(self, value: V, classes: Iterable[type]) -> Iterator[None]:
        token = self._context.set(_with(self._context.get() or {}, value, classes))
        try:
            yield
        finally:
            self._context.reset(token)

    def now(self) -> "_ClassSettings[V]":
        return self._process, self._context.get()

    def set_all(self, settings: "_ClassSettings[V]") -> None:
        self._process = settings[0]
        self._context.set(settings[1])

    def values(self, cls: type) -> list[V]:
        """Returns what is set for the class or a base of it, the latest first."""
        context = self._context.get()
        if not context and not self._process:
            return []
        # An inner `with` takes the place of an outer one, and of the process, for its class.
        merged = {**self._process, **context} if context else self._process
        latest_first = [*reversed(context or ()), *reversed(self._process)]
        bases = cls.__mro__
        return [merged[c] for c in dict.fromkeys(latest_first) if c in bases]


def _with(settings: dict[type, V], value: V, classes: Iterable[type]) -> dict[type, V]:
    added = dict.fromkeys(classes or (object,), value)
    return {**{c: v for c, v in settings.items() if c not in added}, **added}


_modes: _ClassSetting[SerializationMode] = _ClassSetting("item_serialization_mode")
_disabled: _ClassSetting[frozenset[SerializationMode]] = _ClassSetting("item_disabled_modes")
_caching: _ClassSetting[bool] = _ClassSetting("item_data_cache")
_unpickling: ContextVar[bool] = ContextVar("item_unpickling", default=False)

ModeOrName = SerializationMode | str


def effective_mode(cls: type, own: SerializationMode | None) -> SerializationMode:
    """Returns an item's own mode, else the lowest set for its class, lowered where disabled."""
    mode = own
    if mode is None:
        mode = min(_modes.values(cls), default=SerializationMode.HARD_LINK)
    while mode and not is_mode_enabled(cls, mode):
        mode = SerializationMode(mode - 1)
    return mode


def is_mode_enabled(cls: type, mode: SerializationMode) -> bool:
    """Tells whether no setting disables the mode for the class."""
    return not any(mode in modes for modes in _disabled.values(cls))


def is_cached(cls: type) -> bool:
    """Tells whether the class's items keep their values once decoded."""
    values = _caching.values(cls)
    return bool(values) and values[0]


def is_unpickling_allowed() -> bool:
    """Tells whether pickles may be decoded here."""
    return _unpickling.get()


def _mode_set(modes: ModeOrName | Iterable[ModeOrName]) -> frozenset[SerializationMode]:
    if isinstance(modes, (str, SerializationMode)):
        modes = [modes]
    return frozenset(SerializationMode.of(mode) for mode in modes)


def set_item_serialization_mode(mode: ModeOrName, *item_cls: type) -> None:
    """Sets the mode of these item classes for the process."""
    _modes.set(SerializationMode.of(mode), item_cls)


def item_serialization_mode(smode: ModeOrName, *item_cls: type) -> AbstractContextManager[None]:
    """Sets the mode of these item classes inside a `with` block or a decorated function."""
    return _modes.within(SerializationMode.of(smode), item_cls)


def set_item_disabled_serialization_modes(
    modes: ModeOrName | Iterable[ModeOrName], *item_cls: type
) -> None:
    """Disables modes of these item classes for the process: the next lower ones are used."""
    _disabled.set(_mode_set(modes), item_cls)


def item_disabled_serialization_modes(
    smodes: ModeOrName | Iterable[ModeOrName], *item_cls: type
) -> AbstractContextManager[None]:
    """Disables modes of these item classes inside a `with` block or a decorated function."""
    return _disabled.within(_mode_set(smodes), item_cls)


def enable_item_data_cache(*item_cls: type) -> None:
    """Lets the items of these classes keep their values once decoded, in the whole process."""
    _caching.set(True, item_cls)


def disable_item_data_cache(*item_cls: type) -> None:
    """Lets the items of these classes decode anew at every call, in the whole process."""
    _caching.set(False, item_cls)


def data_cache(*item_cls: type) -> AbstractContextManager[None]:
    """Lets items keep the values decoded inside a `with` block or a decorated function."""
    return _caching.within(True, item_cls)


def no_data_cache(*item_cls: type) -> AbstractContextManager[None]:
    """Lets items decode anew inside a `with` block or a decorated function."""
    return _caching.within(False, item_cls)


@contextmanager
def allow_unpickling() -> Iterator[None]:
    """Lets pickles be decoded inside a `with` block or a decorated function.

    Unpickling runs code that the file names: allow it only for files whose origin you trust.
    """
    token = _unpickling.set(True)
    try:
        yield
    finally:
        _unpickling.reset(token)


class Settings(NamedTuple):
    """All settings as they are at a time and place, to be the same in another process.

    Pillow's own two are among them: the most pixels, and whether it takes truncated files.
    """

    modes: _ClassSettings[SerializationMode]
    disabled: _ClassSettings[frozenset[SerializationMode]]
    caching: _ClassSettings[bool]
    unpickling: bool
    pillow: tuple[int | None, bool] | None

    @classmethod
    def now(cls) -> "Settings":
        """Returns what is set here."""
        return cls(_modes.now(), _disabled.now(), _caching.now(), _unpickling.get(), _pillow_now())

    def set(self) -> None:
        """Makes them the settings of this process and context."""
        _modes.set_all(self.modes)
        _disabled.set_all(self.disabled)
        _caching.set_all(self.caching)
        _unpickling.set(self.unpickling)
        if self.pillow is not None:
            from PIL import Image, ImageFile

            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self.pillow


def _pillow_now() -> tuple[int | None, bool] | None:
    """None: nobody can have set anything, as it is not loaded."""
    if "PIL.ImageFile" not in sys.modules:
        return None
    from PIL import Image, ImageFile

    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
