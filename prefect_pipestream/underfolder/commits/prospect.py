"""A sample as it would be on disk after a change, for those who judge it before that is made."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from prefect_pipestream.errors import (
    ConflictError,
    DuplicateItemError,
    InvalidSampleError,
    some_problems,
)
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.storage.file_source import no_such_file
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, Kind, is_shared, key_of

Items = Mapping[str, Item[Any]]
Check = Callable[[Items], Sequence[str]]
"""Says what is wrong with a sample, given its items by key; nothing, if nothing is."""

_SHOWN = 5


@dataclass
class Prospect:
    """A sample as it would be.

    Attributes:
        items: Its items by key, the shared ones among them.
        beside: The files of those that are on disk already, and stay.
        kinds: The kinds of all own files that the sample has now.
    """

    items: dict[str, Item[Any]] = field(default_factory=dict)
    beside: list[FileSource] = field(default_factory=list)
    kinds: Sequence[Kind] = ()

    def is_outdated(self, dataset: Underfolder, idx: int) -> bool:
        """Whether others changed meanwhile what it is made of beside the placed files."""
        dataset.learn_kinds()
        return set(dataset.all_kinds_of(idx)) != set(self.kinds) or any(
            source.is_changed() for source in self.beside
        )


@dataclass
class Judge:
    """Holds samples against a check before they are written.

    Args:
        dataset: The dataset.
        check: What says what is wrong.
    """

    dataset: Underfolder
    check: Check
    _shared: dict[str, Item[Any]] = field(default_factory=dict)  # decoded once

    def prospect(
        self, idx: int, placed: Mapping[str, FileSource], removed: Collection[str] = ()
    ) -> Prospect:
        """The sample as it would be.

        Args:
            idx: Its index.
            placed: Where each file is now that is to be placed, by the name that it gets; with a
                leading slash, that of a shared item.
            removed: The names that are removed, beside those of the same items.

        Raises:
            DuplicateItemError: If two files would claim one key.
            FileNotFoundError: If a file that stays is not there any more.
        """
        found = Prospect(kinds=self.dataset.kinds_of(idx))
        self._add_shared(found, placed, removed)
        own = {key_of(name): source for name, source in placed.items() if not is_shared(name)}
        beside: dict[str, str] = {}
        for kind in found.kinds:
            name = kind.name_of(idx)
            if kind.key in own or name in removed:
                continue
            if kind.key in beside:
                raise DuplicateItemError(
                    f"there are two files for item {kind.key!r}: {beside[kind.key]} and {name}. "
                    "Remove one of them."
                )
            beside[kind.key] = name
            source = self._staying(name)
            found.beside.append(source)
            found.items[kind.key] = self.dataset.item_of(source)
        found.items.update((key, self.dataset.item_of(source)) for key, source in own.items())
        return found

    def _staying(self, name: str) -> FileSource:
        source = self.dataset.source_of(name)
        if source is None:
            raise no_such_file(name)
        return source

    def _add_shared(
        self, found: Prospect, placed: Mapping[str, FileSource], removed: Collection[str]
    ) -> None:
        ours = {key_of(name): source for name, source in placed.items() if is_shared(name)}
        for key, file in self.dataset.shared_files().items():
            name = "/" + file
            if key not in ours and name not in removed:
                if name not in self._shared:
                    self._shared[name] = self._shared_item(self._staying(name))
                found.items[key] = self._shared[name]
                found.beside += self._shared[name].file_sources
        for key, source in ours.items():
            if source.path not in self._shared:
                self._shared[source.path] = self._shared_item(source)
            found.items[key] = self._shared[source.path]

    def _shared_item(self, source: FileSource) -> Item[Any]:
        return self.dataset.item_of(source, shared=True)

    def forget_shared(self) -> None:
        """Looks at shared items anew, as where staged ones are discarded."""
        self._shared.clear()

    def problems(self, found: Prospect, placed: Mapping[str, FileSource]) -> list[str]:
        """What the check says, with the names that the files get in place of where they are."""
        texts = list(self.check(found.items))
        for name, source in placed.items() if texts else ():
            shown = name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"
            texts = [text.replace(source.path, shown) for text in texts]
        return [text.replace(f"{self.dataset.folder}{os.sep}", "") for text in texts]

    def judged(
        self, idx: int, placed: Mapping[str, FileSource], removed: Collection[str] = ()
    ) -> list[FileSource]:
        """Lets a sample pass that is as it should be.

        Args:
            idx: The index at which it is written.
            placed: Its files; see `prospect`.
            removed: The names that are removed, beside those of the same items.

        Returns:
            What was looked into of files that stay: others are not to change it before the commit.

        Raises:
            InvalidSampleError: If something is wrong with it.
            ConflictError: If others changed what it was judged by meanwhile.
        """
        try:
            found = self.prospect(idx, placed, removed)
            problems = self.problems(found, placed)
        except FileNotFoundError as error:
            raise self._conflict(idx) from error
        except DuplicateItemError as error:
            raise InvalidSampleError.of(idx, [str(error)]) from error
        if not problems:
            return [source for source in found.beside if source.digest is not None]
        if found.is_outdated(self.dataset, idx):
            raise self._conflict(idx)
        raise InvalidSampleError.of(idx, problems)

    def _conflict(self, idx: int) -> ConflictError:
        return ConflictError(
            f"{self.dataset.folder}: another writer changed sample {idx} while it was checked: "
            "read and transform it anew.",
            [idx],
        )


def described_problems(found: Mapping[int, Sequence[str]]) -> str:
    """The first samples with problems, in one line."""
    shown = [
        f"{idx} ({some_problems(problems)})" for idx, problems in islice(found.items(), _SHOWN)
    ]
    more = len(found) - len(shown)
    return "; ".join(shown) + (f"; and {more:,} more" if more else "")
