"""Some samples of a run are taken back, or it is said what would be: in both places."""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import DatasetError, UndoRefusedError
from prefect_pipestream.items import JsonMetadataItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import Store
from prefect_pipestream.underfolder import (
    UndoPlan,
    UndoReport,
    list_runs,
    plan_undo,
    undo_run,
)
from tests.bucket.stores import ROOT, Meanwhile, md5, process
from tests.bucket.test_killed import (
    add_one,
    add_one_to_all,
    as_by_log,
    killed_at_each,
    put_around,
    seen,
)

NUMBERS = itertools.count()
SAMPLES = 6


def made_at(place: Place) -> Place:
    """Some samples of a number, each with a text beside it."""
    made = DataStream.create_new_underfolder(place, run_key="make")
    with made.commit_group() as batch:
        for number in range(SAMPLES):
            text = YamlMetadataItem(f"text {number}")
            batch.set_output(number, Sample({"n": JsonMetadataItem(number), "text": text}))
    return place


def bucket() -> Address:
    return Address.of(f"memory://part-{next(NUMBERS)}/parts")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return made_at(bucket() if request.param == "bucket" else tmp_path / "parts")


def add_ten(place: Place, run_key: str = "run", indices: range = range(SAMPLES)) -> list[int]:
    """Adds ten to the samples that the run has not done; returns which."""
    stream = DataStream.read_write_underfolder(place, run_key=run_key)
    done = stream.run.done_indices()
    todo = [idx for idx in indices if idx not in done]
    with stream.commit_group(count=4, seconds=1000) as group:
        for idx in todo:
            sample = stream[idx]
            group.set_output(idx, sample.set_value("n", sample["n"]() + 10))
    return todo


def values(place: Place) -> list[int]:
    stream = DataStream.read_write_underfolder(place)
    return [stream[int(idx)]["n"]() for idx in stream.indices()]


def done(place: Place, run_key: str = "run") -> set[int]:
    return DataStream.read_write_underfolder(place, run_key=run_key).run.done_indices()


def test_the_rest_is_undone_too_and_all_of_it_given_back(place: Place) -> None:
    add_ten(place)
    part = undo_run(place, "run", indices=[0, 1])
    add_ten(place, "other", range(2))
    whole = undo_run(place, "run")
    assert whole.samples == SAMPLES - 2
    assert values(place) == [10, 11, 2, 3, 4, 5]
    with pytest.raises(UndoRefusedError, match="cannot come back in part"):
        undo_run(place, part.undo_run_key)
    undo_run(place, "other")
    undo_run(place, whole.undo_run_key)
    assert values(place) == [0, 1, 12, 13, 14, 15]
    undo_run(place, part.undo_run_key)
    assert values(place) == [10, 11, 12, 13, 14, 15]


def test_one_write_of_a_sample_that_was_taken_back_is_not_undone_once_more(place: Place) -> None:
    stream = DataStream.read_write_underfolder(place, run_key="run")
    (first,) = stream.set_output(0, stream[0].set_value("n", 10))
    undo_run(place, "run", indices=[0])
    add_ten(place, "other", range(1))
    assert first.commit_id is not None
    assert stream.undo(first.commit_id).files == 0
    assert values(place)[0] == 10


# -- plans -----------------------------------------------------------------------------------


def content_of(place: Place) -> dict[str, bytes]:
    if isinstance(place, Path):
        private = place / ".pipestream" / "runs"
        files = [p for p in place.rglob("*") if p.is_file()]
        own = [p for p in files if p.is_relative_to(private) or ".pipestream" not in p.parts]
        return {str(p): p.read_bytes() for p in own}
    from prefect_pipestream.storage.store import open_store

    store = open_store(place)
    return {stat.key: store.read(stat.key).data for stat in store.objects_in("")}


def test_a_plan_says_what_would_be_done_and_does_nothing(place: Place) -> None:
    add_ten(place)
    add_ten(place, "other", range(1, 2))
    before = content_of(place)
    plan = plan_undo(place, "run")
    assert plan.refusal is not None
    assert "use `--force`" in plan.refusal
    assert plan.changed == {1: ("1_n.json",)}
    assert plan.samples == {idx: (f"{idx}_n.json",) for idx in range(SAMPLES)}
    assert (plan.undo_run_key, plan.files, plan.lost) == ("undo:run", SAMPLES, ())
    part = plan_undo(place, "run", indices=[3, 2])
    assert (part.refusal, part.indices, list(part.samples)) == (None, (2, 3), [2, 3])
    nothing = plan_undo(place, "other", indices=[3])
    assert nothing.refusal is not None
    assert "nothing of sample 3" in nothing.refusal
    assert plan_undo(place, "run", force=True).refusal is None
    assert content_of(place) == before
    assert undo_run(place, "run", indices=[2, 3]).samples == 2


def worked_on(place: Place) -> tuple[list[UndoReport], list[UndoPlan]]:
    """What is told of many undos and plans, one after the other."""
    reports: list[UndoReport] = []
    plans: list[UndoPlan] = []

    def undo(*runs: str, **options: Any) -> None:
        plans.append(plan_undo(place, list(runs), **options))
        reports.append(undo_run(place, list(runs), **options))

    add_ten(place)
    stream = DataStream.read_write_underfolder(place, run_key="mixed")
    with stream.commit_group() as batch:
        batch.remove(5)
        batch.set_output(0, stream[0].set_item("n", YamlMetadataItem(3)))
        new = Sample({"n": JsonMetadataItem(7), "all": JsonMetadataItem(1, shared=True)})
        batch.set_output(7, new)
    plans.append(plan_undo(place, "run"))
    undo("run", "mixed", indices=[0, 5])
    undo("run", indices=[1])
    undo("mixed")
    undo("run", force=True)
    undo("undo:run#2")
    undo("undo:undo:run#2")
    return reports, plans


def test_what_is_told_is_the_same_in_both_places(tmp_path: Path) -> None:
    places = (made_at(tmp_path / "parts"), made_at(bucket()))
    (told, other), ends = [worked_on(place) for place in places], list(map(values, places))
    assert ends[0] == ends[1]
    for here, there in zip(itertools.chain(*told), itertools.chain(*other), strict=True):
        assert as_told(here, places[0]) == as_told(there, places[1])


def as_told(said: UndoReport | UndoPlan, place: Place) -> dict[str, Any]:
    """A report, without where and when."""
    facts = asdict(said)
    folders = facts.pop("folders", ())
    refusal = facts.pop("refusal", None)
    known = [name.split("~")[0] for name in folders]
    return {**facts, "folders": known, "refusal": refusal and refusal.replace(str(place), "")}


# -- killed, and beside others ---------------------------------------------------------------


@pytest.mark.slow
@md5
def test_one_that_is_killed_at_any_request_is_whole_or_nothing(md5: bool) -> None:
    def undo() -> None:
        undo_run(ROOT, "run", indices=[1, 2])

    outcomes = set()
    for objects in killed_at_each(undo, md5, before=add_one_to_all):
        found = as_by_log(objects, md5)
        assert found in ([(1, 1)] * 4, [(1, 1), (0, 0), (0, 0), (1, 1)])
        is_done = found[1] == (0, 0)
        outcomes.add(is_done)
        with process(objects, md5=md5) as store:
            assert done(ROOT) == ({0, 3} if is_done else {0, 1, 2, 3})
            if not is_done:
                undo()
            DataStream.read_write_underfolder(ROOT)  # finishes what is left of it
            numbers = {name: content.strip() for name, content in seen(store).items()}
            assert {n[0]: c for n, c in numbers.items()} == dict(
                zip("0123", [b"1", b"0", b"0", b"1"], strict=True)
            )
            undo_run(ROOT, "undo:run")
        assert as_by_log(objects, md5) == [(1, 1)] * 4
    assert outcomes == {True, False}


@pytest.mark.parametrize("idx", [0, 1])
def test_another_process_that_commits_meanwhile_loses_nothing(idx: int) -> None:
    for number in itertools.count(1):
        objects = MemoryStore()
        put_around(objects)
        with process(objects):
            add_one_to_all()
        another = Meanwhile(objects, lambda: add_one(idx))
        is_refused = False
        with process(objects, at=number, happens=another):
            try:
                undo_run(ROOT, "run", indices=[1, 2])
            except UndoRefusedError:
                is_refused = True
        if not another.did:
            break
        found = as_by_log(objects, False)
        if idx == 0:
            assert found == [(2, 2), (0, 0), (0, 0), (1, 1)]
        else:  # refused, or before it, or the write was made of what the undo left
            assert found[1] == ((2, 2) if is_refused else (1, 1)), f"request {number}"
            assert found[2] == ((1, 1) if is_refused else (0, 0))
        with process(objects) as store:
            assert {name: int(content) for name, content in seen(store).items()} == {
                f"{i}_{key}.json": value[0]
                for i, value in enumerate(found)
                for key in ("left", "right")
            }
    assert number > 5


# -- what a log may say ----------------------------------------------------------------------


def last_entry(store: Store) -> tuple[str, dict[str, Any]]:
    *_, last = store.objects_in(".pipestream/log")
    return last.key, json.loads(store.read(last.key).data)


FORGED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a folder elsewhere": lambda taken: taken.update({"../..": {"x": [1]}}),
    "a commit elsewhere": lambda taken: taken.update({"run": {"../x": [1]}}),
    "an index that is none": lambda taken: taken.update({"run": {"x": [-1]}}),
    "a text for an index": lambda taken: taken.update({"run": {"x": ["1"]}}),
    "no list": lambda taken: taken.update({"run": {"x": 1}}),
    "a long name": lambda taken: taken.update({"x" * 300: {"x": [1]}}),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_note_is_refused(what: str) -> None:
    with process(MemoryStore()) as store:
        made_at(ROOT)
        add_ten(ROOT)
        undo_run(ROOT, "run", indices=[1])
        key, entry = last_entry(store)
        FORGED[what](entry["taken_back"])
        store.put(key, json.dumps(entry).encode())
        with pytest.raises(DatasetError, match="cannot be read"):
            DataStream.read_write_underfolder(ROOT)


def test_a_note_of_runs_and_samples_that_there_are_not_takes_nothing_back() -> None:
    with process(MemoryStore()) as store:
        made_at(ROOT)
        add_ten(ROOT)
        undo_run(ROOT, "run", indices=[1])
        key, entry = last_entry(store)
        entry["taken_back"] = {"no-run": {"c": [1]}, "run": {"no-commit": [0, 77]}}
        store.put(key, json.dumps(entry).encode())
        assert done(ROOT) == set(range(SAMPLES))
        assert {run.run_key for run in list_runs(ROOT)} == {"make", "run", "undo:run"}
        undo_run(ROOT, "undo:run")
        assert values(ROOT) == [10, 11, 12, 13, 14, 15]


def test_names_in_a_forged_commit_lead_nowhere() -> None:
    with process(MemoryStore()) as store:
        made_at(ROOT)
        add_ten(ROOT, indices=range(1))
        key, entry = last_entry(store)
        sample = entry["commit"]["samples"][0]
        sample["removes"] = ["0_text.yaml", "a\nb", "/x"]
        store.put(key, json.dumps(entry).encode())
        assert undo_run(ROOT, "run").files == 1
        assert values(ROOT) == list(range(SAMPLES))
        assert {s.key.split("/")[0] for s in store.objects_in("")} == {"data", ".pipestream"}
