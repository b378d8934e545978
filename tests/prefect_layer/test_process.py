"""`process_samples`, against a real Prefect API."""

import errno
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from prefect_pipestream.blocks import CreateNewUnderfolder, OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import (
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    DatasetWriteError,
    PipeBuildingError,
    RunKeyError,
    RunNotFoundError,
)
from prefect_pipestream.flows.processing import RunReport, TooManyFailedError, process_samples
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.stages import StageInvert, StageSampleHash
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import list_runs, undo_run
from tests.dataset_files import Files, beside, has_private_files, made_at

from .datasets import count_runs, files_of, image_of, make_dataset, runs_of, truncate_image

pytestmark = pytest.mark.usefixtures("prefect_api")

N = 12


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, N)


def process(folder: Place, transform: Any = count_runs, **arguments: Any) -> RunReport:
    """Processes a folder in place, without the pauses before retries."""
    arguments = {"sample_retries": 0, **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def image_at(folder: Place, idx: int) -> "np.ndarray[Any, Any]":
    value: np.ndarray[Any, Any] = DataStream.read_write_underfolder(folder)[idx]["image"]()
    return value


# -- what it does ----------------------------------------------------------------------------


def test_samples_are_processed_in_place(folder: Place) -> None:
    report = process(folder, ["invert"])

    assert report.counts == {"written": N, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    assert report.failures == []
    assert report.total == N
    assert report.duration_s > 0
    assert report.samples_per_second == pytest.approx(N / report.duration_s)
    assert all(np.array_equal(image_at(folder, i), 255 - image_of(i)) for i in range(N))


def test_samples_are_processed_to_a_new_dataset(folder: Place) -> None:
    before, new = files_of(folder), beside(folder, "new")
    target = CreateNewUnderfolder(folder=new, zfill=4)

    report = process(folder, ["invert"], target=target)

    assert report.counts["written"] == N
    assert files_of(folder) == before
    assert np.array_equal(image_at(new, 5), 255 - image_of(5))
    assert "camera.yaml" in Files(new)
    with pytest.raises(DatasetExistsError):
        process(folder, ["invert"], target=target)


def test_existing_dataset_is_updated(folder: Place) -> None:
    out = beside(folder, "out")
    target = OutputUnderfolder(folder=out, zfill=3)

    process(folder, ["identity"], target=target, indices=range(6))
    process(folder, ["invert"], target=target, indices=range(3, N))

    assert np.array_equal(image_at(out, 2), image_of(2))
    assert np.array_equal(image_at(out, 4), 255 - image_of(4))


def test_places_stand_for_a_dataset_and_a_new_one(folder: Place) -> None:
    new = beside(folder, "new")
    report = process_samples(str(folder), ["invert"], target=new)

    assert report.counts["written"] == N
    assert np.array_equal(image_at(new, 5), 255 - image_of(5))
    with pytest.raises(DatasetExistsError):
        process_samples(folder, ["invert"], target=new)


def test_open_stream_is_processed(folder: Place) -> None:
    report = process_samples(DataStream.read_write_underfolder(folder), StageInvert())

    assert report.counts["written"] == N


def test_only_given_indices_and_keys_are_written(folder: Place) -> None:
    before = files_of(folder)

    report = process(
        folder,
        lambda sample: count_runs(sample).set_value("image", 255 - sample["image"]()),
        indices=[7, 3, 3],
        keys=["metadata"],
    )

    changed = {name for name, content in files_of(folder).items() if before[name] != content}
    assert report.counts["written"] == 2
    assert changed == {"data/003_metadata.yaml", "data/007_metadata.yaml"}


def test_key_that_no_sample_has_is_warned_of(
    folder: Place, caplog: pytest.LogCaptureFixture
) -> None:
    report = process(folder, ["invert"], keys=["imgae", "image"], chunk_size=3)

    assert report.counts["written"] == N
    assert report.warnings == [
        "keys: none of the 12 samples processed had an item 'imgae' to write."
    ]
    assert sum("'imgae'" in record.message for record in caplog.records) == 1
    assert process(folder, ["invert"], keys=["image"]).warnings == []


def test_outcomes_are_counted(folder: Place) -> None:
    def mixed(sample: Sample) -> Any:
        number = sample["metadata"]()["number"]
        if number < 3:
            return None
        if number < 5:
            return sample
        if number < 6:
            return sample, 20
        return count_runs(sample)

    report = process(folder, mixed)

    assert report.counts == {"written": 7, "unchanged": 2, "skipped": 3, "failed": 0, "removed": 0}
    assert np.array_equal(image_at(folder, 20), image_of(5))


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_bad_samples_are_reported_and_the_others_written(folder: Place, tasks_per: str) -> None:
    truncated = [str(truncate_image(folder, idx)) for idx in (2, 9)]

    report = process(folder, ["invert"], max_failed=0.5, tasks_per=tasks_per, sample_retries=1)

    assert report.counts == {
        "written": N - 2,
        "unchanged": 0,
        "skipped": 0,
        "failed": 2,
        "removed": 0,
    }
    assert [failure.idx for failure in report.failures] == [2, 9]
    for failure, path in zip(report.failures, truncated, strict=True):
        assert failure.error_type == "DecodeError"
        assert path in failure.message
        assert "DecodeError" in failure.traceback
        assert failure.attempts == 2
    assert np.array_equal(image_at(folder, 11), 255 - image_of(11))


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_sample_that_fails_once_is_tried_again(folder: Place, tasks_per: str) -> None:
    failed: list[int] = []

    def fails_once(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 4 and not failed:
            failed.append(number)
            raise OSError("the share is away")
        return count_runs(sample)

    report = process(folder, fails_once, sample_retries=1, tasks_per=tasks_per)

    assert report.counts["written"] == N
    assert runs_of(folder, range(N)) == [1] * N


def test_empty_selection_is_a_report_of_nothing(folder: Place) -> None:
    report = process(folder, indices=[])

    assert report.total == 0
    assert not is_address(folder) or not has_private_files(folder)
    assert is_address(folder) or not (folder / ".pipestream" / "runs").exists()


@pytest.mark.parametrize("select", ["all", "changed"])
def test_a_sample_with_two_files_of_one_item_fails_alone(folder: Place, select: Any) -> None:
    Files(folder)["data/009_image.bmp"] = b"BM"

    report = process(folder, ["invert"], max_failed=0.5, select=select)

    assert [failure.error_type for failure in report.failures] == ["DuplicateItemError"]
    assert [failure.idx for failure in report.failures] == [9]
    assert report.counts["written"] == N - 1


# -- how it ends -----------------------------------------------------------------------------


def test_too_many_failures_end_the_flow_as_failed_with_its_report(folder: Place) -> None:
    truncate_image(folder, 2)

    with pytest.raises(
        TooManyFailedError, match=r"1 of 12 samples failed .* sample 2: Decode"
    ) as e:
        process(folder, ["invert"])

    assert e.value.report.counts == {
        "written": N - 1,
        "unchanged": 0,
        "skipped": 0,
        "failed": 1,
        "removed": 0,
    }
    state = process_samples(
        ReadWriteUnderfolder(folder=folder), ["invert"], sample_retries=0, return_state=True
    )
    assert state.is_failed()
    assert "1 of 12 samples failed" in str(state.message)


def test_share_of_failures_may_be_allowed(folder: Place) -> None:
    truncate_image(folder, 2)

    assert process(folder, ["invert"], max_failed=1 / N).counts["failed"] == 1
    with pytest.raises(TooManyFailedError):
        process(folder, ["invert"], max_failed=1 / N - 0.001)


def test_retried_flow_run_tries_only_what_failed(folder: Place) -> None:
    attempts: list[int] = []

    def fails_at_first(sample: Sample) -> Sample:
        attempts.append(sample["metadata"]()["number"])
        if len(attempts) <= N and attempts[-1] == 4:
            raise OSError("the share is away")
        return count_runs(sample)

    report = process_samples.with_options(retries=1)(
        ReadWriteUnderfolder(folder=folder), fails_at_first, sample_retries=0
    )

    assert report.counts == {"written": N, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    assert len(attempts) == N + 1
    assert runs_of(folder, range(N)) == [1] * N


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (["invrt"], "Did you mean 'invert'"),
        ([{"invert": {"colour": 1}}], "colour"),
        (["os:remove"], "not a stage"),
        (3, "3"),
    ],
)
def test_wrong_transform_is_refused_before_anything_runs(
    folder: Place, transform: Any, message: str
) -> None:
    new = beside(folder, "new")
    with pytest.raises(PipeBuildingError, match=message):
        process(folder, transform, target=CreateNewUnderfolder(folder=new))

    assert is_address(new) or not Path(new).exists()
    assert not has_private_files(new)
    assert not has_private_files(folder)


def test_wrong_index_is_refused_before_anything_runs(folder: Place) -> None:
    with pytest.raises(IndexError, match="no sample 12; there are 12 samples"):
        process(folder, indices=[0, 12])

    assert runs_of(folder, [0]) == [0]


def test_missing_dataset_is_named(new_place: Place) -> None:
    with pytest.raises(DatasetNotFoundError, match="none"):
        process(new_place / "none")


@pytest.mark.about_files
def test_dataset_that_cannot_be_written_ends_the_run(folder: Path) -> None:
    (folder / ".pipestream").mkdir()
    (folder / ".pipestream" / "staged").write_text("in the way")

    with pytest.raises(DatasetWriteError, match=r"\.pipestream/staged"):
        process(folder)

    assert runs_of(folder, range(N)) == [0] * N


# -- runs ------------------------------------------------------------------------------------


def test_run_of_the_same_key_goes_on(folder: Place) -> None:
    first = process(folder, indices=range(5), run_key="nightly")
    second = process(folder, run_key="nightly")

    assert first.counts["written"] == 5
    assert second.counts["written"] == N
    assert second.run_key == "nightly"
    assert runs_of(folder, range(N)) == [1] * N


def test_run_goes_on_after_it_was_interrupted(folder: Place) -> None:
    interrupted: list[int] = []

    def stops_once(sample: Sample) -> Sample:
        if sample["metadata"]()["number"] == 8 and not interrupted:
            interrupted.append(8)
            raise KeyboardInterrupt
        return count_runs(sample)

    with pytest.raises(BaseException):  # noqa: B017, PT011 - how Prefect shows it is its own affair
        process(folder, stops_once, run_key="nightly")
    report = process(folder, stops_once, run_key="nightly")

    assert report.counts["written"] == N
    assert runs_of(folder, range(N)) == [1] * N


def test_chunks_of_a_flow_that_timed_out_end_too(folder: Place) -> None:
    started = []

    def slow(sample: Sample) -> Sample:
        started.append(sample)
        time.sleep(0.5)
        return count_runs(sample)

    state = process_samples.with_options(timeout_seconds=2)(
        ReadWriteUnderfolder(folder=folder), slow, chunk_size=N, return_state=True
    )
    assert state.name == "TimedOut"
    time.sleep(1.0)
    number = len(started)
    time.sleep(1.0)
    assert len(started) == number < N


def test_failed_samples_of_the_last_run_are_selected(folder: Place) -> None:
    good = Files(folder)["data/002_image.png"]
    truncate_image(folder, 2)
    process(folder, ["invert"], max_failed=1)
    Files(folder)["data/002_image.png"] = good

    report = process(folder, ["invert"], select="failed")

    assert report.counts == {"written": 1, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    assert all(np.array_equal(image_at(folder, i), 255 - image_of(i)) for i in range(N))


def test_retry_of_a_run_over_failed_samples_does_what_is_left_of_them(folder: Place) -> None:
    good = {idx: Files(folder)[f"data/{idx:03d}_image.png"] for idx in (2, 5, 8)}
    for idx in good:
        truncate_image(folder, idx)
    process(folder, ["verify-items", "invert"], max_failed=1)
    for idx, content in good.items():
        Files(folder)[f"data/{idx:03d}_image.png"] = content
    seen: list[int] = []

    def stops_at_the_second(sample: Sample) -> Sample:
        seen.append(sample["metadata"]()["number"])
        if len(seen) == 2:
            raise DatasetWriteError(errno.ENOSPC, "the disk is full")
        return sample.set_value("image", 255 - sample["image"]())

    report = process_samples.with_options(retries=1)(
        ReadWriteUnderfolder(folder=folder), stops_at_the_second, select="failed", chunk_size=1
    )

    assert report.counts == {"written": 3, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    assert all(np.array_equal(image_at(folder, i), 255 - image_of(i)) for i in range(N))


def test_what_an_interrupted_run_over_failed_samples_did_not_come_to_is_not_forgotten(
    folder: Place,
) -> None:
    def fails(sample: Sample) -> Sample:
        raise OSError("the share is away")

    def stops(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 1:
            raise OSError("the share is away")
        if number == 2:
            raise DatasetError("the dataset is away")
        return count_runs(sample)

    process(folder, fails, indices=range(4), max_failed=1)
    with pytest.raises(DatasetError, match="dataset is away"):
        process_samples.with_options(task_runner=ThreadPoolTaskRunner(max_workers=1))(
            ReadWriteUnderfolder(folder=folder), stops, select="failed", chunk_size=1
        )
    report = process(folder, select="failed")

    assert report.counts["written"] == 3
    assert runs_of(folder, range(6)) == [1, 1, 1, 1, 0, 0]


def test_selecting_failed_samples_without_a_run_is_an_error(folder: Place) -> None:
    with pytest.raises(RunNotFoundError):
        process(folder, ["invert"], select="failed")
    process(folder, ["invert"], run_key="first")
    with pytest.raises(RunNotFoundError, match="frist"):
        process(folder, ["invert"], select="failed", run_key="frist")


@pytest.mark.parametrize("select", ["all", "failed"])
def test_an_empty_run_key_is_refused_before_anything_is_done(folder: Place, select: str) -> None:
    with pytest.raises(RunKeyError, match="run key ''"):
        process(folder, ["invert"], select=select, run_key="")
    assert not has_private_files(folder)


def test_only_changed_samples_are_selected(folder: Place) -> None:
    process(folder, count_runs)
    other = DataStream.read_write_underfolder(folder)
    other.set_output(4, other[4].set_value("image", 255 - image_of(4)))
    other.set_output(N, other[5])

    report = process(folder, count_runs, select="changed")
    again = process(folder, count_runs, select="changed")

    assert report.counts["written"] == 2
    assert again.total == 0
    assert runs_of(folder, range(N + 1)) == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2]


def brightened(sample: Sample) -> Sample:
    """A transform that makes a sample of its own, rather than change the one that it got."""
    return Sample({"image": PngImageItem(sample["image"]() + 1)})


@pytest.mark.parametrize("transform", [["invert"], brightened], ids=["stage", "new-sample"])
@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_what_a_run_wrote_itself_is_not_changed_to_the_next(
    folder: Place, transform: Any, tasks_per: str
) -> None:
    process(folder, transform, select="changed", tasks_per=tasks_per)
    before = files_of(folder)

    again = process(folder, transform, select="changed", tasks_per=tasks_per)

    assert again.total == 0
    assert files_of(folder) == before


@pytest.mark.parametrize("transform", [["invert"], brightened], ids=["stage", "new-sample"])
def test_a_change_by_another_writer_is_transformed_not_lost(folder: Place, transform: Any) -> None:
    writes = iter([90])

    def meanwhile(sample: Sample) -> Sample:
        for value in writes:
            other = DataStream.read_write_underfolder(folder)
            other.set_output(0, other[0].set_value("image", np.full((8, 8, 3), value, np.uint8)))
        return sample

    process(folder, [transform, meanwhile], indices=[0])

    assert image_at(folder, 0).max() in (255 - 90, 90 + 1)


def test_another_transform_sees_all_samples_as_changed(folder: Place) -> None:
    process(folder, ["identity"], select="changed")

    assert process(folder, ["invert"], select="changed").total == N


def test_run_can_be_undone(folder: Place) -> None:
    before = files_of(folder)
    report = process(folder, ["invert"])

    undo_run(folder, report.run_key)

    assert files_of(folder) == before


# -- ways to run it --------------------------------------------------------------------------


@pytest.mark.about_files
def test_every_way_of_running_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    transform = ["invert", {f"{__package__}.transforms:brighten": {"amount": 3}}]
    runners = {
        "threads": process_samples.with_options(task_runner=ThreadPoolTaskRunner(max_workers=3)),
        "processes": process_samples.with_options(task_runner=ProcessPoolTaskRunner(max_workers=2)),
    }
    found = {}
    for name, runner in runners.items():
        copy = shutil.copytree(folder, tmp_path / name)
        report = runner(ReadWriteUnderfolder(folder=copy), transform, chunk_size=5)
        assert report.counts["written"] == N
        found[name] = files_of(copy)
    copy = shutil.copytree(folder, tmp_path / "by sample")
    process(copy, transform, tasks_per="sample")

    assert found["threads"] == files_of(copy)
    assert found["processes"] == files_of(copy)
    assert found["threads"] != files_of(folder)


@pytest.mark.about_files
def test_function_of_a_script_runs_on_worker_processes(folder: Path, tmp_path: Path) -> None:
    target = CreateNewUnderfolder(folder=tmp_path / "new")
    darkness = 3

    report = process_samples.with_options(task_runner=ProcessPoolTaskRunner(max_workers=1))(
        ReadWriteUnderfolder(folder=folder),
        lambda sample: sample.set_value("image", sample["image"]() // darkness),
        target=target,
    )

    assert report.counts["written"] == N
    assert np.array_equal(image_at(tmp_path / "new", 7), image_of(7) // 3)


def test_stage_with_a_field_named_keys_is_taken(folder: Place) -> None:
    report = process(folder, StageSampleHash(keys=["image"]))

    assert report.counts["written"] == N


def test_within_a_flow_of_the_users_own(folder: Place) -> None:
    @flow
    def nightly() -> RunReport:
        return process_samples(ReadWriteUnderfolder(folder=folder), ["invert"])

    assert nightly().counts["written"] == N


def test_parameters_have_descriptions_and_limits() -> None:
    properties = process_samples.parameters.properties

    assert all(field.get("description") for field in properties.values())
    assert properties["max_failed"]["maximum"] == 1
    with pytest.raises(Exception, match="max_failed"):
        process_samples(ReadWriteUnderfolder(folder=Path()), ["invert"], max_failed=2)


# -- its log ---------------------------------------------------------------------------------


def test_log_has_a_line_a_chunk_and_a_line_a_failed_sample(
    folder: Place, caplog: pytest.LogCaptureFixture
) -> None:
    truncated = truncate_image(folder, 2)

    with caplog.at_level(logging.INFO):
        process(folder, ["invert"], chunk_size=4, max_failed=1)

    lines = [r.getMessage() for r in caplog.records if r.name.startswith("prefect.")]
    assert sum(line.startswith("Samples ") for line in lines) == 3
    (failed,) = [line for line in lines if line.startswith("Sample ")]
    assert failed.startswith("Sample 2 failed after 1 attempt: DecodeError")
    assert str(truncated) in failed
    assert len(lines) < 15


def test_a_run_with_nothing_left_to_do_says_so(
    folder: Place, caplog: pytest.LogCaptureFixture
) -> None:
    process(folder, ["invert"], run_key="k")
    with caplog.at_level(logging.INFO):
        process(folder, ["invert"], run_key="k")

    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Run k: ")]
    assert said[-1].endswith(" written; nothing left to do")


def test_failed_run_leaves_no_stack_trace_in_the_log(
    folder: Place, caplog: pytest.LogCaptureFixture
) -> None:
    truncate_image(folder, 2)

    with caplog.at_level(logging.INFO), pytest.raises(TooManyFailedError):
        process(folder, ["invert"])

    assert not [record for record in caplog.records if record.exc_info]


def test_number_of_task_runs_stays_small(folder: Place) -> None:
    run_key = process(folder, ["invert"], chunk_size=5).run_key

    names: list[str] = []
    for _ in range(50):  # task runs reach the API a moment after they end
        with get_client(sync_client=True) as client:
            flow_runs = FlowRunFilter(id=FlowRunFilterId(any_=[run_key]))  # type: ignore[list-item]
            found = client._client.post(
                "/task_runs/filter",
                json={"flow_runs": flow_runs.model_dump(mode="json"), "limit": 20},
            ).json()
        names = sorted(task_run["name"] for task_run in found)
        if len(names) == 3 and "process_chunk" not in names[0]:
            break
        time.sleep(0.1)
    assert names == ["samples 0-4", "samples 10-11", "samples 5-9"]


def test_no_progress_bar_without_a_terminal(
    folder: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    process(folder, ["invert"])

    assert "Samples" not in capsys.readouterr().out
    assert not sys.stderr.isatty()


# -- how pictures are encoded ----------------------------------------------------------------


def test_encoder_options_reach_what_changes(folder: Place) -> None:
    options = {"image": {"compress_level": 0}}
    before = files_of(folder)
    process(folder, lambda sample: sample, encoder_options=options)
    assert files_of(folder) == before
    process(folder, ["invert"], encoder_options=options)
    after = files_of(folder)
    assert all(len(after[name]) > len(before[name]) for name in after if name.endswith(".png"))
    assert np.array_equal(image_at(folder, 3), 255 - image_of(3))


def test_wrong_encoder_option_is_refused_before_anything_is_written(folder: Place) -> None:
    before = files_of(folder)
    with pytest.raises(PipeBuildingError, match=r"'image': .*no encoder option 'level'"):
        process(folder, ["invert"], encoder_options={"image": {"level": 0}})
    assert files_of(folder) == before


def test_other_encoder_options_count_as_another_transform(folder: Place) -> None:
    for _ in range(2):
        report = process(
            folder, ["invert"], select="changed", encoder_options={"image": {"optimize": True}}
        )
    assert report.counts.get("written", 0) == 0
    assert process(folder, ["invert"], select="changed").counts["written"] == N


def test_a_run_that_was_killed_with_all_samples_done_is_ended_by_the_next_attempt(
    tmp_path: Path,
) -> None:
    folder = make_dataset(tmp_path / "set")
    process(folder, run_key="k")
    note = folder / ".pipestream/runs/k/run.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "finished": None}))
    assert [run.state for run in list_runs(folder)] == ["stopped"]

    report = process(folder, run_key="k")

    assert report.counts["written"] == report.done_before
    assert [run.state for run in list_runs(folder)] == ["finished"]
