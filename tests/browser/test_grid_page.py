"""Many samples in the browser: pages, filters, what changes meanwhile, one change to many."""

import subprocess
import sys
from typing import Any

import pytest

from prefect_pipestream import DataStream, list_runs
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.storage.address import Place, is_address
from tests.browser.screen import Screen

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(new_place: Place) -> Place:
    SamplesSequence.toy_dataset(300, image_size=32).to_underfolder(new_place).run()
    return new_place


def shown(screen: Screen) -> list[str]:
    return screen.page.locator("#cells .cell").evaluate_all("all => all.map(c => c.dataset.idx)")


def test_pages_filters_and_samples_are_reached_by_keys_alone(
    screen: Screen, dataset: Place
) -> None:
    page = screen.page
    page.locator("#count", has_text="300 of 300 samples").wait_for()
    assert shown(screen) == [str(idx) for idx in range(120)]
    screen.press("n", "n")
    page.locator('.cell[data-idx="240"]').wait_for()
    assert shown(screen)[0] == "240"
    screen.press("n")  # there is no other page
    screen.press("p", "p")
    page.locator('.cell[data-idx="0"]').wait_for()
    with screen.held_back("indices=120") as asked:  # turned to, and back, as it is on its way
        screen.press("n")
        screen.wait(lambda: bool(asked))
        screen.press("p")
    with page.expect_response(lambda answer: "/api/found" in answer.url):
        pass
    screen.press("e")
    page.locator("#selected", has_text="120 selected").wait_for()
    assert shown(screen) == [str(idx) for idx in range(120)]
    assert page.get_by_label("Select sample 119", exact=True).is_checked()
    screen.press("e")
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
    page.get_by_label("Where").fill("")
    page.get_by_label("Where").press("Enter")
    page.locator("#count", has_text="300 of 300 samples").wait_for()
    assert page.locator("#told").inner_text() == ""
    page.evaluate("history.pushState({}, '', '/none'); history.pushState({}, '', '/reviews')")
    page.go_back()  # to an address that is no page: the samples are shown
    page.locator("#count", has_text="300 of 300 samples").wait_for()


def write_some(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(3, stream[3].set_value("image", 255 - stream[3]["image"]()))
    stream.set_output(300, stream[4])
    stream.remove(5)


def test_what_others_write_is_seen(screen: Screen, dataset: Place) -> None:
    before = screen.page.locator('.cell[data-idx="3"] img').get_attribute("src")
    screen.page.locator('.cell[data-idx="9"] a').focus()
    stays = screen.page.locator('.cell[data-idx="8"] img').element_handle()
    if is_address(dataset):  # in the memory of this process alone
        write_some(dataset)
    else:
        code = f"from {__name__} import write_some; write_some({str(dataset)!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
    screen.page.locator("#count", has_text="300 of 300 samples").wait_for()
    screen.page.locator('.cell[data-idx="5"]').wait_for(state="detached")
    changed = screen.page.locator('.cell[data-idx="3"] img')
    screen.wait(lambda: changed.get_attribute("src") != before)
    assert stays.evaluate("image => image.isConnected")  # it was not loaded again
    assert screen.page.evaluate("document.activeElement.closest('.cell').dataset.idx") == "9"


def test_pictures_that_could_not_be_had_are_asked_for_again(screen: Screen) -> None:
    page = screen.page
    page.locator('.cell[data-idx="119"] img').wait_for()
    lost: list[str] = []

    def lose(route: Any) -> None:
        lost.append(route.request.url)
        route.abort()

    def is_meant(address: str) -> bool:
        return "/api/pictures" in address

    screen.expected += ("ERR_FAILED",)
    page.route(is_meant, lose)
    screen.press("n")
    screen.told("cannot be reached")
    page.unroute(is_meant, lose)
    page.locator('.cell[data-idx="239"] img').wait_for()
    screen.wait(lambda: page.locator("#cells img").count() == 120)
    assert len(lost) >= 5


def test_many_are_changed_in_one_run(screen: Screen, dataset: Place) -> None:
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
    screen.button("Do it with the 3 selected").dblclick()
    page.locator("#progress", has_text="3 of 3: finished. 3 written").wait_for()
    stream = DataStream.read_write_underfolder(dataset)
    found = [i for i in range(300) if stream[i]["metadata"]()["label"] == 99]
    assert found == [2, 3, 7]
    (run,) = [run for run in list_runs(dataset) if "set metadata.label" in run.run_key]
    assert run.state == "finished"


def test_what_is_done_to_many_is_what_the_form_says_and_can_be_stopped(
    screen: Screen, dataset: Place
) -> None:
    page = screen.page
    begin = page.locator("#start")
    screen.press("e", "m")
    page.get_by_label("Where, as a path").fill("metadata.label")
    value = page.get_by_label("Value", exact=True)
    four = page.get_by_label("Select sample 4", exact=True)
    for act in (lambda: value.fill("51"), lambda: four.uncheck()):
        value.fill("50")
        screen.button("Preview").click()
        begin.wait_for()
        act()  # what was previewed is not what is meant any more
        begin.wait_for(state="detached")
    with screen.held_back("/preview") as asked:
        screen.button("Preview").click()
        screen.wait(lambda: bool(asked))
        value.fill("52")
    screen.button("Preview").click()
    page.locator("#preview").get_by_text("→ 52").first.wait_for()
    begin.click()
    job = page.locator("#progress", has_text="of 119: running")
    with screen.held_back("/api/jobs") as asked:
        job.wait_for()
        screen.wait(lambda: bool(asked))
        screen.button("Close").click()
        page.locator("main").focus()
        screen.button("Stop").wait_for()  # the change that runs is shown, and goes on
        screen.press("m")
        screen.button("Preview").click()
        screen.told("A change is being made")
    page.locator("#progress", has_text="finished. 119 written").wait_for()
    screen.button("Hide").click()
    page.locator("#progress", has_text="finished").wait_for(state="detached")
    assert DataStream.read_write_underfolder(dataset)[5]["metadata"]()["label"] == 52

    screen.button("Close").click()
    page.locator("main").focus()
    screen.press("e", "e", "m")  # none is selected
    with screen.held_back("/api/found") as asked:
        page.get_by_label("Where", exact=True).fill("metadata.label == 52")
        screen.button("Filter").click()
        screen.wait(lambda: bool(asked))
        screen.button("Preview").click()
        screen.told("is not known yet")
        for _ in range(3):  # asked each second, so that what is asked each other second would be
            page.wait_for_event("requestfinished", lambda one: "/api/versions" in one.url)
        assert sum("52" in address for address in asked) == 1
    page.locator("#count", has_text="119 of 300").wait_for()


def test_a_change_goes_on_where_its_page_is_left_and_is_stopped_from_another(
    screen: Screen,
) -> None:
    page = screen.page
    large = {"size": [1500, 1500], "images": ["image"]}
    slow = {"do": "stage", "name": "resize-images", "arguments": large}
    job = screen.served.ask("/api/many", {"ranges": [[0, 300]], "edits": [slow]}).json()
    running = page.get_by_role("region", name=job["run_key"])
    running.get_by_text("of 300: running").wait_for()
    page.get_by_role("link", name="Runs").click()
    running.get_by_text("of 300: running").wait_for()
    screen.press("S")
    running.get_by_text("of 300: stopped").wait_for()
    page.get_by_role("link", name="Samples").click()
    page.locator("#cells .cell").first.wait_for()
    assert not running.count()
