"""What the benchmarks share: clocks, temporary folders, and how a figure is printed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def title(text: str) -> None:
    """Print what follows."""
    print(f"\n{text}")


def figure(name: str, value: float, unit: str, digits: int = 3) -> None:
    """Print one figure."""
    print(f"  {name:<58} {value:>12,.{digits}f} {unit}")


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
    print(f"  {name:<58} {value:>12,.2f} ×{verdict}")
