"""The first index of a folder: its time against one bare `os.scandir` pass, and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _data import write_thumbnails
from _report import figure, parser, ratio, temporary_folder, title

MEMORY = """
import sys
from prefect_pipestream.sequences import SamplesSequence
status = lambda: {
    line.split(":")[0]: int(line.split()[1])
    for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmHWM"))
}
before = status()
sequence = SamplesSequence.from_underfolder(sys.argv[1])
length = len(sequence)
after = status()
print(length, after["VmRSS"] - before["VmRSS"], after["VmHWM"] - before["VmRSS"])
"""


def scan(folder: Path) -> None:
    """Look at every name once, and at nothing else."""
    with os.scandir(folder / "data") as entries:
        for _ in entries:
            pass


def index(folder: Path) -> None:
    from prefect_pipestream.sequences import SamplesSequence

    len(SamplesSequence.from_underfolder(folder))


def clock(job: Callable[[Path], None], folder: Path) -> float:
    begin = time.perf_counter()
    job(folder)
    return time.perf_counter() - begin


def time_against_scandir(parent: Path, samples: int, repeats: int) -> None:
    title(f"first index of {samples:,} samples of 6 items")
    write_thumbnails(parent / "time", samples, link_images=True)
    scan(parent / "time")  # from here on the folder is in the system's cache for both
    index(parent / "time")
    pairs = [(clock(scan, parent / "time"), clock(index, parent / "time")) for _ in range(repeats)]
    bare, ours = (min(times) for times in zip(*pairs, strict=True))
    figure("one bare os.scandir pass", bare * 1e3, "ms")
    figure("index", ours * 1e3, "ms")
    ratio("times one pass", ours / bare)


def memory(parent: Path, samples: int) -> None:
    title(f"memory of the index of {samples:,} samples of 6 items")
    write_thumbnails(parent / "memory", samples, link_images=True)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(parent / "memory")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    length, held, peak = map(int, done.stdout.split())
    if length != samples:
        raise SystemExit(f"The index counts {length} samples of {samples}.")
    figure("held by the process", held / 1024, "MiB", 1)
    figure("most held while indexing", peak / 1024, "MiB", 1)
    ratio("of 100 MiB, held", held / 1024 / 100, at_most=1)
    ratio("of 100 MiB, while indexing", peak / 1024 / 100, at_most=1)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=100_000)
    options.add_argument("--memory-samples", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent:
        time_against_scandir(parent, given.samples, given.repeats)
    with temporary_folder(given.temporary_folder) as parent:
        memory(parent, given.memory_samples)


if __name__ == "__main__":
    main()
