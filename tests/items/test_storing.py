import errno
import os
import pickle
import resource
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import DatasetWriteError, DecodeError, EncodeError
from prefect_pipestream.items import (
    BinaryItem,
    ImageItem,
    Item,
    JpegImageItem,
    JsonMetadataItem,
    NumpyItem,
    PngImageItem,
    SerializationMode,
    TxtNumpyItem,
    UnknownItem,
    item_disabled_serialization_modes,
    item_serialization_mode,
    set_item_disabled_serialization_modes,
    set_item_serialization_mode,
)
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.version import Version

IMAGE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    PngImageItem(IMAGE).serialize(tmp_path / "image.png")
    return tmp_path / "image.png"


def how_stored(path: Path, original: Path) -> str:
    if path.is_symlink():
        return "SYM_LINK"
    if path.samefile(original):
        return "HARD_LINK"
    return "OTHER_FILE"


def test_modes_are_ordered_and_named() -> None:
    modes = list(SerializationMode)
    assert modes == sorted(modes)
    assert [mode.name for mode in modes] == [
        "CREATE_NEW_FILE",
        "DEEP_COPY",
        "SYM_LINK",
        "HARD_LINK",
    ]
    with pytest.raises(ValueError, match="'SOFT_LINK'; choose one of CREATE_NEW_FILE"):
        SerializationMode.of("SOFT_LINK")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, "HARD_LINK"),
        ("HARD_LINK", "HARD_LINK"),
        ("sym_link", "SYM_LINK"),
        (SerializationMode.DEEP_COPY, "OTHER_FILE"),
        ("CREATE_NEW_FILE", "OTHER_FILE"),
    ],
)
def test_item_is_stored_by_its_mode(png: Path, tmp_path: Path, mode, expected: str) -> None:
    item = Item.get_instance(png)
    item.serialization_mode = mode
    item.serialize(tmp_path / "sub" / "copy.png")
    assert how_stored(tmp_path / "sub" / "copy.png", png) == expected
    assert np.array_equal(Item.get_instance(tmp_path / "sub" / "copy.png")(), IMAGE)
    assert item.local_sources == (png, tmp_path / "sub" / "copy.png")


def test_copy_and_link_keep_even_content_that_does_not_decode(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    (tmp_path / "b.zzz").write_bytes(b"unknown")
    for mode in ("HARD_LINK", "DEEP_COPY"):
        for name in ("a.png", "b.zzz"):
            item = Item.get_instance(tmp_path / name)
            item.serialization_mode = mode
            stored = item.store(str(tmp_path / f"{mode}{name}"))
            assert Path(stored.path).read_bytes() == (tmp_path / name).read_bytes()
            assert stored.version is not None
            assert stored.version.is_of(os.stat(stored.path))


def test_unknown_item_is_copied_where_a_new_file_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "b.zzz").write_bytes(b"unknown")
    with item_serialization_mode("CREATE_NEW_FILE"):
        item = Item.get_instance(tmp_path / "b.zzz")
        item.serialize(tmp_path / "c")
    assert type(item) is UnknownItem
    assert (tmp_path / "c.zzz").read_bytes() == b"unknown"
    assert (tmp_path / "c.zzz").stat().st_nlink == 1
    with pytest.raises(EncodeError, match="no encoder"):
        UnknownItem(5).store(str(tmp_path / "d.zzz"))


def test_mode_is_own_else_lowest_of_class_and_bases() -> None:
    item = PngImageItem(IMAGE)
    assert item.serialization_mode is SerializationMode.HARD_LINK
    with item_serialization_mode("DEEP_COPY", ImageItem):
        assert item.serialization_mode is SerializationMode.DEEP_COPY
        with item_serialization_mode("HARD_LINK", PngImageItem):
            assert item.serialization_mode is SerializationMode.DEEP_COPY
        with item_serialization_mode("HARD_LINK", ImageItem):
            assert item.serialization_mode is SerializationMode.HARD_LINK
        assert JsonMetadataItem({}).serialization_mode is SerializationMode.HARD_LINK
        item.serialization_mode = "SYM_LINK"
        assert item.serialization_mode is SerializationMode.SYM_LINK
        item.serialization_mode = None
        assert item.serialization_mode is SerializationMode.DEEP_COPY


def test_disabled_mode_gives_way_to_the_next_lower() -> None:
    item = PngImageItem(IMAGE)
    with item_disabled_serialization_modes("HARD_LINK"):
        assert item.serialization_mode is SerializationMode.SYM_LINK
        with item_disabled_serialization_modes(["SYM_LINK", "DEEP_COPY"], NumpyItem):
            assert item.serialization_mode is SerializationMode.CREATE_NEW_FILE
            assert JsonMetadataItem({}).serialization_mode is SerializationMode.SYM_LINK


def test_modes_can_be_set_for_the_process_and_in_a_decorator() -> None:
    @item_serialization_mode("DEEP_COPY")
    def inside() -> SerializationMode:
        return item.serialization_mode

    item = PngImageItem(IMAGE)
    seen: list[SerializationMode] = []
    set_item_serialization_mode("SYM_LINK", PngImageItem)
    set_item_disabled_serialization_modes(["SYM_LINK"], PngImageItem)
    try:
        thread = threading.Thread(target=lambda: seen.append(item.serialization_mode))
        thread.start()
        thread.join()
        assert inside() is SerializationMode.DEEP_COPY
    finally:
        set_item_disabled_serialization_modes([], PngImageItem)
        set_item_serialization_mode("HARD_LINK", PngImageItem)
    assert seen == [SerializationMode.DEEP_COPY]
    assert item.serialization_mode is SerializationMode.HARD_LINK


def test_item_that_may_not_be_written_at_all_says_so(tmp_path: Path) -> None:
    with (
        item_disabled_serialization_modes(list(SerializationMode)),
        pytest.raises(EncodeError, match="CREATE_NEW_FILE is disabled"),
    ):
        PngImageItem(IMAGE).store(str(tmp_path / "a.png"))


def test_link_falls_back_to_copy_on_another_file_system(png: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == png.stat().st_dev:
        pytest.skip("no second file system here")
    target = shm / f"pipestream-test-{os.getpid()}.png"
    try:
        stored = Item.get_instance(png).store(str(target))
        assert target.read_bytes() == png.read_bytes()
        assert stored.version is not None
        assert stored.version.is_of(target.stat())
    finally:
        target.unlink(missing_ok=True)


def test_hard_link_of_a_symbolic_link_is_one_of_its_target(png: Path, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("image.png")  # relative: would break elsewhere
    (tmp_path / "sub").mkdir()
    for mode in ("HARD_LINK", "SYM_LINK"):
        item = Item.get_instance(tmp_path / "link.png")
        item.serialization_mode = mode
        item.store(str(tmp_path / "sub" / f"{mode}.png"))
        assert np.array_equal(Item.get_instance(tmp_path / "sub" / f"{mode}.png")(), IMAGE)
    assert not (tmp_path / "sub" / "HARD_LINK.png").is_symlink()


def test_serialize_replaces_the_name_and_leaves_other_links_alone(tmp_path: Path) -> None:
    BinaryItem(b"old").serialize(tmp_path / "a.bin")
    os.link(tmp_path / "a.bin", tmp_path / "shared.bin")
    BinaryItem(b"new").serialize(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert (tmp_path / "shared.bin").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "shared.bin"]


def test_serialize_over_a_hard_link_of_the_same_file_leaves_no_stray(tmp_path: Path) -> None:
    BinaryItem(b"old").serialize(tmp_path / "a.bin")
    os.link(tmp_path / "a.bin", tmp_path / "b.bin")
    Item.get_instance(tmp_path / "a.bin").serialize(tmp_path / "b.bin")
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b.bin"]


def test_serialize_refuses_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    item = JsonMetadataItem({"a": 1})
    with pytest.raises(DatasetWriteError, match=r"0_a\.json: .*set_output"):
        item.serialize("memory://bucket/0_a.json")
    assert not list(tmp_path.iterdir())


def test_serialize_gives_a_foreign_extension_the_default_one(tmp_path: Path) -> None:
    item = JpegImageItem(IMAGE)
    item.serialize(tmp_path / "a", tmp_path / "b.jpg", tmp_path / "c.png")
    assert sorted(os.listdir(tmp_path)) == ["a.jpeg", "b.jpg", "c.jpeg"]
    assert len(item.local_sources) == 3
    assert (tmp_path / "a.jpeg").samefile(tmp_path / "c.jpeg")


def test_value_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    for item in (
        PngImageItem(np.zeros((3, 3))),
        JsonMetadataItem({"a": object()}),
        PngImageItem(),
    ):
        with pytest.raises(EncodeError):
            item.serialize(tmp_path / "sub" / "a")
        with pytest.raises(EncodeError):
            item.store(str(tmp_path / "a.png"))
    assert not [*tmp_path.glob("*.*"), *(tmp_path / "sub").glob("*")]


def test_encode_error_tells_value_and_way_out() -> None:
    with pytest.raises(EncodeError, match=r"float64 with shape \(3, 3\).*uint8 H×W×3.*Tiff"):
        PngImageItem(np.zeros((3, 3))).store("/nowhere/a.png")


def test_store_makes_a_file_of_the_path_extension(png: Path, tmp_path: Path) -> None:
    stored = Item.get_instance(png).store(str(tmp_path / "a.jpg"))
    assert Path(stored.path).read_bytes()[:2] == b"\xff\xd8"
    # A staged name without a known extension takes the item's own format.
    staged = Item.get_instance(png).store(str(tmp_path / "staged-0"))
    assert Path(staged.path).samefile(png)
    staged = PngImageItem(IMAGE).store(str(tmp_path / "staged-1"))
    assert Path(staged.path).read_bytes() == png.read_bytes()


def test_store_refuses_an_existing_path(png: Path, tmp_path: Path) -> None:
    before = png.read_bytes()
    copying = Item.get_instance(png)
    copying.serialization_mode = "DEEP_COPY"
    (tmp_path / "b.png").write_bytes(b"other")
    for item in (PngImageItem(IMAGE + 1), Item.get_instance(png), copying):
        for path in (tmp_path / "b.png", png):
            with pytest.raises(DatasetWriteError, match=f"{path}.*File exists"):
                item.store(str(path))
    assert png.read_bytes() == before
    assert (tmp_path / "b.png").read_bytes() == b"other"


def test_store_adds_no_source_and_tells_stamp_and_digest(tmp_path: Path) -> None:
    item = BinaryItem(b"abc")
    first = item.store(str(tmp_path / "a.bin"))
    second = item.store(str(tmp_path / "b.bin"))
    assert item.file_sources == ()
    assert first.version is not None
    assert first.version.is_of((tmp_path / "a.bin").stat())
    assert first.digest == second.digest
    assert first.is_current()


def test_files_written_one_after_the_other_have_different_times(tmp_path: Path) -> None:
    versions = {BinaryItem(b"abc").store(str(tmp_path / f"{i}.bin")).version for i in range(50)}
    assert len({one.mtime_ns for one in versions if one}) == 50


def test_value_is_linked_only_to_a_file_that_still_holds_it(tmp_path: Path) -> None:
    item = BinaryItem(b"mine")
    item.serialize(tmp_path / "a.bin")
    item.serialize(tmp_path / "b.bin")
    assert (tmp_path / "a.bin").samefile(tmp_path / "b.bin")
    BinaryItem(b"else").serialize(tmp_path / "a.bin")
    (tmp_path / "b.bin").unlink()
    item.serialize(tmp_path / "c.bin")
    assert (tmp_path / "c.bin").read_bytes() == b"mine"
    # Without a value of its own, the file is the truth.
    Item.get_instance(tmp_path / "a.bin").serialize(tmp_path / "d.bin")
    assert (tmp_path / "d.bin").read_bytes() == b"else"


def test_is_stored_at_tells_what_needs_no_write(png: Path, tmp_path: Path) -> None:
    taken = Item.get_instance(png)
    assert taken.is_stored_at(str(png))
    assert not taken.is_stored_at(str(tmp_path / "other.png"))
    changed = taken.make_new(IMAGE + 1)
    assert not changed.is_stored_at(str(png))
    changed.serialize(png)
    assert changed.is_stored_at(str(png))
    PngImageItem(IMAGE).serialize(png)
    assert not changed.is_stored_at(str(png))
    with item_serialization_mode("CREATE_NEW_FILE"):
        assert not taken.is_stored_at(str(png))


def test_encoder_options_make_the_item_encode_anew(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    item = JpegImageItem(noise)
    item.serialize(tmp_path / "default.jpg")
    better = Item.get_instance(tmp_path / "default.jpg").with_options(quality=95)
    assert not better.is_stored_at(str(tmp_path / "default.jpg"))
    better.serialize(tmp_path / "better.jpg")
    sizes = [(tmp_path / f"{n}.jpg").stat().st_size for n in ("default", "better")]
    assert sizes[1] > 1.5 * sizes[0]
    anew = Item.get_instance(tmp_path / "default.jpg").with_options()
    assert not Path(anew.store(str(tmp_path / "anew.jpg")).path).samefile(tmp_path / "default.jpg")
    assert np.array_equal(
        Item.get_instance(tmp_path / "default.jpg")(), JpegImageItem(tmp_path / "default.jpg")()
    )


def test_missing_source_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"gone\.png: there is no such file"):
        Item.get_instance(tmp_path / "gone.png").store(str(tmp_path / "a.png"))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DecodeError, match=r"folder\.png: is a directory, a file was"):
        Item.get_instance(tmp_path / "folder.png").store(str(tmp_path / "a.png"))
    assert not (tmp_path / "a.png").exists()


def test_a_source_that_is_gone_gives_way_to_the_next(png: Path, tmp_path: Path) -> None:
    item = PngImageItem(png)
    item.serialize(tmp_path / "second.png")
    png.unlink()
    assert np.array_equal(item(), IMAGE)
    item.serialize(tmp_path / "third.png")
    assert np.array_equal(Item.get_instance(tmp_path / "third.png")(), IMAGE)


def test_folder_that_cannot_be_written_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "a.bin", tmp_path / "file" / "sub" / "a.bin"):
        with pytest.raises(DatasetWriteError, match=r"a\.bin.*cannot be written") as caught:
            BinaryItem(b"abc").serialize(path)
        assert caught.value.errno is not None
    with pytest.raises(DatasetWriteError, match="No such file or directory"):
        BinaryItem(b"abc").store(str(tmp_path / "missing" / "a.bin"))


def test_write_error_from_another_process_tells_what_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(DatasetWriteError) as caught:
        BinaryItem(b"abc").store(str(tmp_path / ("long" * 100 + ".bin")))

    same = pickle.loads(pickle.dumps(caught.value))

    assert same.errno == errno.ENAMETOOLONG
    assert str(same) == str(caught.value)
    assert str(same).startswith(str(tmp_path))


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source.bin").write_bytes(bytes(100_000))
    copying = Item.get_instance(tmp_path / "source.bin")
    copying.serialization_mode = "DEEP_COPY"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit of the size of files fails a write half way, as a full disk does; Python ignores
    # the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        for item in (BinaryItem(bytes(100_000)), copying):
            with pytest.raises(DatasetWriteError, match="File too large"):
                item.store(str(tmp_path / "a.bin"))
            with pytest.raises(DatasetWriteError, match="File too large"):
                item.serialize(tmp_path / "a.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["source.bin"]


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    BinaryItem(b"abc").serialize(tmp_path / "a.bin")
    usual = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == usual


def test_serialize_to_where_it_is_writes_nothing(tmp_path: Path) -> None:
    item = TxtNumpyItem([1, 2])
    item.serialize(tmp_path / "a.txt")
    before = Version.of((tmp_path / "a.txt").stat())
    item.serialize(tmp_path / "a.txt")
    assert before.is_of((tmp_path / "a.txt").stat())
    assert item.local_sources == (tmp_path / "a.txt",)


def test_content_read_lately_is_at_hand_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"first")
    source = FileSource(str(path))
    first = source.read()
    was = source.version
    assert source.content() is first
    path.write_bytes(b"second")
    assert source.content() == b"second"
    assert source.version is was  # by which a commit sees that another writer changed it
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.content()


def test_content_of_several_files_is_that_of_each(tmp_path: Path) -> None:
    sources = []
    for number in range(9):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]) * 50_000 * (1 + number % 2))
        sources.append(FileSource(str(path)))
        sources[-1].read()
    for number, source in enumerate(sources):
        assert source.content() == bytes([number]) * 50_000 * (1 + number % 2)
        assert pickle.loads(pickle.dumps(source)).content() == source.content()
