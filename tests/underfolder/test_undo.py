import gzip
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DatasetWriteError,
    RunNotFoundError,
    RunTakenOverError,
    UndoRefusedError,
)
from prefect_pipestream.items import (
    BinaryItem,
    Item,
    JpegImageItem,
    JsonMetadataItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import (
    UnderfolderWriter,
    check,
    list_runs,
    prune_runs,
    undo_run,
)
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from prefect_pipestream.underfolder.runs import undo
from tests.dataset_files import (
    Files,
    beside,
    files_outside_private,
    made_at,
    temporary_place,
)

from .conftest import contents, ended, make_dataset, run_of, strays, taken_back


def image(value: int = 255) -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), value, dtype=np.uint8))


def jpeg(value: int = 255) -> JpegImageItem:
    return JpegImageItem(np.full((4, 5, 3), value, dtype=np.uint8))


def writer_of(folder: Place, run_key: str) -> UnderfolderWriter:
    return open_writer(folder, exists_ok=True, run_key=run_key)


def write(folder: Place, run_key: str, idx: int, **items: Item[object]) -> None:
    writer_of(folder, run_key).write(idx, items)


def states(folder: Place) -> dict[str, str]:
    return {run.run_key: run.state for run in list_runs(folder)}


def entries(folder: Place) -> dict[str, Any]:
    """Every public file with its content; in a folder, its modification time or where it links."""
    if is_address(folder):
        return contents(folder)
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes(),
            path.lstat().st_mtime_ns,
        )
        for path in files_outside_private(Path(folder))
    }


def a_run(folder: Place, run_key: str = "k") -> None:
    """Replaces, adds, and supersedes items; adds a sample and a shared item."""
    writer = writer_of(folder, run_key)
    writer.write(1, {"image": image(), "note": JsonMetadataItem({"a": 1})})
    writer.write(2, {"image": jpeg()})
    writer.write(2, {"image": jpeg(9), "extra": YamlMetadataItem({"x": 1}, shared=True)})
    writer.write(8, {"image": image()})


# -- undo ----------------------------------------------------------------------------------


def test_an_undone_run_has_never_been(dataset: Place) -> None:
    before = entries(dataset)
    a_run(dataset)
    assert entries(dataset) != before
    report = undo_run(dataset, "k")
    assert entries(dataset) == before
    assert strays(dataset) == []
    assert (report.run_key, report.undo_run_key) == ("k", "undo:k")
    assert (report.samples, report.files) == (3, 6)
    assert report.overwritten == report.left == ()


def test_an_undone_run_starts_afresh_under_its_key(dataset: Place) -> None:
    a_run(dataset)
    undo_run(dataset, "k")
    assert run_of(dataset, "k").done_indices() == set()
    assert states(dataset) == {"k": "undone", "undo:k": "finished"}
    write(dataset, "k", 3, image=image())
    assert run_of(dataset, "k").done_indices() == {3}
    assert [run.state for run in list_runs(dataset) if run.run_key == "k"] == ["undone", "edited"]


def test_an_undone_or_unknown_run_cannot_be_undone(dataset: Place) -> None:
    a_run(dataset)
    undo_run(dataset, "k")
    with pytest.raises(RunNotFoundError, match=r"'k' was undone already, at \d{4}-"):
        undo_run(dataset, "k")
    with pytest.raises(RunNotFoundError, match=r"no run 'K'.*'undo:k'"):
        undo_run(dataset, "K")
    with pytest.raises(DatasetNotFoundError):
        undo_run(dataset / "missing", "k")
    with pytest.raises(RunNotFoundError, match=r"no run 'k'\. Its runs: none"):
        undo_run(made_at(beside(dataset, "untouched"), make_dataset), "k")


def test_an_undo_is_undone_and_then_the_run_counts_again(dataset: Place) -> None:
    before = entries(dataset)
    a_run(dataset)
    after, done = entries(dataset), run_of(dataset, "k").outcomes()
    undo_run(dataset, "k")
    undo_run(dataset, "undo:k")
    assert entries(dataset) == after
    assert run_of(dataset, "k").outcomes() == done
    assert states(dataset)["k"] == "edited"
    undo_run(dataset, "undo:undo:k")
    assert entries(dataset) == before
    assert states(dataset)["k"] == "undone"
    undo_run(dataset, "undo:k")
    undo_run(dataset, "k")
    assert entries(dataset) == before


def test_a_second_undo_of_a_key_is_a_run_of_its_own(dataset: Place) -> None:
    before = entries(dataset)
    a_run(dataset)
    undo_run(dataset, "k")
    write(dataset, "k", 4, label=TxtNumpyItem(np.array([99])))
    second = entries(dataset)
    report = undo_run(dataset, "k")
    assert report.undo_run_key == "undo:k#2"
    assert entries(dataset) == before
    undo_run(dataset, "undo:k#2")
    assert entries(dataset) == second


def test_a_new_run_of_the_key_stays_where_the_old_one_cannot_come_back(dataset: Place) -> None:
    write(dataset, "k", 0, image=image())
    undo_run(dataset, "k")
    write(dataset, "k", 1, image=image())
    undo_run(dataset, "undo:k")  # the old run does not come back: the new one has its key
    old = prune_runs(dataset, larger_than=0, keep_last=2)
    assert [(run.run_key, run.state) for run in old] == [("k", "undone")]
    undo_run(dataset, "undo:undo:k")  # which takes the old run back again, and it alone
    assert run_of(dataset, "k").done_indices() == {1}
    assert undo_run(dataset, "k").samples == 1


def test_a_packed_run_is_undone_as_well(dataset: Place) -> None:
    before = entries(dataset)
    a_run(dataset)
    ended(dataset, "k")
    write(dataset, "k", 5, label=TxtNumpyItem(np.array([99])))
    undo_run(dataset, "k")
    assert entries(dataset) == before


def test_runs_are_undone_in_reverse_or_refused(dataset: Place) -> None:
    before = entries(dataset)
    write(dataset, "one", 1, image=image(10))
    between = entries(dataset)
    write(dataset, "two", 1, image=image(20))
    with pytest.raises(UndoRefusedError):
        undo_run(dataset, "one")
    undo_run(dataset, "two")
    assert entries(dataset) == between
    undo_run(dataset, "one")
    assert entries(dataset) == before


def test_runs_on_other_samples_are_left_alone(dataset: Place) -> None:
    write(dataset, "one", 1, image=image(10))
    write(dataset, "two", 2, image=image(20))
    undo_run(dataset, "one")
    reader = open_dataset(dataset)
    assert [reader.read(idx)["image"]().mean() for idx in (1, 2)] == [1, 20]


def test_a_created_dataset_is_emptied(dataset: Place) -> None:
    source, new = open_dataset(dataset), beside(dataset, "new")
    writer = open_writer(new, run_key="k", length=lambda: 6)
    for idx in range(6):
        writer.write(idx, source.read(idx))
    before = contents(dataset)
    undo_run(new, "k")
    assert contents(new) == {}
    assert contents(dataset) == before
    assert len(open_dataset(new)) == 0


@pytest.mark.about_files
def test_an_undo_breaks_no_hard_link_of_others(dataset: Path, tmp_path: Path) -> None:
    a_run(dataset)
    other = tmp_path / "other.png"
    os.link(dataset / "data/000001_image.png", other)
    text = other.read_bytes()
    undo_run(dataset, "k")
    assert other.read_bytes() == text


@pytest.mark.parametrize("target", ["../../elsewhere.txt", "/nowhere/at/all.txt"])
@pytest.mark.about_files
def test_symbolic_links_are_put_back_as_they_were(dataset: Path, target: str) -> None:
    (dataset.parent / "elsewhere.txt").write_text("5\n")
    link = dataset / "data/000001_label.txt"
    link.unlink()
    link.symlink_to(target)
    before = entries(dataset)
    write(dataset, "k", 1, label=TxtNumpyItem(np.array([1])))
    after = entries(dataset)
    undo_run(dataset, "k")
    assert entries(dataset) == before
    undo_run(dataset, "undo:k")
    assert entries(dataset) == after
    undo_run(dataset, "k")
    assert entries(dataset) == before


def test_readers_and_writers_that_are_open_see_the_undo(dataset: Place) -> None:
    reader = open_dataset(dataset, watch=True)
    writer = open_writer(dataset, exists_ok=True, run_key="k", dataset=reader)
    _, origin = reader.take(2)
    writer.write(2, {"image": jpeg(100), "more": image()}, origin=origin)
    undo_run(dataset, "k")
    assert reader.read(2)["image"]().mean() == 2
    assert "more" not in reader.read(2)
    writer.write(2, {"label": TxtNumpyItem(np.array([7]))})
    assert set(run_of(dataset, "k").outcomes()) == {2}


# -- refused -------------------------------------------------------------------------------


def rewrite(files: Files) -> None:
    files["data/000001_image.png"] = b"mine"


def rewrite_alike(files: Files) -> None:
    """Of the same size, in place."""
    files["data/000001_image.png"] = bytes(len(files["data/000001_image.png"]))


def delete(files: Files) -> None:
    del files["data/000001_image.png"]


def change_the_format(files: Files) -> None:
    del files["data/000002_image.jpeg"]
    files["data/000002_image.bmp"] = b"mine"


def add_another_format(files: Files) -> None:
    files["data/000002_image.bmp"] = b"mine"


CHANGES = [rewrite, rewrite_alike, delete, change_the_format, add_another_format]


def skip_what_a_bucket_does_not_tell(change: Callable[[Files], None], place: Place) -> None:
    if is_address(place) and change in (delete, change_the_format):
        pytest.skip("a file removed around the log may be one that was not put in place yet")


@pytest.mark.parametrize("change", CHANGES)
def test_where_someone_changed_a_sample_since_nothing_is_undone(
    change: Callable[[Files], None], dataset: Place
) -> None:
    skip_what_a_bucket_does_not_tell(change, dataset)
    a_run(dataset)
    change(Files(dataset))
    before = entries(dataset)
    with pytest.raises(UndoRefusedError, match=r"changed since: [12] \(.*image.*force") as caught:
        undo_run(dataset, "k")
    assert caught.value.indices in ([1], [2])
    assert caught.value.files
    assert entries(dataset) == before
    assert strays(dataset) == []
    assert states(dataset) == {"k": "edited"}
    assert 1 in run_of(dataset, "k").done_indices()


@pytest.mark.parametrize("change", CHANGES)
def test_by_force_all_is_undone_and_what_was_there_is_kept(
    change: Callable[[Files], None], dataset: Place
) -> None:
    skip_what_a_bucket_does_not_tell(change, dataset)
    before = entries(dataset)
    a_run(dataset)
    change(Files(dataset))
    changed = entries(dataset)
    report = undo_run(dataset, "k", force=True)
    assert entries(dataset) == before
    assert report.overwritten
    undo_run(dataset, report.undo_run_key)
    assert entries(dataset) == changed


def test_a_shared_item_that_was_changed_since_is_left(dataset: Place) -> None:
    before = contents(dataset)
    a_run(dataset)
    Files(dataset)["extra.yaml"] = b"mine: 1\n"
    report = undo_run(dataset, "k")
    assert report.left == ("/extra.yaml",)
    assert contents(dataset) == before | {"extra.yaml": b"mine: 1\n"}


def test_a_shared_item_of_another_format_is_left_when_the_undo_is_undone(dataset: Place) -> None:
    a_run(dataset)
    undo_run(dataset, "k")
    Files(dataset)["extra.json"] = b"{}"
    report = undo_run(dataset, "undo:k")
    assert report.left == ("/extra.yaml",)
    assert "extra.yaml" not in Files(dataset)
    assert open_dataset(dataset).read(1)["extra"]() == {}


@pytest.mark.filterwarnings("ignore:.*the shared item:UserWarning")
def test_a_shared_item_that_was_there_is_not_the_runs(dataset: Place) -> None:
    before = contents(dataset)
    write(dataset, "k", 0, common=YamlMetadataItem({"other": 1}, shared=True), note=image())
    undo_run(dataset, "k")
    assert contents(dataset) == before


@pytest.mark.about_files
def test_without_the_kept_files_nothing_is_undone(dataset: Path) -> None:
    a_run(dataset)
    kept = next((dataset / ".pipestream/runs/k/undo").rglob("*_image.png"))
    kept.unlink()
    before = entries(dataset)
    with pytest.raises(DatasetError, match=kept.name):
        undo_run(dataset, "k", force=True)
    assert entries(dataset) == before


@pytest.mark.about_files
def test_a_run_of_another_process_is_not_undone_while_it_runs(dataset: Path) -> None:
    code = (
        "import sys; from tests.underfolder.test_undo import *; from pathlib import Path\n"
        "writer = writer_of(Path(sys.argv[1]), 'k'); writer.write(1, {'image': image()})\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(dataset)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    try:
        assert states(dataset) == {"k": "running"}
        with pytest.raises(UndoRefusedError, match=f"still being written, by process {other.pid}"):
            undo_run(dataset, "k")
        undo_run(dataset, "k", force=True)
    finally:
        other.communicate()
    assert open_dataset(dataset).read(1)["image"]().mean() == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone who may not write")
def test_a_dataset_that_may_not_be_written_is_not_undone() -> None:
    code = (
        "import os, sys; from prefect_pipestream.underfolder import undo_run\n"
        "from prefect_pipestream.errors import DatasetWriteError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: undo_run(sys.argv[1], 'k')\n"
        "except DatasetWriteError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        folder = make_dataset(Path(scratch) / "dataset")
        a_run(folder)
        before = entries(folder)
        command = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Permission denied" in done.stdout, done.stderr
        assert entries(folder) == before


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.about_files
def test_a_ledger_that_names_files_elsewhere_is_refused(dataset: Path, packed: bool) -> None:
    precious = dataset.parent / "precious.png"
    precious.write_bytes(b"mine")
    a_run(dataset)
    run = dataset / ".pipestream/runs/k"
    if packed:
        ended(dataset, "k")
        files = run / "compact-1/files.jsonl.gz"
        text = gzip.decompress(files.read_bytes())
        files.write_bytes(gzip.compress(text.replace(b"000008_image.png", b"../../precious.png")))
    else:
        for path in (run / "done").rglob("*.json"):
            text = path.read_bytes()
            path.write_bytes(text.replace(b"000008_image.png", b"../../precious.png"))
    before = entries(dataset)
    with pytest.raises(DatasetError, match="names"):
        undo_run(dataset, "k", force=True)
    assert entries(dataset) == before
    assert precious.read_bytes() == b"mine"


# -- half undone ---------------------------------------------------------------------------


def test_of_two_undos_at_once_one_does_it(dataset: Place) -> None:
    before = entries(dataset)
    a_run(dataset)
    results: list[object] = []

    def undo() -> None:
        try:
            results.append(undo_run(dataset, "k").samples)
        except RunNotFoundError:
            results.append("not found")

    threads = [threading.Thread(target=undo) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["3", "not found", "not found", "not found"]
    assert entries(dataset) == before


@pytest.mark.about_files
def test_a_half_undone_run_is_not_gone_on_with(dataset: Path) -> None:
    a_run(dataset)
    (dataset / ".pipestream/runs/k/undoing.json").write_text(
        '{"undo": "undo:k", "runs": {"k": "k~undone-20300101T000000"}}'
    )
    assert states(dataset) == {"k": "undoing"}
    with pytest.raises(DatasetError, match="undo_run"):
        run_of(dataset, "k").done_indices()
    undo_run(dataset, "k")
    assert run_of(dataset, "k").done_indices() == set()


# -- single commits ------------------------------------------------------------------------


def two_parts(folder: Place) -> None:
    writer = writer_of(folder, "k")
    for tag, indices in (("a", (0, 1)), ("b", (2, 3))):
        with writer.batch(tag=tag) as group:
            for idx in indices:
                group.set_output(idx, {"image": jpeg(50), "new": image()})


@pytest.mark.parametrize("packed", [False, True])
def test_a_part_of_a_run_is_taken_back(dataset: Place, packed: bool) -> None:
    before = entries(dataset)
    two_parts(dataset)
    after = entries(dataset)
    if packed:
        ended(dataset, "k")
    report = taken_back(dataset, "k", tag="a")
    assert (report.samples, report.files, report.undo_run_key) == (2, 6, "rollback:k")
    found = entries(dataset)
    for idx, state in ((0, before), (1, before), (2, after), (3, after)):
        part = f"data/{idx:06d}_"
        assert {n: v for n, v in found.items() if n.startswith(part)} == {
            n: v for n, v in state.items() if n.startswith(part)
        }
    assert run_of(dataset, "k").done_indices() == {2, 3}
    assert run_of(dataset, "k").done_indices("a") == set()
    if not is_address(dataset):
        run = Path(dataset) / ".pipestream/runs/k"
        assert list(run.glob("dropped/*")) == []
        assert len(list((run / "undo").iterdir())) == 1
    undo_run(dataset, "k")
    assert entries(dataset) == before


def test_commits_are_taken_back_by_their_ids(dataset: Place) -> None:
    a_run(dataset)
    last = list(run_of(dataset, "k").commits())[-1]
    taken_back(dataset, "k", [last.id])
    assert run_of(dataset, "k").done_indices() == {1, 2}
    assert taken_back(dataset, "k", [last.id]).files == 0
    assert taken_back(dataset, "none", [last.id]).files == 0


def test_a_commit_that_a_later_one_wrote_over_is_not_taken_back(dataset: Place) -> None:
    write(dataset, "k", 1, image=image(10), label=TxtNumpyItem(np.array([5])))
    write(dataset, "k", 1, image=image(20))
    first, second = run_of(dataset, "k").commits()
    before = entries(dataset)
    with pytest.raises(UndoRefusedError, match="000001_image"):
        taken_back(dataset, "k", [first.id])
    assert entries(dataset) == before
    taken_back(dataset, "k", [first.id, second.id])
    assert open_dataset(dataset).read(1)["image"]().mean() == 1
    assert run_of(dataset, "k").outcomes() == {}


def test_commits_of_outcomes_alone_are_taken_back(dataset: Place) -> None:
    with writer_of(dataset, "k").batch(tag="a") as group:
        group.record(3, "skipped")
    assert run_of(dataset, "k").done_indices() == {3}
    taken_back(dataset, "k", tag="a")
    assert run_of(dataset, "k").done_indices() == set()


def test_the_run_goes_on_after_a_rollback(dataset: Place) -> None:
    writer = writer_of(dataset, "k")
    with writer.batch(tag="a") as group:
        group.set_output(1, {"image": image(10)})
    taken_back(dataset, "k", tag="a")
    with writer.batch(tag="a") as group:
        group.set_output(1, {"image": image(20)})
    assert open_dataset(dataset).read(1)["image"]().mean() == 20
    assert run_of(dataset, "k").done_indices("a") == {1}
    taken_back(dataset, "k", tag="a")
    assert open_dataset(dataset).read(1)["image"]().mean() == 1


def touch_all(paths: list[Path]) -> None:
    for path in paths:
        path.touch()


def test_a_rollback_that_meets_no_room_leaves_all_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs the right to")
    try:
        make_dataset(folder)
        two_parts(folder)
        before = entries(folder)
        filler = [folder / f".filler{number}" for number in range(400)]
        with pytest.raises(OSError, match="No space"):
            touch_all(filler)
        with pytest.raises(DatasetWriteError):
            taken_back(folder, "k", tag="a")
        found = entries(folder)
        assert {name: value for name, value in found.items() if name[0] != "."} == before
        assert run_of(folder, "k").done_indices() == {0, 1, 2, 3}
        for path in filler:
            path.unlink(missing_ok=True)
        taken_back(folder, "k", tag="a")
        undo_run(folder, "k")
        assert open_dataset(folder).read(1)["image"]().mean() == 1
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- any order of commits ------------------------------------------------------------------

KEYS = ("image", "note")


def items_of(kind: int, value: int) -> dict[str, Item[object]]:
    made = [
        lambda: {"image": image(value)},
        lambda: {"image": jpeg(value)},
        lambda: {"note": BinaryItem(bytes([value] * 5))},
        lambda: {"image": image(value), "note": JsonMetadataItem(value)},
        lambda: {"note": BinaryItem(b""), f"shared{value % 2}": JsonMetadataItem(1, shared=True)},
    ]
    return made[kind]()  # type: ignore[return-value]


writes = st.tuples(st.integers(0, 7), st.integers(0, 4), st.integers(0, 255))
groups = st.lists(writes, min_size=1, max_size=4)
runs = st.lists(st.tuples(st.lists(groups, min_size=1, max_size=3), st.booleans()), max_size=4)
Runs = list[tuple[list[list[tuple[int, int, int]]], bool]]


@pytest.mark.filterwarnings("ignore:.*the shared item:UserWarning")
@settings(deadline=None, max_examples=20)
@given(runs=runs)
def test_any_runs_undone_in_reverse_restore_every_byte(runs: Runs) -> None:
    undo_in_reverse("folder", runs)


@pytest.mark.filterwarnings("ignore:.*the shared item:UserWarning")
@settings(deadline=None, max_examples=4)
@given(runs=runs)
def test_any_runs_undone_in_reverse_restore_every_byte_in_a_bucket(runs: Runs) -> None:
    undo_in_reverse("bucket", runs)


def undo_in_reverse(kind: str, runs: Runs) -> None:
    with temporary_place(kind) as folder:
        made_at(folder, make_dataset, length=4)
        seen = [entries(folder)]
        for number, (commits, is_packed) in enumerate(runs):
            writer = writer_of(folder, f"run {number}")
            for commit in commits:
                with writer.batch() as group:
                    for idx, kind, value in commit:
                        group.set_output(idx, items_of(kind, value))
            if is_packed:
                ended(folder, f"run {number}")
            seen.append(entries(folder))
        for number in reversed(range(len(runs))):
            assert entries(folder) == seen.pop()
            undo_run(folder, f"run {number}")
            assert entries(folder) == seen[-1]
            undo_run(folder, f"undo:run {number}")
            undo_run(folder, f"run {number}")
        assert entries(folder) == seen[0]
        assert strays(folder) == []


@pytest.mark.about_files
def test_a_run_that_could_not_be_noted_is_pruned_like_others(dataset: Path) -> None:
    """As one that began on a disk without a byte left."""
    a_run(dataset)
    (dataset / ".pipestream/runs/full/done").mkdir(parents=True)
    assert states(dataset)["full"] == "stopped"
    pruned = prune_runs(dataset, timedelta(0))
    assert {run.run_key for run in pruned} == {"k", "full"}
    assert list_runs(dataset) == []


# -- while the run is on -------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.about_files
def test_nothing_is_committed_to_a_run_that_is_being_undone(
    dataset: Path, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, planned = contents(dataset), undo.checked_plan
    a_run(dataset)
    others = [writer_of(dataset, "k"), writer_of(dataset, "other")]

    def while_it_is_planned(*args: Any) -> Any:
        plan = planned(*args)
        with pytest.raises(RunTakenOverError, match="is being undone"):
            others[0].write(3, {"image": image(9)})
        others[1].write(4, {"image": image(9)})
        return plan

    monkeypatch.setattr(undo, "checked_plan", while_it_is_planned)
    undo_run(dataset, "k", force=force)
    monkeypatch.undo()
    undo_run(dataset, "other")
    assert contents(dataset) == before


def test_an_undo_that_is_refused_lets_the_run_go_on(dataset: Place) -> None:
    a_run(dataset)
    write(dataset, "later", 1, image=image(7))
    with pytest.raises(UndoRefusedError):
        undo_run(dataset, "k")
    write(dataset, "k", 3, image=image(9))
    assert states(dataset)["k"] == "edited"
    assert 3 in run_of(dataset, "k").done_indices()


def test_an_attempt_whose_run_was_undone_stops(dataset: Place) -> None:
    before = contents(dataset)
    stream = DataStream.read_write_underfolder(dataset, run_key="k").for_attempt()
    stream.begin_run(fingerprint="f")
    stream.set_output(1, stream[1].set_value("image", 255 - stream[1]["image"]()))
    undo_run(dataset, "k", force=True)
    with pytest.raises(RunTakenOverError, match="was undone while it was on"):
        stream.set_output(2, stream[2].set_value("image", 255 - stream[2]["image"]()))
    assert contents(dataset) == before
    again = DataStream.read_write_underfolder(dataset, run_key="k").for_attempt()
    again.begin_run(fingerprint="f")
    again.set_output(2, again[2].set_value("image", 255 - again[2]["image"]()))
    assert run_of(dataset, "k").done_indices() == {2}


# -- a ledger that is damaged --------------------------------------------------------------


@pytest.mark.parametrize("lines", [0, 1])
@pytest.mark.about_files
def test_a_run_whose_files_are_not_all_known_is_not_undone(dataset: Path, lines: int) -> None:
    a_run(dataset)
    write(dataset, "k", 3, image=image(9))
    ended(dataset, "k")
    after = contents(dataset)
    path = dataset / ".pipestream/runs/k/compact-1/files.jsonl.gz"
    kept = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:lines]
    path.write_bytes(gzip.compress(b"".join(kept)))
    with pytest.raises(DatasetError, match="does not say which files"):
        undo_run(dataset, "k")
    assert [problem.kind for problem in check(dataset, fix=True).problems] == ["unreadable-record"]
    with pytest.raises(DatasetError, match="its ledger lacks"):
        undo_run(dataset, "k")
    assert contents(dataset) == after
    assert states(dataset)["k"] == "finished"


@pytest.mark.parametrize("name", ["samples.npz", "files.jsonl.gz", "failures.jsonl.gz"])
@pytest.mark.about_files
def test_a_packed_ledger_that_lacks_a_file_is_found(dataset: Path, name: str) -> None:
    a_run(dataset)
    ended(dataset, "k")
    (dataset / ".pipestream/runs/k/compact-1" / name).unlink()
    with pytest.raises(DatasetError, match=f"{name}: this file of a ledger is missing"):
        undo_run(dataset, "k")
    problems = check(dataset, fix=True).problems
    assert [(problem.kind, problem.mended) for problem in problems] == [("unreadable-record", True)]
    assert name in problems[0].message
    assert [run.run_key for run in list_runs(dataset)] == ["k"]
