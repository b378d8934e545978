"""Many things, of which some are taken at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def lots(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Gives things in lists of a size; the last one may be shorter."""
    rest = iter(things)
    while lot := list(islice(rest, size)):
        yield lot
