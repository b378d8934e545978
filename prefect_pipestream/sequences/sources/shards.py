"""Tar shards, and where in them each file of each sample is."""

import itertools
import os
import re
import tarfile
import warnings
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from natsort import natsorted

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DecodeError
from prefect_pipestream.storage.asking import files_below
from prefect_pipestream.storage.file_part import Container

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# What `tarfile` raises of headers that are damaged, or made to harm: names that follow names, …
_NOT_READABLE = (
    tarfile.TarError,
    ValueError,
    OverflowError,
    EOFError,
    MemoryError,
    RecursionError,
)
_MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Member(NamedTuple):
    """A file in a shard.

    Attributes:
        extension: All that follows the first dot of its name, without that dot.
        offset: Where its content begins, in bytes.
        size: How long its content is, in bytes.
    """

    extension: str
    offset: int
    size: int


class _Damage(Exception):
    """A shard cannot be read from here on."""


@dataclass
class ShardIndex:
    """Where everything is: 20 bytes a member beside the names of the samples.

    Attributes:
        shards: The shards.
        names: The name of each sample: `<shard>/<key>`.
        shard_of: The number of each sample's shard.
        problems: Why a sample cannot be read, by its number.
    """

    shards: list[tuple[str, Container]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    shard_of: "array[int]" = field(default_factory=lambda: array("I"))
    problems: dict[int, str] = field(default_factory=dict)
    _first: "array[int]" = field(default_factory=lambda: array("Q", [0]))
    _extension: "array[int]" = field(default_factory=lambda: array("I"))
    _offset: "array[int]" = field(default_factory=lambda: array("Q"))
    _size: "array[int]" = field(default_factory=lambda: array("Q"))
    _extensions: dict[str, int] = field(default_factory=dict)
    _extension_names: list[str] = field(default_factory=list)

    def members_of(self, idx: int) -> list[Member]:
        """The files of a sample, by their extensions."""
        names = self._extension_names
        return [
            Member(names[self._extension[at]], self._offset[at], self._size[at])
            for at in range(self._first[idx], self._first[idx + 1])
        ]

    def key_of(self, idx: int) -> str:
        """The key of a sample in its shard."""
        return self.names[idx][len(self.shards[self.shard_of[idx]][0]) + 1 :]

    def add_shard(self, name: str, path: str, *, allow_damaged: bool) -> None:
        """Reads the headers of a shard.

        Raises:
            DatasetError: If it is no tar file, or damaged and that is not allowed.
        """
        container = _look_at(path)
        self.shards.append((name, container))
        shard = _Shard(self._extensions)
        try:
            for member in _members_in(container):
                shard.add(member)
        except _Damage as damage:
            if not allow_damaged:
                raise DatasetError(
                    f"{damage} Samples before it: {max(0, len(shard.keys) - 1):,}. Get the shard "
                    "anew, or take those with `allow_damaged`."
                ) from damage
            shard.drop_last()
            warnings.warn(f"{damage} {len(shard.keys):,} samples are taken.", stacklevel=2)
        self._take(name, shard)

    def _take(self, name: str, shard: "_Shard") -> None:
        number, before = len(self.shards) - 1, len(self.names)
        self.names.extend(f"{name}/{_shown(key)}" for key in shard.keys)
        self.shard_of.extend(itertools.repeat(number, len(shard.keys)))
        # By sample, then by extension: what comes of it does not depend on how it was packed.
        self._extension_names = list(self._extensions)
        ranks = np.argsort(np.argsort(np.array(self._extension_names, dtype=object)))
        sample, extension = np.array(shard.sample, np.int64), np.array(shard.extension, np.int64)
        order = np.lexsort((ranks[extension] if len(extension) else extension, sample))
        sample, extension = sample[order], extension[order]
        counts = np.bincount(sample, minlength=len(shard.keys))
        self._first.extend((self._first[-1] + np.cumsum(counts)).tolist())
        self._extension.extend(extension.tolist())
        self._offset.extend(np.array(shard.offset, np.int64)[order].tolist())
        self._size.extend(np.array(shard.size, np.int64)[order].tolist())
        for twice in np.flatnonzero((np.diff(sample) == 0) & (np.diff(extension) == 0)).tolist():
            self.problems[before + int(sample[twice])] = (
                f"has two files .{self._extension_names[extension[twice]]}. Pack the shard anew."
            )
        self.problems.update((before + at, problem) for at, problem in shard.problems.items())


class _Shard:
    """What is found in one shard, in its order."""

    def __init__(self, extensions: dict[str, int]) -> None:
        self._extensions = extensions
        self.keys: dict[str, int] = {}
        self.problems: dict[int, str] = {}
        self.sample, self.extension = array("I"), array("I")
        self.offset, self.size = array("Q"), array("Q")
        self._last = -1

    def add(self, info: tarfile.TarInfo) -> None:
        """Takes a member: as of WebDataset, the key ends at the first dot of the file's name."""
        name = info.name.removeprefix("./")
        folder, slash, file = name.rpartition("/")
        stem, dot, extension = file.partition(".")
        if info.isdir() or not (stem and dot and extension) or name.startswith("__"):
            return
        self._last = sample = self.keys.setdefault(folder + slash + stem, len(self.keys))
        problem = _problem_of(info, name)
        if problem:
            self.problems.setdefault(sample, problem)
            return
        self.sample.append(sample)
        self.extension.append(self._extensions.setdefault(extension, len(self._extensions)))
        self.offset.append(info.offset_data)
        self.size.append(info.size)

    def drop_last(self) -> None:
        """Forgets the sample whose file came last: more of it may have come after the damage."""
        last = self._last
        if last < 0:
            return
        self.keys = {key: at - (at > last) for key, at in self.keys.items() if at != last}
        self.problems = {at - (at > last): p for at, p in self.problems.items() if at != last}
        kept = np.array(self.sample, np.int64) != last
        columns = (self.sample, self.extension, self.offset, self.size)
        self.sample, self.extension, self.offset, self.size = (
            array(column.typecode, np.array(column)[kept].tolist()) for column in columns
        )
        self.sample = array("I", [at - (at > last) for at in self.sample])


def _problem_of(info: tarfile.TarInfo, name: str) -> str | None:
    if name.startswith("/") or ".." in name.split("/") or not name.isprintable():
        return f"is called {name!r}, which leads out of the shard or cannot be shown. Rename it."
    if not info.isreg():
        what = "a link" if info.issym() or info.islnk() else "no regular file"
        return f"has {name!r}, which is {what}. Pack the shard anew, with files alone."
    if info.issparse():
        return f"has {name!r}, a sparse file. Pack the shard anew, without `--sparse`."
    return None


def _shown(key: str) -> str:
    return key if key.isprintable() else key.encode("unicode_escape").decode("ascii")


def _look_at(path: str) -> Container:
    try:
        return Container.at(path)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"there is no shard {path}.") from error
    except DecodeError as error:
        raise DatasetError(str(error)) from error


def _members_in(container: Container) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar file; their contents are not read.

    Raises:
        _Damage: If it ends too early, or goes on with what is no header.
    """
    path = container.path
    with open(path, "rb") as file:
        start = file.read(6)
        for magic, name in _MAGIC.items():
            if start.startswith(magic):
                raise _compressed(path, name)
        file.seek(0)
        where = 0
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # it is the file's
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if info.offset < where or info.size < 0:
                    raise _Damage(f"{path}: is damaged from byte {info.offset:,} on.")
                where = info.offset_data
                if info.isreg() and where + info.size > container.size:
                    raise _Damage(
                        f"{path}: ends at byte {container.size:,}, within {info.name!r}, which "
                        f"begins at byte {where:,} and has {info.size:,}."
                    )
                yield info
            where = tar.offset
        except _NOT_READABLE as error:
            what = f"cannot be read from byte {where:,} on" if where else "is no tar file"
            raise _Damage(f"{path}: {what} ({error}).") from error
        file.seek(where)
        end = file.read(tarfile.BLOCKSIZE)
        if end != bytes(tarfile.BLOCKSIZE):
            what = "has no header" if end else "ends without the mark of an end"
            raise _Damage(f"{path}: {what} at byte {where:,}; more may have followed.")


def _compressed(path: str, how: str) -> DatasetError:
    return DatasetError(
        f"{path}: is compressed ({how}), and a sample in its middle cannot be had without "
        "unpacking all before it. Unpack it (`gunzip`, `unzstd`, …) to a plain .tar: images are "
        "compressed already."
    )


def shards_at(location: Path) -> list[tuple[str, str]]:
    """Finds the shards: the name of each, and its path.

    Args:
        location: A tar file, a folder, or a pattern such as `train-{000000..000012}.tar`.

    Raises:
        DatasetNotFoundError: If there is nothing there, or no shard.
        DatasetError: If a shard is compressed, or the pattern cannot be meant.
    """
    text = os.path.abspath(location)
    if os.path.isdir(text):
        paths = [f"{text}/{name}" for name in _tars_below(text)]
        base = text
    elif os.path.lexists(text) or "{" not in text:
        paths, base = [text], os.path.dirname(text)
    else:
        paths = list(_expanded(text))
        base = os.path.dirname(text[: text.index("{")] + "x")
    for path in paths:
        if path.endswith(_COMPRESSED):
            raise _compressed(path, path.rpartition(".")[2])
    return [(os.path.relpath(path, base).removesuffix(".tar"), path) for path in paths]


@DatasetError.explaining_questions()
def _tars_below(folder: str) -> Sequence[str]:
    found = [name for name in files_below(folder) if name.endswith((".tar", *_COMPRESSED))]
    if not found:
        raise DatasetNotFoundError(f"{folder} has no shard `*.tar`. Name another folder.")
    return list(natsorted(sorted(found)))


def _expanded(pattern: str) -> Iterator[str]:
    """Expands `{000..012}` and `{a,b}`, as a shell does."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(part, pattern) if at % 2 else [part] for at, part in enumerate(parts)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > _MOST_SHARDS:
        raise DatasetError(f"{pattern}: stands for {total:,} shards; at most {_MOST_SHARDS:,}.")
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(part: str, pattern: str) -> Sequence[str]:
    found = _RANGE.fullmatch(part)
    if found is None:
        if ".." in part or not part:
            raise DatasetError(f"{pattern}: {{{part}}} is no range such as {{000..012}}.")
        return part.split(",")
    first, last = found.groups()
    if len(first) > 18 or len(last) > 18 or int(last) - int(first) >= _MOST_SHARDS:
        raise DatasetError(f"{pattern}: stands for more than {_MOST_SHARDS:,} shards.")
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
