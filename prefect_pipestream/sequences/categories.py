"""The classes of a dataset: their names, their numbers, and new ones for new names."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

Number = int | str


class Categories:
    """Classes as COCO lists them: mappings with `id`, a whole number or a text, and `name`.

    Two classes may have one name, as in COCO; a number is that of one class. It does not change.

    Attributes:
        entries: The classes, each once.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]] = ()) -> None:
        """Takes classes.

        Raises:
            ValueError: If one is none, or two of them have one number.
        """
        names: dict[Number, str] = {}
        kept: list[dict[str, Any]] = []
        for entry in entries:
            if not is_category(entry):
                raise ValueError(
                    f"{repr(entry)[:80]}, expected a mapping with `id`, a whole number or a text, "
                    "and `name`"
                )
            number, name = entry["id"], entry["name"]
            if names.setdefault(number, name) != name:
                raise ValueError(
                    f"{name!r} with the number {number!r}, which is that of {names[number]!r}; "
                    "give one of them another number"
                )
            if len(names) > len(kept):
                kept.append(dict(entry))
        self.entries: Sequence[dict[str, Any]] = tuple(kept)
        self.names: Mapping[Number, str] = names

    @classmethod
    def of(cls, value: Any) -> "Categories":
        """Takes the value of an item: a list of classes, or a class alone.

        Raises:
            ValueError: If it is none of these; see the class.
        """
        if isinstance(value, Mapping):
            return cls([value])
        if isinstance(value, list):
            return cls(value)
        raise ValueError(f"{repr(value)[:80]}, expected a list of classes")

    @cached_property
    def numbers(self) -> Mapping[str, Number]:
        """The number of each name; of two classes of one name that of the first."""
        found: dict[str, Number] = {}
        for number, name in self.names.items():
            found.setdefault(name, number)
        return found

    def with_label(
        self, label: str, first: int, wanted: Any = None, taken: frozenset[int] = frozenset()
    ) -> "Categories":
        """These, and a class of this name if there is none.

        Args:
            label: The name.
            first: The least number that is given.
            wanted: The number to give to a new class, where it is one and is free.
            taken: Numbers that no new class may get, though no class has them.
        """
        if label in self.numbers:
            return self
        used = {*taken, *(one for one in self.names if isinstance(one, int))}
        is_free = type(wanted) is int and wanted >= first and wanted not in used
        number = wanted if is_free else max([first - 1, *used]) + 1
        return Categories([*self.entries, {"id": number, "name": label}])

    def merged(self, other: "Categories") -> "Categories":
        """These, and those of another list behind them that have other numbers.

        Raises:
            ValueError: If a number is that of another class there.
        """
        if other.names.items() <= self.names.items() and other.names:
            return self
        return Categories([*self.entries, *other.entries])

    def extended(self, other: "Categories") -> "Categories":
        """These, and those of another list whose names are none of these: names count.

        Each keeps its number if that is free, and else gets the next one.
        """
        names, numbers = {*self.names.values()}, {*self.names}
        end = max((one for one in numbers if isinstance(one, int)), default=-1) + 1
        more: list[dict[str, Any]] = []
        for entry in other:
            if entry["name"] not in names:
                number = end if entry["id"] in numbers else entry["id"]
                more.append({**entry, "id": number})
                names.add(entry["name"])
                numbers.add(number)
                end = max(end, number + 1) if isinstance(number, int) else end
        return Categories([*self.entries, *more]) if more else self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterates over the classes."""
        return iter(self.entries)

    def __len__(self) -> int:
        """How many classes there are."""
        return len(self.entries)


def is_class_number(value: object) -> bool:
    """Whether a value can be the number of a class: a whole number, or a text; no truth value."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def is_category(entry: object) -> bool:
    """Whether an entry is a class as COCO lists it."""
    return (
        isinstance(entry, Mapping)
        and is_class_number(entry.get("id"))
        and isinstance(entry.get("name"), str)
    )
