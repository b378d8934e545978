"""What supervision, if it is installed, reads of exports, and the package of supervision's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.exporting import export
from prefect_pipestream.sequences import SamplesSequence
from tests.layouts import test_coco, test_voc

# Heavy, and so not among what tests need: `pip install supervision`.
supervision: Any = pytest.importorskip("supervision", exc_type=ImportError)


def boxes_of(samples: SamplesSequence) -> dict[str, list[list[float]]]:
    """The corners of the objects of each image, by its name, counted as supervision does."""
    found = {}
    for sample in samples:
        boxes = [one["bbox"] for one in sample["annotations"]()]
        name = Path(sample["metadata"]()["file"]).name
        found[name] = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    return found


def hold(dataset: Any, samples: SamplesSequence) -> None:
    expected = boxes_of(samples)
    assert {Path(path).name for path, *_ in dataset} == set(expected)
    for path, _, detections in dataset:
        boxes = np.reshape(expected[Path(path).name], (-1, 4))
        np.testing.assert_allclose(detections.xyxy, boxes, atol=1e-5)


def test_what_it_reads_of_coco(tmp_path):
    test_coco.specimen(tmp_path / "coco")
    samples = SamplesSequence.from_coco(tmp_path / "coco")
    export(samples, "coco", tmp_path / "out")
    file = tmp_path / "out/annotations/instances_val2017.json"
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path / "out/val2017"), str(file))
    assert dataset.classes == ["person", "bottle"]
    hold(dataset, samples)
    dataset.as_coco(str(tmp_path / "theirs/images"), str(tmp_path / "theirs/annotations.json"))
    hold(dataset, SamplesSequence.from_coco(tmp_path / "theirs"))


def test_what_it_reads_of_voc(tmp_path):
    samples = SamplesSequence.from_voc(test_voc.specimen(tmp_path / "voc"))
    export(samples, "voc", tmp_path / "out")
    folders = str(tmp_path / "out/JPEGImages"), str(tmp_path / "out/Annotations")
    dataset = supervision.DetectionDataset.from_pascal_voc(*folders)
    assert dataset.classes == ["dog", "person"]
    hold(dataset, samples)
    folders = str(tmp_path / "theirs/JPEGImages"), str(tmp_path / "theirs/Annotations")
    dataset.as_pascal_voc(*folders)
    again = SamplesSequence.from_voc(tmp_path / "theirs")
    assert [len(one["annotations"]()) for one in again] == [0, 2, 1]
    assert again[1]["annotations"]()[0]["bbox"] == samples[1]["annotations"]()[0]["bbox"]
