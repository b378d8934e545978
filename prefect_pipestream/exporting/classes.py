"""The classes of samples that are exported: their numbers, and new ones for new labels."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect_pipestream.errors import SampleError
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.categories import Categories, Number, is_class_number
from prefect_pipestream.sequences.sources.import_source import CATEGORIES


class Classes:
    """The classes that a dataset has, and those that its samples bring along.

    Args:
        first: The least number of a new class.
        are_whole: Whether only whole numbers are ones of classes, and no texts.
    """

    def __init__(self, first: int, are_whole: bool = False) -> None:
        self.known = Categories()
        self._first = first
        self._are_whole = are_whole
        self._taken: Any = None
        self._nameless: frozenset[int] = frozenset()

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are added from now on."""
        state = self.known, self._taken, self._nameless

        def take_back() -> None:
            self.known, self._taken, self._nameless = state

        return take_back

    def take(self, idx: int, sample: Sample) -> None:
        """Adds the classes that a sample's shared item lists, if they are not there yet.

        Raises:
            SampleError: If they are no classes, or one has the number of another.
        """
        item = sample.get(CATEGORIES)
        listed = None if item is None else item()
        if item is None or listed == self._taken:
            return
        try:
            json.dumps(listed)
            found = Categories.of(listed)
            if self._are_whole and not all(isinstance(number, int) for number in found.names):
                raise ValueError("numbers that are texts, expected whole ones")
            self.known = self.known.merged(found)
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(
                f"sample {idx}: `{CATEGORIES}` has {error}. Correct that item."
            ) from error
        self._taken = listed

    def begin_with(self, names: Iterable[str]) -> None:
        """Takes names in the order of their numbers, if no class is known yet."""
        if not self.known:
            entries = [{"id": number, "name": name} for number, name in enumerate(names)]
            self.known = Categories(entries)

    @property
    def are_nameless(self) -> bool:
        """Whether samples have numbers that are those of no class."""
        return bool(self._nameless)

    def label_of(self, entry: Mapping[str, Any]) -> str | None:
        """The name of an object's class: its `label`, else that of its number.

        Raises:
            ValueError: If the number is that of no class.
        """
        label, number = entry.get("label"), entry.get("category_id")
        if label is not None and not isinstance(label, str):
            raise ValueError(f"its `label` is {label!r}, expected a text")
        if label is not None or number is None:
            return label
        if not is_class_number(number) or number not in self.known.names:
            raise ValueError(f"its category {number!r} is none of `{CATEGORIES}`, and no label")
        return self.known.names[number]

    def number_of(self, label: str, number: Any = None) -> Number:
        """The number of a class: the one that is said, if it is right; a new one gets the next."""
        if is_class_number(number) and self.known.names.get(number) == label:
            known: Number = number
            return known
        self.known = self.known.with_label(label, self._first)
        return self.known.numbers[label]

    def id_of(self, facts: Mapping[str, Any]) -> int | None:
        """The number of a sample's class: that of its `label`, a new one of a new label.

        Raises:
            SampleError: If the label is no text, or the number no number.
        """
        label, number = facts.get("label"), facts.get("label_id")
        if label is None:
            if number is not None and type(number) is not int:
                raise SampleError(f"`label_id` {number!r}: expected a whole number.")
            if number is not None and number not in self.known.names:
                self._nameless |= {number}
            return number
        if not isinstance(label, str):
            raise SampleError(f"`label` {label!r}: expected a text.")
        self.known = self.known.with_label(label, self._first, number, self._nameless)
        return int(self.known.numbers[label])
