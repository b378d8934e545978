"""A screen of one's own: what a sample was like, and saving only what nobody else changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_pipestream import ConflictError, DatasetError, DataStream, Sample, SamplesSequence
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.storage.address import Place, is_address
from tests.dataset_files import KINDS, Files, made_at, temporary_place
from tests.underfolder.conftest import contents, make_dataset, run_of


@pytest.fixture
def stream(new_place: Place) -> DataStream:
    return DataStream.read_write_underfolder(made_at(new_place, make_dataset))


def labelled(sample: Sample, label: int) -> Sample:
    return sample.deep_set("metadata.label", label)


def test_a_version_stays_as_long_as_nothing_changes(stream: DataStream) -> None:
    sample = stream[2]
    version = sample.version
    sample.to_dict()
    assert sample.version == version == stream[2].version == stream.versions([2])[2]
    assert labelled(sample, 3).version == version
    assert len(set(stream.versions(range(6)).values())) == 6


def test_who_wrote_a_sample_knows_its_new_version(stream: DataStream) -> None:
    changed = labelled(stream[2], 5).remove_keys("label")
    before = changed.version
    stream.set_output(2, changed)
    assert changed.version != before
    assert changed.version == stream[2].version == stream.versions([2])[2]


def test_another_format_of_an_item_is_another_version(stream: DataStream) -> None:
    changed = stream[1].set_item("metadata", JsonMetadataItem({"idx": 1}))
    stream.set_output(1, changed)
    assert changed.version == stream.versions([1])[1]


@pytest.mark.about_files
def test_what_another_process_wrote_is_seen(stream: DataStream) -> None:
    before = stream.versions(range(6))
    program = (
        "import sys; from prefect_pipestream import DataStream\n"
        "stream = DataStream.read_write_underfolder(sys.argv[1])\n"
        "stream.set_output(3, stream[3].deep_set('metadata.label', 1))\n"
        "stream.set_output(9, stream[3]); stream.remove(5)"
    )
    subprocess.run([sys.executable, "-c", program, stream.output_folder], check=True)
    after = stream.versions(range(10))
    assert {idx for idx in before if before[idx] != after[idx]} == {3, 5}
    assert after[5] == after[7] == "absent" != after[9]


@pytest.mark.usefixtures("listed_at_once")
def test_what_was_changed_by_hand_is_seen(stream: DataStream) -> None:
    before = stream.versions(range(6))
    files = Files(stream.output_folder)
    files["data/000004_mask.png"] = files["data/000001_image.png"]
    files["data/000002_metadata.yml"] = b"idx: 22\n"
    del files["data/000003_label.txt"]
    after = stream.versions(range(6))
    assert {idx for idx in before if before[idx] != after[idx]} == {2, 3, 4}
    files["common.yml"] = b"classes: [c]\n"
    assert not set(after.values()) & set(stream.versions(range(6)).values())


@pytest.mark.about_files
def test_another_file_of_the_same_size_and_time_is_another_version(stream: DataStream) -> None:
    path = Path(stream.output_folder, "data/000002_metadata.yml")
    version = stream[2].version
    fresh = path.with_suffix(".fresh")
    fresh.write_text("idx: 3\n")
    shutil.copystat(path, fresh)
    fresh.rename(path)
    assert path.read_text() == "idx: 3\n"
    assert stream.versions([2])[2] != version


@pytest.mark.about_files
def test_a_commit_that_is_being_applied_makes_nobody_scan_the_folder(stream: DataStream) -> None:
    stream.set_output(2, labelled(stream[2], 1))
    before = stream.versions([2, 7])
    folder = Path(stream.output_folder)
    data, log = folder / "data", folder / ".pipestream/log"
    (log / "1.json").write_text("its record")
    shutil.copy(data / "000001_image.png", data / "000007_image.png")  # as it places a file
    assert stream.versions([2, 7]) == before
    (log / "1.json").unlink()
    assert stream.versions([2]) == {2: before[2]}
    assert stream.versions([7]) != {7: "absent"}


@pytest.mark.about_files
def test_links_that_lead_nowhere_have_versions(stream: DataStream) -> None:
    link = Path(stream.output_folder, "data/000002_more.png")
    link.symlink_to("nowhere.png")
    version = stream[2].version
    assert stream.versions([2])[2] == version
    link.unlink()
    assert stream.versions([2])[2] != version


def test_only_the_samples_of_a_folder_have_versions(stream: DataStream) -> None:
    assert SamplesSequence.from_underfolder(stream.output_folder)[0].version is None
    assert Sample({"image": PngImageItem(np.zeros((2, 2), np.uint8))}).version is None
    other = DataStream.create_output_stream(stream.output_folder)
    with pytest.raises(DatasetError, match="the samples of a folder only"):
        other.versions([0])


def test_a_part_of_a_stream_sees_what_others_write_of_its_samples(stream: DataStream) -> None:
    part = stream.part([1, 2])
    stream.set_output(2, labelled(stream[2], 4))
    assert part.versions([1, 2]) == stream.versions([1, 2])
    with pytest.raises(ConflictError):
        part.set_output(1, labelled(part[1], 1), if_version=stream.versions([2])[2])


# -- saving if unchanged -------------------------------------------------------------------


def test_a_sample_is_saved_only_if_it_is_as_it_was_shown(stream: DataStream) -> None:
    shown = stream[2].version
    other = DataStream.read_write_underfolder(stream.output_folder)
    other.set_output(2, other[2].set_value("image", np.full((4, 5, 3), 99, np.uint8)))
    before = contents(stream.output_folder)
    with pytest.raises(ConflictError) as caught:
        stream.set_output(2, labelled(stream[2], 1), if_version=shown)
    assert caught.value.indices == [2]
    assert contents(stream.output_folder) == before
    (saved,) = stream.set_output(2, labelled(stream[2], 1), if_version=stream[2].version)
    assert stream[2]["metadata"]()["label"] == 1
    assert [saved.commit_id] == [
        commit.id for commit in run_of(stream.output_folder, stream.run_key).commits()
    ]


def test_a_sample_that_needs_no_write_is_held_against_its_version_all_the_same(
    stream: DataStream,
) -> None:
    shown = stream[2].version
    assert stream.set_output(2, stream[2], if_version=shown) == []
    stream.set_output(2, labelled(stream[2], 1))
    with pytest.raises(ConflictError):
        stream.set_output(2, stream[2], if_version=shown)
    assert [c.samples[0].idx for c in stream.run.commits()] == [2]


def test_who_overwrites_conflicts_keeps_to_a_version_that_is_given(stream: DataStream) -> None:
    shown = stream[2].version
    stream.set_output(2, labelled(stream[2], 1))
    careless = DataStream.read_write_underfolder(stream.output_folder, on_conflict="overwrite")
    with pytest.raises(ConflictError):
        careless.set_output(2, labelled(careless[2], 2), if_version=shown)
    with pytest.raises(ConflictError):
        careless.remove(2, if_version=shown)
    careless.set_output(2, labelled(careless[2], 2))
    assert stream[2]["metadata"]()["label"] == 2


def test_a_sample_is_removed_only_if_it_is_as_it_was_shown(stream: DataStream) -> None:
    shown = stream[2].version
    stream.set_output(2, labelled(stream[2], 1))
    with pytest.raises(ConflictError):
        stream.remove(2, if_version=shown)
    (removed,) = stream.remove(2, if_version=stream[2].version)
    assert removed.commit_id is not None
    assert stream.versions([2]) == {2: "absent"}
    with pytest.raises(ConflictError):
        stream.remove(2, if_version=shown)
    assert stream.remove(2, if_version="absent") == []


def test_a_sample_is_made_only_where_there_is_none(stream: DataStream) -> None:
    new = Sample({"metadata": YamlMetadataItem({"new": 1})})
    with pytest.raises(ConflictError):
        stream.set_output(3, new, if_version="absent")
    stream.set_output(7, new, if_version="absent")
    assert stream[7]["metadata"]() == {"new": 1}


ACTIONS = ("write", "remove", "by hand", "touch", "replace", "shared", "nothing")


@pytest.mark.usefixtures("listed_at_once")
@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=6))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_save_is_refused_exactly_where_the_version_is_another(
    kind: str, actions: list[tuple[str, int]]
) -> None:
    with temporary_place(kind) as place:
        made_at(place, make_dataset, 3)
        ours = DataStream.read_write_underfolder(place)
        other = DataStream.read_write_underfolder(place)
        shown = ours.versions(range(3))
        touched: set[int] = set()
        for number, (action, idx) in enumerate(actions):
            touched |= act(other, action, idx, number)
        now = ours.versions(range(3))
        assert {idx for idx in range(3) if shown[idx] != now[idx]} == touched
        for idx in range(3):
            new = Sample({"metadata": YamlMetadataItem({"ours": idx})})
            if idx in touched:
                with pytest.raises(ConflictError):
                    ours.set_output(idx, new, if_version=shown[idx])
            else:
                assert ours.set_output(idx, new, if_version=shown[idx])
            assert ours.versions([idx])[idx] == (
                "absent" if is_gone(place, idx) else ours[idx].version
            )


def is_gone(place: Place, idx: int) -> bool:
    return not Files(place).of_sample(idx)


def act(stream: DataStream, action: str, idx: int, number: int) -> set[int]:
    """Does something to a sample; returns those that are changed by it."""
    files, name = Files(stream.output_folder), f"data/{idx:06d}_metadata.yml"
    if action == "nothing" or (action != "shared" and is_gone(stream.output_folder, idx)):
        return set()
    if action in ("touch", "replace") and is_address(stream.output_folder):
        return set()  # an object has no time of its own
    match action:
        case "write":
            stream.set_output(idx, stream[idx].deep_set("metadata.number", number))
        case "remove":
            stream.remove(idx)
        case "by hand":
            files[name] = f"by: hand\nlonger: {'x' * number}\n".encode()
        case "touch":
            os.utime(Path(stream.output_folder, name), (number, number))
        case "replace":
            path = Path(stream.output_folder, name)
            fresh = path.with_suffix(".fresh")
            shutil.copy(path, fresh)
            os.utime(fresh, (0, 10**9 + number))
            fresh.rename(path)
        case "shared":
            files["common.yml"] = f"classes: {number}\n".encode()
            return {0, 1, 2}
    return {idx}
