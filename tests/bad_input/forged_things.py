"""Forgeries of what is at a place: links, pipes, devices, folders for files and the reverse."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .forged_trial import Forgery

Thing = Callable[[Path, Path], object]
"""Makes a thing at a path at which there is nothing, given the victim's folder."""

PRIVATE = ".pipestream"
FILES = [
    *("lock", "ledger.lock", "journal", "journal.new", "claim.json", "staged/*.alive"),
    *("staged/*/1/010_image.png", "staged/*/1/undo/010_image.png", "log/*.json"),
    *("runs/first/run.json", "runs/first/attempt.json", "runs/first/undoing.json"),
    *("runs/first/done/main/*.json", "runs/first/undo/*/000_image.png"),
    *("runs/packed/compact-1/samples.npz", "runs/packed/compact-1/files.jsonl.gz"),
    *("runs/packed/compact-1/failures.jsonl.gz", "runs/dropping/dropped/*"),
    *("runs/half/undoing.json", "runs/undone~undone-*/run.json", "runs/undo%3Aundone/run.json"),
    *(
        "plans/plan.npz",
        "seen/f.npz",
        "review/review/review.json",
        "review/review/staged/000_image.png",
    ),
    *("thumbnails/*/*", "review/late/review.json", "../camera.yaml", "../data/000_image.png"),
]
FOLDERS = [
    *(
        "../.pipestream",
        "staged",
        "staged/*-????????",
        "staged/*/1",
        "staged/*/1/undo",
        "log",
        "runs",
    ),
    *("runs/first", "runs/first/done", "runs/first/done/main", "runs/first/undo"),
    *("runs/first/undo/*", "runs/packed/compact-1", "runs/packed/compact-2"),
    *("runs/first/dropped", "runs/dropping/dropped", "runs/undone~undone-*", "seen", "aside"),
    *(
        "aside/*",
        "plans",
        "thumbnails",
        "thumbnails/*",
        "review",
        "review/review",
        "review/review/staged",
        "review/late",
        "../data",
    ),
    "../data/stray",
]


def things() -> Iterator[Forgery]:
    """Each thing in each place of a file, and of a folder."""
    for places, made in ((FILES, _FOR_FILES), (FOLDERS, _FOR_FOLDERS)):
        for place in places:
            for kind, make in made.items():
                forge = partial(_put, place, make)
                yield Forgery(place, kind, forge, secret_is_in=kind.startswith("hard link"))


def places(dataset: Path, pattern: str) -> list[Path]:
    """The places of a pattern below the private folder; one without a wildcard may be empty."""
    private = dataset / PRIVATE
    if "*" not in pattern:
        return [private / pattern]
    found = sorted(private.glob(pattern))
    if not found:
        raise AssertionError(f"the dataset has no {pattern}")
    return found


def _put(pattern: str, make: Thing, dataset: Path, victim: Path) -> None:
    for path in places(dataset, pattern):
        path = Path(os.path.normpath(path))
        if path.is_dir() and not path.is_symlink():
            _empty(path)
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, victim)
        if pattern == "journal.new":  # which is written where the journal has grown
            path.with_suffix("").write_bytes(b"\n" * 2_000_000)


def _empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


# -- things --------------------------------------------------------------------------------


def _link(target: str, path: Path, victim: Path) -> None:
    os.symlink(target.format(victim=victim, parent=victim.parent), path)


def _relative_link(target: str, path: Path, victim: Path) -> None:
    os.symlink(os.path.relpath(victim / target, path.parent), path)


def _loop(path: Path, victim: Path) -> None:
    os.symlink(path.name, path)


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, victim: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
        os.close(here)


def _device(path: Path, victim: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def _folder(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "a.json").write_text("{}")


def _content(content: bytes, path: Path, victim: Path) -> None:
    path.write_bytes(content)


def _sparse(size: int, path: Path, victim: Path) -> None:
    path.touch()
    os.truncate(path, size)


def _hard_link(path: Path, victim: Path) -> None:
    os.link(victim / "secret.txt", path)


def _deep(path: Path, victim: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    path.mkdir()
    os.chdir(path)
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
        os.close(here)


def _many_links(path: Path, victim: Path) -> None:
    path.mkdir()
    for name in ("1", "main", "secret.txt", "run.json", "000_image.png", "inner", "staged", "undo"):
        os.symlink(victim / name, path / name)


def _odd_names(path: Path, victim: Path) -> None:
    path.mkdir()
    for name in (b"\xff\xfe", b"a\nb.json", b"\xff.json", b" ", b"-rf", b"\x1b[2J", b"x" * 250):
        Path(os.fsdecode(os.fsencode(path) + b"/" + name)).write_text("{}")
    for name in (b"\xff~undone-1", b"compact-1", b"compact-" + b"9" * 240, b"~undone-"):
        Path(os.fsdecode(os.fsencode(path) + b"/" + name)).mkdir()


_ANYWHERE: dict[str, Thing] = {
    "link to a file": partial(_link, "{victim}/secret.txt"),
    "link to a folder": partial(_link, "{victim}"),
    "relative link to a file": partial(_relative_link, "secret.txt"),
    "relative link to a folder": partial(_relative_link, "inner"),
    "link to nowhere": partial(_link, "{victim}/new"),
    "link in a circle": _loop,
    "link to the parent": partial(_link, "{parent}"),
    "link to /dev/zero": partial(_link, "/dev/zero"),
    "pipe": _fifo,
    "socket": _socket,
    "device": _device,
    "hard link to a file": _hard_link,
    "empty file": partial(_content, b""),
}
_FOR_FILES: dict[str, Thing] = {
    **_ANYWHERE,
    "folder": _folder,
    "rubbish": partial(_content, b"\0\xff\x80" * 500),
    "file of 2 GiB": partial(_sparse, 1 << 31),
    "file of 1 TiB": partial(_sparse, 1 << 40),
    "file of 200 MiB": partial(_sparse, 200 << 20),
}
_FOR_FOLDERS: dict[str, Thing] = {
    **_ANYWHERE,
    "folder of links": _many_links,
    "folder of odd names": _odd_names,
    "1500 folders deep": _deep,
}
