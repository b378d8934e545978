"""Which item class reads and writes which file name extension."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_pipestream.items.base import Item

CLASS_BY_EXTENSION: "dict[str, type[Item[Any]]]" = {}


def extension_of(path: str) -> str:
    """Returns the last extension of a path in lower case, with its dot; "" if it has none."""
    dot = path.rfind(".")
    extension = path[dot:].lower() if dot >= 0 else ""
    return "" if "/" in extension else extension


def class_for(path: str) -> "type[Item[Any]] | None":
    """Returns the item class of the path's extension, or None if no class claims it."""
    return CLASS_BY_EXTENSION.get(extension_of(path))


def register(cls: "type[Item[Any]]", extensions: tuple[str, ...]) -> None:
    """Makes a class the one for its extensions.

    Raises:
        ValueError: If another class has one of them, or an extension does not begin with a dot.
    """
    for extension in extensions:
        if not extension.startswith(".") or "/" in extension or "." in extension[1:]:
            raise ValueError(
                f"{cls.__name__}: {extension!r} is no file extension; write it like '.png'."
            )
        taken = CLASS_BY_EXTENSION.get(extension.lower())
        # A class that is defined again (a notebook cell run twice) takes its own place.
        if taken is not None and _identity(taken) != _identity(cls):
            raise ValueError(
                f"{cls.__name__}: the extension {extension!r} is already that of "
                f"{taken.__name__}; choose another one."
            )
    for extension in extensions:
        CLASS_BY_EXTENSION[extension.lower()] = cls


def _identity(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
