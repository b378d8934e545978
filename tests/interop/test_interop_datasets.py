"""New datasets: what one package writes the other reads, for every kind of item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import specimens
from specimens import LOSSY, SAME_BYTES, as_stored, build_sample, canonical, describe

from prefect_pipestream import items
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

LENGTH = 3
KEYS = sorted(specimens.specimens())
Described = list[dict[str, tuple[str, bool, Any]]]


def _ours() -> list[Sample]:
    return [build_sample(items, Sample, variant) for variant in range(LENGTH)]


def _read(folder: Path) -> Described:
    with items.allow_unpickling():
        return [describe(sample) for sample in SamplesSequence.from_underfolder(folder)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").iterdir())


@pytest.fixture(scope="module")
def theirs_folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs") / "dataset"
    reference("write_all", folder=folder, length=LENGTH)
    return folder


@pytest.fixture(scope="module")
def theirs_as_we_read(theirs_folder: Path) -> Described:
    return _read(theirs_folder)


@pytest.fixture(scope="module")
def theirs_as_they_read(reference: Any, theirs_folder: Path) -> Described:
    return reference("read", folder=theirs_folder)


@pytest.fixture(scope="module")
def ours_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "dataset"
    SamplesSequence.from_list(_ours()).to_underfolder(folder).run(track_fn=False)
    return folder


@pytest.fixture(scope="module")
def ours_as_they_read(reference: Any, ours_folder: Path) -> Described:
    return reference("read", folder=ours_folder)


@pytest.fixture(scope="module")
def streamed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed") / "dataset"
    stream = DataStream.create_new_underfolder(folder, zfill=6)
    for idx, sample in enumerate(_ours()):
        stream.set_output(idx, sample)
    return folder


@pytest.fixture(scope="module")
def streamed_as_they_read(reference: Any, streamed_folder: Path) -> Described:
    return reference("read", folder=streamed_folder)


def _assert_holds_specimens(described: Described, key: str) -> None:
    assert len(described) == LENGTH
    for variant, sample in enumerate(described):
        item_class, value = specimens.specimens(variant)[key]
        found_class, shared, found = sample[key]
        assert (found_class, shared) == (item_class, False)
        if key not in LOSSY:
            assert found == canonical(as_stored(key, value))


@pytest.mark.parametrize("key", KEYS)
def test_what_they_write_we_read(theirs_as_we_read: Described, key: str) -> None:
    _assert_holds_specimens(theirs_as_we_read, key)


@pytest.mark.parametrize("key", KEYS)
def test_what_we_write_they_read(ours_as_they_read: Described, key: str) -> None:
    _assert_holds_specimens(ours_as_they_read, key)


@pytest.mark.parametrize("key", KEYS)
def test_what_we_stream_they_read(streamed_as_they_read: Described, key: str) -> None:
    _assert_holds_specimens(streamed_as_they_read, key)


@pytest.mark.parametrize("key", KEYS)
def test_both_read_the_same_value_from_a_file_of_theirs(
    theirs_as_we_read: Described, theirs_as_they_read: Described, key: str
) -> None:
    assert [s[key] for s in theirs_as_we_read] == [s[key] for s in theirs_as_they_read]


@pytest.mark.parametrize("key", KEYS)
def test_both_read_the_same_value_from_a_file_of_ours(
    ours_folder: Path, ours_as_they_read: Described, key: str
) -> None:
    assert [s[key] for s in _read(ours_folder)] == [s[key] for s in ours_as_they_read]


@pytest.mark.parametrize("key", SAME_BYTES)
def test_both_write_the_same_bytes(theirs_folder: Path, ours_folder: Path, key: str) -> None:
    pattern = f"data/*_{key}.*"
    theirs = {path.name: path.read_bytes() for path in theirs_folder.glob(pattern)}
    assert len(theirs) == LENGTH
    assert {path.name: path.read_bytes() for path in ours_folder.glob(pattern)} == theirs


def test_both_name_the_files_alike(theirs_folder: Path, ours_folder: Path) -> None:
    assert _names(ours_folder) == _names(theirs_folder)


@pytest.mark.parametrize("zfill", [None, 0, 1, 4])
def test_padding_is_the_same(reference: Any, tmp_path: Path, zfill: int | None) -> None:
    length = 11
    reference("write_shared", folder=tmp_path / "source", length=length)
    source = SamplesSequence.from_underfolder(tmp_path / "source")
    source.to_underfolder(tmp_path / "ours", zfill=zfill).run(track_fn=False)
    reference("copy", source=tmp_path / "source", folder=tmp_path / "theirs", zfill=zfill)
    assert _names(tmp_path / "ours") == _names(tmp_path / "theirs")
    assert reference("read", folder=tmp_path / "ours") == _read(tmp_path / "source")


def test_shared_items_of_theirs_are_shared_for_us(reference: Any, tmp_path: Path) -> None:
    reference("write_shared", folder=tmp_path / "theirs", length=LENGTH)
    ours = _read(tmp_path / "theirs")
    assert ours == reference("read", folder=tmp_path / "theirs")
    assert [sample["classes"] for sample in ours] == [
        ("YamlMetadataItem", True, {"names": ["cat", "dog"]})
    ] * LENGTH
    assert {path.name for path in (tmp_path / "theirs").iterdir()} >= {"classes.yaml", "camera.npy"}


def test_shared_items_of_ours_are_shared_for_them(reference: Any, tmp_path: Path) -> None:
    reference("write_shared", folder=tmp_path / "theirs", length=LENGTH)
    source = SamplesSequence.from_underfolder(tmp_path / "theirs")
    source.to_underfolder(tmp_path / "linked", zfill=4).run(track_fn=False)
    fresh = [
        Sample(
            {
                "label": items.TxtNumpyItem([idx]),
                "classes": items.YamlMetadataItem({"names": ["cat", "dog"]}, shared=True),
                "camera": items.NpyNumpyItem([[1.0, 0.0], [0.0, 1.0]], shared=True),
            }
        )
        for idx in range(LENGTH)
    ]
    SamplesSequence.from_list(fresh).to_underfolder(tmp_path / "fresh").run(track_fn=False)
    theirs = reference("read", folder=tmp_path / "theirs")
    assert reference("read", folder=tmp_path / "linked") == theirs
    assert reference("read", folder=tmp_path / "fresh") == theirs
    assert (tmp_path / "fresh" / "classes.yaml").is_file()


def test_an_item_of_ones_own_wins_over_the_shared_one_for_both(
    reference: Any, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    reference("write_shared", folder=dataset, length=LENGTH)
    stream = DataStream.read_write_underfolder(dataset)
    own = items.YamlMetadataItem({"names": ["bird"]})
    stream.set_output(1, stream[1].set_item("classes", own))
    theirs = reference("read", folder=dataset)
    assert theirs == _read(dataset)
    assert [sample["classes"][2]["names"] for sample in theirs] == [
        ["cat", "dog"],
        ["bird"],
        ["cat", "dog"],
    ]


def test_gaps_of_theirs_are_gaps_for_us(reference: Any, tmp_path: Path) -> None:
    reference("write_gaps", folder=tmp_path / "theirs", indices=[0, 5])
    ours = _read(tmp_path / "theirs")
    assert ours == reference("read", folder=tmp_path / "theirs")
    assert [list(sample) for sample in ours] == [["label"], [], [], [], [], ["label"]]


def test_gaps_of_ours_are_gaps_for_them(reference: Any, tmp_path: Path) -> None:
    stream = DataStream.create_new_underfolder(tmp_path / "ours", zfill=3)
    for idx in (5, 2):
        stream.set_output(idx, Sample({"label": items.TxtNumpyItem([idx])}))
    theirs = reference("read", folder=tmp_path / "ours")
    assert theirs == _read(tmp_path / "ours")
    assert [list(sample) for sample in theirs] == [[], [], ["label"], [], [], ["label"]]


def test_files_of_other_programs_are_read_alike(reference: Any, tmp_path: Path) -> None:
    _write_foreign_files(tmp_path / "data")
    theirs = reference("read", folder=tmp_path)[0]
    ours = _read(tmp_path)[0]
    assert set(ours) == set(theirs)
    for key, described in theirs.items():
        assert ours[key] == described, key


def _write_foreign_files(data: Path) -> None:
    import numpy as np
    from PIL import Image

    data.mkdir()
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    rgb.quantize(16).save(data / "0_palette.png")
    rgb.quantize(16).save(data / "0_bmp-palette.bmp")
    rgb.convert("LA").save(data / "0_gray-alpha.png")
    rgb.convert("1").save(data / "0_one-bit.png")
    rgb.convert("1").save(data / "0_bmp-one-bit.bmp")
    rgb.convert("CMYK").save(data / "0_cmyk.jpg")
    rgb.save(data / "0_progressive.jpe", progressive=True)
    rgb.save(data / "0_jfif.jfif")
    rgb.save(data / "0_tif.tif", compression="tiff_adobe_deflate")
    rgb.save(data / "0_tif-pages.tif", save_all=True, append_images=[rgb, rgb])
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(data / "0_exif.jpg", exif=turned)
    (data / "0_yml.yml").write_text("a: 1e3\nb: yes\nc: 2020-01-01\nd: 0x10\n")
    (data / "0_tml.tml").write_text("when = 2020-01-01\n[a.b]\nc = [1, 2]\n")
    (data / "0_json.json").write_text('\n{"a": [1, 2.0, null]}')
    (data / "0_commented.txt").write_text("# a note\n1 2 # more\n\n3 4\n")
    (data / "0_scalar.txt").write_text("7")
    (data / "0_crlf.txt").write_text("1\r\n2\r\n")


def test_images_that_only_we_decode_pass_through_both(reference: Any, tmp_path: Path) -> None:
    files = {
        f"0_{extension}.{extension}": f"content of {extension}".encode()
        for extension in ("webp", "gif", "apng", "avif", "heif", "j2k", "jxl", "exr", "hdr")
    }
    (tmp_path / "a" / "data").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "a" / "data" / name).write_bytes(content)
    reference("copy", source=tmp_path / "a", folder=tmp_path / "b", zfill=1)
    copied = SamplesSequence.from_underfolder(tmp_path / "b")
    copied.to_underfolder(tmp_path / "c", zfill=1).run(track_fn=False)
    reference("copy", source=tmp_path / "c", folder=tmp_path / "d", zfill=1)
    for folder in ("b", "c", "d"):
        data = tmp_path / folder / "data"
        assert {path.name: path.read_bytes() for path in data.iterdir()} == files
