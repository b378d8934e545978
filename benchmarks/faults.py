"""Calls that fail and processes that are killed, thousands of them, and what became of the data."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from _report import figure, parser, temporary_folder

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.campaign import Campaign, Table, Task, tasks_of
from tests.faults.cases import CASES


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--most", type=int, default=None, help="how many; all when not given")
    options.add_argument("--case", action="append", help="an action; all when not given")
    options.add_argument("--workers", type=int, default=None, help="processes; one a core")
    given = options.parse_args()
    names = [case.name for case in CASES if given.case is None or case.name in given.case]
    table = Table()
    began = time.monotonic()
    with (
        temporary_folder(given.temporary_folder) as folder,
        Campaign(folder, given.workers) as campaign,
    ):
        calls = campaign.calls(names)
        tasks = tasks_of(calls)
        if given.most is not None and given.most < len(tasks):
            order = {task: number for number, task in enumerate(tasks)}
            tasks = sorted(random.Random(0).sample(tasks, given.most), key=order.__getitem__)
        for name, made in calls.items():
            asked, changed = len(made["asked"]), len(made["changed"])
            print(f"{name:<24} {asked:>5} calls ask, {changed:>4} change", flush=True)

        def note(task: Task, answer: dict[str, object]) -> None:
            for line in table.add(task, answer):
                print(line, file=sys.stderr, flush=True)
            if table.runs.total() % 500 == 0:
                print(f"{table.runs.total():,} of {len(tasks):,}", file=sys.stderr, flush=True)

        campaign.run(tasks, note)
    print("\n".join(table.lines()))
    endings = ", ".join(f"{n:,} {ending}" for ending, n in sorted(table.endings.items()))
    print(f"\n{table.runs.total():,} faults in {time.monotonic() - began:.0f} s: {endings}")
    figure("faults, of all kinds and at all actions", table.runs.total(), "tried", 0)
    figure("problems found", sum(table.problems.values()), "", 0)
    return 1 if table.problems else 0


if __name__ == "__main__":
    sys.exit(main())
