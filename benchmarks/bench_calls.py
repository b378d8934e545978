"""What one small picture costs in place: system calls, and processor time, beside a plain loop.

Ours is what `process_samples` does in a chunk, without Prefect. The calls are counted by strace
(Linux), in a run of its own; the time is that of the processor, of the program and of the system,
in a process of its own each, the best of some rounds in which the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from _data import ENCODER_OPTIONS, write_photographs
from _report import figure, parser, ratio, temporary_folder, title

LOOP, OURS, OURS_FAST = "plain loop with imageio", "ours", "ours with imagecodecs"
WARM_UP = 100
CHUNK = 500
# Asked for before and after what is counted: there is no such file.
_MARK = "/pipestream-benchmark"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)")
_KINDS = {
    "openat": "open",
    "pread64": "read",
    "newfstatat": "stat",
    "fstat": "stat",
    "stat": "stat",
    "lstat": "stat",
    "statx": "stat",
    "readlink": "stat",
    "access": "stat",
    "faccessat2": "stat",
    "linkat": "link",
    "renameat": "rename",
    "renameat2": "rename",
    "unlinkat": "unlink",
    "fchmod": "chmod",
    "fchmodat": "chmod",
    "utimensat": "set a time",
    "getdents64": "list",
    "flock": "lock",
}
_OF_MEMORY = {"mmap", "munmap", "brk", "madvise", "mremap", "mprotect"}


def invert(folder: Path, side: str, indices: Sequence[int], extension: str) -> None:
    """Invert pictures in place."""
    if side == LOOP:
        _by_loop(folder, indices, extension)
    else:
        _by_chunks(folder, indices)


def _by_loop(folder: Path, indices: Sequence[int], extension: str) -> None:
    import imageio.v3 as iio

    for idx in indices:
        path = folder / "data" / f"{idx:06d}_image.{extension}"
        iio.imwrite(path, 255 - iio.imread(path), **ENCODER_OPTIONS[extension])


def _by_chunks(folder: Path, indices: Sequence[int]) -> None:
    from prefect_pipestream.reporting.reports import describe_indices
    from prefect_pipestream.sequences import DataStream, Sample
    from prefect_pipestream.work.chunk import ChunkRun, Transform

    def inverted(sample: Sample) -> Sample:
        return sample.set_value("image", 255 - sample["image"]())

    stream = DataStream.read_write_underfolder(folder).for_attempt()
    stream.begin_run()
    log = logging.getLogger(__name__)
    for begin in range(0, len(indices), CHUNK):
        some = indices[begin : begin + CHUNK]
        part = stream.part(some)
        chunk = ChunkRun(part, part, Transform(inverted), None, 0, describe_indices(some), log)
        report = chunk.run(some)
        if report.counts["written"] != len(some):
            raise SystemExit(f"{folder}: not all samples were written: {report.summary()}")


def be_measured(given: argparse.Namespace) -> None:
    """Do the work of one side, and print its processor time: of the program, of the system."""
    if given.side == OURS:
        sys.modules["imagecodecs"] = None  # type: ignore[assignment] # as if it was not installed
    all_ = range(WARM_UP + given.samples)
    invert(given.folder, given.side, all_[:WARM_UP], given.extension)
    os.access(_MARK, os.F_OK)
    before = resource.getrusage(resource.RUSAGE_SELF)
    invert(given.folder, given.side, all_[WARM_UP:], given.extension)
    after = resource.getrusage(resource.RUSAGE_SELF)
    os.access(_MARK, os.F_OK)
    print(json.dumps([after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime]))


def measured(folder: Path, side: str, samples: int, extension: str, *before: str) -> list[float]:
    """Have one side measured in a process of its own; seconds of the program, of the system."""
    command = [*before, sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--samples", str(samples), "--extension", extension]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def counted(folder: Path, side: str, samples: int, extension: str) -> Counter[str]:
    """Count the system calls of one side that are not about memory, by their kinds."""
    log = folder.with_suffix(".strace")
    measured(folder, side, samples, extension, "strace", "-f", "-qq", "-o", str(log))
    found: Counter[str] = Counter()
    marks = 0
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if _MARK in line:
            marks += 1
        elif marks == 1 and call and call[1] not in _OF_MEMORY:
            found[_kind_of(call[1], call[2])] += 1
    log.unlink()
    return found


def _kind_of(name: str, arguments: str) -> str:
    kind = _KINDS.get(name, name)
    return "create" if kind == "open" and "O_CREAT" in arguments else kind


def print_calls(folder: Path, sides: Sequence[str], samples: int, extension: str) -> None:
    """Print the calls a sample, those of less than one in a hundred samples together."""
    counts = {side: counted(folder, side, samples, extension) for side in sides}
    print(f"  {'calls a sample':<24}" + "".join(f"{side:>26}" for side in sides))
    kinds = sorted(set().union(*counts.values()), key=lambda kind: -counts[sides[1]][kind])
    few = [k for k in kinds if max(counts[side][k] for side in sides) < samples / 100]
    rows = [(kind, [kind]) for kind in kinds if kind not in few]
    for name, some in [*rows, ("others", few), ("all", kinds)]:
        each = [sum(counts[side][kind] for kind in some) / samples for side in sides]
        print(f"  {name:<24}" + "".join(f"{number:>26.2f}" for number in each))


def print_times(
    folder: Path, sides: Sequence[str], samples: int, extension: str, rounds: int
) -> None:
    """Print the processor time a sample."""
    took: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            took[side].append(measured(folder, side, samples, extension))
    best = {side: min(seconds, key=sum) for side, seconds in took.items()}
    for side, (program, system) in best.items():
        figure(f"{side}: processor time a sample", 1e3 * (program + system) / samples, "ms")
        figure("of which in the system", 1e3 * system / samples, "ms")
    for side in sides[1:]:
        ratio(f"{side} of the loop's", sum(best[side]) / sum(best[sides[0]]))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=5_000)
    options.add_argument("--traced", type=int, default=2_000, help="samples whose calls count")
    options.add_argument("--size", type=int, default=28, help="a picture's side, in pixels")
    options.add_argument("--extension", choices=sorted(ENCODER_OPTIONS), default="jpeg")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--side", choices=[LOOP, OURS, OURS_FAST], help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.side is not None:
        be_measured(given)
        return
    from prefect_pipestream.items.pictures import fast

    sides = [LOOP, OURS, *([OURS_FAST] if fast.library() else [])]
    with temporary_folder(given.temporary_folder) as parent:
        folder = parent / "pictures"
        most = WARM_UP + max(given.samples, given.traced)
        write_photographs(folder, most, given.size, given.extension)
        title(f"pictures of {given.size}×{given.size}, {given.extension.upper()}, in place")
        if shutil.which("strace") is None:
            print("  Their calls are not counted: there is no strace.")
        else:
            print_calls(folder, sides, given.traced, given.extension)
        print_times(folder, sides, given.samples, given.extension, given.rounds)


if __name__ == "__main__":
    main()
