"""Runs that a worker starts: by schedule, and again after it was killed."""

import time
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.sequences import DataStream, Sample, sample_stage
from prefect_pipestream.underfolder import Run, keep_run, list_runs, sample_history
from tests.layouts.photos import files_below, make_photos
from tests.prefect_layer.datasets import count_runs, files_of, make_dataset, runs_of, truncate_image
from tests.ui.api import Api, waited
from tests.ui.conftest import POOL
from tests.ui.host import REPOSITORY, PrefectHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = "tests.ui.test_worker:count"


HANG = "tests.ui.test_worker:hang"


@sample_stage
def count(sample: Sample) -> Sample:
    """Counts in the sample how often it was applied: it is not idempotent."""
    return count_runs(sample)


@sample_stage
def hang(sample: Sample, number: int) -> Sample:
    """Never returns for one of the samples."""
    while sample["metadata"]()["number"] == number:
        time.sleep(1)
    return sample


def test_schedule_cleans_by_itself_and_finds_nothing_changed_the_next_time(
    api: Api, folder: Path
) -> None:
    dataset = make_dataset(folder / "nightly", samples=40)
    nightly = api.deployment("clean-dataset/nightly")
    assert api.ask(f"deployments/{nightly}")["parameters"]["select"] == "changed"
    parameters: dict[str, Any] = {"dataset": {"folder": str(dataset)}, "transform": [COUNT]}
    often = {"schedule": {"interval": 12}, "active": True, "parameters": parameters}
    (made,) = api.ask(f"deployments/{nightly}/schedules", [often])
    try:
        done = waited(lambda: _at_least(2, api.runs(nightly, "COMPLETED")))
    finally:
        api.ask(f"deployments/{nightly}/schedules/{made['id']}", method="DELETE")
    assert runs_of(dataset, range(40)) == [1] * 40
    assert len(Run.of(dataset, done[0]["id"]).outcomes()) == 40
    assert len(Run.of(dataset, done[1]["id"]).outcomes()) == 0


def test_flows_are_found_where_they_were_deployed_whatever_the_environment_says_of_the_folder(
    api: Api, host: PrefectHost, folder: Path
) -> None:
    assert host.env["PWD"] != str(REPOSITORY)
    (step,) = api.ask("deployments/name/clean-dataset/clean-on-demand")["pull_steps"]
    at = {"directory": str(REPOSITORY)}
    assert step == {"prefect.deployments.steps.set_working_directory": at}
    dataset = make_dataset(folder / "found", samples=2)
    run = api.start("clean-dataset/clean-on-demand", dataset=str(dataset), transform=[COUNT])
    api.wait_for_state(run, "Completed")
    assert runs_of(dataset, range(2)) == [1] * 2


def test_run_of_a_killed_worker_is_picked_up_and_applies_every_sample_once(
    api: Api, host: PrefectHost, folder: Path
) -> None:
    lost_runs = REPOSITORY / "automations" / "pick_up_lost_runs.yaml"
    host.prefect("automation", "create", "--from-file", str(lost_runs))
    dataset = make_dataset(folder / "killed", samples=120)
    run = api.start(
        "clean-dataset/clean-on-demand",
        dataset={"folder": str(dataset)},
        transform=[COUNT, {"tests.ui.stages:take_time": {"seconds": 0.4}}],
        chunk_size=10,
    )
    waited(lambda: api.ask("events/filter", heartbeats_of(run))["events"])
    waited(lambda: len(Run.of(dataset, run).outcomes()) > 10)
    host.restart_worker(POOL)
    done = len(Run.of(dataset, run).outcomes())
    assert 0 < done < 120
    api.wait_for_state(run, "Completed", seconds=300)
    assert runs_of(dataset, range(120)) == [1] * 120
    assert api.ask(f"flow_runs/{run}")["run_count"] == 2


def test_failed_samples_are_told_by_events_and_processed_again_by_the_automation(
    api: Api, folder: Path
) -> None:
    automations = api.ask("automations/filter", {})
    (again,) = [one for one in automations if one["name"].startswith("Reprocess failed")]
    assert not again["enabled"]
    api.ask(f"automations/{again['id']}", {"enabled": True}, method="PATCH")
    try:
        dataset = make_dataset(folder / "failing", samples=6)
        truncate_image(dataset, 2)
        run = api.start("clean-dataset/nightly", dataset={"folder": str(dataset)}, max_failed=0.5)
        api.wait_for_state(run, "Completed")
        found = waited(lambda: _events_of(api, run, "prefect-pipestream.samples.failed"))
        assert (found[0]["payload"]["failed"], found[0]["payload"]["run_key"]) == (1, run)
        reprocessing = api.deployment("reprocess-failed/after-nightly")
        (second,) = waited(lambda: api.runs(reprocessing, "COMPLETED"))
    finally:
        api.ask(f"automations/{again['id']}", {"enabled": False}, method="PATCH")
    assert second["parameters"]["dataset"] == str(dataset)
    assert second["parameters"]["failed_run"] == run
    assert Run.of(dataset, run).outcomes()[2].outcome == "failed"


def test_dataset_that_is_built_is_an_asset_of_its_source_and_its_undo_is_told(
    api: Api, folder: Path
) -> None:
    source, target = make_dataset(folder / "source", samples=4), folder / "built"
    run = api.start(
        "build-dataset/build-on-demand",
        source={"folder": str(source)},
        target={"folder": str(target)},
        transform=["invert"],
    )
    api.wait_for_state(run, "Completed")
    (finished,) = waited(lambda: _events_of(api, run, "prefect-pipestream.run.finished"))
    assert finished["payload"]["counts"]["written"] == 4
    assert finished["resource"]["prefect-pipestream.folder"] == str(target)
    (asset,) = waited(lambda: _events_of(api, run, "prefect.asset.materialization.succeeded"))
    assert asset["resource"]["prefect.resource.id"] == f"file://{target}"
    related = {
        (one["prefect.resource.id"], one["prefect.resource.role"]) for one in asset["related"]
    }
    assert (f"file://{source}", "asset") in related

    gate = api.start("validate-dataset/validate-on-demand", dataset={"folder": str(target)})
    api.wait_for_state(gate, "Completed")
    (told,) = waited(lambda: _events_of(api, gate, "prefect-pipestream.dataset.validated"))
    assert told["payload"]["folder"] == str(target)

    undo = api.start("undo-run/undo-on-demand", dataset={"folder": str(target)}, run_key=run)
    api.wait_for_state(undo, "Completed")
    (undone,) = waited(lambda: _events_of(api, undo, "prefect-pipestream.run.undone"))
    assert (undone["payload"]["run_key"], undone["payload"]["samples"]) == (run, 4)
    (shown,) = [one for one in api.artifacts(undo) if (one["key"] or "").startswith("undo-")]
    assert run in shown["data"]
    (note,) = [one for one in api.artifacts(run) if one["description"] == "Note"]
    assert undo in note["data"]


def test_photographs_come_in_and_go_out_by_deployments(api: Api, folder: Path) -> None:
    photos = make_photos(folder / "photos", "cat/a.jpg", "dog/b.png")
    run = api.start(
        "import-dataset/import-on-demand",
        kind="image-folder",
        source=str(photos),
        dataset=str(folder / "pets"),
        options={"origin": "camera"},
    )
    api.wait_for_state(run, "Completed")
    assert Run.of(folder / "pets", run).counts()["written"] == 2
    assert [one["key"].split("-")[0] for one in api.artifacts(run) if one["key"]]

    out = api.start(
        "export-dataset/export-on-demand",
        dataset={"folder": str(folder / "pets")},
        kind="image-folder",
        target=str(folder / "out"),
    )
    api.wait_for_state(out, "Completed")
    assert files_below(folder / "out") == files_below(photos)


def test_old_runs_are_pruned_by_the_deployment_whose_schedule_waits(api: Api, folder: Path) -> None:
    weekly = api.deployment("prune-runs/prune-weekly")
    (schedule,) = api.ask(f"deployments/{weekly}")["schedules"]
    assert (schedule["active"], schedule["schedule"]["cron"]) == (False, "0 5 * * 0")
    properties = api.ask(f"deployments/{weekly}")["parameter_openapi_schema"]["properties"]
    assert "gigabytes" in properties["larger_than_gb"]["description"]
    dataset = make_dataset(folder / "old", 4)
    for key in ("a", "b"):
        DataStream.read_write_underfolder(dataset, run_key=key).remove(0 if key == "a" else 1)
    keep_run(dataset, "a", "golden")
    given = {"dataset": str(dataset), "older_than_days": 0, "larger_than_gb": None, "keep_last": 0}
    for plan, left in ((True, ["a", "b"]), (False, ["a"])):
        run = api.start("prune-runs/prune-weekly", **given, plan=plan)
        api.wait_for_state(run, "Completed")
        assert [one.run_key for one in list_runs(dataset)] == left
        (shown,) = [one for one in api.artifacts(run) if one["key"]]
        assert (shown["key"], "| b | edited |" in shown["data"]) == ("prune-old", True)
    pruned = waited(lambda: _at_least(1, _events_of(api, run, "prefect-pipestream.runs.pruned")))
    assert pruned[0]["payload"]["run_keys"] == ["b"]


def test_form_plans_a_run_that_then_does_just_that(api: Api, folder: Path) -> None:
    dataset = make_dataset(folder / "planned", samples=6)
    before = files_of(dataset)
    given = {"dataset": str(dataset), "transform": [COUNT], "where": "metadata.number > 0"}
    planning = api.start("clean-dataset/clean-on-demand", **given, plan=True)
    api.wait_for_state(planning, "Completed")
    assert (files_of(dataset), list_runs(dataset)) == (before, [])

    DataStream.read_write_underfolder(dataset, run_key="by hand").remove(5)
    run = api.start("clean-dataset/clean-on-demand", **given, follow=api.plan_of(planning))
    api.wait_for_state(run, "Completed")
    assert runs_of(dataset, range(5)) == [0, 1, 1, 1, 1]
    (report,) = [one for one in api.artifacts(run) if (one["key"] or "").startswith("report")]
    assert "gone" in report["data"]


def test_form_takes_samples_of_a_run_back_and_does_one_once_more(api: Api, folder: Path) -> None:
    dataset = make_dataset(folder / "parts", samples=4)
    given = {"dataset": str(dataset), "transform": [COUNT]}
    run = api.start("clean-dataset/clean-on-demand", **given)
    api.wait_for_state(run, "Completed")
    for some in ({"indices": [1]}, {"where": "metadata.number == 2"}):
        undo = api.start("undo-run/undo-on-demand", dataset=str(dataset), run_key=run, **some)
        api.wait_for_state(undo, "Completed")
    assert runs_of(dataset, range(4)) == [1, 0, 0, 1]

    again = api.start("clean-dataset/clean-on-demand", **given, run_key=run, indices=[0], redo=True)
    api.wait_for_state(again, "Completed")
    assert runs_of(dataset, range(4)) == [1, 0, 0, 1]
    counts = [(event.run_key, event.counts) for event in sample_history(dataset, 0)]
    assert [(key == run, does) for key, does in counts] == [
        (True, False),
        (False, True),
        (True, True),
    ]


def test_form_sets_a_time_limit_that_costs_the_hanging_sample_alone(api: Api, folder: Path) -> None:
    dataset = make_dataset(folder / "hanging", samples=4)
    run = api.start(
        "clean-dataset/clean-on-demand",
        dataset=str(dataset),
        transform=[COUNT, {HANG: {"number": 2}}],
        sample_timeout=3,
        sample_memory=4000,
        sample_retries=0,
        max_failed=0.25,
    )
    api.wait_for_state(run, "Completed")
    assert runs_of(dataset, range(4)) == [1, 1, 0, 1]
    (failed,) = Run.of(dataset, run).failures()
    assert failed.failure is not None
    assert failed.failure.error_type == "SampleTimeoutError"


def test_form_gives_rules_by_which_a_run_takes_itself_back(api: Api, folder: Path) -> None:
    dataset = make_dataset(folder / "gated", samples=4)
    before = files_of(dataset)
    rule = {"key": "metadata", "required_fields": [{"path": "number", "maximum": 2}]}
    run = api.start(
        "clean-dataset/clean-on-demand",
        dataset=str(dataset),
        transform=[COUNT],
        rules=[rule],
        on_invalid="undo",
    )
    api.wait_for_state(run, "Failed")
    assert files_of(dataset) == before
    (taken_back,) = [one for one in list_runs(dataset) if one.run_key == run]
    assert taken_back.state == "undone"
    (finished,) = waited(lambda: _events_of(api, run, "prefect-pipestream.run.finished"))
    assert (
        finished["payload"]["counts"] | {"written": 3, "failed": 1} == finished["payload"]["counts"]
    )
    assert finished["payload"]["taken_back"]


def _events_of(api: Api, run: str, name: str) -> list[Any]:
    """The events of a name that a flow run emitted, or that are about it."""
    of_run = {"id": [f"prefect.flow-run.{run}"]}
    question = {"filter": {"event": {"name": [name]}, "any_resource": of_run}}
    found: list[Any] = api.ask("events/filter", question)["events"]
    return found


def _at_least(number: int, found: list[Any]) -> list[Any] | None:
    return found if len(found) >= number else None


def heartbeats_of(run: str) -> dict[str, Any]:
    """The question for the heartbeats of a flow run."""
    return {
        "filter": {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run}"]},
        }
    }
