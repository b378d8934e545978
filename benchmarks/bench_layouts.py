"""Imports by links, beside `cp -al`; exports beside `cp -a`; COCO's JSON beside its own library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.exporting import export
from prefect_pipestream.items import JpegImageItem
from prefect_pipestream.sequences import SamplesSequence


def write_photos(folder: Path, number: int, side: int, classes: int) -> None:
    """A folder of classes, each photo another one."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
    for idx in range(number):
        content = io.BytesIO()
        JpegImageItem.encode(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), content)
        path = folder / f"class{idx % classes}" / f"photo{idx}.jpg"
        path.write_bytes(content.getvalue())


def write_coco(path: Path, images: int, objects: int) -> None:
    """A JSON file as COCO has it: polygons of ten points."""
    rng = random.Random(0)
    content: dict[str, Any] = {
        "images": [
            {"id": idx, "file_name": f"{idx:012}.jpg", "width": 640, "height": 480}
            for idx in range(images)
        ],
        "annotations": [
            {
                "id": idx,
                "image_id": rng.randrange(images),
                "category_id": 1 + idx % 80,
                "bbox": [1.5, 2.5, 30.25, 40.5],
                "area": 1225.125,
                "iscrowd": 0,
                "segmentation": [[round(rng.random() * 480, 2) for _ in range(20)]],
            }
            for idx in range(objects)
        ],
        "categories": [{"id": idx, "name": f"class {idx}"} for idx in range(1, 81)],
    }
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def copied(how: str, source: Path, target: Path) -> float:
    """The time of `cp`."""
    return seconds(lambda: subprocess.run(["cp", how, source, target], check=True))


def photos(parent: Path, number: int, repeats: int) -> None:
    """Folders of classes, in and out."""
    from prefect_pipestream.flows import import_dataset

    title(f"image-folder: {number:,} photographs of 28×28, by links")
    source = parent / "photos"
    write_photos(source, number, 28, 10)
    samples = SamplesSequence.from_image_folder(source)
    times: dict[str, list[float]] = {}

    def take(name: str, action: Callable[[], object]) -> None:
        times.setdefault(name, []).append(seconds(action))

    def by_flow(target: Path) -> Callable[[], object]:
        return lambda: import_dataset("image-folder", source, target)

    write_photos(parent / "few", 4, 28, 2)
    import_dataset("image-folder", parent / "few", parent / "first")  # starts Prefect's server
    for again in range(repeats):
        linked, made, flown = (parent / f"{name}{again}" for name in ("linked", "made", "flown"))
        times.setdefault("cp -al", []).append(copied("-al", source, linked))
        fresh = SamplesSequence.from_image_folder(source)
        take("without Prefect", fresh.to_underfolder(made).run)
        take("as a flow, its start-up included", by_flow(flown))
        take("again, without changes", by_flow(flown))
    best = {name: min(taken) for name, taken in times.items()}
    for name, taken in best.items():
        figure(name, taken, "s")
    ratio("without Prefect / cp -al", best["without Prefect"] / best["cp -al"])
    assert len(samples) == number

    title(f"the same, exported as copies: {number:,} files")
    dataset = SamplesSequence.from_underfolder(parent / "made0")
    figure("cp -a", copied("-a", source, parent / "copied"), "s")
    figure("export", seconds(lambda: export(dataset, "image-folder", parent / "out")), "s")


def coco(parent: Path, images: int, objects: int, repeats: int) -> None:
    """A JSON file of COCO, opened."""
    from pycocotools.coco import COCO

    title(f"coco: a file of {images:,} images and {objects:,} objects, opened")
    path = parent / "coco/annotations/instances_train.json"
    write_coco(path, images, objects)
    images_in = parent / "coco/train"
    images_in.mkdir()
    (images_in / f"{0:012}.jpg").touch()

    def by_pycocotools() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            COCO(path)

    sides: dict[str, Callable[[], object]] = {
        "json.load": lambda: json.loads(path.read_bytes()),
        "pycocotools": by_pycocotools,
        "ours, until the first sample": lambda: SamplesSequence.from_coco(path)[0],
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, open_it in sides.items():
            best[name] = min(best[name], seconds(open_it))
    for name, taken in best.items():
        figure(name, taken, "s")
    ratio("ours / pycocotools", best["ours, until the first sample"] / best["pycocotools"])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--photos", type=int, default=20_000)
    options.add_argument("--images", type=int, default=20_000)
    options.add_argument("--objects", type=int, default=150_000)
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent, own_prefect(parent):
        photos(parent, given.photos, given.repeats)
        coco(parent, given.images, given.objects, given.repeats)
        os.sync()
        shutil.rmtree(parent, ignore_errors=True)


if __name__ == "__main__":
    main()
