"""Prefect's own retries go on with a run: each sample is transformed once."""

import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Scheduled

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.flows.processing import RunReport, process_samples
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.tasks import process_chunk, read_sample, set_output, transform_sample
from prefect_pipestream.underfolder import list_runs
from tests.dataset_files import beside
from tests.runs.datasets import labels, make_dataset
from tests.runs.processes import FlowProcess, Host, Server, wait_until
from tests.runs.transforms import count
from tests.underfolder.conftest import run_of

pytestmark = pytest.mark.usefixtures("prefect_api")

ONCE = [idx + 1 for idx in range(12)]


class StopsOnce:
    """Counts; at one sample it takes its time, once, so that a timeout stops it."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.times = 0

    def __call__(self, sample: Sample) -> Sample:
        if int(sample["label"]()[0]) == self.at:
            self.times += 1
            if self.times == 1:
                for _ in range(1000):
                    time.sleep(0.01)
        return count(sample)


class Nested:
    """Raises, once, after it was called: as the code after a step may."""

    def __init__(self) -> None:
        self.times = 0

    def fail_once(self) -> None:
        self.times += 1
        if self.times == 1:
            raise RuntimeError("the code after it failed")


def test_chunk_stopped_in_its_middle_and_retried(dataset: Place) -> None:
    stops = StopsOnce(7)

    @flow
    def run() -> Any:
        chunk = process_chunk.with_options(retries=1, timeout_seconds=0.5)
        return chunk(ReadWriteUnderfolder(folder=dataset), stops, range(12))

    report = run()

    assert stops.times == 2
    assert labels(dataset) == ONCE
    assert report.counts["written"] == 12


def test_sample_tasks_are_retried(dataset: Place) -> None:
    failed: list[int] = []

    def fails_once_a_sample(sample: Sample) -> Sample:
        number = int(sample["label"]()[0])
        if number not in failed:
            failed.append(number)
            raise OSError("the share is away")
        return count(sample)

    @flow
    def run() -> None:
        block = ReadWriteUnderfolder(folder=dataset)
        transform = transform_sample.with_options(retries=1)
        for idx in range(3):
            set_output(block, idx, transform(read_sample(block, idx), fails_once_a_sample, idx))

    run()

    assert labels(dataset) == [1, 2, 3, *range(3, 12)]


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_flow_run_that_fails_is_retried(dataset: Place, tasks_per: Any) -> None:
    attempts: list[str] = []

    def fails_at_first(sample: Sample) -> Sample:
        if int(sample["label"]()[0]) == 5 and len(attempts) == 1:
            raise OSError("the share is away")
        return count(sample)

    @flow(retries=1)
    def run() -> RunReport:
        attempts.append(str(flow_run.id))
        return process_samples.fn(
            source=ReadWriteUnderfolder(folder=dataset),
            transform=fails_at_first,
            tasks_per=tasks_per,
            sample_retries=0,
        )

    report = run()

    assert len(attempts) == 2
    assert report.run_key == attempts[0] == attempts[1]
    assert report.counts == {"written": 12, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    assert labels(dataset) == ONCE


def test_retried_flow_does_not_repeat_its_subflow(dataset: Place) -> None:
    after = Nested()

    @flow(retries=1)
    def run() -> RunReport:
        report = process_samples(ReadWriteUnderfolder(folder=dataset), count)
        after.fail_once()
        return report

    report = run()

    assert after.times == 2
    assert labels(dataset) == ONCE
    assert report.counts["written"] == 12


def test_retried_flow_resumes_its_failed_subflow(dataset: Place) -> None:
    attempts: list[int] = []

    def fails_at_first(sample: Sample) -> Sample:
        if int(sample["label"]()[0]) == 5 and len(attempts) == 1:
            raise OSError("the share is away")
        return count(sample)

    @flow
    def between() -> RunReport:
        return process_samples(
            ReadWriteUnderfolder(folder=dataset), fails_at_first, sample_retries=0
        )

    @flow(retries=1)
    def run() -> RunReport:
        attempts.append(1)
        return between()

    report = run()

    assert len(attempts) == 2
    assert labels(dataset) == ONCE
    assert report.counts["written"] == 12


def test_two_subflows_of_one_flow_are_two_runs(dataset: Place) -> None:
    @flow
    def run() -> list[str]:
        block = ReadWriteUnderfolder(folder=dataset)
        return [process_samples(block, count).run_key for _ in range(2)]

    first, second = run()

    assert first != second
    assert labels(dataset) == [idx + 2 for idx in range(12)]


def test_retried_flow_does_not_repeat_chunks_split_otherwise(dataset: Place) -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def run() -> None:
        attempts.append(1)
        size = 5 if len(attempts) == 1 else 4
        block = ReadWriteUnderfolder(folder=dataset)
        for begin in range(0, 12, size):
            process_chunk(block, count, range(begin, min(begin + size, 12)))
            if len(attempts) == 1 and begin:
                raise RuntimeError("the share is away")

    run()

    assert labels(dataset) == ONCE


def test_retried_creation_goes_on_with_its_folder(dataset: Place) -> None:
    after, new = Nested(), CreateNewUnderfolder(folder=beside(dataset, "new"))

    @flow(retries=1)
    def run() -> RunReport:
        report = process_samples.fn(
            source=ReadWriteUnderfolder(folder=dataset),
            transform=count,
            target=new,
        )
        after.fail_once()
        return report

    report = run()

    assert after.times == 2
    assert labels(new.folder) == ONCE
    assert report.counts["written"] == 12


# -- the process of the flow run is killed -----------------------------------------------------

SAMPLES = 1000


def begun_and_killed(host: Host, folder: Place, id_: str, arguments: dict[str, Any]) -> None:
    with FlowProcess(host, 0.005, flow_run=id_, **arguments) as process:
        process.wait_for_begin()
        assert wait_until(lambda: sum(run_of(folder, id_).counts().values()) > 100)
        assert process.kill()
    assert 0 < sum(run_of(folder, id_).counts().values()) < SAMPLES


@pytest.mark.slow
def test_flow_run_rescheduled_after_its_process_was_killed(host: Host, tmp_path: Path) -> None:
    from tests.runs.drive import run_flow_of_tests

    folder = make_dataset(tmp_path / "dataset", SAMPLES)
    arguments = {"folder": str(folder), "transform": "count_slowly"}
    with get_client(sync_client=True) as client:
        id_ = client.create_flow_run(run_flow_of_tests, parameters=arguments, state=Scheduled()).id
        begun_and_killed(host, folder, str(id_), arguments)
        assert client.read_flow_run(id_).state.is_running()  # type: ignore[union-attr]

        client.set_flow_run_state(id_, AwaitingRetry(), force=True)
        with FlowProcess(host, flow_run=str(id_), **arguments) as process:
            report = process.result()

        assert client.read_flow_run(id_).state.is_completed()  # type: ignore[union-attr]
    assert report["run_key"] == str(id_)
    assert report["counts"]["written"] == SAMPLES
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
    assert len(run_of(folder, str(id_)).outcomes()) == SAMPLES


@pytest.mark.slow
def test_served_flow_run_that_is_killed_and_rescheduled_from_the_api(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "dataset", SAMPLES)
    parameters = {"folder": str(folder), "transform": "count_slowly"}

    def done() -> int:
        return sum(sum(info.counts.values()) for info in list_runs(folder))

    with Server(tmp_path / "log") as server, get_client(sync_client=True) as client:
        deployment = server.deployment(client, "drive-subflow/of-tests")
        id_ = client.create_flow_run_from_deployment(deployment, parameters=parameters).id

        def state() -> StateType | None:
            return client.read_flow_run(id_).state_type

        assert wait_until(lambda: done() > 100, 90, every=0.1), server.log()
        assert server.kill_its_flow_runs() == 1
        assert done() < SAMPLES
        assert wait_until(lambda: state() == StateType.CRASHED, every=0.2), server.log()

        client.set_flow_run_state(id_, Scheduled(), force=True)

        assert wait_until(lambda: state() == StateType.COMPLETED, 90, every=0.2), server.log()
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
    (run,) = list_runs(folder)
    assert run.run_key.startswith(f"{id_}.")
    assert run.counts["written"] == SAMPLES


@pytest.mark.slow
def test_flow_run_killed_in_a_transaction_and_rescheduled(host: Host, tmp_path: Path) -> None:
    from tests.runs.drive import run_transaction_of_tests

    folder = make_dataset(tmp_path / "dataset", SAMPLES)
    arguments = {"folder": str(folder), "transform": "count_slowly"}
    with get_client(sync_client=True) as client:
        id_ = client.create_flow_run(run_transaction_of_tests, parameters=arguments).id
        begun_and_killed(host, folder, str(id_), {**arguments, "flow": "transaction"})

        client.set_flow_run_state(id_, AwaitingRetry(), force=True)
        with FlowProcess(host, flow_run=str(id_), flow="transaction", **arguments) as process:
            report = process.result()

    assert report["counts"]["written"] == SAMPLES
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
