"""A dataset that is being created: a folder beside it, which gets its name once it is whole."""

import os
import re
import secrets
import time

from prefect_pipestream.storage.asking import status_of

_MAKING_S = 60.0  # far above what writing a file or creating a dataset takes


def new_sibling(root: str) -> str:
    """A name for the folder that is to become the dataset at `root`."""
    parent, name = os.path.split(root)
    return os.path.join(parent, f".{name}.{secrets.token_hex(6)}")


def left_by_creators(root: str) -> list[str]:
    """The folders of creators that were killed a minute ago or earlier."""
    parent, name = os.path.split(root)
    made = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{12}}")
    paths = [os.path.join(parent, found) for found in filter(made.fullmatch, os.listdir(parent))]
    return [path for path in paths if is_old(path)]


def is_old(path: str) -> bool:
    """Whether a file or folder was not touched for a minute: no process is just making it."""
    found = status_of(path)
    return found is not None and time.time() - found.st_mtime > _MAKING_S
