"""Types of fields that several sources and pipes share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.building import import_member, suggestion


def format_key(key_format: str, key: str) -> str:
    """Puts a key into a format: for each `*`, or before it if it has none."""
    return key_format.replace("*", key) if "*" in key_format else key + key_format


def find_item_class(spec: Any) -> type[Item[Any]]:
    """Returns the item class that a name, "package.module:Name" or the class itself names.

    Raises:
        PipeBuildingError: If there is no item class of this name.
    """
    if isinstance(spec, type) and issubclass(spec, Item):
        return spec
    if not isinstance(spec, str):
        raise PipeBuildingError(f"{spec!r} is not an item class, expected one or its name.")
    if ":" in spec:
        member = import_member(spec)
        if isinstance(member, type) and issubclass(member, Item):
            return member
        raise PipeBuildingError(f"{spec!r} is not an item class.")
    known = {cls.__name__: cls for cls in _item_classes(Item)}
    name = spec.rpartition(".")[2]
    if name not in known:
        raise PipeBuildingError(
            f"no item class {spec!r}.{suggestion(name, known)} Known: {', '.join(sorted(known))}; "
            "your own are named 'package.module:Name'."
        )
    return known[name]


def _item_classes(cls: Any) -> Iterator[type[Item[Any]]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _item_classes(sub)


if TYPE_CHECKING:
    ItemClass = type[Item[Any]]
else:
    # pydantic takes no `type[…]` of a generic class with its arguments.
    ItemClass = Annotated[type, BeforeValidator(find_item_class)]
"""A field that takes an item class, its name, or "package.module:Name"."""
