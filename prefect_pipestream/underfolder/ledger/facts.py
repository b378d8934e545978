"""What a run is, beside its commits: the facts in its ``run.json``."""

import getpass
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.storage.untrusted import read_regular, write_anew
from prefect_pipestream.underfolder.format.layout import Layout, RunLayout, folder_of, run_key_of
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.records import is_time

Folder = str | os.PathLike[str]

_KEYS = {"run_key", "fingerprint"}
_TEXTS = {"undoes", "rolls_back", "failed_in", "user", "host"}
_NAMES = {"undoes_folders"}
_TIMES = {"started", "finished", "undone"}
_MOST_BYTES = 1 << 28  # a review of a million samples


def note_run(layout: Layout, run_key: str, facts: Mapping[str, Any]) -> None:
    """Writes ``run.json`` of a run that has none yet: its key, start, user and host, and `facts`.

    A run of a transform has its ``fingerprint`` among the facts: `signatures` looks for it.
    """
    run = layout.run(run_key)
    if is_there(run.info):
        return
    for folder in (run.done, layout.staged):
        os.makedirs(folder, exist_ok=True)
    known = {"run_key": run_key, "started": time.time(), "user": _user()}
    write_json(layout, run.info, {**known, "host": socket.gethostname(), **facts})


def update_run(run: RunLayout, **facts: Any) -> None:
    """Adds facts to a run's ``run.json``."""
    write_json(run.layout, run.info, {**info_of(run), **facts})


def info_of(run: RunLayout) -> dict[str, Any]:
    """What ``run.json`` says of a run; at least its key. What cannot be meant is left out."""
    info = {name: fact for name, fact in read_json(run.info).items() if _is_fact(name, fact)}
    info.setdefault("run_key", run_key_of(run.name))
    return info


def _is_fact(name: str, fact: Any) -> bool:
    if name in _KEYS:
        return is_run_key(fact)
    if name in _TEXTS:
        return isinstance(fact, str)
    if name in _NAMES:
        return isinstance(fact, list) and all(isinstance(one, str) for one in fact)
    return name not in _TIMES or is_time(fact)


def read_json(path: str) -> dict[str, Any]:
    """The mapping in a file; an empty one where there is none, or the file holds another thing.

    Raises:
        OSError: If the file is there and cannot be read.
    """
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(layout: Layout, path: str, content: Mapping[str, Any]) -> None:
    """Writes a private file of a dataset anew, whole or not at all."""
    write_anew(path, json.dumps(content, indent=1).encode(), layout.staged)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return str(os.getuid())


def layout_of(folder: Folder) -> Layout:
    """The paths of the dataset at `folder`."""
    return Layout(os.path.abspath(os.path.expanduser(os.fspath(folder))))


def runs_of(layout: Layout) -> list[RunLayout]:
    """All runs of a dataset, those that were undone among them.

    Raises:
        DatasetError: If the folder of one is a symbolic link.
        OSError: If they cannot be listed.
    """
    runs = layout.runs
    names = [name for name in sorted(names_in(runs)) if is_folder(f"{runs}/{name}")]
    return [RunLayout(layout, name) for name in names]


def is_undone(run: RunLayout, run_key: str) -> bool:
    """Whether a run was undone: then its folder is named otherwise than its key."""
    return run.name != folder_of(run_key)


def names_in(folder: str) -> list[str]:
    """The names in a folder that do not begin with a dot; none where there is no folder.

    Raises:
        OSError: If there is one, and it cannot be listed.
    """
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
