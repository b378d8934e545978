import copy
import pickle
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items import (
    BinaryItem,
    BmpImageItem,
    FileSource,
    ImageItem,
    Item,
    JpegImageItem,
    JsonMetadataItem,
    MetadataItem,
    Model3DItem,
    NpyNumpyItem,
    NumpyItem,
    OBJModel3DItem,
    PickleItem,
    PngImageItem,
    TiffImageItem,
    TomlMetadataItem,
    TxtNumpyItem,
    UnknownItem,
    YamlMetadataItem,
    data_cache,
    disable_item_data_cache,
    enable_item_data_cache,
    no_data_cache,
)

IMAGE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    PngImageItem(IMAGE).serialize(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("a.png", PngImageItem),
        ("a.PNG", PngImageItem),
        ("a.tar.png", PngImageItem),
        ("a.jpg", JpegImageItem),
        ("a.jpeg", JpegImageItem),
        ("a.jfif", JpegImageItem),
        ("a.jpe", JpegImageItem),
        ("a.bmp", BmpImageItem),
        ("a.tif", TiffImageItem),
        ("a.tiff", TiffImageItem),
        ("a.npy", NpyNumpyItem),
        ("a.txt", TxtNumpyItem),
        ("a.json", JsonMetadataItem),
        ("a.yml", YamlMetadataItem),
        ("a.yaml", YamlMetadataItem),
        ("a.toml", TomlMetadataItem),
        ("a.tml", TomlMetadataItem),
        ("a.bin", BinaryItem),
        ("a.pkl", PickleItem),
        ("a.pickle", PickleItem),
        ("a.obj", OBJModel3DItem),
        ("a.xyz", UnknownItem),
        ("a", UnknownItem),
        ("folder.png/a", UnknownItem),
    ],
)
def test_class_is_told_by_the_extension(name: str, cls: type[Item]) -> None:
    assert type(Item.get_instance(f"/data/{name}")) is cls
    assert type(Item.get_instance(Path("/data") / name, shared_item=True)) is cls


def test_relative_path_becomes_absolute(png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(png.parent)
    item = Item.get_instance("image.png")
    assert item.local_sources == (png,)
    monkeypatch.chdir("/")
    assert np.array_equal(item(), IMAGE)


def test_item_without_source_is_none() -> None:
    item = PngImageItem()
    assert item() is None
    assert not item.has_value
    assert item.local_sources == ()


def test_value_path_stream_item_and_file_source_are_sources(png: Path) -> None:
    from_path = PngImageItem(png)
    with png.open("rb") as stream:
        from_stream = PngImageItem(stream)
    from_item = PngImageItem(from_path)
    from_source = PngImageItem(FileSource(str(png)))
    for item in (PngImageItem(IMAGE), from_path, from_stream, from_item, from_source):
        assert np.array_equal(item(), IMAGE)
    assert from_stream.has_value
    assert not from_path.has_value
    assert from_item.file_sources[0] is from_path.file_sources[0]


def test_item_of_another_class_is_decoded_as_what_its_file_is(tmp_path: Path) -> None:
    PngImageItem(IMAGE).serialize(tmp_path / "a")
    bmp = BmpImageItem(PngImageItem(tmp_path / "a.png"))
    bmp.serialize(tmp_path / "b")
    assert (tmp_path / "b.bmp").read_bytes()[:2] == b"BM"
    assert np.array_equal(BmpImageItem(tmp_path / "b.bmp")(), IMAGE)
    with pytest.raises(DecodeError, match=r"a\.png: is no TomlMetadataItem"):
        TomlMetadataItem(PngImageItem(tmp_path / "a.png"))()


def test_items_follow_their_shared_file_source(png: Path, tmp_path: Path) -> None:
    earlier = Item.get_instance(png)
    JsonMetadataItem({"moved": True}).serialize(tmp_path / "other")
    earlier.file_sources[0].path = str(tmp_path / "other.json")
    assert Item.from_source(earlier.file_sources[0])() == {"moved": True}
    BmpImageItem(IMAGE + 1).serialize(tmp_path / "other")
    earlier.file_sources[0].path = str(tmp_path / "other.bmp")
    assert np.array_equal(earlier(), IMAGE + 1)


def test_reading_remembers_the_version(png: Path) -> None:
    source = FileSource(str(png))
    assert source.version is None
    assert not source.is_current()
    Item.from_source(source)()
    assert source.version is not None
    assert source.version.is_of(png.stat())
    assert source.digest is not None
    assert len(source.digest) == 16
    assert source.version.read_at_ns > 0
    assert source.is_current()
    png.write_bytes(png.read_bytes())
    assert not source.is_current()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: PngImageItem(IMAGE, IMAGE), "two values"),
        (lambda p: PngImageItem(p.with_suffix(".jpg")), r"\.png"),
        (lambda p: PngImageItem(str(p)), "pathlib.Path"),
        (lambda p: PngImageItem({"a": 1}), "not dict"),
        (lambda p: PngImageItem(np.array(["a"])), "numbers"),
        (lambda p: NpyNumpyItem([[1], [1, 2]]), "no array"),
        (lambda p: BinaryItem("text"), "bytes"),
        (lambda p: JsonMetadataItem(object()), "mappings"),
        (lambda p: TomlMetadataItem([1]), "mapping"),
        (lambda p: OBJModel3DItem(5), "trimesh"),
    ],
)
def test_source_that_is_no_value_of_the_class_is_refused(png: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(png)


def test_bad_stream_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="<stream>"):
        PngImageItem(BytesIO(b"no png"))


def test_abstract_class_cannot_be_made_but_makes_its_default() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ImageItem(IMAGE)
    assert type(ImageItem.make_new(IMAGE)) is PngImageItem
    assert type(NumpyItem.make_new(IMAGE)) is NpyNumpyItem
    assert type(MetadataItem.make_new({})) is YamlMetadataItem
    assert type(Model3DItem.make_new()) is OBJModel3DItem


def test_make_new_keeps_class_options_and_pickle_permission() -> None:
    item = Item.get_instance("/data/a.jpg", allow_pickle=True).with_options(quality=95)
    new = item.make_new(IMAGE, shared=True)
    assert type(new) is JpegImageItem
    assert new.is_shared
    assert new.allow_pickle
    assert new.encoder_options == {"quality": 95}
    assert JpegImageItem.make_new(IMAGE).encoder_options == {}


def test_unknown_encoder_option_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(EncodeError, match=r"no encoder option 'qualty'.*quality, optimize"):
        JpegImageItem(IMAGE).with_options(qualty=95)


def test_new_class_registers_itself(tmp_path: Path) -> None:
    class UpperItem(Item[str]):
        @classmethod
        def file_extensions(cls):
            return (".upper-case",)

        @classmethod
        def decode(cls, stream):
            return stream.read().decode().upper()

        @classmethod
        def encode(cls, value, stream):
            stream.write(value.lower().encode())

    UpperItem("TEXT").serialize(tmp_path / "a")
    assert (tmp_path / "a.upper-case").read_bytes() == b"text"
    assert Item.get_instance(tmp_path / "a.upper-case")() == "TEXT"
    (tmp_path / "a.upper-case").write_bytes(b"\xff")
    with pytest.raises(DecodeError, match="UnicodeDecodeError"):
        Item.get_instance(tmp_path / "a.upper-case")()


@pytest.mark.parametrize("extension", [".png", ".PNG", "png", ".tar.gz", "./a"])
def test_class_with_a_taken_or_malformed_extension_is_refused(extension: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        type("ClashingItem", (BinaryItem,), {"file_extensions": classmethod(lambda c: [extension])})
    assert type(Item.get_instance("/a.png")) is PngImageItem


def test_value_is_kept_only_where_caching_is_on(png: Path) -> None:
    def is_kept(**own) -> bool:
        item = Item.get_instance(png)
        item.cache_data = own.get("cache")
        return item() is item()

    assert not is_kept()
    assert is_kept(cache=True)
    with data_cache():
        assert is_kept()
        assert not is_kept(cache=False)
        with no_data_cache(ImageItem):
            assert not is_kept()
            with data_cache(PngImageItem):
                assert is_kept()
        with no_data_cache(JpegImageItem):
            assert is_kept()
    with data_cache(PngImageItem), no_data_cache():
        assert not is_kept()
        assert is_kept(cache=True)
    assert not is_kept()


def test_caching_is_set_for_the_process_and_overridden_inside(png: Path) -> None:
    item = Item.get_instance(png)
    enable_item_data_cache(ImageItem)
    try:
        seen = []
        thread = threading.Thread(target=lambda: seen.append(item() is item()))
        thread.start()
        thread.join()
        assert seen == [True]
        with no_data_cache(PngImageItem):
            fresh = Item.get_instance(png)
            assert fresh() is not fresh()
    finally:
        disable_item_data_cache(ImageItem)


def test_context_of_one_thread_does_not_reach_another(png: Path) -> None:
    kept = []

    def look() -> None:
        item = Item.get_instance(png)
        kept.append(item() is item())

    with data_cache():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert kept == [False]


def test_cache_as_decorator(png: Path) -> None:
    @data_cache(PngImageItem)
    def is_kept() -> bool:
        item = Item.get_instance(png)
        return item() is item()

    assert is_kept()
    assert is_kept()


def test_cached_value_is_not_a_given_one_and_is_not_pickled(png: Path) -> None:
    item = Item.get_instance(png)
    item.cache_data = True
    item()
    assert not item.has_value
    assert len(pickle.dumps(item)) < 600
    png.unlink()
    assert np.array_equal(item(), IMAGE)


def test_decoding_error_is_of_the_file_and_not_of_the_cached_value(png: Path) -> None:
    item = Item.get_instance(png)
    item.cache_data = True
    assert item.decoding_error() is None
    png.write_bytes(b"no picture")
    assert np.array_equal(item(), IMAGE)
    assert isinstance(item.decoding_error(), DecodeError)
    assert PngImageItem(IMAGE).decoding_error() is None


def test_item_is_pickled_with_value_sources_and_settings(png: Path) -> None:
    item = PngImageItem(IMAGE, png, shared=True).with_options(compress_level=9)
    item.serialization_mode = "DEEP_COPY"
    item.cache_data = False
    again = pickle.loads(pickle.dumps(item))
    assert type(again) is PngImageItem
    assert np.array_equal(again(), IMAGE)
    assert again.local_sources == item.local_sources
    assert (again.is_shared, again.cache_data) == (True, False)
    assert again.encoder_options == {"compress_level": 9}
    without = pickle.loads(pickle.dumps(Item.get_instance(png)))
    assert not without.has_value
    assert np.array_equal(without(), IMAGE)


def test_item_is_equal_to_itself_only(png: Path) -> None:
    item, same_file = Item.get_instance(png), Item.get_instance(png)
    assert item == item
    assert item != same_file
    assert len({item, same_file, copy.copy(item)}) == 3


def test_repr_is_short_and_tells_class_shape_and_file(png: Path) -> None:
    assert repr(PngImageItem(np.zeros((999, 999), np.uint8))) == (
        "PngImageItem(ndarray (999, 999))"
    )
    assert repr(Item.get_instance(png, shared_item=True)) == f"PngImageItem('{png}', shared)"


def test_default_name_has_the_class_extension() -> None:
    assert JpegImageItem().as_default_name("a/foo") == Path("a/foo.jpeg")
    assert PngImageItem().as_default_name(Path("foo.bar")) == Path("foo.png")
    assert Item.get_instance("/data/a.zzz").as_default_name("foo") == Path("foo.zzz")


def test_many_threads_decode_one_item(png: Path) -> None:
    item = Item.get_instance(png)
    item.cache_data = True
    values: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: values.append(item())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 8
    assert all(np.array_equal(value, IMAGE) for value in values)
