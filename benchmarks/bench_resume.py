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


def run(folder: Path, run_key: str | None, select: str) -> float:
    """One run of the flow over all samples; seconds, with the flow's start-up."""
    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

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
    """In a process of its own: prints its seconds, those of an empty flow, and its most memory."""
    with temporary_folder(None) as parent, own_prefect(parent):
        write_labels(parent / "one", 1)
        run(parent / "one", None, "all")  # starts the embedded server
        start_up = run(parent / "one", None, "all")
        seconds = run(folder, run_key, select)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds} {start_up} {megabytes}")


def apart(folder: Path, run_key: str, select: str, what: str) -> float:
    """Runs the flow in a process of its own and shows what it took; gives its most memory, MB."""
    command = [sys.executable, __file__, "--run", str(folder), run_key, select]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, start_up, megabytes = map(float, shown.splitlines()[-1].split())
    figure(what, seconds, "s", 1)
    figure("    of which a flow's start-up", start_up, "s", 1)
    return megabytes


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
            most[count] = apart(folder, "run", "all", "the run")
            figure("most memory of its process", most[count], "MB", 0)
            apart(folder, "run", "all", "resumed when finished")
            apart(folder, "scheduled", "changed", "a scheduled run on the unchanged dataset")
        ratio("memory, many samples against few", most[given.samples] / most[given.few])


if __name__ == "__main__":
    main()
