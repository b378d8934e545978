"""A review in the browser: seen before and after, decided by keys, applied, resumed in Prefect."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream import DataStream, list_runs
from prefect_pipestream.review import compute_review, decide, decisions_of, load_review
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.underfolder import Run
from tests.browser.prefect_served import served_flow
from tests.browser.screen import Screen
from tests.browser.served import Served
from tests.ui.api import Api
from tests.ui.host import PrefectHost

pytestmark = [pytest.mark.slow, pytest.mark.about_files]

FLIP = [{"rotate-flip": {"flip": "horizontal", "images": ["image"]}}]


def test_a_review_is_decided_by_keys_alone_and_outlives_reload_and_kill(
    screen: Screen, served: Served, dataset: Path
) -> None:
    before = DataStream.read_write_underfolder(dataset)[0]["image"]()
    review = compute_review(dataset, FLIP, "flip <b>all</b>", indices=range(6))
    page = screen.page
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("link", name="Reviews").click()
    page.get_by_role("link", name="flip <b>all</b>").wait_for()
    screen.press("o")
    page.locator("#place", has_text="Sample 0, 1 of 6").wait_for()
    page.locator("figure.after img").wait_for()
    screen.press("f")
    page.locator("#changes.flicker").wait_for()
    assert page.locator("#flicker").get_attribute("aria-pressed") == "true"
    screen.press("d")
    page.locator("figure.difference img").wait_for()
    with screen.held_back("&idx=1") as asked:
        screen.press("a")
        page.locator("#progress", has_text="1 approved").wait_for()
        decide(review, 5, True, "Bob", seen=None)  # is seen as the next sample is on its way
        page.locator("#progress", has_text="2 approved").wait_for()
        screen.wait(lambda: sum("/api/review/sample" in one for one in asked) > 1)
        screen.press("r")  # is not of sample 0, which still is shown
    page.locator("#place", has_text="Sample 1, 2 of 6").wait_for()
    assert {idx: one.is_approved for idx, one in decisions_of(review).by_sample.items()} == {
        0: True,
        5: True,
    }
    screen.press("r")
    page.locator("#place", has_text="Sample 2, 3 of 6").wait_for()
    screen.expected += (
        "ERR_FAILED",
        "ERR_CONNECTION",
    )  # as it cannot be saved, and as it is killed
    page.route("**/api/review/comment", lambda route: route.abort())
    screen.press("c")
    page.keyboard.type("upside down")
    screen.press("Tab")
    screen.told("The server cannot be reached.")
    for _ in range(2):
        with page.expect_response("**/api/review?*"):
            pass
    assert page.get_by_label("Comment").input_value() == "upside down"
    page.unroute("**/api/review/comment")
    screen.press("g")  # which saves it
    page.wait_for_url("**/reviews")
    assert decisions_of(review).comments == {"Ada": "upside down"}

    served.kill()  # and what was decided is there
    port = int(served.address.rpartition(":")[2])
    served.start_at(port)
    page.goto(served.first_address)
    screen.open("/reviews/" + "flip%20%3Cb%3Eall%3C%2Fb%3E")
    page.locator("#progress", has_text="2 approved, 1 rejected, 3 of 6 left").wait_for()
    assert page.get_by_label("Comment").input_value() == "upside down"
    screen.picture("browser-review-alone")

    decide(review, 2, False, "Bob", seen=None)  # somebody else, meanwhile: it is seen
    page.locator("#verdict", has_text="Rejected by Bob").wait_for()
    page.locator("main").focus()
    screen.press("A")
    page.get_by_role("dialog").get_by_role("button", name="Approve").press("Enter")
    screen.told("All is decided.")
    screen.press("s")
    page.locator("#result", has_text="4 applied, 2 discarded").wait_for()
    page.locator("#result", has_text="Decided by Ada, Bob").wait_for()
    stream = DataStream.read_write_underfolder(dataset)
    assert (stream[0]["image"]() == before[:, ::-1]).all()
    assert load_review(dataset, review.id) is None
    page.get_by_role("link", name="Its run").click()
    page.get_by_role("heading", name="Run flip <b>all</b>").wait_for()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrefectHost]:
    with served_flow(tmp_path, "review_changes", "review") as host:
        yield host


def test_a_flow_run_is_resumed_with_the_decision_and_applies_it_once(
    host: PrefectHost, dataset: Path, chrome: Any, tmp_path: Path
) -> None:
    api = Api(host)

    def suspended(*indices: int) -> str:
        run = api.start(
            "review-changes/review", dataset=str(dataset), transform=FLIP, indices=indices
        )
        api.wait_for_state(run, "Suspended")
        return run

    settings = {name: host.env[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")}
    images = [one["image"]() for one in SamplesSequence.from_underfolder(dataset)]
    with Served(dataset, **settings) as served, Screen.of(chrome, served, tmp_path) as screen:
        page = screen.page
        page.get_by_label("Your name").fill("Ada")
        run = suspended(0, 1, 2, 3)
        screen.open(f"/reviews/{run}")
        link = page.locator("#flow-run a")
        link.wait_for()
        assert link.get_attribute("href") == f"{host.url}/runs/flow-run/{run}"
        screen.press("a")
        page.locator("#place", has_text="Sample 1, 2 of 4").wait_for()
        screen.press("d")
        page.locator("figure.difference img").wait_for()
        page.wait_for_timeout(500)
        screen.picture("browser-review")
        screen.press("r")
        page.locator("#place", has_text="Sample 2, 3 of 4").wait_for()
        screen.press("R")
        page.get_by_role("dialog").get_by_role("button", name="Reject").click()
        screen.told("All is decided.")
        screen.press("s")
        screen.told("was resumed with the decision")
        review = load_review(dataset, run)
        assert review is not None
        decide(review, 3, None, "Ada", seen=False)  # before it could apply: it asks again
        page.locator("#progress", has_text="1 of 4 left").wait_for()
        api.wait_for_state(run, "Suspended")
        screen.press("n")
        page.locator("#place", has_text="Sample 3, 4 of 4").wait_for()
        screen.press("r")
        screen.told("All is decided.")
        screen.press("s")
        page.locator(
            "#result", has_text="1 applied, 3 discarded. Applied by its flow run."
        ).wait_for()
        api.wait_for_state(run, "Completed")
        stream = DataStream.read_write_underfolder(dataset)
        assert (stream[0]["image"]() == images[0][:, ::-1]).all()
        assert all((stream[idx]["image"]() == images[idx]).all() for idx in (1, 2, 3))
        (info,) = [one for one in list_runs(dataset) if one.run_key == run]
        assert (info.counts["written"], info.counts["skipped"]) == (1, 3)
        facts = json.loads((dataset / ".pipestream/runs" / run / "run.json").read_text())
        assert (facts["reviewed_by"], facts["decision"]) == ("Ada", "as decided in the browser")
        assert len(Run.of(dataset, run).commit_ids()) == 1

        run = suspended(4, 5)  # which somebody decides in Prefect, as the page is open
        screen.open(f"/reviews/{run}")
        page.locator("#place", has_text="Sample 4, 1 of 2").wait_for()
        decided = {"decision": "approve all", "reviewer": "Bob"}
        api.ask(f"flow_runs/{run}/resume", {"run_input": decided})
        page.locator(
            "#result", has_text="2 applied, 0 discarded. It was decided elsewhere."
        ).wait_for()
        page.locator("#result", has_text="Decided by Bob: approve all.").wait_for()
        assert (stream[4]["image"]() == images[4][:, ::-1]).all()
