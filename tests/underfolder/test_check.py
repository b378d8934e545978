import json
import os
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.cli import main
from prefect_pipestream.errors import DatasetNotFoundError
from prefect_pipestream.items import JpegImageItem, PickleItem, PngImageItem, TxtNumpyItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import (
    CheckReport,
    check,
    list_runs,
)
from prefect_pipestream.underfolder.opening import open_dataset, open_writer
from tests.dataset_files import Files, beside, content_of, has_private_files

from .conftest import contents, ended, run_of, strays


def white() -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), 255, dtype=np.uint8))


def kinds(report: CheckReport) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in report.problems))


def put_aside(place: Place) -> dict[str, bytes]:
    """What was put aside, by its path when it was in the way."""
    if is_address(place):
        store = open_store(Address.of(place))
        found = {s.key: store.read(s.key).data for s in store.objects_in(".pipestream/aside")}
    else:
        paths = (path for path in Path(place, ".pipestream/aside").rglob("*") if path.is_file())
        found = {str(path.relative_to(place)): path.read_bytes() for path in paths}
    return {name.split("/", 3)[3]: content for name, content in found.items()}


def put(place: Place, name: str, content: bytes, *, seconds: float = 0) -> None:
    """Puts a file there as another program does, some seconds after what is there."""
    Files(place)[name] = content
    if not is_address(place):  # an object's time is when it was put
        at = time.time() + seconds
        os.utime(Path(place, name), (at, at))


def die_in(folder: Place, code: str) -> None:
    """Runs code in a process that dies in the midst of it."""
    head = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from prefect_pipestream.items import *; from prefect_pipestream.underfolder import *\n"
        "folder = Path(sys.argv[1])\n"
        "white = PngImageItem(np.full((4, 5, 3), 255, dtype=np.uint8))\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code, str(folder)], check=False)
    assert done.returncode == 9


PENDING = """
from prefect_pipestream.underfolder.commits import apply
apply._apply = lambda *args: os._exit(9)
UnderfolderWriter(folder, exists_ok=True, run_key="k").write(2, {"image": white})
"""
STAGED = """
with UnderfolderWriter(folder, exists_ok=True, run_key="k").staging() as staging:
    staging.add(2, {"image": white})
    os._exit(9)
"""
HALF_UNDONE = """
from prefect_pipestream.underfolder.runs import undo
UnderfolderWriter(folder, exists_ok=True, run_key="k").write(2, {"image": white})
undo.publish_restored = lambda *args: os._exit(9)
undo_run(folder, "k")
"""


# -- nothing wrong -------------------------------------------------------------------------


def test_a_good_dataset_has_no_problem(dataset: Place) -> None:
    open_writer(dataset, exists_ok=True, run_key="k").write(9, {"image": white()})
    ended(dataset, "k")
    before = contents(dataset)
    for fix in (False, True):
        report = check(dataset, fix=fix)
        assert report.ok
        assert report.problems == ()
        assert (report.samples, report.items, report.unchecked) == (7, 20, {})
    assert contents(dataset) == before
    assert put_aside(dataset) == {}


def test_checking_leaves_no_trace(dataset: Place) -> None:
    check(dataset)
    check(dataset, fix=True)
    assert not has_private_files(dataset)
    with pytest.raises(DatasetNotFoundError):
        check(beside(dataset, "missing"))


def test_pickles_are_not_unpickled_and_unknown_formats_not_decoded(dataset: Place) -> None:
    objects = BytesIO()
    np.save(objects, np.array([{}], dtype=object))
    put(dataset, "data/000001_code.pkl", content_of(PickleItem(print)))
    put(dataset, "data/000002_objects.npy", objects.getvalue())
    put(dataset, "data/000003_notes.docx", b"?")
    report = check(dataset)
    assert report.problems == ()
    assert report.unchecked == {"pickle": 2, "unknown format": 1}


def test_progress_is_told(dataset: Place) -> None:
    seen: list[tuple[int, int]] = []
    check(dataset, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)


@pytest.mark.about_files
def test_a_folder_without_data_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "some_file.txt").write_text("1 2\n")

    (problem,) = check(tmp_path).problems

    assert (problem.kind, problem.file) == ("no-data", "data")


def test_a_gap_and_a_huge_index_are_no_problem(dataset: Place) -> None:
    put(dataset, "data/99999999999_image.png", content_of(white()))
    report = check(dataset)
    assert report.ok
    assert report.samples == 7


# -- content -------------------------------------------------------------------------------


def test_each_item_that_does_not_decode_is_named(dataset: Place) -> None:
    put(dataset, "data/000000_image.png", Files(dataset)["data/000000_image.png"][:30])
    put(dataset, "data/000001_label.txt", b"")
    put(dataset, "data/000002_metadata.yml", b"a: [")
    jpeg = JpegImageItem(np.zeros((4, 5, 3), np.uint8))
    put(dataset, "data/000003_image.png", content_of(jpeg))
    put(dataset, "common.yml", b"a: [")
    before = contents(dataset)
    report = check(dataset)
    found = [(problem.idx, problem.file) for problem in report.problems]
    assert found == [
        (None, "common.yml"),
        (0, "data/000000_image.png"),
        (1, "data/000001_label.txt"),
        (2, "data/000002_metadata.yml"),
        (3, "data/000003_image.png"),
    ]
    assert kinds(report) == {"undecodable": 5}
    assert all(problem.message and not problem.mended for problem in report.problems)
    assert not report.ok
    assert not check(dataset, fix=True).ok
    assert contents(dataset) == before


@pytest.mark.about_files
def test_a_broken_link_is_found(dataset: Path) -> None:
    path = dataset / "data/000001_image.png"
    path.unlink()
    path.symlink_to("nowhere.png")
    (problem,) = check(dataset, fix=True).problems
    assert (problem.kind, problem.idx, problem.mended) == ("broken-link", 1, False)
    assert "nowhere.png" in problem.message
    assert path.is_symlink()


@pytest.mark.about_files
def test_a_folder_in_the_place_of_an_item_is_found(dataset: Path) -> None:
    (dataset / "data/000001_image.png").unlink()
    (dataset / "data/000001_image.png").mkdir()
    (problem,) = check(dataset).problems
    assert (problem.kind, problem.idx) == ("undecodable", 1)


# -- names ---------------------------------------------------------------------------------


def test_stray_names_are_put_aside_and_never_deleted(dataset: Place) -> None:
    before = contents(dataset)
    put(dataset, "data/readme", b"hello")
    put(dataset, "data/12_noextension", b"x")
    put(dataset, "data/sub/file.txt", b"y")
    put(dataset, "data/.hidden", b"not ours")
    report = check(dataset)
    assert kinds(report) == {"stray": 3}
    assert not report.ok
    report = check(dataset, fix=True)
    assert report.ok
    assert all(".pipestream/aside/" in problem.remedy for problem in report.problems)
    assert contents(dataset) == before | {"data/.hidden": b"not ours"}
    assert put_aside(dataset) == {
        "data/readme": b"hello",
        "data/12_noextension": b"x",
        "data/sub/file.txt": b"y",
    }
    assert check(dataset).problems == ()


@pytest.mark.about_files
def test_what_an_interrupted_write_of_an_item_left_is_put_aside(dataset: Path) -> None:
    left = dataset / "data/.1234-0-000001_image.png"
    left.write_bytes(b"half")
    assert check(dataset, fix=True).problems == ()  # it may just be being written
    os.utime(left, (1, 1))
    assert kinds(check(dataset, fix=True)) == {"leftover": 1}
    assert put_aside(dataset) == {"data/.1234-0-000001_image.png": b"half"}


def test_of_duplicates_the_newest_is_kept(dataset: Place) -> None:
    text = Files(dataset)["data/000002_image.png"]
    put(dataset, "data/2_image.png", content_of(white()), seconds=9)
    report = check(dataset)
    assert [(p.kind, p.idx, p.file) for p in report.problems] == [
        ("duplicate", 2, "data/000002_image.png")
    ]
    assert check(dataset, fix=True).ok
    assert open_dataset(dataset).read(2)["image"]().mean() == 255
    assert put_aside(dataset) == {"data/000002_image.png": text}
    assert check(dataset).problems == ()


def test_of_duplicates_one_that_decodes_is_kept(dataset: Place) -> None:
    put(dataset, "data/000002_image.jpg", b"newer and broken", seconds=9)
    check(dataset, fix=True)
    assert open_dataset(dataset).read(2)["image"]().mean() == 2
    assert put_aside(dataset) == {"data/000002_image.jpg": b"newer and broken"}


def test_duplicate_shared_items_are_put_aside(dataset: Place) -> None:
    put(dataset, "common.json", b'{"newer": 1}', seconds=9)
    report = check(dataset, fix=True)
    assert kinds(report) == {"duplicate": 1}
    assert open_dataset(dataset).read(0)["common"]() == {"newer": 1}
    assert list(put_aside(dataset)) == ["common.yml"]


@pytest.mark.usefixtures("listed_at_once")
def test_a_writer_that_is_open_sees_what_was_put_aside(dataset: Place) -> None:
    reader = open_dataset(dataset, watch=True)
    writer = open_writer(dataset, exists_ok=True, dataset=reader)
    writer.write(1, {"image": white()})
    put(dataset, "data/1_image.png", b"broken")
    check(dataset, fix=True)
    writer.write(1, {"note": white()})
    assert set(reader.read(1)) == {"image", "label", "metadata", "note", "common"}


# -- what the dead left --------------------------------------------------------------------


@pytest.mark.about_files
def test_a_pending_commit_is_applied(dataset: Path) -> None:
    before = contents(dataset)
    die_in(dataset, PENDING)
    report = check(dataset)
    assert kinds(report) == {"pending": 1}
    assert "'k'" in report.problems[0].message
    assert contents(dataset) == before
    assert check(dataset, fix=True).ok
    assert open_dataset(dataset).read(2)["image"]().mean() == 255
    assert run_of(dataset, "k").outcomes()[2].outcome == "written"
    assert check(dataset).problems == ()


@pytest.mark.about_files
def test_a_dead_stage_is_swept(dataset: Path) -> None:
    before = contents(dataset)
    die_in(dataset, STAGED)
    assert kinds(check(dataset)) == {"dead-staging": 1}
    assert strays(dataset) != []
    assert check(dataset, fix=True).ok
    assert strays(dataset) == []
    assert contents(dataset) == before
    assert check(dataset).problems == ()


def test_the_stage_of_a_living_writer_is_left_alone(dataset: Place) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    with writer.staging() as staging:
        staging.add(2, {"image": white()})
        assert check(dataset, fix=True).problems == ()
        writer.publish(staging)
    assert open_dataset(dataset).read(2)["image"]().mean() == 255


@pytest.mark.about_files
def test_an_unreadable_pending_record_is_put_aside_with_its_files(dataset: Path) -> None:
    before = contents(dataset)
    die_in(dataset, PENDING)
    (record,) = (dataset / ".pipestream/log").glob("*.json")
    record.write_bytes(b"")
    report = check(dataset)
    assert kinds(report) == {"unreadable-record": 1, "dead-staging": 1}
    assert check(dataset, fix=True).ok
    assert contents(dataset) == before
    assert any(name.endswith("000002_image.png") for name in put_aside(dataset))
    open_writer(dataset, exists_ok=True).write(3, {"image": white()})
    assert check(dataset).problems == ()


@pytest.mark.about_files
def test_an_unreadable_record_of_a_run_is_put_aside(dataset: Path) -> None:
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    writer.write(1, {"image": white()})
    writer.write(2, {"image": white()})
    first, _ = sorted((dataset / ".pipestream/runs/k/done").rglob("*.json"))
    first.write_bytes(b"{")
    assert kinds(check(dataset)) == {"unreadable-record": 1}
    assert check(dataset, fix=True).ok
    assert run_of(dataset, "k").done_indices() == {2}
    ended(dataset, "k")
    packed = dataset / ".pipestream/runs/k/compact-1/files.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    assert kinds(check(dataset)) == {"unreadable-record": 1}
    assert check(dataset, fix=True).ok
    assert run_of(dataset, "k").done_indices() == set()
    assert check(dataset).problems == ()


@pytest.mark.about_files
def test_an_interrupted_undo_is_finished(dataset: Path) -> None:
    before = contents(dataset)
    die_in(dataset, HALF_UNDONE)
    assert kinds(check(dataset)) == {"half-undone": 1, "dead-staging": 1}
    assert check(dataset, fix=True).ok
    assert contents(dataset) == before
    assert {run.run_key: run.state for run in list_runs(dataset)} == {
        "k": "undone",
        "undo:k": "finished",
    }
    assert check(dataset).problems == ()


@pytest.mark.about_files
def test_an_interrupted_undo_that_must_be_refused_is_left(dataset: Path) -> None:
    die_in(dataset, HALF_UNDONE)
    (dataset / "data/000002_image.png").unlink()
    report = check(dataset, fix=True)
    (problem,) = [problem for problem in report.problems if problem.kind == "half-undone"]
    assert not problem.mended
    assert "000002_image.png" in problem.remedy


@pytest.mark.about_files
def test_what_an_interrupted_creation_left_beside_it_is_put_aside(dataset: Path) -> None:
    dead = dataset.parent / f".{dataset.name}.0123456789ab"
    (dead / ".pipestream").mkdir(parents=True)
    (dead / ".pipestream/claim.json").write_text("{}")
    other = dataset.parent / f".{dataset.name}.backup"
    other.mkdir()
    assert check(dataset).problems == ()  # it may just be being created
    long_ago = time.time() - 3600
    os.utime(dead, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    assert kinds(check(dataset)) == {"leftover": 1}
    assert check(dataset, fix=True).ok
    assert not dead.exists()
    assert other.exists()
    assert check(dataset).problems == ()


def test_checking_while_others_write_finds_nothing(dataset: Place) -> None:
    import threading

    stop = threading.Event()

    def write() -> None:
        writer = open_writer(dataset, exists_ok=True)
        number = 0
        while not stop.is_set():
            number += 1
            stop.wait(0.02 if is_address(dataset) else 0)  # each check reads all of a log
            image = JpegImageItem if number % 2 else PngImageItem
            writer.write(number % 6, {"image": image(np.full((4, 5, 3), 1, np.uint8))})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for fix in (False, True) * (3 if is_address(dataset) else 10):
            assert check(dataset, fix=fix).problems == ()
    finally:
        stop.set()
        thread.join()


# -- gaps ----------------------------------------------------------------------------------


def test_gaps_are_told_and_are_no_problem(
    dataset: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    assert check(dataset).gaps == ()
    stream.set_output(1000, stream[0])
    stream.remove(0)
    stream.remove(3)
    report = check(dataset, fix=True)
    assert report.ok
    assert report.problems == ()
    assert report.gaps == ((0, 0), (3, 3), (6, 999))
    assert main(["check", str(dataset)]) == 0
    assert "No samples 0, 3, 6-999. `pipestream compact` closes gaps." in capsys.readouterr().out
    assert main(["check", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gaps"] == [[0, 0], [3, 3], [6, 999]]
    assert main(["compact", str(dataset), "--run-key", "c"]) == 0
    shown = capsys.readouterr().out
    assert "5 of 5 samples moved: no gap is left." in shown
    assert "undo 'c'" in shown
    assert check(dataset).gaps == ()
    assert main(["compact", str(dataset)]) == 0
    assert "5 samples: there is no gap." in capsys.readouterr().out
    assert main(["compact", str(beside(dataset, "none")), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "DatasetNotFoundError"


def test_of_many_gaps_the_first_are_named(
    dataset: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    for idx in range(6, 40, 2):
        stream.set_output(idx + 1, Sample({"x": TxtNumpyItem([1])}))
    assert main(["check", str(dataset)]) == 0
    assert "20, 22, 24 and 7 more gaps" in capsys.readouterr().out
