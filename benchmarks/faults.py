"""Calls that fail and processes that are killed, thousands of them, and what became of the data."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from _report import parser, temporary_folder

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.campaign import Campaign, Table, Task, tasks_of
from tests.faults.cases import CASES


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--most", type=int, default=None, help="how many; all when not given")
    options.add_argument("--case", action="append", help="an action; all when not given")
    options.add_argument("--workers", type=int, default=None, help="processes; one a core")
    options.add_argument("--details", type=int, default=40, help="how many failures to show")
    given = options.parse_args()
    names = [case.name for case in CASES if given.case is None or case.name in given.case]
    table = Table()
    began = time.monotonic()
    with temporary_folder(given.temporary_folder) as folder, Campaign(folder, given.workers) as all_:
        calls = all_.calls(names)
        tasks = tasks_of(calls)
        if given.most is not None and given.most < len(tasks):
            order = {task: number for number, task in enumerate(tasks)}
            tasks = sorted(random.Random(0).sample(tasks, given.most), key=order.__getitem__)
        for name, numbers in calls.items():
            print(f"{name:<24} {numbers['asked']:>5} calls ask, {numbers['changed']:>4} change")

        def note(task: Task, answer: dict[str, object]) -> None:
            table.add(task, answer)
            if table.runs.total() % 1000 == 0:
                print(f"{table.runs.total():,} of {len(tasks):,}", file=sys.stderr, flush=True)

        all_.run(tasks, note)
    print("\n".join(table.lines()))
    endings = ", ".join(f"{n:,} {ending}" for ending, n in sorted(table.endings.items()))
    print(f"\n{table.runs.total():,} faults in {time.monotonic() - began:.0f} s: {endings}")
    print("\n".join(table.details[: given.details]))
    return 1 if table.details else 0


if __name__ == "__main__":
    sys.exit(main())
