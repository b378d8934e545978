"""A large run that is resumed when it is finished, and a scheduled one that finds no change."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title


def write_labels(folder: Path, count: int) -> None:
    """A dataset of one small item a sample."""
    (folder / "data").mkdir(parents=True)
    for idx in range(count):
        (folder / f"data/{idx:06d}_label.txt").write_bytes(b"1\n")


def run(folder: Path, run_key: str, select: str) -> float:
    """One run of the flow over all samples; seconds, with the flow's start-up."""
    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.process import process_samples

    begin = time.perf_counter()
    report = process_samples(
        ReadWriteUnderfolder(folder=folder),
        [{"set-meta": {"key_path": "meta.seen", "value": True}}],
        run_key=run_key,
        select=select,
    )
    print(f"  {report.summary()}")
    return time.perf_counter() - begin


def one_run(folder: Path, run_key: str, select: str) -> None:
    """In a process of its own: prints its seconds and its most memory."""
    with temporary_folder(None) as parent, own_prefect(parent):
        seconds = run(folder, run_key, select)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds} {megabytes}")


def apart(folder: Path, run_key: str, select: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "--run", str(folder), run_key, select]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, megabytes = shown.splitlines()[-1].split()
    return float(seconds), float(megabytes)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=100_000)
    options.add_argument("--few", type=int, default=10_000)
    options.add_argument("--run", nargs=3, help="used by the script itself")
    given = options.parse_args()
    if given.run:
        one_run(Path(given.run[0]), given.run[1], given.run[2])
        return
    with temporary_folder(given.temporary_folder) as parent:
        most = {}
        for count in (given.few, given.samples):
            folder = parent / str(count)
            write_labels(folder, count)
            title(f"{count:,} samples")
            seconds, most[count] = apart(folder, "run", "all")
            figure("the run, with the flow's start-up", seconds, "s", 1)
            figure("most memory of its process", most[count], "MB", 0)
            seconds, _ = apart(folder, "run", "all")
            figure("resumed when finished", seconds, "s", 1)
            seconds, _ = apart(folder, "scheduled", "changed")
            figure("a scheduled run on the unchanged dataset", seconds, "s", 1)
        ratio("memory, many samples against few", most[given.samples] / most[given.few])


if __name__ == "__main__":
    main()
