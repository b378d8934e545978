"""A dataset of 10,000, 100,000 and 1,000,000 thumbnails, step by step: how memory and rate grow.

It is imported, inverted in place by a flow that is killed in the middle and resumed, processed
again by a schedule that finds no change, and undone. Each step is a process of its own, so that
its most memory is its own. Every byte is compared: after the run with what inverting each image
once gives, and after the undo with the source.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _data import POOL, encode, photographs
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title

SIZES = (10_000, 100_000, 1_000_000)
RUN, NIGHTLY = "invert", "nightly"
INVERT = "invert in place, resumed"
TRANSFORM = [{"invert": {"images": ["image"]}}]
Figures = dict[str, float]


def write_source(folder: Path, count: int) -> None:
    """Write a folder of images, each a file of its own; from 1,000 on their contents repeat."""
    folder.mkdir()
    contents = [encode(image, "jpeg") for image in photographs(min(count, POOL), 28)]
    for idx in range(count):
        with open(f"{folder}/{idx:07d}.jpeg", "wb") as file:
            file.write(contents[idx % POOL])


# -- steps, each in a process of its own ---------------------------------------------------


def import_(folder: Path, source: Path) -> Figures:
    from prefect_pipestream.flows.importing import import_dataset

    report = import_dataset("images", source, folder)
    return {**_counted(report), "work_s": report.duration_s}


def process(folder: Path, run_key: str, select: str = "all") -> Figures:
    """Invert the images in place."""
    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    stream = ReadWriteUnderfolder(folder=folder)
    return _counted(process_samples(stream, TRANSFORM, run_key=run_key, select=select))


def resume(folder: Path) -> Figures:
    """Go on with the killed run, and look in its ledger when it had its first sample."""
    from prefect_pipestream.underfolder.ledger.run import Run

    began = time.time()
    figures = process(folder, RUN)
    ended, megabytes = time.time(), most_memory("self")
    rows = Run.of(folder, RUN).rows()
    first = rows.at[rows.at > began].min()
    new = int((rows.at > began).sum())
    once = len(rows.idx) == len(rows.last_of_each().idx) == new + int((rows.at < began).sum())
    figures |= {"first_s": first - began, "work_s": ended - first, "megabytes": megabytes}
    return {**figures, "new": new, "once": once}


def nightly(folder: Path) -> Figures:
    return process(folder, NIGHTLY, "changed")


def undo(folder: Path) -> Figures:
    from prefect_pipestream.underfolder.runs.undo import undo_run

    return {"samples": undo_run(folder, RUN).samples}


def index(folder: Path) -> Figures:
    from prefect_pipestream.sequences import SamplesSequence

    return {"samples": len(SamplesSequence.from_underfolder(folder))}


STEPS: dict[str, Callable[..., Figures]] = {
    "import": import_,
    "process": process,
    "resume": resume,
    "nightly": nightly,
    "undo": undo,
    "index": index,
}
OF_PREFECT = {"import", "process", "resume", "nightly"}


def _counted(report: Any) -> Figures:
    if report.counts.get("failed"):
        raise SystemExit(f"samples failed: {report.summary()}")
    return {name: float(number) for name, number in report.counts.items()}


def run_step(name: str, scratch: Path, arguments: list[str]) -> None:
    """Do a step in this process and print its figures, as JSON."""
    scratch.mkdir()
    paths = [Path(one) if os.sep in one else one for one in arguments]
    if name not in OF_PREFECT:
        print(json.dumps(_measured(STEPS[name], *paths)))
        return
    with own_prefect(scratch):
        start_up = _start_up(scratch)
        print(json.dumps({**_measured(STEPS[name], *paths), "start_up_s": start_up}))


def _start_up(scratch: Path) -> float:
    """What a flow of one sample takes, once the embedded server is there."""
    (scratch / "one/data").mkdir(parents=True)
    image = next(photographs(1, 28))
    (scratch / "one/data" / "0_image.jpeg").write_bytes(encode(image, "jpeg"))
    process(scratch / "one", "first")
    return _measured(process, scratch / "one", "second")["seconds"]


def _measured(step: Callable[..., Figures], *arguments: Any) -> Figures:
    began, of_processor = time.perf_counter(), time.process_time()
    figures = step(*arguments)
    seconds = {
        "seconds": time.perf_counter() - began,
        "processor_s": time.process_time() - of_processor,
    }
    return {**seconds, "megabytes": most_memory("self"), **figures}


def most_memory(pid: int | str) -> float:
    """The most memory that a process has held so far, in MB."""
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) / 1024


# -- from outside --------------------------------------------------------------------------


def command(name: str, scratch: Path, *arguments: object) -> list[str]:
    own = str(scratch / f"of-{name}-{time.monotonic_ns()}")
    return [sys.executable, __file__, "--step", name, own, *map(str, arguments)]


def step(name: str, scratch: Path, *arguments: object) -> Figures:
    done = subprocess.run(
        command(name, scratch, *arguments), check=True, stdout=subprocess.PIPE, text=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def killed_in_the_middle(folder: Path, source: Path, scratch: Path, count: int) -> float:
    """Begin the run, and kill it when the image in the middle has been replaced.

    Returns:
        The most memory that it had held, in MB.
    """
    original = f"{source}/{count // 2:07d}.jpeg"
    middle = image_of(folder, count // 2)
    running = subprocess.Popen(
        command("process", scratch, folder, RUN), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while os.path.samefile(middle, original):  # as imported, it is a link
            if running.poll() is not None:
                raise SystemExit("The run ended before it could be killed.")
            time.sleep(0.01)
        megabytes = most_memory(running.pid)
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # with the server that it embedded
        running.wait()
    return megabytes


def image_of(folder: Path, idx: int) -> str:
    return f"{folder}/data/{idx:06d}_image.jpeg"


def refuse_other_bytes(folder: Path, wanted: Sequence[bytes], count: int) -> None:
    """Compare each image with what it should be, of which there are as many as were distinct."""
    for idx in range(count):
        with open(image_of(folder, idx), "rb") as file:
            if file.read() != wanted[idx % len(wanted)]:
                raise SystemExit(f"{file.name} is not as it should be.")


def inverted(source: Path, scratch: Path, count: int) -> list[bytes]:
    """What inverting an image once makes of each distinct file."""
    from prefect_pipestream.items import Item

    made = []
    for idx in range(min(count, POOL)):
        item = Item.get_instance(source / f"{idx:07d}.jpeg")
        item.make_new(255 - item()).serialize(scratch / "inverted.jpeg")
        made.append((scratch / "inverted.jpeg").read_bytes())
    return made


def measure(parent: Path, count: int) -> dict[str, Figures]:
    """Take all steps at one size; the figures of each."""
    title(f"{count:,} thumbnails of 28×28, JPEG; load {os.getloadavg()[0]:.1f}")
    source, folder, scratch = parent / "source", parent / "dataset", parent / "scratch"
    scratch.mkdir()
    began = time.perf_counter()
    write_source(source, count)
    figure("the source, written file by file", count / (time.perf_counter() - began), "files/s", 0)
    originals = [(source / f"{idx:07d}.jpeg").read_bytes() for idx in range(min(count, POOL))]
    found: dict[str, Figures] = {}

    def take(what: str, name: str, *arguments: object) -> Figures:
        found[what] = figures = step(name, scratch, folder, *arguments)
        show(what, figures, int(figures.get("new", count)))
        return figures

    take("import, as hard links", "import", source)
    take("first index", "index")
    killed = killed_in_the_middle(folder, source, scratch, count)
    figure("invert in place, killed in the middle: its most memory", killed, "MB", 0)
    resumed = take(INVERT, "resume")
    resumed["megabytes"] = max(killed, resumed["megabytes"])
    ratio("    its first sample, of 5 s", resumed["first_s"] / 5, at_most=1)
    if not resumed["once"]:
        raise SystemExit("A sample was done twice.")
    refuse_other_bytes(folder, inverted(source, scratch, count), count)
    take("resumed when it is finished", "process", RUN)
    unchanged = take("a schedule without changes", "nightly")
    ratio("    of 40 s", unchanged["seconds"] / 40, at_most=1)
    take("undo", "undo")
    refuse_other_bytes(folder, originals, count)
    return found


def show(what: str, figures: Figures, samples: int) -> None:
    """Print a step's figures, and add its rates to them.

    A flow's start-up counts where a step finds nothing to do, and else is taken out of the rate.
    """
    figure(what, figures["seconds"], "s", 1)
    if "start_up_s" in figures:
        figure("    of which a flow's start-up", figures["start_up_s"], "s", 1)
    if "first_s" in figures:
        figure("    until its first sample is committed", figures["first_s"], "s", 1)
    figures["rate"] = samples / figures.get("work_s", figures["seconds"])
    figures["of_processor"] = 1e6 * figures["processor_s"] / samples
    figure("    rate", figures["rate"], "samples/s", 0)
    figure("    the processor's time, a sample", figures["of_processor"], "µs", 0)
    figure("    most memory", figures["megabytes"], "MB", 0)


def compare(found: dict[int, dict[str, Figures]]) -> None:
    """Print how memory and rate of each step grow with the dataset."""
    sizes = sorted(found)
    for what in found[sizes[0]]:
        title(f"{what}, {sizes[-1]:,} samples")
        least, before, last = (found[sizes[at]][what] for at in (0, -2, -1))
        most, of_rate = (1.2, 0.9) if what == INVERT else (None, None)
        memory = last["megabytes"] / before["megabytes"]
        ratio(f"memory, against {sizes[-2]:,}", memory, at_most=most)
        ratio(f"rate, against {sizes[0]:,}", last["rate"] / least["rate"], at_least=of_rate)
        of_processor = last["of_processor"] / least["of_processor"]
        ratio(f"the processor's time, a sample, against {sizes[0]:,}", of_processor)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    options.add_argument("--step", nargs=argparse.REMAINDER, help="used by the script itself")
    given = options.parse_args()
    if given.step:
        name, scratch, *arguments = given.step
        run_step(name, Path(scratch), arguments)
        return
    found = {}
    for count in given.sizes:
        with temporary_folder(given.temporary_folder) as parent:
            found[count] = measure(parent, count)
    if len(found) > 1:
        compare(found)


if __name__ == "__main__":
    main()
