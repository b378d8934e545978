"""A small dataset to spoil, and snapshots of what is on disk, taken around the package."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefect_pipestream.items import PngImageItem, YamlMetadataItem

PRIVATE = ".pipestream"


class Entry(NamedTuple):
    """What is on disk under one name: its kind, and its content or where it links to."""

    kind: str
    content: bytes | str = b""


Snapshot = dict[str, Entry]


def snapshot(folder: Path, *, private: bool = False) -> Snapshot:
    """Takes all there is below a folder, links not followed, by relative path."""
    found: Snapshot = {}
    for where, folders, names in os.walk(folder):
        if not private and PRIVATE in folders:
            folders.remove(PRIVATE)
        for name in [*folders, *names]:
            path = os.path.join(where, name)
            found[os.path.relpath(path, folder)] = entry_of(path)
    return found


def entry_of(path: str) -> Entry:
    """Tells what is at a path, links not followed."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return Entry("link", os.readlink(path))
    if stat.S_ISREG(mode):
        return Entry("file", Path(path).read_bytes())
    return Entry("folder" if stat.S_ISDIR(mode) else "special")


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """The names of what came, went or changed."""
    return {name for name in before | after if before.get(name) != after.get(name)}


def image_of(idx: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """The image of sample `idx`: uint8, 8×8×3."""
    return np.full((8, 8, 3), idx % 200, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None]


def make_dataset(folder: Path, samples: int = 3) -> Path:
    """Writes samples of an image and metadata, with one shared item."""
    data = folder / "data"
    data.mkdir(parents=True)
    YamlMetadataItem({"camera": "c"}).serialize(folder / "camera.yaml")
    for idx in range(samples):
        PngImageItem(image_of(idx)).serialize(data / f"{idx:03d}_image.png")
        YamlMetadataItem({"number": idx}).serialize(data / f"{idx:03d}_meta.yaml")
    return folder
