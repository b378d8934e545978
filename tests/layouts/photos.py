"""Folders of images, made for the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.items import Item
from prefect_pipestream.sequences import Sample, SamplesSequence
from tests.dataset_files import files_outside_private


def make_image(path: Path, value: int = 0, size: tuple[int, int] = (6, 8)) -> Path:
    """Writes an image of one's own to each path: no two values look alike."""
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        type(Item.get_instance(path)).encode(pixels, file)
    return path


def make_photos(folder: Path, *names: str) -> Path:
    """Writes an image for each name below a folder."""
    for number, name in enumerate(names):
        make_image(folder / name, number)
    return folder


def needs_datasets(kind: str = "hf") -> None:
    """Skips a test of the layout `hf` without its library, which is no part of the tests'.

    A folder called `datasets`, as the demonstration makes one, is imported as well, and is nothing.
    """
    if kind == "hf":
        pytest.importorskip("datasets.arrow_dataset")


def values_of(sample: Sample) -> dict[str, Any]:
    """What a sample says, in plain values; images as the bytes of their files."""
    found = {}
    for key, item in sample.items():
        if item.local_sources and not item.has_value and not key.startswith("metadata"):
            found[key] = _content_of(item)
        else:
            value = item()
            found[key] = value.tolist() if isinstance(value, np.ndarray) else value
    return found


def _content_of(item: Item[Any]) -> Any:
    value = item()
    return item.file_sources[0].read() if isinstance(value, np.ndarray) else value


def all_values(samples: SamplesSequence) -> list[dict[str, Any]]:
    """What all samples say; the empty ones too."""
    return [values_of(sample) for sample in samples]


def files_below(folder: Path) -> dict[str, bytes]:
    """The content of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files_outside_private(folder)
        if path.is_file()
    }
