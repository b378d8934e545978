"""File names that are no items', huge indices, and what else a folder may hold."""

import os
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import BinaryItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence, build_pipe

from .folders import changed, image_of, snapshot

pytestmark = pytest.mark.usefixtures("surroundings")

STRAYS = [
    *("notes.txt", "image.png", "x_1.txt", "_a.txt", "-1_n.txt", "+6_p.txt", " 0_sp.txt"),
    *("٣_arabic.txt", "²_square.txt", "1.5_half.txt", "0x1_hex.txt", "1e3_many.txt"),
    *("7_.txt", "8_k", "9_k.", "3", "3.txt", "_", "__", "0__", "100000000000000_image.png"),
    *("9" * 200 + "_image.png", "\n0_line.txt", "0\n_line.txt", "001-image.png"),
]
HIDDEN = [".hidden", ".0_image.png", "..data", ".DS_Store", ".~lock.0_image.png#"]


@contextmanager
def warnings_of_strays() -> Iterator[list[str]]:
    """Collects what is warned of skipped names, with every filter off."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(w.message) for w in caught if "skipped" in str(w.message)]


def touch(data: Path, *names: str) -> None:
    for name in names:
        (data / name).write_bytes(b"1")


def test_names_that_are_no_items_are_skipped_and_stay(dataset: Path) -> None:
    touch(dataset / "data", *STRAYS, *HIDDEN)
    before = snapshot(dataset)
    with warnings_of_strays() as found:
        stream = DataStream.read_write_underfolder(dataset)
        assert len(stream) == 3
        assert stream.indices().tolist() == [0, 1, 2]
        assert all(sorted(sample) == ["camera", "image", "meta"] for sample in stream)
        stream.set_output(0, stream[0].set_value("image", image_of(9)))
        stream.set_output(4, Sample({"blob": BinaryItem(b"x")}))
    assert len(found) == 1
    assert str(dataset / "data") in found[0]
    assert any(repr(name) in found[0] for name in STRAYS)
    assert changed(before, snapshot(dataset)) == {"data/000_image.png", "data/004_blob.bin"}


def test_strays_are_warned_of_once_also_when_the_folder_is_scanned_again(dataset: Path) -> None:
    touch(dataset / "data", "first stray.txt")
    with warnings_of_strays() as found:
        stream = DataStream.read_write_underfolder(dataset)
        for number in range(20):
            touch(dataset / "data", f"5_new{number}.bin")
            assert f"new{number}" in stream[5]
        touch(dataset / "data", "second stray.txt")
        assert len(stream) == 6
    assert ["first" in text for text in found] == [True, False]
    assert ["second" in text for text in found] == [False, True]


def test_hidden_files_are_skipped_in_silence(dataset: Path) -> None:
    touch(dataset / "data", *HIDDEN)
    touch(dataset, ".hidden.yaml", ".gitignore")
    with warnings_of_strays() as found:
        assert sorted(SamplesSequence.from_underfolder(dataset)[0]) == ["camera", "image", "meta"]
    assert found == []


@pytest.mark.parametrize("order", [1, -1])
def test_which_indices_are_too_large_does_not_depend_on_the_order_of_names(
    order: int, tmp_path: Path
) -> None:
    from prefect_pipestream.underfolder.format.index import UnderfolderIndex

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

    names = ["0_image.png", "99999999999999_image.png", "100000000000000_image.png"]
    index, strays = UnderfolderIndex(), []
    index._take_all([Entry(name) for name in names][::order], strays)  # type: ignore[misc]
    assert strays == ["100000000000000_image.png"]
    assert len(index) == 10**14


def test_a_dataset_full_of_duplicates_is_not_scanned_for_each_of_them(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for idx in range(3):
        touch(dataset / "data", f"{idx}_meta.json")
    stream = DataStream.read_write_underfolder(dataset)
    time.sleep(0.05)  # until then another change may be in the same tick of the clock
    assert len(stream) == 3
    scans = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scandir(path))
    for opened in (stream, stream.part(range(3))):
        for idx in range(3):
            with pytest.raises(PipestreamError, match="two files for item 'meta'"):
                opened[idx]
    assert scans == []


# -- huge and sparse indices ---------------------------------------------------------------


@contextmanager
def at_most(megabytes: float, seconds: float) -> Iterator[None]:
    """Fails if the block takes more memory or time."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 1e6
    assert time.perf_counter() - began < seconds


@pytest.mark.parametrize("idx", [999_999_999, 99_999_999_999_999])
def test_a_huge_index_costs_neither_memory_nor_time(idx: int, dataset: Path) -> None:
    touch(dataset / "data", f"{idx}_blob.bin")
    DataStream.read_write_underfolder(dataset)[0]["image"]()  # what is imported is not counted
    with at_most(megabytes=2, seconds=2):
        for opened in (
            DataStream.read_write_underfolder(dataset),
            SamplesSequence.from_underfolder(dataset),
        ):
            assert len(opened) == idx + 1
            assert opened[idx]["blob"]() == opened[-1]["blob"]() == b"1"
            assert sorted(opened[idx // 2]) == ["camera"]
            assert np.array_equal(opened[2]["image"](), image_of(2))
            sparse = opened[:: idx // 3]
            assert len(sparse) == 4
            with pytest.raises(IndexError, match="out of range"):
                opened[idx + 1]
        stream = DataStream.read_write_underfolder(dataset)
        assert stream.indices().tolist() == [0, 1, 2, idx]
        stream.set_output(idx // 2, Sample({"blob": BinaryItem(b"middle")}))
        assert stream[idx // 2]["blob"]() == b"middle"
        stream.set_output(idx, stream[idx].set_value("blob", b"new"))
        assert stream[idx]["blob"]() == b"new"
        part = stream.part([0, idx])
        assert part[idx]["blob"]() == b"new"
        part.set_output(idx - 1, stream[0])
    assert stream.indices().tolist() == [0, 1, 2, idx // 2, idx - 1, idx]


def test_a_huge_index_costs_no_memory_below_pipes_either(dataset: Path) -> None:
    touch(dataset / "data", "999999999_blob.bin")
    pipes = ["data_cache", {"map": {"stage": "identity"}}, "enumerate"]
    output = {"to_underfolder": {"folder": dataset.parent / "new"}}
    with at_most(megabytes=20, seconds=5):
        stream = DataStream(build_pipe([{"from_underfolder": dataset}, *pipes]), [output])
        assert len(stream) == 1_000_000_000
        assert stream.indices().tolist() == [0, 1, 2, 999_999_999]
        assert sorted(stream[999_999_999]) == ["blob", "camera", "~idx"]
    shuffled = SamplesSequence.from_underfolder(dataset)[:3].shuffle(seed=1)
    assert DataStream(shuffled, [output]).indices().tolist() == [0, 1, 2]


def test_a_sample_written_far_away_costs_no_memory_either(tmp_path: Path) -> None:
    stream = DataStream.create_new_underfolder(tmp_path / "new", zfill=6)
    stream.set_output(0, Sample({"blob": BinaryItem(b"0")}))
    with at_most(megabytes=2, seconds=2):
        stream.set_output(99_999_999_999_999, Sample({"blob": BinaryItem(b"far")}))
    reader = SamplesSequence.from_underfolder(tmp_path / "new")
    assert reader[99_999_999_999_999]["blob"]() == b"far"


# -- zero padding --------------------------------------------------------------------------


def test_one_absurdly_padded_name_is_read_and_is_no_example(dataset: Path) -> None:
    wide = "0" * 240 + "1_w.bin"
    touch(dataset / "data", wide)
    stream = DataStream.read_write_underfolder(dataset)
    assert stream[1]["w"]() == b"1"
    stream.set_output(9, Sample({"a_longer_key": BinaryItem(b"x")}))
    assert (dataset / "data" / "009_a_longer_key.bin").exists()
    stream.set_output(1, stream[1].set_value("w", b"new"))
    assert (dataset / "data" / wide).read_bytes() == b"new"


@pytest.mark.parametrize("zfill", [-1, 10**9, "many", 1.5, [6]])
def test_a_padding_that_makes_no_sense_is_refused(zfill: object, dataset: Path) -> None:
    for make in (
        lambda: DataStream.read_write_underfolder(dataset, zfill=zfill),  # type: ignore[arg-type]
        lambda: DataStream.create_output_stream(dataset, zfill=zfill),  # type: ignore[arg-type]
        lambda: DataStream.create_new_underfolder(dataset.parent / "n", zfill=zfill),  # type: ignore[arg-type]
    ):
        with pytest.raises(PipestreamError, match="to_underfolder: argument 'zfill'"):
            make()
    assert not (dataset.parent / "n").exists()


# -- names that others gave ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("000_a.b.txt", "000_q.png.bak", "000_UP.TXT", "000_archive.tar.gz", "000_sp ace.bin"),
        *("000_ключ.bin", "000_日本.bin", "000_é.bin", "000_e\u0301.bin", "000_back\\slash.bin"),
        *("000_line\nbreak.bin", "000_" + "k" * 240 + ".bin", "000__.bin", "000_-.bin"),
        *("000_0_w.txt", "000_CON.bin", "000_~.bin", "000_$HOME.bin", "000_'\".bin"),
    ],
)
def test_an_unchanged_sample_keeps_the_names_that_others_gave(name: str, dataset: Path) -> None:
    touch(dataset / "data", name)
    before = snapshot(dataset)
    inode = (dataset / "data" / name).stat().st_ino
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, stream[0])
    stream.set_output(0, stream[0].set_value("image", image_of(5)))
    assert changed(before, snapshot(dataset)) == {"data/000_image.png"}
    assert (dataset / "data" / name).stat().st_ino == inode


@pytest.mark.parametrize(
    "name", [b"000_im\xff.bin", b"000_\x80.txt", b"000_a.\xfe\xfd", b"\xff.bin"]
)
def test_names_that_are_no_text_are_read_and_kept(name: bytes, dataset: Path) -> None:
    path = os.path.join(os.fsencode(dataset / "data"), name)
    Path(os.fsdecode(path)).write_bytes(b"1")
    before = snapshot(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = DataStream.read_write_underfolder(dataset)
        sample = stream[0]
    with stream.commit_group(signed=True) as group:
        group.set_output(0, sample.set_value("image", image_of(5)))
    assert changed(before, snapshot(dataset)) == {"data/000_image.png"}


def test_extensions_are_known_in_any_case_and_keys_are_told_apart(dataset: Path) -> None:
    TxtNumpyItem([1.0]).serialize(dataset / "data" / "000_a.txt")
    (dataset / "data" / "000_a.txt").rename(dataset / "data" / "000_a.TXT")
    TxtNumpyItem([2.0]).serialize(dataset / "data" / "000_A.txt")
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[0]
    assert (sample["a"](), sample["A"]()) == ([1.0], [2.0])
    stream.set_output(0, sample.set_value("a", [3.0]))
    assert sorted(p.name for p in (dataset / "data").glob("000_[aA].*")) == [
        "000_A.txt",
        "000_a.TXT",
    ]
    assert (stream[0]["a"](), stream[0]["A"]()) == ([3.0], [2.0])


def test_one_key_in_two_cases_of_its_extension_is_a_duplicate(dataset: Path) -> None:
    touch(dataset / "data", "000_a.txt", "000_a.TXT")
    with pytest.raises(PipestreamError, match="two files for item 'a'"):
        SamplesSequence.from_underfolder(dataset)[0]


def test_folders_and_special_files_beside_the_data_are_left_alone(dataset: Path) -> None:
    (dataset / "thumbnails").mkdir()
    (dataset / "thumbnails" / "0_image.png").write_text("mine")
    (dataset / "model.d").mkdir()
    os.mkfifo(dataset / "pipe")
    (dataset / "NOTES").write_text("no extension")
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    assert sorted(stream[0]) == ["camera", "image", "meta"]
    stream.set_output(0, stream[0].set_value("image", image_of(5)))
    assert changed(before, snapshot(dataset)) == {"data/000_image.png"}
