"""Many samples in the browser: pages, filters, what changes meanwhile, one change to many."""

import subprocess
import sys
from pathlib import Path

import pytest

from prefect_pipestream import DataStream, list_runs
from prefect_pipestream.sequences import SamplesSequence
from tests.browser.screen import Screen

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    SamplesSequence.toy_dataset(300, image_size=32).to_underfolder(folder).run()
    return folder


def shown(screen: Screen) -> list[str]:
    return screen.page.locator("#cells .cell").evaluate_all("all => all.map(c => c.dataset.idx)")


def test_pages_filters_and_samples_are_reached_by_keys_alone(screen: Screen, dataset: Path) -> None:
    page = screen.page
    page.locator("#count", has_text="300 of 300 samples").wait_for()
    assert shown(screen) == [str(idx) for idx in range(120)]
    screen.press("n", "n")
    page.locator('.cell[data-idx="240"]').wait_for()
    assert shown(screen)[0] == "240"
    screen.press("n")  # there is no other page
    stream = DataStream.read_write_underfolder(dataset)
    label = stream[7]["metadata"]()["label"]
    wanted = [i for i in range(300) if stream[i]["metadata"]()["label"] == label]
    screen.press("/")
    page.keyboard.type(f"metadata.label == {label}")
    screen.press("Enter")
    page.locator("#count", has_text=f"{len(wanted)} of 300 samples").wait_for()
    page.locator(".cell").nth(len(wanted)).wait_for(state="detached")
    assert shown(screen) == [str(idx) for idx in wanted]
    screen.picture("browser-grid")
    screen.press("Escape", "ArrowRight", "ArrowRight", "Enter")
    page.wait_for_url(f"**/sample/{wanted[1]}")
    screen.press("j")
    page.wait_for_url(f"**/sample/{wanted[2]}")  # the next of those that were found
    screen.press("g")
    page.locator("#cells .cell").first.wait_for()
    assert shown(screen) == [str(idx) for idx in wanted]
    page.get_by_label("Sort by").fill("metadata.id")
    page.get_by_label("descending").check()
    page.locator(".cell").first.locator(f'xpath=self::*[@data-idx="{wanted[-1]}"]').wait_for()
    assert shown(screen) == [str(idx) for idx in reversed(wanted)]
    page.locator(".cell a").first.press("Enter")
    screen.press("j")
    page.wait_for_url(f"**/sample/{wanted[-2]}")
    screen.press("g")
    page.locator("#cells .cell").first.wait_for()
    screen.expected += ("400",)
    screen.press("/")
    page.keyboard.type(" and (")
    screen.press("Enter")
    page.locator("#told.error").wait_for()


def test_what_others_write_is_seen(screen: Screen, dataset: Path) -> None:
    before = screen.page.locator('.cell[data-idx="3"] img').get_attribute("src")
    code = (
        "import sys; from prefect_pipestream import DataStream as D\n"
        "s = D.read_write_underfolder(sys.argv[1])\n"
        "s.set_output(3, s[3].set_value('image', 255 - s[3]['image']()))\n"
        "s.set_output(300, s[4]); s.remove(5)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(dataset)], check=True)
    screen.page.locator("#count", has_text="300 of 300 samples").wait_for()
    screen.page.locator('.cell[data-idx="5"]').wait_for(state="detached")
    changed = screen.page.locator('.cell[data-idx="3"] img')
    for _ in range(100):
        if changed.get_attribute("src") != before:
            break
        screen.page.wait_for_timeout(50)
    assert changed.get_attribute("src") != before


def test_many_are_changed_in_one_run(screen: Screen, dataset: Path) -> None:
    page = screen.page
    for idx in (2, 3, 7):
        page.get_by_label(f"Select sample {idx}", exact=True).check()
    page.locator("#selected", has_text="3 selected").wait_for()
    screen.press("m")
    page.get_by_label("Where, as a path").fill("metadata.label")
    page.get_by_label("Value", exact=True).fill("99")
    screen.button("Preview").click()
    page.locator("#preview").get_by_text("→ 99").first.wait_for()
    assert DataStream.read_write_underfolder(dataset)[2]["metadata"]()["label"] != 99
    screen.picture("browser-many")
    screen.button("Do it with the 3 selected").click()
    page.locator("#progress", has_text="3 of 3: finished. 3 written").wait_for()
    stream = DataStream.read_write_underfolder(dataset)
    found = [i for i in range(300) if stream[i]["metadata"]()["label"] == 99]
    assert found == [2, 3, 7]
    (run,) = [run for run in list_runs(dataset) if "set metadata.label" in run.run_key]
    assert run.state == "finished"
