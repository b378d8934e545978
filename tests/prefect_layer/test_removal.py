"""Samples that a transform has removed, by the flows and tasks, against a real Prefect API."""

import threading
from typing import Any, Literal

import pytest
from prefect import flow, unmapped

from prefect_pipestream import REMOVE
from prefect_pipestream.blocks import CreateNewUnderfolder, OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import RunNotFoundError
from prefect_pipestream.flows import process_samples
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.tasks import process_chunk, read_sample, set_output, transform_sample
from prefect_pipestream.underfolder import check, list_runs, undo_run
from tests.dataset_files import Files, beside, content_of, made_at
from tests.underfolder.conftest import run_of

from .datasets import count_runs, files_of, image_of, make_dataset, runs_of

pytestmark = pytest.mark.usefixtures("prefect_api")

N = 12
TASKS_PER = ("chunk", "sample")


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, N)


def number(sample: Sample) -> int:
    return int(sample["metadata"]()["number"])


def count_or_remove(sample: Sample) -> Any:
    """Removes every third sample, and counts in the others."""
    return REMOVE if number(sample) % 3 == 2 else count_runs(sample)


def process(folder: Place, transform: Any = count_or_remove, **arguments: Any) -> RunReport:
    arguments = {"sample_retries": 0, "artifacts": False, **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def there(folder: Place) -> list[int]:
    return DataStream.read_write_underfolder(folder).indices().tolist()


KEPT = [idx for idx in range(N) if idx % 3 != 2]


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_removed_in_place_counted_and_undone(folder: Place, tasks_per: Any) -> None:
    before = files_of(folder)
    report = process(folder, tasks_per=tasks_per, artifacts=True)
    assert report.counts == {"written": 8, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 4}
    assert report.summary() == "8 written, 4 removed"
    assert there(folder) == KEPT
    assert runs_of(folder, KEPT) == [1] * len(KEPT)
    assert is_address(folder) or check(folder).ok
    (run,) = list_runs(folder)
    assert run.counts["removed"] == 4
    undo_run(folder, report.run_key)
    assert files_of(folder) == before


def test_keys_do_not_keep_the_other_items(folder: Place) -> None:
    process(folder, keys=["metadata"])
    assert Files(folder).of_sample(2) == []


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_a_resumed_run_goes_on_past_what_it_removed(folder: Place, tasks_per: Any) -> None:
    once = {"fails": True}

    def stumbling(sample: Sample) -> Any:
        if number(sample) == 7 and once["fails"]:
            raise ValueError("not now")
        return count_or_remove(sample)

    arguments: dict[str, Any] = {"run_key": "k", "tasks_per": tasks_per, "max_failed": 1.0}
    first = process(folder, stumbling, indices=list(range(N)), **arguments)
    assert first.counts["failed"] == 1
    once["fails"] = False
    # The last sample, 11, was removed: of those that are asked for it is not there any more.
    again = process(folder, stumbling, indices=list(range(N)), **arguments)
    assert (again.counts["written"], again.counts["removed"], again.done_before) == (8, 4, 11)
    assert runs_of(folder, KEPT) == [1] * len(KEPT)


def test_failed_samples_are_taken_again_and_may_be_removed(folder: Place) -> None:
    def fails(sample: Sample) -> Any:
        raise ValueError("never")

    process(folder, fails, run_key="k", max_failed=1.0)
    report = process(folder, select="failed", max_failed=0.0)
    assert (report.counts["written"], report.counts["removed"]) == (8, 4)
    assert process(folder, select="failed", run_key=report.run_key).total == N


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_the_next_incremental_run_has_nothing_to_do(folder: Place, tasks_per: Any) -> None:
    process(folder, tasks_per=tasks_per)
    assert process(folder, select="changed", tasks_per=tasks_per).total == 0
    stream = DataStream.read_write_underfolder(folder)
    new = Sample({"metadata": stream[0]["metadata"].make_new({"number": 2, "runs": 0})})
    stream.set_output(2, new)
    report = process(folder, select="changed", tasks_per=tasks_per)
    assert report.counts["removed"] == report.total == 1


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_a_build_does_not_write_it(folder: Place, tasks_per: Any) -> None:
    before, new = files_of(folder), beside(folder, "new")
    target = CreateNewUnderfolder(folder=new, zfill=3)
    report = process(folder, target=target, tasks_per=tasks_per)
    assert (report.counts["written"], report.counts["skipped"]) == (8, 4)
    assert there(new) == KEPT
    assert files_of(folder) == before


def test_a_build_removes_what_the_target_has_there(folder: Place) -> None:
    new = beside(folder, "new")
    target = OutputUnderfolder(folder=new, zfill=3)
    process(folder, count_runs, target=target)
    built = files_of(new)
    report = process(folder, target=target, run_key="again")
    assert report.counts["removed"] == 4
    assert there(new) == KEPT
    assert process(folder, target=target, select="changed").total == 0
    undo_run(new, "again")
    assert files_of(new) == built


def test_the_stage_that_drops_blank_images_removes_in_place(folder: Place) -> None:
    for idx in (3, 11):
        blank = content_of(PngImageItem(image_of(idx) * 0))
        Files(folder)[f"data/{idx:03d}_image.png"] = blank
    report = process(folder, ["verify-items", {"drop-blank-images": {"threshold": 0.001}}])
    assert report.counts["removed"] == 2
    assert len(there(folder)) == N - 2
    # A function's own None keeps what is there.
    assert process(folder, lambda sample: None).counts["skipped"] == N - 2
    assert len(there(folder)) == N - 2


@pytest.mark.parametrize("knows", [True, False])
def test_the_three_tasks_pass_it_on(folder: Place, knows: bool) -> None:
    @flow
    def by_hand(indices: list[int]) -> list[int | None]:
        stream = ReadWriteUnderfolder(folder=folder)
        samples = read_sample.map(unmapped(stream), indices)
        changed = transform_sample.map(samples, unmapped(count_or_remove), indices)
        read: Any = samples if knows else unmapped(None)
        written = set_output.map(unmapped(stream), indices, changed, read=read)
        return written.result()

    assert by_hand(list(range(4))) == [0, 1, None, 3]
    assert 2 not in there(folder)


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_changed_by_another_writer_it_is_looked_at_anew(
    folder: Place, tasks_per: Literal["chunk", "sample"]
) -> None:
    met = threading.Event()

    def interrupted(sample: Sample) -> Any:
        if number(sample) == 2 and not met.is_set():
            met.set()
            other = DataStream.read_write_underfolder(folder, run_key="other")
            other.set_output(2, other[2].deep_set("metadata.number", 3), keys=["metadata"])
            return REMOVE
        return count_or_remove(sample)

    report = process(folder, interrupted, tasks_per=tasks_per)
    assert (report.counts["written"], report.counts["removed"]) == (9, 3)
    assert 2 in there(folder)


@pytest.mark.parametrize("tasks_per", TASKS_PER)
def test_removed_by_another_writer_it_is_skipped(
    folder: Place, tasks_per: Literal["chunk", "sample"]
) -> None:
    met = threading.Event()

    def interrupted(sample: Sample) -> Any:
        if number(sample) in (4, N - 1) and not met.is_set():
            DataStream.read_write_underfolder(folder, run_key="other").remove(number(sample))
            if number(sample) == N - 1:
                met.set()
        return sample.set_item("seen", sample["metadata"].make_new({"yes": True}))

    report = process(folder, interrupted, tasks_per=tasks_per)
    assert (report.counts["written"], report.counts["skipped"]) == (N - 2, 2)
    assert there(folder) == [idx for idx in range(N) if idx not in (4, N - 1)]


def test_removed_after_it_was_chosen_and_before_its_chunk_it_is_skipped(folder: Place) -> None:
    """The last one, too, of which the index is out of range by then."""
    for idx in (4, N - 1):
        DataStream.read_write_underfolder(folder, run_key="other").remove(idx)
    stream = ReadWriteUnderfolder(folder=folder)
    report = flow(lambda: process_chunk(stream, count_runs, range(N)))()
    assert (report.counts["written"], report.counts["skipped"]) == (N - 2, 2)
    assert there(folder) == [idx for idx in range(N) if idx not in (4, N - 1)]


def test_two_runs_that_remove_the_same_samples(folder: Place) -> None:
    @flow
    def both() -> None:
        threads = [
            threading.Thread(target=lambda key=key: process(folder, run_key=key, chunk_size=3))
            for key in ("a", "b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    both()
    assert there(folder) == KEPT
    assert runs_of(folder, KEPT) == [2] * len(KEPT)
    removed = [run_of(folder, key).counts()["removed"] for key in ("a", "b")]
    assert sum(removed) == 4
    assert all(not run_of(folder, key).counts()["failed"] for key in ("a", "b"))


def test_all_of_them_may_go(folder: Place) -> None:
    before = files_of(folder)
    report = process(folder, lambda sample: REMOVE)
    assert report.counts["removed"] == N
    assert there(folder) == []
    assert process(folder, select="changed").total == 0
    with pytest.raises(RunNotFoundError):
        undo_run(folder, "unknown")
    undo_run(folder, report.run_key)
    assert files_of(folder) == before
