"""One thing done with one forged dataset: in a process of its own, within limits, and watched."""

import hashlib
import json
import os
import resource
import select
import signal
import stat
import subprocess
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .forged_steps import STEPS, carried_out
from .forged_template import SECRET, make_template, make_victim

LIMIT_S = 60  # for all that a step does; alone on a machine, the longest takes some seconds
MEMORY = 3 << 30  # of the address space, beyond what the tests have when a step begins

Forge = Callable[[Path, Path], object]
"""Makes a forgery of a dataset, given its folder and that of the victim."""


@dataclass(frozen=True)
class Forgery:
    """A dataset that somebody made to do harm.

    Attributes:
        place: Where it is forged.
        kind: How.
        forge: Does it; a `NotImplementedError` or an `OSError` says that it is not possible here.
        secret_is_in: Whether the secret is in the dataset from the start.
        steps: The steps that may come upon it; none is all.
    """

    place: str
    kind: str
    forge: Forge
    secret_is_in: bool = False
    steps: tuple[str, ...] = ()


class Bench:
    """A folder with a dataset to forge and a victim beside it."""

    def __init__(self, folder: Path) -> None:
        self._template = make_template(folder / "template" / "dataset").parent
        make_victim(self._template / "victim")
        self.parent = folder / "bench"
        self.dataset = self.parent / "dataset"
        for step in STEPS:  # what is imported now need not be in each child
            self.forge(Forgery("nowhere", "none", lambda dataset, victim: None))
            carried_out(step, self.dataset)

    def forge(self, forgery: Forgery) -> None:
        """Puts a forged copy of the dataset in place of the last one."""
        if self.parent.exists():
            subprocess.run(["rm", "-rf", str(self.parent)], check=True)
        subprocess.run(["cp", "-a", str(self._template), str(self.parent)], check=True)
        forgery.forge(self.dataset, self.parent / "victim")

    def trial(self, forgery: Forgery, step: str) -> str:
        """What comes of a step: ``ok``, ``refused``, or, loudly, what must not be."""
        self.forge(forgery)
        return self.watched(
            lambda: carried_out(step, self.dataset), secret_is_in=forgery.secret_is_in
        )

    def watched(self, act: Callable[[], list[str]], *, secret_is_in: bool = False) -> str:
        """What comes of something that is done with the dataset."""
        before = manifest(self.parent, links=not secret_is_in)
        outcome = bounded(act)
        after = manifest(self.parent, links=not secret_is_in)
        changed = sorted(n for n in before | after if before.get(n) != after.get(n))
        if changed:
            return f"CHANGED {', '.join(changed[:3])} ({outcome})"
        if not secret_is_in and (told := holding_secret(self.dataset)):
            return f"COPIED the secret to {told} ({outcome})"
        return outcome


def manifest(parent: Path, *, links: bool) -> dict[str, tuple[object, ...]]:
    """All that is beside the dataset: kinds, modes, sizes, times, contents, numbers of links."""
    found: dict[str, tuple[object, ...]] = {}
    for where, folders, names in os.walk(parent):
        if where == str(parent):
            folders.remove("dataset")
        for name in [*folders, *names, "."]:
            path = os.path.join(where, name)
            if path == f"{parent}/.":
                found["."] = tuple(sorted(os.listdir(parent)))
                continue
            status = os.lstat(path)
            entry: tuple[object, ...] = (status.st_mode, status.st_uid, status.st_mtime_ns)
            if stat.S_ISREG(status.st_mode):
                content = hashlib.blake2b(Path(path).read_bytes()).digest()
                entry += (content, status.st_nlink if links else 0)
            found[os.path.relpath(path, parent)] = entry
    return found


def holding_secret(dataset: Path) -> str | None:
    """The first file of the dataset that has the victim's secret in it."""
    folders = [str(dataset)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and _has_secret(entry.path):
                    return os.path.relpath(entry.path, dataset)
    return None


def _has_secret(path: str) -> bool:
    if os.path.getsize(path) > 1 << 20:
        return False
    with open(path, "rb") as file:
        return SECRET in file.read()


def bounded(act: Callable[[], list[str]], limit_s: float = LIMIT_S) -> str:
    """Does something in a forked process, with limits on its time and memory."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _as_child(act, write_end)
    os.close(write_end)
    try:
        if not select.select([read_end], [], [], limit_s)[0]:
            os.kill(pid, signal.SIGKILL)
            return "HANGS"
        with open(read_end, "rb", closefd=False) as answer:
            text = answer.read()
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(read_end)
    if not text:
        return f"ENDED with status {status}"
    answered: str = json.loads(text)
    return answered


def _address_space() -> int:
    """The bytes that this process has of it, from Linux' ``proc(5)``."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _as_child(act: Callable[[], list[str]], write_end: int) -> None:
    """Never returns."""
    try:
        limit = _address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        refused = act()
        answer = f"refused {len(refused)}" if refused else "ok"
    except BaseException as error:  # noqa: BLE001 # whatever it is, the test looks at it
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "pipestream" in f.filename]
        where = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else last.name
        answer = f"RAISED {type(error).__name__} at {where}: {error!s:.100}"
    try:
        os.write(write_end, json.dumps(answer).encode())
    finally:
        os._exit(0)
