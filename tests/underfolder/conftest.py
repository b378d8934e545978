"""Small real datasets to write to."""

import os
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.items import PngImageItem, TxtNumpyItem, YamlMetadataItem
from tests.dataset_files import files_outside_private


def make_dataset(folder: Path, length: int = 6, zfill: int = 6) -> Path:
    """Makes a dataset of an image, a label and metadata a sample, and a shared item."""
    for idx in range(length):
        stem = f"{folder}/data/{idx:0{zfill}d}"
        image = np.full((4, 5, 3), idx, dtype=np.uint8)
        PngImageItem(image).serialize(Path(f"{stem}_image.png"))
        TxtNumpyItem(np.array([idx])).serialize(Path(f"{stem}_label.txt"))
        YamlMetadataItem({"idx": idx}).serialize(Path(f"{stem}_metadata.yml"))
    YamlMetadataItem({"classes": ["a", "b"]}).serialize(folder / "common.yml")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but the private ones, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files_outside_private(folder)
        if path.is_file()
    }


def strays(folder: Path) -> list[str]:
    """The staged, pending and hidden files of a dataset: none, once all is said and done."""
    private = folder / ".pipestream"
    staged = (
        Path(where, name) for where, _, names in os.walk(private / "staged") for name in names
    )
    found = [*staged, *private.glob("log/*"), *folder.glob("data/.*")]
    files = [path for path in found if path.is_file() and path.suffix != ".alive"]
    return [str(path.relative_to(folder)) for path in files]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset")
