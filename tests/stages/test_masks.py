"""Masks painted from objects, held against those of pycocotools."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO

from prefect_pipestream.errors import DecodeError, MissingExtraError, SampleError
from prefect_pipestream.items import JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.stages import StageAnnotationsToMask

HEIGHT, WIDTH = 8, 12
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}]
SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


def sample_of(*objects: Any, categories: Any = CATEGORIES, **facts: Any) -> Sample:
    facts = {"width": WIDTH, "height": HEIGHT, **facts}
    items: dict[str, Any] = {
        "image": PngImageItem(np.zeros((4, 6, 3), np.uint8)),
        "annotations": JsonMetadataItem(list(objects)),
        "metadata": JsonMetadataItem({name: one for name, one in facts.items() if one is not None}),
    }
    if categories is not None:
        items["categories"] = JsonMetadataItem(categories, shared=True)
    return Sample(items)


def mask_of(sample: Sample, **arguments: Any) -> Any:
    return StageAnnotationsToMask(**arguments)(sample)["mask"]()


def square(x: int, y: int, side: int = 4) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def ours(entry: dict[str, Any], **arguments: Any) -> Any:
    return mask_of(sample_of({"category_id": 3, **entry}), **arguments) > 0


def theirs(entry: dict[str, Any]) -> Any:
    coco = COCO()
    coco.imgs = {1: {"height": HEIGHT, "width": WIDTH}}
    return coco.annToMask({"image_id": 1, **entry}).astype(bool)


RUNS = rle.encode(np.asfortranarray(np.tri(HEIGHT, WIDTH, dtype=np.uint8)))["counts"].decode()


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        [[1.2, 0.3, 9.9, 2.5, 4.4, 7.7], [0, 0, 3, 0, 3, 3]],
        [[-5.0, -5.0, 30.0, 2.0, 6.0, 40.0]],
        {"size": [HEIGHT, WIDTH], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": [0, 10, 20, 66]},
    ],
)
def test_shapes_are_those_of_pycocotools(segmentation):
    np.testing.assert_array_equal(
        ours({"segmentation": segmentation}), theirs({"segmentation": segmentation})
    )


points = st.lists(st.floats(-20, 30), min_size=6, max_size=12).map(lambda one: one[: len(one) & ~1])


@settings(max_examples=200, deadline=None)
@given(polygons=st.lists(points, min_size=1, max_size=3))
def test_any_polygons_are_those_of_pycocotools(polygons):
    np.testing.assert_array_equal(
        ours({"segmentation": polygons}), theirs({"segmentation": polygons})
    )


@settings(max_examples=200, deadline=None)
@given(bits=st.integers(0, 2 ** (HEIGHT * WIDTH) - 1))
def test_any_run_lengths_are_those_that_were_compressed(bits):
    pixels = np.array([bits >> place & 1 for place in range(HEIGHT * WIDTH)], np.uint8)
    pixels = np.asfortranarray(pixels.reshape(HEIGHT, WIDTH))
    runs = {"size": [HEIGHT, WIDTH], "counts": rle.encode(pixels)["counts"].decode()}
    np.testing.assert_array_equal(ours({"segmentation": runs}), pixels.astype(bool))


@settings(max_examples=300, deadline=None)
@given(counts=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_other_text_is_refused(counts):
    # pycocotools itself returns what the memory held where a text ends early.
    runs = {"size": [HEIGHT, WIDTH], "counts": counts}
    try:
        mask = ours({"segmentation": runs})
    except SampleError:
        return
    np.testing.assert_array_equal(mask, rle.decode(runs).astype(bool))


def test_a_box_is_painted_where_there_is_nothing_else():
    box = {"bbox": [2.0, 1.0, 3.0, 4.0]}
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[1:5, 2:5] = True
    for entry in (box, {**box, "segmentation": []}):
        np.testing.assert_array_equal(ours(entry), expected)
        assert not ours(entry, boxes=False).any()
    assert not ours({"keypoints": [1, 1, 2]}).any()
    outside = ours({"bbox": [-10, -10, 12, 12]})
    np.testing.assert_array_equal(np.argwhere(outside), [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_semantic_masks_have_the_numbers_of_classes():
    one = {"category_id": 3, "segmentation": square(0, 0)}
    other = {"category_id": 3, "label": "dog", "segmentation": square(2, 2)}  # relabelled
    mask = mask_of(sample_of(one, other))
    assert mask.dtype == np.uint8
    assert [mask[0, 0], mask[3, 3], mask[5, 5], mask[7, 11]] == [3, 90, 90, 0]
    assert mask_of(sample_of(other, one))[3, 3] == 3


def test_masks_of_instances_have_places_in_the_list():
    objects = [{"segmentation": square(0, 0)}, {"bbox": [2, 2, 4, 4]}, {"bbox": [20, 20, 1, 1]}]
    mask = mask_of(sample_of(*objects, categories=None), kind="instances")
    assert mask.dtype == np.uint16
    assert [mask[0, 0], mask[3, 3], mask[5, 5], mask[7, 11]] == [1, 2, 2, 0]


def test_small_ones_are_above_large_ones():
    objects = [{"bbox": [2, 2, 2, 2]}, {"bbox": [0, 0, 8, 8]}]
    listed = mask_of(sample_of(*objects), kind="instances")
    by_area = mask_of(sample_of(*objects), kind="instances", order="area")
    assert (listed[2, 2], by_area[2, 2], by_area[0, 0]) == (2, 1, 2)


def test_crowds_are_below_others():
    objects = [{"bbox": [2, 2, 2, 2]}, {"bbox": [0, 0, 8, 8], "iscrowd": 1}]
    mask = mask_of(sample_of(*objects), kind="instances")
    assert (mask[2, 2], mask[0, 0]) == (1, 2)
    mask = mask_of(sample_of(*objects), kind="instances", crowds="skip")
    assert (mask[2, 2], mask[0, 0]) == (1, 0)


def test_a_number_over_255_makes_all_masks_of_16_bits():
    categories = [*CATEGORIES, {"id": 300, "name": "cow"}]
    assert mask_of(sample_of(categories=categories)).dtype == np.uint16
    mask = mask_of(sample_of({"label": "cow", "bbox": [0, 0, 2, 2]}, categories=categories))
    assert (mask.dtype, mask[0, 0]) == (np.uint16, 300)


def test_the_background_is_no_class():
    sample = sample_of({"category_id": 0, "bbox": [0, 0, 2, 2]}, categories=None)
    with pytest.raises(SampleError, match="class 0, which is the value of the background"):
        mask_of(sample)
    mask = mask_of(sample, background=255)
    assert (mask[0, 0], mask[7, 7]) == (0, 255)


def test_the_size_is_that_of_the_image_where_nothing_is_said():
    assert mask_of(sample_of(width=None)).shape == (4, 6)
    assert mask_of(sample_of()).shape == (HEIGHT, WIDTH)
    with pytest.raises(SampleError, match="the size of the mask is not known"):
        mask_of(sample_of(width=None), image_key="other")


def test_a_mask_that_is_there_already_stays():
    stage = StageAnnotationsToMask(mask_key="m")
    once = stage(sample_of({"label": "cat", "bbox": [0, 0, 2, 2]}))
    assert stage(once) is once
    assert isinstance(once["m"], PngImageItem)
    moved = once.set_value("annotations", [])
    assert not stage(moved)["m"]().any()


def test_in_a_pipe():
    source = SamplesSequence.from_list([sample_of({"label": "cat", "bbox": [0, 0, 2, 2]})])
    assert source.map("annotations-to-mask")[0]["mask"]().sum() == 12
    spec = {"annotations-to-mask": {"kind": "instances"}}
    assert source.map(spec)[0]["mask"]().sum() == 4


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a polygon is"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "a polygon is"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "a polygon is"),
        ({"segmentation": [7]}, "a polygon is 7"),
        ({"segmentation": "x"}, "expected polygons or an RLE"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "pixels long"),
        ({"segmentation": [[0, 0, 1e6, 1e6] * 9]}, "pixels long"),
        ({"segmentation": {"size": [8, 13], "counts": RUNS}}, "of the size"),
        ({"segmentation": {"counts": RUNS}}, "of the size"),
        ({"segmentation": {"size": 8, "counts": RUNS}}, "cannot be painted"),
        ({"segmentation": {"size": [8, 12], "counts": RUNS[:-1]}}, "RLE"),
        ({"segmentation": {"size": [8, 12], "counts": ""}}, "RLE has 0 pixels, the image 96"),
        ({"segmentation": {"size": [8, 12], "counts": [96, 1]}}, "RLE has 97 pixels"),
        ({"segmentation": {"size": [8, 12], "counts": [97, -1]}}, "RLE has 96 pixels"),
        ({"segmentation": {"size": [8, 12], "counts": [2**40]}}, "RLE has"),
        ({"segmentation": {"size": [8, 12], "counts": None}}, "the counts of its RLE are None"),
        ({"bbox": [1, 2, 3]}, "its bbox is"),
        ({"bbox": [1, 2, 3, 1e12]}, "pixels long"),
        ({"label": "cow"}, "label 'cow' .* add it to 'categories'"),
        ({"label": None, "category_id": "3"}, "no number"),
        ({"label": None, "category_id": 70000}, "numbers from 0 to 65,535"),
    ],
)
def test_what_cannot_be_painted(entry, message):
    with pytest.raises(SampleError, match=message):
        mask_of(sample_of({"label": "cat"}, {"label": "cat", **entry}))


@pytest.mark.parametrize(
    "categories",
    [3, [3], [{"id": True, "name": "cat"}], [*CATEGORIES, {**CATEGORIES[0], "name": "other"}]],
)
def test_classes_that_are_none_are_refused(categories):
    with pytest.raises(SampleError, match=r"categories.* has "):
        mask_of(sample_of({"label": "cat", "bbox": [0, 0, 2, 2]}, categories=categories))


def test_polygons_of_two_points_have_no_pixels():
    assert not ours({"segmentation": [[1, 1, 5, 5]]}).any()
    both = ours({"segmentation": [[1, 1, 5, 5], *SQUARE]})
    np.testing.assert_array_equal(both, theirs({"segmentation": SQUARE}))


def test_items_that_are_none():
    with pytest.raises(SampleError, match="no item 'annotations'"):
        mask_of(Sample())
    with pytest.raises(SampleError, match="is no list of objects"):
        mask_of(sample_of(3))
    with pytest.raises(DecodeError, match="limit"):
        mask_of(sample_of(width=10**6, height=10**6))


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"prefect-pipestream\[coco\]"):
        StageAnnotationsToMask()
