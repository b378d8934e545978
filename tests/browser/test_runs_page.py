"""Runs in the browser: what each changed, what failed in it, and its undo."""

import re
from pathlib import Path

import pytest

from prefect_pipestream import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import SampleFailure
from tests.browser.screen import Screen

pytestmark = pytest.mark.slow
KEY = "night <i>run</i>/../7 & 'more'"


_SEEN = """() => {
  const images = [...document.querySelectorAll("#gallery img")];
  return images.length > 0 && images.every((image) => image.complete && image.naturalWidth > 0);
}"""


def seen(screen: Screen) -> None:
    """Waits for all pictures of the gallery: an undo takes away what is asked for after it."""
    screen.page.wait_for_function(_SEEN)


@pytest.fixture
def changed(dataset: Place) -> Path:
    """Samples 0 to 19 flipped by a run, with labels from 100; 20 and 21 failed in it."""
    stream = DataStream.read_write_underfolder(dataset, run_key=KEY)
    for idx in range(20):
        sample = stream[idx].deep_set("metadata.label", 100 + idx)
        stream.set_output(idx, sample.set_value("image", sample["image"]()[:, ::-1]))
    with stream.commit_group() as group:
        for idx in (20, 21):
            group.record(
                idx, "failed", failure=SampleFailure("ValueError", f"<b>{idx}</b>", "line 1")
            )
    return dataset


def test_a_run_is_looked_at_undone_and_its_undo_undone(changed: Path, screen: Screen) -> None:
    page = screen.page
    stream = DataStream.read_write_underfolder(changed)
    screen.press("L")
    page.wait_for_url(re.compile("/runs$"))
    page.locator("tr", has_text=KEY).wait_for()
    page.locator("#runs-told", has_text="undo holds").wait_for()
    screen.picture("browser-runs")
    screen.press("j", "Enter")
    page.get_by_role("heading", name=f"Run {KEY}").wait_for()
    gallery = page.locator("#gallery article")
    gallery.nth(11).wait_for()
    seen(screen)
    screen.picture("browser-run")
    screen.press("n")
    gallery.first.get_by_role("link", name="Sample 12").wait_for()
    failed = page.get_by_role("region", name="Failed samples")
    assert "ValueError: <b>21</b>" in failed.inner_text()
    failed.get_by_role("link", name="Sample 21").click()
    page.wait_for_url(re.compile("/sample/21$"))
    page.go_back()
    page.get_by_role("link", name="2 failed").click()
    page.locator("#count", has_text="2 of 30 samples").wait_for()
    assert page.get_by_label("Where").input_value() == f"`run:{KEY}` == 'failed'"
    page.reload()
    page.locator("#count", has_text="2 of 30 samples").wait_for()
    page.go_back()

    page.get_by_role("heading", name=f"Run {KEY}").wait_for()
    seen(screen)
    screen.press("u")
    plan = page.get_by_role("region", name="What the undo would do")
    plan.get_by_text("20 samples would be as before the run, 40 files").wait_for()
    assert stream[3]["metadata"]()["label"] == 103
    screen.press("u")
    screen.told("Undone: 20 samples restored, 40 files put back or removed.")
    assert stream[3]["metadata"]()["label"] < 10
    page.get_by_role("link", name=f"undo:{KEY}").click()
    page.get_by_role("heading", name=f"Run undo:{KEY}").wait_for()
    seen(screen)
    screen.press("u")
    plan.wait_for()
    screen.button("Undo it now").click()
    screen.told("Undone: 20 samples restored")
    assert stream[3]["metadata"]()["label"] == 103


def test_a_refused_undo_says_why_and_is_forced_by_a_box_alone(
    changed: Path, screen: Screen
) -> None:
    page = screen.page
    stream = DataStream.read_write_underfolder(changed, run_key="other")
    stream.set_output(3, stream[3].deep_set("metadata.label", 7))
    screen.open("/runs")
    page.get_by_role("link", name=KEY).click()
    seen(screen)
    screen.button("Undo this run").click()
    plan = page.get_by_role("region", name="What the undo would do")
    plan.get_by_role("alert").filter(has_text="It would be refused").wait_for()
    assert "1 sample changed since" in plan.inner_text()
    assert screen.button("Undo it now").is_disabled()
    screen.press("u")  # does nothing
    screen.picture("browser-undo-refused")
    plan.get_by_role("checkbox").check()
    page.locator("#undo-now:enabled").wait_for()
    assert stream[3]["metadata"]()["label"] == 7
    screen.button("Undo it now").click()
    screen.told("1 of them changed since")
    assert stream[3]["metadata"]()["label"] < 10
    screen.open("/runs")
    page.locator("tbody tr").first.wait_for()
    assert page.get_by_role("link", name=KEY, exact=True).count() == 0
    screen.press("d")
    page.get_by_role("link", name=KEY, exact=True).click()
    page.get_by_text("taken back by").wait_for()
    assert page.locator("#undo-run").is_disabled()
    screen.open("/run?key=..%2Fnone")
    screen.expected = ("404",)
    screen.told("no run '../none'")
