"""The cleaning stages, on real files."""

import warnings

import numpy as np
import PIL.Image
import pytest
from pydantic import ValidationError

from prefect_pipestream.errors import DecodeError, EncodeError, SampleError
from prefect_pipestream.items import (
    Item,
    JpegImageItem,
    JsonMetadataItem,
    NpyNumpyItem,
    PickleItem,
    PngImageItem,
    TiffImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import REMOVE, Sample
from prefect_pipestream.stages import (
    StageAutocontrast,
    StageClipValues,
    StageConvertImage,
    StageDropBlankImages,
    StageInvert,
    StageMeasureImages,
    StageReencode,
    StageRotateFlip,
    StageVerifyItems,
)


def ramp(*shape, dtype="uint8"):
    return (np.arange(np.prod(shape)).reshape(shape) * 3 % 200 + 20).astype(dtype)


@pytest.fixture
def sample(tmp_path):
    """A sample of files: RGB, gray and 16-bit PNG, RGBA, a JPEG, metadata and text."""
    values = {
        "rgb.png": PngImageItem(ramp(8, 10, 3)),
        "gray.png": PngImageItem(ramp(8, 10)),
        "deep.png": PngImageItem(ramp(8, 10, dtype="uint16") * 100),
        "rgba.png": PngImageItem(ramp(8, 10, 4)),
        "photo.jpg": JpegImageItem(ramp(8, 10, 3)),
        "float.tif": TiffImageItem(ramp(8, 10, dtype="float32") / 255),
        "meta.yml": YamlMetadataItem({"a": 1}),
        "points.txt": TxtNumpyItem(np.arange(4)),
    }
    for name, item in values.items():
        item.serialize(tmp_path / name)
    return Sample({name[: name.index(".")]: Item.get_instance(tmp_path / name) for name in values})


def test_by_default_every_image_is_changed_and_nothing_else(sample):
    changed = StageInvert()(sample)
    new = {key for key in changed if changed[key] is not sample[key]}
    assert new == {"rgb", "gray", "deep", "rgba", "photo", "float"}
    assert changed.to_schema() == sample.to_schema()
    np.testing.assert_array_equal(changed["rgb"](), 255 - sample["rgb"]())
    np.testing.assert_array_equal(changed["deep"](), 65535 - sample["deep"]())
    np.testing.assert_array_equal(changed["rgba"]()[..., 3], sample["rgba"]()[..., 3])


def test_only_the_named_images_are_changed(sample):
    changed = StageInvert(images=["gray"])(sample)
    assert {key for key in changed if changed[key] is not sample[key]} == {"gray"}
    one = StageInvert(images="gray")(sample)
    np.testing.assert_array_equal(one["gray"](), changed["gray"]())


def test_shared_images_stay_shared():
    sample = Sample({"image": PngImageItem(ramp(4, 4), shared=True)})
    assert StageInvert()(sample)["image"].is_shared


@pytest.mark.parametrize(
    "stage",
    [
        StageInvert(images=["gray", "nope"]),
        StageMeasureImages(images=["nope"]),
        StageDropBlankImages(images=["nope"]),
        StageReencode(item_class="JpegImageItem", images=["nope"]),
        StageVerifyItems(key_list=["nope"]),
    ],
)
def test_a_key_that_is_missing_is_named_with_those_that_are_there(sample, stage):
    with pytest.raises(SampleError, match=r"'nope'.*it has 'rgb', 'gray', 'deep'"):
        stage(sample)


def test_a_key_of_no_image_is_refused(sample):
    with pytest.raises(SampleError, match=r"'meta' \(.*meta\.yml\).*YamlMetadataItem"):
        StageInvert(images=["meta"])(sample)


def test_images_in_numpy_files_are_changed_where_they_are_named():
    sample = Sample({"image": NpyNumpyItem(ramp(4, 4))})
    assert StageInvert()(sample)["image"] is sample["image"]
    np.testing.assert_array_equal(StageInvert(images="image")(sample)["image"](), 255 - ramp(4, 4))


def test_an_error_names_key_file_shape_and_dtype(tmp_path):
    path = tmp_path / "000003_labels.tif"
    TiffImageItem(ramp(4, 5, dtype="int32")).serialize(path)
    with pytest.raises(SampleError, match=r"'labels' \(.*000003_labels\.tif, 4×5 int32\)"):
        StageInvert()(Sample({"labels": Item.get_instance(path)}))


def test_big_endian_images_are_read_as_any_other(tmp_path):
    import tifffile

    path = tmp_path / "image.tif"
    tifffile.imwrite(path, ramp(4, 5, dtype="uint16"), byteorder=">")
    inverted = StageInvert()(Sample({"image": Item.get_instance(path)}))["image"]()
    np.testing.assert_array_equal(inverted, 65535 - ramp(4, 5, dtype="uint16"))


def test_arguments_are_checked_when_a_stage_is_made():
    for cls, arguments in [
        (StageInvert, {"white": 0}),
        (StageInvert, {"nope": 1}),
        (StageAutocontrast, {"cutoff": 50}),
        (StageClipValues, {}),
        (StageClipValues, {"low": 5, "high": 4}),
        (StageClipValues, {"low": float("nan")}),
        (StageConvertImage, {}),
        (StageConvertImage, {"dtype": "complex64"}),
        (StageRotateFlip, {}),
        (StageRotateFlip, {"rotate": 45}),
        (StageReencode, {}),
        (StageReencode, {"item_class": "NopeItem"}),
        (StageReencode, {"item_class": "UnknownItem"}),
        (StageReencode, {"item_class": "PngImageItem", "options": {"quality": 3}}),
        (StageDropBlankImages, {"threshold": 0}),
    ]:
        with pytest.raises(ValidationError):
            cls(**arguments)


# -- invert ----------------------------------------------------------------------------------


def test_white_of_fewer_bits_than_the_dtype():
    image = np.array([[0, 1000, 4095]], dtype="uint16")
    sample = Sample({"image": PngImageItem(image)})
    np.testing.assert_array_equal(StageInvert(white=4095)(sample)["image"](), 4095 - image)
    with pytest.raises(SampleError, match="the value 4095 is above white = 4000"):
        StageInvert(white=4000)(sample)


def test_a_bool_mask_is_inverted():
    mask = np.eye(3, dtype=bool)
    inverted = StageInvert()(Sample({"mask": PngImageItem(mask)}))["mask"]()
    np.testing.assert_array_equal(inverted, ~mask)


# -- autocontrast ----------------------------------------------------------------------------


def test_autocontrast_is_that_of_pillow():
    from PIL import Image, ImageOps

    image = np.random.default_rng(0).normal(120, 20, (40, 50)).clip(0, 255).astype("uint8")
    for cutoff in (0, 1, 10):
        ours = StageAutocontrast(cutoff=cutoff)(Sample({"i": PngImageItem(image)}))["i"]()
        pillows = np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff))
        assert np.abs(ours.astype(int) - pillows).max() <= 1  # Pillow rounds down


def test_autocontrast_leaves_extreme_values_out():
    image = np.full((10, 10), 100, dtype="uint8")
    image[:, 5:], image[0, 0], image[9, 9] = 150, 0, 255
    unchanged = Sample({"i": PngImageItem(image)})
    assert StageAutocontrast()(unchanged)["i"] is unchanged["i"]
    stretched = StageAutocontrast(cutoff=1)(unchanged)["i"]()
    assert sorted(np.unique(stretched)) == [0, 255]


def test_autocontrast_per_channel_removes_a_cast():
    image = np.stack([ramp(6, 6), ramp(6, 6) // 2, ramp(6, 6) // 4], axis=-1)
    sample = Sample({"i": PngImageItem(image)})
    together = StageAutocontrast()(sample)["i"]()
    assert together[..., 2].max() < 100
    apart = StageAutocontrast(per_channel=True)(sample)["i"]()
    assert apart.reshape(-1, 3).max(0).tolist() == [255, 255, 255]


def test_images_of_one_value_are_carried_over(sample):
    flat = sample.set_value("gray", np.full((4, 4), 7, "uint8"))
    assert StageAutocontrast(images="gray")(flat)["gray"] is flat["gray"]


# -- clip, convert, rotate -------------------------------------------------------------------


def test_clip_carries_over_what_is_within(sample):
    assert StageClipValues(low=0, high=255, images=["gray"])(sample)["gray"] is sample["gray"]
    clipped = StageClipValues(low=30.5, high=99.5, images=["gray"])(sample)["gray"]()
    assert (clipped.min(), clipped.max()) == (31, 99)


def test_a_range_without_a_value_is_an_error(sample):
    with pytest.raises(SampleError, match=r"no value of uint8 is between 0\.2 and 0\.7"):
        StageClipValues(low=0.2, high=0.7, images=["gray"])(sample)
    with pytest.raises(SampleError, match="no value of uint8 is between 300"):
        StageClipValues(low=300, images=["gray"])(sample)


def test_infinite_values_are_clipped():
    image = np.array([[-np.inf, np.nan, np.inf]], dtype="float32")
    clipped = StageClipValues(low=0, high=1)(Sample({"i": TiffImageItem(image)}))["i"]()
    np.testing.assert_array_equal(clipped, np.array([[0, np.nan, 1]], dtype="float32"))


def test_floats_out_of_range_are_not_scaled_silently():
    sample = Sample({"i": TiffImageItem(np.array([[0, 128.4, 255]]))})
    with pytest.raises(SampleError, match="from 0 to 255"):
        StageConvertImage(dtype="uint8")(sample)
    kept = StageConvertImage(dtype="uint8", scale=False)(sample)["i"]()
    assert kept.tolist() == [[0, 128, 255]]


def test_integers_without_a_range_convert_by_value():
    sample = Sample({"i": TiffImageItem(np.array([[-5, 3, 70000]], dtype="int32"))})
    with pytest.raises(SampleError, match="int32"):
        StageConvertImage(dtype="uint16")(sample)
    kept = StageConvertImage(dtype="uint16", scale=False)(sample)["i"]()
    assert kept.tolist() == [[0, 3, 65535]]


def test_gray_is_that_of_pillow(sample):
    from PIL import Image

    gray = StageConvertImage(channels="gray", images=["rgb"])(sample)["rgb"]()
    pillows = np.asarray(Image.fromarray(sample["rgb"]()).convert("L"))
    assert np.abs(gray.astype(int) - pillows).max() <= 1


def test_alpha_is_added_opaque_and_kept(sample):
    rgba = StageConvertImage(channels="rgba", images=["rgb", "gray", "rgba"])(sample)
    assert rgba["rgb"]()[..., 3].min() == 255
    assert rgba["gray"]().shape == (8, 10, 4)
    assert rgba["rgba"] is sample["rgba"]
    gray_alpha = np.stack([ramp(4, 4), ramp(4, 4) // 2], axis=-1)
    colored = StageConvertImage(channels="rgba")(Sample({"i": PngImageItem(gray_alpha)}))["i"]()
    np.testing.assert_array_equal(colored[..., 3], gray_alpha[..., 1])


def test_converted_images_that_are_so_already_are_carried_over(sample):
    stage = StageConvertImage(dtype="uint8", channels="gray", images=["gray"])
    assert stage(sample)["gray"] is sample["gray"]


def test_rotation_is_counter_clockwise_and_before_the_mirror():
    image = np.array([[1, 2], [3, 4], [5, 6]], dtype="uint8")
    sample = Sample({"i": PngImageItem(image)})
    assert StageRotateFlip(rotate=90)(sample)["i"]().tolist() == [[2, 4, 6], [1, 3, 5]]
    both = StageRotateFlip(rotate=90, flip="horizontal")(sample)["i"]()
    assert both.tolist() == [[6, 4, 2], [5, 3, 1]]


# -- reencode --------------------------------------------------------------------------------


def test_reencode_to_another_format_keeps_the_pixels(sample, tmp_path):
    changed = StageReencode(item_class="TiffImageItem")(sample)
    for key in ("rgb", "gray", "deep", "rgba", "float"):
        changed[key].serialize(tmp_path / "out" / key)
        written = Item.get_instance(tmp_path / "out" / f"{key}.tiff")
        assert written().dtype == sample[key]().dtype
        np.testing.assert_array_equal(written(), sample[key]())
    assert changed["float"] is sample["float"]
    assert changed["meta"] is sample["meta"]


def test_reencode_with_options_writes_another_file_of_the_same_pixels(sample, tmp_path):
    big = StageReencode(options={"compress_level": 0}, images=["rgb"])(sample)["rgb"]
    big.serialize(tmp_path / "big.png")
    assert (tmp_path / "big.png").stat().st_size > (tmp_path / "rgb.png").stat().st_size
    np.testing.assert_array_equal(Item.get_instance(tmp_path / "big.png")(), sample["rgb"]())


def test_reencode_names_the_image_whose_class_has_no_such_option(sample):
    with pytest.raises(SampleError, match=r"'rgb' \(.*rgb\.png\).*no encoder option 'quality'"):
        StageReencode(options={"quality": 50})(sample)


def test_what_a_format_cannot_hold_is_an_error_when_it_is_written(sample, tmp_path):
    changed = StageReencode(item_class=JpegImageItem, images="deep")(sample)
    with pytest.raises(EncodeError, match="uint16"):
        changed["deep"].serialize(tmp_path / "deep.jpg")


# -- measure and drop ------------------------------------------------------------------------


def test_the_figures_of_an_image():
    image = np.zeros((4, 6, 3), dtype="uint8")
    image[:2] = 255
    image[2, 0] = 100
    figures = StageMeasureImages()(Sample({"photo": PngImageItem(image)}))["measures"]()["photo"]
    assert (figures["width"], figures["height"], figures["channels"]) == (6, 4, 3)
    assert figures["mean"] == pytest.approx(image.mean())
    assert figures["std"] == pytest.approx(image.std())
    assert figures["clipped"] == pytest.approx(23 / 24)
    assert figures["sharpness"] > 1000


def test_sharpness_is_comparable_between_dtypes_and_falls_with_blur():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (30, 30)).astype("uint8")
    blurred = sharp[:-1, :-1] / 4 + sharp[1:, :-1] / 4 + sharp[:-1, 1:] / 4 + sharp[1:, 1:] / 4
    sample = Sample(
        {
            "u8": PngImageItem(sharp),
            "u16": PngImageItem(sharp.astype("uint16") * 257),
            "f32": TiffImageItem(sharp.astype("float32") / 255),
            "blurred": PngImageItem(blurred.astype("uint8")),
        }
    )
    figures = StageMeasureImages()(sample)["measures"]()
    assert figures["u16"]["sharpness"] == pytest.approx(figures["u8"]["sharpness"], rel=1e-6)
    assert figures["f32"]["sharpness"] == pytest.approx(figures["u8"]["sharpness"], rel=1e-4)
    assert figures["blurred"]["sharpness"] < figures["u8"]["sharpness"] / 3


def test_nan_does_not_count_and_alpha_neither():
    nan = np.array([[np.nan, 0.25], [0.75, np.inf]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = StageMeasureImages()(
            Sample(
                {
                    "nan": TiffImageItem(nan),
                    "all": TiffImageItem(np.full((5, 5), np.nan)),
                    "rgba": PngImageItem(np.full((2, 2, 4), (9, 9, 9, 0), "uint8")),
                }
            )
        )["measures"]()
    assert (figures["nan"]["mean"], figures["nan"]["std"]) == (0.5, 0.25)
    assert (figures["all"]["mean"], figures["all"]["std"]) == (None, None)
    assert (figures["rgba"]["mean"], figures["rgba"]["channels"]) == (9, 4)


def test_figures_are_written_to_yaml_or_what_is_there_and_read_back(sample, tmp_path):
    measured = StageMeasureImages()(sample)
    measured["measures"].serialize(tmp_path / "measures.yaml")
    again = measured.set_item("measures", Item.get_instance(tmp_path / "measures.yaml"))
    assert StageMeasureImages()(again) is again  # nothing new to write
    as_json = sample.set_item("measures", JsonMetadataItem({"old": 1}))
    assert isinstance(StageMeasureImages()(as_json)["measures"], JsonMetadataItem)
    with pytest.raises(SampleError, match="output_key"):
        StageMeasureImages(output_key="rgb")(sample)


BLANK = np.full((6, 6, 3), (200, 0, 0), dtype="uint8")


def test_blank_images_are_dropped_whatever_their_colour():
    drop = StageDropBlankImages()
    assert drop(Sample({"i": PngImageItem(BLANK)})) is REMOVE
    assert drop(Sample({"i": TiffImageItem(np.full((4, 4), np.nan, "float32"))})) is REMOVE
    kept = Sample({"i": PngImageItem(ramp(6, 6, 3))})
    assert drop(kept) is kept


def test_the_threshold_is_a_share_of_the_range():
    noise = np.random.default_rng(0).normal(0.5, 0.02, (50, 50))
    for image in (noise, (noise * 65535).astype("uint16"), (noise * 255).astype("uint8")):
        sample = Sample({"i": TiffImageItem(image)})
        assert StageDropBlankImages(threshold=0.015)(sample) is sample
        assert StageDropBlankImages(threshold=0.03)(sample) is REMOVE


def test_all_or_any_of_the_images():
    sample = Sample({"a": PngImageItem(BLANK), "b": PngImageItem(ramp(6, 6))})
    assert StageDropBlankImages()(sample) is sample
    assert StageDropBlankImages(drop_if="any")(sample) is REMOVE
    assert StageDropBlankImages(images=["a"])(sample) is REMOVE
    none = Sample({"m": YamlMetadataItem({})})
    assert StageDropBlankImages()(none) is none


# -- verify ----------------------------------------------------------------------------------


def test_a_whole_sample_passes_untouched(sample):
    assert StageVerifyItems()(sample) is sample


def test_every_broken_file_is_named(sample, tmp_path):
    (tmp_path / "rgb.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:-20])
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "gray.png").read_bytes())
    (tmp_path / "meta.yml").write_text("a: [1, 2")
    with pytest.raises(DecodeError) as failure:
        StageVerifyItems()(sample)
    message = str(failure.value)
    for name in ("rgb.png", "photo.jpg", "meta.yml"):
        assert str(tmp_path / name) in message
    assert "gray.png" not in message
    assert StageVerifyItems(key_list=["gray", "points"])(sample) is sample


def test_a_file_broken_after_its_value_was_cached_is_found(sample, tmp_path):
    sample["gray"].cache_data = True
    sample["gray"]()
    (tmp_path / "gray.png").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"gray\.png"):
        StageVerifyItems()(sample)


def test_unknown_files_pass_unless_told_otherwise(tmp_path):
    (tmp_path / "notes.xyz").write_text("?")
    sample = Sample({"notes": Item.get_instance(tmp_path / "notes.xyz")})
    assert StageVerifyItems()(sample) is sample
    with pytest.raises(DecodeError, match=r"notes\.xyz"):
        StageVerifyItems(allow_unknown=False)(sample)


def test_pickles_are_not_run_by_verifying(tmp_path):
    PickleItem({"a": 1}).serialize(tmp_path / "thing.pkl")
    sample = Sample({"thing": Item.get_instance(tmp_path / "thing.pkl")})
    with pytest.raises(DecodeError, match=r"thing\.pkl"):
        StageVerifyItems()(sample)
    allowed = Sample({"thing": Item.get_instance(tmp_path / "thing.pkl", allow_pickle=True)})
    assert StageVerifyItems()(allowed) is allowed


def test_booleans_of_gray_are_of_the_weighed_channels():
    image = np.full((2, 2, 3), (100, 130, 100), np.uint8)  # of luma 118
    stage = StageConvertImage(dtype="bool", channels="gray")
    assert not stage(Sample({"image": PngImageItem(image)}))["image"]().any()


def test_autocontrast_of_floats_ends_at_the_ends_of_the_range():
    image = np.array([[0.0, 1.0, np.inf, -np.inf]], np.float32)
    made = StageAutocontrast()(Sample({"image": TiffImageItem(image)}))["image"]()
    assert made.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("stage", [StageDropBlankImages(), StageMeasureImages(), StageInvert()])
def test_a_jpeg_of_inks_is_not_taken_for_one_with_alpha(tmp_path, stage):
    PIL.Image.new("CMYK", (16, 16)).save(tmp_path / "ink.jpg")
    with pytest.raises(SampleError, match=r"ink\.jpg.*CMYK"):
        stage(Sample({"image": JpegImageItem(tmp_path / "ink.jpg")}))
