"""What a person waits for in the browser: first grid, page, sample, save, filter, second start.

Two programs run, and share the cores: Chromium, which is open before a clock starts, and the
command, whose bytecode Python has already, as after any first start. The memory is that of the
command's own process; those that read metadata for the first filter have ended by then.
"""

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
HAS_PICTURES = """() => [...document.querySelectorAll('#cells .pictures')].every(
    p => p.children.length && [...p.querySelectorAll('img')].every(i => i.complete))"""


class Server:
    """The command, and the time until it listened; who asks it sooner than it can answer waits."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "prefect_pipestream", "browse", str(folder), "--port", "0"]
        environment = {**os.environ, "PIPESTREAM_BROWSER_TOKEN": TOKEN}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "bytecode")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("Open ").strip()
        self.root = self.address.partition("/?")[0]
        self.seconds = time.perf_counter() - self.began

    def memory(self) -> float:
        """What its process holds, in MB."""
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
    page.locator("#cells .cell img").first.wait_for()
    while not page.evaluate(HAS_PICTURES):
        time.sleep(0.01)


def compile_all(folder: Path, page: Page) -> None:
    """Let Python compile what the command loads, by a start of it on a small dataset."""
    write_thumbnails(folder, 10)
    server = Server(folder)
    grid(server, page)
    server.end()


def grid(server: Server, page: Page) -> None:
    page.goto(server.address)
    has_pictures(page)


def first_grid(server: Server, page: Page) -> float:
    """From the press of Enter on the command to a grid with its pictures."""
    grid(server, page)
    return time.perf_counter() - server.began


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
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )

        def window() -> Page:
            """A window that has nothing of the server yet."""
            page = browser.new_context(bypass_csp=True).new_page()
            page.set_default_timeout(300_000)
            return page

        compile_all(folder.parent / "small", window())
        page = window()
        server = Server(folder)
        begun = first_grid(server, page)
        figure("the command, until it listens", server.seconds, "s", 2)
        figure("first grid, from the command's start (aim 1.5 s)", begun, "s", 2)
        others = [window() for _ in range(ROUNDS)]
        tell(
            "first grid, from the opening of its page as the server runs",
            1.5,
            [lambda other=other: grid(server, other) for other in others],
        )
        for other in others:
            other.close()
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
        figure("memory of the command's process (aim 400 MB)", server.memory(), "MB", 0)
        server.end()
        server = Server(folder)
        begun = first_grid(server, page)
        figure("second start: the command, until it listens", server.seconds, "s", 2)
        figure("second start: to a grid, from the command's start (aim 2 s)", begun, "s", 2)
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
