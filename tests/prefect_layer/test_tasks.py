"""The tasks as users have them in their own flows."""

import pickle
import time
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from prefect import flow, tags, task, unmapped
from prefect.cache_policies import INPUTS
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import TaskRunSort
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.transactions import transaction

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import (
    ConflictError,
    DatasetWriteError,
    DecodeError,
    PipeBuildingError,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.tasks import process_chunk, read_sample, set_output, transform_sample
from tests.dataset_files import beside, made_at
from tests.underfolder.conftest import run_of

from .datasets import count_runs, files_of, image_of, make_dataset, runs_of, truncate_image

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)


def image_at(folder: Place, idx: int) -> "np.ndarray[Any, Any]":
    value: np.ndarray[Any, Any] = DataStream.read_write_underfolder(folder)[idx]["image"]()
    return value


@pytest.mark.parametrize("is_open", [False, True], ids=["block", "stream"])
def test_three_tasks_mapped_over_samples(folder: Place, is_open: bool) -> None:
    block = ReadWriteUnderfolder(folder=folder)

    @flow
    def invert() -> list[int | None]:
        stream = unmapped(block.open() if is_open else block)
        indices = list(range(6))
        samples = read_sample.map(stream, indices)
        inverted = transform_sample.map(samples, unmapped(["invert"]), indices)
        return set_output.map(stream, indices, inverted).result()

    assert invert() == list(range(6))
    assert all(np.array_equal(image_at(folder, i), 255 - image_of(i)) for i in range(6))


@pytest.mark.about_files
def test_three_tasks_on_worker_processes(folder: Path) -> None:
    block = ReadWriteUnderfolder(folder=folder)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def invert() -> None:
        sample = read_sample.submit(block, 1)
        inverted = transform_sample.submit(sample, ["invert"], 1)
        set_output.submit(block, 1, inverted).result()

    invert()

    assert np.array_equal(image_at(folder, 1), 255 - image_of(1))


def test_tasks_create_a_new_dataset_together(folder: Place) -> None:
    target = CreateNewUnderfolder(folder=beside(folder, "new"), zfill=3)

    @flow
    def copy() -> None:
        source = ReadWriteUnderfolder(folder=folder)
        for idx in range(3):
            set_output(target, idx, read_sample(source, idx))

    copy()

    assert set(files_of(target.folder)) >= {f"data/{i:03d}_image.png" for i in range(3)}


def test_writes_of_a_flow_are_in_the_ledger_under_its_run_id(folder: Place) -> None:
    @flow
    def skip_and_write() -> str:
        block = ReadWriteUnderfolder(folder=folder)
        sample = read_sample(block, 0)
        set_output(block, 0, sample.set_value("image", 255 - image_of(0)))
        set_output(block, 1, read_sample(block, 1))
        set_output(block, 2, None)
        return str(flow_run.id)

    ledger = run_of(folder, skip_and_write()).outcomes()

    assert {idx: record.outcome for idx, record in ledger.items()} == {
        0: "written",
        1: "unchanged",
        2: "skipped",
    }


def test_set_output_writes_only_the_keys_it_is_given(folder: Place) -> None:
    before = files_of(folder)

    @flow
    def relabel() -> None:
        block = ReadWriteUnderfolder(folder=folder)
        sample = read_sample(block, 0).set_value("image", 255 - image_of(0))
        set_output(block, 0, sample.deep_set("metadata.number", 7), ["metadata"])

    relabel()

    changed = {name for name, content in files_of(folder).items() if before[name] != content}
    assert changed == {"data/000_metadata.yaml"}


def test_transform_may_give_a_new_index(folder: Place) -> None:
    @flow
    def move() -> int | None:
        block = ReadWriteUnderfolder(folder=folder)
        moved = transform_sample(read_sample(block, 1), lambda sample: (sample, 9), 1)
        return set_output(block, 1, moved)

    assert move() == 9
    assert np.array_equal(image_at(folder, 9), image_of(1))


def test_task_outside_of_a_flow(folder: Place) -> None:
    assert np.array_equal(
        read_sample(ReadWriteUnderfolder(folder=folder), 3)["image"](), image_of(3)
    )


def test_what_is_no_stream_is_refused(folder: Place) -> None:
    with pytest.raises(TypeError, match=r"is no stream: .*ReadWriteUnderfolder\(folder="):
        read_sample(str(folder), 1)  # type: ignore[arg-type]


def test_wrong_stage_is_named(folder: Place) -> None:
    @flow
    def wrong() -> None:
        transform_sample(read_sample(ReadWriteUnderfolder(folder=folder), 0), ["invrt"], 0)

    with pytest.raises(PipeBuildingError, match="Did you mean 'invert'"):
        wrong()


def test_retries_of_a_task(folder: Place) -> None:
    calls: list[int] = []

    def fails_once(sample: Sample) -> Sample:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the share is away")
        return sample

    @flow
    def retried() -> None:
        sample = read_sample(ReadWriteUnderfolder(folder=folder), 0)
        transform_sample.with_options(retries=1)(sample, fails_once, 0)

    retried()

    assert len(calls) == 2


def test_of_two_changes_of_a_flow_to_one_sample_the_second_is_a_conflict(folder: Place) -> None:
    @flow
    def changed_twice() -> None:
        block = ReadWriteUnderfolder(folder=folder)
        first, second = read_sample(block, 0), read_sample(block, 0)
        set_output(block, 0, first.set_value("image", 255 - first["image"]()))
        set_output(block, 0, second.set_value("image", second["image"]() // 2))

    with pytest.raises(ConflictError):
        changed_twice()

    assert np.array_equal(image_at(folder, 0), 255 - image_of(0))


def test_retry_of_a_task_that_had_written_already_is_no_conflict(folder: Place) -> None:
    attempts: list[int] = []

    @task(retries=1)
    def write_and_die(block: ReadWriteUnderfolder, pickled: bytes) -> None:
        attempts.append(1)
        set_output.fn(block, 0, pickle.loads(pickled))
        if len(attempts) == 1:
            raise RuntimeError("the worker was thought dead")

    @flow
    def retried() -> None:
        block = ReadWriteUnderfolder(folder=folder)
        sample = read_sample(block, 0)
        changed = sample.set_value("image", 255 - sample["image"]())
        write_and_die(block, pickle.dumps(changed))  # as another process gets it, each time

    retried()

    assert len(attempts) == 2
    assert np.array_equal(image_at(folder, 0), 255 - image_of(0))


def test_timeout_of_a_task(folder: Place) -> None:
    def slow(sample: Sample) -> Sample:
        for _ in range(500):
            time.sleep(0.01)
        return sample

    @flow
    def hurried() -> str | None:
        sample = read_sample(ReadWriteUnderfolder(folder=folder), 0)
        limited = transform_sample.with_options(timeout_seconds=0.1)
        return limited(sample, slow, 0, return_state=True).name

    began = time.monotonic()

    assert hurried() == "TimedOut"
    assert time.monotonic() - began < 4


def test_caching_of_a_task(folder: Place, tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def counted(sample: Sample) -> Sample:
        with calls.open("a") as file:
            file.write("x")
        return sample.set_value("image", 255 - sample["image"]())

    cached = transform_sample.with_options(
        cache_key_fn=lambda context, arguments: f"inverted-{folder}-{arguments['idx']}",
        persist_result=True,
    )

    @flow
    def twice() -> "list[np.ndarray[Any, Any]]":
        block = ReadWriteUnderfolder(folder=folder)
        return [cached(read_sample(block, 0), counted, 0)["image"]() for _ in range(2)]

    first, second = twice()

    assert calls.read_text() == "x"
    assert np.array_equal(first, 255 - image_of(0))
    assert np.array_equal(second, first)


def test_cache_by_inputs_takes_a_block(folder: Place) -> None:
    cached = read_sample.with_options(cache_policy=INPUTS, persist_result=True)

    @flow
    def twice() -> list[str]:
        block = ReadWriteUnderfolder(folder=folder)
        states = [cached(block, idx, return_state=True) for idx in (0, 0, 1)]
        return [str(state.name) for state in states]

    assert twice() == ["Completed", "Cached", "Completed"]


def test_tags_and_names_of_task_runs(folder: Place) -> None:
    @flow
    def tagged() -> UUID:
        block = ReadWriteUnderfolder(folder=folder)
        with tags("nightly"):
            read_sample(block, 0)
        process_chunk.with_options(tags={"chunked"})(block, ["identity"], range(4))
        return UUID(flow_run.id)

    run = tagged()

    wanted = {"read_sample 0": ["nightly"], "samples 0-3": ["chunked"]}
    found: dict[str, list[str]] = {}
    for _ in range(200):  # task runs, and then their names, reach the API a moment after they end
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
                sort=TaskRunSort.NAME_ASC,
                limit=10,
            )
        found = {task_run.name: sorted(task_run.tags) for task_run in runs}
        if found == wanted:
            break
        time.sleep(0.1)
    assert found == wanted


# -- process_chunk ---------------------------------------------------------------------------


def test_chunk_goes_on_past_a_bad_sample(folder: Place) -> None:
    truncated = truncate_image(folder, 2)

    @flow
    def invert() -> Any:
        return process_chunk(
            ReadWriteUnderfolder(folder=folder), ["invert"], range(6), sample_retries=0
        )

    report = invert()

    assert report.counts == {"written": 5, "unchanged": 0, "skipped": 0, "failed": 1, "removed": 0}
    (failure,) = report.failures
    assert (failure.idx, failure.error_type, failure.attempts) == (2, "DecodeError", 1)
    assert str(truncated) in failure.message
    assert "DecodeError" in failure.traceback
    assert np.array_equal(image_at(folder, 5), 255 - image_of(5))


def test_chunk_tries_a_failed_sample_again_after_the_others(folder: Place) -> None:
    order: list[int] = []

    def fails_first(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        order.append(number)
        if number == 1 and order.count(1) < 3:
            raise OSError("the share is away")
        return sample

    @flow
    def run() -> Any:
        return process_chunk(ReadWriteUnderfolder(folder=folder), fails_first, range(3))

    report = run()

    assert order == [0, 1, 2, 1, 1]
    assert report.counts["unchanged"] == 3
    assert report.failures == []


def test_retried_chunk_does_not_repeat_what_is_done(folder: Place) -> None:
    stopped: list[int] = []

    def stops_once(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 4 and not stopped:
            stopped.append(number)
            raise KeyboardInterrupt
        return count_runs(sample)

    @flow
    def run(run_key: str) -> Any:
        stream = DataStream.read_write_underfolder(folder, run_key=run_key)
        return process_chunk(stream, stops_once, range(6))

    with pytest.raises(KeyboardInterrupt):
        run("counted")
    report = run("counted")

    assert report.counts["written"] == 6
    assert runs_of(folder, range(6)) == [1] * 6


def test_chunk_does_again_what_another_writer_changed_meanwhile(folder: Place) -> None:
    meddled: list[int] = []

    def meddles(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 1 and not meddled:
            meddled.append(1)
            other = DataStream.read_write_underfolder(folder)
            other.set_output(1, other[1].deep_set("metadata.runs", 10), ["metadata"])
        return count_runs(sample)

    @flow
    def run() -> Any:
        return process_chunk(ReadWriteUnderfolder(folder=folder), meddles, range(3))

    report = run()

    assert report.counts["written"] == 3
    assert runs_of(folder, range(3)) == [1, 11, 1]


def test_chunk_timeout_keeps_what_was_done(folder: Place) -> None:
    def slow_at_the_end(sample: Sample) -> Sample:
        if sample["metadata"]()["number"] == 5:
            for _ in range(1000):
                time.sleep(0.01)
        return count_runs(sample)

    @flow
    def run() -> str | None:
        limited = process_chunk.with_options(timeout_seconds=0.5)
        block = ReadWriteUnderfolder(folder=folder)
        return limited(block, slow_at_the_end, range(6), return_state=True).name

    assert run() == "TimedOut"
    assert runs_of(folder, range(6)) == [1] * 5 + [0]


def test_chunk_that_is_told_to_stop_keeps_what_was_done(folder: Place) -> None:
    stop = Event()

    def stops_at_2(sample: Sample) -> Sample:
        if sample["metadata"]()["number"] == 2:
            stop.set()
        return count_runs(sample)

    @flow
    def run() -> Any:
        block = ReadWriteUnderfolder(folder=folder)
        stopped = process_chunk.submit(block, stops_at_2, range(6), stop=stop)
        stopped.wait()
        return stopped.state.name, process_chunk(block, stops_at_2, range(6)).summary()

    name, summary = run()
    assert name == "Cancelled"
    assert summary.startswith("6 written")
    assert runs_of(folder, range(6)) == [1] * 6


def test_empty_chunk_is_done_at_once(folder: Place) -> None:
    @flow
    def run() -> Any:
        return process_chunk(ReadWriteUnderfolder(folder=folder), ["invert"], [])

    assert run().total == 0


def test_decode_error_of_a_read_sample_names_the_file(folder: Place) -> None:
    truncated = truncate_image(folder, 0)

    @flow
    def run() -> None:
        transform_sample(read_sample(ReadWriteUnderfolder(folder=folder), 0), ["invert"], 0)

    with pytest.raises(DecodeError, match=str(truncated)):
        run()


# -- transactions ----------------------------------------------------------------------------


def test_failed_transaction_takes_back_what_tasks_wrote(folder: Place) -> None:
    before = files_of(folder)

    @flow
    def relabel() -> None:
        block = ReadWriteUnderfolder(folder=folder)
        with transaction():
            sample = read_sample(block, 0)
            set_output(block, 0, sample.set_value("image", 255 - image_of(0)))
            set_output(block, 7, sample)
            process_chunk(block, ["invert"], range(2, 5))
            raise RuntimeError("the labels are not plausible")

    with pytest.raises(RuntimeError, match="not plausible"):
        relabel()

    assert files_of(folder) == before


def test_write_before_a_failed_transaction_stays(folder: Place) -> None:
    @flow
    def relabel() -> None:
        block = ReadWriteUnderfolder(folder=folder)
        process_chunk(block, count_runs, range(3))
        with transaction():
            process_chunk(block, count_runs, range(3, 6))
            raise RuntimeError("the labels are not plausible")

    with pytest.raises(RuntimeError, match="not plausible"):
        relabel()

    assert runs_of(folder, range(6)) == [1, 1, 1, 0, 0, 0]


def test_completed_transaction_keeps_what_tasks_wrote(folder: Place) -> None:
    @flow
    def relabel() -> None:
        with transaction():
            process_chunk(ReadWriteUnderfolder(folder=folder), count_runs, range(6))

    relabel()

    assert runs_of(folder, range(6)) == [1] * 6


def test_chunk_that_fails_in_a_transaction_leaves_nothing_of_itself(folder: Place) -> None:
    before = files_of(folder)

    def loses_the_disk(sample: Sample) -> Sample:
        if sample["metadata"]()["number"] == 4:
            time.sleep(1.1)  # what came before is committed as a group
        if sample["metadata"]()["number"] == 5:
            raise DatasetWriteError(28, "the disk is full")
        return count_runs(sample)

    @flow
    def relabel() -> None:
        with transaction():
            process_chunk(ReadWriteUnderfolder(folder=folder), loses_the_disk, range(6))

    with pytest.raises(DatasetWriteError, match="the disk is full"):
        relabel()

    assert files_of(folder) == before
