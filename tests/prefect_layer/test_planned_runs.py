"""Runs that are planned first: what they would do, and that they do just that."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from prefect_pipestream import cli, list_runs, plan_of
from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import (
    DatasetExistsError,
    DatasetWriteError,
    PlanError,
    QueryError,
    RunKeyError,
)
from prefect_pipestream.flows import (
    build_dataset,
    clean_dataset,
    import_dataset,
    process_samples,
    reprocess_failed,
)
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.reporting.plans import RunPlan
from prefect_pipestream.sequences import REMOVE, DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.validation import FieldRule, ItemRule
from tests.bad_input.test_folders import read_only_mount
from tests.dataset_files import Files, beside, has_private_files, made_at
from tests.layouts.photos import files_below, make_image, make_photos
from tests.underfolder.conftest import run_of

from .artifacts import artifact_texts
from .datasets import count_runs, files_of, image_of, make_dataset, runs_of, truncate_image

pytestmark = pytest.mark.usefixtures("prefect_api", "listed_at_once")

N = 12


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, N)


def planned(folder: Place, transform: Any = count_runs, **arguments: Any) -> RunPlan:
    arguments = {"artifacts": False, **arguments}
    return plan_of(process_samples, ReadWriteUnderfolder(folder=folder), transform, **arguments)


def process(
    folder: Place, transform: Any = count_runs, flow: Any = process_samples, **arguments: Any
) -> Any:
    arguments = {"sample_retries": 0, "artifacts": False, "max_failed": 1.0, **arguments}
    return flow(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def rewrite(folder: Place, *indices: int) -> None:
    """Somebody changes samples by hand."""
    for idx in indices:
        text = f"number: {idx}\nruns: 0\nby_hand: true\n"
        Files(folder)[f"data/{idx:03d}_metadata.yaml"] = text.encode()


def remove(folder: Place, idx: int) -> None:
    for name in Files(folder).of_sample(idx):
        del Files(folder)[f"data/{name}"]


def states_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """What the system knows of each file of a dataset, but for when it was read."""
    states = {path.name: path.lstat() for path in (folder / "data").iterdir()}
    return {
        name: (one.st_ino, one.st_mode, one.st_nlink, one.st_mtime_ns, one.st_ctime_ns)
        for name, one in states.items()
    }


def private_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / ".pipestream").rglob("*") if path.is_file()}


# -- what a plan says --------------------------------------------------------------------------


@pytest.mark.about_files
def test_a_plan_writes_nothing_but_itself(folder: Path) -> None:
    before = states_of(folder)

    plan = planned(folder)

    assert states_of(folder) == before
    assert list_runs(folder) == []
    assert private_files(folder) == {f"{plan.key}.npz"}
    assert (plan.counts, plan.indices) == ({"never_seen": N}, list(range(N)))
    assert (plan.tried, plan.outcomes["written"]) == (N, N)
    assert RunPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_plan_tries_a_sample_with_two_files_of_one_item_as_others(folder: Place) -> None:
    Files(folder)["data/009_image.bmp"] = b"BM"

    plan = planned(folder, select="changed")

    assert (plan.tried, plan.outcomes["written"], plan.outcomes["failed"]) == (N, N - 1, 1)


def test_samples_are_counted_by_why_they_would_be_processed(folder: Place) -> None:
    process(folder, ["verify-items"], indices=range(4, N))
    truncate_image(folder, 5)
    process(folder, ["verify-items"], select="changed", indices=range(4, N))
    rewrite(folder, 7, 8)

    plan = planned(folder, ["verify-items"], select="changed")

    assert plan.samples == {"new": [0, 1, 2, 3], "changed": [7, 8], "failed": [5]}
    assert plan.left_out == {"done": 0, "unchanged": 5}
    everything = planned(folder, ["verify-items"])
    assert everything.samples["again"] == [4, 6, 9, 10, 11]
    assert planned(folder, ["verify-items"], select="failed").samples == {"failed": [5]}
    assert planned(folder, ["invert"], select="changed").counts == {"never_seen": N}


def test_what_indices_and_where_chose_is_counted(folder: Place) -> None:
    plan = planned(folder, where="metadata.number >= 3", indices=[0, 1, 2, 3, 4])

    assert plan.indices == [3, 4]
    assert plan.chosen_by == {"indices": 5, "where": 2}
    assert plan.left_out == {"done": 0, "unnamed": N - 5, "unmatched": 3}
    assert "7 not among `indices`, 3 not as `where` says" in plan.summary()


def test_the_rest_of_a_run_can_be_planned(folder: Place) -> None:
    process(folder, run_key="r", indices=range(4))

    plan = planned(folder, run_key="r")

    assert plan.indices == list(range(4, N))
    assert plan.left_out["done"] == 4
    assert process(folder, run_key="r", follow=plan.key).counts["written"] == N
    assert runs_of(folder, range(N)) == [1] * N


def test_samples_that_fail_when_tried_are_told_and_not_raised(folder: Place) -> None:
    truncate_image(folder, 3)

    plan = planned(folder, ["verify-items", "invert"])

    assert plan.outcomes["failed"] == 1
    (failure,) = plan.failures
    assert (failure.idx, failure.error_type) == (3, "DecodeError")
    assert "003_image.png" in failure.message
    assert [change.idx for change in plan.changes] == [0, 1, 2, *range(4, N)]


@pytest.mark.about_files
def test_samples_that_hang_or_crash_when_tried_fail_within_their_limits(folder: Path) -> None:
    def some_break(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 3:
            time.sleep(1000)
        if number == 7:
            os._exit(3)
        return count_runs(sample)

    plan = planned(folder, some_break, sample_timeout=1.0)

    assert {one.idx: one.error_type for one in plan.failures} == {
        3: "SampleTimeoutError",
        7: "SampleDiedError",
    }
    assert (plan.outcomes["written"], plan.total) == (N - 2, N)
    assert private_files(folder) == {f"{plan.key}.npz"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_samples_that_would_not_be_valid_are_told(elsewhere: bool, folder: Place) -> None:
    rules = [
        {"key": "image", "channels": [3]},
        {"key": "metadata", "required_fields": [{"path": "number", "maximum": 9}]},
    ]
    target = CreateNewUnderfolder(folder=beside(folder, "new")) if elsewhere else None

    plan = planned(folder, ["invert"], rules=rules, target=target)

    assert [one.idx for one in plan.failures] == [10, 11]
    assert "number" in plan.failures[0].message
    assert plan.outcomes["written"] == 10
    report = process(folder, ["invert"], rules=rules, target=target, follow=plan.key)
    assert report.counts["written"] == 10


def test_the_trial_tells_what_would_become_of_samples(folder: Place) -> None:
    def some_of_each(sample: Sample) -> Any:
        number = sample["metadata"]()["number"]
        if number % 4 == 0:
            return REMOVE
        if number % 4 == 1:
            return None
        return sample if number % 4 == 2 else (count_runs(sample), number + 100)

    plan = planned(folder, some_of_each)

    outcomes = {"written": 3, "unchanged": 3, "skipped": 3, "failed": 0, "removed": 3}
    assert plan.outcomes == outcomes
    shown = {change.idx: (change.target, change.differences) for change in plan.changes}
    assert shown[4] == (4, ["removed"])
    assert shown[7][0] == 107
    assert process(folder, some_of_each).counts == outcomes


def test_the_space_that_undo_will_hold_is_that_of_the_items_that_change(folder: Place) -> None:
    plan = planned(folder)

    process(folder, run_key="r")
    (run,) = list_runs(folder)
    assert plan.undo_bytes == run.undo_bytes > 0


def test_no_plan_says_that_its_run_takes_no_time(folder: Place) -> None:
    plan = planned(folder).model_copy(update={"seconds_per_sample": 1e-6, "workers": 2})

    assert plan.time() == "0.1 s with 2 workers"


def test_plan_links_to_the_form_of_a_run_with_all_that_was_given_and_a_saved_block_as_its_folder(
    folder: Place,
) -> None:
    clean_dataset.to_deployment("now").apply()
    ReadWriteUnderfolder(folder=folder).save("saved", overwrite=True)
    rules = [ItemRule(key="metadata", required_fields=(FieldRule(path="runs", minimum=0),))]

    plan = plan_of(
        clean_dataset,
        ReadWriteUnderfolder.load("saved"),
        ["invert"],
        sample_retries=0,
        rules=rules,
    )

    text = artifact_texts("plan-dataset")[0]
    (address,) = re.findall(r"\[Run just this\]\((.*)\)", text)
    (filled,) = parse_qs(urlsplit(address).query)["parameters"]
    given = json.loads(filled)
    assert {key: given[key] for key in ("dataset", "transform", "plan", "follow")} == {
        "dataset": str(folder),
        "transform": ["invert"],
        "plan": False,
        "follow": plan.key,
    }
    assert given["sample_retries"] == 0
    assert clean_dataset(**given).total == N
    assert list_runs(folder)[-1].counts["written"] == N


def test_only_some_of_many_samples_are_tried(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "many", 190)  # in a bucket there may be no time for so many
    seen: list[int] = []

    def note(sample: Sample) -> Sample:
        seen.append(sample["metadata"]()["number"])
        return count_runs(sample)

    plan = planned(folder, note)

    assert plan.tried == len(seen) == 48
    assert {min(seen), max(seen)} == {0, 189}
    assert max(np.diff(sorted(seen))) <= 6
    assert max(np.diff(sorted(seen[:12]))) <= 40  # where there was no time for the others
    assert len(plan.changes) == 16
    assert plan.seconds is not None
    least, alone = plan.seconds
    assert least * plan.workers == pytest.approx(alone)


def test_a_transform_that_writes_a_shared_item_leaves_the_dataset_alone(folder: Place) -> None:
    def note_shared(sample: Sample) -> Sample:
        return sample.set_item("notes", YamlMetadataItem({"a": 1}, shared=True))

    planned(folder, note_shared)

    assert "notes.yaml" not in Files(folder)


def test_a_wrong_transform_or_query_is_refused_as_by_the_run(folder: Place) -> None:
    with pytest.raises(QueryError, match="column"):
        planned(folder, where="metadata.number = 3")
    with pytest.raises(PlanError, match="give one of them"):
        planned(folder, follow="plan-20260101T000000-000000")
    assert not has_private_files(folder)


@pytest.mark.about_files
def test_a_read_only_dataset_can_be_planned_and_the_plan_says_that_it_is_not_kept(
    folder: Path,
) -> None:
    with read_only_mount(folder):
        plan = planned(folder, where="metadata.number < 3")
    assert plan.indices == [0, 1, 2]
    assert not plan.can_be_followed
    assert any("cannot be followed" in warning for warning in plan.warnings)
    with pytest.raises(PlanError, match=f"no plan {plan.key!r}"):
        process(folder, follow=plan.key)


def test_the_artifact_shows_reasons_costs_and_pictures(folder: Place) -> None:
    truncate_image(folder, 2)

    clean_dataset(folder, ["verify-items", "invert"], plan=True)

    text = artifact_texts("plan-dataset")[0]
    for part in (
        "12 samples would be processed",
        "| 12 | never seen by this transform | 0-11 |",
        "Undo would hold some",
        "Failed of those tried",
        "002\\_image.png",
        "![before](data:image/png;base64,",
        "![after](data:image/png;base64,",
    ):
        assert part in text
    assert "Nothing was written" in text


# -- a run that goes by a plan -----------------------------------------------------------------


def test_a_run_does_just_what_was_planned_and_names_what_changed_since(folder: Place) -> None:
    plan = planned(folder, where="metadata.number < 10 and metadata.runs == 0")
    rewrite(folder, 3, 4)
    remove(folder, 6)
    stream = DataStream.read_write_underfolder(folder)
    new = YamlMetadataItem({"number": 9, "runs": 0})
    stream.set_output(12, stream[11].set_item("metadata", new))

    report = process(folder, follow=plan.key, run_key="r")

    assert report.counts["written"] == report.total == 7
    assert runs_of(folder, [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]) == [1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]
    changed, gone, came = report.warnings
    assert "2 samples were changed since and left as they are: 3-4" in changed
    assert "1 sample is gone since: 6" in gone
    assert "1 sample is chosen now and was not planned and left as it is: 12" in came
    assert run_of(folder, "r").facts()["plan"] == plan.key


def test_a_plan_can_be_named_as_the_run(folder: Place) -> None:
    plan = planned(folder, indices=[1, 2])

    assert process(folder, run_key=plan.key).counts["written"] == 2

    assert runs_of(folder, range(4)) == [0, 1, 1, 0]
    plans = documents_of(folder)
    for name in plans.names_in("plans"):
        plans.remove("plans", name)
    with pytest.raises(PlanError, match="there is no plan"):
        process(folder, run_key=plan.key)
    assert runs_of(folder, range(4)) == [0, 1, 1, 0]


def test_another_transform_other_keys_or_samples_are_refused(folder: Place) -> None:
    plan = planned(folder, ["invert"], indices=[1, 2])
    before = files_of(folder)

    def follow(transform: Any = ("invert",), **arguments: Any) -> None:
        process(folder, list(transform), follow=plan.key, **arguments)

    with pytest.raises(PlanError, match=r'planned was .*"invert".*this run has .*"autocontrast"'):
        follow(["autocontrast"])
    with pytest.raises(PlanError, match=r"this run has .*\(fingerprint \w+, keys image\)"):
        follow(keys=["image"])
    with pytest.raises(PlanError, match="other indices"):
        follow(indices=[1])
    with pytest.raises(QueryError, match="was made without a query"):
        follow(where="metadata.number == 1")
    with pytest.raises(PlanError, match=r"writes .*dataset, and this one writes .*other"):
        follow(target=CreateNewUnderfolder(folder=beside(folder, "other")))
    with pytest.raises(PlanError, match="there is no plan 'other'"):
        process(folder, ["invert"], follow="other")
    with pytest.raises(RunKeyError):
        process(folder, ["invert"], follow="")
    assert files_of(folder) == before
    assert list_runs(folder) == []
    follow(indices=[2, 1])


def test_a_run_that_is_gone_on_with_keeps_to_its_plan(folder: Place) -> None:
    shared = YamlMetadataItem({"a": 1}, shared=True)
    full = [True]  # what is in a list is no part of a transform's fingerprint

    def stops_at_four(sample: Sample) -> Sample:
        if full and sample["metadata"]()["number"] == 4:
            raise DatasetWriteError(28, "the disk is full")
        # The shared item that comes with the first commit is no change since the plan.
        return count_runs(sample).set_item("notes", shared)

    plan = planned(folder, stops_at_four, where="metadata.number >= 2")
    one_by_one = process_samples.with_options(task_runner=ThreadPoolTaskRunner(max_workers=1))
    with pytest.raises(DatasetWriteError):
        process(folder, stops_at_four, one_by_one, follow=plan.key, run_key="r", chunk_size=1)
    assert 0 < sum(runs_of(folder, range(N))) < N - 2
    rewrite(folder, 9)
    full.clear()

    report = process(folder, stops_at_four, run_key="r", select="all")

    assert report.counts["written"] == report.total == N - 3
    assert runs_of(folder, range(N)) == [0, 0, *[1] * 7, 0, 1, 1]
    assert [warning for warning in report.warnings if "changed since" in warning]


def test_shared_items_that_changed_count_for_all_samples(folder: Place) -> None:
    plan = planned(folder)
    Files(folder)["camera.yaml"] = b"camera: another one\n"

    report = process(folder, follow=plan.key)

    assert report.total == 0
    assert "12 samples were changed since, as the shared items were," in report.warnings[0]


def test_failed_samples_are_planned_and_processed_again(folder: Place) -> None:
    whole = Files(folder)["data/002_image.png"]
    truncate_image(folder, 2)
    process(folder, ["verify-items", "invert"], run_key="r")
    Files(folder)["data/002_image.png"] = whole

    plan = plan_of(reprocess_failed, folder, ["verify-items", "invert"])
    assert (plan.samples, plan.tried) == ({"failed": [2]}, 1)
    report = reprocess_failed(folder, ["verify-items", "invert"], follow=plan.key)

    assert report.counts["written"] == report.total == 1
    image = DataStream.read_write_underfolder(folder)[2]["image"]()
    assert np.array_equal(image, 255 - image_of(2))


def test_a_dataset_to_be_built_is_not_made_and_is_built_as_planned(folder: Place) -> None:
    target = beside(folder, "built")

    plan = plan_of(build_dataset, folder, target, ["invert"], where="metadata.number < 3")

    assert not documents_of(target).is_dataset()
    assert (plan.total, plan.undo_bytes, plan.can_be_followed) == (3, 0, True)
    rewrite(folder, 1)
    report = build_dataset(folder, target, ["invert"], follow=plan.key)
    assert report.counts["written"] == 2
    with pytest.raises(DatasetExistsError):
        plan_of(build_dataset, folder, target, ["invert"])


def test_an_import_is_planned_and_done_as_planned(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", "b.jpg", "d.jpg")
    dataset = tmp_path / "set"
    first = plan_of(import_dataset, "images", photos, dataset)
    assert not dataset.exists()
    assert (first.total, first.can_be_followed) == (2, False)
    import_dataset("images", photos, dataset)
    make_photos(photos, "a.jpg", "c.jpg")
    before, noted = files_below(dataset), Files(dataset)[".pipestream/imported.jsonl"]

    plan = plan_of(import_dataset, "images", photos, dataset)

    assert plan.samples == {"new": [2, 3]}
    assert files_below(dataset) == before
    assert Files(dataset)[".pipestream/imported.jsonl"] == noted
    (photos / "c.jpg").unlink()
    make_image(photos / "c.jpg", 77)
    make_photos(photos, "e.jpg")
    report = import_dataset("images", photos, dataset, follow=plan.key)
    assert report.counts["written"] == report.total == 1
    assert any("was changed since" in warning for warning in report.warnings)
    assert any("was not planned" in warning for warning in report.warnings)
    assert import_dataset("images", photos, dataset).counts["written"] == 2


@pytest.mark.about_files
def test_worker_processes_do_what_was_planned(folder: Path) -> None:
    plan = planned(folder, ["invert"], indices=range(6))
    rewrite(folder, 5)
    flow = process_samples.with_options(task_runner=ProcessPoolTaskRunner(max_workers=2))

    report = flow(folder, ["invert"], follow=plan.key, artifacts=False)

    assert report.counts["written"] == report.total == 5


# -- the command line and the forms ------------------------------------------------------------


def test_commands_plan_and_follow(folder: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(folder)
    truncated = truncate_image(folder, 2)
    clean = ["clean", str(folder), "--transform", '["verify-items", "invert"]']
    options = ["--where", "metadata.number < 4", "--max-failed", "1"]

    assert cli.main([*clean, *options, "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "4 samples would be processed; nothing was written" in shown
    assert "never seen by this transform" in shown
    assert "mean 3.5 → 251.5" in shown
    assert truncated.name in shown
    assert {name for name, text in files_of(folder).items() if before[name] != text} == {
        f"data/{truncated.name}"
    }
    assert "--plan" not in shown.split("Do it")[1]

    assert cli.main([*clean, *options, "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["samples"] == {"never_seen": [0, 1, 2, 3]}
    assert cli.main([*clean, *options, "--follow", plan["key"], "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert (counts["written"], counts["failed"]) == (3, 1)
    assert cli.main([*clean, "--plan", "--follow", plan["key"]]) == 2
    assert cli.main([*clean, "--follow", "nothing"]) == 1
    assert "there is no plan 'nothing'" in capsys.readouterr().err


@pytest.mark.about_files
def test_names_of_files_give_a_plan_no_command_to_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.rename(folder / "data/002_image.png", folder / "data/002_\x1b]0;x\x07.png")

    assert cli.main(["clean", str(folder), "--transform", "invert", "--plan"]) == 0

    assert "\x1b]0" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "flow", [process_samples, clean_dataset, build_dataset, reprocess_failed, import_dataset]
)
def test_forms_have_a_switch_for_a_plan_and_a_field_to_follow_one(flow: Any) -> None:
    fields = flow.parameters.properties
    assert (fields["plan"]["type"], fields["plan"]["default"]) == ("boolean", False)
    assert fields["plan"]["description"]
    assert {"type": "string"} in fields["follow"]["anyOf"]
    assert fields["follow"]["description"]
