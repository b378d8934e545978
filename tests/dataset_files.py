"""The files of a dataset that belong to its samples, in a folder or in a bucket."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from prefect_pipestream.items import Item
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import open_store

KINDS = ("folder", "bucket")
"""The kinds of places where a dataset may be."""
_NUMBERS = itertools.count()


def files_outside_private(folder: Path) -> Iterator[Path]:
    """Each file below a folder, ordered, but the private ones of datasets.

    Private folders are not looked into: a writer that is let go of takes its own away, some time.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - {".pipestream"})
        yield from (Path(where, name) for name in sorted(names))


class Files(MutableMapping[str, bytes]):
    """The files of a dataset by name, the private ones left out, as another program has them.

    Args:
        place: The dataset, in a folder or in a bucket.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def __getitem__(self, name: str) -> bytes:
        try:
            if is_address(self._place):
                return open_store(Address.of(self._place)).read(name).data
            return Path(self._place, name).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, content: bytes) -> None:
        if is_address(self._place):
            open_store(Address.of(self._place)).put(name, content)
            return
        path = Path(self._place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def __delitem__(self, name: str) -> None:
        if is_address(self._place):
            open_store(Address.of(self._place)).delete(name)
        else:
            Path(self._place, name).unlink()

    def __iter__(self) -> Iterator[str]:
        is_in_bucket = is_address(self._place)
        return (n for n in self._names() if is_in_bucket or Path(self._place, n).is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def of_sample(self, idx: int) -> list[str]:
        """The names of the files of sample `idx`, in `data`."""
        names = sorted(n.removeprefix("data/") for n in self._names() if n.startswith("data/"))
        return [name for name in names if int(name.partition("_")[0]) == idx]

    def _names(self) -> Iterator[str]:
        """The names of all files, of links that lead nowhere, too."""
        if is_address(self._place):
            found = open_store(Address.of(self._place)).objects_in("")
            yield from (stat.key for stat in found if not stat.key.startswith(".pipestream/"))
        else:
            found = files_outside_private(Path(self._place))
            yield from (str(path.relative_to(self._place)) for path in found)


def content_of(item: Item[Any]) -> bytes:
    """What a file with an item has."""
    stream = BytesIO()
    item.encode(item(), stream)
    return stream.getvalue()


def has_private_files(place: Place) -> bool:
    """Whether this package has noted anything of a dataset."""
    if is_address(place):
        return any(open_store(Address.of(place)).objects_in(".pipestream"))
    return Path(place, ".pipestream").exists()


# -- places ------------------------------------------------------------------------------------


def new_address() -> Address:
    """The address of a dataset in a new bucket, in the memory of this process."""
    return Address.of(f"memory://bucket-{next(_NUMBERS)}/dataset")


@contextmanager
def temporary_place(kind: str) -> Iterator[Place]:
    """A place of a kind where there is no dataset yet."""
    if kind == "bucket":
        yield new_address()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "dataset")


def beside(place: Place, name: str) -> Place:
    """Another place, of the same kind."""
    return Address(f"{place}-{name}") if is_address(place) else Path(place).parent / name


def made_at(place: Place, make: Callable[..., object], *args: Any, **options: Any) -> Place:
    """Makes a dataset anywhere by what makes one in a folder."""
    if not is_address(place):
        make(place, *args, **options)
        return place
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "made")
        make(folder, *args, **options)
        Files(place).update(Files(folder))
    return place
