"""Imports into a dataset and exports of it: the same in a folder and in a bucket."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream import cli
from prefect_pipestream.errors import DatasetError
from prefect_pipestream.exporting import export
from prefect_pipestream.flows import clean_dataset, export_dataset, import_dataset
from prefect_pipestream.layouts import LAYOUTS, LayoutKind
from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import list_runs, undo_run
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.format.names import MAX_INDEX
from prefect_pipestream.underfolder.opening import assign, open_dataset, would_assign
from tests.bucket.stores import ROOT, Meanwhile, process
from tests.layouts.photos import make_photos, needs_datasets, values_of
from tests.layouts.test_all_kinds import READERS, SAMPLES, sample_of, source_in

NUMBERS = itertools.count()


@pytest.fixture(params=["folder", "bucket"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where there is no dataset yet."""
    if request.param == "folder":
        return tmp_path / "parts"
    return Address.of(f"memory://imports-{next(NUMBERS)}/parts")


@pytest.fixture
def photos(tmp_path: Path, prefect_api: None) -> Path:
    return make_photos(tmp_path / "photos", "b.jpg", "d.jpg", "f.jpg")


def imported(photos: Path, dataset: Any, **arguments: Any) -> Any:
    return import_dataset("images", photos, dataset, **arguments)


def files_by_index(dataset: Place) -> dict[int, str]:
    """The file that each sample came from."""
    there = open_dataset(dataset)
    return {idx: there.read(idx)["metadata"]()["file"] for idx in there.indices().tolist()}


def pictures(dataset: Place) -> list[Any]:
    return [sample["image"]().tolist() for sample in SamplesSequence.from_underfolder(dataset)]


def listed(dataset: Place) -> list[str]:
    """The classes that the dataset lists."""
    item = open_dataset(dataset).read_shared()["categories"]
    return [one["name"] for one in item()]


def test_an_import_of_a_key_that_was_undone_is_another_one(photos: Path, dataset: Any) -> None:
    imported(photos, dataset, run_key="import")
    undo_run(dataset, "import")
    (photos / "b.jpg").unlink()
    imported(photos, dataset, run_key="import")
    make_photos(photos, "a.jpg")
    imported(photos, dataset)
    assert files_by_index(dataset) == {0: "d.jpg", 1: "f.jpg", 2: "a.jpg"}
    (undone,) = [run.undone for run in list_runs(dataset) if run.state == "undone"]
    again = max(run.started for run in list_runs(dataset) if run.started)
    assert undone is not None
    assert undone < again


def test_without_its_index_an_import_knows_its_samples_by_their_metadata(
    photos: Path, dataset: Any, tmp_path: Path
) -> None:
    imported(photos, tmp_path / "before")
    SamplesSequence.from_underfolder(tmp_path / "before").to_underfolder(dataset).run()
    make_photos(photos, "a.jpg")
    imported(photos, dataset)
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg", 3: "a.jpg"}


def test_a_query_and_rules_choose_what_comes_in(photos: Path, dataset: Any) -> None:
    report = imported(photos, dataset, where="metadata.name != 'd'")
    assert report.counts["written"] == 2
    assert files_by_index(dataset) == {0: "b.jpg", 2: "f.jpg"}


def test_an_import_of_many_chunks_lists_a_new_class_once(
    tmp_path: Path, dataset: Any, prefect_api: None
) -> None:
    photos = make_photos(tmp_path / "photos", *(f"cat/{idx}.png" for idx in range(60)))
    import_dataset("image-folder", photos, dataset, chunk_size=10)
    make_photos(photos, *(f"ant/{idx}.png" for idx in range(60)))
    report = import_dataset("image-folder", photos, dataset, chunk_size=10)
    assert report.counts["written"] == 60
    assert listed(dataset) == ["cat", "ant"]
    said = [sample["metadata"]() for sample in SamplesSequence.from_underfolder(dataset)]
    assert [one["label"] for one in said] == ["cat"] * 60 + ["ant"] * 60
    assert import_dataset("image-folder", photos, dataset).total == 0


@pytest.mark.parametrize("kind", [*LAYOUTS])
def test_each_layout_goes_in_and_out_again(
    kind: LayoutKind, dataset: Any, tmp_path: Path, prefect_api: None
) -> None:
    needs_datasets(kind)
    samples = SamplesSequence.from_list([sample_of(tmp_path, idx) for idx in range(SAMPLES)])
    export(samples, kind, tmp_path / "given")
    given = source_in(tmp_path / "given", kind)
    report = import_dataset(kind, given, dataset, options={"origin": "given"})
    assert report.counts["written"] == SAMPLES
    assert import_dataset(kind, given, dataset, options={"origin": "given"}).total == 0
    clean_dataset(dataset, ["drop-blank-images"])

    out = export_dataset(dataset, kind, tmp_path / "out")

    assert out.samples == SAMPLES - 1
    assert sorted(READERS[kind](tmp_path / "out")) == ["cat", "cat", "dog", "dog", "dog"]
    again = tmp_path / "again"
    source = source_in(tmp_path / "out", kind)
    import_dataset(kind, source, again, options={"origin": "given"})
    assert all_said(again, kind) == all_said(dataset, kind)


def all_said(dataset: Place, kind: str) -> list[dict[str, Any]]:
    """What the samples say, but for where they stand."""
    samples = [s for s in SamplesSequence.from_underfolder(dataset) if "image" in s]
    found = [values_of(sample) for sample in samples]
    for one in found if kind == "hf" else ():  # a row is called by its number
        one["metadata"].pop("file")
        one["metadata"].pop("name")
    return found


def test_an_export_links_nothing_of_a_bucket_and_copies_it_as_it_is(
    photos: Path, dataset: Any, tmp_path: Path
) -> None:
    imported(photos, dataset)
    export_dataset(dataset, "images", tmp_path / "out", {"link": True})
    for name in ("b.jpg", "d.jpg", "f.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (photos / name).read_bytes()


def test_an_export_to_an_address_is_refused(photos: Path, dataset: Any) -> None:
    imported(photos, dataset)
    with pytest.raises(DatasetError, match="written to a folder of this machine"):
        export_dataset(dataset, "images", Path("memory://exports/out"))


def test_a_person_imports_and_exports_by_commands(
    photos: Path, dataset: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", "images", str(photos), str(dataset), "--run-key", "run"]) == 0
    assert f"pipestream undo {dataset} run" in capsys.readouterr().out
    assert cli.main(["export", "images", str(dataset), str(tmp_path / "out")]) == 0
    assert "3 samples written" in capsys.readouterr().out
    assert cli.main(["undo", str(dataset), "run"]) == 0
    assert not files_by_index(dataset)


# -- which sample came from what -----------------------------------------------------------


def assigned(dataset: Place, names: str, run_key: str = "run", **options: Any) -> list[int]:
    found = assign(dataset, run_key, "/photos", list(names), **options)
    return found.indices.tolist()  # type: ignore[no-any-return]


def test_names_have_the_indices_that_they_had(dataset: Any) -> None:
    assert would_assign(dataset, "run", "/photos", list("ab")).indices.tolist() == [0, 1]
    assert assigned(dataset, "bc") == [0, 1]
    assert assigned(dataset, "abc", "next") == [2, 0, 1]
    assert would_assign(dataset, "x", "/photos", list("cd")).indices.tolist() == [1, 3]
    assert assign(dataset, "x", "/others", list("a")).indices.tolist() == [3]
    stream = DataStream.read_write_underfolder(dataset)
    assert len(stream) == 0


def held_up_at_each(work: Callable[[], None], other: Callable[[], None]) -> Any:
    """The objects after some work that is held up at its n-th request, while another is done."""
    for number in itertools.count(1):
        objects = MemoryStore()
        another = Meanwhile(objects, other)
        with process(objects, at=number, happens=another):
            work()
        if not another.did:
            assert number > 5
            return
        yield objects


def test_who_imports_at_the_same_time_gets_other_indices_and_the_same_for_a_name() -> None:
    found: dict[str, list[int]] = {}

    def one() -> None:
        found["abc"] = assigned(ROOT, "abc", "one")

    def other() -> None:
        found["cbx"] = assigned(ROOT, "cbx", "other")

    for objects in held_up_at_each(one, other):
        by_name = dict(zip("abc", found["abc"], strict=True))
        same = dict(zip("cbx", found["cbx"], strict=True))
        assert {name: same[name] for name in "bc"} == {name: by_name[name] for name in "bc"}
        assert sorted({*by_name.values(), *same.values()}) == [0, 1, 2, 3]
        with process(objects):
            assert assigned(ROOT, "abcx", "third") == [*found["abc"], same["x"]]


def test_a_log_that_says_nonsense_of_imports_is_an_error_of_the_dataset() -> None:
    address = Address.of(f"memory://imports-{next(NUMBERS)}/parts")
    assigned(address, "ab")
    store, key = open_store(address), ".pipestream/log/000000000001.json"
    entry = json.loads(store.read(key).data)
    assert Entry.from_bytes(json.dumps(entry).encode()).imported[0].names == ["a", "b"]
    (line,) = entry["imported"]
    wrong: list[Any] = [
        *(3, {}, "ab", [3], ["ab"], [[]], [None]),
        *([{**line, name: bad}] for name in line for bad in (None, -1, {}, "x", 1e99, [1, [2]])),
        [{**line, "more": 1}],
        [{"run": "run"}],
        [{**line, "first": None, "indices": [1]}],
    ]
    for said in wrong:
        if said in ([{**line, "run": "x"}], [{**line, "origin": "x"}], [line]):
            continue
        store.put(key, json.dumps({**entry, "imported": said}).encode())
        with pytest.raises(DatasetError, match="this entry of the log cannot be read"):
            assigned(address, "c")


def test_an_index_far_out_is_no_index() -> None:
    address = Address.of(f"memory://imports-{next(NUMBERS)}/parts")
    assigned(address, "ab")
    store, key = open_store(address), ".pipestream/log/000000000001.json"
    entry = json.loads(store.read(key).data)
    entry["imported"][0]["first"] = MAX_INDEX - 1
    store.put(key, json.dumps(entry).encode())
    with pytest.raises(DatasetError, match="too high"):
        assigned(address, "abcdef")


def test_images_of_a_bucket_are_those_of_their_source(photos: Path, dataset: Any) -> None:
    imported(photos, dataset, link=False)
    there = [np.asarray(one) for one in pictures(dataset)]
    given = [sample["image"]() for sample in SamplesSequence.from_images(photos)]
    assert all((one == other).all() for one, other in zip(there, given, strict=True))
