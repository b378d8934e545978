"""What a person sees and does in the browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.served import Asked

_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
_TIMEOUT_MS = 30_000


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium, as installed on the machine."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        try:
            yield started
        finally:
            started.close()


class Screen:
    """A window with the pages of a server: what goes wrong in it fails the test.

    Attributes:
        page: Playwright's page.
        troubles: What the page's console said of errors.
        expected: Parts of errors that the test is about, such as the status of a refusal.
    """

    def __init__(self, page: Any, served: Asked, pictures: Path) -> None:
        self.page = page
        self.served = served
        self._pictures = Path(os.environ.get("PIPESTREAM_SCREENSHOTS", pictures))
        self.troubles: list[str] = []
        self.expected: tuple[str, ...] = ("favicon",)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._heard)

    @classmethod
    @contextmanager
    def of(cls, chrome: Any, served: Asked, pictures: Path) -> Iterator["Screen"]:
        """Opens a window as another person would: with cookies of its own."""
        context = chrome.new_context(viewport={"width": 1200, "height": 850})
        try:
            page = context.new_page()
            page.set_default_timeout(_TIMEOUT_MS)
            screen = cls(page, served, pictures)
            page.goto(served.first_address)
            page.locator("#cells .cell").first.wait_for()
            yield screen
            assert not screen.unexpected(), screen.unexpected()
        finally:
            context.close()

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.troubles.append(message.text)

    def unexpected(self) -> list[str]:
        """What went wrong, but for what the test expects."""
        return [t for t in self.troubles if not any(part in t for part in self.expected)]

    def open(self, path: str) -> None:
        """Goes to a page."""
        self.page.goto(self.served.address + path)

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name: str) -> Any:
        """The button of that name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def told(self, text: str) -> None:
        """Waits until the page says something in its line."""
        from playwright.sync_api import Error

        line = self.page.locator("#told")
        try:
            line.filter(has_text=text).wait_for()
        except Error:
            assert text in line.inner_text()  # shows what it says instead

    @contextmanager
    def held_back(self, part: str) -> Iterator[list[str]]:
        """Holds the answers back to what has this in its address; gives what was asked.

        They come as the block ends, in order, and what is asked from then on is answered at once.
        """
        held: list[Any] = []
        asked: list[str] = []

        def hold(route: Any) -> None:
            held.append(route)
            asked.append(route.request.url)

        def is_meant(address: str) -> bool:
            return part in address

        self.page.route(is_meant, hold)
        try:
            yield asked
        finally:
            for route in held:  # and those that come meanwhile
                route.continue_()
            self.page.unroute(is_meant, hold)

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Waits until something is so, whatever is asked meanwhile."""
        for _ in range(_TIMEOUT_MS // 20):
            if is_so():
                return
            self.page.wait_for_timeout(20)
        assert is_so()

    def picture(self, name: str) -> None:
        """Takes a screenshot, as a small PNG."""
        import io

        from PIL import Image

        self._pictures.mkdir(parents=True, exist_ok=True)
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        shot.quantize(128).save(self._pictures / f"{name}.png", optimize=True)
