"""What a folder or file that is no dataset looks like: which layout it can be imported as."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.layouts import LayoutKind
from prefect_pipestream.storage.asking import files_below, is_file, is_folder

_MOST_FILES = 50_000
_MOST_JSON = 1 << 26  # bytes of a file that is read just to see what it is
_SHOWN = 3
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")


@dataclass(frozen=True)
class Found:
    """What something looks like.

    Attributes:
        kind: The layout.
        what: Why: what was found there.
        source: The path to import.
    """

    kind: LayoutKind
    what: str
    source: str

    def command(self, dataset: str = "DATASET") -> str:
        """The command that imports it."""
        source = shlex.quote(self.source)
        return f"pipestream import {self.kind} {source} {shlex.quote(dataset)}"


@DatasetError.explaining_questions()
def layouts_at(path: str | os.PathLike[str]) -> list[Found]:
    """Looks at a folder or file, and says what it can be imported as; the likeliest first.

    Names are looked at, and of annotation files as much as tells what they are; no images. Of a
    folder with very many files, not all are.

    Raises:
        DatasetError: If it cannot be listed.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if is_file(root):
        found = _file(root)
        return [] if found is None else [found]
    if not is_folder(root):
        return []
    seen = _Seen(root, list(islice(files_below(root), _MOST_FILES)))
    return [found for look in _LOOKS if (found := look(seen)) is not None]


@dataclass(frozen=True)
class _Seen:
    """The files of a folder, relative, with slashes."""

    root: str
    files: Sequence[str]

    def at(self, name: str) -> str:
        return os.path.join(self.root, name)

    def ending(self, *endings: str) -> list[str]:
        return [name for name in self.files if name.lower().endswith(endings)]

    def images(self) -> list[str]:
        return [name for name in self.files if is_image(name)]


def _file(path: str) -> Found | None:
    lower = path.lower()
    if lower.endswith(_TABLES):
        return Found("table", "a table", path)
    if lower.endswith(".tar"):
        return Found("webdataset", "a tar file", path)
    if lower.endswith(".json") and (what := _coco_in(path)):
        return Found("coco", what, path)
    return None


def _hf(seen: _Seen) -> Found | None:
    names = set(seen.files)
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        return Found("hf", "a folder saved by `datasets`", seen.root)
    return None


def _coco(seen: _Seen) -> Found | None:
    for name in islice(seen.ending(".json"), 20):
        if name.count("/") <= 1 and (what := _coco_in(seen.at(name))):
            return Found("coco", f"{name}: {what}", seen.root)
    return None


def _coco_in(path: str) -> str | None:
    """What a file of COCO's form has; None if it is not of that form."""
    if os.path.getsize(path) > _MOST_JSON:
        name = os.path.basename(path)
        is_named_so = "coco" in name or name.startswith(("instances_", "person_keypoints_"))
        return "annotations of COCO, by its name" if is_named_so else None
    try:
        with open(path, "rb") as file:
            said = json.load(file)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not all(
        isinstance(said.get(key), list) for key in ("images", "annotations")
    ):
        return None
    return f"{len(said['images']):,} images, {len(said['annotations']):,} annotations of COCO"


def _voc(seen: _Seen) -> Found | None:
    files = seen.ending(".xml")
    if described := [name for name in files if "Annotations" in name.split("/")[:-1]]:
        above = f"/{described[0]}".partition("/Annotations/")[0]  # as VOC2012 in VOCdevkit
        source = seen.at(above[1:]) if above else seen.root
        described = [name for name in described if f"/{name}".startswith(f"{above}/Annotations/")]
        return Found("voc", f"{len(described):,} files in Annotations", source)
    images = {os.path.splitext(name)[0] for name in seen.images()} if files else set()
    beside = [name for name in files if os.path.splitext(name)[0] in images]
    if beside and _is_annotation(seen.at(beside[0])):
        return Found("voc", f"{len(beside):,} files of VOC beside their images", seen.root)
    return None


def _is_annotation(path: str) -> bool:
    """Whether an XML file begins as those of VOC do."""
    with open(path, "rb") as file:
        return b"<annotation" in file.read(4096)


def _yolo(seen: _Seen) -> Found | None:
    labels = [name for name in seen.ending(".txt") if "labels" in name.split("/")[:-1]]
    if not labels and "classes.txt" in seen.files:
        images = {os.path.splitext(name)[0] for name in seen.images()}
        labels = [name for name in seen.ending(".txt") if name[:-4] in images]
    if labels and seen.images():
        return Found("yolo", f"{len(labels):,} label files", seen.root)
    return None


def _webdataset(seen: _Seen) -> Found | None:
    shards = [name for name in seen.ending(".tar") if "/" not in name]
    return Found("webdataset", f"{len(shards):,} tar files", seen.root) if shards else None


def _table(seen: _Seen) -> Found | None:
    tables = [name for name in seen.ending(*_TABLES) if "/" not in name]
    return Found("table", f"the table {tables[0]}", seen.at(tables[0])) if tables else None


def _image_folder(seen: _Seen) -> Found | None:
    images = seen.images()
    folders = Counter(name.rpartition("/")[0] for name in images)
    if not images or "" in folders or len(folders) < 2:
        return None
    shown = ", ".join(f"{name} ({number:,})" for name, number in islice(folders.items(), _SHOWN))
    more = f" and {len(folders) - _SHOWN:,} more" if len(folders) > _SHOWN else ""
    what = f"{_counted(images)} images, all of them in folders inside: {shown}{more}"
    return Found("image-folder", what, seen.root)


def _images(seen: _Seen) -> Found | None:
    images = seen.images()
    return Found("images", f"{_counted(images)} images", seen.root) if images else None


def _counted(names: Sequence[str]) -> str:
    return f"{len(names):,}" + (" or more" if len(names) >= _MOST_FILES else "")


_LOOKS: tuple[Callable[[_Seen], Found | None], ...] = (
    _hf,
    _coco,
    _voc,
    _yolo,
    _webdataset,
    _table,
    _image_folder,
    _images,
)


def described(path: Path | str, dataset: str = "DATASET") -> str:
    """What something looks like, in lines for a person: with the commands that import it.

    Args:
        path: The folder or file.
        dataset: The dataset that the commands name.

    Raises:
        DatasetError: If it cannot be listed.
    """
    found = layouts_at(path)
    if not found:
        return f"{path} looks like no layout that can be imported."
    first, *others = found
    lines = [
        f"{path} looks like `{first.kind}` ({first.what}). To import it:",
        first.command(dataset),
    ]
    if others:
        lines.append("It could also be:")
        lines += [f"{other.command(dataset)}  # {other.what}" for other in others]
    return "\n".join(lines)
