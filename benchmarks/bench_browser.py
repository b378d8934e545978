"""What a person waits for in the browser: first grid, page, sample, save, filter, second start."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _data import write_thumbnails
from _report import figure, parser, temporary_folder, title
from playwright.sync_api import Page, sync_playwright

ROUNDS = 7
TOKEN = "the-token-of-a-benchmark"


class Server:
    """The command, and the time until it could be asked."""

    def __init__(self, folder: Path) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-m", "prefect_pipestream", "browse", str(folder), "--port", "0"]
        environment = {**os.environ, "PIPESTREAM_BROWSER_TOKEN": TOKEN}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("Open ").strip()
        self.root = self.address.partition("/?")[0]
        self.seconds = time.perf_counter() - began

    def memory(self) -> float:
        """What it holds, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def tell(name: str, aim: float, acts: list[Callable[[], Any]]) -> None:
    """Print the median and the longest of what was done some times."""
    took = sorted(timed(act) for act in acts)
    median = took[len(took) // 2]
    verdict = f"(aim {aim:g} s: {'met' if median <= aim else 'MISSED'}; longest {took[-1]:.2f} s)"
    figure(name, median, f"s {verdict}", 2)


def has_pictures(page: Page) -> None:
    """Wait until all that is to be seen of the grid is shown."""
    page.locator("#cells .cell").first.wait_for()
    while not page.evaluate(
        "() => [...document.querySelectorAll('#cells img')].every(i => i.complete)"
    ):
        time.sleep(0.01)


def first_grid(server: Server, page: Page) -> float:
    """From the press of Enter on the command to a grid with its pictures."""
    began = time.perf_counter()
    page.goto(server.address)
    has_pictures(page)
    return server.seconds + time.perf_counter() - began


def turned(page: Page) -> None:
    shown = page.locator("#place").inner_text()
    page.keyboard.press("n")
    page.locator("#place").filter(has_not_text=shown).wait_for()
    page.wait_for_timeout(20)
    has_pictures(page)


def opened(server: Server, page: Page, idx: int) -> None:
    page.goto(f"{server.root}/sample/{idx}")
    page.locator(".item img").first.wait_for()


def next_one(page: Page) -> None:
    title_of = page.locator("h1").inner_text()
    page.keyboard.press("j")
    page.locator("h1").filter(has_not_text=title_of).wait_for()
    page.locator(".item img").first.wait_for()


def edit(page: Page) -> None:
    page.keyboard.press("h")
    page.locator("#edits li").first.wait_for()


def save(page: Page) -> None:
    page.keyboard.press("s")
    page.locator("#told", has_text="Saved").wait_for()


def measure(folder: Path, samples: int, size: int, chromium: str) -> None:
    title(f"{samples:,} samples of six items, images of {size}×{size}")
    write_thumbnails(folder, samples, size)
    server = Server(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(bypass_csp=True).new_page()
        page.set_default_timeout(300_000)
        figure("the command, until it listens", server.seconds, "s", 2)
        figure(
            "first grid, the command's start with it (aim 1.5 s)", first_grid(server, page), "s", 2
        )
        tell("next page of 120", 0.5, [lambda: turned(page)] * ROUNDS)
        chosen = [random.randrange(samples) for _ in range(ROUNDS)]
        tell("a sample by its address", 0.15, [lambda i=i: opened(server, page, i) for i in chosen])
        tell("the next sample", 0.15, [lambda: next_one(page)] * ROUNDS)
        took = []
        for idx in chosen:
            opened(server, page, idx)
            edit(page)
            took.append(timed(lambda: save(page)))
        took.sort()
        figure("save of a flipped image and masks, median (aim 0.1 s)", took[ROUNDS // 2], "s", 2)
        page.goto(server.root)
        has_pictures(page)
        figure("first filter, metadata is read", timed(lambda: find(page, 7)), "s", 2)
        tell("filter", 0.5, [lambda n=n: find(page, n) for n in range(ROUNDS)])
        figure("memory of the server (aim 400 MB)", server.memory(), "MB", 0)
        server.end()
        server = Server(folder)
        figure("second start, to a grid (aim 2 s)", first_grid(server, page), "s", 2)
        figure("and the first filter then", timed(lambda: find(page, 3)), "s", 2)
        server.end()
        browser.close()


def find(page: Page, digit: int) -> None:
    """Ask for the samples of a number, and wait for the count of them and for their pictures."""
    page.get_by_label("Where").fill(f"metadata.sample_id == {digit}")
    with page.expect_response(
        lambda answer: "/api/found" in answer.url and "sample_id" in answer.url
    ):
        page.get_by_label("Where").press("Enter")
    page.locator(f'.cell[data-idx="{digit}"]').wait_for()
    while "first" in page.locator("#count").inner_text():
        time.sleep(0.05)
    has_pictures(page)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=int, default=100_000)
    arguments.add_argument("--size", type=int, default=96)
    given = arguments.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("needs Chromium: apt-get install chromium")
    with temporary_folder(given.temporary_folder) as parent:
        measure(parent / "set", given.samples, given.size, chromium)


if __name__ == "__main__":
    main()
