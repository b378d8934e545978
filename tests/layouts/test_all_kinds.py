"""Every layout: in by a flow, cleaned by a flow, out, read by its own library, and in again."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from prefect_pipestream.exporting import export
from prefect_pipestream.flows import clean_dataset, export_dataset, import_dataset
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.layouts import LAYOUTS, LayoutKind
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import Underfolder, check
from tests.layouts.photos import make_image, needs_datasets, values_of

pytestmark = pytest.mark.usefixtures("prefect_api")

SAMPLES, BLANK, RELABELLED = 6, 2, 4
KINDS = [*LAYOUTS]


def objects(idx: int) -> list[dict[str, Any]]:
    label = idx % 2
    box = [1.0 + idx, 2.0, 3.5, 4.25]
    return [{"label": ("cat", "dog")[label], "category_id": label, "bbox": box}]


def sample_of(folder: Path, idx: int) -> Sample:
    path = make_image(folder / f"photo{idx}.png", idx, (16, 24))
    if idx == BLANK:
        with path.open("wb") as file:
            type(Item.get_instance(path)).encode(np.full((16, 24, 3), 9, np.uint8), file)
    label = ("cat", "dog")[idx % 2]
    split = "val" if idx == 5 else "train"
    known = {"name": f"photo{idx}", "file": f"{split}/{label}/photo{idx}.png", "split": split}
    known |= {"label": label, "label_id": idx % 2, "width": 24, "height": 16}  # type: ignore[dict-item]
    return Sample(
        {
            "image": Item.get_instance(path),
            "annotations": JsonMetadataItem(objects(idx)),
            "metadata": JsonMetadataItem(known),
            "categories": JsonMetadataItem(
                [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], shared=True
            ),
        }
    )


def source_in(folder: Path, kind: str) -> Path:
    if kind == "table":
        return next(folder.glob("*.csv"))
    return folder


def labels_by_coco(folder: Path) -> list[str]:
    from pycocotools.coco import COCO

    found = []
    for path in sorted((folder / "annotations").iterdir()):
        read = COCO(path)
        found += [read.cats[one["category_id"]]["name"] for one in read.anns.values()]
    return found


def labels_by_yolo(folder: Path) -> list[str]:
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    listed = names if isinstance(names, dict) else dict(enumerate(names))
    lines = [line for path in folder.rglob("labels/**/*.txt") for line in path.open()]
    return [listed[int(line.split()[0])] for line in lines]


def labels_by_xml(folder: Path) -> list[str]:
    from xml.etree import ElementTree

    files = (folder / "Annotations").rglob("*.xml")
    return [str(one.text) for path in files for one in ElementTree.parse(path).iterfind("*/name")]


def labels_by_csv(folder: Path) -> list[str]:
    with source_in(folder, "table").open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def labels_by_webdataset(folder: Path) -> list[str]:
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    names = {one["id"]: one["name"] for one in json.loads((folder / "categories.json").read_text())}
    read = webdataset.WebDataset(shards, shardshuffle=False).decode()
    return [names[one["cls"]] for one in read]


def labels_by_datasets(folder: Path) -> list[str]:
    import datasets

    found = []
    for part in datasets.load_from_disk(str(folder)).values():
        names = part.features["label"]
        found += [names.int2str(value) for value in part["label"]]
    return found


def labels_by_folder(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.rglob("*.png")]


READERS: dict[str, Callable[[Path], list[str]]] = {
    "images": labels_by_folder,
    "image-folder": labels_by_folder,
    "coco": labels_by_coco,
    "yolo": labels_by_yolo,
    "voc": labels_by_xml,
    "table": labels_by_csv,
    "webdataset": labels_by_webdataset,
    "hf": labels_by_datasets,
}


def by_origin(dataset: Path) -> list[dict[str, Any]]:
    """What the samples say, but for where they stand."""
    there = Underfolder(dataset)
    return [values_of(Sample(there.read(idx))) for idx in there.indices().tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_in_cleaned_and_out_again(kind: LayoutKind, tmp_path: Path) -> None:
    needs_datasets(kind)
    samples = SamplesSequence.from_list([sample_of(tmp_path, idx) for idx in range(SAMPLES)])
    export(samples, kind, tmp_path / "given")
    dataset = tmp_path / "set"
    options = {"origin": "given"}

    report = import_dataset(kind, source_in(tmp_path / "given", kind), dataset, options=options)
    assert report.counts["written"] == SAMPLES
    assert not check(dataset).problems
    report = clean_dataset(dataset, ["verify-items", "drop-blank-images"])
    assert report.counts["removed"] == 1
    out = export_dataset(dataset, kind, tmp_path / "out")

    assert out.samples == SAMPLES - 1
    labels = READERS[kind](tmp_path / "out")
    assert sorted(labels) == sorted(["cat", "cat", "dog", "dog", "dog"])
    again = tmp_path / "again"
    import_dataset(kind, source_in(tmp_path / "out", kind), again, options=options)
    first, second = by_origin(dataset), by_origin(again)
    for one in (*first, *second):
        if kind == "hf":  # a row is called by its number
            one["metadata"].pop("file")
            one["metadata"].pop("name")
    assert second == first


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_what_one_layout_brought_in_goes_out_as_another(
    kind: LayoutKind, to: LayoutKind, tmp_path: Path, new_place: Place
) -> None:
    samples = SamplesSequence.from_list([sample_of(tmp_path, idx) for idx in range(SAMPLES)])
    export(samples, kind, tmp_path / "given")
    source = getattr(SamplesSequence, LAYOUTS[kind].source)(tmp_path / "given")
    source.to_underfolder(new_place).run()
    export(SamplesSequence.from_underfolder(new_place), to, tmp_path / "out")
    found = getattr(SamplesSequence, LAYOUTS[to].source)(tmp_path / "out")

    boxes = sorted(
        (one["label"], *one["bbox"]) for sample in found for one in sample["annotations"]()
    )
    wanted = sorted((one["label"], *one["bbox"]) for idx in range(SAMPLES) for one in objects(idx))
    assert [one[0] for one in boxes] == [one[0] for one in wanted]
    np.testing.assert_allclose([b[1:] for b in boxes], [w[1:] for w in wanted], atol=1e-9)
