"""What a screen asks for: versions of the samples that are seen, and thumbnails, new and kept."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from _data import write_thumbnails
from _report import figure, parser, temporary_folder, title

from prefect_pipestream import DataStream, Thumbnails

SEEN = 120
ROUNDS = 40
# Another process, that saves a sample each 50 ms as long as it is not ended.
WRITE = """
import random, sys, time
from prefect_pipestream import DataStream
stream = DataStream.read_write_underfolder(sys.argv[1])
print("open", flush=True)
while True:
    idx = random.randrange(len(stream))
    stream.set_output(idx, stream[idx].set_value("image", 255 - stream[idx]["image"]()), ["image"])
    time.sleep(0.05)
"""


def tell(name: str, what: Callable[[list[int]], object], pages: Iterable[list[int]]) -> None:
    """Print what a page takes, on the clock and of the processor."""
    clock, processor = [], []
    for page in pages:
        began, cpu = time.perf_counter(), time.process_time()
        what(page)
        clock.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - cpu) * 1000)
    clock, processor = sorted(clock), sorted(processor)
    middle = len(clock) // 2
    figure(f"{name}, median", clock[middle], f"ms; {processor[middle]:.1f} ms of the processor")
    figure(f"{name}, most of {len(clock)}", clock[-1], f"ms; {processor[-1]:.1f} ms")


def measure(folder: Path, samples: int, size: int) -> None:
    title(f"{samples:,} samples of six items: {SEEN} of them")
    write_thumbnails(folder, samples, size)
    began = time.perf_counter()
    stream = DataStream.read_write_underfolder(folder)
    len(stream)
    figure("open", (time.perf_counter() - began) * 1000, "ms")
    starts = [random.randrange(samples - SEEN) for _ in range(ROUNDS)]
    pages = [list(range(start, start + SEEN)) for start in starts]
    stream.versions(pages[0])
    tell("versions", stream.versions, pages)
    tell("samples taken", lambda page: [stream[idx].version for idx in page], pages)
    writing = subprocess.Popen(
        [sys.executable, "-c", WRITE, folder], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writing.stdout is not None
        writing.stdout.readline()
        tell("versions while another process writes", stream.versions, pages * 5)
    finally:
        writing.kill()
        writing.wait()
    pictures = Thumbnails(folder)

    def show(page: list[int]) -> None:
        for idx in page:
            pictures.of(stream[idx]["image"])

    tell(f"thumbnails of {size} pixels, made", show, pages[:10])
    tell("thumbnails, kept", show, pages[:10])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=int, default=100_000)
    arguments.add_argument("--size", type=int, default=96)
    given = arguments.parse_args()
    with temporary_folder(given.temporary_folder) as parent:
        measure(parent / "set", given.samples, given.size)


if __name__ == "__main__":
    main()
