"""One sample in the browser: edits that nobody else sees, one commit when they are saved."""

import re
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream import DataStream, list_runs, sample_history
from tests.browser.screen import Screen
from tests.browser.served import Served

pytestmark = pytest.mark.slow


def test_nothing_is_written_before_save_which_is_one_commit_that_can_be_undone(
    screen: Screen, dataset: Path
) -> None:
    before = DataStream.read_write_underfolder(dataset)[3]
    image, label = before["image"](), before["metadata"]()["label"]
    screen.page.get_by_label("Your name").fill("Ada")
    screen.open("/sample/3")
    field = screen.page.get_by_label("metadata: label")
    field.fill("77")
    field.press("Enter")
    screen.page.locator("#edits li").nth(0).wait_for()
    screen.page.locator("main").focus()
    screen.press("h")
    screen.page.locator("#edits li").nth(1).wait_for()
    stream = DataStream.read_write_underfolder(dataset)
    assert stream[3]["metadata"]()["label"] == label
    screen.press("b")
    screen.page.locator('[data-key="metadata"] pre', has_text=f"label: {label}").wait_for()
    screen.press("b")
    screen.page.get_by_label("metadata: label").wait_for()

    screen.press("s")
    screen.told("Saved: image, instances, mask, metadata.")
    after = stream[3]
    assert after["metadata"]()["label"] == 77
    assert np.array_equal(after["image"](), image[:, ::-1])
    (run,) = [run for run in list_runs(dataset) if run.run_key.startswith("Ada in the browser")]
    assert run.state == "running"  # as long as the server is
    assert run.counts["written"] == 1

    screen.press("u")
    screen.told("The save was taken back.")
    assert stream[3]["metadata"]()["label"] == label
    assert np.array_equal(stream[3]["image"](), image)


def test_unsaved_changes_are_asked_about_on_leaving(screen: Screen) -> None:
    screen.open("/sample/3")
    screen.page.locator(".item").first.wait_for()
    screen.press("h")
    screen.page.locator("#unsaved", has_text="1 unsaved").wait_for()
    screen.press("j")
    screen.page.get_by_role("button", name="Stay").click()
    assert screen.page.url.endswith("/sample/3")
    screen.press("j")
    screen.page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    screen.page.wait_for_url(re.compile("/sample/4$"))


def test_a_conflict_shows_both_versions_and_keeps_mine(screen: Screen, dataset: Path) -> None:
    screen.open("/sample/3")
    screen.page.locator(".item").first.wait_for()
    screen.press("h")
    screen.page.locator("#edits li").wait_for()
    stream = DataStream.read_write_underfolder(dataset)
    image = stream[3]["image"]()
    stream.set_output(3, stream[3].deep_set("metadata.label", 55))
    screen.page.get_by_role("alert").wait_for()  # seen without a save, too
    screen.page.get_by_text("Look at both").click()
    screen.page.get_by_role("region", name="Theirs, on disk").wait_for()
    screen.picture("browser-conflict")
    screen.button("Keep mine").click()
    screen.told("Saved: image, instances, mask.")
    assert stream[3]["metadata"]()["label"] == 55
    assert np.array_equal(stream[3]["image"](), image[:, ::-1])


def test_of_two_people_at_one_sample_the_second_is_told(
    screen: Screen, served: Served, chrome: object, dataset: Path, tmp_path: Path
) -> None:
    with Screen.of(chrome, served, tmp_path) as other:
        for one, name, value in ((screen, "Ada", "7"), (other, "Bob", "8")):
            one.page.get_by_label("Your name").fill(name)
            one.open("/sample/3")
            one.page.get_by_label("metadata: label").fill(value)
            one.page.get_by_label("metadata: label").press("Enter")
            one.page.locator("#edits li").wait_for()
        screen.button("Save").click()
        screen.told("Saved: metadata.")
        other.expected += ("409",)
        other.page.get_by_role("alert").wait_for()
        other.button("Take theirs").click()
        other.page.locator("#edits li").wait_for(state="detached")
        assert other.page.get_by_label("metadata: label").input_value() == "7"
        other.page.get_by_label("metadata: label").fill("9")
        other.page.get_by_label("metadata: label").press("Enter")
        other.page.locator("#edits li").wait_for()
        other.button("Save").click()
        other.told("Saved: metadata.")
    assert DataStream.read_write_underfolder(dataset)[3]["metadata"]()["label"] == 9
    who = {event.user for event in sample_history(dataset, 3)}
    assert {"Ada", "Bob"} <= who
