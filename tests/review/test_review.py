"""Changes that are staged, shown and decided about, without Prefect."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.errors import DatasetNotFoundError, PipeBuildingError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.review import (
    Review,
    apply_review,
    changes_of_review,
    compute_review,
    discard_review,
    load_review,
    parse_indices,
)
from prefect_pipestream.sequences import REMOVE, DataStream, Sample
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import undo_run
from tests.dataset_files import Files, has_private_files, made_at
from tests.prefect_layer.datasets import (
    count_runs,
    files_of,
    make_dataset,
    runs_of,
    truncate_image,
)
from tests.underfolder.conftest import run_of


@pytest.fixture
def dataset(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, samples=6)


def test_computing_a_review_changes_no_sample(dataset: Place) -> None:
    before = files_of(dataset)
    review = compute_review(dataset, count_runs, "r1")
    assert [sample.idx for sample in review.changed] == list(range(6))
    assert files_of(dataset) == before


def test_only_what_is_approved_is_written_and_the_ledger_says_who_approved(dataset: Place) -> None:
    compute_review(dataset, count_runs, "r1")
    review = load_review(dataset, "r1")  # as another process would see it
    assert review is not None
    outcome = apply_review(review, {1, 4}, {"reviewed_by": "Ada"})
    assert outcome.applied == (1, 4)
    assert outcome.discarded == (0, 2, 3, 5)
    assert runs_of(dataset, range(6)) == [0, 1, 0, 0, 1, 0]
    found = {idx: record.outcome for idx, record in run_of(dataset, "r1").outcomes().items()}
    assert found == {
        0: "skipped",
        1: "written",
        2: "skipped",
        3: "skipped",
        4: "written",
        5: "skipped",
    }
    assert run_of(dataset, "r1").facts()["reviewed_by"] == "Ada"


def test_applying_twice_applies_once(dataset: Place) -> None:
    review = compute_review(dataset, count_runs, "r1")
    first = apply_review(review, {1, 4}, {})
    before = files_of(dataset)
    assert apply_review(review, {1, 4}, {}) == first
    assert files_of(dataset) == before


def test_another_decision_afterwards_is_told_what_was_done(dataset: Place) -> None:
    review = compute_review(dataset, count_runs, "r1")
    first = apply_review(review, {1, 4}, {})
    before = files_of(dataset)
    assert apply_review(review, {2, 3}, {}) == first
    assert files_of(dataset) == before


@pytest.mark.about_files
def test_a_review_of_a_dataset_that_moved_is_loaded_again(dataset: Path) -> None:
    review = compute_review(dataset, count_runs, "r1")
    moved = dataset.rename(dataset.with_name("moved"))
    with pytest.raises(DatasetNotFoundError, match="load the review again"):
        apply_review(review, {1}, {})
    assert not dataset.exists()
    again = load_review(moved, "r1")
    assert again is not None
    assert apply_review(again, {1}, {}).applied == (1,)


def test_an_applied_review_can_be_undone(dataset: Place) -> None:
    before = files_of(dataset)
    apply_review(compute_review(dataset, count_runs, "r1"), range(6), {})
    undo_run(dataset, "r1")
    assert files_of(dataset) == before


def test_a_sample_that_was_changed_meanwhile_is_a_conflict(dataset: Place) -> None:
    review = compute_review(dataset, count_runs, "r1")
    Files(dataset)["data/002_metadata.yaml"] = b"{number: 2, runs: 40}\n"
    outcome = apply_review(review, range(6), {})
    assert outcome.conflicts == (2,)
    assert runs_of(dataset, range(6)) == [1, 1, 40, 1, 1, 1]
    failure = run_of(dataset, "r1").outcomes()[2].failure
    assert failure is not None
    assert failure.error_type == "ConflictError"


@pytest.mark.about_files
def test_same_size_and_time_do_not_hide_another_content(dataset: Path) -> None:
    import os

    review = compute_review(dataset, count_runs, "r1")
    path = dataset / "data" / "002_metadata.yaml"
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"runs: 0", b"runs: 7"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert apply_review(review, range(6), {}).conflicts == (2,)
    assert runs_of(dataset, [2]) == [7]


def test_a_bad_sample_is_noted_and_not_to_be_decided_about(dataset: Place) -> None:
    truncate_image(dataset, 3)
    review = compute_review(dataset, ["verify-items", "invert"], "r1")
    assert [sample.idx for sample in review.changed] == [0, 1, 2, 4, 5]
    apply_review(review, range(6), {})
    record = run_of(dataset, "r1").outcomes()[3]
    assert record.outcome == "failed"
    assert record.failure is not None
    assert "003_image.png" in record.failure.message


def test_a_sample_that_would_get_another_index_is_a_bad_one(dataset: Place) -> None:
    def moved(sample: Sample) -> tuple[Sample, int]:
        return sample.set_value("image", 255 - sample["image"]()), 3

    review = compute_review(dataset, moved, "r1", indices=[2, 3])

    assert [sample.idx for sample in review.changed] == [3]
    (bad,) = [sample for sample in review.samples if sample.failure is not None]
    assert "index 3" in bad.failure[1]


def test_the_changes_are_shown_before_and_after(dataset: Place) -> None:
    def double(sample: Sample) -> Sample:
        return sample.set_value("image", 255 - sample["image"]()).deep_set("metadata.runs", 5)

    review = compute_review(dataset, double, "r1", indices=[2])
    (change,) = changes_of_review(review)
    assert change.idx == 2
    assert change.before.startswith("![before](data:image/png;base64,")
    assert change.after != change.before
    assert set(change.metadata) == {"metadata.runs: 0 → 5", "image: mean 5.5 → 249.5"}


@pytest.mark.about_files
def test_a_discarded_review_leaves_no_file(dataset: Path) -> None:
    compute_review(dataset, count_runs, "r1")
    discard_review(dataset, "r1")
    assert load_review(dataset, "r1") is None
    assert not list((dataset / ".pipestream/review").rglob("*"))


def test_shared_items_that_a_transform_adds_come_with_the_first_approved_sample(
    dataset: Place,
) -> None:
    def tell(sample: Sample) -> Sample:
        return sample.set_value_as("site", "camera", {"s": 1}).deep_set("metadata.runs", 1)

    review = compute_review(dataset, tell, "r1")
    assert "site.yaml" not in Files(dataset)
    apply_review(review, {3}, {})
    assert "site.yaml" in Files(dataset)


def test_a_wrong_stage_is_refused_before_anything_is_staged(dataset: Place) -> None:
    with pytest.raises(PipeBuildingError, match="inverrt"):
        compute_review(dataset, ["inverrt"], "r1")
    assert not has_private_files(dataset)


def test_it_stops_after_as_many_changes_as_are_wanted(dataset: Place) -> None:
    def odd_ones(sample: Sample) -> Sample:
        return count_runs(sample) if sample["metadata"]()["number"] % 2 else sample

    review = compute_review(dataset, odd_ones, "r1", most=2)
    assert [sample.idx for sample in review.changed] == [1, 3]
    assert [sample.idx for sample in review.samples] == [0, 1, 2, 3]


def test_indices_as_people_write_them() -> None:
    assert parse_indices("3, 7-9 12;13 , 20 - 21") == {3, 7, 8, 9, 12, 13, 20, 21}
    assert parse_indices("") == set()
    for wrong in ("a", "-3", "3-", "9-7", "0-99999999999"):
        with pytest.raises(ValueError, match="no sample index"):
            parse_indices(wrong)


def moved(dataset: Path) -> Path:
    """The dataset after somebody renamed its folder."""
    return dataset.rename(dataset.parent / "moved")


@pytest.mark.about_files
def test_a_review_is_decided_about_where_the_dataset_was_moved(dataset: Path) -> None:
    def change(sample: Sample) -> Sample:
        note = YamlMetadataItem({"by": "a stage"}, shared=True)
        return count_runs(sample).set_item("note", note)

    twin = dataset.parent / "twin"
    shutil.copytree(dataset, twin)
    for folder in (dataset, twin):
        compute_review(folder, change, "r1")
    before = files_of(dataset)
    folder = moved(dataset)

    review = load_review(folder, "r1")
    assert review is not None
    assert [change.metadata for change in changes_of_review(review)] == [
        ("metadata.runs: 0 → 1",)
    ] * 6
    outcome = apply_review(review, {1, 4}, {})

    assert outcome == apply_review(loaded(twin), {1, 4}, {})
    assert outcome.applied == (1, 4)
    assert files_of(folder) == files_of(twin) != before
    assert not dataset.exists()
    undo_run(folder, "r1")
    assert files_of(folder) == before


def loaded(folder: Path) -> Review:
    review = load_review(folder, "r1")
    assert review is not None
    return review


@pytest.mark.about_files
def test_a_review_is_rejected_where_the_dataset_was_moved(dataset: Path) -> None:
    before = files_of(dataset)
    compute_review(dataset, count_runs, "r1")
    folder = moved(dataset)

    outcome = apply_review(loaded(folder), set(), {})
    discard_review(folder, "r1")

    assert (outcome.applied, outcome.discarded) == ((), tuple(range(6)))
    assert {record.outcome for record in run_of(folder, "r1").outcomes().values()} == {"skipped"}
    assert files_of(folder) == before
    assert load_review(folder, "r1") is None
    assert not dataset.exists()


@pytest.mark.about_files
def test_what_changed_after_the_move_is_a_conflict(dataset: Path) -> None:
    compute_review(dataset, count_runs, "r1")
    folder = moved(dataset)
    Files(folder)["data/002_metadata.yaml"] = b"{number: 2, runs: 40}\n"

    assert apply_review(loaded(folder), range(6), {}).conflicts == (2,)
    assert runs_of(folder, range(6)) == [1, 1, 40, 1, 1, 1]


@pytest.mark.about_files
def test_a_review_is_decided_about_in_a_copy_that_kept_its_times(dataset: Path) -> None:
    compute_review(dataset, count_runs, "r1")
    copy = Path(shutil.copytree(dataset, dataset.parent / "copy"))  # new inodes, old times

    outcome = apply_review(loaded(copy), range(6), {})

    assert outcome.applied == tuple(range(6))
    assert runs_of(copy, range(6)) == [1] * 6


def test_a_removal_is_shown_and_applied_where_it_is_approved(dataset: Place) -> None:
    def drop_some(sample: Sample) -> Any:
        return REMOVE if sample["metadata"]()["number"] in (1, 3, 4) else sample

    before = files_of(dataset)
    compute_review(dataset, drop_some, "r1")
    review = load_review(dataset, "r1")
    assert review is not None
    assert {sample.idx: sample.outcome for sample in review.changed} == dict.fromkeys(
        (1, 3, 4), "removed"
    )
    shown = list(changes_of_review(review))
    assert [(one.idx, one.metadata) for one in shown] == [(idx, ("removed",)) for idx in (1, 3, 4)]
    assert all(one.before and not one.after for one in shown)
    assert files_of(dataset) == before
    other = DataStream.read_write_underfolder(dataset)
    other.set_output(3, count_runs(other[3]))
    outcome = apply_review(review, {1, 3}, {})
    assert (outcome.applied, outcome.discarded, outcome.conflicts) == ((1,), (4,), (3,))
    assert apply_review(review, {1, 3, 4}, {}).applied[0] == 1
    assert DataStream.read_write_underfolder(dataset).indices().tolist() == [0, 2, 3, 4, 5]
