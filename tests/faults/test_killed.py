"""Killed at any system call, a dataset is wholly as before or wholly as after each commit."""

import os
import shutil
from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Run, Underfolder
from prefect_pipestream.underfolder.commits.apply import recover
from tests.faults import actions
from tests.faults.killing import Host, fresh, kill_everywhere
from tests.underfolder.conftest import contents, make_dataset, strays

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.timeout(900),
]


def settled(folder: Path) -> dict[str, bytes]:
    """The dataset as its next user finds it, with nothing left of the dead."""
    recover(os.fspath(folder))
    assert strays(folder) == []
    if (folder / ".pipestream/staged").exists():
        assert list((folder / ".pipestream/staged").iterdir()) == []
    return contents(folder)


def after(template: Path, scratch: Path, *names: str) -> dict[str, bytes]:
    """The dataset after actions that nobody disturbed."""
    fresh(template, scratch / "undisturbed")
    for name in names:
        getattr(actions, name)(scratch / "undisturbed")
    return contents(scratch / "undisturbed")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "template")


@pytest.mark.slow
@pytest.mark.parametrize("action", ["set_one", "set_one_durably"])
def test_a_killed_write_is_whole_or_nothing(action: str, template: Path, tmp_path: Path) -> None:
    old, new = contents(template), after(template, tmp_path, action)
    seen = set()

    def verify(folder: Path) -> None:
        found = settled(folder)
        assert found in (old, new)
        seen.add(found == new)
        assert bool(Run.of(folder, actions.RUN).outcomes()) == (found == new)

    kills = kill_everywhere(action, template, tmp_path, verify)
    print(f"{action}: {kills} kills")
    assert kills > 20
    assert seen == {True, False}


@pytest.mark.slow
def test_a_killed_chunk_goes_on_and_applies_each_sample_once(
    template: Path, tmp_path: Path
) -> None:
    old, new = contents(template), after(template, tmp_path, "add_to_labels")

    def verify(folder: Path) -> None:
        found = settled(folder)
        done = Run.of(folder, actions.RUN).outcomes()
        for idx in range(6):
            names = [name for name in new if f"/{idx:06d}_" in name]
            wanted = new if idx in done else old
            assert {n: found[n] for n in names} == {n: wanted[n] for n in names}
        actions.add_to_labels(folder)
        assert settled(folder) == new
        assert {record.outcome for record in Run.of(folder, actions.RUN).outcomes().values()} == {
            "written"
        }

    kills = kill_everywhere("add_to_labels", template, tmp_path, verify)
    print(f"add_to_labels: {kills} kills")
    assert kills > 40


@pytest.mark.slow
def test_killed_recovery_is_recovered(template: Path, tmp_path: Path) -> None:
    new = after(template, tmp_path, "set_one")
    pending = tmp_path / "pending"
    fresh(template, pending)
    host = Host()
    try:
        # the third rename is the first of a staged file: the record is logged, nothing applied
        assert host.run("set_one", pending, "rename:signal=SIGKILL:when=3") == -9
    finally:
        host.close()
    assert len(list((pending / ".pipestream/log").iterdir())) == 1

    def verify(folder: Path) -> None:
        assert settled(folder) == new
        assert Run.of(folder, actions.RUN).outcomes()[2].outcome == "written"

    kills = kill_everywhere("recover_it", pending, tmp_path, verify)
    print(f"recover: {kills} kills")
    assert kills > 10


@pytest.mark.slow
def test_a_killed_undo_is_finished_by_the_next(template: Path, tmp_path: Path) -> None:
    old = contents(template)
    done = tmp_path / "done"
    fresh(template, done)
    actions.add_to_labels(done)
    new = contents(done)

    def verify(folder: Path) -> None:
        found = settled(folder)
        for idx in range(6):
            names = [name for name in new if f"/{idx:06d}_" in name]
            assert any({n: found[n] for n in names} == {n: s[n] for n in names} for s in (old, new))
        if found != old:
            actions.undo(folder)
        assert settled(folder) == old

    kills = kill_everywhere("undo", done, tmp_path, verify)
    print(f"undo: {kills} kills")
    assert kills > 40


@pytest.mark.slow
def test_a_killed_creation_is_gone_on_with_by_its_run(template: Path, tmp_path: Path) -> None:
    fresh(template, tmp_path / "undisturbed")
    actions.create(tmp_path / "undisturbed")
    wanted = contents(tmp_path / "undisturbed/new")

    def verify(folder: Path) -> None:
        actions.create(folder)
        assert settled(folder / "new") == wanted
        assert len(Underfolder(folder / "new")) == 6

    kills = kill_everywhere("create", template, tmp_path, verify)
    print(f"create: {kills} kills")
    assert kills > 40
