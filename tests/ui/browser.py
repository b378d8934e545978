"""What a person does in Prefect's UI, step by step."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_TIMEOUT_MS = 60_000
_COLOURS = 96

_PRESSES = 4
_SENT_WITHIN_MS = 20_000


class Browser:
    """A page of Prefect's UI in headless Chromium.

    Args:
        page: Playwright's page.
        url: The address of the server.
        pictures: The folder for screenshots.
    """

    def __init__(self, page: Any, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._pictures = Path(os.environ.get("PIPESTREAM_SCREENSHOTS", pictures))

    @classmethod
    @contextmanager
    def opened(cls, url: str, executable: str, pictures: Path) -> Iterator["Browser"]:
        """Starts Chromium; closes it at the end."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=executable, args=_FLAGS, headless=True
            )
            try:
                page = chromium.new_page(viewport={"width": 1200, "height": 900})
                page.set_default_timeout(_TIMEOUT_MS)
                yield cls(page, url, pictures)
            finally:
                chromium.close()

    def open(self, path: str) -> None:
        """Goes to a page of the UI."""
        self.page.goto(f"{self._url}/v2/{path}")

    def picture(self, name: str) -> None:
        """Takes a screenshot, as a small PNG."""
        from PIL import Image

        self._pictures.mkdir(parents=True, exist_ok=True)
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        shot.quantize(_COLOURS).save(self._pictures / f"{name}.png", optimize=True)

    # -- forms -------------------------------------------------------------------------------

    def create_block(
        self, slug: str, name: str, chosen: tuple[str, str] | None = None, **values: str
    ) -> None:
        """Creates a block from its form.

        Args:
            slug: Its type.
            name: What it is called.
            chosen: The class and the name of another block, that is chosen as a part of it.
            **values: What its fields are filled with.
        """
        self.open(f"blocks/catalog/{slug}/create")
        self.page.get_by_label("Name", exact=True).fill(name)
        for field, value in values.items():
            self._field(field).locator("textarea, input").first.fill(value)
        if chosen is not None:
            kind, other = chosen
            self.page.get_by_role("tab", name=kind, exact=True).click()
            self.page.get_by_text("Select a block").first.click()
            self.page.get_by_role("option", name=other, exact=True).click()
        self.picture(f"create-block-{slug}")
        self._press(self.page.get_by_role("button", name="Save"), "/block_documents/")
        self.page.wait_for_url(re.compile(r"/blocks/block/"), wait_until="commit")

    def fill_run_form(self, deployment_id: str, block: str, transform: Sequence[str] = ()) -> None:
        """Fills the form of a deployment: its dataset and transform."""
        self.open(f"deployments/deployment/{deployment_id}/run")
        self.page.get_by_text("Select a block").first.click()
        self.page.get_by_role("option", name=block, exact=True).click()
        for number, operation in enumerate(transform):
            field = self._field("transform")
            field.get_by_role("button", name="Add item").click()
            field.locator("textarea").nth(number).fill(operation)

    def _field(self, name: str) -> Any:
        """The part of a form around the field of this label."""
        inputs = "xpath=ancestor::div[.//textarea or .//input or .//button][2]"
        return self._label(name).locator(inputs)

    def _label(self, name: str) -> Any:
        words = re.compile(rf"^{name}( \(Optional\))?$", re.I)
        return self.page.locator("label", has_text=words).first

    def fill(self, name: str, value: str) -> None:
        """Fills a field of a form."""
        self._field(name).locator("textarea, input").first.fill(value)

    def value(self, name: str) -> str:
        """What a field of a form shows."""
        shown: str = self._field(name).locator("textarea, input").first.input_value()
        return shown

    def description(self, name: str) -> str:
        """What a form says of a field."""
        shown: str = self._label(name).locator("xpath=following-sibling::p").inner_text()
        return shown

    def switch_on(self, name: str) -> None:
        """Switches on a field of a form."""
        self._field(name).get_by_role("switch").click()

    def follow(self, link: str) -> None:
        """Goes where a link on the page leads."""
        address = self.page.get_by_role("link", name=link).get_attribute("href")
        self.open(address.removeprefix(f"{self._url}/"))

    def choose(self, name: str, kind: str) -> None:
        """Chooses of which type the value of a field is to be."""
        self._field(name).get_by_role("tab", name=kind, exact=True).click()

    def submit(self) -> None:
        """Submits the form of a run. The UI asks the server whether it is right, then sends it."""
        self._press(self.page.get_by_role("button", name="Submit"), "/create_flow_run")
        self.page.wait_for_url(lambda url: not url.endswith("/run"), wait_until="commit")

    def _press(self, button: Any, sends_to: str) -> None:
        """Presses a button that sends something; again, as people do, if the server is busy."""
        from playwright.sync_api import TimeoutError as NotSentError

        def is_it(request: Any) -> bool:
            return request.method == "POST" and bool(re.search(f"{sends_to}$", request.url))

        for _ in range(_PRESSES):
            try:
                with self.page.expect_request(is_it, timeout=_SENT_WITHIN_MS) as sent:
                    button.click()
            except NotSentError:
                continue
            answer = sent.value.response()
            if answer is not None and answer.ok:
                return
        self.picture("not-taken")
        shown = self.page.locator("body").inner_text()
        raise AssertionError(f"the server did not take the form; the page says:\n{shown}")

    # -- a flow run --------------------------------------------------------------------------

    def open_artifact(self, artifact_id: str) -> None:
        """Opens an artifact, and waits until it is there."""
        self.open(f"artifacts/artifact/{artifact_id}")
        self.page.get_by_role("tab", name="Artifact").wait_for()

    def widths_of_pictures(self) -> list[int]:
        """The natural widths of the pictures that the page shows inline; 0 is a broken one."""
        found = self.page.wait_for_function(
            """() => {
                const inline = [...document.images].filter(i => i.src.startsWith("data:"));
                const isThere = inline.length && inline.every(i => i.complete);
                return isThere ? inline.map(i => i.naturalWidth) : null;
            }"""
        )
        widths: list[int] = found.json_value()
        return widths

    def decide(self, flow_run_id: str, decision: str, picture: str, **values: str) -> None:
        """Resumes a suspended flow run with a person's decision."""
        self.open(f"runs/flow-run/{flow_run_id}")
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name="Resume").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text("Reviewer", exact=True).wait_for()
        dialog.get_by_text("Select", exact=True).click()
        self.page.get_by_role("option", name=decision, exact=True).click()
        for field, value in values.items():
            self.fill(field, value)
        self.picture(picture)
        self._press(dialog.get_by_role("button", name="Resume"), "/resume")
        dialog.wait_for(state="hidden")
