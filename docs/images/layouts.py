"""Makes the pictures of `docs/getting-your-data-in.md`: `python docs/images/layouts.py`.

A small dataset of drawn shapes is exported to each layout, and imported again: the picture has the
files on its left, and the sample that comes of them on its right.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prefect_pipestream.exporting import export
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.layouts import LAYOUTS
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.sequences.registry import make_source

HERE = Path(__file__).parent
SIDE, SCALE = 96, 2
INK, PALE, BLUE, RED = "#1f2933", "#8a94a3", "#2b5fd9", "#d9352b"
FONT = ImageFont.load_default(size=15)
SMALL = ImageFont.load_default(size=13)


def shapes(number: int, folder: Path) -> Sample:
    """A drawn sample: a disk and a square, on gray, with what is known of them."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (SIDE, SIDE), (228, 232, 238))
    draw = ImageDraw.Draw(image)
    objects: list[dict[str, Any]] = []
    for place, label in enumerate(("disk", "square")):
        size = int(rng.integers(22, 34))
        x, y = int(rng.integers(4, 60 - size)) + 34 * place, int(rng.integers(6, 88 - size))
        colour = [(226, 122, 63), (69, 123, 157), (129, 178, 154)][(number + place) % 3]
        (draw.ellipse if label == "disk" else draw.rectangle)((x, y, x + size, y + size), colour)
        edges = [x, y, x + size, y, x + size, y + size, x, y + size]
        objects.append(
            {
                "label": label,
                "category_id": place,
                "bbox": [float(x), float(y), float(size), float(size)],
                "segmentation": [list(map(float, edges))],
            }
        )
    split, label = ("val" if number == 3 else "train"), ("disk", "square")[number % 2]
    known = {
        "name": f"{number}",
        "file": f"{split}/{label}/{number}.jpg",
        "split": split,
        "label": label,
        "label_id": number % 2,
        "width": SIDE,
        "height": SIDE,
    }
    categories = [{"id": 0, "name": "disk"}, {"id": 1, "name": "square"}]
    image.save(folder / f"{number}.jpg", quality=92)
    return Sample(
        {
            "image": Item.get_instance(folder / f"{number}.jpg"),
            "annotations": JsonMetadataItem(objects),
            "metadata": JsonMetadataItem(known),
            "categories": JsonMetadataItem(categories, shared=True),
        }
    )


def tree(folder: Path, prefix: str = "") -> Iterator[str]:
    """The files below a folder as lines, some of many."""
    entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_dir(), entry.name))
    for entry in entries[:4]:
        yield f"{prefix}{entry.name}{'/' if entry.is_dir() else ''}"
        if entry.is_dir():
            yield from tree(Path(entry.path), prefix + "      ")
    if len(entries) > 4:
        yield f"{prefix}…"


def picture(kind: str, lines: list[str], sample: Sample, command: str) -> Image.Image:
    """The files on the left, the sample on the right."""
    said = sample["metadata"]()
    facts = [f"{name}: {value}" for name, value in said.items() if name != "origin"][:9]
    height = max(44 + 19 * len(lines), 60 + SIDE * SCALE + 18 * (len(facts) + 1)) + 14
    page = Image.new("RGB", (760, height), "white")
    draw = ImageDraw.Draw(page)
    draw.text((14, 10), command, BLUE, FONT)
    for number, line in enumerate(lines):
        draw.text((14, 42 + 19 * number), line, INK, SMALL)
    draw.line((392, 120, 424, 120), PALE, 3)
    draw.polygon([(424, 113), (436, 120), (424, 127)], PALE)
    page.paste(shown(sample), (460, 42))
    for number, fact in enumerate(facts):
        short = fact if len(fact) < 44 else fact[:42] + "…"
        draw.text((460, 50 + SIDE * SCALE + 18 * number), short, INK, SMALL)
    draw.rectangle((0, 0, 759, height - 1), outline="#d5dae1")
    return page


def shown(sample: Sample) -> Image.Image:
    """The image of a sample, with the boxes of its objects."""
    large = Image.fromarray(sample["image"]()).resize((SIDE * SCALE, SIDE * SCALE))
    draw = ImageDraw.Draw(large)
    for one in sample["annotations"]() if "annotations" in sample else ():
        x, y, width, height = (SCALE * value for value in one["bbox"])
        draw.rectangle((x, y, x + width, y + height), outline=RED, width=2)
        draw.text((x + 4, y + 1), one["label"], RED, SMALL)
    return large


def main() -> None:
    """Makes all pictures."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        samples = SamplesSequence.from_list([shapes(number, Path(work)) for number in range(4)])
        samples.to_underfolder(f"{work}/set").run()
        dataset = SamplesSequence.from_underfolder(f"{work}/set")
        for kind, layout in LAYOUTS.items():
            folder = Path(work, kind)
            export(dataset, kind, folder)
            tables = [name for name in os.listdir(folder) if name.endswith(".csv")]
            source = folder / tables[0] if tables else folder
            imported = make_source(layout.source, (source,), layout.arguments)
            command = f"pipestream import {kind} {source.relative_to(work)} DATASET"
            page = picture(kind, [f"{kind}/", *tree(folder, "      ")], imported[0], command)
            page.save(HERE / f"layout-{kind}.png", optimize=True)
            print(kind, json.dumps(imported[0]["metadata"]()))


if __name__ == "__main__":
    main()
