"""The same, through the flow: a bad sample is a failed sample, and all others are written."""

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.cli.prefect_terminal import print_report
from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DatasetWriteError,
    PipeBuildingError,
)
from prefect_pipestream.flows.processing import RunReport, TooManyFailedError, process_samples
from prefect_pipestream.sequences import DataStream, SamplesSequence

from .defects import DEFECTS, MOST_PIXELS
from .folders import changed, image_of, make_dataset, snapshot
from .test_folders import immutable, mounted, read_only_mount
from .transforms import MISDEEDS, mark, misbehave

pytestmark = [
    pytest.mark.usefixtures("prefect_api", "surroundings"),
    pytest.mark.filterwarnings("ignore:.*skipped 'a stray name"),
]

CLEAN: list[Any] = ["verify-items", {"set-meta": {"key_path": "meta.cleaned", "value": True}}]


@pytest.fixture
def spoiled(dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A dataset in which each sample of an odd index has one of all defects."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS)
    monkeypatch.chdir(tmp_path)  # a pickle that runs makes a file there
    for path in (dataset / "data").iterdir():
        path.unlink()
    (dataset / "data").rmdir()
    (dataset / "camera.yaml").unlink()
    dataset.rmdir()
    make_dataset(dataset, 2 * len(DEFECTS) + 1)
    for number, defect in enumerate(DEFECTS):
        defect.spoil(dataset / "data", f"{2 * number + 1:03d}")
    (dataset / "data" / "a stray name.txt").write_text("")
    return dataset


def process(folder: Path, transform: Any = CLEAN, **arguments: Any) -> RunReport:
    """Processes a folder in place, whatever number of samples fails."""
    arguments = {"sample_retries": 0, "max_failed": 1.0, **arguments}
    return process_samples(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def check_report(report: RunReport) -> None:
    """Checks that every defect was reported with its file, its sample and what is wrong."""
    assert [failure.idx for failure in report.failures] == [2 * n + 1 for n in range(len(DEFECTS))]
    for defect, failure in zip(DEFECTS, report.failures, strict=True):
        assert failure.error_type in (defect.error.__name__, "DecodeError"), defect.name
        assert f"{failure.idx}_{defect.key}." in failure.message, defect.name
        assert failure.traceback
    assert report.counts["written"] == len(DEFECTS) + 1
    assert report.counts["failed"] == len(DEFECTS)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"chunk_size": 3}, {"tasks_per": "sample"}],
    ids=str,
)
def test_each_bad_sample_fails_alone_and_all_others_are_written(
    arguments: dict[str, Any], spoiled: Path, tmp_path: Path
) -> None:
    before = snapshot(spoiled)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = process(spoiled, **arguments)
    check_report(report)
    good = range(0, 2 * len(DEFECTS) + 1, 2)
    assert changed(before, snapshot(spoiled)) == {f"data/{idx:03d}_meta.yaml" for idx in good}
    reader = SamplesSequence.from_underfolder(spoiled)
    assert all(reader[idx]["meta"]() == {"number": idx, "cleaned": True} for idx in good)
    assert sum("a stray name" in str(warning.message) for warning in caught) == 1
    assert not (tmp_path / "unpickled").exists()


def test_a_new_dataset_holds_all_good_samples_and_nothing_of_the_bad(spoiled: Path) -> None:
    before = snapshot(spoiled.parent)
    target = spoiled / "new"
    report = process(spoiled, target=CreateNewUnderfolder(folder=target, zfill=3))
    check_report(report)
    assert sorted({int(name.split("_")[0]) for name in os.listdir(target / "data")}) == list(
        range(0, 2 * len(DEFECTS) + 1, 2)
    )
    after = snapshot(spoiled.parent)
    assert all(name.startswith("dataset/new") for name in changed(before, after))


def test_too_many_failed_samples_end_the_flow_with_everything_else_written(spoiled: Path) -> None:
    with pytest.raises(TooManyFailedError, match=r"First failure, sample 1: .*001_image\.png") as e:
        process(spoiled, max_failed=0.1)
    check_report(e.value.report)


@pytest.mark.parametrize("arguments", [{}, {"tasks_per": "sample"}], ids=str)
def test_whatever_a_transform_returns_is_at_most_a_failed_sample(
    arguments: dict[str, Any], dataset: Path
) -> None:
    make_dataset(dataset.parent / "dataset" / "more", len(MISDEEDS) + 4)
    folder = dataset / "more"
    (folder / "data" / f"{MISDEEDS.index('over_a_folder'):03d}_folder.bin").mkdir()
    before = snapshot(folder)
    report = process(folder, misbehave, **arguments)
    assert [failure.idx for failure in report.failures] == list(range(len(MISDEEDS)))
    assert not any("\0" in failure.message for failure in report.failures)
    assert report.counts["written"] == 4
    good = range(len(MISDEEDS), len(MISDEEDS) + 4)
    assert changed(before, snapshot(folder)) == {f"data/{idx:03d}_meta.yaml" for idx in good}
    assert RunReport.model_validate_json(report.model_dump_json()) == report


def test_a_bad_name_that_is_no_text_fails_its_sample_alone(dataset: Path) -> None:
    path = os.path.join(os.fsencode(dataset / "data"), b"001_\xff.yaml")
    Path(os.fsdecode(path)).write_text("a: [")
    report = process(dataset)
    [failure] = report.failures
    assert failure.idx == 1
    assert "001_\\udcff.yaml" in failure.message
    assert report.counts["written"] == 2


def test_names_with_markup_and_control_characters_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset(tmp_path / "my [/red] set", 2)
    (folder / "data" / "001_[bold]\x1b[31m\b.json").write_text("{")
    report = process(folder)
    assert "001_[bold]\\x1b[31m\\x08.json: malformed JSON" in report.failures[0].message
    capsys.readouterr()

    print_report(report, folder, is_ok=True)

    printed = "".join(capsys.readouterr().out.split())
    assert "001_[bold]\\x1b[31m\\x08.json:malformedJSON" in printed
    assert "my[/red]set'" in printed  # quoted for the shell, in the command that undoes the run
    assert not set("\x1b\b") & set(printed)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_a_file_that_may_not_be_changed_fails_its_sample_alone(
    chunk_size: int | None, dataset: Path
) -> None:
    before = snapshot(dataset)
    with immutable(dataset / "data" / "001_meta.yaml"):
        report = process(dataset, mark, chunk_size=chunk_size)
    [failure] = report.failures
    assert (failure.idx, failure.error_type) == (1, "DatasetWriteError")
    assert "001_meta.yaml" in failure.message
    assert changed(before, snapshot(dataset)) == {"data/000_meta.yaml", "data/002_meta.yaml"}


def test_a_huge_index_is_one_sample_more(dataset: Path) -> None:
    for name in ("image.png", "meta.yaml"):
        source = dataset / "data" / f"002_{name}"
        source.rename(dataset / "data" / f"999999999_{name}")
    report = process(dataset)
    assert report.counts == {"written": 3, "unchanged": 0, "skipped": 0, "failed": 0, "removed": 0}
    stream = DataStream.read_write_underfolder(dataset)
    assert stream[999_999_999]["meta"]() == {"number": 2, "cleaned": True}
    report = process(dataset, mark, indices=[0, 999_999_999, 500_000_000])
    assert (report.counts["skipped"], report.failures) == (1, [])  # where there is none


def test_a_huge_index_below_pipes_is_one_sample_more(dataset: Path) -> None:
    source = dataset / "data" / "002_image.png"
    source.rename(dataset / "data" / "999999999_image.png")
    new = dataset / "new"
    stream = PipedDataStream(
        input=[{"from_underfolder": {"folder": str(dataset)}}, {"map": {"stage": "invert"}}],
        output_pipe=[{"to_underfolder": {"folder": str(new), "zfill": 3}}],
    )
    report = process_samples(stream, ["verify-items"])
    assert report.counts["written"] == 4
    assert sorted(path.name for path in (new / "data").glob("*.png")) == [
        *("000_image.png", "001_image.png", "999999999_image.png"),
    ]


@pytest.mark.parametrize("indices", [[-1], [3], [10**30], [-(10**30)], [0, 1, 2, 10**14]])
def test_an_index_that_is_not_there_is_refused_before_anything_is_done(
    indices: list[int], dataset: Path
) -> None:
    before = snapshot(dataset)
    with pytest.raises(IndexError, match="there is no sample"):
        process(dataset, indices=indices)
    assert changed(before, snapshot(dataset)) == set()


@pytest.mark.parametrize(
    "transform",
    ["os:system", ["builtins:eval"], [{"subprocess:run": "ls"}], {"timer": "os:system"}, None, 3],
)
def test_what_is_no_stage_is_refused_before_anything_is_done(transform: Any, dataset: Path) -> None:
    before = snapshot(dataset, private=True)
    with pytest.raises(PipeBuildingError):
        process(dataset, transform)
    assert changed(before, snapshot(dataset, private=True)) == set()


# -- what is wrong with all of the dataset ends the flow -----------------------------------


def test_a_missing_folder_ends_the_flow(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        process(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="empty"):
        process(tmp_path / "empty")


def test_a_read_only_dataset_ends_the_flow_and_is_as_it_was(dataset: Path) -> None:
    before = snapshot(dataset, private=True)
    with read_only_mount(dataset), pytest.raises(DatasetWriteError, match="Read-only") as caught:
        process(dataset)
    assert caught.value.errno == errno.EROFS
    assert changed(before, snapshot(dataset, private=True)) == set()


def test_a_data_folder_that_may_not_be_changed_ends_the_flow(dataset: Path) -> None:
    before = snapshot(dataset)
    with immutable(dataset / "data"), pytest.raises(DatasetWriteError, match="not permitted"):
        process(dataset)
    assert changed(before, snapshot(dataset)) == set()


def test_a_full_disk_ends_the_flow_and_what_is_written_is_whole(
    dataset: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    before = snapshot(dataset)
    with mounted("-t", "tmpfs", "-o", "size=300k", "tmpfs", folder=small):
        target = OutputUnderfolder(folder=small / "set", zfill=3)
        with pytest.raises(DatasetWriteError, match="No space left") as caught:
            process(dataset, add_noise, target=target)
        assert caught.value.errno == errno.ENOSPC
        written = SamplesSequence.from_underfolder(small / "set")
        begun = {int(name.split("_")[0]) for name in os.listdir(small / "set" / "data")}
        assert begun < {0, 1, 2}
        for idx in begun:
            assert len(written[idx]["noise"]()) == 150_000
            assert np.array_equal(written[idx]["image"](), image_of(idx))
    assert changed(before, snapshot(dataset)) == set()


def add_noise(sample: Any) -> Any:
    from prefect_pipestream.items import BinaryItem

    return sample.set_item("noise", BinaryItem(b"n" * 150_000))


def test_a_dataset_that_leads_elsewhere_ends_the_flow(dataset: Path, tmp_path: Path) -> None:
    (dataset / "data").rename(tmp_path / "elsewhere")
    (dataset / "data").symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path, private=True)
    with pytest.raises(DatasetError, match="is a symbolic link"):
        process(dataset)
    assert changed(before, snapshot(tmp_path, private=True)) == set()
