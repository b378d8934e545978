"""The pictures of the browser in the documentation: ``python docs/images/browser.py``."""

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Locator, Page, sync_playwright

from prefect_pipestream import DataStream, Sample
from prefect_pipestream.items import JpegImageItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.review import compute_review

IMAGES = Path(__file__).parent
SAMPLES = 240
SIDE = 64
WRONG = (7, 21, 22)  # digits that somebody has labelled wrongly


def digit(idx: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A digit in a colour, and its mask: H×W×3 and H×W, uint8."""
    mask = Image.new("L", (SIDE, SIDE))
    font = ImageFont.load_default(size=52)
    ImageDraw.Draw(mask).text((SIDE / 2, SIDE / 2), str(idx % 10), 255, font, anchor="mm")
    mask = mask.rotate(float(random.normal(0, 14)), Image.Resampling.BICUBIC)
    shape = np.asarray(mask, dtype=np.float64)[..., None] / 255
    colour, back = random.integers(90, 255, 3), random.integers(0, 60, 3)
    noise = random.normal(0, 9, (SIDE, SIDE, 3))
    image = (shape * colour + (1 - shape) * back + noise).clip(0, 255)
    return image.astype(np.uint8), (shape[..., 0] > 0.5).astype(np.uint8) * (idx % 10 + 1)


def make(folder: Path) -> DataStream:
    """A dataset of digits."""
    random = np.random.default_rng(0)
    stream = DataStream.create_new_underfolder(folder, run_key="made")
    with stream.commit_group() as batch:
        for idx in range(SAMPLES):
            image, mask = digit(idx, random)
            meta = {"label": (idx + (idx in WRONG)) % 10, "checked": False, "writer": f"w{idx % 7}"}
            sample = {"image": JpegImageItem(image), "mask": PngImageItem(mask)}
            batch.set_output(idx, Sample({**sample, "metadata": YamlMetadataItem(meta)}))
    return stream


@contextmanager
def browsed(folder: Path) -> Iterator[str]:
    """The command on a dataset; gives the address to open."""
    command = [sys.executable, "-m", "prefect_pipestream", "browse", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().removeprefix("Open ").strip()
        finally:
            server.terminate()


def picture(page: Page, name: str, of: Locator | None = None) -> None:
    """Write what is seen, or a part of the page, as a small PNG."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(400)
    taken = page.screenshot() if of is None else of.screenshot()
    shot = Image.open(io.BytesIO(taken)).convert("RGB")
    shot = shot.crop((0, 0, shot.width, min(shot.height, 640)))
    shot.quantize(128).save(IMAGES / f"browser-{name}.png", optimize=True)


def take(page: Page, address: str, folder: Path) -> None:
    """Go through the pages."""
    root = address.partition("/?")[0]
    page.goto(address)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Overlay").select_option("mask")
    page.get_by_label("Where").fill("metadata.label < 3 and not metadata.checked == true")
    page.keyboard.press("Enter")
    page.locator('.cell[data-idx="3"]').wait_for(state="detached")
    picture(page, "grid")
    page.get_by_label("Select sample 21", exact=True).check()
    page.get_by_label("Select sample 20", exact=True).check()
    page.get_by_role("button", name="Change many").click()
    page.get_by_label("Where, as a path").fill("metadata.checked")
    page.get_by_label("Value", exact=True).fill("true")
    page.get_by_role("button", name="Preview").click()
    page.locator("#start").wait_for()
    picture(page, "many")
    page.locator("#start").click()
    page.locator("#progress", has_text="finished").wait_for()
    sample(page, root, folder)


def sample(page: Page, root: str, folder: Path) -> None:
    """One sample: mended, in a conflict, saved."""
    page.goto(f"{root}/sample/21")
    page.get_by_label("metadata: label").fill("1")
    page.get_by_label("metadata: label").press("Enter")
    page.locator("#edits li").wait_for()
    page.locator("main").focus()
    page.keyboard.press("h")
    page.locator("#edits li").nth(1).wait_for()
    picture(page, "sample")
    stream = DataStream.read_write_underfolder(folder, run_key="another script")
    stream.set_output(21, stream[21].deep_set("metadata.writer", "w9"))
    page.get_by_role("alert").wait_for()
    page.get_by_text("Look at both").click()
    picture(page, "conflict")
    page.get_by_role("button", name="Keep mine").click()
    page.locator("#told", has_text="Saved").wait_for()


def past(page: Page, root: str, folder: Path) -> None:
    """A sample's history, a run, a review."""
    page.goto(f"{root}/sample/21")
    page.locator(".item").first.wait_for()
    page.keyboard.press("t")
    history = page.get_by_role("region", name="History")
    history.locator("img").first.wait_for()
    page.locator("div.bar").evaluate("bar => { bar.style.position = 'static'; }")
    picture(page, "history", of=history)
    page.goto(f"{root}/runs")
    page.get_by_role("link", name="set metadata.checked").click()
    page.get_by_role("heading", name="Before and after").wait_for()
    picture(page, "run")
    review = compute_review(folder, ["autocontrast"], "contrast", indices=range(40))
    page.goto(f"{root}/reviews/{review.id}")
    page.locator("figure.after img").first.wait_for()
    page.keyboard.press("a")
    page.locator("#place", has_text="Sample 1").wait_for()
    page.keyboard.press("d")
    page.locator("figure.difference img").first.wait_for()
    picture(page, "review")


def main() -> None:
    """Take all of them, of a dataset that is made for it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as parent, sync_playwright() as playwright:
        folder = Path(parent) / "digits"
        make(folder)
        browser: Any = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        with browsed(folder) as address:
            page = browser.new_page(viewport={"width": 1200, "height": 640})
            take(page, address, folder)
            past(page, address.partition("/?")[0], folder)
        browser.close()


if __name__ == "__main__":
    main()
