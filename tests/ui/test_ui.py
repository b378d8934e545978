"""The three uses, as a person meets them in Prefect's UI: in a browser, with a real worker."""

import json
import re
import shutil
from pathlib import Path

import pytest

from prefect_pipestream.cli.demo import BROKEN_YAML, TRUNCATED, make_demo_dataset
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder import Run
from tests.prefect_layer.datasets import files_of
from tests.ui.api import Api, waited
from tests.ui.browser import Browser
from tests.ui.conftest import POOL
from tests.ui.host import PrefectHost

pytestmark = [pytest.mark.slow, pytest.mark.ui, pytest.mark.timeout(600)]

_SLOWLY = "tests.ui.stages:take_time"
_SAID_OF = {
    "where": "A query that is to be true of the samples",
    "sample_timeout": "The time in seconds after which a sample fails",
    "sample_memory": "The memory in MiB that the work on a sample may take",
    "rules": "as in validate-dataset",
    "on_invalid": "fail, and leave the others written; or undo",
    "plan": "Only say what the run would do",
    "follow": "The key of a plan, to do just that",
    "redo": "Process samples once more",
}


@pytest.fixture(scope="module")
def parts(folder: Path) -> Path:
    made = folder / "parts"
    make_demo_dataset(made)
    return made


def test_block_is_created_from_its_form(browser: Browser, api: Api, parts: Path) -> None:
    browser.create_block("read-write-underfolder", "parts", folder=str(parts))
    saved = api.ask("block_documents/filter", {})
    assert [block["data"]["folder"] for block in saved if block["name"] == "parts"] == [str(parts)]


def test_credentials_of_a_bucket_are_chosen_in_the_form_of_a_dataset(
    browser: Browser, api: Api
) -> None:
    kind = api.ask("block_types/slug/aws-credentials")
    of_kind = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schema = api.ask("block_schemas/filter", of_kind)[0]
    keys = {"aws_access_key_id": "robot's", "aws_secret_access_key": "secret"}
    ids = {"block_schema_id": schema["id"], "block_type_id": kind["id"]}
    api.ask("block_documents/", {"name": "robot", "data": keys, **ids})

    browser.create_block(
        "read-write-underfolder",
        "in-a-bucket",
        ("AwsCredentials", "robot"),
        folder="s3://bucket/parts",
    )

    saved = api.ask("block_documents/filter", {})
    (data,) = [block["data"] for block in saved if block["name"] == "in-a-bucket"]
    assert data["folder"] == "s3://bucket/parts"
    assert data["credentials"]["aws_access_key_id"] == "robot's"
    assert data["credentials"]["aws_secret_access_key"] != "secret"


def test_parameters_of_a_deployment_are_seen_in_its_form(browser: Browser, api: Api) -> None:
    nightly = api.deployment("clean-dataset/nightly")
    browser.open(f"deployments/deployment/{nightly}/run")
    assert browser.value("dataset") == "datasets/nightly"
    assert browser.value("max_failed") == "0.05"
    browser.picture("run-form")
    shown = {name: browser.description(name) for name in _SAID_OF}
    assert {name for name in shown if _SAID_OF[name] not in shown[name]} == set()


def test_run_started_from_the_form_moves_its_progress_and_ends_with_pictures(
    browser: Browser, api: Api, parts: Path
) -> None:
    deployment = api.deployment("clean-dataset/clean-on-demand")
    browser.fill_run_form(deployment, "parts", ["verify-items", "autocontrast", _SLOWLY])
    browser.fill("max_failed", "0.05")
    browser.submit()
    run = waited(lambda: api.last_run(deployment))

    progress = waited(lambda: api.artifact(run, "progress"))
    browser.open_artifact(progress)
    shown = browser.page.get_by_text("samples").first
    seen = set()
    while api.ask(f"flow_runs/{run}")["state"]["type"] in ("PENDING", "RUNNING"):
        browser.page.reload()
        shown.wait_for()
        seen.add(shown.inner_text())
        if len(seen) == 3:
            browser.picture("progress")
    assert len(seen) > 3, f"the progress artifact showed only {seen}"
    api.wait_for_state(run, "Completed")

    browser.open_artifact(waited(lambda: api.artifact(run, "report")))
    widths = browser.widths_of_pictures()
    assert len(widths) > 10
    assert all(width > 0 for width in widths)
    browser.page.get_by_text(f"{TRUNCATED:06d}_image.png").first.wait_for()
    assert browser.page.get_by_text(f"{TRUNCATED:06d}_image.png").count() == 1
    assert browser.page.get_by_text(f"{BROKEN_YAML:06d}_metadata.yaml").count() == 1
    browser.picture("report")
    browser.page.get_by_role("heading", name="Before and after").scroll_into_view_if_needed()
    browser.page.mouse.wheel(0, 500)
    browser.page.wait_for_timeout(500)
    browser.picture("report-pictures")


def test_reprocessing_is_started_from_the_failed_run_and_both_runs_name_each_other(
    browser: Browser, api: Api, parts: Path
) -> None:
    cleaning = api.deployment("clean-dataset/clean-on-demand")
    failed = api.last_run(cleaning)
    shutil.copy(
        parts / "data" / f"{TRUNCATED - 1:06d}_image.png",
        parts / "data" / f"{TRUNCATED:06d}_image.png",
    )
    (parts / "data" / f"{BROKEN_YAML:06d}_metadata.yaml").write_text("part: part-205\n")
    deployment = api.deployment("reprocess-failed/reprocess-on-demand")
    browser.open_artifact(waited(lambda: api.artifact(failed, "report")))
    browser.follow("Process the failed samples again")
    assert browser.value("dataset") == str(parts)
    assert browser.value("failed_run") == failed
    browser.picture("reprocess-form")
    browser.submit()
    run = waited(lambda: api.last_run(deployment))
    api.wait_for_state(run, "Completed")
    found = Run.of(parts, failed).outcomes()
    assert "failed" not in {found[idx].outcome for idx in (TRUNCATED, BROKEN_YAML)}

    browser.open_artifact(waited(lambda: api.artifact(run, "report")))
    link = browser.page.get_by_role("link", name=failed, exact=True)
    assert link.get_attribute("href").endswith(f"/runs/flow-run/{failed}")
    notes = [one["data"] for one in api.artifacts(failed) if one["description"] == "Note"]
    assert len(notes) == 1
    assert run in notes[0]


def test_part_of_a_review_is_approved_though_the_worker_was_restarted_meanwhile(
    browser: Browser, api: Api, host: PrefectHost, parts: Path
) -> None:
    before = files_of(parts)
    deployment = api.deployment("review-changes/review-on-demand")
    browser.fill_run_form(deployment, "parts", ["verify-items", "invert"])
    browser.fill("most", "6")
    browser.submit()
    run = waited(lambda: api.last_run(deployment))
    api.wait_for_state(run, "Suspended")
    assert files_of(parts) == before

    browser.open_artifact(waited(lambda: api.artifact(run, "review-parts")))
    assert all(width > 0 for width in browser.widths_of_pictures())
    browser.picture("review")

    host.restart_worker(POOL)
    browser.decide(
        run,
        "approve only these",
        "decision",
        samples="1, 3-4",
        comment="The others are fine.",
        reviewer="Ada",
    )
    api.wait_for_state(run, "Suspended", seconds=240)  # the others are left, and asked about
    assert files_of(parts) == before
    browser.decide(run, "reject the rest", "decision-rest", reviewer="Ada")
    api.wait_for_state(run, "Completed")
    changed = {name for name, content in files_of(parts).items() if before[name] != content}
    assert changed == {f"data/{idx:06d}_image.png" for idx in (1, 3, 4)}
    found = {idx: record.outcome for idx, record in Run.of(parts, run).outcomes().items()}
    assert {idx for idx, outcome in found.items() if outcome == "written"} == {1, 3, 4}
    assert set(found) == set(range(len(DataStream.read_write_underfolder(parts))))
    facts = json.loads((parts / ".pipestream/runs" / run / "run.json").read_text("utf-8"))
    assert (facts["reviewed_by"], facts["comment"]) == ("Ada", "The others are fine.")

    browser.open_artifact(waited(lambda: api.artifact(run, "review-result")))
    browser.page.get_by_text("Ada decided").wait_for()
    browser.picture("review-result")


def test_run_is_planned_then_done_as_planned_then_taken_back_from_forms(
    browser: Browser, api: Api, parts: Path
) -> None:
    before = files_of(parts)
    deployment = api.deployment("clean-dataset/clean-on-demand")
    browser.fill_run_form(deployment, "parts", ["verify-items", "invert"])
    browser.choose("where", "str")
    browser.fill("where", "metadata.radius > 0.3")
    browser.switch_on("plan")
    browser.submit()
    planning = api.last_run(deployment)
    api.wait_for_state(planning, "Completed")
    assert files_of(parts) == before
    browser.open_artifact(waited(lambda: api.artifact(planning, "plan-parts")))
    assert all(width > 0 for width in browser.widths_of_pictures())
    browser.picture("plan")
    browser.page.get_by_role("heading", name="Before and after").scroll_into_view_if_needed()
    browser.page.mouse.wheel(0, 500)
    browser.page.wait_for_timeout(500)
    browser.picture("plan-pictures")

    browser.follow("Run just this")
    assert browser.value("dataset") == str(parts)
    assert browser.value("follow") == api.plan_of(planning)
    browser.submit()
    run = api.last_run(deployment)
    assert run != planning
    api.wait_for_state(run, "Completed")
    found = Run.of(parts, run).outcomes()
    assert {one.outcome for one in found.values()} == {"written"}
    assert sorted(found) == _with_radius_above(parts, 0.3)

    browser.open_artifact(waited(lambda: api.artifact(run, "report")))
    browser.follow("Take this run back")
    assert (browser.value("dataset"), browser.value("run_key")) == (str(parts), run)
    browser.submit()
    undo = waited(lambda: api.last_run(api.deployment("undo-run/undo-on-demand")))
    api.wait_for_state(undo, "Completed")
    assert files_of(parts) == before


def _with_radius_above(folder: Path, limit: float) -> list[int]:
    """The samples of whose metadata this is true, as their files say."""
    files = sorted(folder.glob("data/*_metadata.yaml"))
    radii = [re.findall(r"^radius: ([\d.]+)$", path.read_text("utf-8"), re.M) for path in files]
    return [idx for idx, radius in enumerate(radii) if radius and float(radius[0]) > limit]
