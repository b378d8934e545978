"""The process behind `campaign.Worker`: runs cases with faults, and says what came of them."""

import gc
import json
import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.cases import CASES, Case, pristine
from tests.faults.injecting import ASK, CHANGE, Fault, calls_of, copy_tree, run
from tests.faults.verdict import Expected, contents, exact, judge

BY_NAME = {case.name: case for case in CASES}


def prepare(case: Case, templates: Path, scratch: Path) -> dict[str, list[str]]:
    """Makes what the case finds, and notes what it leads to undisturbed, and by which calls."""
    number = CASES.index(case)
    template = templates / str(number)
    model = templates / f"pristine-{number}"
    for folder in (model, template):
        folder.mkdir()
    pristine(model)
    case.prepare(template)
    before, prepared = contents(template / case.target), exact(template / case.target)
    copy_tree(template, scratch)
    ending, calls = calls_of(lambda: case.act(scratch), scratch)
    assert ending.outcome == "ok", (case.name, ending)
    expected = Expected(
        before,
        contents(scratch / case.target),
        exact(model / "dataset"),
        prepared,
        exact(model / "twin"),
    )
    found = judge(case, scratch, ending, expected)
    assert not found, (case.name, found)
    shutil.rmtree(scratch)
    (templates / f"{number}.pickle").write_bytes(pickle.dumps(expected))
    return {
        "asked": [call for kind, call in calls if kind == ASK],
        "changed": [call for kind, call in calls if kind == CHANGE],
    }


def attempt(
    case: Case,
    fault: Fault | None,
    at: int,
    templates: Path,
    scratch: Path,
    known: dict[str, Expected],
    traced: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs a case once, a fault at its call of this number, or under strace."""
    number = CASES.index(case)
    if case.name not in known:
        known[case.name] = pickle.loads((templates / f"{number}.pickle").read_bytes())
    copy_tree(templates / str(number), scratch)
    if fault is None:
        ending, calls = calls_of(lambda: case.act(scratch), scratch, traced)
    else:
        ending, calls = run(lambda: case.act(scratch), scratch, fault, at), []
    problems = judge(case, scratch, ending, known[case.name])
    shutil.rmtree(scratch)
    return {
        "outcome": ending.outcome,
        "message": ending.message,
        "call": ending.call.replace(str(scratch), ""),
        "problems": problems,
        "calls": [call for _, call in calls],
    }


def main() -> None:
    warnings.simplefilter("ignore")
    gc.freeze()  # what is imported is not looked through after each case
    templates, scratch = (Path(os.path.realpath(path)) for path in sys.argv[1:])
    known: dict[str, Expected] = {}
    answer: dict[str, Any]
    for line in sys.stdin:
        asked = json.loads(line)
        case = BY_NAME[asked["case"]]
        shutil.rmtree(scratch, ignore_errors=True)
        if "fault" in asked:
            fault = Fault(**asked["fault"])
            answer = attempt(case, fault, asked["at"], templates, scratch, known)
        elif "traced" in asked:
            options = [option.replace("FOLDER", str(scratch)) for option in asked["traced"]]
            answer = attempt(case, None, 0, templates, scratch, known, options)
        else:
            answer = prepare(case, templates, scratch)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
