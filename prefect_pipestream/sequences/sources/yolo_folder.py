"""What a folder in Ultralytics' layout says: its splits, its classes, where its images are."""

import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.sequences.sources.splits import SPLITS, split_called
from prefect_pipestream.sequences.sources.text_files import text_of
from prefect_pipestream.sequences.sources.yolo_labels import LabelError, Pose, class_in
from prefect_pipestream.storage.asking import files_below, is_file, is_folder
from prefect_pipestream.storage.paths_below import first_below, is_path, refuse_leading_out

IMAGES, LABELS = "images", "labels"
_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASS_FILES = ("classes.txt", "obj.names", f"{LABELS}/classes.txt")
_MOST_CLASSES = 10_000
_PARTS = (*SPLITS, "validation")


@dataclass(frozen=True)
class YoloFolder:
    """A folder as it was found.

    Attributes:
        root: The folder that names are relative to, and that nothing leads out of.
        splits: The splits of each image, by its name: mostly one.
        classes: The classes, as the shared item `categories` has them.
        pose: The keypoints that each object has, if there are any.
        said_in: The file that declares the classes, for messages.
    """

    root: str
    splits: Mapping[str, tuple[str, ...]]
    classes: list[dict[str, Any]]
    pose: Pose | None
    said_in: str


def read_folder(location: Path, root: Path | None) -> YoloFolder:
    """Looks through a folder, or what a file that describes one names.

    Raises:
        DecodeError: If the description cannot be understood.
        DatasetError: If it names what is not there, or what is outside of the root.
    """
    described_in = _description_of(location)
    home = location if described_in is None else described_in.parent
    whole = os.path.abspath(home if root is None else root)
    said = {} if described_in is None else _read_description(described_in)
    if described_in is not None and said.keys() & {*_PARTS}:
        splits = _Described(described_in, said, whole).splits()
    else:
        splits = _found_splits(whole)
    if described_in is None:
        _refuse_without_labels(whole, splits)
    classes, said_in = _classes(described_in, said, whole, splits)
    pose = None if described_in is None else _pose(described_in, said)
    return YoloFolder(whole, splits, classes, pose, said_in)


def label_file_of(name: str) -> str:
    """Where the labels of an image are: as Ultralytics has it, the last `images` is `labels`."""
    *folders, file = name.split("/")
    for at in range(len(folders) - 1, -1, -1):
        if folders[at] == IMAGES:
            folders[at] = LABELS
            break
    return "/".join([*folders, os.path.splitext(file)[0] + ".txt"])


def label_path(root: str, name: str) -> str | None:
    """Where the labels of an image are; None where it has none."""
    path = f"{root}/{label_file_of(name)}"
    return path if first_below(root, [path]) is not None and is_file(path) else None


def _is_file_in(folder: str, name: str) -> bool:
    return is_path(name) and is_file(os.path.join(folder, name))


# -- without a description -------------------------------------------------------------------


def _found_splits(root: str) -> dict[str, tuple[str, ...]]:
    """All images, or those below the folders `images`, if there are such."""
    names = [name for name in files_below(root) if is_image(name)]
    proper = [name for name in names if IMAGES in PurePosixPath(name).parts[:-1]]
    return {name: split_in(name) for name in proper or names}


def split_in(name: str) -> tuple[str, ...]:
    """The split that an image's path tells: of `images/train` and `train/images`, alone or deep."""
    for part in PurePosixPath(name).parts[:-1]:
        if (split := split_called(part)) is not None:
            return (split,)
    return ()


def _refuse_without_labels(root: str, names: Iterable[str]) -> None:
    first = next(iter(names), None)
    if first is None or any(label_path(root, name) is not None for name in names):
        return
    raise DatasetError(
        f"{root}: no image has a file of labels: of {first} it would be {label_file_of(first)}. "
        "Give the folder that has both `images` and `labels`, or a `data.yaml` beside them."
    )


# -- with a description ------------------------------------------------------------------------


def _description_of(location: Path) -> Path | None:
    if not location.is_dir():
        return location
    for name in _DESCRIPTIONS:
        if (location / name).is_file():
            return location / name
    others = sorted([*location.glob("*.yaml"), *location.glob("*.yml")])
    if len(others) > 1:
        raise DatasetError(
            f"{location}: {', '.join(other.name for other in others)}: which of them describes it? "
            "Give that file in place of the folder."
        )
    return others[0] if others else None


def _read_description(path: Path) -> dict[str, Any]:
    said = YamlMetadataItem(path)()
    if not isinstance(said, dict):
        raise DecodeError(f"{path}: is not a mapping with `names`, `train` and `val`. Correct it.")
    return said


@dataclass(frozen=True)
class _Described:
    """The images that a description names."""

    file: Path
    said: Mapping[str, Any]
    root: str

    def splits(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for split in _PARTS:
            for name in self._images(split):
                known, called = found.get(name, ()), split_called(split) or split
                found[name] = known if called in known else (*known, called)
        return found

    def _images(self, split: str) -> Iterator[str]:
        entries = self.said.get(split)
        for entry in entries if isinstance(entries, list) else [entries]:
            if entry is None:
                continue
            if not isinstance(entry, str):
                raise DecodeError(
                    f"{self.file}: `{split}` names {entry!r}: a folder, a .txt file or a list of "
                    "such was expected."
                )
            place = self._place_of(split, entry)
            if place is not None:
                yield from self._images_at(split, place)

    def _homes(self) -> list[str]:
        """The folders that entries are relative to: the first that has them counts."""
        beside = os.path.abspath(self.file.parent)
        said = self.said.get("path")
        path = [os.path.join(beside, said)] if isinstance(said, str) else []
        return [*path, beside, self.root]

    def _place_of(self, split: str, entry: str) -> str | None:
        """Where an entry is, below the root; None for a missing `test`, which many only announce.

        A folder of another machine counts as the description's own, and `../` of an entry that is
        not there is left out, as Ultralytics does.
        """
        inner = self._without_path(entry)
        while inner.startswith("../"):
            inner = inner.removeprefix("../")
        tried = [os.path.join(home, one) for home in self._homes() for one in (entry, inner)]
        there = [path for path in tried if os.path.exists(path)]
        place = "." if self.root in map(os.path.normpath, there) else first_below(self.root, there)
        if place is None and there:
            raise DatasetError(
                f"{self.file}: `{split}` names {entry!r}, which is outside of {self.root}. If that "
                "is meant, name a folder that has both by `root`."
            )
        if place is None and split != "test":
            raise DatasetError(
                f"{self.file}: `{split}` names {entry!r}, and there is no {' and no '.join(tried)}."
                " Correct the file."
            )
        return place

    def _without_path(self, entry: str) -> str:
        said = self.said.get("path")
        if isinstance(said, str) and said and entry.startswith(said.rstrip("/") + "/"):
            return entry.removeprefix(said.rstrip("/")).lstrip("/")
        return entry

    def _images_at(self, split: str, place: str) -> Iterator[str]:
        path = os.path.join(self.root, place)
        if not is_folder(path):
            yield from self._listed_in(path)
            return
        try:
            refuse_leading_out(self.root, f"{place}/x")
        except DecodeError as error:
            raise DatasetError(f"{self.file}: `{split}`: {error}") from error
        prefix = "" if place == "." else f"{place}/"
        yield from (prefix + name for name in files_below(path) if is_image(name))

    def _listed_in(self, path: str) -> Iterator[str]:
        """The images of a list; the samples of such as are not there, or not below, fail."""
        lines = [line.strip() for line in text_of(path).splitlines()]
        lines = [line for line in lines if line]
        homes = [*self._homes(), os.path.dirname(path)]
        beside = next(
            (home for home in homes if any(_is_file_in(home, line) for line in lines)),
            homes[0],
        )
        for line in lines:
            home = os.path.dirname(path) if line.startswith("./") else beside
            here = self._without_path(line)
            tried = [os.path.join(home, line), *(os.path.join(one, here) for one in homes)]
            yield first_below(self.root, tried) or line


# -- classes and keypoints -------------------------------------------------------------------


def _classes(
    file: Path | None, said: Mapping[str, Any], root: str, names: Iterable[str]
) -> tuple[list[dict[str, Any]], str]:
    if file is not None and ("names" in said or "nc" in said):
        declared = _declared(file, said)
        extra = _of_keypoints(said)
        return [{"id": at, "name": name, **extra} for at, name in declared.items()], str(file)
    for name in _CLASS_FILES:
        path = f"{root}/{name}"
        if is_file(path):
            lines = text_of(path).rstrip().splitlines()
            return [{"id": at, "name": one.strip()} for at, one in enumerate(lines)], path
    count = _greatest_class(root, names) + 1
    return [{"id": at, "name": str(at)} for at in range(count)], f"{root} (no file names them)"


_SHORTLY = reprlib.Repr()  # of what aliases may make endless
_SHORTLY.maxlevel = 1


def _declared(file: Path, said: Mapping[str, Any]) -> dict[int, str]:
    names, count = said.get("names"), said.get("nc")
    is_count = isinstance(count, int) and 0 <= count <= _MOST_CLASSES
    if count is not None and not is_count:
        raise DecodeError(f"{file}: `nc` {count!r} is not the number of classes. Correct it.")
    if names is None:
        return {at: str(at) for at in range(count or 0)}
    pairs = names.items() if isinstance(names, dict) else None
    if isinstance(names, list):
        pairs = dict(enumerate(names)).items()
    is_right = pairs is not None and all(_is_class(at, name) for at, name in pairs)
    if pairs is None or not is_right or len(pairs) > _MOST_CLASSES:
        raise DecodeError(
            f"{file}: `names` {_SHORTLY.repr(names)} is neither a list of names nor a mapping of "
            "numbers to names. Correct it."
        )
    if count is not None and count != len(pairs):
        raise DecodeError(
            f"{file}: `nc` says {count} classes, and `names` has {len(pairs)}. Correct one of them."
        )
    return {int(at): str(name) for at, name in sorted(pairs, key=lambda pair: int(pair[0]))}


def _is_class(at: object, name: object) -> bool:
    is_number = (type(at) is int and 0 <= at <= _MOST_CLASSES) or (
        isinstance(at, str) and at.isascii() and at.isdigit() and len(at) < 9
    )
    return is_number and isinstance(name, str | int | float)


def _greatest_class(root: str, names: Iterable[str]) -> int:
    """The greatest number that labels have; those that cannot be read fail with their samples."""
    greatest = -1
    for name in names:
        path = label_path(root, name)
        if path is None:
            continue
        try:
            found = [
                class_in(line.split()[0]) for line in text_of(path).splitlines() if line.split()
            ]
        except (LabelError, DecodeError):
            continue
        greatest = max([greatest, *(number for number in found if number < _MOST_CLASSES)])
    return greatest


def _pose(file: Path, said: Mapping[str, Any]) -> Pose | None:
    shape = said.get("kpt_shape")
    if shape is None:
        return None
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not is_shape or not 1 <= shape[0] <= _MOST_CLASSES or shape[1] not in (2, 3):
        raise DecodeError(
            f"{file}: `kpt_shape` {shape!r} is not the number of keypoints and 2 or 3. Correct it."
        )
    return Pose(*shape)


def _of_keypoints(said: Mapping[str, Any]) -> dict[str, Any]:
    """What each class says of keypoints, so that an export has it again."""
    return {key: said[key] for key in ("kpt_shape", "flip_idx") if isinstance(said.get(key), list)}
