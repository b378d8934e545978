"""How long runs are kept, and what their undo takes, as flows tell of it."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from prefect_pipestream.cli import main
from prefect_pipestream.flows import clean_dataset, prune_runs, undo_run
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.flows.space import needed_bytes
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.storage.space import free_bytes
from prefect_pipestream.underfolder import keep_run, list_runs
from prefect_pipestream.underfolder import prune_runs as prune
from tests.dataset_files import beside, made_at

from .artifacts import artifact_texts
from .datasets import count_runs, files_of, make_dataset

pytestmark = pytest.mark.usefixtures("prefect_api")

LARGE = 1 << 43


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, 4)


def keys(folder: Place) -> list[str]:
    return [run.run_key for run in list_runs(folder)]


def make_huge(folder: Place) -> None:
    """Gives each sample a file with a size that no disk has, and nothing in it."""
    for idx in range(4):
        path = folder / f"data/{idx:03d}_blob.bin"
        with path.open("wb") as file:
            try:
                os.truncate(file.fileno(), LARGE)
            except OSError:
                pytest.skip("no file can be so large here")
        os.utime(path, (10**9, 10**9))


def test_old_runs_are_pruned_by_a_flow_that_says_which(folder: Place) -> None:
    before = files_of(folder)
    for key in ("a", "b", "c"):
        clean_dataset(folder, ["invert"], run_key=key, indices=[0])
    clean_dataset(folder, ["invert"], run_key="kept", indices=[1])
    keep_run(folder, "kept", "golden")
    with pytest.raises(ValueError, match="Nothing says which runs"):
        prune_runs(folder)
    assert prune_runs(folder, older_than_days=0, plan=True) == ["a", "b", "c"]
    assert keys(folder) == ["a", "b", "c", "kept"]
    assert "**3** runs would be removed" in artifact_texts("prune-dataset")[0]
    assert prune_runs(str(folder), older_than_days=1, larger_than_gb=0, keep_last=2) == ["a", "b"]
    size = "158 B" if is_address(folder) else "8.2 kB"  # a disk has blocks
    assert f"**2** runs removed for good, with {size}" in artifact_texts("prune-dataset")[0]
    assert "| b | finished |" in artifact_texts("prune-dataset")[0]
    undo_run(folder, ["c"])
    undo_run(folder, "golden")
    assert files_of(folder)["data/001_image.png"] == before["data/001_image.png"]


def test_a_run_is_gone_on_with_by_its_name_from_a_form_and_the_shell(folder: Place) -> None:
    clean_dataset(folder, ["invert"], run_key="a", indices=[0])
    keep_run(folder, "a", "golden")
    report = clean_dataset(folder, ["invert"], run_key="golden", indices=[0, 1])
    assert (report.run_key, report.done_before, report.counts["written"]) == ("a", 1, 2)
    shell = ["clean", str(folder), "--transform", "invert", "--run-key", "golden"]
    assert main(shell) == 0
    assert keys(folder) == ["a"]
    assert list_runs(folder)[0].counts["written"] == 4


def test_the_report_says_what_undo_holds(folder: Place) -> None:
    report = clean_dataset(folder, ["invert"], run_key="a")
    held = list_runs(folder)[0].undo_bytes
    assert report.undo_bytes == held > 0
    (text, *_) = artifact_texts("report-dataset")
    size = f"{held} B" if is_address(folder) else f"{held / 1000:.1f} kB"
    assert f"Its undo holds {size} of the disk" in text
    assert process_samples(folder, count_runs, target=beside(folder, "new")).undo_bytes == 0


@pytest.mark.about_files
def test_a_run_warns_before_it_would_fill_the_disk(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_huge(folder)
    report = process_samples(folder, count_runs, run_key="a", indices=[0, 1, 2])
    assert report.counts["written"] == 3
    (warning,) = report.warnings
    assert "this run can need some 26.4 TB, as what it replaces is kept" in warning
    assert f"`pipestream prune {folder} --larger-than SIZE`" in warning
    assert "The disk may be too small" in artifact_texts("report-dataset")[0]
    # Of the items that are written, and of what is left to do, alone.
    assert process_samples(folder, count_runs, run_key="b", keys=["metadata"]).warnings == []
    assert process_samples(folder, count_runs, run_key="a", indices=[0, 1]).warnings == []
    prune(folder, timedelta(0))


def test_what_a_run_needs_is_guessed_from_some_samples(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "set", 900)
    stream = DataStream.read_write_underfolder(folder)
    assert needed_bytes(stream, stream.indices(), None) == 900 * 2 * 4096
    assert needed_bytes(stream, stream.indices()[:7], ["image"]) == 7 * 4096
    (folder / "data/000_image.png").unlink()
    (folder / "data/000_image.png").symlink_to("nowhere")
    assert needed_bytes(stream, stream.indices()[:1], None) == 4096
    assert needed_bytes(stream, stream.indices()[:0], None) is None


def test_free_space_is_asked_where_a_folder_is_to_be_made(tmp_path: Path) -> None:
    free = free_bytes(str(tmp_path))
    assert free
    assert free_bytes(str(tmp_path / "not/there/yet"))
    assert free_bytes("/proc") is None  # which has no space to speak of
