import os
import pickle

import numpy as np
import pytest

from prefect_pipestream.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    PipeBuildingError,
    UnpicklingNotAllowedError,
    WorkerDiedError,
)
from prefect_pipestream.items import PickleItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample, SamplesSequence, build_pipe
from prefect_pipestream.storage.address import is_address
from tests.dataset_files import Files, content_of
from tests.underfolder.conftest import unused_objects


def sample(i):
    return Sample(
        {
            "image": PngImageItem(np.full((4, 4), i, np.uint8)),
            "meta": YamlMetadataItem({"i": i}),
            "common": YamlMetadataItem("all", shared=True),
        }
    )


def generated(length=12, at=None, do=None):
    def generate(i):
        if i == at:
            do()
        return sample(i)

    return SamplesSequence.from_callable(generator_fn=generate, length=length)


def files(place):
    return sorted(name.removeprefix("data/") for name in Files(place) if name.startswith("data/"))


def staged(place):
    if is_address(place):
        return unused_objects(place)
    return os.listdir(place / ".pipestream" / "staged")


def test_what_is_written_is_read_back(new_place):
    write_and_read_back(new_place, num_workers=0)


@pytest.mark.about_files
def test_what_workers_write_is_read_back(new_place):
    write_and_read_back(new_place, num_workers=2)


def write_and_read_back(place, num_workers):
    generated().to_underfolder(place).run(num_workers=num_workers, track_fn=False)
    assert files(place)[:3] == ["00_image.png", "00_meta.yaml", "01_image.png"]
    assert "common.yaml" in Files(place)
    reader = SamplesSequence.from_underfolder(place)
    assert len(reader) == 12
    for i, one in enumerate(reader):
        assert np.all(one["image"]() == i)
        assert one["meta"]() == {"i": i}
        assert one["common"].is_shared
    assert staged(place) == []
    assert "common" not in SamplesSequence.from_underfolder(place, merge_root_items=False)[0]


def test_a_sample_is_written_when_it_is_read_and_nothing_before(new_place):
    pipe = generated().to_underfolder(new_place, zfill=4)
    assert len(pipe) == 12
    assert dict(Files(new_place)) == {}
    assert pipe[3]["meta"]() == {"i": 3}
    assert files(new_place) == ["0003_image.png", "0003_meta.yaml"]


@pytest.mark.filterwarnings("ignore:.*shared item")
def test_an_existing_folder_is_refused_unless_allowed(new_place):
    generated(2).to_underfolder(new_place).run(track_fn=False)
    with pytest.raises(DatasetExistsError, match="`to_underfolder` with `exists_ok`"):
        generated(2).to_underfolder(new_place)
    generated(3).to_underfolder(new_place, exists_ok=True).run(track_fn=False)
    assert len(SamplesSequence.from_underfolder(new_place)) == 3


def test_an_empty_sequence_makes_an_empty_dataset(new_place):
    generated(0).to_underfolder(new_place).run(track_fn=False)
    assert len(SamplesSequence.from_underfolder(new_place)) == 0


def test_an_empty_sample_leaves_a_gap(new_place):
    generated(3).filter(lambda s: s["meta"]()["i"] != 1, insert_empty_samples=True).to_underfolder(
        new_place
    ).run(track_fn=False)
    reader = SamplesSequence.from_underfolder(new_place)
    assert [set(one) for one in reader][1] == {"common"}
    assert len(reader) == 3


def test_a_filter_is_not_evaluated_before_it_is_needed(new_place):
    calls = []
    kept = generated(3).filter(lambda s: calls.append(s) or True)
    pipe = kept.to_underfolder(new_place)
    assert calls == []
    pipe.run(track_fn=False)
    assert len(calls) == 3


def test_an_unchanged_item_is_linked_or_copied_as_asked(tmp_path):
    generated(1).to_underfolder(tmp_path / "a").run(track_fn=False)
    reader = SamplesSequence.from_underfolder(tmp_path / "a")
    reader.to_underfolder(
        tmp_path / "b", key_serialization_mode={"meta": "deep_copy", "image": "HARD_LINK"}
    ).run(track_fn=False)

    def inode(folder, name):
        return (tmp_path / folder / "data" / name).stat().st_ino

    assert inode("a", "0_image.png") == inode("b", "0_image.png")
    assert inode("a", "0_meta.yaml") != inode("b", "0_meta.yaml")
    with pytest.raises(PipeBuildingError, match="MOVE"):
        reader.to_underfolder(tmp_path / "c", key_serialization_mode={"meta": "MOVE"})


def test_after_an_exception_what_was_written_is_whole(new_place):
    fail_at_seven(new_place, num_workers=0)


@pytest.mark.about_files
def test_after_an_exception_what_workers_wrote_is_whole(new_place):
    fail_at_seven(new_place, num_workers=2)


def fail_at_seven(place, num_workers):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        generated(at=7, do=fail).to_underfolder(place).run(num_workers=num_workers, track_fn=False)
    assert "This was sample 7." in caught.value.__notes__
    names = files(place)
    assert "00_image.png" in names
    assert not any(name.startswith("07") for name in names)
    for name in names:
        assert name.replace("image.png", "meta.yaml") in names


def test_after_a_killed_worker_what_was_written_is_whole(tmp_path):
    with pytest.raises(WorkerDiedError):
        generated(at=7, do=lambda: os.kill(os.getpid(), 9)).to_underfolder(tmp_path / "d").run(
            num_workers=2, track_fn=False
        )
    names = files(tmp_path / "d")
    for name in names:
        assert name.replace("image.png", "meta.yaml") in names
    generated().to_underfolder(tmp_path / "d", exists_ok=True).run(num_workers=2, track_fn=False)
    assert len(files(tmp_path / "d")) == 24
    assert os.listdir(tmp_path / "d" / ".pipestream" / "staged") == []


def test_two_writers_in_one_pipe(tmp_path):
    generated(3).to_underfolder(tmp_path / "a").map(
        {"set-meta": {"key_path": "meta.i", "value": 9}}
    ).to_underfolder(tmp_path / "b").run(num_workers=2, track_fn=False)
    first = SamplesSequence.from_underfolder(tmp_path / "a")
    second = SamplesSequence.from_underfolder(tmp_path / "b")
    assert [one["meta"]()["i"] for one in first] == [0, 1, 2]
    assert [one["meta"]()["i"] for one in second] == [9, 9, 9]


def test_a_missing_dataset(new_place):
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_underfolder(new_place / "none")
    assert len(SamplesSequence.from_underfolder(new_place / "none", must_exist=False)) == 0


@pytest.mark.usefixtures("listed_at_once")
def test_watch_sees_what_comes(new_place):
    generated(2).to_underfolder(new_place, zfill=0).run(track_fn=False)
    watching = SamplesSequence.from_underfolder(new_place, watch=True)
    still = SamplesSequence.from_underfolder(new_place)
    assert len(watching) == len(still) == 2
    Files(new_place)["data/5_meta.yaml"] = content_of(sample(5)["meta"])
    assert (len(watching), len(still)) == (6, 2)
    assert watching[5]["meta"]() == {"i": 5}


def test_pickles_are_read_only_where_allowed(new_place):
    one = SamplesSequence.from_list([Sample({"p": PickleItem([1])})])
    one.to_underfolder(new_place).run(track_fn=False)
    with pytest.raises(UnpicklingNotAllowedError):
        SamplesSequence.from_underfolder(new_place)[0]["p"]()
    assert SamplesSequence.from_underfolder(new_place, allow_pickle=True)[0]["p"]() == [1]


def test_a_reader_survives_pickling_and_pipes_come_from_lists(new_place):
    operations = [
        {"toy_dataset": {"length": 4, "image_size": 8, "seed": 1}},
        {"slice": {"stop": 3}},
        {"to_underfolder": {"folder": str(new_place), "zfill": 3}},
    ]
    build_pipe(operations).run(track_fn=False)
    reader = pickle.loads(pickle.dumps(SamplesSequence.from_underfolder(new_place)))
    assert len(reader) == 3
    assert reader.to_pipe()[0]["from_underfolder"]["folder"] == str(new_place)
    assert reader.best_zfill() == 3
