"""Who asks: the name that a person gave on the page."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header


def _named(x_person: Annotated[str, Header(max_length=1_000)] = "") -> str:
    return unquote(x_person)  # a header has ASCII only


Person = Annotated[str, Depends(_named)]
"""The name of who asks, as it was typed; empty where none was."""
