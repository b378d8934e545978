"""`import prefect_pipestream.sequences` in a fresh interpreter, against the reference's."""

from __future__ import annotations

import statistics
import subprocess
import sys

from _reference import reference
from _report import figure, parser, ratio, title

MEASURE = """
import sys, time
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin, "prefect" in sys.modules)
"""


def measure(module: str) -> float:
    """Import a module in a fresh interpreter; seconds."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(module=module)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, has_prefect = done.stdout.split()
    if has_prefect == "True":
        raise SystemExit(f"`import {module}` imports Prefect.")
    return float(seconds)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=11)
    given = options.parse_args()
    title(f"import, median of {given.repeats} fresh interpreters")
    measure("prefect_pipestream.sequences")  # compiles
    numpy, ours = (
        statistics.median(measure(module) for _ in range(given.repeats))
        for module in ("numpy, pydantic", "prefect_pipestream.sequences")
    )
    theirs = statistics.median(
        reference("import_time")["import_s"] for _ in range(min(given.repeats, 5))
    )
    figure("numpy and pydantic alone", numpy, "s")
    figure("prefect_pipestream.sequences", ours, "s")
    figure("the reference's sequences", theirs, "s")
    ratio("times faster", theirs / ours)
    ratio("of 0.3 s", ours / 0.3, at_most=1)


if __name__ == "__main__":
    main()
