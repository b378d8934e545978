"""What the benchmarks share: temporary folders, and how a figure is printed and kept.

Where the environment variable `PIPESTREAM_BENCHMARK_FIGURES` names a file, each title, figure and
ratio is a line of JSON in it, too: `run_all.py` makes its page of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_IN = "PIPESTREAM_BENCHMARK_FIGURES"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the option that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument(
        "--temporary-folder",
        type=Path,
        default=None,
        help="where the datasets are made, and removed; the system's own when not given",
    )
    return made


@contextmanager
def temporary_folder(parent: Path | None) -> Iterator[Path]:
    """Give a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="pipestream-bench-") as folder:
        yield Path(folder)


def cores() -> int:
    """How many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def title(text: str) -> None:
    """Print what follows."""
    print(f"\n{text}", flush=True)
    _keep(title=text)


def figure(name: str, value: float, unit: str, digits: int = 3) -> None:
    """Print one figure."""
    print(f"  {name:<58} {value:>12,.{digits}f} {unit}", flush=True)
    _keep(name=name, shown=f"{value:,.{digits}f}", value=value, unit=unit)


def remark(text: str) -> None:
    """Print what is to be known of the figures, or why there are none."""
    print(f"  {text}", flush=True)
    _keep(remark=text)


def ratio(
    name: str, value: float, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Print a ratio, what it should be, and whether it is."""
    met, wanted = True, ""
    if at_least is not None:
        met, wanted = value >= at_least, f"at least {at_least:g}"
    if at_most is not None:
        met, wanted = value <= at_most, f"at most {at_most:g}"
    verdict = f"  ({wanted}: {'met' if met else 'MISSED'})" if wanted else ""
    print(f"  {name:<58} {value:>12,.2f} ×{verdict}", flush=True)
    _keep(name=name, shown=f"{value:,.2f}", value=value, unit=f"×{verdict}")


def _keep(**entry: str | float) -> None:
    path = os.environ.get(KEPT_IN)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
