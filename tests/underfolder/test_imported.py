"""The index of imports: whatever happens to a dataset, a name stays with its own sample."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import PipestreamError, UndoRefusedError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import (
    compact,
    list_runs,
    prune_runs,
    undo_run,
)
from prefect_pipestream.underfolder.opening import assign, open_dataset, open_writer
from tests.dataset_files import KINDS, Files, temporary_place
from tests.underfolder.conftest import ended

ORIGIN = "/photos"


class Dataset:
    """A dataset to which names are imported, without Prefect."""

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self._number = 0

    def key(self) -> str:
        self._number += 1
        return f"run-{self._number}"

    def names(self) -> dict[int, str]:
        """The name of each sample."""
        if not any(name.startswith("data/") for name in Files(self.folder)):
            return {}
        there = open_dataset(self.folder)
        return {i: there.read(i)["metadata"]()["file"] for i in there.indices().tolist()}

    def imported(self, names: Sequence[str], failing: Sequence[str] = ()) -> dict[str, int]:
        """Imports names, of which some fail; what is there already is written again."""
        before, key = self.names(), self.key()
        indices = assign(self.folder, key, ORIGIN, names).indices.tolist()
        given = {name: idx for name, idx in zip(names, indices, strict=True) if idx >= 0}
        self.assert_each_is_its_own(before, given)
        writer = open_writer(self.folder, exists_ok=True, run_key=key)
        with writer.staging() as staging:
            for name, idx in given.items():
                if name not in failing:
                    item = JsonMetadataItem({"file": name, "origin": ORIGIN})
                    staging.add(idx, {"metadata": item})
            writer.publish(staging)
        ended(self.folder, key)
        return given

    def assert_each_is_its_own(self, there: dict[int, str], given: dict[str, int]) -> None:
        assert len(set(given.values())) == len(given)
        for name, idx in given.items():
            assert there.get(idx, name) == name, f"{name} would be written over {there[idx]}"
        for idx, name in there.items():
            assert given.get(name, idx) == idx, f"{name} would be there twice"

    def removed(self, idx: int) -> None:
        writer = open_writer(self.folder, exists_ok=True, run_key=self.key())
        with writer.staging() as staging:
            staging.remove(idx)
            writer.publish(staging)
        ended(self.folder, writer.run_key)

    def pruned(self) -> None:
        prune_runs(self.folder, timedelta(0))


@pytest.fixture
def dataset(new_place: Place) -> Dataset:
    return Dataset(new_place)


def test_a_name_has_one_index_after_an_undone_import_was_pruned(dataset: Dataset) -> None:
    dataset.imported("abc")
    undo_run(dataset.folder, "run-1")
    dataset.imported("bc")
    dataset.pruned()
    assert dataset.imported("bc") == {"b": 0, "c": 1}
    assert dataset.names() == {0: "b", 1: "c"}


def test_what_an_undone_undo_brought_back_is_not_written_over(dataset: Dataset) -> None:
    dataset.imported("a")
    undone = undo_run(dataset.folder, "run-1")
    assert dataset.imported("x", failing="x") == {"x": 0}
    undo_run(dataset.folder, undone.undo_run_key)
    assert dataset.imported("ax") == {"a": 0, "x": 1}
    dataset.pruned()
    assert dataset.imported("axy") == {"a": 0, "x": 1, "y": 2}


def test_a_name_that_failed_before_a_compaction_was_undone_gets_another_index(
    dataset: Dataset,
) -> None:
    dataset.imported("abcd")
    dataset.removed(0)
    compaction = compact(dataset.folder)
    assert dataset.imported("bcdx", failing="bcdx") == {"b": 0, "c": 1, "d": 2, "x": 3}
    undo_run(dataset.folder, compaction.run_key)
    assert dataset.imported("bcdx") == {"b": 1, "c": 2, "d": 3, "x": 4}


def test_a_compaction_that_was_pruned_is_still_known(dataset: Dataset) -> None:
    dataset.imported("abcd")
    dataset.removed(0)
    compact(dataset.folder, "nightly")
    dataset.pruned()
    dataset.pruned()
    assert list_runs(dataset.folder) == []
    assert dataset.imported("bcde") == {"b": 0, "c": 1, "d": 2, "e": 3}
    with pytest.raises(PipestreamError, match="no run 'nightly'"):
        undo_run(dataset.folder, "nightly")


def test_what_was_moved_since_is_undone_with_its_move_alone(dataset: Dataset) -> None:
    dataset.imported("abcd")
    dataset.imported("abcde")
    dataset.removed(0)
    compaction = compact(dataset.folder)
    with pytest.raises(UndoRefusedError, match=f"{compaction.run_key}.*moved.*together"):
        undo_run(dataset.folder, "run-2")
    assert dataset.names() == {0: "b", 1: "c", 2: "d", 3: "e"}
    undo_run(dataset.folder, [compaction.run_key, "run-3", "run-2"])
    assert dataset.names() == {0: "a", 1: "b", 2: "c", 3: "d"}


def test_of_two_compactions_the_first_is_not_undone_alone(dataset: Dataset) -> None:
    dataset.imported("abcd")
    dataset.removed(0)
    dataset.removed(2)
    first = compact(dataset.folder)
    dataset.imported("abcde")
    dataset.removed(0)
    second = compact(dataset.folder)
    with pytest.raises(UndoRefusedError, match="moved samples"):
        undo_run(dataset.folder, first.run_key)
    undo_run(dataset.folder, second.run_key)
    assert dataset.imported("bde")["e"] == dataset.imported("bde")["e"]


@pytest.mark.about_files
def test_an_empty_index_is_none(dataset: Dataset) -> None:
    dataset.imported("ab")
    Path(dataset.folder, ".pipestream/imported.jsonl").write_text("")
    assert dataset.imported("abc") == {"a": 0, "b": 1, "c": 2}


SOME = st.sets(st.sampled_from("abcdef"))
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("import"),
            st.sets(st.sampled_from("abcdef")),
            st.sets(st.sampled_from("abcdef")),
        ),
        st.tuples(st.just("remove"), st.integers(0, 6)),
        st.tuples(st.just("compact")),
        st.tuples(st.just("undo"), st.integers(0, 5)),
        st.tuples(st.just("prune")),
    ),
    min_size=3,
    max_size=14,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_whatever_happens_a_name_stays_with_its_sample(
    kind: str,
    steps: list[tuple],  # type: ignore[type-arg]
) -> None:
    with temporary_place(kind) as place:
        dataset = Dataset(place)
        dataset.imported("abc")
        for what, *arguments in steps:
            match what, arguments:
                case "import", [names, failing]:
                    dataset.imported(sorted(names), sorted(failing))
                case "remove", [number]:
                    if idx := [*dataset.names()][number : number + 1]:
                        dataset.removed(idx[0])
                case "compact", []:
                    compact(dataset.folder, dataset.key())
                case "undo", [number]:
                    runs = [run for run in list_runs(dataset.folder) if run.undone is None]
                    if number < len(runs):
                        with suppress(PipestreamError):  # as of what later runs changed
                            undo_run(dataset.folder, runs[-1 - number].run_key)
                case "prune", []:
                    dataset.pruned()
        dataset.imported("abcdefg")
