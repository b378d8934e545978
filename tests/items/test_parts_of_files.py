"""Items whose content is a part of a file: they are read, kept and written as those of files."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream import SamplesSequence
from prefect_pipestream.errors import DecodeError
from prefect_pipestream.exporting import export
from prefect_pipestream.items import (
    ImageItem,
    Item,
    JpegImageItem,
    PngImageItem,
    item_disabled_serialization_modes,
)
from prefect_pipestream.storage.file_part import Container, PartOfFile


def jpeg(number: int = 0) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def shard(path: Path, *contents: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> SamplesSequence:
    return SamplesSequence.from_webdataset(shard(tmp_path / "a.tar", jpeg(0), jpeg(1)))


@pytest.mark.parametrize("mode", ["HARD_LINK", "SYM_LINK", "DEEP_COPY"])
def test_a_part_is_copied_as_it_is_where_a_file_would_be_linked(samples, tmp_path, mode):
    item = samples[1]["image"]
    item.serialization_mode = mode
    item.serialize(tmp_path / "x.jpg")
    assert (tmp_path / "x.jpg").read_bytes() == jpeg(1)
    assert not (tmp_path / "x.jpg").is_symlink()


def test_a_part_is_encoded_where_copies_are_switched_off(samples, tmp_path):
    with item_disabled_serialization_modes("DEEP_COPY", ImageItem):
        samples[1]["image"].serialize(tmp_path / "x.jpg")
    assert (tmp_path / "x.jpg").read_bytes() != jpeg(1)
    assert Image.open(tmp_path / "x.jpg").getexif()[0x010F] == "a camera"


def test_a_part_in_another_format_is_encoded(samples, tmp_path):
    image = samples[1]["image"]
    PngImageItem(image).serialize(tmp_path / "x.png")
    assert np.array_equal(Item.get_instance(tmp_path / "x.png")(), image())


def test_what_is_made_of_a_part_keeps_what_it_has_beside_its_pixels(samples, tmp_path):
    dark = samples[0].set_value("image", samples[0]["image"]() // 2)
    SamplesSequence.from_list([dark]).to_underfolder(tmp_path / "dataset").run()
    (written,) = map(Image.open, (tmp_path / "dataset/data").glob("0_image.jp*g"))
    assert written.getexif()[0x010F] == "a camera"


def test_nothing_is_read_of_a_part_before_it_is_asked_for(tmp_path):
    asked = []
    path = shard(tmp_path / "a.tar", jpeg())

    def read() -> bytes:
        asked.append(1)
        return jpeg()

    source = PartOfFile(f"{path}/0.jpg", Container.at(str(path)), read)
    item = Item.from_source(source)
    assert isinstance(item, JpegImageItem)
    source.look()
    assert source.digest is None
    assert item.extension_in_use() == ".jpg"
    assert not asked
    assert source.version.size == len(jpeg())
    assert source.version.digest == source.digest
    assert len(asked) == 1


def test_a_part_is_changed_where_its_file_is(samples, tmp_path):
    sample = samples[0]
    sample["image"]()
    source = sample["image"].file_sources[0]
    assert source.is_current()
    assert not source.is_changed()
    shard(tmp_path / "a.tar", jpeg(2), jpeg(1))
    assert not source.is_current()
    assert source.is_changed()
    (tmp_path / "a.tar").unlink()
    assert not source.is_there()
    assert source.is_changed()


def test_a_part_that_changed_is_not_written(samples, tmp_path):
    sample = samples[0]
    shard(tmp_path / "a.tar", jpeg(2), jpeg(1))
    with pytest.raises(DecodeError, match=r"a\.tar/0\.jpg: .* was changed since it was opened"):
        sample["image"].serialize(tmp_path / "x.jpg")
    assert not (tmp_path / "x.jpg").exists()


def test_parts_are_exported_as_files(samples, tmp_path):
    export(samples, "images", tmp_path / "folder", link=True)
    assert (tmp_path / "folder/a/1.jpg").read_bytes() == jpeg(1)


def test_samples_of_parts_are_written_by_workers(samples, tmp_path):
    samples.to_underfolder(tmp_path / "dataset").run(num_workers=2)
    assert (tmp_path / "dataset/data/1_image.jpg").read_bytes() == jpeg(1)
