"""Ctrl-C at any moment of reading a private file is Ctrl-C, and not a file that is not there."""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.storage.lock import Liveness
from prefect_pipestream.storage.untrusted import read_json
from prefect_pipestream.underfolder.format.index import UnderfolderIndex
from prefect_pipestream.underfolder.format.journal import Journal


def _came_to(moment: int, work: Callable[[], Any]) -> bool:
    """Interrupts some work at its n-th call or return; says whether it came to that many."""
    seen = 0

    def look(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen >= moment


@pytest.mark.parametrize("what", ["journal", "json"])
def test_an_interruption_is_never_taken_for_a_file_that_cannot_be_read(
    what: str, tmp_path: Path
) -> None:
    path = tmp_path / "private"
    path.write_text('[[[1,["1_image.png"],[]]],1,2]\n' if what == "journal" else "{}")

    def work() -> object:
        if what == "json":
            return read_json(str(path))
        return Journal(str(path)).fold_into(UnderfolderIndex(), 1)

    for moment in count(1):
        try:
            assert not _came_to(moment, work), f"interrupted at moment {moment}, it went on"
        except KeyboardInterrupt:
            continue
        break
    assert moment > 10


def test_a_lock_that_is_let_go_of_is_closed_once(tmp_path: Path) -> None:
    alive = Liveness(str(tmp_path / "alive"))
    alive.close()
    with open(tmp_path / "alive", "rb") as file:  # has the number that the lock had
        alive.close()
        file.read()
