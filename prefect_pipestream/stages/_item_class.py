"""A field of a stage that names an item class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from prefect_pipestream import items
from prefect_pipestream.errors import EncodeError
from prefect_pipestream.items import Item
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.sequences.fields import find_item_class


def item_class(value: Any) -> type[Item[Any]]:
    """Returns the item class of a name.

    Args:
        value: The name of a class of `prefect_pipestream.items`, as "PngImageItem";
            "package.module:Name" of one's own; or the class itself. An abstract class stands for
            its default, as ImageItem for PngImageItem.

    Raises:
        ValueError: If there is no such item class, or it has no files to be written to.
    """
    found = find_item_class(value)
    concrete = found.default_concrete()
    if "file_extensions" in getattr(concrete, "__abstractmethods__", ()) or not (
        concrete.file_extensions()
    ):
        raise ValueError(f"{concrete.__name__} has no file format of its own: name another class.")
    return concrete


def _name_of(cls: type[Item[Any]]) -> str:
    built_in = getattr(items, cls.__name__, None) is cls
    return cls.__name__ if built_in else f"{cls.__module__}:{cls.__qualname__}"


if TYPE_CHECKING:
    ItemClass = type[Item[Any]]
else:
    # pydantic takes no `type[...]` of a generic class with its arguments.
    ItemClass = Annotated[
        type,
        BeforeValidator(item_class),
        PlainSerializer(_name_of, return_type=str),
        WithJsonSchema({"type": "string", "examples": ["PngImageItem", "my_package.items:Mine"]}),
    ]
"""An item class, or its name."""


def as_class(item: Item[Any], cls: type[Item[Any]]) -> Item[Any]:
    """Returns the item as one of another class, not decoded; itself if it is of that class.

    Raises:
        EncodeError: If the item's value is in memory, and the class cannot hold it.
    """
    if type(item) is cls:
        return item
    return cls(item, shared=item.is_shared)


def require_some_class(options: Mapping[str, Any]) -> None:
    """Checks encoder options of items whose class shows only when a sample is read.

    Raises:
        ValueError: If no class has all of these options, of these values.
    """
    classes = dict.fromkeys(cls for cls in CLASS_BY_EXTENSION.values() if cls.encoder_defaults)
    problems = []
    for cls in classes:
        try:
            cls.check_options(options)
        except EncodeError as error:
            problems.append(str(error))
        else:
            return
    raise ValueError("no item can be encoded so. " + " ".join(problems))
