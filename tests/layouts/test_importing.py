"""Imports as runs: what is new comes in, each sample keeps its index, and all can be taken back."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.errors import DatasetError, PipeBuildingError, RunTakenOverError
from prefect_pipestream.flows import clean_dataset, export_dataset, import_dataset
from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import check, compact, prune_runs, undo_run
from prefect_pipestream.underfolder.opening import open_dataset
from tests.dataset_files import Files, beside
from tests.layouts.photos import all_values, files_below, make_image, make_photos
from tests.underfolder.conftest import contents, run_of

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", "b.jpg", "d.jpg", "f.jpg")


@pytest.fixture
def dataset(new_place: Place) -> Place:
    return new_place


def imported(photos: Path, dataset: Place, **arguments: Any) -> Any:
    return import_dataset("images", photos, dataset, **arguments)


def files_by_index(dataset: Place) -> dict[int, str]:
    """The file that each sample came from."""
    there = open_dataset(dataset)
    return {idx: there.read(idx)["metadata"]()["file"] for idx in there.indices().tolist()}


def listed(dataset: Place) -> Any:
    """The classes that the dataset lists."""
    return json.loads(Files(dataset)["categories.json"])


def test_samples_keep_their_indices_while_others_come_between_them(
    photos: Path, dataset: Place
) -> None:
    first = imported(photos, dataset)
    assert first.counts["written"] == 3
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg"}
    before = contents(dataset)

    make_photos(photos, "a.jpg", "c.jpg", "e/x.png")
    second = imported(photos, dataset)

    assert second.counts["written"] == 3
    assert files_by_index(dataset) == {
        0: "b.jpg",
        1: "d.jpg",
        2: "f.jpg",
        3: "a.jpg",
        4: "c.jpg",
        5: "e/x.png",
    }
    assert before.items() <= contents(dataset).items()
    assert imported(photos, dataset).total == 0
    assert not check(dataset).problems


def test_what_changed_at_the_source_comes_again_and_nothing_else(
    photos: Path, dataset: Place
) -> None:
    imported(photos, dataset)
    stream = DataStream.read_write_underfolder(dataset)
    for idx in range(3):
        stream.set_output(idx, stream[idx].set_value("image", 255 - stream[idx]["image"]()))
    cleaned = contents(dataset)
    (photos / "d.jpg").unlink()  # in place it would be written through the link
    make_image(photos / "d.jpg", 77)

    report = imported(photos, dataset)

    assert report.counts["written"] == 1
    now = contents(dataset)
    assert now.pop("data/000001_image.jpg") == (photos / "d.jpg").read_bytes()
    cleaned.pop("data/000001_image.jpg")
    assert now == cleaned
    assert imported(photos, dataset, select="all").total == 3


def test_a_cleaned_dataset_does_not_change_its_source(photos: Path, dataset: Place) -> None:
    before = files_below(photos)
    imported(photos, dataset)
    clean_dataset(dataset, ["invert"])
    assert files_below(photos) == before


def test_what_vanished_is_told_and_removed_on_wish(photos: Path, dataset: Place) -> None:
    imported(photos, dataset)
    whole = contents(dataset)
    kept = (photos / "d.jpg").rename(photos.parent / "kept.jpg")

    report = imported(photos, dataset)
    assert report.total == 0
    assert any("d.jpg" in warning and "gone" in warning for warning in report.warnings)
    assert contents(dataset) == whole

    report = imported(photos, dataset, vanished="remove")
    assert report.counts["removed"] == 1
    assert not report.warnings
    assert files_by_index(dataset) == {0: "b.jpg", 2: "f.jpg"}
    assert not imported(photos, dataset, vanished="remove").total

    kept.rename(photos / "d.jpg")  # it is back, and gets its place again
    assert imported(photos, dataset).counts["written"] == 1
    assert contents(dataset) == whole


def test_an_empty_source_removes_nothing(photos: Path, dataset: Place) -> None:
    imported(photos, dataset)
    for path in photos.iterdir():
        path.unlink()  # as a drive that is not mounted looks
    with pytest.raises(DatasetError, match="Is it mounted"):
        imported(photos, dataset, vanished="remove")
    assert len(files_by_index(dataset)) == 3


def test_what_was_removed_from_the_dataset_does_not_come_back(photos: Path, dataset: Place) -> None:
    imported(photos, dataset)
    DataStream.read_write_underfolder(dataset).remove(1)
    assert imported(photos, dataset).total == 0
    assert files_by_index(dataset) == {0: "b.jpg", 2: "f.jpg"}
    assert imported(photos, dataset, select="all").total == 3
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg"}


def test_an_import_is_undone_as_any_run_and_its_indices_are_free_again(
    photos: Path, dataset: Place, tmp_path: Path
) -> None:
    report = imported(photos, dataset)
    undone = undo_run(dataset, report.run_key)
    assert not contents(dataset)
    others = make_photos(tmp_path / "others", "z.png")
    second = imported(others, dataset)
    assert files_by_index(dataset) == {0: "z.png"}
    undo_run(dataset, second.run_key)

    undo_run(dataset, undone.undo_run_key)  # and so is its undo
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg"}
    make_photos(photos, "a.jpg")
    imported(photos, dataset)
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg", 3: "a.jpg"}


def test_several_sources_share_a_dataset(photos: Path, dataset: Place, tmp_path: Path) -> None:
    others = make_photos(tmp_path / "others", "b.jpg", "c.jpg")
    imported(photos, dataset)
    imported(others, dataset)
    assert files_by_index(dataset) == {
        0: "b.jpg",
        1: "d.jpg",
        2: "f.jpg",
        3: "b.jpg",
        4: "c.jpg",
    }
    make_photos(photos, "a.jpg")
    make_photos(others, "a.jpg")
    imported(photos, dataset)
    imported(others, dataset)
    assert files_by_index(dataset)[5] == files_by_index(dataset)[6] == "a.jpg"
    report = imported(others, dataset, vanished="remove")
    assert not report.total  # the other source's samples are not gone


def test_a_source_that_moved_is_known_by_its_name(photos: Path, dataset: Place) -> None:
    imported(photos, dataset, options={"origin": "camera"})
    moved = photos.rename(photos.parent / "moved")
    report = imported(moved, dataset, options={"origin": "camera"})
    assert report.total == 0
    assert open_dataset(dataset).read(0)["metadata"]()["origin"] == "camera"


def test_an_import_into_a_copy_knows_its_samples_by_their_metadata(
    photos: Path, dataset: Place
) -> None:
    imported(photos, dataset)
    copy = beside(dataset, "copy")
    Files(copy).update(Files(dataset))
    make_photos(photos, "a.jpg", "c.jpg")

    imported(photos, copy)

    indices = {0: "b.jpg", 1: "d.jpg", 2: "f.jpg", 3: "a.jpg", 4: "c.jpg"}
    assert files_by_index(copy) == indices


@pytest.mark.about_files
def test_without_its_index_an_import_knows_its_samples_by_their_metadata(
    photos: Path, dataset: Path
) -> None:
    imported(photos, dataset)
    (dataset / ".pipestream/imported.jsonl").unlink()
    make_photos(photos, "a.jpg")
    imported(photos, dataset)
    assert files_by_index(dataset) == {0: "b.jpg", 1: "d.jpg", 2: "f.jpg", 3: "a.jpg"}


def test_what_an_import_saw_outlives_its_pruned_run(photos: Path, dataset: Place) -> None:
    imported(photos, dataset)
    prune_runs(dataset, timedelta(0))
    assert imported(photos, dataset).total == 0


@pytest.mark.about_files
@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        '{"run": "a"}',
        '{"run": "a", "at": 1, "origin": "o", "first": -1, "names": ["a"]}',
        '{"run": "a", "at": 1, "origin": "o", "first": 0, "names": [3]}',
        '{"run": "a", "at": 1, "origin": "o", "indices": [1, 2], "names": ["a"]}',
        '{"run": "a", "at": 1, "origin": "o", "first": 0, "names": ["a"], "more": 1}',
        "[" * 100_000,
    ],
)
def test_an_index_that_cannot_be_meant_is_an_error_and_no_other_order(
    photos: Path, dataset: Path, line: str
) -> None:
    imported(photos, dataset)
    index = dataset / ".pipestream/imported.jsonl"
    index.write_text(index.read_text() + line + "\n")
    before = contents(dataset)
    make_photos(photos, "a.jpg")
    with pytest.raises(DatasetError, match=r"imported\.jsonl: .*Remove it"):
        imported(photos, dataset)
    assert contents(dataset) == before
    index.unlink()
    imported(photos, dataset)
    assert files_by_index(dataset)[3] == "a.jpg"


@pytest.mark.parametrize("is_pruned", [False, True])
@pytest.mark.parametrize("is_undone", [False, True])
def test_samples_are_known_again_after_they_moved(
    photos: Path, dataset: Place, is_pruned: bool, is_undone: bool
) -> None:
    imported_after_samples_moved(photos, dataset, is_pruned, is_undone, is_told=False)


@pytest.mark.about_files
@pytest.mark.parametrize("is_pruned", [False, True])
@pytest.mark.parametrize("is_undone", [False, True])
def test_samples_that_moved_are_known_again_without_the_index(
    photos: Path, dataset: Path, is_pruned: bool, is_undone: bool
) -> None:
    imported_after_samples_moved(photos, dataset, is_pruned, is_undone, is_told=True)


def imported_after_samples_moved(
    photos: Path, dataset: Place, is_pruned: bool, is_undone: bool, is_told: bool
) -> None:
    imported(photos, dataset)
    clean_dataset(dataset, ["invert"])
    DataStream.read_write_underfolder(dataset).remove(0)
    compaction = compact(dataset)
    assert files_by_index(dataset) == {0: "d.jpg", 1: "f.jpg"}
    make_photos(photos, "a.jpg", "e.jpg")
    if is_undone:
        undo_run(dataset, compaction.run_key)
    if is_pruned:
        prune_runs(dataset, timedelta(0))
    if is_told:
        Path(dataset, ".pipestream/imported.jsonl").unlink()
    before = contents(dataset)
    behind = len(open_dataset(dataset))

    report = imported(photos, dataset)

    # One that was removed stays away; unless only the samples tell what was there.
    assert report.counts["written"] == 2 + is_told
    assert before.items() <= contents(dataset).items()
    names = ["a.jpg", "b.jpg", "e.jpg"] if is_told else ["a.jpg", "e.jpg"]
    found = files_by_index(dataset)
    assert [found[idx] for idx in sorted(found)[2:]] == names
    assert min(sorted(found)[2:]) >= behind
    assert not imported(photos, dataset).total


def test_new_classes_get_new_numbers_and_are_listed(tmp_path: Path, dataset: Place) -> None:
    photos = make_photos(tmp_path / "photos", "cat/a.jpg", "dog/a.jpg")
    import_dataset("image-folder", photos, dataset)
    make_photos(photos, "ant/a.jpg")
    report = import_dataset("image-folder", photos, dataset)

    assert report.counts["written"] == 1  # those of before keep their numbers, and so stay
    assert listed(dataset) == [
        {"id": 0, "name": "cat"},
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "ant"},
    ]
    assert open_dataset(dataset).read(2)["metadata"]()["label_id"] == 2
    undo_run(dataset, report.run_key)
    assert len(listed(dataset)) == 2


@pytest.mark.parametrize("broken", ['[{"id": 0, "name": "cat"}, {"id": 7}]', '"cat"', "[3]"])
def test_a_broken_list_of_classes_is_left_as_it_is(
    tmp_path: Path, dataset: Place, broken: str
) -> None:
    photos = make_photos(tmp_path / "photos", "cat/a.jpg")
    import_dataset("image-folder", photos, dataset)
    Files(dataset)["categories.json"] = broken.encode()
    make_photos(photos, "dog/a.jpg")
    with pytest.raises(DatasetError, match=r"categories\.json: the list of classes cannot be"):
        import_dataset("image-folder", photos, dataset)
    assert Files(dataset)["categories.json"] == broken.encode()


def test_classes_stay_listed_while_samples_of_another_import_have_them(
    tmp_path: Path, dataset: Place
) -> None:
    one = make_photos(tmp_path / "one", "b/1.jpg", "c/1.jpg")
    two = make_photos(tmp_path / "two", "c/2.jpg")
    first = import_dataset("image-folder", one, dataset)
    second = import_dataset("image-folder", two, dataset)
    before = listed(dataset)

    report = undo_run(dataset, first.run_key)

    assert report.left == ("/categories.json",)
    assert listed(dataset) == before
    undo_run(dataset, second.run_key)
    assert not files_by_index(dataset)


@pytest.mark.about_files
def test_copies_do_not_change_with_the_source(photos: Path, dataset: Place) -> None:
    imported(photos, dataset, link=False)
    before = contents(dataset)
    with (photos / "b.jpg").open("r+b") as file:  # as some programs overwrite a file
        file.write(b"no image any more")
    assert contents(dataset) == before


@pytest.mark.about_files
def test_the_samples_of_a_dataset_are_not_imported_into_it(photos: Path, dataset: Path) -> None:
    imported(photos, dataset)
    with pytest.raises(DatasetError, match=r"the samples of .* itself"):
        imported(dataset / "data", dataset)


def test_first_folders_stay_what_they_were(tmp_path: Path, dataset: Place) -> None:
    photos = make_photos(tmp_path / "photos", "train/cat/a.jpg", "val/cat/b.jpg")
    import_dataset("image-folder", photos, dataset)
    make_photos(photos, "extra/cat/c.jpg")  # not called as a split is
    report = import_dataset("image-folder", photos, dataset)
    assert report.counts["written"] == 1
    said = [open_dataset(dataset).read(idx)["metadata"]() for idx in range(3)]
    assert [(one["split"], one["label"]) for one in said] == [
        ("train", "cat"),
        ("val", "cat"),
        ("extra", "cat"),
    ]


def test_what_is_no_option_of_a_layout_is_refused(
    photos: Path, dataset: Place, tmp_path: Path
) -> None:
    imported(photos, dataset)
    for name in ("max_failed", "indices", "samples", "folder"):
        with pytest.raises(PipeBuildingError, match=name):
            export_dataset(dataset, "images", tmp_path / "out", {name: 1})


def test_an_import_that_chose_before_a_compaction_writes_nothing(
    photos: Path, dataset: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(photos, dataset)
    DataStream.read_write_underfolder(dataset).remove(0)
    make_photos(photos, "g.jpg")
    from prefect_pipestream.flows import importing

    def compacted_meanwhile(*arguments: Any, **named: Any) -> Any:
        assigned = assign(*arguments, **named)
        compact(dataset)
        return assigned

    assign = importing.assign
    monkeypatch.setattr(importing, "assign", compacted_meanwhile)
    with pytest.raises(RunTakenOverError, match="moved samples"):
        imported(photos, dataset, select="all")
    assert files_by_index(dataset) == {0: "d.jpg", 1: "f.jpg"}
    monkeypatch.undo()
    imported(photos, dataset)
    assert files_by_index(dataset)[3] == "g.jpg"


def test_an_import_that_failed_for_some_goes_on_with_them(photos: Path, dataset: Place) -> None:
    (photos / "c.jpg").symlink_to(photos / "later.png")
    report = imported(photos, dataset, max_failed=1.0, sample_retries=0)
    assert report.counts["written"] == 3
    (failure,) = report.failures
    assert "c.jpg" in failure.message
    assert files_by_index(dataset) == {0: "b.jpg", 2: "d.jpg", 3: "f.jpg"}

    make_image(photos / "later.png")
    (photos / "c.jpg").unlink()
    (photos / "later.png").rename(photos / "c.jpg")
    assert imported(photos, dataset).counts["written"] == 1
    assert files_by_index(dataset) == {0: "b.jpg", 1: "c.jpg", 2: "d.jpg", 3: "f.jpg"}


def test_a_run_key_goes_on_and_does_nothing_twice(photos: Path, dataset: Place) -> None:
    imported(photos, dataset, run_key="mine", indices=[0, 2])
    assert files_by_index(dataset) == {0: "b.jpg", 2: "f.jpg"}
    report = imported(photos, dataset, run_key="mine")
    assert (report.done_before, report.total) == (2, 3)
    assert sum(run_of(dataset, "mine").counts().values()) == 3


@pytest.mark.about_files
def test_a_dataset_is_not_made_inside_of_what_is_imported(photos: Path, dataset: Path) -> None:
    for folder in (photos, photos / "set", photos / "deep/set"):
        with pytest.raises(DatasetError, match="inside of what is imported"):
            imported(photos, folder)
    assert sorted(os.listdir(photos)) == ["b.jpg", "d.jpg", "f.jpg"]
    with pytest.raises(PipeBuildingError, match="bla"):
        imported(photos, dataset, options={"bla": 1})
    with pytest.raises(PipeBuildingError, match="cannot be given"):
        imported(photos, dataset, options={"classes": True})
    assert not dataset.exists()


def test_images_go_in_and_out_by_flows(photos: Path, dataset: Place, tmp_path: Path) -> None:
    imported(photos, dataset)
    report = export_dataset(dataset, "images", tmp_path / "out")
    assert report.samples == 3
    assert files_below(tmp_path / "out") == files_below(photos)
    again = SamplesSequence.from_image_folder(tmp_path / "out", classes=False, origin="o")
    first = SamplesSequence.from_image_folder(photos, classes=False, origin="o")
    assert all_values(again) == all_values(first)


def test_classes_of_two_sources_that_have_one_number_are_both_listed(
    tmp_path: Path, dataset: Place
) -> None:
    for name, label in (("one", "person"), ("two", "helmet")):
        make_photos(tmp_path / name, "images/a.jpg")
        (tmp_path / name / "labels").mkdir()
        (tmp_path / name / "labels/a.txt").write_text("0 .5 .5 .5 .5\n")
        (tmp_path / name / "data.yaml").write_text(f"train: images\nnames: [{label}]\n")
        import_dataset("yolo", tmp_path / name, dataset)

    assert listed(dataset) == [{"id": 0, "name": "person"}, {"id": 1, "name": "helmet"}]
    export_dataset(dataset, "coco", tmp_path / "out")
    (found,) = json.loads(next((tmp_path / "out/annotations").iterdir()).read_text())[
        "annotations"
    ][1:]
    assert found["category_id"] == 1
