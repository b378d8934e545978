"""Keys of items that stand for the columns of a table, or for the extensions of files."""

from typing import Annotated

from pydantic import AfterValidator

from prefect_pipestream.underfolder.format.names import check_key


def key_like(name: str) -> str:
    """Returns a key that looks like a name: with `_` in place of what no key can have."""
    return "".join("_" if one in "./\\" or not one.isprintable() else one for one in name) or "_"


def _check(keys: dict[str, str]) -> dict[str, str]:
    for key in keys.values():
        check_key(key)
    if len(set(keys.values())) < len(keys):
        raise ValueError("two of them have one key; each is an item of its own.")
    return keys


NamedKeys = Annotated[dict[str, str], AfterValidator(_check)]
"""Keys that a user gives to columns or extensions, each of which is an item of its own."""
