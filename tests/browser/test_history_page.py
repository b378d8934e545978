"""The past of a sample on its page: one save is taken back there, or what was before restored."""

from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream import DataStream, list_runs
from prefect_pipestream.storage.address import Place
from tests.browser.screen import Screen
from tests.dataset_files import Files

pytestmark = pytest.mark.slow


def label_of(folder: Path, idx: int) -> Any:
    return DataStream.read_write_underfolder(folder)[idx]["metadata"]()["label"]


def save(screen: Screen, label: int) -> None:
    field = screen.page.get_by_label("metadata: label")
    field.fill(str(label))
    field.press("Enter")
    screen.page.locator("#edits li").wait_for()
    screen.page.locator("main").focus()
    screen.press("s")
    screen.told("Saved: metadata.")


@pytest.mark.usefixtures("listed_at_once")
def test_saves_are_listed_undone_and_restored(screen: Screen, dataset: Place) -> None:
    first = label_of(dataset, 3)
    screen.page.get_by_label("Your name").fill("Ada <b>")
    screen.open("/sample/3")
    screen.page.locator(".item").first.wait_for()
    screen.press("h")
    screen.page.locator("#edits li").wait_for()
    screen.press("s")
    screen.told("Saved: image, instances, mask.")
    save(screen, 55)
    save(screen, 66)
    screen.press("t")
    history = screen.page.get_by_role("region", name="History")
    events = history.locator("li.event")
    events.nth(3).wait_for()  # the dataset's making is the first
    newest = events.nth(0)
    assert "metadata.label: 55 → 66" in newest.inner_text()
    assert newest.get_by_role("link").inner_text().startswith("Ada <b> in the browser")
    picture = events.nth(2).locator("[data-key=image] img").first
    picture.scroll_into_view_if_needed()
    screen.page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    screen.picture("browser-history")

    newest.get_by_role("button", name="Undo this save").click()
    screen.told("The save was taken back.")
    assert label_of(dataset, 3) == 55
    # The save has gone from the session's run; the image's save is two back.
    events.nth(1).locator("[data-key=metadata]", has_text=f"{first} → 55").wait_for()
    events.nth(2).get_by_role("button", name="Restore what it was before").click()
    screen.told("Restored: 4 files. Undo takes it back.")
    assert label_of(dataset, 3) == first
    events.nth(0).get_by_text("put back to what run").wait_for()
    screen.page.locator("main").focus()
    screen.press("u")
    screen.told("The restore was taken back.")
    assert label_of(dataset, 3) == 55

    files = Files(dataset)
    (name,) = (f"data/{one}" for one in files.of_sample(3) if "metadata" in one)
    content = files.pop(name)
    files[name] = content + b"\n"
    screen.expected = ("409",)
    screen.open("/sample/3")
    screen.page.locator(".item").first.wait_for()
    screen.press("t")
    events.nth(0).get_by_role("button", name="Restore what it was before").click()
    dialog = screen.page.get_by_role("dialog", name="The restore is refused")
    assert "changed since, by no run" in dialog.inner_text()
    dialog.get_by_role("button", name="Leave it").click()
    screen.told("changed since, by no run")
    assert label_of(dataset, 3) == 55


def test_a_sample_that_was_removed_is_restored_from_its_page(
    screen: Screen, dataset: Place
) -> None:
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(29)
    screen.expected = ("404",)
    screen.open("/sample/29")
    screen.page.get_by_text("sample 29 is out of range").wait_for()
    removal = screen.page.locator("li.event").first
    removal.get_by_role("button", name="Restore what it was before").click()
    screen.told("Restored: ")
    screen.page.get_by_label("metadata: label").wait_for()
    screen.press("j", "k")
    screen.page.locator(".item").first.wait_for()
    assert any(run.run_key.startswith("restore:removal") for run in list_runs(dataset))
