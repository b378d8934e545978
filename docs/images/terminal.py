"""Makes pictures of what commands print, for the pages: `python docs/images/terminal.py`.

A small dataset of drawn shapes is cleaned, and changed again, in a folder that is removed
afterwards. The commands are run in a pseudo-terminal, and what they print is drawn by headless
Chromium: it needs what the tests of the user interface need.
"""

import io
import os
import pty
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from layouts import shapes
from PIL import Image
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from prefect_pipestream.items import PngImageItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

HERE = Path(__file__).parent
DATASET, HOME, USER, HOST = "datasets/shapes", "/home/ada", "ada", "studio"
BROKEN, REDRAWN, NEW = 17, (3, 12), range(40, 46)
COLUMNS, PALETTE = 104, 64
CLEAN = f"""clean {DATASET} --transform '["verify-items", "autocontrast"]'"""
SHRINK = f"""clean {DATASET} --transform '[{{"resize-images": {{"size": [64, 64]}}}},
    {{"set-meta": {{"key_path": "metadata.split", "value": "val"}}}}]'"""
SHAPE_OF_LETTERS = 0.632  # width by height, where the lines of tables touch each other
FRAME = """\
<svg width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", monospace; font-size: 21px }}
{styles}</style><defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>"""


def drawn(number: int, work: Path) -> Sample:
    """A sample of shapes; the contrast of some is low."""
    sample = shapes(number, work)
    image = sample["image"]()
    image = np.asarray(image // 2 + 60 if number % 3 == 0 else image, np.uint8)
    return Sample({"image": PngImageItem(image), "metadata": sample["metadata"]})


def begin(work: Path) -> None:
    """Makes the dataset, with one image that is broken."""
    samples = [drawn(number, work) for number in range(40)]
    SamplesSequence.from_list(samples).to_underfolder(work / DATASET, run_key="made").run()
    broken = image_of(work, BROKEN)
    broken.write_bytes(broken.read_bytes()[:200])


def change(work: Path) -> None:
    """What happens to a dataset in a day: some samples come, and some are drawn anew."""
    stream = DataStream.read_write_underfolder(work / DATASET, run_key="redrawn")
    for idx in REDRAWN:
        stream.set_output(idx, stream[idx].set_item("image", drawn(idx + 60, work)["image"]))
    for idx in NEW:
        stream.set_output(idx, drawn(idx, work))


def image_of(work: Path, idx: int) -> Path:
    """The image file of a sample."""
    (path,) = Path(work, DATASET, "data").glob(f"*{idx}_image.png")
    return path


class Terminal:
    """A terminal in a folder: runs `pipestream` in it, and draws what it printed.

    Args:
        work: The folder.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        kept = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
        self._environment = kept | {
            "PREFECT_HOME": f"{work}/prefect",
            "COLUMNS": str(COLUMNS),
            "TERM": "xterm-256color",
            "PYTHONPATH": str(HERE.parents[1]),
        }

    def run(self, command: str) -> str:
        """Runs a command, and gives what it printed on its standard output, a terminal.

        Raises:
            RuntimeError: If it failed.
        """
        reader, writer = pty.openpty()
        printed = bytearray()
        reading = threading.Thread(target=_read, args=(reader, printed))
        reading.start()
        done = subprocess.run(
            [sys.executable, "-m", "prefect_pipestream", *shlex.split(command)],
            cwd=self._work,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writer)
        reading.join()
        os.close(reader)
        text = printed.decode().replace("\r\n", "\n")  # as a program writes it
        if done.returncode:
            raise RuntimeError(f"{command}:\n{text}\n{done.stderr}")
        return text


def _read(reader: int, printed: bytearray) -> None:
    """Reads what is printed in a terminal until it is closed on the other side, an error."""
    try:
        while part := os.read(reader, 65536):
            printed += part
    except OSError:
        return


def anonymous(text: str, work: Path) -> str:
    """What was printed, with a folder and a host that are nobody's, and as wide."""
    here = socket.gethostname()
    text = text.replace(str(work.resolve()), HOME)
    return text.replace(f"@{here}", f"@{HOST[: len(here)].ljust(len(here))}")


def picture_of(command: str, printed: str) -> str:
    """A command and what it printed, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (f"pipestream {command}", "bold")))
    console.print(Text.from_ansi(printed.rstrip()))
    return console.export_svg(
        title="", theme=SVG_EXPORT_THEME, code_format=FRAME, font_aspect_ratio=SHAPE_OF_LETTERS
    )


def save(pictures: Mapping[str, str]) -> None:
    """Draws SVGs in a browser, and saves them as small PNGs beside this script."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 1600})
        for name, svg in pictures.items():
            page.set_content(f"<body style='margin: 0'>{svg}</body>")
            shot = page.locator("svg").first.screenshot()
            image = Image.open(io.BytesIO(shot)).convert("RGB")
            image = image.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE)
            image.save(HERE / f"{name}.png", optimize=True)
        chromium.close()


def main() -> None:
    """Makes all pictures."""
    os.environ["LOGNAME"] = USER
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        terminal = Terminal(work)
        shown: dict[str, str] = {}

        def show(name: str, command: str) -> str:
            printed = terminal.run(command)
            shown[name] = picture_of(command, anonymous(printed, work))
            return printed

        begin(work)
        terminal.run(f"{CLEAN} --max-failed 0.1 --run-key monday")
        change(work)
        planned = show("terminal-plan", f"{CLEAN} --select changed --plan")
        (plan,) = [line.split()[-1] for line in planned.splitlines() if "--follow" in line]
        follow = f"--follow {plan} --max-failed 0.2 --run-key tuesday"
        terminal.run(f"{CLEAN} --select changed {follow}")
        terminal.run(f"{SHRINK} --max-failed 0.1 --run-key small")
        show("terminal-diff", f"diff {DATASET} small --indices 10-13")
        terminal.run(f"undo {DATASET} small --indices {REDRAWN[-1]}")
        show("terminal-history", f"history {DATASET} {REDRAWN[-1]}")
        terminal.run(f"keep {DATASET} monday --name cleaned")
        show("terminal-runs", f"runs {DATASET}")
        save(shown)


if __name__ == "__main__":
    main()
