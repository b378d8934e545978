"""All streams of a process have one log of a dataset, in threads, and no other dataset's."""

import itertools
import pickle
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    RunNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address
from prefect_pipestream.underfolder import (
    check,
    list_runs,
    plan_undo,
    prune_runs,
    sample_history,
    undo_run,
)
from tests.bucket.stores import ROOT, process

NUMBERS = itertools.count()
SAMPLES = 8


def made(root: Address, run_key: str, values: range) -> DataStream:
    stream = DataStream.create_new_underfolder(root, run_key=run_key)
    for idx, value in enumerate(values):
        stream.set_output(idx, pair(value))
    return stream


def pair(value: int) -> Sample:
    return Sample({key: JsonMetadataItem(value) for key in ("left", "right")})


def values_in(root: Address) -> list[int]:
    stream = DataStream.read_write_underfolder(root)
    return [stream[int(idx)]["left"]() for idx in stream.indices()]


@pytest.mark.parametrize("before", [2, 4, 6])
@pytest.mark.parametrize("is_part", [False, True], ids=["whole", "part"])
def test_a_stream_of_a_dataset_that_is_gone_writes_nothing_to_another_one_in_its_place(
    before: int, is_part: bool
) -> None:
    objects = MemoryStore()
    with process(objects):
        stream = made(ROOT, "first", range(before))
        if is_part:
            stream = DataStream.read_write_underfolder(ROOT).part([0, 1])
    with process(objects) as store:
        for stat in list(store.objects_in("")):
            store.delete(stat.key)
        made(ROOT, "second", range(10, 14))
    with pytest.raises(DatasetError, match="another one was made in its place"):
        stream.set_output(0, pair(99))
    with process(objects):
        assert values_in(ROOT) == [10, 11, 12, 13]
        assert [run.run_key for run in list_runs(ROOT)] == ["second"]


def test_threads_that_write_undo_prune_and_ask_at_once_are_told_what_is_so() -> None:
    root = Address.of(f"memory://shared-log-{next(NUMBERS)}/parts")
    held = made(root, "make", range(SAMPLES))
    until = time.monotonic() + 5

    def write(rng: random.Random) -> None:
        key = f"run {next(NUMBERS)}"
        stream = DataStream.read_write_underfolder(root, run_key=key)
        with suppress(ConflictError), stream.commit_group() as group:
            for idx in rng.sample(range(SAMPLES), 2):
                group.set_output(idx, pair(rng.randrange(1000)))
        stream.end_run()

    def read(_: random.Random) -> None:
        for stream in (held, DataStream.read_write_underfolder(root)):
            for idx in range(SAMPLES):
                sample = stream[idx]
                assert sample["left"]() == sample["right"]()

    def undo(rng: random.Random) -> None:
        runs = [run.run_key for run in list_runs(root) if run.undone is None]
        with suppress(UndoRefusedError, RunNotFoundError, IndexError):
            key = rng.choice([key for key in runs if key != "make"])
            plan_undo(root, key)
            undo_run(root, key)

    def prune(_: random.Random) -> None:
        prune_runs(root, timedelta(0), keep_last=4)

    def ask(rng: random.Random) -> None:
        sample_history(root, rng.randrange(SAMPLES))

    def work(doing: Callable[[random.Random], None]) -> int:
        rng = random.Random(doing.__name__)
        return sum(1 for _ in iter(lambda: time.monotonic() < until and (doing(rng), 1), False))

    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(work, [write, read, undo, prune, ask]))
    assert check(root).problems == ()


def test_a_part_does_not_read_what_others_in_its_process_have_read_or_made() -> None:
    objects = MemoryStore()
    with process(objects):
        stream = made(ROOT, "run", range(SAMPLES))
        pickled = [pickle.dumps(stream.part([idx])) for idx in range(SAMPLES)]
    asked = [0]
    with process(objects) as store:  # a worker, which is given them one after the other
        for idx, one in enumerate(pickled):
            part = pickle.loads(one)
            part.set_output(idx, pair(part[idx]["left"]() + 1))
            asked.append(len(store.requests))
    _, second, *others = (after - before for before, after in itertools.pairwise(asked))
    assert set(others) == {second}
    with process(objects):
        assert values_in(ROOT) == [value + 1 for value in range(SAMPLES)]
