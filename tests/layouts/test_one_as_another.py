"""Objects of one layout, exported as another and read from there."""

import numpy as np
import pytest

from prefect_pipestream.exporting import export
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.stages import StageAnnotationsToMask
from tests.layouts import test_coco, test_voc

LAYOUTS = ("coco", "voc", "yolo")


def boxes_of(samples: SamplesSequence) -> list[tuple[str, list[float]]]:
    """The classes and the corners of all objects, of whichever image."""
    found = []
    for sample in samples:
        for one in sample["annotations"]():
            x, y, width, height = one["bbox"]
            found.append((one["label"], [x, y, x + width, y + height]))
    return sorted(found)


@pytest.mark.parametrize("between", LAYOUTS)
@pytest.mark.parametrize("first", ["coco", "voc"])
def test_classes_and_boxes_are_the_same(tmp_path, first, between):
    if first == "coco":
        path = test_coco.specimen(tmp_path / "first")

        def inside(content):  # YOLO has no crowds, VOC nothing smaller than a pixel
            for place, one in enumerate(content["annotations"]):
                one |= {"bbox": [1.5, 2.25, 4 + place, 2.5], "segmentation": [], "iscrowd": 0}

        test_coco.changed(path, inside)
        source = SamplesSequence.from_coco(path)
    else:
        source = SamplesSequence.from_voc(test_voc.specimen(tmp_path / "first"))

    export(source, between, tmp_path / "between")
    again = getattr(SamplesSequence, f"from_{between}")(tmp_path / "between")

    was, now = boxes_of(source), boxes_of(again)
    assert [label for label, _ in now] == [label for label, _ in was]
    np.testing.assert_allclose([box for _, box in now], [box for _, box in was], atol=1e-4)
    for one in again:
        mask = StageAnnotationsToMask(background=255)(one)["mask"]()
        assert (mask != 255).any() == bool(one["annotations"]())
