"""The language of queries, in which samples are told by what they are.

It is dictquery's (https://github.com/cyberlis/dictquery), whose parser and precedence it has.
Beside that, a path needs no backticks, ``HAS`` asks whether there is an item or a value, and a
comparison of what cannot be compared is false, where dictquery raises.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from dictquery.exceptions import DQException
from dictquery.parsers import DataQueryParser

from prefect_pipestream.errors import QueryError
from prefect_pipestream.sequences.query_meaning import Compiler, Has, as_node
from prefect_pipestream.sequences.query_nodes import Node, Query

_LONGEST = 10_000
_WORD = r"(?![\w.])"
_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_TOKENS = (
    ("NUMBER", r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?" + _WORD),
    ("STRING", _STRING),
    ("REGEXP", r"/(?:[^/\\]|\\.)*/"),
    ("LPAR", r"\("),
    ("RPAR", r"\)"),
    ("LBRACKET", r"\["),
    ("RBRACKET", r"\]"),
    ("COMMA", r","),
    ("NOTEQUAL", r"!=|<>"),
    ("EQUAL", r"=="),
    ("LTE", r"<="),
    ("GTE", r">="),
    ("LT", r"<"),
    ("GT", r">"),
    ("BOOLEAN", rf"(?:TRUE|FALSE){_WORD}"),
    ("NONE", rf"(?:NULL|NONE|NIL){_WORD}"),
    ("NOW", rf"NOW{_WORD}"),
    ("LIKE", rf"LIKE{_WORD}"),
    ("MATCH", rf"MATCH{_WORD}"),
    ("CONTAINS", rf"CONTAINS?{_WORD}"),
    ("IN", rf"IN{_WORD}"),
    ("OR", rf"OR{_WORD}"),
    ("AND", rf"AND{_WORD}"),
    ("NOT", rf"NOT{_WORD}"),
    ("HAS", rf"HAS{_WORD}"),
    ("KEY", r"`[^`]+`|[^\W\d]\w*(?:\.\w+)*"),
    ("WS", r"\s+"),
)
_TOKEN = re.compile("|".join(f"(?P<{name}>{one})" for name, one in _TOKENS), re.IGNORECASE)
_OPERATORS = "==, !=, <, <=, >, >=, IN, CONTAINS, LIKE or MATCH"
_HINTS = {"=": " Equal is `==`.", "&": " Both is `and`.", "|": " Either is `or`."}


class _Token(NamedTuple):
    type: str
    value: str
    at: int


# -- parsing ---------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def parse_query(text: str) -> Query:
    """Understands a query.

    Raises:
        QueryError: If it cannot be understood; the message has the column.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise QueryError(
            f"the query {text!r:.60} is none: expected text such as `metadata.label == 3`, of at "
            f"most {_LONGEST:,} characters."
        )
    parser = _Parser()
    try:
        root = parser.parse_tokens(text, list(_tokens(text)))
        query = Query(text, root)
    except DQException as error:
        problem = str(error)
        if problem == "Expected STRING, ARRAY, KEY":
            problem = "expected a [list], a 'text' or an item after IN"
        if problem.startswith("Expected binary operation"):
            problem = f"expected {_OPERATORS}, or `and` or `or`"
        raise _wrong(text, parser.column(text), problem) from error
    except RecursionError as error:
        raise _wrong(text, 0, "it is nested too deep") from error
    return query


def parse_where(text: str) -> Query:
    """Understands a query that is to choose samples, which must be about something of theirs.

    Raises:
        QueryError: If it cannot be understood, or names no item; the message has the column.
    """
    query = parse_query(text)
    if not any(one.paths for one in query.questions()):
        raise _wrong(text, 0, "it names no item. An item is named without quotes")
    return query


def _wrong(text: str, at: int, problem: str) -> QueryError:
    return QueryError(
        f"the query {text!r} cannot be parsed: column {at + 1}: {problem.rstrip('.')}. Write, for "
        "example, `metadata.label == 3 and not reviewed`; a path with other characters than "
        "letters, digits, `_` and dots goes between backticks."
    )


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            hint = _HINTS.get(text[at], "")
            what = "an unfinished text" if text[at] in "\"'`/" else f"unexpected {text[at]!r}"
            raise _wrong(text, at, f"{what}.{hint}" if hint else what)
        kind = str(match.lastgroup)
        if kind == "REGEXP":
            import regex  # only where one is asked for: it takes long to import

            try:
                regex.compile(match[0][1:-1])
            except regex.error as error:
                raise _wrong(text, at, f"no regular expression: {error}") from error
        if kind != "WS":
            yield _Token(kind, match[0], at)
        at = match.end()


class _Parser(DataQueryParser):  # type: ignore[misc] # it ships no types
    """dictquery's parser, on our tokens, which know where they stand, and with `HAS`."""

    def parse_tokens(self, text: str, tokens: Sequence[_Token]) -> Node:
        """Parses a whole query."""
        self.tokens = iter(tokens)
        self.tok = self.nexttok = None
        self._advance()
        tree = self.orstatement()
        if self.nexttok is not None:
            raise DQException(f"unexpected {self.nexttok.value!r}")
        return as_node(tree.accept(Compiler()))

    def column(self, text: str) -> int:
        """Where it stopped."""
        token: _Token | None = self.nexttok
        return len(text) if token is None else token.at

    def expr(self) -> Any:
        """Parses a comparison, a bare key, what is in parentheses, or `HAS`."""
        if self._accept("HAS"):
            self._expect("KEY")
            token: Any = self.tok
            return Has(token.value.strip("`"))
        return super().expr()

    def value(self) -> Any:
        """Parses a key or a constant."""
        if self.nexttok is None or self.nexttok.type not in _BEGIN_VALUES:
            found = "the end" if self.nexttok is None else repr(self.nexttok.value)
            raise DQException(f"expected an item, a value or a parenthesis, not {found}")
        return super().value()

    def _expect(self, kind: str) -> None:
        if not self._accept(kind):
            found = "the end" if self.nexttok is None else repr(self.nexttok.value)
            raise DQException(f"expected {_NAMES.get(kind, kind)}, not {found}")


_BEGIN_VALUES = {"KEY", "STRING", "REGEXP", "BOOLEAN", "NUMBER", "NONE", "NOW", "LBRACKET"}
_NAMES = {"KEY": "an item", "RPAR": "`)`", "RBRACKET": "`]`", "REGEXP": "a /regular expression/"}
_NAMES["STRING"] = "a 'text'"
