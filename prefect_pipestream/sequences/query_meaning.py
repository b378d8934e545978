"""What dictquery's expressions mean: nodes of ours are made of them."""

import fnmatch
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from dictquery.exceptions import DQException

from prefect_pipestream.errors import QueryError
from prefect_pipestream.sequences.query_nodes import Join, Node, Question, Values

RUN = "run:"
"""How the name of a field begins that is a sample's outcome in a run: ``run:<key>``."""

_MOST_DIGITS = 300
_LONGEST_MATCH_S = 1.0
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass
class Has:
    """The expression `HAS path`, which dictquery has not."""

    path: str

    def accept(self, visitor: "Compiler") -> Node:
        """Makes the node of it."""
        looks_inside = "." in self.path or self.path.startswith(RUN)
        return Question((self.path,), bool, asks_value=looks_inside, compares=False)


@dataclass(frozen=True)
class _Operand:
    """One side of a comparison: gives values, of what its paths lead to."""

    paths: tuple[str, ...]
    values: Callable[..., Values]


class Compiler:
    """Makes our nodes of dictquery's expressions, whose methods it is called by."""

    def visit_key(self, expr: Any) -> _Operand:
        """What a path leads to."""
        return _Operand((expr.value,), lambda found: found)

    def visit_string(self, expr: Any) -> _Operand:
        """A text."""
        return _constant(re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescaped, expr.value))

    def visit_number(self, expr: Any) -> _Operand:
        """A number; a whole one stays whole, however large."""
        is_whole = expr.value.lstrip("-").isdigit() and len(expr.value) < _MOST_DIGITS
        return _constant(int(expr.value) if is_whole else float(expr.value))

    def visit_boolean(self, expr: Any) -> _Operand:
        """True or false."""
        return _constant(expr.value.lower() == "true")

    def visit_none(self, expr: Any) -> _Operand:
        """Null."""
        return _constant(None)

    def visit_now(self, expr: Any) -> _Operand:
        """The time of now, UTC, as dates without a time zone are compared."""
        return _Operand((), lambda: [datetime.now(UTC).replace(tzinfo=None)])

    def visit_regexp(self, expr: Any) -> _Operand:
        """A regular expression."""
        import regex  # only where one is asked for: it takes long to import

        return _constant(regex.compile(expr.value))

    def visit_array(self, expr: Any) -> _Operand:
        """A list of values, of keys among them."""
        members = [_operand(one.accept(self)) for one in expr.value]
        paths = tuple(path for member in members for path in member.paths)

        def values(*found: Values) -> Values:
            rest, listed = list(found), []
            for member in members:
                own, rest = rest[: len(member.paths)], rest[len(member.paths) :]
                listed += member.values(*own)
            return [listed]

        return _Operand(paths, values)

    def visit_not(self, expr: Any) -> Node:
        """What must not be true."""
        return Join("NOT", (as_node(expr.value.accept(self)),))

    def visit_and(self, expr: Any) -> Node:
        """What must both be true."""
        return self._joined("AND", expr)

    def visit_or(self, expr: Any) -> Node:
        """Of what one must be true."""
        return self._joined("OR", expr)

    def visit_lt(self, expr: Any) -> Node:
        """The comparison `<`."""
        return self._test(expr, operator.lt)

    def visit_lte(self, expr: Any) -> Node:
        """The comparison `<=`."""
        return self._test(expr, operator.le)

    def visit_gt(self, expr: Any) -> Node:
        """The comparison `>`."""
        return self._test(expr, operator.gt)

    def visit_gte(self, expr: Any) -> Node:
        """The comparison `>=`."""
        return self._test(expr, operator.ge)

    def visit_equal(self, expr: Any) -> Node:
        """The comparison `==`."""
        return self._test(expr, operator.eq)

    def visit_notequal(self, expr: Any) -> Node:
        """The comparison `!=`."""
        return self._test(expr, operator.ne)

    def visit_contains(self, expr: Any) -> Node:
        """The comparison `CONTAINS`."""
        return self._test(expr, operator.contains)

    def visit_in(self, expr: Any) -> Node:
        """The comparison `IN`."""
        return self._test(expr, lambda value, among: value in among)

    def visit_match(self, expr: Any) -> Node:
        """The comparison `MATCH`."""
        return self._test(expr, _matches)

    def visit_like(self, expr: Any) -> Node:
        """The comparison `LIKE`."""
        return self._test(expr, fnmatch.fnmatchcase)

    def _joined(self, word: str, expr: Any) -> Node:
        parts: list[Node] = []
        for side in (expr.left, expr.right):
            node = as_node(side.accept(self))
            is_alike = isinstance(node, Join) and node.word == word
            parts += node.parts if isinstance(node, Join) and is_alike else [node]
        return Join(word, tuple(parts))

    def _test(self, expr: Any, holds: Callable[[Any, Any], Any]) -> Node:
        left, right = _operand(expr.left.accept(self)), _operand(expr.right.accept(self))
        split = len(left.paths)

        def check(*found: Values) -> bool:
            others = right.values(*found[split:])
            return any(
                _answer(holds, value, other)
                for value in left.values(*found[:split])
                for other in others
            )

        return Question((*left.paths, *right.paths), check)


def _constant(value: Any) -> _Operand:
    values = [value]
    return _Operand((), lambda: values)


def _answer(holds: Callable[[Any, Any], Any], value: Any, other: Any) -> bool:
    """Whether a comparison holds; not where the two cannot be compared."""
    try:
        return bool(holds(value, other))
    except QueryError:
        raise
    except (TypeError, ValueError):
        return False


def _operand(made: Any) -> _Operand:
    if not isinstance(made, _Operand):
        raise DQException("a comparison cannot be compared again")
    return made


def as_node(made: Any) -> Node:
    """An operand that stands alone asks whether what it leads to is true, as Python has it."""
    if not isinstance(made, _Operand):
        node: Node = made
        return node

    def check(*found: Values) -> bool:
        return any(_is_truthy(value) for value in made.values(*found))

    return Question(made.paths, check, compares=False)


def _is_truthy(value: Any) -> bool:
    return bool(value.size) if isinstance(value, np.ndarray) else bool(value)


def _matches(value: Any, pattern: Any) -> bool:
    """Whether a text begins as an expression says.

    Raises:
        QueryError: If that takes for ever, as with `(a+)+$` on a text that almost matches.
    """
    try:
        return pattern.match(value, timeout=_LONGEST_MATCH_S) is not None
    except TimeoutError as error:
        raise QueryError(
            f"where: /{pattern.pattern}/ took over {_LONGEST_MATCH_S:g} s to be matched with "
            f"{value!r:.60}. Write it without repetitions of what repeats, such as `(a+)+`."
        ) from error


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, escape)
