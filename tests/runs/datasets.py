"""Datasets whose samples can be told apart, and what is on disk of them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prefect_pipestream.items import PngImageItem, TxtNumpyItem, YamlMetadataItem
from prefect_pipestream.storage.address import Place
from tests.dataset_files import Files


def image_of(idx: int) -> npt.NDArray[np.uint8]:
    """The image of sample `idx`: uint8, 12×12, no two alike and none its own negative."""
    image = np.arange(144, dtype=np.uint16).reshape(12, 12)
    image[0, :4] = [idx % 256, idx // 256 % 256, 7, 99]
    return image.astype(np.uint8)


def make_dataset(folder: Path, samples: int, *, with_metadata: bool = False) -> Path:
    """Writes samples of an image and a counter, and one shared item."""
    data = folder / "data"
    data.mkdir(parents=True)
    YamlMetadataItem({"camera": "c"}).serialize(folder / "camera.yaml")
    for idx in range(samples):
        PngImageItem(image_of(idx)).serialize(data / f"{idx:05d}_image.png")
        TxtNumpyItem(np.array([idx])).serialize(data / f"{idx:05d}_label.txt")
        if with_metadata:
            YamlMetadataItem({"idx": idx, "seen": 0}).serialize(data / f"{idx:05d}_note.yaml")
    return folder


def copy_of(template: Path, folder: Path) -> Path:
    """Copies a dataset, file times included."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)
    return folder


def contents(place: Place) -> dict[str, bytes]:
    """Every file of a dataset but the private ones, by relative path."""
    return dict(Files(place))


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """The names of files that are not alike; short where a whole comparison is not."""
    return sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))


def labels(place: Place) -> list[int]:
    """The counters of all samples, read around the package."""
    files = Files(place)
    names = sorted(name for name in files if name.endswith("_label.txt"))
    return [int(float(files[name])) for name in names]
