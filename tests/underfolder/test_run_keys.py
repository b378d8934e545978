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
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import list_runs, undo_run
from prefect_pipestream.underfolder.opening import ledgers_of, open_writer
from prefect_pipestream.underfolder.runs.listing import failed_indices
from tests.dataset_files import beside

from .conftest import run_of
from .test_cli import a_run, shell

NO_KEYS = ["", "\udc80", "run-\ud800", 7, b"run", 1.5]
ODD_KEYS = [" ", "a/b", "../up", ".", "..", ".hidden", "a\0b", "line\nbreak", "é" * 400, "~", "%2E"]

Entrance = Callable[[Place, Any], object]


def piped(folder: Place, key: Any) -> DataStream:
    output = [{"to_underfolder": {"folder": folder, "exists_ok": True}}]
    return DataStream(SamplesSequence.from_underfolder(folder), output, run_key=key)


def block_of_pipes(folder: Place, key: Any) -> DataStream:
    output = [{"to_underfolder": {"folder": str(folder), "exists_ok": True}}]
    return PipedDataStream(
        input=[{"from_underfolder": {"folder": str(folder)}}], output_pipe=output
    ).open(key)


ENTRANCES: dict[str, Entrance] = {
    "a stream": piped,
    "a stream in place": lambda f, k: DataStream.read_write_underfolder(f, run_key=k),
    "a new dataset": lambda f, k: DataStream.create_new_underfolder(beside(f, "new"), run_key=k),
    "an output": lambda f, k: DataStream.create_output_stream(beside(f, "new"), run_key=k),
    "another run of a stream": lambda f, k: DataStream.read_write_underfolder(f).with_run(k),
    "a writer": lambda f, k: open_writer(f, exists_ok=True, run_key=k),
    "a writer of a new dataset": lambda f, k: open_writer(beside(f, "new"), run_key=k),
    "another run of a writer": lambda f, k: open_writer(f, exists_ok=True).for_run(k),
    "undo": lambda f, k: undo_run(f, k),
    "undo by force": lambda f, k: undo_run(f, k, force=True),
    "a run": run_of,
    "what failed": lambda f, k: failed_indices(ledgers_of(f), k),
    "a block in place": lambda f, k: ReadWriteUnderfolder(folder=f).open(k),
    "a block of a new dataset": lambda f, k: CreateNewUnderfolder(folder=beside(f, "new")).open(k),
    "a block of an output": lambda f, k: OutputUnderfolder(folder=beside(f, "new")).open(k),
    "a block of pipes": block_of_pipes,
}
REVIEWS: dict[str, Entrance] = {
    "a review": lambda f, k: compute_review(f, Sample.shallow_copy, k),
    "a review that waits": load_review,
    "a review that is rejected": discard_review,
}


def everything(place: Place) -> dict[str, bytes]:
    """All files of a dataset, the private ones, too; and beside it, if it is in a folder."""
    if is_address(place):
        store = open_store(Address.of(place))
        return {stat.key: store.read(stat.key).data for stat in store.objects_in("")}
    around = Path(place).parent
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in around.rglob("*")}


IS_NEW = pytest.mark.parametrize("is_new", [True, False], ids=["never written", "with a run"])


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
@IS_NEW
def test_what_cannot_be_a_run_key_is_refused(
    dataset: Place, entrance: Entrance, is_new: bool
) -> None:
    refuse_no_keys(dataset, entrance, is_new)


@pytest.mark.parametrize("entrance", REVIEWS.values(), ids=REVIEWS)
@IS_NEW
def test_what_cannot_be_the_key_of_a_review_is_refused(
    dataset: Place, entrance: Entrance, is_new: bool
) -> None:
    refuse_no_keys(dataset, entrance, is_new)


def refuse_no_keys(dataset: Place, entrance: Entrance, is_new: bool) -> None:
    if not is_new:
        a_run(dataset)
    before = everything(dataset)
    for key in NO_KEYS:
        with pytest.raises(RunKeyError, match=r"run key .*: expected text that is not empty"):
            entrance(dataset, key)
    assert everything(dataset) == before


@pytest.mark.parametrize("keys", [[], [""], ["k", "\udc80"], ["k", 7], (None,)])
def test_of_several_runs_to_undo_each_must_be_one(dataset: Place, keys: Any) -> None:
    a_run(dataset)
    before = everything(dataset)
    with pytest.raises(RunKeyError):
        undo_run(dataset, keys)
    assert everything(dataset) == before


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_any_other_text_is_a_run_key_and_comes_back_as_it_was(dataset: Place, key: str) -> None:
    a_run(dataset, key)
    assert [run.run_key for run in list_runs(dataset)] == [key]
    if not is_address(dataset):
        runs, around = Path(dataset) / ".pipestream/runs", Path(dataset).parent
        assert [path.parent for path in around.rglob("run.json")] == list(runs.iterdir())
    assert run_of(dataset, key).done_indices() == {1, 2}
    assert undo_run(dataset, key).samples == 2


@pytest.mark.parametrize("key", ["", b"\xff\xfe"])
@pytest.mark.about_files
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
