"""Datasets for the benchmarks, of real photographs: cut and varied from those that scikit-image
and scikit-learn carry in their packages.

    python benchmarks/_data.py FOLDER --photographs 500 --size 512 --extension png
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

#: Distinct samples in a dataset of thumbnails: from here on they repeat.
POOL = 1000

#: What the encoders of the package are set to, so that both sides of a comparison do equal work.
ENCODER_OPTIONS: dict[str, dict[str, int]] = {
    "png": {"compress_level": 4},
    "jpeg": {"quality": 80},
}


@cache
def originals() -> tuple[np.ndarray, ...]:
    """Load the photographs: each uint8, H×W×3, at least 300 pixels a side."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    carried = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    return (*carried, *(np.asarray(image) for image in load_sample_images().images))


def photographs(count: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Cut square photographs from the originals, each varied in place, scale, turn and tone.

    Args:
        count: How many to make.
        size: The side of each, in pixels.
        seed: The same seed gives the same photographs.

    Yields:
        uint8, size×size×3.
    """
    rng = np.random.default_rng(seed)
    for idx in range(count):
        source = originals()[idx % len(originals())]
        side = int(rng.uniform(0.5, 1.0) * min(source.shape[:2]))
        top = int(rng.integers(0, source.shape[0] - side + 1))
        left = int(rng.integers(0, source.shape[1] - side + 1))
        cut = Image.fromarray(source[top : top + side, left : left + side])
        image = np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))
        image = np.rot90(image, int(rng.integers(4)))
        tone = (np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4) * 255).astype(np.uint8)
        yield np.ascontiguousarray(tone[image])


def encode(image: np.ndarray, extension: str) -> bytes:
    """Encode an image with the encoder's settings of the package."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, extension, **ENCODER_OPTIONS[extension])
    return file.getvalue()


def write_photographs(folder: Path, count: int, size: int, extension: str) -> None:
    """Write a dataset of samples of one item, `image`.

    Args:
        folder: The dataset to make; must not exist.
        count: How many samples.
        size: The side of each photograph, in pixels.
        extension: `png` or `jpeg`.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    for idx, image in enumerate(photographs(count, size)):
        (data / f"{idx:06d}_image.{extension}").write_bytes(encode(image, extension))


def write_thumbnails(
    folder: Path, count: int, size: int = 28, extension: str = "png", link_images: bool = False
) -> None:
    """Write a dataset of samples of six items: an image, two masks, a label, points, metadata.

    Of the samples, 1,000 are distinct. The image of each is a file of its own; the other items
    are hard links to the first with the same content, which keeps large datasets small.

    Args:
        folder: The dataset to make; must not exist.
        count: How many samples.
        size: The side of each image, in pixels.
        extension: `png` or `jpeg`.
        link_images: Make the images links too.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    pool = [_thumbnail(idx, image, extension) for idx, image in enumerate(_pool(count, size))]
    path = f"{data}/{{:07d}}_{{}}".format
    for idx in range(count):
        first = idx % POOL
        for name, content in pool[first].items():
            if first != idx and (link_images or not name.startswith("image")):
                os.link(path(first, name), path(idx, name))
            else:
                with open(path(idx, name), "wb") as file:
                    file.write(content)


def _pool(count: int, size: int) -> Iterator[np.ndarray]:
    return photographs(min(count, POOL), size)


def _thumbnail(idx: int, image: np.ndarray, extension: str) -> dict[str, bytes]:
    mask = (image.mean(axis=2) > 127).astype(np.uint8) * 255
    points = " ".join(f"{value:.18e}" for value in np.linspace(0, image.shape[0], 10))
    return {
        f"image.{extension}": encode(image, extension),
        "label.txt": f"{idx % 10}\n".encode(),
        "mask.png": encode(mask, "png"),
        "maskinv.png": encode(255 - mask, "png"),
        "metadata.yaml": f"double: {2.0 * idx}\nhalf: {idx / 2}\nsample_id: {idx}\n".encode(),
        "points.txt": f"{points}\n".encode(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a dataset of real photographs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--extension", choices=sorted(ENCODER_OPTIONS), default="png")
    given = parser.parse_args()
    write_photographs(given.folder, given.photographs, given.size, given.extension)


if __name__ == "__main__":
    main()
