"""The git checkout that a file or folder is in: its commit, and whether it is clean."""

import os
import re
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

from prefect_pipestream.storage.asking import is_there

LIMIT_S = 3.0
"""How long git may take to answer one question: it is left unanswered then."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_INSTALLED = {"site-packages", "dist-packages"}
# No program that the checkout's own settings name is run, and nothing in it is locked.
_GIT = (
    "git",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
)
_KEPT_APART = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A git checkout as it was.

    Attributes:
        commit: The commit that is checked out, in hexadecimal digits.
        is_clean: Whether the files that git tracks are those of the commit; None where it took
            too long to say.
        folder: The checkout's folder.
    """

    commit: str
    is_clean: bool | None
    folder: str


def is_commit(value: object) -> bool:
    """Whether a value is the full name of a commit."""
    return isinstance(value, str) and _COMMIT.fullmatch(value) is not None


def checkout_of(
    paths: Iterable[str], apart: Iterable[str] = (), limit_s: float = LIMIT_S
) -> Checkout | None:
    """The checkout that files or folders are in.

    A file counts for a change that is not committed where git does not track it. What was
    installed is in no checkout, though its environment may be in one.

    Args:
        paths: The files or folders. Of several checkouts, it is that of the first one.
        apart: Folders of strangers: a checkout in one does not count, as its settings may name
            programs that git is to run.
        limit_s: How long git may take to answer one question, in seconds.

    Returns:
        The checkout; None where there is none, or it cannot be told: no git, no commit yet, a
        checkout of another user, a git that does not answer in time.
    """
    try:
        folder, inside = _root_of(paths, [PurePath(os.path.realpath(one)) for one in apart])
        answer = folder and _answer(folder, limit_s, "rev-parse", "--verify", "HEAD")
    except OSError:  # neither git nor the folders above could be asked
        return None
    commit = (answer or "").strip()
    if folder is None or not is_commit(commit):
        return None
    return Checkout(commit, _is_clean(folder, inside, limit_s), folder)


def _root_of(paths: Iterable[str], apart: list[PurePath]) -> tuple[str | None, list[str]]:
    """The innermost folder with a ``.git`` of the first path in one, and which paths are in it."""
    root, inside = None, []
    for path in dict.fromkeys(map(os.path.realpath, paths)):
        pure = PurePath(path)
        if _INSTALLED.isdisjoint(pure.parts):
            around = (one for one in (pure, *pure.parents) if is_there(str(one / ".git")))
            found = next(around, None)
            if found is not None and any(found.is_relative_to(one) for one in apart):
                continue
            root = root or found
            if found is not None and found == root:
                inside.append(path)
    return None if root is None else str(root), inside


def _is_clean(folder: str, inside: Iterable[str], limit_s: float) -> bool | None:
    try:
        changes = _answer(folder, limit_s, "status", "--porcelain", "--untracked-files=no")
        if changes is None or changes:
            return None if changes is None else False
        files = [path for path in inside if not os.path.isdir(path)]
        tracked = _answer(folder, limit_s, "ls-files", "-z", "--", *files) if files else ""
    except OSError:
        return None
    return None if tracked is None else tracked.count("\0") == len(files)


def _answer(folder: str, limit_s: float, *question: str) -> str | None:
    """What git answers; None where it refuses, or takes too long.

    Raises:
        OSError: If it cannot be started.
    """
    surroundings = {name: text for name, text in os.environ.items() if name not in _KEPT_APART}
    git = subprocess.Popen(
        [*_GIT, "-C", folder, *question],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=surroundings,
        start_new_session=True,
    )
    try:
        answer, _ = git.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _stop(git)
        return None
    except BaseException:
        _stop(git)
        raise
    return answer.decode(errors="replace") if git.returncode == 0 else None


def _stop(git: "subprocess.Popen[bytes]") -> None:
    """Kills git and what it started; one that waits for a disk is not waited for."""
    with suppress(ProcessLookupError):
        os.killpg(git.pid, signal.SIGKILL)
    if git.stdout is not None:
        git.stdout.close()
    with suppress(subprocess.TimeoutExpired):
        git.wait(timeout=0.2)
