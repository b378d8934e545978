"""What the encoders of item classes can be told, and the checks of it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_pipestream.errors import EncodeError

if TYPE_CHECKING:
    from prefect_pipestream.items.base import Item


class Rule(NamedTuple):
    """What an option may be.

    Attributes:
        expected: It in words, for messages.
        allows: Tells it of a value.
    """

    expected: str
    allows: Callable[[Any], bool]


def one_of(*values: Any, or_none: str | None = None) -> Rule:
    """Makes the rule of an option with few values; `or_none`: what None stands for."""
    return _rule(
        "one of " + ", ".join(map(repr, values)),
        lambda value: any(type(value) is type(one) and value == one for one in values),
        or_none,
    )


def whole(low: int, high: int, or_none: str | None = None) -> Rule:
    """Makes the rule of an option that is a whole number."""
    return _rule(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
        or_none,
    )


def a_flag(or_none: str | None = None) -> Rule:
    """Makes the rule of an option that is on or off."""
    return _rule("True or False", lambda value: type(value) is bool, or_none)


def _rule(expected: str, allows: Callable[[Any], bool], or_none: str | None) -> Rule:
    if or_none is None:
        return Rule(expected, allows)
    return Rule(f"{expected}, or None ({or_none})", lambda value: value is None or allows(value))


def check_options(cls: "type[Item[Any]]", options: Mapping[str, Any]) -> None:
    """Checks options of the encoder of an item class.

    Raises:
        EncodeError: If the encoder has no such option, or not of this value.
    """
    allowed = cls.encoder_defaults
    for name, value in options.items():
        if name not in allowed:
            raise EncodeError(
                f"{cls.__name__} has no encoder option {name!r}; "
                f"it has: {', '.join(allowed) or 'none'}."
            )
        rule = cls.encoder_rules.get(name)
        if rule is not None and not rule.allows(value):
            raise EncodeError(
                f"{cls.__name__}: the encoder option {name!r} cannot be {value!r}; "
                f"expected {rule.expected}."
            )
