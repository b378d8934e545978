"""What cannot be the key of a run is refused wherever one is given, and leaves nothing on disk."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.errors import RunKeyError
from prefect_pipestream.review import compute_review, discard_review, load_review
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder import (
    Run,
    UnderfolderWriter,
    list_runs,
    undo_run,
)
from prefect_pipestream.underfolder.runs.listing import failed_indices

from .test_cli import a_run, shell

NO_KEYS = ["", "\udc80", "run-\ud800", 7, b"run", 1.5]
ODD_KEYS = [" ", "a/b", "../up", ".", "..", ".hidden", "a\0b", "line\nbreak", "é" * 400, "~", "%2E"]

Entrance = Callable[[Path, Any], object]


def piped(folder: Path, key: Any) -> DataStream:
    output = [{"to_underfolder": {"folder": folder, "exists_ok": True}}]
    return DataStream(SamplesSequence.from_underfolder(folder), output, run_key=key)


def block_of_pipes(folder: Path, key: Any) -> DataStream:
    output = [{"to_underfolder": {"folder": str(folder), "exists_ok": True}}]
    return PipedDataStream(
        input=[{"from_underfolder": {"folder": str(folder)}}], output_pipe=output
    ).open(key)


ENTRANCES: dict[str, Entrance] = {
    "a stream": piped,
    "a stream in place": lambda f, k: DataStream.read_write_underfolder(f, run_key=k),
    "a new dataset": lambda f, k: DataStream.create_new_underfolder(f / "new", run_key=k),
    "an output": lambda f, k: DataStream.create_output_stream(f / "new", run_key=k),
    "another run of a stream": lambda f, k: DataStream.read_write_underfolder(f).with_run(k),
    "a writer": lambda f, k: UnderfolderWriter(f, exists_ok=True, run_key=k),
    "a writer of a new dataset": lambda f, k: UnderfolderWriter(f / "new", run_key=k),
    "another run of a writer": lambda f, k: UnderfolderWriter(f, exists_ok=True).for_run(k),
    "undo": lambda f, k: undo_run(f, k),
    "undo by force": lambda f, k: undo_run(f, k, force=True),
    "a run": Run.of,
    "what failed": failed_indices,
    "a review": lambda f, k: compute_review(f, Sample.shallow_copy, k),
    "a review that waits": load_review,
    "a review that is rejected": discard_review,
    "a block in place": lambda f, k: ReadWriteUnderfolder(folder=f).open(k),
    "a block of a new dataset": lambda f, k: CreateNewUnderfolder(folder=f / "new").open(k),
    "a block of an output": lambda f, k: OutputUnderfolder(folder=f / "new").open(k),
    "a block of pipes": block_of_pipes,
}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
@pytest.mark.parametrize("is_new", [True, False], ids=["never written", "with a run"])
def test_what_cannot_be_a_run_key_is_refused(
    dataset: Path, entrance: Entrance, is_new: bool
) -> None:
    if not is_new:
        a_run(dataset)
    before = everything(dataset)
    for key in NO_KEYS:
        with pytest.raises(RunKeyError, match=r"run key .*: expected text that is not empty"):
            entrance(dataset, key)
    assert everything(dataset) == before


@pytest.mark.parametrize("keys", [[], [""], ["k", "\udc80"], ["k", 7], (None,)])
def test_of_several_runs_to_undo_each_must_be_one(dataset: Path, keys: Any) -> None:
    a_run(dataset)
    before = everything(dataset)
    with pytest.raises(RunKeyError):
        undo_run(dataset, keys)
    assert everything(dataset) == before


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_any_other_text_is_a_run_key_and_comes_back_as_it_was(dataset: Path, key: str) -> None:
    runs = dataset / ".pipestream/runs"
    a_run(dataset, key)
    assert [run.run_key for run in list_runs(dataset)] == [key]
    assert [path.parent for path in dataset.parent.rglob("run.json")] == list(runs.iterdir())
    assert Run.of(dataset, key).done_indices() == {1, 2}
    assert undo_run(dataset, key).samples == 2


@pytest.mark.parametrize("key", ["", b"\xff\xfe"])
def test_the_shell_says_so_too(dataset: Path, key: str | bytes) -> None:
    a_run(dataset)
    before = everything(dataset)
    command = [sys.executable, "-m", "prefect_pipestream", "undo", str(dataset), key]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected text that is not empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(dataset) == before
    assert shell("undo", dataset, "k")[0] == 0
