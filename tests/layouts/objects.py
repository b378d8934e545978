"""Images with objects for the tests of layouts, and how samples are compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prefect_pipestream.items import MetadataItem
from prefect_pipestream.sequences import Sample, SamplesSequence


def draw(path: Path, width: int = 12, height: int = 8, seed: int = 0) -> None:
    """Writes an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def content_of(sample: Sample) -> dict[str, Any]:
    """What a sample has: the values of its data, the bytes and the extension of other files."""
    return {
        key: (item.is_shared, json.dumps(item()))
        if isinstance(item, MetadataItem)
        else (item.extension_in_use(), Path(item.file_sources[0].path).read_bytes())
        for key, item in sample.items()
    }


def contents(samples: SamplesSequence | Sequence[Sample]) -> list[dict[str, Any]]:
    return [content_of(sample) for sample in samples]


def imported(source: SamplesSequence, folder: Path) -> SamplesSequence:
    """The samples, written to a dataset and read from it."""
    for _ in source.to_underfolder(folder):
        pass
    return SamplesSequence.from_underfolder(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
