"""Worker processes of `SamplesSequence.run`: what starting them costs, and what two of them do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _data import write_photographs
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.sequences import SamplesSequence

ROUNDS = 5
WORKERS = 2
WAYS = ("", " of processors")


def measure(source: str, target: str) -> dict[str, float]:
    """Seconds to invert the images of a dataset: one a worker, all here, all in workers."""
    took: dict[str, float] = {}
    inverted = SamplesSequence.from_underfolder(source).map("invert")
    with _measured(took, "first"):
        first = inverted.slice(stop=WORKERS)
        first.to_underfolder(f"{target}-first").run(WORKERS, track_fn=False)
    for where, workers in (("here", 0), ("there", WORKERS)):
        with _measured(took, where):
            inverted.to_underfolder(f"{target}-{where}").run(workers, track_fn=False)
    return took


@contextmanager
def _measured(took: dict[str, float], name: str) -> Iterator[None]:
    """Notes the time, and that of processors, of this process and of those that ended."""
    began, used = time.perf_counter(), sum(os.times()[:4])
    yield
    took[name] = time.perf_counter() - began
    took[f"{name} of processors"] = sum(os.times()[:4]) - used


def measured_in(checkout: Path, source: Path, target: Path) -> dict[str, float]:
    """The same in a new process, with the package of a checkout."""
    done = subprocess.run(
        [sys.executable, __file__, "--source", str(source), "--target", str(target)],
        # With byte code: workers that compile the package anew would be slower than users see.
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def compare(checkouts: list[Path], source: Path, count: int) -> None:
    """Lets the checkouts take turns; the best round of each figure counts."""
    rounds: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for number in range(ROUNDS):
        for side, checkout in enumerate(checkouts):
            target = source.with_name(f"{source.name}-{number}-{side}")
            rounds[checkout].append(measured_in(checkout, source, target))
    started = []
    for checkout, seconds in rounds.items():
        best = {name: min(one[name] for one in seconds) for name in seconds[0]}
        print(f"  {checkout}")
        figure(f"{WORKERS} workers from start to end, a sample each", best["first"], "s")
        figure("the same, of processors", best["first of processors"], "s")
        figure("a sample in this process", 1e3 * best["here"] / count, "ms")
        figure(f"a sample in {WORKERS} workers", 1e3 * best["there"] / count, "ms")
        started.append([1e3 * (best[f"there{of}"] - best[f"first{of}"]) / count for of in WAYS])
        figure("the same, once they are started", started[-1][0], "ms")
        figure("the same, of processors", started[-1][1], "ms")
    for other in started[1:]:
        ratio("once started, the other's time against the first's", other[0] / started[0][0])
        ratio("the same, of processors", other[1] / started[0][1])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--thumbnails", type=int, default=3_000)
    options.add_argument("--photographs", type=int, default=200)
    options.add_argument(
        "--other", type=Path, nargs="*", default=[], help="other checkouts, to compare with"
    )
    options.add_argument("--source", help="for the script itself: what to measure with")
    options.add_argument("--target", help="for the script itself: where to write")
    given = options.parse_args()
    if given.source:
        print(json.dumps(measure(given.source, given.target)))
        return
    checkouts = [Path(__file__).resolve().parents[1], *given.other]
    with temporary_folder(given.temporary_folder) as parent:
        for count, size, extension in (
            (given.thumbnails, 28, "jpeg"),
            (given.photographs, 512, "png"),
        ):
            source = parent / extension
            write_photographs(source, count, size, extension)
            title(f"{count:,} {extension} samples of {size}×{size}")
            compare(checkouts, source, count)


if __name__ == "__main__":
    main()
