"""Runs that took turns on the same samples are undone together, exactly."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.__main__ import main
from prefect_pipestream.errors import RunKeyError, RunNotFoundError, UndoRefusedError
from prefect_pipestream.items import Item
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import undo_run
from tests.dataset_files import Files, made_at, temporary_place

from .conftest import ended, make_dataset, run_of, strays
from .test_undo import entries, image, items_of, jpeg, states, write, writer_of


def take_turns(folder: Place) -> None:
    """Two runs, each of which wrote the last state of one sample that the other wrote too."""
    a, b = writer_of(folder, "a"), writer_of(folder, "b")
    a.write(1, {"image": image(10)})
    b.write(1, {"image": jpeg(20)})
    b.write(2, {"image": image(20)})
    a.write(2, {"image": jpeg(30)})


def do_as_told(refusal: UndoRefusedError) -> int:
    """Runs the command that a refusal names: its exit status."""
    command = re.search("`(pipestream undo .*?)`", str(refusal))
    assert command is not None
    return main(shlex.split(command[1])[1:])


@pytest.mark.parametrize("keys", [["a", "b"], ["b", "a"], ["a", "b", "a"]])
@pytest.mark.parametrize("force", [False, True])
def test_undone_together_they_have_never_been(dataset: Place, keys: list[str], force: bool) -> None:
    before = entries(dataset)
    take_turns(dataset)
    after = entries(dataset)
    report = undo_run(dataset, keys, force=force)
    assert entries(dataset) == before
    assert report.run_keys == ("a", "b")
    assert report.undo_run_key == "undo:a,b"
    assert (report.samples, report.overwritten) == (2, ())
    assert states(dataset) == {"a": "undone", "b": "undone", "undo:a,b": "finished"}
    undo_run(dataset, "undo:a,b")
    assert entries(dataset) == after
    assert run_of(dataset, "a").done_indices() == run_of(dataset, "b").done_indices() == {1, 2}
    undo_run(dataset, "undo:undo:a,b")
    assert entries(dataset) == before
    assert states(dataset)["a"] == states(dataset)["b"] == "undone"
    assert strays(dataset) == []


@pytest.mark.parametrize("key", ["a", "b"])
def test_alone_the_message_names_the_other_and_the_command_that_undoes_both(
    dataset: Place, key: str
) -> None:
    before = entries(dataset)
    take_turns(dataset)
    after = entries(dataset)
    other = "b" if key == "a" else "a"
    with pytest.raises(UndoRefusedError, match=f"That was run '{other}': `") as refused:
        undo_run(dataset, key)
    assert entries(dataset) == after
    assert do_as_told(refused.value) == 0
    assert entries(dataset) == before


def test_the_message_names_also_runs_that_stand_in_the_way_of_those(dataset: Place) -> None:
    before = entries(dataset)
    take_turns(dataset)
    write(dataset, "a run of c's", 2, label=items_of(0, 1)["image"], image=image(40))
    with pytest.raises(
        UndoRefusedError, match="That was runs \"a run of c's\" and 'a': `"
    ) as refused:
        undo_run(dataset, "b")
    assert do_as_told(refused.value) == 0
    assert entries(dataset) == before


@pytest.mark.parametrize("kind", [image, jpeg])
@pytest.mark.parametrize("packed", [False, True])
def test_what_another_wrote_between_two_writes_of_a_run_is_not_lost(
    dataset: Place, kind: Callable[[int], Item[Any]], packed: bool
) -> None:
    before = entries(dataset)
    a, b = writer_of(dataset, "a"), writer_of(dataset, "b")
    a.write(1, {"image": image(10)})
    b.write(1, {"image": kind(20)})
    a.write(1, {"image": image(30)})
    if packed:
        ended(dataset, "a")
    after = entries(dataset)
    for key in "ab":
        with pytest.raises(UndoRefusedError, match="That was run") as refused:
            undo_run(dataset, key)
    assert entries(dataset) == after
    assert do_as_told(refused.value) == 0
    assert entries(dataset) == before


def test_a_run_that_wrote_twice_is_undone_where_the_other_is_undone_already(dataset: Place) -> None:
    before = entries(dataset)
    a, b = writer_of(dataset, "a"), writer_of(dataset, "b")
    a.write(1, {"image": image(10)})
    b.write(1, {"image": image(20)})
    undo_run(dataset, "b")
    a.write(1, {"image": image(30)})
    a.write(1, {"image": jpeg(40)})
    undo_run(dataset, "a")
    assert entries(dataset) == before


def test_runs_that_had_ended_before_are_not_named(dataset: Place) -> None:
    write(dataset, "old", 2, image=image(1))
    write(dataset, "taken back", 2, image=image(2))
    undo_run(dataset, "taken back")
    before = entries(dataset)
    take_turns(dataset)
    write(dataset, "c", 2, image=jpeg(50))
    with pytest.raises(UndoRefusedError, match="That was runs 'c' and 'a': `") as refused:
        undo_run(dataset, "b")
    assert do_as_told(refused.value) == 0
    assert entries(dataset) == before


def test_what_a_person_changed_is_not_put_down_to_a_run(dataset: Place) -> None:
    take_turns(dataset)
    Files(dataset)["data/000001_image.jpg"] = b"mine"
    after = entries(dataset)
    with pytest.raises(UndoRefusedError, match=r"\('b' among them\)|run 'b' among them"):
        undo_run(dataset, "a")
    with pytest.raises(UndoRefusedError, match=r"Undo what changed them first, or use `--force`"):
        undo_run(dataset, ["a", "b"])
    assert entries(dataset) == after


def test_each_of_several_must_be_a_run_that_is_not_undone(dataset: Place) -> None:
    write(dataset, "a", 1, image=image())
    write(dataset, "b", 1, image=image(3))
    after = entries(dataset)
    with pytest.raises(RunNotFoundError, match="no run 'c'"):
        undo_run(dataset, ["a", "b", "c"])
    with pytest.raises(RunKeyError, match="expected at least one"):
        undo_run(dataset, [])
    with pytest.raises(RunKeyError):
        undo_run(dataset, ["a", ""])
    assert entries(dataset) == after
    undo_run(dataset, "b")
    with pytest.raises(RunNotFoundError, match="'b' was undone already"):
        undo_run(dataset, ["a", "b"])


@pytest.mark.about_files
def test_an_interrupted_undo_of_several_is_gone_on_with_by_the_key_of_any(
    dataset: Path,
) -> None:
    before = entries(dataset)
    take_turns(dataset)
    for name in "ab":  # as they stand once the undo was begun
        (dataset / f".pipestream/runs/{name}/undoing.json").write_text(
            '{"undo": "undo:a,b", "runs": {"a": "a~undone-1", "b": "b~undone-1"}}'
        )
    assert states(dataset) == {"a": "undoing", "b": "undoing"}
    write(dataset, "c", 3, image=image())
    with pytest.raises(UndoRefusedError, match="an undo of runs 'a' and 'b' was interrupted"):
        undo_run(dataset, ["a", "c"])
    report = undo_run(dataset, "b")
    assert report.run_keys == ("a", "b")
    undo_run(dataset, "c")
    assert entries(dataset) == before


names = st.sampled_from(["a", "b", "c"])
writes = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 255))
turns = st.lists(st.tuples(names, st.lists(writes, min_size=1, max_size=3)), max_size=8)

Turns = list[tuple[str, list[tuple[int, int, int]]]]


@pytest.mark.filterwarnings("ignore:.*the shared item:UserWarning")
@settings(deadline=None, max_examples=25)
@given(turns=turns, packed=st.sets(names), order=st.permutations(["a", "b", "c"]))
def test_any_turns_undone_together_restore_every_byte(
    turns: Turns, packed: set[str], order: list[str]
) -> None:
    undo_together("folder", turns, packed, order)


@pytest.mark.filterwarnings("ignore:.*the shared item:UserWarning")
@settings(deadline=None, max_examples=6)
@given(turns=turns, packed=st.sets(names), order=st.permutations(["a", "b", "c"]))
def test_any_turns_undone_together_restore_every_byte_in_a_bucket(
    turns: Turns, packed: set[str], order: list[str]
) -> None:
    undo_together("bucket", turns, packed, order)


def undo_together(kind: str, turns: Turns, packed: set[str], order: list[str]) -> None:
    with temporary_place(kind) as folder:
        made_at(folder, make_dataset, length=4)
        before = entries(folder)
        writers = {key: writer_of(folder, key) for key in order}
        for key, commit in turns:
            with writers[key].batch() as group:
                for idx, kind, value in commit:
                    group.set_output(idx, items_of(kind, value))
        made = [key for key in order if any(key == turn[0] for turn in turns)]
        if not made:
            return
        for key in packed.intersection(made):
            ended(folder, key)
        after = entries(folder)
        undo = undo_run(folder, made).undo_run_key
        assert entries(folder) == before
        undo_run(folder, undo)
        assert entries(folder) == after
        undo_run(folder, f"undo:{undo}")
        assert entries(folder) == before
        assert strays(folder) == []
