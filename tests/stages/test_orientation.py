"""Stages that turn pixels, on pictures whose files tell an orientation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pytest
import tifffile
from PIL import Image, ImageOps

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.items import JpegImageItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.stages import StageAlbumentations, StageRotateFlip, resolve_stage

from ..items.pictures import XMP, exif, jpeg, photograph, psnr

PHOTO = photograph(48, 64)


def png(orientation: int | None) -> bytes:
    stream = io.BytesIO()
    data = exif(orientation)[6:]
    Image.fromarray(PHOTO).save(stream, "PNG", exif=data)
    return stream.getvalue()


def tiff(orientation: int | None) -> bytes:
    tags = [] if orientation is None else [(274, "H", 1, orientation, False)]
    stream = io.BytesIO()
    tifffile.imwrite(stream, PHOTO, photometric="rgb", extratags=tags)
    return stream.getvalue()


def photo(orientation: int | None) -> bytes:
    data = exif(orientation, size=(64, 48))
    more = {} if orientation is None else {"xmp": XMP}  # which tells an orientation, too
    return jpeg(PHOTO, quality=98, subsampling=0, exif=data, **more)


def dataset(folder: Path, **files: bytes) -> DataStream:
    (folder / "data").mkdir(parents=True)
    for name, content in files.items():
        (folder / "data" / f"0_{name.replace('__', '.')}").write_bytes(content)
    return DataStream.read_write_underfolder(folder)


def seen(path: Path) -> "np.ndarray[Any, Any]":
    """The picture as viewers show it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize(("extension", "make"), [("jpg", photo), ("png", png), ("tif", tiff)])
def test_picture_is_turned_as_it_is_seen(
    tmp_path: Path, extension: str, make: Any, orientation: int | None
) -> None:
    stream = dataset(tmp_path, **{f"image__{extension}": make(orientation)})
    path = tmp_path / "data" / f"0_image.{extension}"
    before = seen(path)
    stream.set_output(0, StageRotateFlip(rotate=90, flip="vertical")(stream[0]))
    after = seen(path)
    assert psnr(after, np.rot90(before)[::-1]) > 35
    assert np.array_equal(stream[0]["image"](), after)  # its file tells that it is upright


@pytest.mark.parametrize("orientation", range(2, 9))
def test_of_a_turned_picture_only_what_told_how_it_lay_is_changed(
    tmp_path: Path, orientation: int
) -> None:
    stream = dataset(tmp_path, image__jpg=photo(orientation))
    stream.set_output(0, StageRotateFlip(rotate=0)(stream[0]))
    content = (tmp_path / "data" / "0_image.jpg").read_bytes()
    was, now = piexif.load(photo(orientation)), piexif.load(content)
    height, width = stream[0]["image"]().shape[:2]
    assert now["0th"].pop(piexif.ImageIFD.Orientation) == 1
    assert now["Exif"].pop(piexif.ExifIFD.PixelXDimension) == width
    assert now["Exif"].pop(piexif.ExifIFD.PixelYDimension) == height
    assert now["thumbnail"] is None  # it was not turned
    assert b'tiff:Orientation="1"' in content
    del was["0th"][piexif.ImageIFD.Orientation]
    del was["Exif"][piexif.ExifIFD.PixelXDimension], was["Exif"][piexif.ExifIFD.PixelYDimension]
    for part in ("0th", "Exif", "GPS", "Interop"):
        assert now[part] == was[part]


def test_picture_that_is_upright_is_not_encoded_for_turning_it_upright(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(1))
    stream.set_output(0, StageRotateFlip(rotate=0)(stream[0]))
    assert (tmp_path / "data" / "0_image.jpg").read_bytes() == photo(1)


def test_it_is_turned_upright_once(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(6))
    before = seen(tmp_path / "data" / "0_image.jpg")
    turn = StageRotateFlip(rotate=90)
    stream.set_output(0, resolve_stage([turn, turn, "invert", turn, turn])(stream[0]))
    assert psnr(seen(tmp_path / "data" / "0_image.jpg"), 255 - before) > 35


def test_fresh_item_lies_as_the_file_that_it_replaces(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(6))
    before = seen(tmp_path / "data" / "0_image.jpg")
    sample = stream[0].set_item("image", JpegImageItem(PHOTO))
    stream.set_output(0, StageRotateFlip(rotate=180)(sample))
    assert psnr(seen(tmp_path / "data" / "0_image.jpg"), np.rot90(before, 2)) > 35


def test_other_stages_keep_the_orientation(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(6))
    before = seen(tmp_path / "data" / "0_image.jpg")
    stream.set_output(0, resolve_stage(["invert"])(stream[0]))
    assert psnr(seen(tmp_path / "data" / "0_image.jpg"), 255 - before) > 35


def test_pictures_of_different_orientations_are_not_turned_together(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(6), mask__png=png(None))
    with pytest.raises(SampleError, match="different orientations") as caught:
        StageRotateFlip(rotate=90)(stream[0])
    assert "0_image.jpg): 6" in str(caught.value)
    assert "0_mask.png): 1" in str(caught.value)
    alone = StageRotateFlip(rotate=90, images="image")(stream[0])
    assert alone["image"]().shape == PHOTO.shape  # turned twice


def test_file_whose_orientation_cannot_be_read_is_named(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=b"\xff\xd8\xff\xe1 no more")
    with pytest.raises(SampleError, match=r"its orientation cannot be read from .*0_image.jpg"):
        StageRotateFlip(rotate=90)(stream[0])


def test_albumentations_that_move_pixels_turn_upright_first(tmp_path: Path) -> None:
    albumentations = pytest.importorskip("albumentations", reason="needs the extra")
    stream = dataset(tmp_path, image__jpg=photo(6), boxes__yaml=b"[[1, 2, 3, 4]]")
    before = seen(tmp_path / "data" / "0_image.jpg")
    keys = {"image": "image"}
    flip = albumentations.Compose([albumentations.HorizontalFlip(p=1.0)])
    flipped = StageAlbumentations(transform=flip, keys_to_targets=keys)(stream[0])
    both = StageAlbumentations(
        transform=albumentations.Compose(
            [albumentations.HorizontalFlip(p=1.0)],
            bbox_params=albumentations.BboxParams("pascal_voc", label_fields=[]),
        ),
        keys_to_targets={**keys, "boxes": "bboxes"},
    )
    with pytest.raises(SampleError, match="cannot transform 'boxes' together with images"):
        both(stream[0])
    stream.set_output(0, flipped)
    assert psnr(seen(tmp_path / "data" / "0_image.jpg"), before[:, ::-1]) > 35

    upright = dataset(tmp_path / "other", image__jpg=photo(6))
    brighter = albumentations.Compose([albumentations.InvertImg(p=1.0)])
    inverted = StageAlbumentations(transform=brighter, keys_to_targets=keys)(upright[0])
    upright.set_output(0, inverted)
    assert psnr(seen(tmp_path / "other" / "data" / "0_image.jpg"), 255 - before) > 35


# -- options -------------------------------------------------------------------------------


def test_encoder_options_are_for_items_that_change() -> None:
    stage = resolve_stage({"encoder-options": {"options": {"a": {"quality": 60}}}})
    changed = JpegImageItem(PHOTO)
    assert stage(Sample({"a": changed}))["a"].encoder_options == {"quality": 60}
    own = changed.with_options(quality=90, optimize=True)
    assert stage(Sample({"a": own}))["a"].encoder_options == {"quality": 90, "optimize": True}


def test_file_that_does_not_change_stays_whatever_the_options(tmp_path: Path) -> None:
    stream = dataset(tmp_path, image__jpg=photo(6))
    sample = stream[0]
    stage = resolve_stage({"encoder-options": {"options": {"image": {"metadata": "strip"}}}})
    assert stage(sample)["image"] is sample["image"]
    stream.set_output(0, resolve_stage(["invert", stage])(sample))
    with Image.open(tmp_path / "data" / "0_image.jpg") as image:
        assert not image.getexif()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            {"encoder-options": {"options": {"a": {"qualty": 9}}}},
            "'a': .*no encoder option 'qualty'",
        ),
        ({"encoder-options": {"options": {"a": {"quality": 0}}}}, "'quality' cannot be 0"),
        ({"encoder-options": {"options": {}}}, "at least 1 item"),
        ({"reencode": {"options": {"metadata": "drop"}}}, "'metadata' cannot be 'drop'"),
        (
            {"reencode": {"item_class": "JpegImageItem", "options": {"quality": 900}}},
            "'quality' cannot be 900",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(operation: Any, expected: str) -> None:
    with pytest.raises(PipeBuildingError, match=expected):
        resolve_stage(operation)


def test_options_of_another_class_name_the_item() -> None:
    stage = resolve_stage({"encoder-options": {"options": {"a": {"quality": 60}}}})
    with pytest.raises(SampleError, match="'a': PngImageItem has no encoder option 'quality'"):
        stage(Sample({"a": PngImageItem(PHOTO)}))
    with pytest.raises(SampleError, match="no item 'a'"):
        stage(Sample({"b": YamlMetadataItem({})}))


def test_a_turned_picture_has_no_thumbnail_of_before(tmp_path: Path) -> None:
    told = piexif.dump(
        {
            "0th": {piexif.ImageIFD.Make: b"a camera", piexif.ImageIFD.Orientation: 1},
            "1st": {piexif.ImageIFD.Compression: 6},
            "thumbnail": small_jpeg(),
        }
    )
    path = tmp_path / "set/data/0_image.jpg"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=told)
    stream = DataStream.read_write_underfolder(tmp_path / "set")

    stream.set_output(0, resolve_stage({"rotate-flip": {"rotate": 0}})(stream[0]))
    assert piexif.load(str(path))["thumbnail"] is not None  # nothing was turned
    stream.set_output(0, resolve_stage({"rotate-flip": {"rotate": 90}})(stream[0]))

    found = piexif.load(str(path))
    assert found["thumbnail"] is None
    assert found["0th"][piexif.ImageIFD.Make] == b"a camera"
    assert Image.open(path).size == (40, 60)


def small_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()
