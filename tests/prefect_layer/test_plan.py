"""Sizing chunks; no Prefect API is needed."""

import pytest
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from prefect_pipestream.flows.runner import MOST_CHUNKS, ChunkSizer, Workers
from prefect_pipestream.storage.cores import usable_cores


def sizes(total: int, sample_s: float, workers: int, least: int = 1) -> list[int]:
    """The sizes of all chunks where each is measured before the next but `workers`."""
    sizer = ChunkSizer(total, workers, least=least)
    running: list[int] = []
    found = []
    while size := sizer.next_size():
        found.append(size)
        running.append(size)
        if len(running) == workers:
            done = running.pop(0)
            sizer.measured(done, done * sample_s)
    return found


@pytest.mark.parametrize("total", [1, 2, 7, 300, 20_000, 1_000_000])
@pytest.mark.parametrize("sample_s", [0.0002, 0.02, 2.0])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_chunks_cover_all_samples_in_few_task_runs(
    total: int, sample_s: float, workers: int
) -> None:
    chunks = sizes(total, sample_s, workers)

    assert sum(chunks) == total
    assert len(chunks) <= MOST_CHUNKS + workers


def test_chunks_are_of_a_few_seconds_after_the_first_measure() -> None:
    chunks = sizes(100_000, 0.001, 2)

    assert max(chunks) == 3000
    assert chunks[0] < 20


def test_every_worker_gets_several_chunks_of_a_small_set() -> None:
    assert len(sizes(400, 0.01, 4)) >= 12


def test_last_chunks_are_small_so_that_workers_finish_together() -> None:
    chunks = sizes(20_000, 0.001, 2)

    assert max(chunks[-2:]) < max(chunks) / 3


def test_chunks_that_wait_for_a_store_are_large_unless_that_is_much_work() -> None:
    chunks = sizes(2_000, 0.005, 16, least=100)
    assert chunks[0] == 25
    assert min(chunks[16:-1]) == 100
    assert max(sizes(2_000, 1.0, 16, least=100)[16:]) <= 7  # 7 are what keeps them few


def test_given_chunk_size_is_kept() -> None:
    sizer = ChunkSizer(25, 2, fixed=10)

    assert [sizer.next_size() for _ in range(4)] == [10, 10, 5, 0]


def test_workers_of_threads_are_the_cores_unless_the_user_sets_a_limit() -> None:
    assert Workers(ThreadPoolTaskRunner()).number == usable_cores()
    assert Workers(ThreadPoolTaskRunner(max_workers=7)).number == 7


def test_processes_have_the_next_chunk_waiting() -> None:
    workers = Workers(ProcessPoolTaskRunner(max_workers=3))

    assert (workers.number, workers.in_flight) == (3, 6)
