"""Whatever call fails, and wherever it is killed: nothing torn, lost, done twice or left behind."""

import random
from collections.abc import Iterator

import pytest

from tests.faults.campaign import FAULTS, Calls, Campaign, Table, Task, tasks_of
from tests.faults.cases import CASES
from tests.faults.injecting import compiler

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler, or this is no Linux"),
    pytest.mark.timeout(900),
]

_PLAIN = ("set, durable", "undo", "rollback", "creation", "check and fix", "review rejected")
_BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with Campaign(tmp_path_factory.mktemp("faults")) as campaign:
        yield campaign


@pytest.fixture(scope="module")
def calls(campaign: Campaign) -> Calls:
    return campaign.calls(_PLAIN)


def problems_of(campaign: Campaign, tasks: list[Task]) -> tuple[Table, list[str]]:
    table, problems = Table(), []
    campaign.run(tasks, lambda task, answer: problems.extend(table.add(task, answer)))
    print("\n".join(table.lines()))
    return table, problems


# What each of these found: a call by its name and a part of its path, that fails or is the last.
FOUND = [
    # the system's own error escaped, instead of the one that led to the cleaning up
    ("set, durable", "changing: EROFS from there on", "close", "000002_extra.txt"),
    # said to be as it was, and applied by the next writer
    ("set, durable", "changing: EIO", "fsync", "/log"),
    # said to be as it was, and done
    ("set, durable", "changing: EIO", "fsync", "/done/main"),
    # the staged files were discarded, the commit logged: what it superseded was removed
    ("undo", "changing: EIO, though it was done", "rename", "/record.json"),
    # taken back, and the kept files left in the ledger
    ("set, durable", "changing: EIO", "rename", "/log/"),
    # left half written, and never removed
    ("set, durable", "killed at a changing call", "rename", ".new"),
    ("undo", "killed at a changing call", "write", "/packing-"),
    ("undo", "killed at a changing call", "unlink", "/undoing.json"),
    ("creation", "killed at a changing call", "mkdir", "/.new."),
    ("check and fix", "killed at a changing call", "unlink", "/undoing.json"),
    ("review rejected", "changing: EPERM", "rmdir", "/staged/review-"),
    ("rollback", "killed at a changing call", "unlink", "/dropped/"),
]


@pytest.mark.parametrize(("case", "fault", "name", "part"), FOUND)
def test_a_fault_that_was_found_once(
    campaign: Campaign, calls: Calls, case: str, fault: str, name: str, part: str
) -> None:
    made = calls[case]["changed"]
    at = [n for n, call in enumerate(made, 1) if call.startswith(f"{name} /") and part in call]
    assert at, (name, part, made)
    table, problems = problems_of(campaign, [Task(case, _BY_NAME[fault], at[-1])])
    assert problems == []
    assert table.endings.keys() <= {"error", "killed", "ok"}


def test_some_faults_do_no_harm(campaign: Campaign, calls: Calls) -> None:
    tasks = random.Random(1).sample(tasks_of(calls), 24)
    table, problems = problems_of(campaign, tasks)
    assert problems == []
    assert table.runs.total() == 24


@pytest.mark.slow
@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_faults_in_each_action_do_no_harm(campaign: Campaign, case: str) -> None:
    """Some twenty of each action; `benchmarks/faults.py` tries thousands."""
    tasks = tasks_of(campaign.calls([case]))
    table, problems = problems_of(campaign, random.Random(2).sample(tasks, min(20, len(tasks))))
    assert problems == []
    assert len(table.endings) > 1
