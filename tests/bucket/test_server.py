"""Buckets of a real server, whose writers race, are killed, or lose it or their connections."""

import random
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from prefect_pipestream.errors import ConflictError, DatasetWriteError, PipestreamError
from prefect_pipestream.items import BinaryItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address
from prefect_pipestream.underfolder import copy_dataset, list_runs, undo_run
from tests.bucket import work
from tests.bucket.proxy import FAULTS, Fault, Proxy
from tests.bucket.server import Server, new_root
from tests.bucket.work import Working, add_to_all, counted_in, put_around

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESSES = 8
SAMPLES = 5
FOR_S = 20.0


def test_processes_that_count_in_the_same_samples_lose_nothing(in_weed: Address) -> None:
    put_around(in_weed, SAMPLES)
    begin = work.processes.Barrier(PROCESSES)
    counted: Counter[int | str] = Counter()

    with ExitStack() as stack:
        counting = [
            stack.enter_context(Working(work.count_up, in_weed, FOR_S, seed, begin))
            for seed in range(PROCESSES)
        ]
        for one in counting:
            result = one.told()
            assert result is not None, "it died"
            counted.update(result)

    refused = counted.pop("refused", 0)
    print(f"{counted.total()} commits in {FOR_S} s, {refused} refused")
    assert counted_in(in_weed) == [counted[idx] for idx in range(SAMPLES)]
    assert counted.total() > PROCESSES


def test_a_run_that_is_killed_again_and_again_counts_once(in_weed: Address) -> None:
    rng = random.Random(1)
    samples, kills, runs = 40, 0, 1
    put_around(in_weed, samples)

    while kills < 15:
        with Working(work.add_and_tell, in_weed, f"run {runs}", 3) as working:
            assert working.told() == "begun"
            time.sleep(rng.uniform(0, 0.6))
            working.process.kill()
            last = working.told()
        assert last in (None, "done")
        kills += last is None
        runs += last == "done"
    add_to_all(in_weed, f"run {runs}", 3)

    print(f"{kills} kills in {runs} runs")
    assert counted_in(in_weed) == [runs] * samples
    for run in range(runs, 0, -1):
        undo_run(in_weed, f"run {run}")
        assert counted_in(in_weed) == [run - 1] * samples


def test_a_run_goes_on_where_the_server_is_killed_and_started_again(
    weed_of_its_own: Server,
) -> None:
    root = new_root(weed_of_its_own)
    rng = random.Random(2)
    samples, kills, runs, said = 40, 0, 1, Counter[str]()
    put_around(root, samples)

    while kills < 5:
        with Working(work.add_and_tell, root, f"run {runs}", 3) as working:
            assert working.told() == "begun"
            time.sleep(rng.uniform(0, 0.6))
            weed_of_its_own.kill()
            kills += 1
            time.sleep(rng.uniform(0, 1))
            weed_of_its_own.start()
            last = working.told()
            assert last is not None, "it died"
        said[last[:300]] += 1
        runs += last == "done"
    add_to_all(root, f"run {runs}", 3)

    print(f"{kills} kills in {runs} runs: {dict(said)}")
    assert counted_in(root) == [runs] * samples


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_loses_nothing_where_any_request_fails(
    weed: Server, proxy: Proxy, fault: Fault
) -> None:
    bucket = Address.of(new_root(weed).bucket)
    errors = 0
    at = requests = 1 + FAULTS.index(fault) % 2  # each second one
    while at <= requests:
        root = bucket / f"failing-at-{at}"
        put_around(root, 2)
        proxy.fail(fault, at)
        try:
            add_to_all(root, "run", 1)
        except PipestreamError as error:
            print(f"at {at}, {proxy.requests[at - 1]}: {error}")
            errors += 1
        else:
            requests = max(requests, len(proxy.requests))
            assert counted_in(root) == [1] * 2, f"at {at}: {proxy.requests[at - 1]}"
        proxy.fail(fault, 0)
        add_to_all(root, "run", 1)
        assert counted_in(root) == [1] * 2, f"at {at}"
        proxy.fail(fault, at)
        try:
            undo_run(root, "run")
        except PipestreamError as error:
            print(f"undo at {at}, {proxy.requests[at - 1]}: {error}")
            proxy.fail(fault, 0)
            if counted_in(root) != [0] * 2:
                undo_run(root, "run")
        assert counted_in(root) == [0] * 2, f"undo at {at}"
        at += 2
    print(f"{fault}: {requests} requests, {errors} errors")
    assert at > 10


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_that_is_never_answered_is_told_as_what_it_is(
    weed: Server, proxy: Proxy, fault: Fault
) -> None:
    root = new_root(weed)
    put_around(root, 2)
    stream = DataStream.read_write_underfolder(root)
    stream.set_output(0, work.incremented(stream[0]))  # the next one has nothing to open
    proxy.fail(fault, 1, times=1000, of=f"PUT /{root.removeprefix('s3://')}/.pipestream/log")

    if fault == "cut after":
        stream.set_output(1, work.incremented(stream[1]))
    else:
        with pytest.raises(DatasetWriteError, match="commit could not be written"):
            stream.set_output(1, work.incremented(stream[1]))

    print(f"{fault}: {len(proxy.requests)} requests")
    assert counted_in(root) == [1, int(fault == "cut after")]
    proxy.fail(fault, 0)
    stream.set_output(1, work.incremented(stream[1]))
    assert counted_in(root) == [1, 1 + (fault == "cut after")]


def test_writers_behind_a_slow_network_lose_nothing(proxy: Proxy, weed: Server) -> None:
    root = new_root(weed)
    put_around(root, 2)
    rng = random.Random(3)
    proxy.delay_s = lambda: rng.choice((0, 0, 0.005, 0.05))
    counted: Counter[int] = Counter()

    def count() -> None:
        stream = DataStream.read_write_underfolder(root)
        for turn in range(15):
            try:
                stream.set_output(turn % 2, work.incremented(stream[turn % 2]))
                counted[turn % 2] += 1
            except ConflictError:
                pass

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted_in(root) == [counted[0], counted[1]]
    assert counted.total() > 0


def test_what_is_copied_in_one_bucket_passes_no_network(weed: Server, proxy: Proxy) -> None:
    bucket = Address.of(new_root(weed).bucket)
    samples, size = 20, 100_000
    made = DataStream.create_new_underfolder(bucket / "made", run_key="make")
    with made.commit_group() as batch:
        for idx in range(samples):
            batch.set_output(idx, Sample({"noise": BinaryItem(random.Random(idx).randbytes(size))}))

    def passed(root: Address, how: str) -> int:
        before, requests = proxy.passed_bytes, len(proxy.requests)
        if how == "samples":
            SamplesSequence.from_underfolder(bucket / "made").to_underfolder(root).run()
        else:
            copy_dataset(bucket / "made", root)
        total = proxy.passed_bytes - before
        print(f"{how} to {root}: {len(proxy.requests) - requests} requests, {total:,} bytes")
        copied = SamplesSequence.from_underfolder(root)
        assert [sample["noise"]() for sample in copied] == [one["noise"]() for one in made]
        return total

    elsewhere = Address.of(new_root(weed).bucket)
    for how in ("samples", "dataset"):
        assert passed(bucket / f"here/{how}", how) < samples * size / 10
        assert passed(elsewhere / f"there/{how}", how) > samples * size
    assert [run.run_key for run in list_runs(bucket / "here/dataset")] == ["make"]


def test_a_copy_that_follows_a_dataset_in_use_is_never_torn(weed: Server, in_weed: Address) -> None:
    put_around(in_weed, SAMPLES)
    copies = [Address.of(in_weed.bucket) / "copy", new_root(weed)]
    begin = work.processes.Barrier(2)
    rounds = 0

    with ExitStack() as stack:
        counting = [
            stack.enter_context(Working(work.count_up, in_weed, 10.0, seed, begin))
            for seed in range(2)
        ]
        while any(one.process.is_alive() for one in counting):
            for copied in copies:
                copy_dataset(in_weed, copied)
                stream = DataStream.read_write_underfolder(copied)
                assert len(stream) == SAMPLES
                assert all(sample["left"]() == sample["right"]() for sample in stream)
            rounds += 1

    print(f"{rounds} rounds")
    assert rounds > 2
    for copied in copies:
        copy_dataset(in_weed, copied)
        assert counted_in(copied) == counted_in(in_weed)
