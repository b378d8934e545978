"""`resize-images` and `crop-and-pad-images`; figures from the reference where it has them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import PngImageItem, TiffImageItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.stages import StageCropAndPad, StageResize
from tests.stages.images import images

RAMP = (np.arange(24, dtype=np.uint8) * 10).reshape(4, 6)
SMALL = np.arange(12, dtype=np.uint8).reshape(3, 4) + 100


def resize(image, size, **arguments):
    return StageResize(size=size, **arguments)(Sample({"image": TiffImageItem(image)}))["image"]()


def crop(image, **arguments):
    return StageCropAndPad(**arguments)(Sample({"image": TiffImageItem(image)}))["image"]()


# -- resize ----------------------------------------------------------------------------------


@given(images(("bool", "uint8", "uint16", "float32")), st.integers(1, 9), st.integers(1, 9))
def test_the_result_has_the_size_and_the_dtype_and_no_new_extremes(image, height, width):
    for interpolation in ("nearest", "bilinear"):
        resized = resize(image, (height, width), interpolation=interpolation)
        assert resized.shape == (height, width, *image.shape[2:])
        assert resized.dtype == image.dtype
        assert resized.min() >= image.min() - 1e-6
        assert resized.max() <= image.max() + 1e-6


def test_bicubic_saturates_and_never_wraps():
    edge = np.zeros((8, 8), dtype=np.uint16)
    edge[:, 4:] = 65535
    resized = resize(edge, (16, 16), interpolation="bicubic").astype(int)
    assert np.all(np.diff(resized[:, [0, 15]]) == 65535)
    assert np.all((resized < 20000) == (np.arange(16) < 8))


def test_enlarging_gives_what_the_reference_gives():
    # OpenCV, which the reference uses, interpolates between the same pixel centres.
    expected = [0, 6, 14, 21, 29, 36, 44, 50]
    assert np.abs(resize(RAMP, (12, 8))[0].astype(int) - expected).max() <= 1


def test_reducing_averages_all_pixels():
    stripes = np.tile(np.array([0, 0, 0, 240], dtype=np.uint8), (8, 16))
    assert np.ptp(resize(stripes, (2, 4))) < 30  # skipping pixels would leave only one stripe


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((4, 6), ("max", 12), (8, 12)),
        ((4, 6), ("min", 2), (2, 3)),
        ((4, 6), ("max", 3), (2, 3)),
        ((100, 37), ("max", 50), (50, 18)),
        ((101, 37), ("min", 50), (136, 50)),
        ((101, 67), ("min", 50), (75, 50)),
        ((3, 67), ("max", 10), (1, 10)),
        ((5, 5), (3, 2), (3, 2)),
    ],
)
def test_sizes_are_those_of_the_reference(shape, size, expected):
    assert resize(np.zeros(shape, np.uint8), size).shape == expected


def test_masks_get_no_new_values_and_images_of_the_size_are_carried_over():
    sample = Sample(
        {
            "image": PngImageItem(RAMP),
            "mask": PngImageItem(RAMP),
            "other": PngImageItem(RAMP),
            "small": PngImageItem(RAMP[:2, :3]),
        }
    )
    stage = StageResize(size=(2, 3), images=["image", "small"], masks="mask")
    resized = stage(sample)
    assert set(np.unique(resized["mask"]())) <= set(np.unique(RAMP))
    assert resized["mask"]().shape == (2, 3)
    assert resized["other"] is sample["other"]
    assert resized["small"] is sample["small"]
    only_masks = StageResize(size=(2, 3), masks=["mask"])(sample)
    assert only_masks["image"] is sample["image"]


def test_every_image_is_resized_where_no_key_is_given():
    sample = Sample({"a": PngImageItem(RAMP), "m": YamlMetadataItem({}), "b": PngImageItem(RAMP)})
    resized = StageResize(size=("max", 3))(sample)
    assert resized["a"]().shape == resized["b"]().shape == (2, 3)
    assert resized["m"] is sample["m"]


def test_results_go_to_other_keys():
    sample = Sample({"image": PngImageItem(RAMP)})
    for key_format, key in [("small_*", "small_image"), ("_small", "image_small"), ("", "image")]:
        resized = StageResize(size=(2, 3), output_key_format=key_format)(sample)
        assert resized[key]().shape == (2, 3)
        assert (resized["image"] is sample["image"]) == bool(key_format)


@pytest.mark.parametrize("size", [(0, 2), (-1, 2), (1.5, 2), ("foo", 3), ("max", 0), (3,)])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValidationError):
        StageResize(size=size)


def test_an_image_that_cannot_be_resized_is_named():
    sample = Sample({"stack": TiffImageItem(np.zeros((2, 3, 4, 5), np.uint8))})
    with pytest.raises(SampleError, match=r"'stack' .*2×3×4×5 uint8.*H×W"):
        StageResize(size=(2, 2))(sample)
    sample = Sample({"labels": TiffImageItem(np.zeros((4, 4), np.int32))})
    with pytest.raises(SampleError, match="int32"):
        StageResize(size=(2, 2))(sample)
    assert StageResize(size=(2, 2), masks="labels")(sample)["labels"]().shape == (2, 2)


# -- crop and pad ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"x": 1, "y": 1}, [[105, 106, 107], [109, 110, 111]]),
        ({"x": 1, "y": 1, "width": 2, "height": 2}, [[105, 106], [109, 110]]),
        ({"x": 1, "width": 2}, [[101, 102], [105, 106], [109, 110]]),
        ({"x": -1, "y": -1, "width": 2, "height": 2}, [[0, 0], [0, 100]]),
        ({"x": 10, "width": 3, "height": 2}, [[0, 0, 0], [0, 0, 0]]),
        (
            {"x": -1, "width": 6, "height": 4},
            [
                [0, 100, 101, 102, 103, 0],
                [0, 104, 105, 106, 107, 0],
                [0, 108, 109, 110, 111, 0],
                [0, 0, 0, 0, 0, 0],
            ],
        ),
        (
            {"x": -2, "y": -1, "width": 8, "height": 2, "border": "reflect"},
            [[106, 105, 104, 105, 106, 107, 106, 105], [102, 101, 100, 101, 102, 103, 102, 101]],
        ),
        (
            {"x": -2, "y": -1, "width": 8, "height": 2, "border": "replicate"},
            [[100, 100, 100, 101, 102, 103, 103, 103]] * 2,
        ),
        (
            {"x": -2, "y": -1, "width": 8, "height": 2, "border": "circular"},
            [[110, 111, 108, 109, 110, 111, 108, 109], [102, 103, 100, 101, 102, 103, 100, 101]],
        ),
        ({"width": 6, "height": 1, "pad_colors": "white"}, [[100, 101, 102, 103, 255, 255]]),
        ({"width": 6, "height": 1, "pad_colors": [1, 1, 1]}, [[100, 101, 102, 103, 1, 1]]),
    ],
)
def test_windows_are_those_of_the_reference(arguments, expected):
    assert crop(SMALL, **arguments).tolist() == expected


@given(
    images(),
    st.integers(-30, 30),
    st.integers(-30, 30),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["reflect", "replicate", "circular"]),
)
def test_a_border_far_out_is_still_made_of_the_image(image, x, y, width, height, border):
    window = crop(image, x=x, y=y, width=width, height=height, border=border)
    assert window.shape == (height, width, *image.shape[2:])
    assert window.dtype == image.dtype
    assert np.isin(window, image).all()


@given(images(("uint8", "uint16")), st.integers(0, 5), st.integers(0, 5))
def test_what_was_padded_is_cropped_again(image, left, top):
    height, width = image.shape[:2]
    padded = crop(image, x=-left, y=-top, width=width + 9, height=height + 9, pad_colors="red")
    np.testing.assert_array_equal(crop(padded, x=left, y=top, width=width, height=height), image)


def test_colours_fit_the_dtype_and_the_channels():
    def corner(image, color):
        return crop(image, width=9, pad_colors=color)[0, -1].tolist()

    assert corner(np.zeros((2, 2, 3), np.uint8), "#ff8000") == [255, 128, 0]
    assert corner(np.zeros((2, 2, 4), np.uint8), "red") == [255, 0, 0, 255]
    assert corner(np.zeros((2, 2, 4), np.uint8), [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert corner(np.zeros((2, 2), np.uint8), "red") == 76
    assert corner(np.zeros((2, 2), np.uint16), "white") == 65535
    assert corner(np.zeros((2, 2), np.float32), "white") == 1
    assert corner(np.zeros((2, 2), bool), "white") is True
    assert corner(np.zeros((2, 2), np.int32), "black") == 0


def test_one_colour_for_all_images_or_one_for_each():
    sample = Sample({"a": PngImageItem(np.zeros((2, 2, 3), "uint8")), "b": PngImageItem(SMALL)})
    arguments = {"width": 9, "images": ["a", "b"]}
    both = StageCropAndPad(pad_colors="white", **arguments)(sample)
    assert (both["a"]()[0, 8, 0], both["b"]()[0, 8]) == (255, 255)
    each = StageCropAndPad(pad_colors=["red", [9, 9, 9]], **arguments)(sample)
    assert (each["a"]()[0, 8].tolist(), each["b"]()[0, 8]) == ([255, 0, 0], 9)
    with pytest.raises(ValidationError, match="2 images"):
        StageCropAndPad(pad_colors=["red", "red", "red"], **arguments)


def test_windows_without_a_pixel_and_missing_images_are_errors():
    sample = Sample({"image": PngImageItem(SMALL)})
    with pytest.raises(SampleError, match=r"'image' \(3×4 uint8\): nothing of it"):
        StageCropAndPad(x=10)(sample)
    with pytest.raises(SampleError, match="no item 'image'; it has 'photo'"):
        StageCropAndPad(x=1)(sample.rename_key("image", "photo"))
    for arguments in ({"width": -1}, {"pad_colors": "no colour"}, {"pad_colors": [1, 2, 300]}):
        with pytest.raises(ValidationError):
            StageCropAndPad(**arguments)


def test_a_window_that_is_the_whole_image_carries_it_over():
    sample = Sample({"image": PngImageItem(SMALL)})
    assert StageCropAndPad(width=4)(sample)["image"] is sample["image"]


def test_neither_needs_an_extra_nor_loads_anything_at_import():
    code = (
        "import sys, prefect_pipestream.stages\n"
        "heavy = {'PIL', 'albumentations', 'cv2', 'prefect', 'tifffile', 'imageio', 'yaml'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
