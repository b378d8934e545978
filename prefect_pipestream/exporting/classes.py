"""The classes of samples that are exported: their numbers, and new ones for new labels."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect_pipestream.errors import SampleError
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.import_source import CATEGORIES


class Classes:
    """The classes that a dataset has, and those that its samples bring along."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self._ids: dict[str, int] = {}
        self._nameless: set[int] = set()

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are added from now on."""
        known, ids, nameless = len(self.listed), dict(self._ids), set(self._nameless)

        def take_back() -> None:
            self.listed, self._ids, self._nameless = self.listed[:known], ids, nameless

        return take_back

    def know(self, sample: Sample) -> None:
        """Takes what the shared item says, if it says anything, before the first sample.

        Raises:
            SampleError: If that is no list of classes.
        """
        if self.listed or CATEGORIES not in sample:
            return
        value = sample[CATEGORIES]()
        found: dict[str, int] = {}
        listed = value if isinstance(value, list) else [value]
        for one in listed:
            name = one.get("name") if isinstance(one, Mapping) else None
            number = one.get("id") if isinstance(one, Mapping) else None
            if not isinstance(name, str) or not isinstance(number, int) or isinstance(number, bool):
                raise SampleError(
                    f"`{CATEGORIES}` has {one!r}: expected a list of mappings with `id`, a whole "
                    "number, and `name`."
                )
            found.setdefault(name, number)
        self._ids = found
        self.listed = [dict(one) for one in listed]

    @property
    def are_nameless(self) -> bool:
        """Whether samples have numbers that are those of no class."""
        return bool(self._nameless)

    def begin_with(self, names: Iterable[str]) -> None:
        """Takes names in the order of their numbers, if no class is known yet."""
        if not self.listed:
            self._ids = {name: number for number, name in enumerate(names)}
            self.listed = [{"id": number, "name": name} for name, number in self._ids.items()]

    def id_of(self, facts: Mapping[str, Any]) -> int | None:
        """The number of a sample's class: that of its `label`, a new one of a new label.

        Raises:
            SampleError: If the label is no text, or the number no number.
        """
        label, number = facts.get("label"), facts.get("label_id")
        if label is None:
            if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
                raise SampleError(f"`label_id` {number!r}: expected a whole number.")
            if number is not None and number not in self._ids.values():
                self._nameless.add(number)
            return number
        if not isinstance(label, str):
            raise SampleError(f"`label` {label!r}: expected a text.")
        if label not in self._ids:
            taken = {*self._ids.values(), *self._nameless}
            if type(number) is not int or number < 0 or number in taken:
                number = max(taken, default=-1) + 1
            self._ids[label] = number
            self.listed.append({"id": self._ids[label], "name": label})
        return self._ids[label]
