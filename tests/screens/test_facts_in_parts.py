"""Queries that are asked while metadata is still being read, and say so."""

import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_pipestream import DataStream, SamplesSequence
from prefect_pipestream.sequences.where import Found, find
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder.opening import open_dataset
from tests.dataset_files import Files, temporary_place

from .read_only import read_only

QUERY = "metadata.label == 3"
_TIMES = itertools.count()


def make(folder: Place, texts: dict[int, str], key: str = "metadata") -> Place:
    """Metadata that nobody is writing just now."""
    if not is_address(folder):
        Path(folder, "data").mkdir(parents=True, exist_ok=True)
    for idx, text in texts.items():
        name = f"data/{idx}_{key}.yaml"
        Files(folder)[name] = text.encode()
        if not is_address(folder):
            os.utime(Path(folder, name), (1_600_000_000, 1_600_000_000 + next(_TIMES)))
    return folder


@pytest.fixture
def folder(new_place: Place) -> Place:
    return make(new_place, {idx: yaml.safe_dump({"label": idx % 4}) for idx in range(20)})


def told(found: Found) -> tuple[list[int], int, int, bool]:
    return found.indices.tolist(), found.known, found.of, found.is_complete


def ask(folder: Place, most_reads: int | None, query: str = QUERY) -> Any:
    return told(find(open_dataset(folder), query, most_reads=most_reads))


def test_an_answer_says_of_how_many_samples_it_is(folder: Place) -> None:
    assert ask(folder, 0) == ([], 0, 20, False)
    assert ask(folder, 8) == ([3, 7], 8, 20, False)
    assert ask(folder, 0) == ([3, 7], 8, 20, False)
    assert ask(folder, 8, f"not {QUERY}") == (
        [idx for idx in range(16) if idx % 4 != 3],
        *(16, 20, False),
    )
    assert ask(folder, 8) == ([3, 7, 11, 15, 19], 20, 20, True)
    assert ask(folder, 0) == ([3, 7, 11, 15, 19], 20, 20, True)
    stream = DataStream.read_write_underfolder(folder)
    assert stream.found(QUERY, most_reads=0).share == 1


def test_what_needs_no_reading_is_complete_at_once(folder: Place) -> None:
    assert ask(folder, 0, "has metadata")[1:] == (20, 20, True)
    stream = DataStream.read_write_underfolder(folder, run_key="r")
    stream.set_output(4, stream[4].deep_set("metadata.label", 9))
    assert ask(folder, 0, "`run:r` == 'written'") == ([4], 20, 20, True)
    assert find(open_dataset(folder), QUERY).is_complete
    others = DataStream.read_write_underfolder(folder).with_input(
        SamplesSequence.from_underfolder(folder)[2:9]
    )
    assert told(others.found(QUERY, most_reads=1)) == ([1, 5], 7, 7, True)


def test_a_save_meanwhile_is_one_file_more_to_read(folder: Place) -> None:
    assert ask(folder, 10)[1] == 10
    stream = DataStream.read_write_underfolder(folder)
    stream.set_output(2, stream[2].deep_set("metadata.label", 3))
    assert ask(folder, 1) == ([2, 3, 7], 10, 20, False)
    assert ask(folder, 11)[3]


def test_items_of_a_query_share_what_may_be_read(folder: Place) -> None:
    make(folder, dict.fromkeys(range(0, 20, 2), "a: 1"), "other")
    assert ask(folder, 22, f"{QUERY} or other.a == 1")[1:] == (12, 20, False)
    assert ask(folder, 8, f"{QUERY} or other.a == 1")[1:] == (20, 20, True)


@pytest.mark.usefixtures("listed_at_once")
def test_broken_files_are_read_once_and_told_each_time(folder: Place) -> None:
    make(folder, dict.fromkeys(range(10), "label: [3"))
    for _ in range(3):
        find(open_dataset(folder), QUERY, most_reads=8)
    found = find(open_dataset(folder), QUERY, most_reads=0)
    assert told(found) == ([11, 15, 19], 20, 20, True)
    assert set(found.problems) == set(range(10))
    assert found.problems[4].startswith(f"{folder}/data/4_metadata.yaml: ")
    assert ask(folder, 0, "not metadata.other")[0] == list(range(20))
    make(folder, {4: "label: 3"})
    assert ask(folder, 0) == ([11, 15, 19], 19, 20, False)
    assert ask(folder, 1) == ([4, 11, 15, 19], 20, 20, True)


@pytest.mark.about_files
def test_what_cannot_be_kept_is_read_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / ".pipestream").mkdir()
    (folder / ".pipestream/catalog").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert ask(folder, 8) == ([3, 7, 11, 15, 19], 20, 20, True)
    assert ask(folder, 0) == ([], 0, 20, False)


@pytest.mark.about_files
def test_of_a_dataset_that_cannot_be_written_it_is_kept_in_a_cache_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPESTREAM_CACHE", str(tmp_path / "cache"))
    with read_only(folder), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(folder, 15)[1] == 15
        assert ask(folder, 15) == ([3, 7, 11, 15, 19], 20, 20, True)
        assert ask(folder, 0)[3]
    assert not (folder / ".pipestream").exists()


READING = """
import sys
from prefect_pipestream.sequences.where import find
from prefect_pipestream.underfolder.opening import open_dataset
while not (found := find(open_dataset(sys.argv[1]), sys.argv[2], most_reads=3)).is_complete:
    assert found.indices.tolist() == [3, 7, 11, 15, 19][: found.known // 4]
print("complete")
"""


@pytest.mark.about_files
def test_another_process_answers_while_one_reads(folder: Path) -> None:
    reading = subprocess.Popen(
        [sys.executable, "-c", READING, str(folder), QUERY], stdout=subprocess.PIPE, text=True
    )
    while reading.poll() is None:
        indices, known, of, is_complete = ask(folder, 0)
        assert indices == [3, 7, 11, 15, 19][: known // 4]
        assert (known, of, is_complete) == (known, 20, known == 20)
    assert reading.communicate()[0] == "complete\n"


_TEXTS = st.sampled_from(["label: 3", "label: 4", "label: [", "3", "{}", "x: {label: 3}"])


_STEPS = st.lists(
    st.tuples(st.dictionaries(st.integers(0, 12), _TEXTS, max_size=6), st.integers(0, 5)),
    max_size=5,
)
_QUERIES = st.sampled_from([QUERY, f"not {QUERY}", "metadata.x.label", "metadata"])


@given(_STEPS, _QUERIES)
@settings(max_examples=40)
def test_a_part_of_the_answer_is_what_is_true_of_the_samples_that_are_known(
    steps: list[tuple[dict[int, str], int]], query: str
) -> None:
    parts_are_true("folder", steps, query)


@pytest.mark.usefixtures("listed_at_once")
@given(_STEPS, _QUERIES)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_of_the_answer_of_a_bucket_is_so(
    steps: list[tuple[dict[int, str], int]], query: str
) -> None:
    parts_are_true("bucket", steps, query)


def parts_are_true(kind: str, steps: list[tuple[dict[int, str], int]], query: str) -> None:
    with temporary_place(kind) as folder:
        make(folder, {})
        for changes, most_reads in steps:
            make(folder, changes)
            part = find(open_dataset(folder, must_exist=False), query, most_reads=most_reads)
            with temporary_place(kind) as copy:
                make(copy, read(folder))
                whole = find(open_dataset(copy, must_exist=False), query)
            assert set(part.indices.tolist()) <= set(whole.indices.tolist())
            assert set(part.problems) <= set(whole.problems)
            assert part.of == whole.of == whole.known
            if part.is_complete:
                assert told(part) == told(whole)
                assert set(part.problems) == set(whole.problems)
            assert len(part.indices) <= part.known
        for _ in range(13):
            part = find(open_dataset(folder, must_exist=False), query, most_reads=1)
        assert part.is_complete


def read(folder: Place) -> dict[int, str]:
    files = Files(folder)
    return {int(name[5:].partition("_")[0]): files[name].decode() for name in files}
