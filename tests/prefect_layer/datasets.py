"""Small datasets, written and read around the package's streams."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.address import Place
from tests.dataset_files import Files


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


def truncate_image(place: Place, idx: int) -> Place:
    """Cuts the image file of a sample in half."""
    name = f"data/{idx:03d}_image.png"
    content = Files(place)[name]
    Files(place)[name] = content[: len(content) // 2]
    return place / name


def files_of(place: Place) -> dict[str, bytes]:
    """All files of a dataset by name, without the package's own."""
    return dict(Files(place))


def count_runs(sample: Sample) -> Sample:
    """A transform that is not idempotent: counts how often it was applied."""
    return sample.deep_set("metadata.runs", sample["metadata"]()["runs"] + 1)


def runs_of(place: Place, indices: Iterable[int]) -> list[int]:
    """How often `count_runs` was applied to each sample, as its file says."""
    files = Files(place)
    return [yaml.safe_load(files[f"data/{idx:03d}_metadata.yaml"])["runs"] for idx in indices]
