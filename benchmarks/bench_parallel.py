"""`255 - image` in place: `process_samples` against parallel loops, and against other libraries.

All sides take turns, each in a process of its own that ends before the next begins, with its
workers started and its modules loaded before a clock runs. Where a start-up is told apart, it is
the same job on one thumbnail a worker; of `process_samples` no less is left than its report says.
Other libraries are installed once, each into an environment in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from _data import write_photographs
from _environment import UnavailableError, environment_with
from _report import cores, figure, parser, ratio, remark, temporary_folder, title

ROOT = Path(__file__).resolve().parents[1]
SIDES = Path(__file__).with_name("_parallel_sides.py")
START_UPS = 3
# A loop has no start-up of its own: its workers stay.
LOOPS = ("plain", "threads", "loky")
# What pip installs for each of the others, beside imageio.
OTHERS = {"hf-datasets": "datasets", "ray-data": "ray[data]", "datachain": "datachain"}


@dataclass
class Side:
    """A way to do the job, and what it took.

    Attributes:
        name: What it is called in the output.
        program: Its name in `_parallel_sides.py`.
        python: The interpreter of its environment.
        path: What is searched for modules before those of the environment.
        start_ups: Seconds of the job on one thumbnail a worker.
        seconds: By row, the seconds of each time: in all, and as the side itself counted.
    """

    name: str
    program: str
    python: Path = Path(sys.executable)
    path: tuple[Path, ...] = ()
    uses: str = ""
    start_ups: list[float] = field(default_factory=list)
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def start_up(self) -> float:
        return 0.0 if self.program in LOOPS else min(self.start_ups)

    def whole(self, row: str) -> float:
        return statistics.median(whole for whole, _ in self.seconds[row])

    def work(self, row: str) -> float:
        """Without the start-up; a flow's end may wait for events as long as that, or longer."""
        fixed = self.start_up()
        return statistics.median(max(whole - fixed, own) for whole, own in self.seconds[row])


class Host:
    """The process of a side."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self._process = process
        self._said = said

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._said.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{said}\n{self._process.args} ended with {self._process.wait()}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def invert(self, folder: Path) -> tuple[float, float]:
        """Have the pictures of a folder inverted; seconds in all, and as the side counts them."""
        os.sync()  # what others wrote is not to be waited for by this one
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        answer = self.read()
        return answer["whole"], answer["told"] or 0.0


@contextmanager
def hosted(side: Side, workers: int, scratch: Path) -> Iterator[Host]:
    """Start the process of a side, and end it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    # With byte code: workers that compile their modules anew would be slower than users see.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, side.path)),
        "PYTHONDONTWRITEBYTECODE": "",
        "TMPDIR": str(scratch),
    }
    said = scratch / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [str(side.python), str(SIDES), side.program, str(workers), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=environment,
        )
    try:
        host = Host(process, said)
        side.uses = host.read()["uses"]
        yield host
    finally:
        process.communicate()


def our_sides(parent: Path) -> list[Side]:
    """Ours without the extra `fast`, and with it where that is installed."""
    away = parent / "away"
    away.mkdir()
    text = 'raise ImportError("bench_parallel.py measures without it")\n'
    (away / "imagecodecs.py").write_text(text)  # which the side's own worker processes find, too
    sides = [Side("process_samples", "ours", path=(away, ROOT))]
    if find_spec("imagecodecs"):
        sides.append(Side("process_samples with [fast]", "ours", path=(ROOT,)))
    else:
        remark("without a row for [fast]: imagecodecs is not installed")
    return sides


def loop_sides() -> list[Side]:
    """The loops, as far as joblib is installed."""
    sides = [Side("a plain loop", "plain")]
    if find_spec("joblib"):
        sides += [Side("joblib, threads", "threads"), Side("joblib, loky", "loky")]
    else:
        remark("without parallel loops: joblib is not installed")
    return sides


def other_sides(names: list[str]) -> list[Side]:
    """The other libraries that can be installed."""
    sides = []
    for name in names:
        try:
            python = environment_with(name, [OTHERS[name], "imageio", "pillow"])
        except UnavailableError as error:
            remark(f"without {name}, which cannot be installed: {error}")
        else:
            sides.append(Side(name, name, python))
    return sides


def measure(sides: list[Side], rows: list[str], parent: Path, repeats: int, workers: int) -> None:
    """Let the sides take turns, from the first to the last and back."""
    for number in range(repeats):
        for side in sides if number % 2 == 0 else sides[::-1]:
            own = parent / f"of-{sides.index(side)}"
            with hosted(side, workers, parent / "scratch") as host:
                host.invert(own / "few")  # loads modules, starts workers, or a server
                side.start_ups += [host.invert(own / "few")[0] for _ in range(START_UPS)]
                for row in rows:
                    before = last_picture(own / row)
                    took = host.invert(own / row)
                    refuse_other_than_inverted(before, last_picture(own / row), side, row)
                    side.seconds.setdefault(row, []).append(took)


def last_picture(folder: Path) -> np.ndarray:
    return iio.imread(max((folder / "data").glob("*_image.*")))


def refuse_other_than_inverted(before: np.ndarray, after: np.ndarray, side: Side, row: str) -> None:
    if np.abs(after - (255.0 - before)).mean() > 10:  # JPEG is not exact
        raise SystemExit(f"{side.name} did not invert the pictures of {row}.")


def tell(sides: list[Side], row: str) -> None:
    """Print what a row took, and how ours compares with the best of each kind."""
    for side in sides:
        if side.program in LOOPS:
            figure(side.name, side.whole(row), "s", 2)
        else:
            figure(f"{side.name}, without its start-up", side.work(row), "s", 2)
            figure(f"{side.name}, whole", side.whole(row), "s", 2)
    loops = [side.work(row) for side in sides if side.program in LOOPS]
    for side in sides:
        if side.program != "ours":
            continue
        work, wanted = side.work(row), 1.5 if "[fast]" in side.name else 1.0
        ratio(f"{side.name}: rate / best loop's", min(loops) / work, at_least=wanted)
        ratio(f"{side.name}, whole: rate / best loop's", min(loops) / side.whole(row))
        for other in sides:
            if other.program in OTHERS:
                ratio(f"{side.name}: rate / {other.name}'s", other.work(row) / work, at_least=1)
                times = other.whole(row) / side.whole(row)
                ratio(f"{side.name}, whole: rate / {other.name}'s", times)


def write_datasets(parent: Path, sides: list[Side], sizes: dict[str, tuple[int, int, str]]) -> None:
    """Write each row's dataset, and a copy of it for each side."""
    for row, (count, size, extension) in sizes.items():
        write_photographs(parent / "made" / row, count, size, extension)
    for number in range(len(sides)):
        shutil.copytree(parent / "made", parent / f"of-{number}")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--png", type=int, default=200, help="photographs of 512×512 as PNG")
    options.add_argument("--jpeg", type=int, default=600, help="photographs of 512×512 as JPEG")
    options.add_argument("--thumbnails", type=int, default=3_000, help="of 28×28, as JPEG")
    options.add_argument("--repeats", type=int, default=5, help="of which the median counts")
    options.add_argument(
        "--others", nargs="*", choices=OTHERS, default=list(OTHERS), help="to compare with, too"
    )
    given = options.parse_args()
    workers = cores()
    rows = {
        f"PNG 512×512 ({given.png:,})": (given.png, 512, "png"),
        f"JPEG 512×512 ({given.jpeg:,})": (given.jpeg, 512, "jpeg"),
        f"JPEG 28×28 ({given.thumbnails:,})": (given.thumbnails, 28, "jpeg"),
    }
    title(f"sides, each with {workers} workers: one a core")
    with temporary_folder(given.temporary_folder) as parent:
        sides = [*loop_sides(), *our_sides(parent), *other_sides(given.others)]
        write_datasets(parent, sides, {**rows, "few": (workers, 28, "jpeg")})
        measure(sides, list(rows), parent, given.repeats, workers)
        for side in sides:
            remark(f"{side.name}: {side.uses}")
            if side.program not in LOOPS:
                figure(f"{side.name}, start-up", side.start_up(), "s", 2)
    for row in rows:
        title(f"{row}, inverted in place; median of {given.repeats}")
        tell(sides, row)


if __name__ == "__main__":
    main()
