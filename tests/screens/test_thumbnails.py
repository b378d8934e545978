"""Thumbnails of items, and what is kept of them in bounded space."""

import io
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream import DataStream, DecodeError, Thumbnails, thumbnail
from prefect_pipestream.items import (
    BinaryItem,
    GLBModel3DItem,
    Item,
    JpegImageItem,
    NpyNumpyItem,
    PickleItem,
    PLYModel3DItem,
    PngImageItem,
    STLModel3DItem,
    TiffImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.storage.bounded_files import BoundedFiles
from prefect_pipestream.underfolder import check
from prefect_pipestream.views import Thumbnail

from .read_only import read_only


def opened(found: Thumbnail | None) -> Image.Image:
    assert found is not None
    picture = Image.open(io.BytesIO(found.content))
    assert found.media_type == f"image/{str(picture.format).lower()}"
    return picture


def gradient(height: int, width: int) -> Any:
    return np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)


@pytest.mark.parametrize(
    ("item", "size"),
    [
        (PngImageItem(gradient(30, 60)), (100, 50)),
        (JpegImageItem(gradient(900, 300)), (33, 100)),
        (PngImageItem(np.full((4, 8, 4), 90, np.uint8)), (100, 50)),
        (PngImageItem(np.full((4, 8), 60_000, np.uint16)), (100, 50)),
        (TiffImageItem(np.full((5, 20, 40), 0.5, np.float32)), (100, 50)),
        (NpyNumpyItem(np.full((2, 1), np.nan)), (50, 100)),
        (NpyNumpyItem(np.ones((2, 3, 4, 5, 6), complex)), None),
        (NpyNumpyItem(np.ones((3, 4, 5, 3), np.int64)), (100, 80)),
        (NpyNumpyItem(np.array([1.0, -np.inf, np.nan, 3])), (100, 50)),
        (TxtNumpyItem(np.array([5])), None),
        (NpyNumpyItem(np.array(["a", "b"])), None),
        (NpyNumpyItem(np.empty((0, 4))), None),
        (YamlMetadataItem({"a": 1}), None),
        (BinaryItem(b"x"), None),
        (PickleItem(np.ones((3, 3))), None),
    ],
)
def test_what_can_be_seen_has_a_small_picture(
    item: Item[Any], size: tuple[int, int] | None
) -> None:
    found = thumbnail(item, 100)
    if size is None:
        assert found is None
    else:
        assert opened(found).size == size


def test_the_labels_of_a_mask_can_be_told_apart() -> None:
    mask = np.repeat(np.arange(8, dtype=np.uint8), 8).reshape(8, 8)
    picture = np.asarray(opened(thumbnail(PngImageItem(mask), 8)).convert("RGB"))
    colours = {tuple(row) for row in picture[:, 0].tolist()}
    assert len(colours) == 8
    assert (0, 0, 0) in colours
    black_and_white = PngImageItem(mask // 4 * 255)
    picture = np.asarray(opened(thumbnail(black_and_white, 8)).convert("RGB"))
    assert set(picture.ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("side", [0, -1, 1025])
def test_the_size_of_a_thumbnail_is_bounded(side: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1024"):
        thumbnail(PngImageItem(gradient(3, 3)), side)


# -- kept ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images that nobody is writing just now."""
    for idx in range(3):
        path = tmp_path / f"set/data/{idx}_image.png"
        PngImageItem(gradient(20, 20) + np.uint8(idx)).serialize(path)
        os.utime(path, (1_600_000_000, 1_600_000_000 + idx))
    return tmp_path / "set"


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(".pipestream/thumbnails/*/*"))


def spoil(path: Path) -> None:
    """Makes a file undecodable, unnoticed: whoever reads it fails."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_thumbnail_that_is_kept_is_not_made_again(folder: Path) -> None:
    stream = DataStream.read_write_underfolder(folder)
    first = Thumbnails(folder).of(stream[0]["image"], 50)
    assert first == thumbnail(stream[0]["image"], 50)
    spoil(folder / "data/0_image.png")
    assert Thumbnails(folder).of(stream[0]["image"], 50) == first
    with pytest.raises(DecodeError):
        Thumbnails(folder).of(stream[0]["image"], 51)
    shutil.rmtree(folder / ".pipestream/thumbnails")
    with pytest.raises(DecodeError):
        Thumbnails(folder).of(stream[0]["image"], 50)
    assert not kept(folder)


def test_what_changed_is_shown_anew(folder: Path) -> None:
    stream, pictures = DataStream.read_write_underfolder(folder), Thumbnails(folder)
    sample = stream[1]
    before = pictures.of(sample["image"])
    for bright in range(5):  # also within the clock's tick, and in place
        path = folder / "data/1_image.png"
        PngImageItem(np.full((20, 20, 3), 100 + bright, np.uint8)).serialize(path)
        found = opened(pictures.of(sample["image"])).convert("RGB").getpixel((9, 9))
        assert found == (100 + bright,) * 3
    stream.set_output(1, stream[1].set_value("image", gradient(20, 20) + np.uint8(1)))
    assert opened(pictures.of(stream[1]["image"])).tobytes() == opened(before).tobytes()


def test_an_item_that_was_not_saved_is_shown_as_it_is(folder: Path) -> None:
    sample = DataStream.read_write_underfolder(folder)[0]
    changed = sample.set_value("image", np.full((4, 4), 200, np.uint8))
    found = Thumbnails(folder).of(changed["image"])
    assert opened(found).convert("L").getpixel((0, 0)) == 200
    assert not kept(folder)


def test_a_file_that_is_gone_or_broken_says_so(folder: Path) -> None:
    item = DataStream.read_write_underfolder(folder)[2]["image"]
    (folder / "data/2_image.png").write_bytes(b"no image")
    with pytest.raises(DecodeError, match="2_image"):
        Thumbnails(folder).of(item)
    (folder / "data/2_image.png").unlink()
    with pytest.raises(DecodeError, match="no such file"):
        Thumbnails(folder).of(item)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parents[4] / "precious")


def as_large_picture(path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(path, "PNG")


SPOILT: list[Callable[[Path], object]] = [
    as_folder,
    as_pipe,
    as_link,
    as_large_picture,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"<script>alert(1)</script>"),
    lambda path: path.write_bytes(path.read_bytes()[:20]),
    lambda path: os.truncate(path, 1 << 40),
]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_strangers_file_among_them_does_no_harm(
    folder: Path, spoilt: Callable[[Path], object]
) -> None:
    precious = folder.parent / "precious"
    precious.write_text("mine")
    item = DataStream.read_write_underfolder(folder)[0]["image"]
    expected = Thumbnails(folder).of(item)
    (path,) = kept(folder)
    spoilt(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Thumbnails(folder).of(item) == expected
    assert precious.read_text() == "mine"
    check(folder, fix=True)
    assert Thumbnails(folder).of(item) == expected
    assert not check(folder).problems


@pytest.mark.parametrize("place", [".pipestream", ".pipestream/thumbnails"])
def test_a_link_in_their_way_is_not_followed(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPESTREAM_CACHE", str(folder.parent / "cache"))
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).symlink_to(outside)
    item = Item.get_instance(folder / "data/0_image.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Thumbnails(folder).of(item) == thumbnail(item)
    assert not list(outside.iterdir())


def test_what_is_no_thumbnail_is_found_by_a_check(folder: Path) -> None:
    DataStream.read_write_underfolder(folder).set_output(
        0, DataStream.read_write_underfolder(folder)[1]
    )
    Thumbnails(folder).of(Item.get_instance(folder / "data/2_image.png"))
    assert not check(folder).problems
    (path,) = kept(folder)
    path.write_bytes(b"<html>")
    (problem,) = check(folder, fix=True).problems
    assert "no thumbnail" in problem.message
    assert problem.mended
    assert not kept(folder)


def test_of_a_dataset_that_cannot_be_written_they_are_in_a_cache_folder(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPESTREAM_CACHE", str(tmp_path / "cache"))
    with read_only(folder), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Thumbnails(folder).of(Item.get_instance(folder / "data/0_image.png"))
    (path,) = tmp_path.glob("cache/*/.pipestream/thumbnails/*/*")
    assert found is not None
    assert path.read_bytes() == found.content
    assert not (folder / ".pipestream").exists()


# -- bounded -------------------------------------------------------------------------------

SHARE = 3 * 4096  # of each of 256 folders


def taken(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            blocks = max(1, -(-path.stat().st_size // 4096))
            found[path.parent.name] = found.get(path.parent.name, 0) + blocks * 4096
    return found


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3 * 4096 + 10)), max_size=60),
    st.booleans(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_kept_never_takes_more_than_it_may(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, int]], is_shared: bool
) -> None:
    folder = tmp_path_factory.mktemp("bounded")
    files = [BoundedFiles(str(folder), "kept", most_bytes=SHARE * 256) for _ in range(2)]
    for number, (key, size) in enumerate(puts):
        content = bytes([number]) * size
        files[number % 2 if is_shared else 0].put(str(key), content)
        assert files[0].get(str(key)) == (content if size <= SHARE else files[1].get(str(key)))
        assert all(size <= SHARE for size in taken(folder).values())
    shutil.rmtree(folder)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    files = BoundedFiles(str(tmp_path), "kept", most_bytes=SHARE * 256)
    for key in range(3000):
        files.put(str(key), b"x")
    left = {key for key in range(3000) if files.get(str(key)) is not None}
    assert 256 <= len(left) <= 3 * 256
    assert len({key for key in left if key >= 2500}) > len({key for key in left if key < 500})


PUTTING = """
import sys
from prefect_pipestream.storage.bounded_files import BoundedFiles
files = BoundedFiles(sys.argv[1], "kept", most_bytes=256 * 3 * 4096)
for key in range(1500):
    try:
        files.put(str(key % 700), bytes(100))
    except FileNotFoundError:
        pass  # another one made room
"""


def test_processes_keep_the_bound_together(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", PUTTING, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert all(size <= SHARE for size in taken(tmp_path).values())


def test_a_mesh_is_seen_from_one_side(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((2, 1, 1))
    found = thumbnail(STLModel3DItem(box), 64)
    assert found is not None
    picture = np.asarray(Image.open(io.BytesIO(found.content)))
    assert picture.shape == (64, 64, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4  # three faces, and what is behind
    scene = trimesh.Scene([box, trimesh.creation.icosphere()])
    assert thumbnail(GLBModel3DItem(scene), 64) is not None
    assert thumbnail(PLYModel3DItem(trimesh.PointCloud(np.eye(3))), 64) is None
    broken = trimesh.Trimesh(
        [[0, 0, 0], [np.nan, 0, 1], [0, np.inf, 0]], [[0, 1, 2]], process=False
    )
    assert thumbnail(STLModel3DItem(broken), 64) is None
