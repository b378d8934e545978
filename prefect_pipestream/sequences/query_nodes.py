"""What a query is made of, and what it means for one sample, and for many at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = list[Any]
Mask = npt.NDArray[np.bool_]
Check = Callable[..., bool]
Asked = tuple[str, bool]
"""A path, and whether its values are asked for, and not only whether the sample has the item."""


@dataclass(frozen=True)
class Question:
    """A question about what some paths lead to.

    Attributes:
        paths: The paths.
        check: Answers it, given what each of them leads to.
        asks_value: Whether it looks at values, and not only whether there is an item.
        compares: Whether it compares values.
    """

    paths: tuple[str, ...]
    check: Check
    asks_value: bool = True
    compares: bool = True


@dataclass(frozen=True)
class Join:
    """Several queries, of which all or one must be true; or one, that must not."""

    word: str
    parts: tuple["Node", ...]


Node = Question | Join


class Coded(NamedTuple):
    """What a path leads to in each of many samples: a code, and for each code the values."""

    codes: npt.NDArray[np.int64]
    values: list[Values]


@dataclass(frozen=True)
class Query:
    """A query that was understood.

    Attributes:
        text: As it was written.
        root: What it is made of.
    """

    text: str
    root: Node

    def questions(self) -> Iterator[Question]:
        """Its questions."""
        nodes = [self.root]
        while nodes:
            node = nodes.pop()
            if isinstance(node, Question):
                yield node
            else:
                nodes.extend(node.parts)

    def matches(self, values_of: Callable[[str, bool], Values]) -> bool:
        """Whether it is true of one sample.

        Args:
            values_of: Gives what a path leads to, or, where the second argument is false, anything
                if the sample has the item.
        """
        return _is_true(self.root, values_of)

    def mask(self, columns: Mapping[Asked, Coded], count: int) -> Mask:
        """Of which samples it is true.

        Args:
            columns: For each path what it leads to in each sample, as `values_of` gives it.
            count: How many samples there are.
        """
        return _mask(self.root, columns, count)


def _is_true(node: Node, values_of: Callable[[str, bool], Values]) -> bool:
    if isinstance(node, Question):
        return node.check(*(values_of(path, node.asks_value) for path in node.paths))
    if node.word == "NOT":
        return not _is_true(node.parts[0], values_of)
    found = (_is_true(part, values_of) for part in node.parts)
    return all(found) if node.word == "AND" else any(found)


def _mask(node: Node, columns: Mapping[Asked, Coded], count: int) -> Mask:
    if isinstance(node, Join):
        masks = [_mask(part, columns, count) for part in node.parts]
        if node.word == "NOT":
            return ~masks[0]
        join = np.logical_and if node.word == "AND" else np.logical_or
        found: Mask = join.reduce(masks)
        return found
    if not node.paths:
        return np.full(count, node.check())
    asked = [columns[path, node.asks_value] for path in node.paths]
    if len(asked) == 1:  # one question for each value, not for each sample
        (column,) = asked
        answers = np.fromiter(map(node.check, column.values), np.bool_, len(column.values))
        return answers[column.codes]
    together, inverse = np.unique(
        np.stack([column.codes for column in asked]), axis=1, return_inverse=True
    )
    answers = np.array(
        [
            node.check(*(column.values[code] for column, code in zip(asked, codes, strict=True)))
            for codes in together.T.tolist()
        ],
        dtype=np.bool_,
    )
    return answers[inverse.reshape(-1)]
