"""Updates in place: either package changes samples of a dataset that the other reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import specimens
from specimens import build_sample, describe

from prefect_pipestream import items
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

LENGTH = 3
KEYS = sorted(specimens.specimens())
Described = list[dict[str, tuple[str, bool, Any]]]


def _read(sequence: Any) -> Described:
    with items.allow_unpickling():
        return [describe(sample) for sample in sequence]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").iterdir())


def _with_values(sample: Sample, variant: int, keys: list[str] | None = None) -> Sample:
    for key, (_, value) in specimens.specimens(variant).items():
        if keys is None or key in keys:
            sample = sample.set_value(key, value)
    return sample


@pytest.fixture(scope="module")
def pristine(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "dataset"
    reference("write_all", folder=folder, length=LENGTH, zfill=6)
    return folder


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "dataset"))


@pytest.fixture(scope="module")
def expected(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Described:
    """The samples 0, 9 and 2, as the reference writes and reads them."""
    folder = tmp_path_factory.mktemp("expected") / "dataset"
    reference("write_all", folder=folder, length=LENGTH, zfill=6)
    reference("update", folder=folder, idx=1, variant=9)
    return reference("read", folder=folder)


@pytest.fixture(scope="module")
def updated_by_us(
    reference: Any, pristine: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Described]:
    folder = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("updated") / "dataset"))
    stream = DataStream.read_write_underfolder(folder, must_exist=True, zfill=None)
    stream.set_output(1, _with_values(stream[1], 9))
    return folder, reference("read", folder=folder)


@pytest.mark.parametrize("key", KEYS)
def test_what_we_update_in_place_they_read(
    updated_by_us: tuple[Path, Described], expected: Described, key: str
) -> None:
    _, theirs = updated_by_us
    assert [sample[key] for sample in theirs] == [sample[key] for sample in expected]


def test_our_update_changes_no_name_and_adds_no_file(
    updated_by_us: tuple[Path, Described], pristine: Path
) -> None:
    folder, theirs = updated_by_us
    assert _names(folder) == _names(pristine)
    assert len(theirs) == LENGTH
    assert all(sorted(sample) == KEYS for sample in theirs)


@pytest.mark.parametrize("zfill", [6, None])
def test_what_they_update_in_place_our_open_stream_reads(
    reference: Any, dataset: Path, expected: Described, zfill: int | None
) -> None:
    # With zfill None the reference also renames 000001_x to 1_x.
    stream = DataStream.read_write_underfolder(dataset)
    assert _read(stream) != expected
    reference("update", folder=dataset, idx=1, variant=9, zfill=zfill)
    assert _read(stream) == expected
    assert _read(SamplesSequence.from_underfolder(dataset)) == expected


def test_only_the_named_keys_are_written_by_either(
    reference: Any, dataset: Path, tmp_path: Path
) -> None:
    theirs = shutil.copytree(dataset, tmp_path / "theirs")
    keys = ["png_rgb", "yaml_nested"]
    reference("update", folder=theirs, idx=2, variant=9, keys=keys)
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(2, _with_values(stream[2], 9), keys=keys)
    assert _read(stream) == reference("read", folder=theirs)
    assert reference("read", folder=dataset) == reference("read", folder=theirs)


def test_a_shared_item_is_never_overwritten_by_either(reference: Any, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    reference("write_shared", folder=dataset, length=LENGTH)
    before = (dataset / "classes.yaml").read_bytes()
    stream = DataStream.read_write_underfolder(dataset)
    changed = stream[0].set_value("classes", {"names": ["bird"]}).set_value("label", [7])
    with pytest.warns(UserWarning, match="stays as it is"):
        stream.set_output(0, changed)
    assert (dataset / "classes.yaml").read_bytes() == before
    theirs = reference("read", folder=dataset)
    assert theirs == _read(stream)
    assert [sample["label"][2][3] for sample in theirs] == [
        items.TxtNumpyItem([float(value)])().tobytes() for value in (7, 1, 2)
    ]


def test_an_item_we_move_to_another_extension_has_one_file_for_them(
    reference: Any, dataset: Path, tmp_path: Path
) -> None:
    theirs = shutil.copytree(dataset, tmp_path / "theirs")
    reference("to_jpeg", folder=theirs, idx=1, key="png_rgb")
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[1]
    stream.set_output(1, sample.set_item("png_rgb", items.JpegImageItem(sample["png_rgb"]())))
    assert _names(dataset) == _names(theirs)
    assert reference("read", folder=dataset) == reference("read", folder=theirs)


def test_an_item_they_move_to_another_extension_is_read_by_our_open_stream(
    reference: Any, dataset: Path
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    reference("to_jpeg", folder=dataset, idx=1, key="png_rgb")
    assert isinstance(stream[1]["png_rgb"], items.JpegImageItem)
    assert _read(stream) == reference("read", folder=dataset)


def test_samples_that_they_append_our_open_stream_sees(reference: Any, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    assert len(stream) == LENGTH
    reference("append", folder=dataset, idx=LENGTH + 1, variant=4)
    assert len(stream) == LENGTH + 2
    assert _read(stream) == reference("read", folder=dataset)
    assert len(stream[LENGTH]) == 0


def test_samples_that_we_append_they_see(reference: Any, dataset: Path, tmp_path: Path) -> None:
    theirs = shutil.copytree(dataset, tmp_path / "theirs")
    reference("append", folder=theirs, idx=LENGTH + 1, variant=4)
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(LENGTH + 1, build_sample(items, Sample, 4))
    assert _names(dataset) == _names(theirs)
    assert reference("read", folder=dataset) == reference("read", folder=theirs)


def test_both_take_turns_on_one_dataset(reference: Any, dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    for turn in range(3):
        reference("update", folder=dataset, idx=turn, variant=20 + turn, zfill=6)
        stream.set_output(turn, _with_values(stream[turn], 30 + turn, keys=["png_gray"]))
    theirs = reference("read", folder=dataset)
    assert theirs == _read(stream)
    for turn, sample in enumerate(theirs):
        gray, rgb = (specimens.specimens(base + turn) for base in (30, 20))
        assert sample["png_gray"][2] == specimens.canonical(gray["png_gray"][1])
        assert sample["png_rgb"][2] == specimens.canonical(rgb["png_rgb"][1])


def test_our_update_leaves_their_hard_linked_copy_as_it_was(
    reference: Any, dataset: Path, tmp_path: Path
) -> None:
    reference("copy", source=dataset, folder=tmp_path / "copy")
    before = reference("read", folder=tmp_path / "copy")
    linked = dataset / "data" / "000001_png_rgb.png"
    assert linked.stat().st_nlink == 2
    stream = DataStream.read_write_underfolder(dataset)
    for idx in range(LENGTH):
        stream.set_output(idx, _with_values(stream[idx], 9))
    assert reference("read", folder=tmp_path / "copy") == before


def test_our_own_files_are_nothing_to_them(reference: Any, dataset: Path) -> None:
    before = reference("read", folder=dataset)
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(0, _with_values(stream[0], 9))
    stream.set_output(0, _with_values(stream[0], 0))
    assert reference("read", folder=dataset) == before
