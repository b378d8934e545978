"""The shared items of a dataset: the files in its root."""

import os
from collections.abc import Iterable
from typing import Any

from prefect_pipestream.errors import DuplicateItemError
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.storage.asking import is_folder
from prefect_pipestream.storage.clock import is_racy
from prefect_pipestream.underfolder.format.names import parse_root_name
from prefect_pipestream.underfolder.format.origin import stat_into, unreadable


class SharedItems:
    """The items in a dataset's root, read anew when a file came or went."""

    def __init__(self, root: str, allow_pickle: bool) -> None:
        self._root = root
        self._allow_pickle = allow_pickle
        self._items: dict[str, Item[Any]] = {}
        self._mtime: int | None = None  # of the root, as of which the items are right

    def current(self, *, as_read: bool = False) -> dict[str, Item[Any]]:
        """The items by key. Costs one `stat`, unless a file came or went.

        Args:
            as_read: Whether the items that were read before will do.

        Raises:
            DuplicateItemError: If two files claim one key.
            DatasetError: If the root cannot be read.
        """
        if not as_read or self._mtime is None:
            self._refresh()
        return self._items

    def _refresh(self) -> None:
        try:
            mtime = os.stat(self._root).st_mtime_ns
            if mtime == self._mtime:
                return
            self._items = self._found_in(sorted(os.listdir(self._root)))
        except FileNotFoundError:
            self._items, self._mtime = {}, None
            return
        except OSError as error:
            raise unreadable(self._root, error) from error
        self._mtime = None if is_racy(mtime) else mtime

    def _found_in(self, names: Iterable[str]) -> dict[str, Item[Any]]:
        found: dict[str, Item[Any]] = {}
        for name in names:
            parsed = parse_root_name(name)
            path = f"{self._root}/{name}"
            if parsed is None or is_folder(path):
                continue
            key, _ = parsed
            if key in found:
                raise DuplicateItemError(
                    f"{self._root} has two files for the shared item {key!r}: "
                    f"{found[key].local_sources[0].name} and {name}. Remove one."
                )
            source = FileSource(path)
            stat_into(source)
            found[key] = Item.from_source(source, shared=True, allow_pickle=self._allow_pickle)
        return found
