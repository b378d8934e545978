"""The forged datasets: a forgery at each place that is read, of each kind that is possible there.

``python -m tests.bad_input.forged [PART OF A PLACE]`` does everything with all of them, and prints
what came of it.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .forged_contents import contents
from .forged_steps import STEPS
from .forged_things import things
from .forged_trial import Bench, Forgery

Outcomes = dict[str, str]


def corpus() -> list[Forgery]:
    """All forgeries, always in the same order."""
    return [Forgery("nowhere", "none", lambda dataset, victim: None), *things(), *contents()]


def is_fine(outcome: str) -> bool:
    """Whether an outcome is one that may be."""
    return outcome == "ok" or outcome.startswith("refused")


def tried(bench: Bench, forgery: Forgery) -> Outcomes | None:
    """What came of each step; None where the forgery cannot be made here."""
    try:
        return {step: bench.trial(forgery, step) for step in forgery.steps or STEPS}
    except (OSError, NotImplementedError):
        return None


def all_tried(forgeries: list[Forgery], folder: Path) -> Iterator[tuple[Forgery, Outcomes | None]]:
    """Tries forgeries, as many at once as there are cores."""
    context = multiprocessing.get_context("fork")
    workers = os.cpu_count() or 1
    with context.Pool(workers, _start, (forgeries, folder)) as pool:
        yield from zip(forgeries, pool.imap(_try_one, range(len(forgeries))), strict=True)


_here: list[tuple[Bench, list[Forgery]]] = []  # a worker's own


def _start(forgeries: list[Forgery], folder: Path) -> None:
    mine = Path(tempfile.mkdtemp(dir=folder))
    _here.append((Bench(mine), forgeries))


def _try_one(number: int) -> Outcomes | None:
    bench, forgeries = _here[0]
    return tried(bench, forgeries[number])


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder in memory, where there is one: elsewhere each `fsync` takes its time."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="pipestream-forged-", dir=where)
    try:
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)  # also what Python finds too deep


def row(forgery: Forgery, outcomes: Outcomes | None) -> str:
    """A line of the table."""
    if outcomes is None:
        return f"{forgery.place:34} {forgery.kind:44} not possible here"
    told = "".join("." if o == "ok" else "r" if is_fine(o) else "X" for o in outcomes.values())
    lines = [f"{forgery.place:34} {forgery.kind:44} {told}"]
    lines += [f"    {step}: {o}" for step, o in outcomes.items() if not is_fine(o)]
    return "\n".join(lines)


def main() -> int:
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    forgeries = [f for f in corpus() if part in f"{f.place} {f.kind}"]
    counted: Counter[str] = Counter()
    sys.stdout.write(f"a dot is `ok`, r `refused`; the steps are: {', '.join(STEPS)}\n")
    with scratch() as folder:
        for forgery, outcomes in all_tried(forgeries, folder):
            sys.stdout.write(row(forgery, outcomes) + "\n")
            counted["forgeries" if outcomes else "not possible here"] += 1
            for outcome in (outcomes or {}).values():
                counted["steps"] += 1
                counted[outcome.split()[0] if is_fine(outcome) else "WRONG"] += 1
    sys.stdout.write(", ".join(f"{n} {what}" for what, n in counted.items()) + "\n")
    return 1 if counted["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
