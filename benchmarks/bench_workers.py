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

from prefect_pipestream.sequences import Sample, SamplesSequence

ROUNDS = 5
WORKERS = 2


def measure(source: str, target: str) -> dict[str, float]:
    """Seconds of a run of next to nothing, and of one that inverts every image of a dataset."""
    took: dict[str, float] = {}
    with _measured(took, "start"):
        SamplesSequence.from_list([Sample()] * WORKERS).run(WORKERS, track_fn=False)
    for workers in (0, WORKERS):
        with _measured(took, str(workers)):
            inverted = SamplesSequence.from_underfolder(source).map("invert")
            inverted.to_underfolder(f"{target}-{workers}").run(workers, track_fn=False)
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
        env={**os.environ, "PYTHONPATH": str(checkout)},
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
    rates = []
    for checkout, seconds in rounds.items():
        best = {name: min(one[name] for one in seconds) for name in seconds[0]}
        alone, together = best["0"], best[str(WORKERS)]
        print(f"  {checkout}")
        figure(f"starting and ending {WORKERS} workers", best["start"], "s")
        figure("the same, of processors", best["start of processors"], "s")
        figure("a sample in this process", 1e3 * alone / count, "ms")
        figure(f"a sample in {WORKERS} workers, with their start", 1e3 * together / count, "ms")
        figure("the same, of processors", 1e3 * best[f"{WORKERS} of processors"] / count, "ms")
        rates.append(count / (together - best["start"]))
        figure(f"{WORKERS} workers, once started", rates[-1], "samples/s", 0)
    for rate in rates[1:]:
        ratio("once started, the first checkout against the next", rates[0] / rate)


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
