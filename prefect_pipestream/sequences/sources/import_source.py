"""The base of the sources that read what is kept in another layout."""

import itertools
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natsort import natsorted
from pydantic import PrivateAttr

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DecodeError
from prefect_pipestream.items import FileSource, Item, JsonMetadataItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.format.origin import SampleOrigin, stat_into

Items = dict[str, Item[Any]]

CATEGORIES = "categories"
"""The key of the shared item that lists the classes: `[{"id": 0, "name": "cat"}, …]`."""
ANNOTATIONS = "annotations"
"""The key of the item that lists a sample's objects, each a mapping as COCO has it."""


class ImportSource(SamplesSequence):
    """Samples that are kept in another layout; `import_dataset` brings them into a dataset.

    Each sample has a name of its own, which stays when others come and go beside it: by it an
    import knows the sample again. It gets a metadata item, JSON, with `file`, that name; `origin`,
    what the source is called; `name`, the file's name without its extension; and what a layout
    knows besides. Nothing is decoded, and images are the files of the source: they are linked when
    they are written, and keep their extension.

    A sample's origin has the versions of its files and of what an annotation file says of it, so
    that a later import tells what changed at the source.

    A new one has the fields `metadata_key` ("metadata" by default) and `origin` (None: its absolute
    path), says where it is (`location`), lists the names (`found_names`), and makes the items
    of a sample (`items_of`) and what its metadata says (`facts_of`).
    """

    if TYPE_CHECKING:  # fields of each source, after those of its own: the first is its location
        metadata_key: str
        origin: str | None

    _known_classes: Mapping[str, int] = PrivateAttr(default_factory=dict)

    def __getstate__(self) -> dict[Any, Any]:
        """Leaves what was read out of pickles."""
        state = super().__getstate__()
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {**state, "__dict__": fields}

    @property
    @abstractmethod
    def location(self) -> Path:
        """The file or folder that is read."""

    @abstractmethod
    def found_names(self) -> Iterable[str]:
        """Finds the names of all samples: as a rule the path of a file, relative, with slashes.

        Raises:
            DecodeError: If an annotation file, which it names, cannot be understood.
        """

    @abstractmethod
    def items_of(self, idx: int) -> Items:
        """Makes the items of a sample but for its metadata and what all samples share.

        Raises:
            DecodeError: If what is known of the sample cannot be meant; the message has the file.
        """

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """What the metadata says of a sample, beside its name, file and origin."""
        return {}

    @cached_property
    def shared_items(self) -> Items:
        """The items that all samples share, such as the classes; none by default."""
        return {}

    def knowing(self, classes: Mapping[str, int]) -> "ImportSource":
        """Returns the same source, in which these classes have these numbers.

        Sources whose classes have numbers of their own do not heed it. It is to be called before
        the source is asked for anything.
        """
        other = self.model_copy()
        other._known_classes = dict(classes)
        return other

    def numbered(self, names: Iterable[str], first: int) -> dict[str, int]:
        """Gives each class a number: that by which it is known, or the next one from `first` on."""
        numbers = dict(self._known_classes)
        following = itertools.count(max([first - 1, *numbers.values()]) + 1)
        for name in names:
            if name not in numbers:
                numbers[name] = next(following)
        return numbers

    @cached_property
    def origin_name(self) -> str:
        """What the source is called in metadata, and where an import notes what it has."""
        return str(self.location.absolute()) if self.origin is None else self.origin

    @cached_property
    @DatasetError.explaining_questions()
    def names(self) -> Sequence[str]:
        """The name of each sample, in the order of the samples: natural (`x2` before `x10`).

        Raises:
            DatasetNotFoundError: If there is nothing at the location.
            DatasetError: If it cannot be read, or two samples have one name.
        """
        names = self.in_order(self.found_names())
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise DatasetError(
                f"{self.location}: two samples are called {twice!r}; each is known by its name. "
                "Rename one of them, or leave it out."
            )
        return names

    def in_order(self, names: Iterable[str]) -> Sequence[str]:
        """The names as the samples are ordered."""
        return list(natsorted(sorted(names)))  # `x1` and `x01` are equal to it

    def size(self) -> int:
        """Returns the number of samples."""
        return len(self.names)

    def get_sample(self, idx: int) -> Sample:
        """Returns a sample, none of it decoded.

        Raises:
            DecodeError: If a file that it needs is missing, or what is said of it cannot be meant.
        """
        name = self.names[idx]
        facts = {
            "name": os.path.splitext(os.path.basename(name))[0],
            "file": name,
            "origin": self.origin_name,
            **self.facts_of(idx),
        }
        items = {**self.shared_items, **self.items_of(idx)}
        items[self.metadata_key] = JsonMetadataItem(facts)
        return Sample.of(items, self._origin_of(idx, items))

    def _origin_of(self, idx: int, items: Items) -> SampleOrigin:
        sources = {}
        for key, item in items.items():
            if item.is_shared:
                continue
            for source in item.file_sources or [_said_in(self.location, item)]:
                _look_at(source, self.names[idx])
                # Named alike wherever the sample stands: others come and go before it.
                sources[f"0_{key}{os.path.splitext(source.path)[1]}"] = source
        return SampleOrigin(os.fspath(self.location), idx, sources)

    def file_at(self, name: str) -> Item[Any]:
        """The item of a file, given by its path below the location."""
        return Item.from_source(FileSource(self._prefix + name))

    @cached_property
    def _prefix(self) -> str:
        return os.path.join(os.path.abspath(self.location), "")

    def refuse_missing(self, path: Path, what: str) -> None:
        """Raises `DatasetNotFoundError` unless there is something at a path."""
        if not path.exists():
            raise DatasetNotFoundError(f"there is no {what} {path}.")


def _look_at(source: FileSource, name: str) -> None:
    try:
        stat_into(source)
    except FileNotFoundError as error:
        raise DecodeError(
            f"{source.path}: there is no such file, and sample {name!r} needs it. Restore it, or "
            "remove what names it."
        ) from error


def _said_in(location: Path, item: Item[Any]) -> FileSource:
    """Stands for a part of an annotation file: changed where another value is said in it."""
    content = json.dumps(item(), sort_keys=True, default=str).encode()
    return FileSource(os.fspath(location), Version.of_part(content))
