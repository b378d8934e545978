"""Whatever call fails, and wherever it is killed: nothing torn, lost, done twice or left behind."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import FAULTS, Calls, Campaign, Table, Task, tasks_of
from tests.faults.cases import CASES
from tests.faults.injecting import compiler

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler, or this is no Linux"),
    pytest.mark.timeout(900),
]

_PLAIN = (
    *("set, durable", "undo", "rollback", "creation", "check and fix", "review rejected"),
    *("review accepted", "images listed"),
)
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
    # what could not be read was put aside as damaged
    ("check and fix", "asking: EIO", "read", "/compact-1/samples.npz"),
    ("check and fix", "asking: EIO", "read", "/000003_label.txt"),
    # what could not be read was taken for another writer's change, and the decision was lost
    ("review accepted", "asking: EIO", "fstat", "/000001_label.txt"),
    # what could not be listed was passed over
    ("images listed", "asking: EIO", "opendir", "/dataset/data"),
    # removed in part, and then neither a review nor gone
    ("review rejected", "changing: EPERM", "rmdir", "/staged/review-"),
    ("rollback", "killed at a changing call", "unlink", "/dropped/"),
]


@pytest.mark.parametrize(("case", "fault", "name", "part"), FOUND)
def test_a_fault_that_was_found_once(
    campaign: Campaign, calls: Calls, case: str, fault: str, name: str, part: str
) -> None:
    made = calls[case]["asked" if fault.startswith("asking") else "changed"]
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


# -- the same by strace --------------------------------------------------------------------

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

_AT_SYSTEM = {"stat": "newfstatat", "lstat": "newfstatat", "fstatat": "newfstatat"}
_AT_SYSTEM |= {"open": "openat", "pread": "pread64", "futimens": "utimensat"}
"""What the calls of the C library are, where the system calls them otherwise."""
_COMPARED = (
    *("newfstatat", "readlink", "read", "pread64", "flock", "openat", "rename", "link", "linkat"),
    *("symlink", "unlink", "unlinkat", "mkdir", "rmdir", "chmod", "fchmod", "utimensat", "write"),
    *("fsync", "ftruncate"),
)


@needs_strace
@pytest.mark.parametrize("case", ["set, durable", "undo"])
def test_every_system_call_is_counted(
    campaign: Campaign, calls: Calls, case: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    traced = "trace=" + ",".join(_COMPARED)
    answer = campaign.traced(case, "-y", "-s", "0", "-e", traced, "-o", str(log))
    assert answer["problems"] == []

    names = [call.split()[0] for call in answer["calls"]]
    counted = Counter(_AT_SYSTEM.get(name, name) for name in names)
    counted["openat"] += counted["opendir"]
    counted["newfstatat"] += counted["fstat"]
    folders = counted["opendir"] + counted["fdopendir"]  # each is asked for once more, if there
    lines = [line.partition(" ")[2].strip() for line in log.read_text().splitlines()]
    below = [line for line in lines if re.search(r"/case-\d+/", line.partition(" = ")[0])]
    seen = Counter(line.partition("(")[0] for line in below)
    assert 0 <= seen.pop("newfstatat") - counted.pop("newfstatat") <= folders
    assert {name: seen[name] for name in _COMPARED} == {name: counted[name] for name in _COMPARED}


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ESTALE"])
@pytest.mark.parametrize("case", ["set, durable", "undo", "rollback", "check and fix"])
def test_failing_system_calls_do_no_harm(campaign: Campaign, case: str, error: str) -> None:
    """Some paths that the action asks for, each at the first time and at the second."""
    asked = [call.split() for call in campaign.calls([case])[case]["asked"]]
    paths = sorted({path for name, path in asked if name in ("stat", "lstat")})
    for path in random.Random(3).sample(paths, 6):
        for when in (1, 2):
            inject = f"inject=newfstatat:error={error}:when={when}"
            answer = campaign.traced(case, "-P", f"FOLDER{path}", "-e", inject, "-o", "/dev/null")
            assert answer["problems"] == [], (path, when)
            assert answer["outcome"] in ("ok", "error")
