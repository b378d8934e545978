"""What a run's progress and report cost: `process_samples` with and without its artifacts."""

import time
from pathlib import Path

from _data import write_photographs
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples


def seconds(folder: Path, artifacts: bool) -> float:
    begin = time.perf_counter()
    process_samples(
        ReadWriteUnderfolder(folder=folder),
        [{"invert": {"images": ["image"]}}],
        artifacts=artifacts,
    )
    return time.perf_counter() - begin


def compare(folder: Path, repeats: int) -> None:
    """Time whole flow runs in turn, each first as often as the other.

    The disk gets slower with each run, which keeps all files of those before it.
    """
    seconds(folder, artifacts=True)
    took: dict[bool, list[float]] = {True: [], False: []}
    for number in range(repeats):
        for artifacts in (True, False) if number % 2 else (False, True):
            took[artifacts].append(seconds(folder, artifacts))
    with_them, without = min(took[True]), min(took[False])
    figure("without artifacts, the whole flow", without, "s")
    figure("with artifacts, the whole flow", with_them, "s")
    ratio("with artifacts / without", with_them / without, at_most=1.05)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--photographs", type=int, default=1_000, help="JPEG")
    options.add_argument("--thumbnails", type=int, default=20_000)
    options.add_argument("--size", type=int, default=512, help="a photograph's side, in pixels")
    options.add_argument("--repeats", type=int, default=4)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent, own_prefect(parent):
        for name, count, size in (
            ("photographs", given.photographs, given.size),
            ("thumbnails", given.thumbnails, 28),
        ):
            title(f"{count:,} {name} of {size}×{size}, JPEG")
            write_photographs(parent / name, count, size, "jpeg")
            compare(parent / name, given.repeats)


if __name__ == "__main__":
    main()
