"""Writers whose clocks differ: what came after what is told by the log, and not by their times."""

import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import DatasetExistsError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address
from prefect_pipestream.underfolder import compact, list_runs, undo_run
from prefect_pipestream.underfolder.opening import assign
from tests.bucket.stores import process

NUMBERS = itertools.count()
NOW = time.time


@pytest.fixture
def root() -> Address:
    return Address.of(f"memory://clocks-{next(NUMBERS)}/parts")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of who writes from here on, to so many hours from now."""

    def hours_ahead(hours: float) -> None:
        monkeypatch.setattr(time, "time", lambda: NOW() + hours * 3_600)

    return hours_ahead


def opened(root: Address, run_key: str) -> DataStream:
    with suppress(DatasetExistsError):
        DataStream.create_new_underfolder(root, run_key="made")
    return DataStream.read_write_underfolder(root, run_key=run_key)


def write(root: Address, run_key: str, numbers: Iterable[int]) -> DataStream:
    """Lets a run write samples with these numbers, and end."""
    stream = opened(root, run_key)
    edit(stream, numbers)
    stream.end_run()
    return stream


def edit(stream: DataStream, numbers: Iterable[int]) -> None:
    for number in numbers:
        stream.set_output(number, Sample({"metadata": JsonMetadataItem({"number": number})}))


def states(root: Address) -> dict[str, str]:
    return {run.run_key: run.state for run in list_runs(root)}


def assigned(root: Address, names: str, run_key: str = "run") -> list[int]:
    found: list[int] = assign(root, run_key, "/photos", list(names)).indices.tolist()
    return found


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_run_has_ended_whose_last_entry_says_so(
    root: Address, clock: Callable[[float], None], hours: float
) -> None:
    stream = opened(root, "run")
    edit(stream, range(3))
    clock(hours)
    stream.end_run()
    assert states(root) == {"run": "finished"}
    clock(0)
    edit(stream, [1])  # as the page of a sample does, say
    assert states(root) == {"run": "edited"}
    stream.end_run()
    assert states(root) == {"run": "finished"}


@pytest.mark.parametrize("hours", [-2, 2])
def test_an_undo_of_what_was_written_by_another_clock_has_ended(
    root: Address, clock: Callable[[float], None], hours: float
) -> None:
    write(root, "first", range(3))
    clock(hours)
    write(root, "run", range(3))
    clock(0)
    undo_run(root, "run")
    [undo_key] = (run.run_key for run in list_runs(root) if run.undoes == "run")
    assert states(root)[undo_key] == "finished"
    clock(hours)
    undo_run(root, undo_key)
    assert states(root)["run"] == "finished"


@pytest.mark.parametrize("hours", [-2, 2])
def test_imports_are_told_from_compactions_before_and_after(
    root: Address, clock: Callable[[float], None], hours: float
) -> None:
    assert assigned(root, "abcd") == [0, 1, 2, 3]
    write(root, "run", range(4))
    opened(root, "gone").remove(0)
    clock(hours)
    compact(root, "compaction")
    clock(0)
    assert assigned(root, "bcde", "next") == [0, 1, 2, 3]
    clock(hours)
    assert assigned(root, "bcdef", "later") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("hours", [-2, 2])
def test_what_an_undone_import_assigned_is_free_again(
    root: Address, clock: Callable[[float], None], hours: float
) -> None:
    write(root, "before", range(1))
    clock(hours)
    assert assigned(root, "ab") == [1, 2]
    clock(0)
    write(root, "run", [1, 2])
    undo_run(root, "run")
    assert assigned(root, "cd", "next") == [1, 2]
    clock(hours)
    assert assigned(root, "dca", "later") == [2, 1, 3]


def test_all_processes_tell_the_same(root: Address, clock: Callable[[float], None]) -> None:
    objects = MemoryStore()
    with process(objects, root=root):
        write(root, "first", range(3))
        opened(root, "second").begin_run(fingerprint="of no change")
        undo_run(root, "second")
    seen = []
    for hours in (-5, 5):
        clock(hours)
        with process(objects, root=root):
            seen.append([(run.run_key, run.undone) for run in list_runs(root)])
    assert seen[0] == seen[1]
