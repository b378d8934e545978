"""A dataset from a stranger may say anything in its private files: believe none of it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.errors import DatasetError, PipestreamError
from prefect_pipestream.items import BinaryItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder.runs.listing import list_runs
from prefect_pipestream.underfolder.runs.undo import undo_run

from .folders import changed, image_of, snapshot

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def private(dataset: Path) -> Path:
    """The private folder of a dataset that one run wrote."""
    stream = DataStream.read_write_underfolder(dataset, run_key="run")
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    return dataset / ".pipestream"


def write(dataset: Path) -> None:
    DataStream.read_write_underfolder(dataset).set_output(2, Sample({"blob": BinaryItem(b"x")}))


def done_record(private: Path) -> Path:
    return next((private / "runs" / "run" / "done").rglob("*.json"))


# -- records of commits --------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]

OUT = "../../precious.txt"

HOSTILE: dict[str, Change] = {
    "removes_outside": lambda r: r["samples"][0].update(removes=[OUT]),
    "removes_shared_outside": lambda r: r["samples"][0].update(removes=["/../precious.txt"]),
    "removes_absolute": lambda r: r["samples"][0].update(removes=["//etc/passwd"]),
    "writes_outside": lambda r: r["samples"][0].update(writes={OUT: "00"}),
    "replaces_outside": lambda r: r["samples"][0].update(replaces=[OUT]),
    "shares_outside": lambda r: r.update(shared={"/../precious.txt": "00"}),
    "staged_outside": lambda r: r.update(staged="../../data"),
    "staged_at_the_root": lambda r: r.update(staged="staged/../.."),
    "staged_by_a_link": lambda r: r.update(staged="staged/link/data"),
    "tag_outside": lambda r: r.update(tag="../../../../../up"),
    "id_outside": lambda r: r.update(id="../../../up"),
    "drops_outside": lambda r: r.update(drops=["../../../../up/up"]),
    "names_are_numbers": lambda r: r["samples"][0].update(removes=[1]),
    "names_are_missing": lambda r: r["samples"][0].pop("idx"),
    "samples_are_text": lambda r: r.update(samples="abc"),
    "no_samples": lambda r: r.pop("samples"),
    "more_than_known": lambda r: r.update(extra=1),
    "another_format": lambda r: r.update(format=99),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, private: Path) -> Iterator[bytes]:
    """A commit record that would reach out of the dataset, or is none."""
    record = json.loads(done_record(private).read_bytes())
    HOSTILE[request.param](record)
    (private / "staged" / "link").symlink_to(private.parent.parent)
    return json.dumps(record).encode()


def test_a_pending_commit_from_a_stranger_touches_nothing_outside(
    hostile: bytes, private: Path
) -> None:
    dataset = private.parent
    (private / "log" / "0123-abc.json").write_bytes(hostile)
    before = snapshot(dataset)
    with pytest.raises(DatasetError, match=r"0123-abc\.json: this pending commit cannot be read"):
        write(dataset)
    assert changed(before, snapshot(dataset)) == set()
    assert SamplesSequence.from_underfolder(dataset)[1]["meta"]() == {"number": 1}


def test_an_undo_of_what_a_stranger_noted_touches_nothing_outside(
    hostile: bytes, private: Path
) -> None:
    done_record(private).write_bytes(hostile)
    before = snapshot(private.parent)
    if b"staged/link" in hostile:  # an undo has no use for where the files were staged
        undo_run(private.parent, "run", force=True)
        return
    with pytest.raises(PipestreamError):
        undo_run(private.parent, "run", force=True)
    assert changed(before, snapshot(private.parent)) == set()


def test_a_dead_writers_stage_is_swept_and_what_it_links_to_is_not(private: Path) -> None:
    staged = private / "staged"
    (staged / "dead").mkdir()
    (staged / "dead" / "file").write_text("")
    (staged / "dead" / "out").symlink_to(private.parent.parent)
    (staged / "linked").symlink_to(private.parent.parent)
    write(private.parent)
    assert not (staged / "dead").exists()


# -- all other files -----------------------------------------------------------------------

RUBBISH = [
    b"",
    b"\0\xff",
    b"[1]",
    b'"text"',
    b"null",
    b'{"run_key": [1]}',
    b"[[[0,[1],[2]],1,2]]\n",
]


@pytest.mark.parametrize("content", RUBBISH)
@pytest.mark.parametrize("name", ["journal", "claim.json", "runs/run/run.json", "lock"])
def test_rubbish_in_a_private_file_loses_nothing(name: str, content: bytes, private: Path) -> None:
    dataset = private.parent
    open_before = DataStream.read_write_underfolder(dataset)
    assert len(open_before) == 3
    (private / name).write_bytes(content)
    before = snapshot(dataset)
    write(dataset)
    assert changed(before, snapshot(dataset)) == {"data/002_blob.bin"}
    for stream in (open_before, DataStream.read_write_underfolder(dataset)):
        assert stream[2]["blob"]() == b"x"
    with pytest.raises(PipestreamError):
        DataStream.create_new_underfolder(dataset)


@pytest.mark.parametrize(
    "line",
    [
        *("[1,2]", "{}", '[[[0,["x"],[]]],{before},{after}]', "[[[-1,[],[]]],{before},{after}]"),
        *('[[["a",["0_a.bin"],[]]],{before},{after}]', "[[[1.5,[],[]]],{before},{after}]"),
        *('[[[0,["../0_a.bin"],[]]],{before},{after}]', "[[[0,[3],[]]],{before},{after}]"),
        *("[5,{before},{after}]", "[[[99999999999999999999,[],[]]],{before},{after}]"),
    ],
)
def test_journal_lines_that_nobody_wrote_are_not_believed(line: str, private: Path) -> None:
    dataset = private.parent
    stream = DataStream.read_write_underfolder(dataset)
    stream.set_output(1, stream[1].set_value("image", image_of(60)))
    assert len(stream) == 3
    before = (dataset / "data").stat().st_mtime_ns
    after = before + 1_000_000
    text = line.replace("{before}", str(before)).replace("{after}", str(after)) + "\n"
    with (private / "journal").open("a") as journal:
        journal.write(text)
    os.utime(dataset / "data", ns=(after, after))
    assert [sorted(sample) for sample in stream] == [["camera", "image", "meta"]] * 3
    assert stream.indices().tolist() == [0, 1, 2]
    write(dataset)
    assert stream[2]["blob"]() == b"x"


def test_an_undecodable_record_of_a_done_commit_is_a_clear_error(private: Path) -> None:
    done_record(private).write_bytes(b'{"format": 1}')
    with pytest.raises(DatasetError, match="this record of a commit cannot be read"):
        undo_run(private.parent, "run")
    write(private.parent)


def test_a_file_in_place_of_the_private_folder_is_a_clear_error(dataset: Path) -> None:
    (dataset / ".pipestream").write_text("a file")
    before = snapshot(dataset)
    assert len(DataStream.read_write_underfolder(dataset)) == 3
    with pytest.raises(DatasetError, match=r"\.pipestream"):
        write(dataset)
    assert changed(before, snapshot(dataset)) == set()


@pytest.mark.parametrize("back", ["run~undone-1", "other~undone-1"])
def test_runs_that_took_each_other_back_are_undone_once(back: str, private: Path) -> None:
    other = private / "runs" / "other~undone-1"
    other.mkdir()
    (other / "run.json").write_text(json.dumps({"run_key": "other", "undoes_folders": [back]}))
    info = private / "runs" / "run" / "run.json"
    facts = {"undoes_folders": ["other~undone-1"]}
    info.write_text(json.dumps({**json.loads(info.read_bytes()), **facts}))
    undo_run(private.parent, "run")
    names = sorted(path.name.partition("~")[0] for path in (private / "runs").iterdir())
    assert names == ["other", "run", "undo%3Arun"]
    assert {run.run_key: run.state for run in list_runs(private.parent)} == {
        "run": "undone",
        "other": "stopped",
        "undo:run": "finished",
    }


def test_a_journal_of_too_many_item_names_is_not_believed(private: Path) -> None:
    dataset = private.parent
    stream = DataStream.read_write_underfolder(dataset)
    assert len(stream) == 3
    before = (dataset / "data").stat().st_mtime_ns
    changes = [[0, [f"0_k{number}.bin" for number in range(70_000)], []]]
    with (private / "journal").open("a") as journal:
        journal.write(json.dumps([changes, before, before + 10**6]) + "\n")
    os.utime(dataset / "data", ns=(before + 10**6, before + 10**6))
    assert [sorted(sample) for sample in stream] == [["camera", "image", "meta"]] * 3
    write(dataset)
