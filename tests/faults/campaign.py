"""Many faults, in several processes at once, and a table of what came of them."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from errno import EACCES, EDQUOT, EIO, ENOSPC, EPERM, EROFS, ESTALE
from pathlib import Path
from typing import Any

from tests.faults.injecting import (
    ASK,
    CHANGE,
    ERROR_AFTER,
    ERROR_INSTEAD,
    KILL_AFTER,
    KILL_BEFORE,
    LIBRARY,
    Fault,
    build,
)
from tests.faults.verdict import KINDS

FAULTS = [
    Fault("asking: EIO", ASK, ERROR_INSTEAD, EIO),
    Fault("asking: ESTALE, repeated at once", ASK, ERROR_INSTEAD, ESTALE, again=True),
    Fault("asking: EIO from there on", ASK, ERROR_INSTEAD, EIO, lasts=True),
    Fault("changing: EIO", CHANGE, ERROR_INSTEAD, EIO),
    Fault("changing: ENOSPC, repeated at once", CHANGE, ERROR_INSTEAD, ENOSPC, again=True),
    Fault("changing: EACCES", CHANGE, ERROR_INSTEAD, EACCES),
    Fault("changing: EPERM", CHANGE, ERROR_INSTEAD, EPERM),
    Fault("changing: EDQUOT from there on", CHANGE, ERROR_INSTEAD, EDQUOT, lasts=True),
    Fault("changing: EROFS from there on", CHANGE, ERROR_INSTEAD, EROFS, lasts=True),
    Fault("changing: EIO, though it was done", CHANGE, ERROR_AFTER, EIO),
    *(
        Fault(
            f"changing: EIO, killed {calls} calls later", CHANGE, ERROR_INSTEAD, EIO, False, calls
        )
        for calls in (2, 5, 9)
    ),
    Fault("killed at an asking call", ASK, KILL_BEFORE),
    Fault("killed at a changing call", CHANGE, KILL_BEFORE),
    Fault("killed after it, or half way in a write", CHANGE, KILL_AFTER),
]


Calls = dict[str, dict[str, list[str]]]
"""The calls that ask and that change, in their order, by case: name and path of each."""


@dataclass(frozen=True)
class Task:
    """One fault at one call of one case."""

    case: str
    fault: Fault
    at: int


@dataclass
class Table:
    """How many faults there were, and what came of them, by case and fault."""

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    problems: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, task: Task, answer: dict[str, Any]) -> list[str]:
        """Counts the result of a task; gives a line for each problem."""
        cell = (task.case, task.fault.name)
        self.runs[cell] += 1
        self.endings[answer["outcome"]] += 1
        for kind in {kind for kind, _ in answer["problems"]}:
            self.problems[(*cell, kind)] += 1
        where = f"{task.case} · {task.fault.name} · number {task.at} {answer['call']}"
        first_of_each = dict(reversed(answer["problems"]))
        ending = f"{answer['outcome']} {answer['message']:.300}"
        return [f"{kind} · {where} · {ending} · {text}" for kind, text in first_of_each.items()]

    def lines(self) -> Iterator[str]:
        """The table, a line a case and fault, and the sums."""
        yield f"{'action':<24} {'fault':<42} {'number':>7}" + "".join(f"{k:>9}" for k in KINDS)
        for case, fault in self.runs:
            found = "".join(f"{self.problems[(case, fault, kind)]:>9}" for kind in KINDS)
            yield f"{case:<24} {fault:<42} {self.runs[(case, fault)]:>7,}{found}"
        sums = "".join(
            f"{sum(n for (*_, k), n in self.problems.items() if k == kind):>9}" for kind in KINDS
        )
        yield f"{'all':<24} {'':<42} {self.runs.total():>7,}{sums}"


class Worker:
    """A process with the library loaded, which runs cases."""

    def __init__(self, library: Path, templates: Path, scratch: Path) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(library), LIBRARY: str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.injecting_host", str(templates), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=environment,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the worker ended on {question}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate()


class Campaign:
    """Workers that share templates below a folder.

    Args:
        folder: An empty folder.
        workers: How many.
    """

    def __init__(self, folder: Path, workers: int | None = None) -> None:
        folder.joinpath("templates").mkdir()
        library = build(folder)
        self._workers = [
            Worker(library, folder / "templates", folder / f"case-{number}")
            for number in range(workers or os.cpu_count() or 1)
        ]
        self._free = threading.local()
        self._calls: Calls = {}

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *of: object) -> None:
        for worker in self._workers:
            worker.close()

    def _each(self, questions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answers in the order of the questions."""
        left = list(self._workers)

        def take() -> None:
            self._free.worker = left.pop()

        with ThreadPoolExecutor(len(self._workers), initializer=take) as pool:
            yield from pool.map(lambda question: self._free.worker.ask(**question), questions)

    def calls(self, cases: Iterable[str]) -> Calls:
        """Prepares cases: which calls of each kind each makes undisturbed."""
        names = list(cases)
        new = [name for name in names if name not in self._calls]
        self._calls |= zip(new, self._each({"case": name} for name in new), strict=True)
        return {name: self._calls[name] for name in names}

    def traced(self, case: str, *options: str) -> dict[str, Any]:
        """Runs a case that is prepared under strace; FOLDER in an option is its folder."""
        return next(iter(self._each([{"case": case, "traced": options}])))

    def run(self, tasks: Iterable[Task], on_result: Callable[[Task, dict[str, Any]], None]) -> None:
        """Runs tasks, of cases that are prepared."""
        chosen = list(tasks)
        questions = ({"case": t.case, "fault": asdict(t.fault), "at": t.at} for t in chosen)
        for task, answer in zip(chosen, self._each(questions), strict=True):
            on_result(task, answer)


def tasks_of(calls: Calls, faults: Iterable[Fault] = FAULTS) -> list[Task]:
    """Each fault at each call of each case."""
    return [
        Task(case, fault, at)
        for case, made in calls.items()
        for fault in faults
        for at in range(1, len(made["asked" if fault.kinds == ASK else "changed"]) + 1)
    ]
