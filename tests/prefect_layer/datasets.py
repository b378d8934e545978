"""Small datasets, written and read around the package's streams."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample
from tests.dataset_files import files_outside_private


def image_of(idx: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """The image of sample `idx` as `make_dataset` writes it: uint8, 8×8×3."""
    return np.full((8, 8, 3), idx % 200, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None]


def make_dataset(folder: Path, samples: int = 6) -> Path:
    """Writes samples of an image and metadata, with one shared item."""
    data = folder / "data"
    data.mkdir(parents=True)
    YamlMetadataItem({"camera": "c"}).serialize(folder / "camera.yaml")
    for idx in range(samples):
        PngImageItem(image_of(idx)).serialize(data / f"{idx:03d}_image.png")
        YamlMetadataItem({"number": idx, "runs": 0}).serialize(data / f"{idx:03d}_metadata.yaml")
    return folder


def truncate_image(folder: Path, idx: int) -> Path:
    """Cuts the image file of a sample in half."""
    path = folder / "data" / f"{idx:03d}_image.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a dataset by name, without the package's own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files_outside_private(folder)
        if path.is_file()
    }


def count_runs(sample: Sample) -> Sample:
    """A transform that is not idempotent: counts how often it was applied."""
    return sample.deep_set("metadata.runs", sample["metadata"]()["runs"] + 1)


def runs_of(folder: Path, indices: Iterable[int]) -> list[int]:
    """How often `count_runs` was applied to each sample, as its file says."""
    paths = [folder / "data" / f"{idx:03d}_metadata.yaml" for idx in indices]
    return [yaml.safe_load(path.read_text())["runs"] for path in paths]
