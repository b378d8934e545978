"""The server is killed in a save: the sample is the old or the new one, and a page goes on."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from prefect_pipestream import DataStream, check
from tests.browser.screen import Screen
from tests.browser.served import Served

pytestmark = [pytest.mark.slow, pytest.mark.about_files]

KILLS = 12


def test_a_kill_in_a_save_leaves_the_old_or_the_new_sample(served: Served, dataset: Path) -> None:
    flip = {"do": "stage", "name": "rotate-flip", "arguments": {"flip": "horizontal"}}
    kinds = set()
    for number in range(KILLS):
        before = DataStream.read_write_underfolder(dataset)[3]
        old = before["image"](), before["metadata"]()["label"]
        label = {"do": "set-value", "path": "metadata.label", "value": 1000 + number}
        flip["arguments"] = {"flip": "horizontal", "images": ["image"]}
        asked = {"version": before.version, "edits": [flip, label]}

        def save(asked: dict[str, object] = asked) -> None:
            with suppress(OSError, ValueError):
                served.ask("/api/samples/3/save", asked)

        thread = threading.Thread(target=save)
        thread.start()
        time.sleep(random.uniform(0, 0.06))
        served.kill()
        thread.join()
        served.start()
        after = DataStream.read_write_underfolder(dataset)[3]
        new = after["image"](), after["metadata"]()["label"]
        is_new = new[1] == 1000 + number
        kinds.add(is_new)
        assert new[1] in (old[1], 1000 + number)
        assert (new[0] == (old[0][:, ::-1] if is_new else old[0])).all()
        assert served.ask("/api/samples/3").json()["version"] == after.version
    assert check(dataset).ok
    print(f"{KILLS} kills: {kinds}")


def test_a_page_keeps_its_edits_while_the_server_is_away(
    dataset: Path, chrome: object, tmp_path: Path
) -> None:
    with Served(dataset) as served:
        port = int(served.address.rpartition(":")[2])
        with Screen.of(chrome, served, tmp_path) as screen:
            screen.expected += ("ERR_CONNECTION_REFUSED", "ERR_")
            screen.open("/sample/3")
            screen.page.locator(".item").first.wait_for()
            screen.press("h")
            screen.page.locator("#edits li").wait_for()
            served.kill()
            screen.press("s")
            screen.told("cannot be reached")
            again = Served(dataset, port=port)
            again.start()
            served.process = again.process
            screen.press("s")
            screen.told("Saved: image")


def make(served: Served, route: Any) -> None:
    """Makes the save that a page asks for; what it is told is another thing."""
    answer = served.ask(urlsplit(route.request.url).path, route.request.post_data_json)
    assert answer.status == 200


def turn(screen: Screen, answer: Callable[[Any], None]) -> None:
    """Turns the image of sample 3; who saves it next gets this answer."""
    screen.open("/sample/3")
    screen.page.locator(".item").first.wait_for()
    screen.page.locator("main").focus()
    screen.press("r")
    screen.page.locator("#edits li").wait_for()
    screen.page.route("**/save", answer, times=1)


def test_a_save_whose_answer_was_lost_is_made_once(
    dataset: Path, chrome: object, tmp_path: Path
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    image = stream[3]["image"]()
    with Served(dataset) as served, Screen.of(chrome, served, tmp_path) as screen:
        page, port = screen.page, int(served.address.rpartition(":")[2])
        screen.expected += ("ERR_",)

        def kill_after(route: Any) -> None:
            make(served, route)
            served.kill()
            route.abort()

        for at_once in (True, False):
            turn(screen, kill_after)
            screen.press("s")
            screen.told("cannot be reached")
            image = np.rot90(image)
            if at_once:  # it is sent again before the page has seen that the sample changed
                with screen.held_back("/api/versions"):
                    served.start_at(port)
                    screen.press("s")
                    screen.told("Saved: image")
            else:  # the page sees by itself that what it sent was saved
                served.start_at(port)
                screen.told("Saved: image")
            page.locator("#edits li").wait_for(state="detached")
            assert page.get_by_role("alert").count() == 0
            assert np.array_equal(stream[3]["image"](), image)
        screen.press("u")
        screen.told("The save was taken back.")
        assert np.array_equal(stream[3]["image"](), np.rot90(image, -1))


def test_a_save_that_was_made_and_answered_with_an_error_is_made_once(
    dataset: Path, chrome: object, tmp_path: Path
) -> None:
    """As where the drive is away for a moment after it. What was dropped since is told."""
    stream = DataStream.read_write_underfolder(dataset)
    image = stream[3]["image"]()
    with Served(dataset) as served, Screen.of(chrome, served, tmp_path) as screen:
        page = screen.page
        screen.expected += ("400",)

        def made_and_refused(route: Any) -> None:
            make(served, route)
            route.fulfill(status=400, json={"kind": "DatasetError", "error": "the drive is away"})

        for is_dropped in (False, True):
            turn(screen, made_and_refused)
            with screen.held_back("/api/versions"):
                screen.press("s")
                screen.told("the drive is away")
                if is_dropped:
                    screen.press("Backspace")
                    page.locator("#edits li").wait_for(state="detached")
                else:
                    screen.press("s")
                    screen.told("Saved: image")
            image = np.rot90(image)
            if is_dropped:
                screen.told("Saved after all, with what was dropped since")
            page.locator("#edits li").wait_for(state="detached")
            assert np.array_equal(stream[3]["image"](), image)
        screen.press("u")
        screen.told("The save was taken back.")
        assert np.array_equal(stream[3]["image"](), np.rot90(image, -1))
