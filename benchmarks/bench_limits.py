"""What a limit a sample costs when nothing hangs: the same flow with and without, side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

from _data import write_photographs, write_thumbnails
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples

TRANSFORM = [{"invert": {"images": ["image"]}}]
LIMITS = {"none": {}, "limits": {"sample_timeout": 60.0, "sample_memory": 4000.0}}


def inverted(original: Path, folder: Path, **limits: float) -> float:
    """Invert every image of a copy in place; seconds, without Prefect's start and end of a flow."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    report = process_samples(
        ReadWriteUnderfolder(folder=folder), TRANSFORM, artifacts=False, **limits
    )
    if report.counts["failed"]:
        raise SystemExit(f"{report.counts['failed']} samples failed in {folder}.")
    return report.duration_s


def compared(original: Path, few: Path, rounds: int) -> None:
    """Run both in turn, so that what else the machine does meets both; print the best of each.

    A few samples come first, for which the processes are started that work on the others, too.
    """
    copy = original.with_name("copy")
    best = dict.fromkeys(LIMITS, float("inf"))
    start = float("inf")
    for _ in range(rounds):
        for name, limits in LIMITS.items():
            begun = inverted(few, copy, **limits)
            again = inverted(few, copy, **limits)
            start = start if name == "none" else min(start, begun - again)
            best[name] = min(best[name], inverted(original, copy, **limits))
    figure("without limits", best["none"], "s", 2)
    figure("with sample_timeout and sample_memory", best["limits"], "s", 2)
    ratio("with limits against without", best["limits"] / best["none"], at_most=1.02)
    figure("and once a run: the start of the processes", start, "s", 2)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--photographs", type=int, default=200)
    options.add_argument("--thumbnails", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent, own_prefect(parent):
        warm = parent / "warm"
        write_thumbnails(warm, 8)
        inverted(warm, parent / "copy")  # starts the embedded server
        title(f"PNG 512×512 ({given.photographs:,}), `invert` in place")
        write_photographs(parent / "png", given.photographs, 512, "png")
        compared(parent / "png", warm, given.rounds)
        title(f"JPEG 28×28 ({given.thumbnails:,}), `invert` in place")
        write_photographs(parent / "jpeg", given.thumbnails, 28, "jpeg")
        compared(parent / "jpeg", warm, given.rounds)


if __name__ == "__main__":
    main()
