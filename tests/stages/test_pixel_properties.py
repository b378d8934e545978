"""What holds for every image: through the stages, on items that hold any array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import TiffImageItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.stages import (
    StageAutocontrast,
    StageClipValues,
    StageConvertImage,
    StageInvert,
    StageRotateFlip,
)
from tests.stages.images import alpha_of, images, white_of


def apply(stage, image):
    return stage(Sample({"image": TiffImageItem(image)}))["image"]()


def assert_same(one, other):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


cutoffs = st.floats(0, 49)


@given(images(special=True), cutoffs, st.booleans())
def test_dtype_shape_and_alpha_stay(image, cutoff, per_channel):
    before = image.copy()
    for stage in (
        StageInvert(),
        StageAutocontrast(cutoff=cutoff, per_channel=per_channel),
        StageClipValues(low=0.25, high=300),
    ):
        changed = apply(stage, image)
        assert changed.dtype == image.dtype
        assert changed.shape == image.shape
        if alpha_of(image) is not None:
            assert_same(alpha_of(changed), alpha_of(image))
    assert_same(image, before)  # the values of the sample itself are never written to


@given(images(("uint8", "uint16")))
def test_inverting_integers_twice_gives_the_same_image(image):
    assert_same(apply(StageInvert() >> StageInvert(), image), image)


@given(images(("float32", "float64")))
def test_inverting_floats_twice_gives_the_same_image_up_to_rounding(image):
    twice = apply(StageInvert() >> StageInvert(), image)
    np.testing.assert_allclose(twice, image, atol=np.finfo(image.dtype).eps)


@given(images(channels=(None, 1, 3)))
def test_an_inverted_image_adds_up_to_white(image):
    inverted = apply(StageInvert(), image)
    total = image.astype(np.float64) + inverted
    np.testing.assert_allclose(total, white_of(image.dtype), atol=1e-6)


@given(images(special=True, channels=(None, 3)))
def test_nan_stays_nan_and_comes_from_nothing_else(image):
    for stage in (StageInvert(), StageAutocontrast(cutoff=2), StageClipValues(low=0.1, high=0.9)):
        if image.dtype.kind == "u" and isinstance(stage, StageClipValues):
            continue  # no integer is between 0.1 and 0.9
        assert_same(np.isnan(apply(stage, image)), np.isnan(image))


@given(images(channels=(None, 1, 3)), cutoffs)
def test_autocontrast_keeps_the_order_of_values(image, cutoff):
    stretched = apply(StageAutocontrast(cutoff=cutoff), image)
    order = np.argsort(image, axis=None, kind="stable")
    assert np.all(np.diff(stretched.ravel()[order].astype(np.float64)) >= 0)


@given(images(channels=(None, 1, 3)))
def test_autocontrast_fills_the_range_unless_there_is_one_value(image):
    stretched = apply(StageAutocontrast(), image)
    if image.min() == image.max():
        assert_same(stretched, image)
    else:
        assert stretched.min() == 0
        assert stretched.max() == white_of(image.dtype)


@given(images(special=True, channels=(None, 3)))
def test_autocontrast_of_any_floats_stays_in_the_range(image):
    stretched = apply(StageAutocontrast(), image)
    finite = image[np.isfinite(image)]
    if finite.size and finite.min() != finite.max():
        assert not np.any((stretched < 0) | (stretched > white_of(image.dtype)))


@given(images(special=True), st.floats(-10, 400), st.floats(0, 400))
def test_clipped_values_are_within_the_limits_and_others_stay(image, low, span):
    stage = StageClipValues(low=low, high=low + span)
    whole = np.arange(0, white_of(image.dtype) + 1)
    if image.dtype.kind == "u" and not np.any((whole >= low) & (whole <= low + span)):
        with pytest.raises(SampleError, match="no value of uint"):
            apply(stage, image)
        return
    clipped = apply(stage, image)
    colours = clipped[..., :-1] if alpha_of(image) is not None else clipped
    originals = image[..., :-1] if alpha_of(image) is not None else image
    as_float = originals.dtype.type
    known = ~np.isnan(originals)
    bottom, top = (
        (as_float(low), as_float(low + span)) if image.dtype.kind == "f" else (low, low + span)
    )
    assert np.all((colours[known] >= bottom) & (colours[known] <= top))
    within = (originals >= bottom) & (originals <= top)
    assert_same(colours[within], originals[within])


@given(images(), st.sampled_from(["bool", "uint8", "uint16", "float32", "float64"]))
def test_converting_keeps_black_white_and_the_order(image, dtype):
    converted = apply(StageConvertImage(dtype=dtype), image)
    assert converted.dtype == dtype
    assert converted.shape == image.shape
    order = np.argsort(image, axis=None, kind="stable")
    assert np.all(np.diff(converted.ravel()[order].astype(np.float64)) >= 0)
    assert np.all(converted[image == 0] == 0)
    assert np.all(
        converted[image == white_of(image.dtype)] == (1 if dtype == "bool" else white_of(dtype))
    )


@given(images(("uint8",)), st.sampled_from(["uint16", "float32", "float64"]))
def test_uint8_survives_wider_dtypes(image, dtype):
    wide = StageConvertImage(dtype=dtype)
    assert_same(apply(wide >> StageConvertImage(dtype="uint8"), image), image)


@given(images(("uint16",)))
def test_uint16_survives_float32(image):
    wide = StageConvertImage(dtype="float32")
    assert_same(apply(wide >> StageConvertImage(dtype="uint16"), image), image)


@given(images(special=True), st.sampled_from(["uint8", "uint16"]))
def test_converting_without_scale_saturates_and_never_wraps(image, dtype):
    stage = StageConvertImage(dtype=dtype, scale=False)
    if image.dtype.kind == "f" and np.isnan(image).any():
        with pytest.raises(SampleError, match="NaN"):
            apply(stage, image)
        return
    expected = np.clip(np.rint(image.astype(np.float64)), 0, white_of(dtype))
    np.testing.assert_array_equal(apply(stage, image), expected)


@given(images(channels=(None, 1, 3)))
def test_gray_survives_rgb_and_rgba(image):
    gray = apply(StageConvertImage(channels="gray"), image)
    assert gray.shape == image.shape[:2]
    assert gray.dtype == image.dtype
    for channels in ("rgb", "rgba"):
        back = StageConvertImage(channels=channels) >> StageConvertImage(channels="gray")
        np.testing.assert_allclose(apply(back, gray), gray, rtol=1e-6)


@given(images())
def test_four_quarter_turns_give_the_same_image(image):
    turn = StageRotateFlip(rotate=90)
    assert_same(apply(turn >> turn >> turn >> turn, image), image)
    assert_same(apply(turn >> StageRotateFlip(rotate=270), image), image)


@given(images(), st.sampled_from(["horizontal", "vertical"]))
def test_mirroring_twice_gives_the_same_image(image, flip):
    mirror = StageRotateFlip(flip=flip)
    assert_same(apply(mirror >> mirror, image), image)
