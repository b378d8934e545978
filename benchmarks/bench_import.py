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
{statement}
print(time.perf_counter() - begin, "prefect" in sys.modules)
"""
# The names are imported when they are first asked for: the second line asks for all of them.
STATEMENTS = {
    "numpy and pydantic alone": "import numpy, pydantic",
    "import prefect_pipestream.sequences": "import prefect_pipestream.sequences",
    "from prefect_pipestream.sequences import *": "from prefect_pipestream.sequences import *",
}


def measure(statement: str) -> float:
    """Run an import in a fresh interpreter; seconds."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(statement=statement)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, has_prefect = done.stdout.split()
    if has_prefect == "True":
        raise SystemExit(f"`{statement}` imports Prefect.")
    return float(seconds)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=11)
    given = options.parse_args()
    title(f"import, median of {given.repeats} fresh interpreters")
    measure("from prefect_pipestream.sequences import *")  # compiles
    ours = 0.0
    for name, statement in STATEMENTS.items():
        ours = statistics.median(measure(statement) for _ in range(given.repeats))
        figure(name, ours, "s")
    theirs = statistics.median(
        reference("import_time")["import_s"] for _ in range(min(given.repeats, 5))
    )
    figure("import pipelime.sequences, the reference", theirs, "s")
    ratio("times faster, all names", theirs / ours)
    ratio("of 0.3 s, all names", ours / 0.3, at_most=1)


if __name__ == "__main__":
    main()
