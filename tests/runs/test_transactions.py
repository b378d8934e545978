"""A failure inside of `with transaction():` takes back what the tasks in it wrote."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, unmapped
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.transactions import atransaction, transaction

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.items import TxtNumpyItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.tasks import process_chunk, read_sample, set_output, transform_sample
from prefect_pipestream.underfolder import check, list_runs, undo_run
from tests.dataset_files import beside
from tests.runs.datasets import contents, differences, labels
from tests.runs.transforms import count
from tests.underfolder.conftest import run_of

pytestmark = pytest.mark.usefixtures("prefect_api")


class Implausible(RuntimeError):
    pass


def fails(function: Any, *args: Any) -> None:
    with pytest.raises(Implausible):
        function(*args)


def test_samples_that_were_mapped_are_taken_back(dataset: Place) -> None:
    before = contents(dataset)

    @flow
    def run() -> None:
        block = unmapped(ReadWriteUnderfolder(folder=dataset))
        with transaction():
            samples = read_sample.map(block, range(12))
            counted = transform_sample.map(samples, unmapped(count), range(12))
            set_output.map(block, range(12), counted).result()
            assert labels(dataset) == [idx + 1 for idx in range(12)]
            raise Implausible

    fails(run)

    assert differences(contents(dataset), before) == []
    assert is_address(dataset) or check(dataset).ok


@pytest.mark.about_files
def test_writes_of_worker_processes_stay_and_can_be_undone(dataset: Path) -> None:
    """Prefect does not tell worker processes of a transaction; the docstrings say so."""
    before = contents(dataset)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def run() -> None:
        with transaction():
            block = ReadWriteUnderfolder(folder=dataset)
            report = process_chunk.submit(block, count, range(12)).result()
            assert report.counts["written"] == 12
            raise Implausible

    fails(run)

    assert labels(dataset) == [idx + 1 for idx in range(12)]
    undo_run(dataset, list_runs(dataset)[0].run_key)
    assert differences(contents(dataset), before) == []


def test_async_flow(dataset: Place) -> None:
    before = contents(dataset)

    @flow
    async def run() -> None:
        async with atransaction():
            block = ReadWriteUnderfolder(folder=dataset)
            process_chunk(block, count, range(6))
            process_chunk.submit(block, count, range(6, 12)).result()
            assert labels(dataset) == [idx + 1 for idx in range(12)]
            raise Implausible

    with pytest.raises(Implausible):
        asyncio.run(run())

    assert differences(contents(dataset), before) == []


def test_sample_written_again_and_again_is_taken_back_whole(dataset: Place) -> None:
    before = contents(dataset)

    @flow
    def run() -> None:
        block = ReadWriteUnderfolder(folder=dataset)
        with transaction():
            for _ in range(3):
                set_output(block, 4, count(read_sample(block, 4)))
            process_chunk(block, ["invert"], range(4))
            process_chunk(block, ["invert"], range(4, 12))
            assert labels(dataset)[4] == 7
            raise Implausible

    fails(run)

    assert differences(contents(dataset), before) == []


def test_inner_transaction_that_fails_takes_the_outer_one_with_it(dataset: Place) -> None:
    """That is Prefect's rule, also where the flow goes on."""
    before = contents(dataset)

    def implausible(block: ReadWriteUnderfolder) -> None:
        with transaction():
            process_chunk(block, count, range(3, 6))
            raise Implausible

    @flow
    def run() -> None:
        block = ReadWriteUnderfolder(folder=dataset)
        with transaction():
            process_chunk(block, count, range(3))
            fails(implausible, block)

    run()

    assert differences(contents(dataset), before) == []


def test_what_was_taken_back_is_done_by_the_retry(dataset: Place) -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def run() -> None:
        attempts.append(1)
        block = ReadWriteUnderfolder(folder=dataset)
        process_chunk(block, count, range(4))
        with transaction():
            process_chunk(block, count, range(4, 12))
            if len(attempts) == 1:
                raise Implausible

    run()

    assert len(attempts) == 2
    assert labels(dataset) == [idx + 1 for idx in range(12)]
    (key,) = (run.run_key for run in list_runs(dataset) if ":" not in run.run_key)
    assert run_of(dataset, key).done_indices() == set(range(12))


def test_new_samples_are_gone_and_the_rest_of_the_run_can_be_undone(dataset: Place) -> None:
    before = contents(dataset)
    keys: list[str] = []

    @flow
    def run() -> None:
        block = ReadWriteUnderfolder(folder=dataset)
        process_chunk(block, count, range(3))
        keys.extend(run.run_key for run in list_runs(dataset))
        with transaction():
            sample = read_sample(block, 0)
            set_output(block, 40, sample.set_item("extra", TxtNumpyItem([1])))
            raise Implausible

    fails(run)

    assert labels(dataset) == [1, 2, 3, *range(3, 12)]
    undo_run(dataset, keys[0])
    assert differences(contents(dataset), before) == []


def test_change_of_another_writer_is_not_taken_back(dataset: Place) -> None:
    @flow
    def run() -> None:
        block = ReadWriteUnderfolder(folder=dataset)
        with transaction():
            process_chunk(block, count, range(6))
            process_chunk(block, count, range(6, 12))
            person = DataStream.read_write_underfolder(dataset)
            person.set_output(2, person[2].set_value("label", person[2]["label"]() + 100))
            raise Implausible

    fails(run)

    # Of a chunk all is taken back, or, where it would destroy another's work, nothing.
    assert labels(dataset) == [1, 2, 103, 4, 5, 6, *range(6, 12)]


def test_new_dataset_that_is_taken_back_is_made_again(dataset: Place) -> None:
    new = CreateNewUnderfolder(folder=beside(dataset, "new"), zfill=5)
    attempts: list[int] = []

    def copied(sample: Sample) -> Sample:
        return count(sample)

    @flow(retries=1)
    def run() -> None:
        attempts.append(1)
        with transaction():
            process_chunk(ReadWriteUnderfolder(folder=dataset), copied, range(12), new)
            if len(attempts) == 1:
                raise Implausible

    run()

    assert labels(new.folder) == [idx + 1 for idx in range(12)]
