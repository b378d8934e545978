"""Real calls that fail, or at which the process is killed: the C library's, in a forked child.

A process that has `injected.c` loaded in front of the C library forks a child for each action, and
says before at which of the child's calls below a folder what is to happen.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect_pipestream.errors import PipestreamError

LIBRARY = "PIPESTREAM_TESTS_INJECTED"
ASK, CHANGE = 1, 2
NOTHING, ERROR_INSTEAD, KILL_BEFORE, KILL_AFTER, ERROR_AFTER = range(5)
_LONGEST_S = 60
_EVER = 1 << 40


def compiler() -> str | None:
    """The C compiler, where there is one and the platform can load before the C library."""
    return shutil.which("cc") if sys.platform == "linux" else None


def build(folder: Path) -> Path:
    """Compiles the library."""
    library = folder / "injected.so"
    source = Path(__file__).with_name("injected.c")
    options = ["-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run([str(compiler()), *options], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """What happens at a call.

    Attributes:
        name: Its name in the table.
        kinds: The calls that count: those that ask, that change, or both.
        action: What happens.
        error: The error of the call.
        lasts: Whether it happens at all calls from there on.
        killed_later: After how many more calls the process is killed; 0 is never.
        again: Whether the same process repeats the action at once.
    """

    name: str
    kinds: int
    action: int
    error: int = 0
    lasts: bool = False
    killed_later: int = 0
    again: bool = False


@dataclass(frozen=True)
class Ending:
    """How an action ended.

    Attributes:
        outcome: ``ok``, ``error`` (a `PipestreamError`), ``killed`` or ``foreign``.
        message: The error's type and text.
        call: The call at which the fault happened, and its path; empty: it did not.
        asked, changed: How many calls of each kind were made.
    """

    outcome: str
    message: str
    call: str
    asked: int
    changed: int


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ[LIBRARY])
    arguments = [ctypes.c_char_p, *[ctypes.c_int] * 3, *[ctypes.c_long] * 3, ctypes.c_int]
    library.faults_arm.argtypes = arguments
    for name in ("asked", "changed", "hits"):
        getattr(library, f"faults_{name}").restype = ctypes.c_long
    for name in ("name", "path"):
        getattr(library, f"faults_{name}").restype = ctypes.c_char_p
    return library


def run(
    action: Callable[[], None],
    folder: Path,
    fault: Fault | None = None,
    number: int = 0,
    log: int = -1,
    traced: Sequence[str] = (),
) -> Ending:
    """Runs an action in a child; `fault` happens at the call of this number below `folder`.

    With options for `strace` in `traced`, the child runs under it.
    """
    library = _library()
    what = fault or Fault("", ASK | CHANGE, NOTHING)
    last = _EVER if what.lasts else number
    read_end, write_end = os.pipe()
    wait_end, go_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(_LONGEST_S)
        os.close(read_end)
        os.close(go_end)
        os.read(wait_end, 1)
        root = f"{folder}/".encode()
        library.faults_arm(
            root, what.kinds, what.action, what.error, number, last, what.killed_later, log
        )
        ending = _ended(action)
        library.faults_disarm()
        if what.again and ending != "ok":
            ending = _ended(action)
        os.write(write_end, ending.encode(errors="replace")[:60_000])
        os._exit(0)
    os.close(write_end)
    os.close(wait_end)
    tracer = _attached(child, traced) if traced else None
    os.close(go_end)
    with open(read_end, "rb") as pipe:
        text = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if tracer is not None:
        tracer.communicate()
    library.faults_disarm()
    outcome, _, message = text.partition(" ")
    if status == -signal.SIGKILL:
        outcome = "killed"
    elif status != 0:
        outcome, message = "foreign", f"the process ended with {status}"
    call = f"{library.faults_name().decode()} {library.faults_path().decode()}"
    return Ending(
        outcome,
        message,
        call if library.faults_hits() else "",
        library.faults_asked(),
        library.faults_changed(),
    )


def _attached(child: int, options: Sequence[str]) -> subprocess.Popen[str]:
    """Lets strace follow a child that waits."""
    command = ["strace", "-f", "-p", str(child), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, said
    return tracer


def _ended(action: Callable[[], None]) -> str:
    try:
        action()
    except PipestreamError as error:
        return f"error {type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 # this child may not return into its parent
        import traceback

        return f"foreign {type(error).__name__}: {error}\n{traceback.format_exc()}"
    return "ok"


def calls_of(
    action: Callable[[], None], folder: Path, traced: Sequence[str] = ()
) -> tuple[Ending, list[tuple[int, str]]]:
    """Runs an action undisturbed: its calls below the folder, each by its kind, name and path."""
    with open(folder.with_name(f"{folder.name}-calls"), "wb+") as log:
        ending = run(action, folder, log=log.fileno(), traced=traced)
        log.seek(0)
        lines = [line.decode().rstrip("\n").partition(" ") for line in log]
    return ending, [(int(kind), call.replace(str(folder), "")) for kind, _, call in lines]


def kill_in_commit(action: Callable[[], None], folder: Path, renames: int) -> None:
    """Kills an action when it has logged a commit and made so many renames more."""
    backup = folder.with_name(folder.name + "-as-it-was")
    copy_tree(folder, backup)
    calls = calls_of(action, folder)[1]
    changes = [call for kind, call in calls if kind == CHANGE]
    numbers = [number for number, call in enumerate(changes, 1) if call.startswith("rename ")]
    logged = [number for number in numbers if changes[number - 1].endswith("/record.json")]
    shutil.rmtree(folder)
    os.rename(backup, folder)
    at = numbers[numbers.index(logged[0]) + 1 + renames]
    assert run(action, folder, Fault("", CHANGE, KILL_BEFORE), at).outcome == "killed"


def copy_tree(source: Path, target: Path, linked: dict[int, Path] | None = None) -> None:
    """Copies a folder with its times, modes and the hard links in it."""
    linked = {} if linked is None else linked
    target.mkdir()
    for entry in os.scandir(source):
        status, path = entry.stat(follow_symlinks=False), target / entry.name
        if entry.is_dir(follow_symlinks=False):
            copy_tree(Path(entry.path), path, linked)
        elif status.st_ino in linked:
            os.link(linked[status.st_ino], path, follow_symlinks=False)
        else:
            linked[status.st_ino] = path
            shutil.copy2(entry.path, path, follow_symlinks=False)
    shutil.copystat(source, target)
