"""A small dataset with known defects, for trying the flows."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prefect_pipestream.items import PngImageItem, YamlMetadataItem

SIDE = 160
TRUNCATED, BROKEN_YAML = 77, 205
MAX_FAILED = 0.05
TRANSFORM: list[str | dict[str, object]] = [
    "verify-items",
    {"drop-blank-images": {"threshold": 0.01}},
    {"resize-images": {"size": [SIDE, SIDE]}},
    "autocontrast",
]
STORY = (
    f"of every 10th the contrast is low, every 15th has the wrong size, every 25th is blank, "
    f"image {TRUNCATED} is truncated, metadata {BROKEN_YAML} is broken"
)


def make_demo_dataset(folder: Path, samples: int = 300) -> None:
    """Writes a dataset of drawn images with metadata, some of them defective (see `STORY`).

    Args:
        folder: The dataset folder to make.
        samples: How many samples it gets; at least 206, to have all defects.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    YamlMetadataItem({"camera": "demo", "unit": "px"}).serialize(folder / "camera.yaml")
    random = np.random.default_rng(7)
    for idx in range(samples):
        name = f"{idx:06d}"
        image = _draw(random, *_size_of(idx))
        PngImageItem(_spoil(image, idx)).serialize(data / f"{name}_image.png")
        radius = round(float(random.uniform(0.1, 0.4)), 3)
        YamlMetadataItem({"part": f"part-{idx}", "radius": radius}).serialize(
            data / f"{name}_metadata.yaml"
        )
    broken = data / f"{TRUNCATED:06d}_image.png"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (data / f"{BROKEN_YAML:06d}_metadata.yaml").write_text("part: [part-205\nradius: {", "utf-8")


def new_demo_folder(name: str) -> Path:
    """A folder below `datasets/demo` that does not exist yet."""
    folders = (Path("datasets") / "demo" / f"{name}-{number}" for number in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def _size_of(idx: int) -> tuple[int, int]:
    return (SIDE * 3 // 4, SIDE * 5 // 4) if idx % 15 == 3 else (SIDE, SIDE)


def _draw(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A disk before a gradient, with a little noise: uint8, H×W×3."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    gradient = np.stack([rows / height, columns / width, 1 - rows / height], axis=-1)
    centre = random.uniform(0.3, 0.7, 2) * (height, width)
    inside = np.hypot(rows - centre[0], columns - centre[1]) < random.uniform(0.1, 0.4) * height
    gradient[inside] = random.uniform(0, 1, 3)
    noise = random.normal(0, 0.02, gradient.shape)
    return (255 * (gradient + noise).clip(0, 1)).astype(np.uint8)


def _spoil(image: npt.NDArray[np.uint8], idx: int) -> npt.NDArray[np.uint8]:
    if idx % 25 == 12:
        return np.full_like(image, 200)
    if idx % 10 == 4:
        return (image // 8 + 100).astype(np.uint8)
    return image
