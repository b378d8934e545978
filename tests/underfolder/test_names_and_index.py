import os
import pickle
import tracemalloc
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import ItemNameError
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.names import (
    Kind,
    check_index,
    check_key,
    parse_item_name,
    parse_root_name,
)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "idx", "key", "extension"),
    [
        ("000007_image.png", 7, "image", ".png"),
        ("7_image.png", 7, "image", ".png"),
        ("0_a.b.txt", 0, "a", ".b.txt"),
        ("12_mask_inv.png", 12, "mask_inv", ".png"),
        ("1_0_w.txt", 1, "0_w", ".txt"),
    ],
)
def test_a_name_is_split_and_written_back(name: str, idx: int, key: str, extension: str) -> None:
    parsed = parse_item_name(name)
    assert parsed is not None
    assert (parsed[0], parsed[1].key, parsed[1].extension) == (idx, key, extension)
    assert parsed[1].name_of(idx) == name


@pytest.mark.parametrize(
    "name",
    [
        *("image.png", "x_1.txt", "_a.txt", "+6_p.txt", "-1_n.txt", "٣_ar.txt", "²_u.txt"),
        *("7_.txt", "8_k", "8_k.", "7", "", "_", "123456789012345678_a.txt", " 0_s.txt", "1_.png"),
    ],
)
def test_other_names_are_no_items(name: str) -> None:
    assert parse_item_name(name) is None


@given(st.integers(0, 10**12), st.integers(0, 20), st.text("ab_c", min_size=1), st.just(".png"))
def test_any_written_name_is_read_back(idx: int, width: int, key: str, extension: str) -> None:
    name = Kind(key + extension, width).name_of(idx)
    parsed = parse_item_name(name)
    assert parsed is not None
    assert parsed[0] == idx
    assert parsed[1].key == key
    assert parsed[1].name_of(idx) == name


@given(st.text(max_size=30))
def test_no_name_makes_the_parser_fail(name: str) -> None:
    parsed = parse_item_name(name)
    assert parsed is None or parsed[1].name_of(parsed[0]) == name
    parse_root_name(name)


@pytest.mark.parametrize(
    "key", ["a/b", "../up", "a.b", "", ".hidden", "a\\b", "a\nb", "a\0b", "\ud800"]
)
def test_a_key_that_could_leave_the_folder_is_refused(key: str) -> None:
    with pytest.raises(ItemNameError, match="Item key"):
        check_key(key)


@pytest.mark.parametrize("idx", [-1, 10**14, True, 1.5, "1", None])
def test_what_is_no_index_is_refused(idx: object) -> None:
    with pytest.raises(ItemNameError, match="Sample index"):
        check_index(idx)


def test_index_lists_each_sample_and_its_files(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", "000000_a.png", "000000_b.txt", "000005_a.png", "12_c.yml")
    index = UnderfolderIndex.scan(str(folder))
    assert len(index) == 13
    assert index.indices().tolist() == [0, 5, 12]
    assert sorted(index.names_of(0)) == ["000000_a.png", "000000_b.txt"]
    assert index.names_of(3) == []
    assert index.names_of(12) == ["12_c.yml"]
    assert 5 in index
    assert 6 not in index
    assert index.widest() == 6


def test_strays_are_named_once_and_skipped(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", "0_a.png", "notes.txt", "x_1.txt", ".hidden", "README")
    with pytest.warns(UserWarning, match="skipped") as caught:
        index = UnderfolderIndex.scan(str(folder))
    assert len(caught) == 1
    assert index.indices().tolist() == [0]


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert len(UnderfolderIndex.scan(str(tmp_path / "none"))) == 0


def test_a_huge_sparse_index_costs_no_memory(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", "0_image.png", "999999999_image.png")
    tracemalloc.start()
    index = UnderfolderIndex.scan(str(folder))
    assert len(index) == 1_000_000_000
    assert index.indices().tolist() == [0, 999999999]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_part_has_its_samples_only_and_is_small_to_pickle(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", *(f"{i:05d}_a.png" for i in range(2000)))
    part = UnderfolderIndex.scan(str(folder)).restricted_to([3, 1999])
    assert part.indices().tolist() == [3, 1999]
    restored = pickle.loads(pickle.dumps(part))
    assert restored.names_of(1999) == ["01999_a.png"]
    assert len(pickle.dumps(part)) < 400


IDS = st.integers(0, 12)
NAMES = st.builds(
    lambda idx, key, ext, width: Kind(key + ext, width).name_of(idx),
    IDS,
    st.sampled_from(["a", "b_c"]),
    st.sampled_from([".png", ".txt"]),
    st.sampled_from([0, 2, 6]),
)


@settings(max_examples=60, deadline=None)
@given(
    first=st.sets(NAMES),
    changes=st.lists(st.tuples(NAMES, st.booleans()), max_size=25),
    merge_at=st.integers(1, 30),
)
def test_updates_agree_with_a_new_scan(
    tmp_path_factory: pytest.TempPathFactory,
    first: set[str],
    changes: list[tuple[str, bool]],
    merge_at: int,
) -> None:
    folder = touch(tmp_path_factory.mktemp("index") / "data", *first)
    index = UnderfolderIndex.scan(str(folder))
    for number, (name, add) in enumerate(changes):
        idx = parse_item_name(name)[0]  # type: ignore[index]
        if add:
            (folder / name).touch()
            index.update(idx, added=[name])
        else:
            (folder / name).unlink(missing_ok=True)
            index.update(idx, removed=[name])
        if number % merge_at == 0:
            index.indices()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = UnderfolderIndex.scan(str(folder))
    assert len(index) == len(fresh)
    assert index.indices().tolist() == fresh.indices().tolist()
    for idx in range(14):
        assert sorted(index.names_of(idx)) == sorted(fresh.names_of(idx))
    assert sorted(os.listdir(folder)) == sorted(
        name for idx in index.indices().tolist() for name in index.names_of(idx)
    )
