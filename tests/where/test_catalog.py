"""Queries of a dataset's folder, and what is kept for them."""

import datetime
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import PipeBuildingError, QueryError, RunNotFoundError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.sequences.where import find
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import check
from prefect_pipestream.underfolder.catalog import catalog as catalog_module
from prefect_pipestream.underfolder.opening import open_dataset
from tests.dataset_files import (
    KINDS,
    Files,
    content_of,
    has_private_files,
    temporary_place,
)


def put(
    folder: Place, idx: int, value: Any, extension: str = "yaml", key: str = "metadata"
) -> Place:
    name = f"data/{idx:04d}_{key}.{extension}"
    text = json.dumps(value) if extension == "json" else yaml.safe_dump(value)
    Files(folder)[name] = text.encode()
    return folder / name


def age(folder: Place) -> None:
    """Makes files as old as those are that nobody is writing just now."""
    for at, path in enumerate(sorted(Path(folder, "data").glob("*"))):
        os.utime(path, ns=(1_600_000_000_000_000_001 + at,) * 2)


@pytest.fixture
def folder(new_place: Place) -> Place:
    for idx in range(20):
        value = {"label": idx % 4, "name": f"n{idx}"}
        put(new_place, idx, value, "json" if idx % 3 else "yaml")
    age(new_place)
    return new_place


def ask(folder: Place, query: str) -> list[int]:
    return [int(idx) for idx in find(open_dataset(folder), query).indices]


def loop(folder: Place, query: str) -> list[int]:
    dataset = SamplesSequence.from_underfolder(folder)
    return [int(idx) for idx in dataset.indices() if dataset[int(idx)].match(query)]


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read from here on."""
    seen: list[str] = []
    real = catalog_module.read_documents

    def noting(folder: str, names: Any) -> Any:
        seen.extend(names)
        return real(folder, names)

    monkeypatch.setattr(catalog_module, "read_documents", noting)
    return seen


@pytest.mark.about_files
def test_what_is_kept_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    assert ask(folder, "metadata.label == 3") == [3, 7, 11, 15, 19]
    assert len(seen) == 20
    assert ask(folder, "metadata.label == 3") == [3, 7, 11, 15, 19]
    assert ask(folder, "metadata.name == 'n5' or metadata.label > 9") == [5]
    assert len(seen) == 20
    put(folder, 5, {"label": 3}, "json")
    put(folder, 33, {"label": 3}, "json")
    (folder / "data" / "0003_metadata.yaml").unlink()
    assert ask(folder, "metadata.label == 3") == [5, 7, 11, 15, 19, 33]
    assert len(seen) == 22


@pytest.mark.about_files
def test_only_items_that_are_named_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Files(folder)["data/0004_other.yaml"] = b"{"
    Files(folder)["data/0004_image.png"] = b"no image"
    seen = reads(monkeypatch)
    assert ask(folder, "has other and not has mask and has image") == [4]
    assert seen == []
    assert ask(folder, "not image and metadata.label == 0") == [0, 8, 12, 16]


@pytest.mark.about_files
def test_a_change_within_the_clocks_tick_is_seen(folder: Path) -> None:
    path = folder / "data" / "0005_metadata.json"
    for value in range(30):
        path.write_text(json.dumps({"label": value % 10 + 10}))
        assert ask(folder, f"metadata.label == {value % 10 + 10}") == [5]


@pytest.mark.about_files
def test_a_file_of_the_same_size_and_time_in_another_ones_place_is_seen(folder: Path) -> None:
    assert ask(folder, "metadata.label == 1") == [1, 5, 9, 13, 17]
    path = folder / "data" / "0005_metadata.json"
    old, fresh = path.stat(), path.with_suffix(".new")
    fresh.write_text(path.read_text().replace("1", "2", 1))
    os.utime(fresh, ns=(old.st_atime_ns, old.st_mtime_ns))
    fresh.rename(path)
    assert path.stat().st_size == old.st_size
    assert ask(folder, "metadata.label == 1") == [1, 9, 13, 17]
    # Two samples that change places, and a file that gets another extension.
    path.rename(path.with_suffix(".yaml"))
    assert ask(folder, "metadata.label == 2") == loop(folder, "metadata.label == 2")
    seven, eight = (folder / "data" / f"000{n}_metadata.json" for n in (7, 8))
    aside = folder / "aside"
    seven.rename(aside), eight.rename(seven), aside.rename(eight)
    assert ask(folder, "metadata.label == 3") == loop(folder, "metadata.label == 3")


def test_our_own_commits_are_seen(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder)
    assert stream.indices(where="metadata.label == 2").tolist() == [2, 6, 10, 14, 18]
    stream.set_output(6, stream[6].set_value("metadata", {"label": 5}))
    stream.remove(10)
    stream.set_output(25, stream[2])
    assert stream.indices(where="metadata.label == 2").tolist() == [2, 14, 18, 25]
    assert ask(folder, "metadata.label == 2") == [2, 14, 18, 25]


def test_shared_items_count_where_a_sample_has_none_of_its_own(folder: Place) -> None:
    Files(folder)["camera.yaml"] = b"model: X1\n"
    put(folder, 3, {"model": "Z9"}, key="camera")
    assert ask(folder, "camera.model == 'X1'") == [n for n in range(20) if n != 3]
    assert ask(folder, "camera.model == 'Z9' and has camera") == [3]
    Files(folder)["camera.yaml"] = b"model: Z9\n"
    assert len(ask(folder, "camera.model == 'Z9'")) == 20
    without = open_dataset(folder, merge_root_items=False)
    assert find(without, "has camera").indices.tolist() == [3]


def test_what_cannot_be_read_counts_as_no_value_and_is_told(folder: Place) -> None:
    Files(folder)["data/0003_metadata.yaml"] = b"label: [3"
    if is_address(folder):
        Files(folder)["data/0007_metadata.json"] = b"{"
    else:
        Path(folder, "data/0007_metadata.json").unlink()
        Path(folder, "data/0007_metadata.json").symlink_to("nowhere.json")
    put(folder, 11, {"label": 3}, "toml")
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    Files(folder)["data/0015_metadata.yaml"] = bomb.encode()
    for _ in range(2):
        found = find(open_dataset(folder), "metadata.label == 3")
        assert found.indices.tolist() == [19]
        assert set(found.problems) == {3, 7, 11, 15}
        assert "two files" in found.problems[11]
        assert "4 samples" in str(found.warning())
    with pytest.warns(UserWarning, match="sample 3"):
        assert len(SamplesSequence.from_underfolder(folder).where("metadata.label == 3")) == 1


@pytest.mark.about_files
@pytest.mark.parametrize(
    ("one", "times"),
    [
        ("x" * 100_000, 10_000),
        ({"k" * 1_000: 1}, 60_000),
        ({str(n): n for n in range(99)}, 99_999),
    ],
)
def test_a_small_file_that_stands_for_a_large_value_is_not_searched(
    tmp_path: Path, one: Any, times: int
) -> None:
    path = put(tmp_path, 0, None)
    path.write_text(f"label: &a {json.dumps(one)}\nothers: [{', '.join(['*a'] * times)}]\n")
    found = find(open_dataset(tmp_path), "metadata.label")
    assert "takes more than" in found.problems[0]


def test_looking_into_what_is_no_metadata_is_refused(folder: Place) -> None:
    Files(folder)["data/0004_image.png"] = b"no image"
    for query in ("image.shape == 3", "image == 3", "has image.shape"):
        with pytest.raises(QueryError, match=r"0004_image\.png, which is no metadata"):
            ask(folder, query)
    for query in ("metadata.label = 3", "'metadata' == 3"):
        with pytest.raises(PipeBuildingError, match="column"):
            ask(folder, query)
        with pytest.raises(PipeBuildingError, match="column"):
            SamplesSequence.from_underfolder(folder).where(query)
    assert not has_private_files(folder)


def test_the_pipe_tells_the_sources_indices(folder: Place) -> None:
    chosen = SamplesSequence.from_underfolder(folder).where("metadata.label == 3")
    assert chosen.source_indices.tolist() == [3, 7, 11, 15, 19]  # type: ignore[attr-defined]
    assert [sample["metadata"]()["name"] for sample in chosen] == ["n3", "n7", "n11", "n15", "n19"]
    again = SamplesSequence.from_underfolder(folder)[2:9].where("metadata.label == 3")
    assert again.source_indices.tolist() == [1, 5]  # type: ignore[attr-defined]


def test_in_another_sequence_a_sample_that_does_not_decode_is_not_found(folder: Place) -> None:
    Files(folder)["data/0003_metadata.yaml"] = b"["
    chosen = SamplesSequence.from_underfolder(folder)[:8].where("metadata.label == 3")
    with pytest.warns(UserWarning, match=r"1 samples .* sample 3"):
        assert len(chosen) == 1
    assert chosen.source_indices.tolist() == [7]  # type: ignore[attr-defined]


def test_outcomes_in_a_run(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key="night.1")
    for idx in (2, 4):
        stream.set_output(idx, stream[idx].set_value("metadata", {"label": 9}))
    stream.remove(6)
    assert ask(folder, "`run:night.1` == 'written'") == [2, 4]
    assert ask(folder, "not has `run:night.1` and metadata.label == 2") == [10, 14, 18]
    with pytest.raises(RunNotFoundError):
        ask(folder, "`run:other` == 'written'")


# -- forged and damaged ------------------------------------------------------------------------


@pytest.mark.about_files
@pytest.mark.parametrize("name", ["rows.npz", "documents.npz", "path"])
def test_damaged_files_of_the_catalog_are_made_anew(folder: Path, name: str) -> None:
    expected = ask(folder, "metadata.label == 3")
    (path,) = (folder / ".pipestream" / "catalog").rglob(f"{name}*")
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole.replace(b"label", b"lobel"), b"PK" * 99):
        path.write_bytes(content)
        assert ask(folder, "metadata.label == 3") == expected
        assert ask(folder, "metadata.name == 'n3'") == [3]
    path.write_bytes(b"damage")
    assert [problem.kind for problem in check(folder, fix=True).problems] == ["unreadable-record"]
    assert not check(folder).problems


def _forged(path: Path, **changes: Any) -> None:
    with np.load(path) as arrays:
        columns = dict(arrays)
    columns.update(changes)
    with path.open("wb") as file:
        np.savez(file, **columns)


@pytest.mark.about_files
@pytest.mark.parametrize(
    ("name", "column", "content"),
    [
        ("rows.npz", "code", np.full(20, 10**12)),
        ("rows.npz", "code", np.full(20, -3)),
        ("rows.npz", "code", np.zeros(3, np.int64)),
        ("rows.npz", "idx", np.zeros(20, np.int64)),
        ("rows.npz", "tails", np.frombuffer(b'{"a": 1}', np.uint8)),
        ("rows.npz", "documents", np.array([10**15])),
        ("documents.npz", "text", np.frombuffer(b"[" * 100_000, np.uint8)),
        ("documents.npz", "ends", np.arange(20)[::-1].copy()),
        ("path-*.npz", "code", np.full(20, 10**12)),
        ("path-*.npz", "values", np.frombuffer(b"[" * 100_000, np.uint8)),
        ("path-*.npz", "values", np.frombuffer(b'[{"$bytes": 3}]', np.uint8)),
        ("path-*.npz", "values", np.frombuffer(b"[1, 2, 3, 4]", np.uint8)),
    ],
)
def test_forged_columns_are_made_anew(folder: Path, name: str, column: str, content: Any) -> None:
    expected = ask(folder, "metadata.label == 3")
    (path,) = (folder / ".pipestream" / "catalog").rglob(name)
    _forged(path, **{column: content})
    assert ask(folder, "metadata.label == 3") == expected
    assert ask(folder, "metadata.name == 'n3'") == [3]


@pytest.mark.about_files
def test_forged_documents_of_the_right_lengths_are_read_anew(folder: Path) -> None:
    expected = ask(folder, "metadata.label == 3")
    (path,) = (folder / ".pipestream" / "catalog").rglob("documents.npz")
    with np.load(path) as arrays:
        length = len(arrays["text"])
    _forged(path, text=np.frombuffer(b"1," * (length // 2) + b"1" * (length % 2), np.uint8))
    assert ask(folder, "metadata.name == 'n3'") == [3]
    assert ask(folder, "metadata.label == 3") == expected


@pytest.mark.about_files
def test_a_link_in_the_catalogs_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (folder / ".pipestream").mkdir()
    (folder / ".pipestream" / "catalog").symlink_to(away)
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert ask(folder, "metadata.label == 3") == [3, 7, 11, 15, 19]
    assert list(away.iterdir()) == []


@pytest.mark.about_files
def test_a_dataset_that_may_not_be_written_can_be_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("prefect_pipestream.underfolder.catalog.kept.write_anew", refused)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(folder, "metadata.label == 3") == [3, 7, 11, 15, 19]


# -- many ----------------------------------------------------------------------------------------


@pytest.mark.about_files
def test_processes_read_what_a_loop_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_pipestream.underfolder.catalog.reading._WORTH_A_PROCESS", 5)
    monkeypatch.setattr("prefect_pipestream.underfolder.catalog.reading.usable_cores", lambda: 3)
    put(folder, 2, {"label": datetime.date(2020, 1, 1), 3: {1, 2}, "b": b"\0"})
    (folder / "data" / "0002_metadata.json").unlink()
    Files(folder)["data/0004_metadata.json"] = b"{"
    found = find(open_dataset(folder), "metadata.label == 3")
    assert found.indices.tolist() == [3, 7, 11, 15, 19]
    assert list(found.problems) == [4]
    assert ask(folder, "metadata.label < now and metadata.b == 'x'") == []


_ASK = """
import sys
from prefect_pipestream.sequences.where import find
from prefect_pipestream.underfolder import Underfolder
for n in range(15):
    print(find(Underfolder(sys.argv[1]), sys.argv[2]).indices.tolist())
"""


@pytest.mark.about_files
def test_two_processes_at_once(folder: Path) -> None:
    queries = ["metadata.label == 3", "metadata.name == 'n3'"]
    command = [sys.executable, "-c", _ASK, str(folder)]
    asking = [
        subprocess.Popen([*command, query], stdout=subprocess.PIPE, text=True) for query in queries
    ]
    for n in range(200):
        put(folder, 40, {"label": 10 + n})
    said = [one.communicate(timeout=120)[0].splitlines() for one in asking]
    assert said == [["[3, 7, 11, 15, 19]"] * 15, ["[3]"] * 15]
    assert ask(folder, "metadata.label == 209") == [40]


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=True)
    | st.sampled_from(["", "a", "ab", "é", "$date"])
    | st.dates(datetime.date(2000, 1, 1), datetime.date(2001, 1, 1))
    | st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2001, 1, 1))
    | st.binary(max_size=2)
)
_KEYS = st.sampled_from(["a", "b", "$set", "now"]) | st.integers(0, 2)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)
_PATHS = st.sampled_from(["m", "m.a", "m.b", "m.a.b", "`m.$set`", "n.a", "`m.now`", "x"])
_CONSTANTS = st.sampled_from(
    ["1", "-2", "0.5", "'a'", "''", "TRUE", "NULL", "NOW", "[1, 'a', m.b]"]
)
_TESTS = (
    st.tuples(_PATHS, st.sampled_from(["==", "!=", "<", ">=", "contains"]), _CONSTANTS | _PATHS)
    | st.tuples(_PATHS, st.just("in"), st.sampled_from(["[1, 'a']", "m.b", "'ab'"]))
    | st.tuples(_PATHS, st.just("like"), st.just("'a*'"))
    | st.tuples(_PATHS, st.just("match"), st.just("/a.?/"))
    | st.tuples(st.sampled_from(["has", ""]), _PATHS)
).map(" ".join)
_QUERIES = st.recursive(
    _TESTS,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(
            lambda parts: f"({''.join(parts)})"
        )
        | inner.map("not ({})".format)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    rounds=st.lists(
        st.dictionaries(st.integers(0, 6), st.none() | _VALUES, max_size=5), min_size=1, max_size=3
    ),
    shared=st.none() | _VALUES,
    queries=st.lists(_QUERIES, min_size=1, max_size=4),
)
def test_the_answer_is_that_of_a_loop(
    kind: str,
    rounds: list[dict[int, Any]],
    shared: Any,
    queries: list[str],
) -> None:
    with temporary_place(kind) as folder:
        files = Files(folder)
        files["data/9_none.yaml"] = b"{}"  # where no object is, there is no dataset
        if shared is not None:
            files["n.yaml"] = content_of(YamlMetadataItem(shared))
        for changes in rounds:
            for idx, value in changes.items():
                name = f"data/{idx}_{'n' if idx % 3 == 2 else 'm'}.yaml"
                files.pop(name, None)
                if value is not None:
                    files[name] = content_of(YamlMetadataItem(value))
            for query in queries:
                assert ask(folder, query) == loop(folder, query)
