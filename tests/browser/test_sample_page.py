"""One sample in the browser: edits that nobody else sees, one commit when they are saved."""

import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from prefect_pipestream import DataStream, list_runs, sample_history
from prefect_pipestream.storage.address import Place, is_address
from tests.browser.screen import Screen
from tests.browser.served import Asked

pytestmark = pytest.mark.slow


class Held:
    """Answers to a page that are held back, from `hold` to `release`; and what it asked for."""

    def __init__(self, screen: Screen) -> None:
        self.page, self.served = screen.page, screen.served
        self.asked: Counter[str] = Counter()
        self.answers: list[tuple[Any, Any]] = []
        self.page.on("request", lambda one: self.asked.update([urlsplit(one.url).path]))

    def hold(self, path: str, *, is_done: bool = False) -> None:
        """Holds back what is asked at a path; where it is done, only the server's answer."""
        self.address, self.is_holding, self.is_done = re.compile(f"{path}$"), True, is_done
        self.page.route(self.address, self._take)

    def _take(self, route: Any) -> None:
        if self.is_holding:
            path, body = urlsplit(route.request.url).path, route.request.post_data_json
            self.answers.append((route, self.served.ask(path, body) if self.is_done else None))
        else:
            route.continue_()

    def wait(self) -> None:
        """Waits for an answer that is held."""
        for _ in range(3_000):
            if self.answers:
                return
            self.page.wait_for_timeout(10)
        raise AssertionError(f"nothing came to {self.address.pattern}: {self.asked}")

    def release(self, status: int | None = None) -> None:
        self.is_holding = False
        for route, answer in self.answers:
            if status is not None:
                route.fulfill(status=status, json={"kind": "Late", "error": "late"})
            elif answer is not None:
                route.fulfill(status=answer.status, headers=answer.headers, body=answer.content)
            else:
                route.continue_()
        self.answers.clear()
        self.page.unroute(self.address)

    def polls(self, count: int) -> None:
        """Waits until the page has asked so often whether its sample changed."""
        for _ in range(count):
            self.page.wait_for_event("requestfinished", lambda one: "/api/versions" in one.url)


def open_sample(screen: Screen, idx: int = 3) -> None:
    screen.open(f"/sample/{idx}")
    screen.page.get_by_label("metadata: label").wait_for()


def edits(screen: Screen, count: int) -> None:
    """Waits until so many edits are listed."""
    screen.page.wait_for_function(
        "n => document.querySelectorAll('#edits li').length === n", arg=count
    )


def test_nothing_is_written_before_save_which_is_one_commit_that_can_be_undone(
    screen: Screen, dataset: Place
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
    # As long as the server is; in a bucket it is not known who is alive.
    assert run.state == ("edited" if is_address(dataset) else "running")
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
    dialog = screen.page.get_by_role("dialog")
    dialog.wait_for(state="detached")
    assert screen.page.url.endswith("/sample/3")
    for _ in range(20):  # as long as the answer is on its way, keys are not heard
        screen.press("j")
        screen.page.wait_for_timeout(250)
        if dialog.count():
            break
    dialog.get_by_role("button", name="Discard").click()
    screen.page.wait_for_url(re.compile("/sample/4$"))


def test_a_conflict_shows_both_versions_and_keeps_mine(screen: Screen, dataset: Place) -> None:
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
    screen.press("m")
    screen.told("Saved: image, instances, mask.")
    assert stream[3]["metadata"]()["label"] == 55
    assert np.array_equal(stream[3]["image"](), image[:, ::-1])


def test_of_two_people_at_one_sample_the_second_is_told(
    screen: Screen, served: Asked, chrome: object, dataset: Place, tmp_path: Path
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


def test_what_is_done_while_the_server_is_slow_is_done_once_and_in_order(
    screen: Screen, dataset: Place
) -> None:
    page, held = screen.page, Held(screen)
    stream = DataStream.read_write_underfolder(dataset)
    image = stream[3]["image"]()
    open_sample(screen)
    held.hold("/api/samples/3/preview")
    screen.press("r", "r", "s", "s")
    held.wait()
    held.release()
    screen.told("Saved: image, instances, mask.")
    assert np.array_equal(stream[3]["image"](), image[::-1, ::-1])
    assert held.asked["/api/samples/3/preview"] == 2
    assert held.asked["/api/samples/3/save"] == 1

    # One's own save is not taken for that of somebody else, seen before its answer.
    screen.press("h")
    edits(screen, 1)
    held.hold("/api/samples/3/save", is_done=True)
    screen.press("s")
    held.wait()
    held.polls(1)
    held.release()
    screen.told("Saved: image, instances, mask.")
    edits(screen, 0)
    held.polls(2)
    assert page.get_by_role("alert").count() == 0

    # An edit that is made while the page reads what others wrote is one of what they wrote.
    held.hold("/api/samples/3")
    stream.set_output(3, stream[3].deep_set("metadata.label", 55))
    held.wait()
    screen.press("v", "h", "Backspace")
    held.release()
    edits(screen, 1)
    page.wait_for_function("document.querySelector('#edits li').textContent.includes('vertical')")
    assert page.get_by_label("metadata: label").input_value() == "55"
    screen.press("s")
    screen.told("Saved: image, instances, mask.")

    # A key that is held takes one save back, not one after the other.
    page.keyboard.down("u")
    page.keyboard.down("u")
    page.keyboard.down("u")
    page.keyboard.up("u")
    screen.told("The save was taken back.")
    screen.press("h")
    edits(screen, 1)
    assert held.asked["/api/undo"] == 1
    assert np.array_equal(stream[3]["image"](), image[::-1, ::-1][:, ::-1])


def test_what_is_typed_stays_in_its_field_and_is_saved(screen: Screen, dataset: Place) -> None:
    page, held = screen.page, Held(screen)
    stream = DataStream.read_write_underfolder(dataset)
    open_sample(screen)
    field = page.get_by_label("metadata: label")
    held.hold("/api/samples/3/preview")
    field.fill("7")
    field.press("Enter")
    held.wait()
    page.keyboard.type("8hs")
    field.press("Backspace")
    field.press("Backspace")
    held.release()
    edits(screen, 1)
    page.keyboard.type("9u")  # would be a key of the page, were it not in the field
    field.press("Backspace")
    assert field.input_value() == "789"
    screen.press("Control+s")
    screen.told("Saved: metadata.")
    assert stream[3]["metadata"]()["label"] == 789

    # A link that is followed out of a field asks about what was typed there.
    field.fill("790")
    page.get_by_role("link", name="Samples").click()
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.locator("#cells .cell").first.wait_for()
    assert stream[3]["metadata"]()["label"] == 790

    # What the server refuses is still there, to be mended.
    open_sample(screen)
    screen.expected += ("400",)
    page.locator('[data-key="metadata"]').get_by_role("button", name="As text").click()
    text = page.get_by_label("metadata as text")
    text.fill("label: [1")
    screen.button("Save").click()
    page.locator("#told.error", has_text="the text of 'metadata'").wait_for()
    page.keyboard.press("h")
    edits(screen, 1)
    assert text.input_value() == "label: [1"
    text.fill("label: [1]")
    screen.button("Save").click()
    screen.told("Saved: image, instances, mask, metadata.")
    assert stream[3]["metadata"]() == {"label": [1]}


def test_values_keep_their_types_in_a_form(screen: Screen, dataset: Place) -> None:
    page = screen.page
    stream = DataStream.read_write_underfolder(dataset)
    values: dict[str, Any] = {"label": 1, "float": 1.0, "none": None, "other": None}
    values |= {"lines": "a\nb", "text": "1", "kept": 1e22, "many": [2.0, None]}
    stream.set_output(3, stream[3].set_value("metadata", values))
    open_sample(screen)
    typed = {"float": "2", "other": "3.0", "text": "2", "many[0]": "1e3"}
    for name, text in typed.items():
        page.get_by_label(f"metadata: {name}", exact=True).fill(text)
    page.get_by_label("metadata: lines").fill("a\nc")
    page.get_by_label("New name in metadata").fill("new")
    page.get_by_label("New value in metadata").fill("4.0")
    page.get_by_role("button", name="Add").click()
    edits(screen, 6)
    page.get_by_label("metadata: label").fill("none")
    screen.button("Save").click()
    screen.told('metadata: label: "none" is no number.')
    page.get_by_label("metadata: label").fill("1")
    screen.button("Save").click()
    screen.told("Saved: metadata.")
    changed = {"float": 2.0, "other": 3.0, "lines": "a\nc", "text": "2"}
    after = {**values, **changed, "many": [1000.0, None], "new": 4.0}
    assert repr(stream[3]["metadata"]()) == repr(after)

    # What a form may not keep as it is is offered as text, and stays what it is.
    values = {"day": date(2026, 1, 2), "score": float("nan"), "large": 2**53 + 1, "label": 1}
    stream.set_output(3, stream[3].set_value("metadata", values))
    text = page.get_by_label("metadata as text")
    text.fill(text.input_value().replace("label: 1", "label: 2"))
    text.blur()
    edits(screen, 1)
    screen.button("Save").click()
    edits(screen, 0)
    assert repr(stream[3]["metadata"]()) == repr({**values, "label": 2})


def test_an_item_is_removed_by_a_save_and_comes_back_by_its_undo(
    screen: Screen, dataset: Place
) -> None:
    page = screen.page
    stream = DataStream.read_write_underfolder(dataset)
    open_sample(screen)
    removed = page.get_by_role("button", name="Remove mask", exact=True)
    removed.press("Enter")
    page.get_by_text("Saving removes mask.").wait_for()
    page.locator("#edits", has_text="mask removed").wait_for()
    screen.press("D")
    edits(screen, 0)
    screen.press("x")
    page.get_by_role("combobox", name="Item").select_option("mask")
    page.get_by_role("button", name="Remove", exact=True).press("Enter")
    edits(screen, 1)
    assert "mask" in stream[3]
    screen.press("s")
    screen.told("Saved: mask.")
    assert "mask" not in stream[3]
    assert removed.count() == 0
    screen.press("u")
    screen.told("The save was taken back.")
    removed.wait_for()
    assert "mask" in stream[3]


def test_large_integers_keep_their_digits_whatever_is_edited(
    screen: Screen, dataset: Place
) -> None:
    page, large = screen.page, 2**63 + 1
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[3].set_value("metadata", {"label": 1, "none": None, "flag": True})
    other = sample["metadata"].make_new({"id": large, "at": [large], "label": 1})
    stream.set_output(3, sample.set_item("other", other))
    open_sample(screen)
    page.get_by_label("metadata: label").fill(str(large + 1))
    page.get_by_label("metadata: none").fill(f'[{large}, {{"a": {large}}}]')
    page.get_by_label("metadata: flag").uncheck()
    page.get_by_label("other: label").fill("5")
    assert page.get_by_label("other: at[0]").input_value() == str(large)
    screen.button("Save").click()
    screen.told("Saved: metadata, other.")
    expected = {"label": large + 1, "none": [large, {"a": large}], "flag": False}
    assert stream[3]["metadata"]() == expected
    assert stream[3]["other"]() == {"id": large, "at": [large], "label": 5}

    page.add_init_script("delete JSON.rawJSON")  # as in a browser of before 2025
    stream.set_output(3, stream[3].set_value("metadata", {"flag": True}))
    screen.open("/sample/3")
    page.get_by_label("New name in metadata").fill("new")
    page.get_by_label("New value in metadata").fill(str(large))
    page.locator('[data-key="metadata"]').get_by_role("button", name="Add").click()
    edits(screen, 1)
    page.locator('[data-key="other"]').get_by_role("button", name="As text").click()
    text = page.get_by_label("other as text")
    text.fill(text.input_value().replace("label: 5", "label: 2"))
    screen.button("Save").click()
    screen.told("Saved: metadata, other.")
    assert stream[3]["metadata"]() == {"flag": True, "new": str(large)}
    assert stream[3]["other"]() == {"id": large, "at": [large], "label": 2}


def test_back_and_forward_ask_once_and_staying_keeps_the_place(screen: Screen) -> None:
    page = screen.page
    page.locator("#cells a").nth(3).click()
    page.get_by_label("metadata: label").wait_for()
    screen.press("j")
    page.wait_for_url(re.compile("/sample/4$"))
    page.evaluate("history.back()")
    page.wait_for_url(re.compile("/sample/3$"))
    page.get_by_label("metadata: label").wait_for()
    screen.press("h")
    edits(screen, 1)
    for way, there in (("forward", "/sample/4"), ("back", "/"), ("forward", "/sample/4")):
        page.evaluate(f"history.{way}()")
        page.get_by_role("dialog").wait_for()
        assert urlsplit(page.url).path == there
        page.get_by_role("dialog").get_by_role("button", name="Stay").click()
        page.wait_for_url(re.compile("/sample/3$"))
        edits(screen, 1)
        assert page.get_by_role("dialog").count() == 0
    page.evaluate("history.forward()")
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    page.get_by_role("heading", name="Sample 4").wait_for()
    assert urlsplit(page.url).path == "/sample/4"


def test_a_page_that_is_left_before_it_is_there_asks_and_tells_nothing_more(
    screen: Screen,
) -> None:
    held = Held(screen)
    screen.expected += ("500",)
    for status in (500, None):
        open_sample(screen, 2)
        held.hold("/api/samples/3")
        screen.press("j")
        held.wait()
        screen.press("j")
        screen.page.get_by_role("heading", name="Sample 4").wait_for()
        screen.page.get_by_label("metadata: label").wait_for()
        asked: list[str] = []
        screen.page.on("request", lambda one, asked=asked: asked.append(one.url))
        held.release(status)
        held.polls(3)
        assert not [one for one in asked if one.endswith("indices=3")]
        assert screen.page.locator("#told").inner_text() == ""


def test_what_is_typed_and_what_others_wrote_meanwhile_are_both_shown(
    screen: Screen, dataset: Place
) -> None:
    page, stream = screen.page, DataStream.read_write_underfolder(dataset)
    screen.expected += ("409",)
    open_sample(screen)
    field = page.get_by_label("metadata: label")
    with screen.held_back("/api/versions"):
        field.fill("8")
        stream.set_output(3, stream[3].deep_set("metadata.note", "theirs"))
        field.press("Enter")
        page.get_by_role("alert").wait_for()
        page.locator("main").focus()
        screen.press("m")
        screen.told("Saved: metadata.")
    saved = stream[3]["metadata"]()
    assert (saved["label"], saved["note"]) == (8, "theirs")


def test_of_a_sample_that_was_removed_no_fragment_is_saved(screen: Screen, dataset: Place) -> None:
    page, stream = screen.page, DataStream.read_write_underfolder(dataset)
    screen.expected += ("409", "404")
    open_sample(screen)
    screen.press("r")
    edits(screen, 1)
    stream.remove(3)
    screen.press("s")
    page.get_by_text("Its history can restore it").wait_for()
    assert screen.button("Keep mine").count() == 0
    assert 3 not in stream.indices()
    screen.press("y")
    page.get_by_text("There is no sample 3 now.").wait_for()
