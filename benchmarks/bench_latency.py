"""The rate where each call to the file system takes 2 ms, against the number of workers.

As on NFS over a busy network: a library that is loaded before the C library lets each call wait
that asks for a file or changes it (open, stat, link, rename, unlink, mkdir, flock, fsync, and the
close of what was written; not read and write: see `latency.c`). `process_samples` in place, with so
many threads, against a loop of joblib in as many. Needs Linux, a C compiler and joblib.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _data import write_photographs
from _report import figure, parser, ratio, remark, temporary_folder, title

LIBRARY, BELOW, WAIT = (f"PIPESTREAM_LATENCY_{name}" for name in ("LIBRARY", "BELOW", "US"))


def build(folder: Path) -> Path:
    """Compile the library that waits."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise SystemExit("needs Linux and a C compiler: apt-get install gcc libc6-dev")
    library = folder / "latency.so"
    source = Path(__file__).with_name("latency.c")
    options = ["-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run([compiler, *options], check=True)
    return library


# -- inside of the process that waits --------------------------------------------------------


def by_flow(folder: Path, workers: int, scratch: Path, chunk_size: int | None) -> tuple[float, int]:
    """Invert all pictures by `process_samples`; seconds as its report says, and calls."""
    from _prefect import own_prefect
    from prefect.task_runners import ThreadPoolTaskRunner

    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    flow = process_samples
    if workers:
        flow = flow.with_options(task_runner=ThreadPoolTaskRunner(max_workers=workers))
    dataset = ReadWriteUnderfolder(folder=folder)
    transform = [{"invert": {"images": ["image"]}}]
    with own_prefect(scratch):
        flow(dataset, transform, indices=[0])  # starts the embedded server
        before = calls()
        report = flow(dataset, transform, chunk_size=chunk_size)
        if report.counts["failed"]:
            raise SystemExit(f"{report.counts['failed']} samples failed.")
        return report.duration_s, calls() - before


def by_loop(folder: Path, workers: int, scratch: Path, _: int | None) -> tuple[float, int]:
    """Invert all pictures by threads of joblib."""
    from _parallel_sides import by_joblib

    with by_joblib("threading")(workers or os.cpu_count() or 1, scratch) as job:
        before, begin = calls(), time.perf_counter()
        job(folder)
        return time.perf_counter() - begin, calls() - before


def calls() -> int:
    """How many calls of this process waited."""
    count = ctypes.CDLL(os.environ[LIBRARY]).latency_calls
    count.restype = ctypes.c_long
    made: int = count()
    return made


SIDES = {"flow": by_flow, "loop": by_loop}

# -- outside of it ---------------------------------------------------------------------------


def apart(side: str, workers: int, samples: int, given: Any) -> tuple[float, float]:
    """Let a side work in a process of its own on a new dataset; samples a second, calls of one."""
    with temporary_folder(given.temporary_folder) as parent:
        folder = parent / "dataset"
        write_photographs(folder, samples, given.size, "jpeg")
        environment = {
            **os.environ,
            LIBRARY: str(given.library),
            "LD_PRELOAD": str(given.library),
            BELOW: str(folder),
            WAIT: str(round(given.wait * 1000)),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        command = [sys.executable, __file__, "--one", side, str(workers), str(folder)]
        if given.chunk_size is not None:
            command += ["--chunk-size", str(given.chunk_size)]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    seconds, made = json.loads(done.stdout.splitlines()[-1])
    return samples / seconds, made / samples


def compare(workers: int, given: Any) -> None:
    """Let both sides take turns with so many workers; 0: as many as each takes by itself."""
    samples = min(given.samples, given.samples_a_worker * (workers or os.cpu_count() or 1))
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    made = {}
    for _ in range(given.repeats):
        for side in SIDES:
            rate, made[side] = apart(side, workers, samples, given)
            rates[side].append(rate)
    flow, loop = (statistics.median(rates[side]) for side in SIDES)
    name = f"{workers} threads" if workers else "as many threads as nobody chose"
    figure(f"{name}: process_samples", flow, f"samples/s; {made['flow']:.1f} calls each", 1)
    figure(f"{name}: a loop of joblib", loop, f"samples/s; {made['loop']:.1f} calls each", 1)
    ratio(f"{name}: rate / the loop's", flow / loop)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--wait", type=float, default=2.0, help="milliseconds a call")
    options.add_argument("--samples", type=int, default=2_000, help="at most, JPEG")
    options.add_argument("--samples-a-worker", type=int, default=200)
    options.add_argument("--size", type=int, default=28, help="a picture's side, in pixels")
    options.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16, 32], help="0: by default"
    )
    options.add_argument("--chunk-size", type=int, help="samples a task run; by time if not given")
    options.add_argument("--repeats", type=int, default=3, help="of which the median counts")
    options.add_argument("--one", nargs=3, help="used by the script itself")
    given = options.parse_args()
    if given.one:
        side, workers, folder = given.one
        with temporary_folder(None) as scratch:
            took = SIDES[side](Path(folder), int(workers), scratch, given.chunk_size)
            print(json.dumps(took))
        return
    with temporary_folder(given.temporary_folder) as parent:
        given.library = build(parent)
        title(f"JPEG of {given.size}×{given.size}, inverted in place; {given.wait:g} ms a call")
        chunks = f", {given.chunk_size} a chunk" if given.chunk_size else ""
        remark(f"{os.cpu_count()} cores; up to {given.samples:,} samples{chunks}")
        for workers in given.workers:
            compare(workers, given)


if __name__ == "__main__":
    main()
