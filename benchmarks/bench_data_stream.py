"""`DataStream`: get, invert and set one image; against the reference, and as the dataset grows."""

from __future__ import annotations

import random
import time
from pathlib import Path

from _data import write_thumbnails
from _reference import reference
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.sequences import DataStream


def measure(folder: Path, rounds: int) -> tuple[float, float]:
    """Measure our stream.

    Returns:
        Seconds to open the stream, seconds for one get, invert and set.
    """
    begin = time.perf_counter()
    stream = DataStream.read_write_underfolder(folder, zfill=7)
    length = len(stream)
    opened = time.perf_counter()
    indices = random.Random(0).choices(range(length), k=rounds)
    for idx in indices:
        sample = stream[idx]
        stream.set_output(idx, sample.set_value("image", 255 - sample["image"]()))
    return opened - begin, (time.perf_counter() - opened) / rounds


def against_reference(parent: Path, samples: int, rounds: int, reference_rounds: int) -> None:
    title(f"{samples:,} samples of 6 items")
    write_thumbnails(parent / "ours", samples)
    write_thumbnails(parent / "theirs", samples)
    opened, ours = measure(parent / "ours", rounds)
    theirs = reference("data_stream", folder=parent / "theirs", rounds=reference_rounds)
    figure("open the stream, ours", opened * 1e3, "ms")
    figure("open the stream, the reference's", theirs["open_s"] * 1e3, "ms")
    figure("get, invert, set: ours", ours * 1e3, "ms")
    figure("get, invert, set: the reference's", theirs["round_s"] * 1e3, "ms")
    ratio("times faster", theirs["round_s"] / ours, at_least=100)


def as_it_grows(parent: Path, small: int, large: int, rounds: int, repeats: int) -> None:
    title(f"{small:,} samples against {large:,}")
    for samples in (small, large):
        write_thumbnails(parent / str(samples), samples)
    best = {small: float("inf"), large: float("inf")}
    for _ in range(repeats):  # in turn, so that a busy moment of the machine meets both
        for samples in best:
            best[samples] = min(best[samples], measure(parent / str(samples), rounds)[1])
    for samples, seconds in best.items():
        figure(f"get, invert, set at {samples:,} samples", seconds * 1e3, "ms")
    ratio("times the cost", best[large] / best[small], at_most=1.5)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=2_000)
    options.add_argument("--reference-rounds", type=int, default=20)
    options.add_argument("--small", type=int, default=1_000)
    options.add_argument("--large", type=int, default=200_000)
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent:
        against_reference(parent, given.samples, given.rounds, given.reference_rounds)
        as_it_grows(parent, given.small, given.large, given.rounds, given.repeats)


if __name__ == "__main__":
    main()
